"""From a plugin's directory to its bundle: `plugsec pack`.

    1. read plugin.toml and every schema it names        (project.py)
    2. find the files                                     (walk.py)
    3. hash each, looking for private keys as they pass; hold signatures against schemas (hints.py)
    4. write the manifest, canonically, and read it back as any reader would
    5. write the bundle beside its final name, then rename: a failure leaves nothing

The same sources give the same bytes on any machine: nothing of the clock, the user or the file system
is written, only paths, contents and whether the owner may execute.
"""

import contextlib
import hashlib
import io
import json
import os
import stat
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO

from plugsec_plugins import elf
from plugsec_plugins.errors import ElfMalformed, PackFailed, PackRefused, SecretFound
from plugsec_plugins.fields import module_files
from plugsec_plugins.foreign import HEAD_BYTES, foreign
from plugsec_plugins.hints import SOURCE_BYTES_MAX, Schemas, check_hints
from plugsec_plugins.manifest import EXECUTABLE, parse_manifest
from plugsec_plugins.project import PROJECT_FILE, Project, SchemaSource, read_project
from plugsec_plugins.secrets import OVERLAP, holds_private_key
from plugsec_plugins.walk import Found, find_files
from plugsec_policies.limits import word_of
from plugsec_policies.permissions import permission_to_plain
from plugsec_signing import canonical, zstd
from plugsec_signing.bundle import write_bundle
from plugsec_signing.envelope import MANIFEST_SCHEMA, MAX_PAYLOAD_BYTES, FileEntry, parse_envelope
from plugsec_signing.typed import NamedTuple

PLAIN = 0o644
CHUNK_BYTES = 1024 * 1024
# Enough of a file to see a script's interpreter line; the kernel reads 256 bytes (execve(2)).
SCRIPT_LINE_MAX = 256


class Packed(NamedTuple):
    """A bundle that was written; `warnings` are sentences about what its author may want to mend."""

    path: str
    bundle_id: str
    warnings: tuple[str, ...]


class _Payload(NamedTuple):
    """Where the bytes of one payload file come from: the directory, or a schema that plugin.toml holds."""

    entry: FileEntry
    content: bytes | None  # None: read from the directory
    head: bytes = b""  # how a file of the directory begins


def pack(directory: str, out_path: str | None = None, *, created: str | None = None) -> Packed:
    """Pack the plugin in `directory`; without `out_path` as PLUGIN-VERSION.plug in the working directory.

    `created` (RFC 3339, UTC) takes the place of what plugin.toml says. Raises ProjectMalformed,
    ProjectUnreadable, PackRefused (SecretFound, HintsDisagree), ManifestMalformed and PackFailed; then
    there is no output. With a name that ends in `.zst` the bundle is compressed (`plugsec_signing.zstd`).
    """
    project = read_project(directory)  # 1
    if created is not None:
        project = project._replace(created=created)
    found, hidden = find_files(directory, project.exclude)  # 2
    payload = _payload(project, found)  # 3
    machine, doubts = _machine(project, payload), tuple(_doubts(project, payload))
    manifest = manifest_of(project, [each.entry for each in payload.values()], machine)  # 4
    manifest_bytes = canonical.encode(manifest)
    parse_manifest(parse_envelope(manifest_bytes))
    if out_path is None:
        out_path = f"{project.name.partition('/')[2]}-{project.version}.plug"
    _write(project, out_path, manifest_bytes, payload)  # 5
    bundle_id = "sha256:" + hashlib.sha256(manifest_bytes).hexdigest()
    return Packed(
        out_path,
        bundle_id,
        (*_warnings(project, payload), *doubts, *_foreign_code(payload, machine), *_left_out(hidden)),
    )


def manifest_of(project: Project, files: list[FileEntry], machine: str = "") -> dict[str, Any]:
    """Return the manifest of a project with these files; a field that says nothing is left out."""
    runtime = project.runtime._asdict()
    runtime["abi"] = project.runtime.abi or machine
    optional: dict[str, Any] = {
        "summary": project.summary,
        "license": project.license,
        "source": project.source,
        "created": project.created,
        "expires": project.expires,
        "requires": {"plugsec": project.requires_plugsec} if project.requires_plugsec else None,
        "permissions": [permission_to_plain(each) for each in project.permissions],
        "limits": {word_of(field): number for field, number in project.limits.items()},
        "config_schema": project.config_schema.path if project.config_schema else None,
        "dependencies": [each._asdict() for each in project.dependencies],
        "health": project.health._asdict() if project.health else None,
        "restart": project.restart._asdict() if project.restart else None,
        "priority": project.priority,
    }
    return {
        "schema": MANIFEST_SCHEMA,
        "name": project.name,
        "version": project.version,
        "release": project.release,
        "runtime": {
            key: list(value) if isinstance(value, tuple) else value for key, value in runtime.items() if value
        },
        "methods": {name: _method(project, name) for name in project.methods},
        "files": [each._asdict() for each in files],
        **{key: value for key, value in optional.items() if value},
    }


def _method(project: Project, name: str) -> dict[str, Any]:
    method = project.methods[name]
    plain: dict[str, Any] = {key: value for key, value in method.facts._asdict().items() if value}
    for key, source in (("input", method.input), ("output", method.output)):
        if source is not None:
            plain[key] = source.path
    return plain


# The payload -----------------------------------------------------------------------------------------------


def _payload(project: Project, found: tuple[Found, ...]) -> dict[str, _Payload]:
    """Return all payload files by path, in byte order of the path."""
    payload = {file.path: _read(project.directory, file) for file in found}
    for source in _schemas(project):
        if not source.inline:
            if source.path not in payload:
                raise PackRefused(
                    f"the schema {source.path} is excluded", f"remove it from exclude in {PROJECT_FILE}"
                )
            continue
        content = _schema_bytes(source)
        entry = FileEntry(source.path, len(content), PLAIN, hashlib.sha256(content).hexdigest())
        if source.path in payload and payload[source.path].entry != entry:
            raise PackRefused(
                f"{source.path} exists, and {PROJECT_FILE} spells out another schema of that name",
                f"name the file in {PROJECT_FILE}, or delete it",
            )
        payload[source.path] = _Payload(entry, content)
    total = sum(each.entry.size for each in payload.values())
    if total > MAX_PAYLOAD_BYTES:
        raise PackRefused(
            f"the files are {total} bytes together; a bundle holds {MAX_PAYLOAD_BYTES}",
            f"exclude what is not needed in {PROJECT_FILE}",
        )
    return dict(sorted(payload.items()))


def _schemas(project: Project) -> Iterator[SchemaSource]:
    for method in project.methods.values():
        if method.input is not None:
            yield method.input
        if method.output is not None:
            yield method.output
    if project.config_schema is not None:
        yield project.config_schema


def _schema_bytes(source: SchemaSource) -> bytes:
    # Not the canonical form, which has no fractions; sorted and compact, it is as reproducible.
    return json.dumps(source.value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode() + b"\n"


def _read(directory: str, file: Found) -> _Payload:
    digest, size, head, tail = hashlib.sha256(), 0, b"", b""
    with _open(directory, file.path) as stream:
        _check_size(file.path, os.fstat(stream.fileno()).st_size)
        while chunk := stream.read(CHUNK_BYTES):
            digest.update(chunk)
            head = head or chunk[:HEAD_BYTES]
            size += len(chunk)
            _check_size(file.path, size)  # it may be growing
            if holds_private_key(tail + chunk):
                raise SecretFound(
                    f"{file.path} holds a private key",
                    f'add "{file.path}" to exclude in {PROJECT_FILE}, and keep keys elsewhere',
                )
            tail = chunk[-OVERLAP:]
    mode = EXECUTABLE if file.executable else PLAIN
    return _Payload(FileEntry(file.path, size, mode, digest.hexdigest()), None, head)


def _check_size(path: str, size: int) -> None:
    if size > MAX_PAYLOAD_BYTES:
        raise PackRefused(
            f"{path} is larger than the {MAX_PAYLOAD_BYTES} bytes that all files of a bundle can have",
            f'add "{path}" to exclude in {PROJECT_FILE}, and pass large data as an input file',
        )


def _open(directory: str, path: str) -> BinaryIO:
    """Open a file that the walk found; what has become a link or a pipe since is refused."""
    try:
        fd = os.open(
            os.path.join(directory, path), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        )
    except OSError as err:
        raise PackFailed(f"{path} cannot be read: {err.strerror}", "make it readable, or exclude it") from err
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise PackRefused(
            f"{path} is no longer a regular file", "pack again while nothing changes the directory"
        )
    return open(fd, "rb", buffering=0)


def _head(project: Project, path: str, count: int) -> bytes:
    with _open(project.directory, path) as stream:
        return stream.read(count)


def _machine(project: Project, payload: Mapping[str, _Payload]) -> str:
    """Return the machine that a native entry is built for, empty for scripts and Python."""
    entry = payload.get(project.runtime.entry)
    if project.runtime.kind != "exec" or entry is None or entry.content is not None:
        return ""
    if _head(project, entry.entry.path, len(elf.MAGIC)) != elf.MAGIC:
        return ""
    with _open(project.directory, entry.entry.path) as stream:
        machine = elf.read_elf(stream.fileno(), size=entry.entry.size).machine
    if project.runtime.abi and project.runtime.abi != machine:
        raise ElfMalformed(
            f"{entry.entry.path} is a program for {machine}, but {PROJECT_FILE} says {project.runtime.abi}",
            f'write abi = "{machine}", or build it for {project.runtime.abi}',
        )
    return machine


# Writing ---------------------------------------------------------------------------------------------------


def _write(project: Project, out_path: str, manifest_bytes: bytes, payload: Mapping[str, _Payload]) -> None:
    def open_payload(entry: FileEntry) -> BinaryIO:
        content = payload[entry.path].content
        return _open(project.directory, entry.path) if content is None else io.BytesIO(content)

    temporary = f"{out_path}.{os.getpid()}.{os.urandom(4).hex()}.tmp"
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
        try:
            with open(fd, "wb") as out:
                frame = zstd.FrameWriter(out) if zstd.is_frame_name(out_path) else None
                write_bundle(frame or out, manifest_bytes, {}, {}, open_payload)
                if frame is not None:
                    frame.finish()
                out.flush()
                os.fsync(out.fileno())
            os.rename(temporary, out_path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
    except (OSError, ValueError) as err:
        reason = err.strerror if isinstance(err, OSError) else "the name holds a NUL"
        raise PackFailed(
            f"{out_path} cannot be written: {reason}", "name a writable place with -o FILE"
        ) from err


# Advice ----------------------------------------------------------------------------------------------------


def _left_out(hidden: tuple[str, ...]) -> Iterator[str]:
    if hidden:
        more = f" and {len(hidden) - 3} more" if len(hidden) > 3 else ""
        yield f"left out, since names in a bundle do not begin with a dot: {', '.join(hidden[:3])}{more}"


def _warnings(project: Project, payload: Mapping[str, _Payload]) -> Iterator[str]:
    if not project.license:
        yield f"{PROJECT_FILE} names no license: nobody knows what they may do with the plugin"
    for method in project.methods.values():
        for key, source in (("input", method.input), ("output", method.output)):
            if source is None:
                yield f"the method {method.name} has no {key} schema: anything will be accepted"
    for permission in project.permissions:
        if not permission.reason:
            yield f"the permission {permission.name} gives no reason: whoever must allow it will ask"
    yield from _script_warnings(project, payload)


def _doubts(project: Project, payload: Mapping[str, _Payload]) -> Iterator[str]:
    """Hold the entry module's signatures against the schemas; raises HintsDisagree."""
    path = next((each for each in module_files(project.runtime.entry) if each in payload), "")
    if project.runtime.kind != "python" or not path:
        return
    schemas = {
        name: Schemas(*(each.value if each is not None else None for each in (method.input, method.output)))
        for name, method in project.methods.items()
    }
    yield from check_hints(_head(project, path, SOURCE_BYTES_MAX + 1), path, schemas)


def _foreign_code(payload: Mapping[str, _Payload], machine: str) -> Iterator[str]:
    machine = machine or os.uname().machine
    for path, each in payload.items():
        other = foreign(each.head, machine)
        if other:
            yield f"{path} is native code for {other}: it does not run on {machine}"


def _script_warnings(project: Project, payload: Mapping[str, _Payload]) -> Iterator[str]:
    entry = payload.get(project.runtime.entry)
    if project.runtime.kind != "exec" or entry is None:
        return
    head = _head(project, entry.entry.path, SCRIPT_LINE_MAX)
    if head.startswith(elf.MAGIC):
        return
    if not head.startswith(b"#!"):
        yield f"{entry.entry.path} is neither an ELF program nor a script that begins with #!"
    elif not any(permission.name == "exec" for permission in project.permissions):
        yield f"{entry.entry.path} is a script: it needs the exec permission for its interpreter to start"
