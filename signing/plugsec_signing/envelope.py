"""The part of a manifest that this room answers for: who, which version, which bytes.

The other fields (runtime, methods, permissions, …) belong to `plugsec_plugins.manifest`, which reads
them from `Envelope.raw` and refuses unknown ones. The bundle id is the SHA-256 of the manifest bytes;
since the manifest lists every file with size, mode and hash, the id covers every payload byte.
"""

import hashlib
import itertools
from collections.abc import Mapping

from plugsec_signing import canonical, paths
from plugsec_signing.errors import EnvelopeError, excerpt
from plugsec_signing.times import parse_time
from plugsec_signing.typed import Any, NamedTuple

MANIFEST_SCHEMA = "plugsec.manifest/1"
MAX_MANIFEST_BYTES = 8 * 1024 * 1024  # some 60,000 files with paths of ordinary length
MAX_FILES = 100_000  # whatever their paths: keeps sets and walks below a second
MAX_PAYLOAD_BYTES = 4 * 1024**3  # below the 8 GiB that eleven octal digits of a header can say
MAX_NAME_CHARS = 64  # of publisher and plugin each: they appear in file names
MAX_VERSION_CHARS = 64  # as do versions
MODES = (0o644, 0o755)
FILE_SUFFIXES = (".plug", ".plug.zst")  # a word that ends so means a file, so no name and no version may

_LOWER = frozenset("abcdefghijklmnopqrstuvwxyz0123456789")
_NAME_CHARS = _LOWER | frozenset("._-")
_IDENTIFIER_CHARS = _LOWER | frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZ-")
_DIGITS = frozenset("0123456789")
_HEX = frozenset("0123456789abcdef")
_SCHEMA_PREFIX = MANIFEST_SCHEMA.rpartition("/")[0] + "/"


class FileEntry(NamedTuple):
    """One payload file as the manifest promises it; `size` in bytes, `sha256` in lower-case hex."""

    path: str
    size: int
    mode: int
    sha256: str


class Envelope(NamedTuple):
    """A manifest whose canonical form, identity and file list were checked; `expires` in unix seconds."""

    schema: str
    name: str
    publisher: str
    plugin: str
    version: str
    release: int
    expires: int | None
    files: tuple[FileEntry, ...]
    raw: Mapping[str, Any]
    manifest_bytes: bytes
    bundle_id: str


def parse_envelope(manifest_bytes: bytes) -> Envelope:
    """Check canonical form, identity and the file list of a manifest.

    Raises JsonError, PathError or EnvelopeError (all exit 4). Fields of other rooms are not looked at.
    """
    raw = canonical.decode_canonical(manifest_bytes, max_bytes=MAX_MANIFEST_BYTES)
    if not isinstance(raw, dict):
        raise EnvelopeError("the manifest is not a JSON object", id="PLG-ENV-001")
    schema = _check_schema(raw.get("schema"))
    publisher, plugin = check_name(raw.get("name"))
    return Envelope(
        schema=schema,
        name=f"{publisher}/{plugin}",
        publisher=publisher,
        plugin=plugin,
        version=check_version(raw.get("version")),
        release=_check_release(raw.get("release")),
        expires=_check_expires(raw),
        files=_check_files(raw.get("files")),
        raw=raw,
        manifest_bytes=manifest_bytes,
        bundle_id="sha256:" + hashlib.sha256(manifest_bytes).hexdigest(),
    )


def check_name(name: object) -> tuple[str, str]:
    """Return (publisher, plugin) of `publisher/plugin`; lower-case ASCII, so homoglyphs cannot be spelt.

    It does not end like a bundle file: installed, such a plugin would be called by a word that means a file.
    """
    publisher, slash, plugin = name.partition("/") if isinstance(name, str) else ("", "", "")
    if not slash or not _is_name(publisher) or not _is_name(plugin):
        raise EnvelopeError(
            f"the name {excerpt(name)} is not `publisher/plugin` in lower-case letters, digits, `._-`",
            id="PLG-ENV-004",
        )
    if plugin.endswith(FILE_SUFFIXES):
        raise EnvelopeError(f"the name {excerpt(name)} ends like that of a bundle file", id="PLG-ENV-004")
    return publisher, plugin


def check_version(version: object) -> str:
    """Return a semantic version (semver.org 2.0.0) of at most MAX_VERSION_CHARS characters, no file's end."""
    if not isinstance(version, str) or len(version) > MAX_VERSION_CHARS or not _is_semver(version):
        raise EnvelopeError(
            f"the version {excerpt(version)} is not a semantic version such as 1.2.3", id="PLG-ENV-005"
        )
    if version.endswith(FILE_SUFFIXES):
        raise EnvelopeError(
            f"the version {excerpt(version)} ends like the name of a bundle file", id="PLG-ENV-005"
        )
    return version


def _is_name(part: str) -> bool:
    return (
        0 < len(part) <= MAX_NAME_CHARS
        and _NAME_CHARS.issuperset(part)
        and part[0] in _LOWER
        and part[-1] in _LOWER
    )


def _is_semver(version: str) -> bool:
    """Follow semver.org 2.0.0 §2, §9 and §10: only build identifiers may have leading zeros."""
    release, plus, build = version.partition("+")
    core, dash, before = release.partition("-")
    numbers = core.split(".")
    identifiers = [*(before.split(".") if dash else ()), *(build.split(".") if plus else ())]
    ordered = [*numbers, *(before.split(".") if dash else ())]
    return (
        len(numbers) == 3
        and all(part and _DIGITS.issuperset(part) for part in numbers)
        and all(part and _IDENTIFIER_CHARS.issuperset(part) for part in identifiers)
        and not any(_DIGITS.issuperset(part) and part[0] == "0" and part != "0" for part in ordered)
    )


def _check_schema(schema: object) -> str:
    if schema == MANIFEST_SCHEMA:
        return MANIFEST_SCHEMA
    number = schema.removeprefix(_SCHEMA_PREFIX) if isinstance(schema, str) else ""
    if number == schema or not number or not _DIGITS.issuperset(number) or number[0] == "0":
        raise EnvelopeError(
            f"the manifest's schema is {excerpt(schema)}, not {MANIFEST_SCHEMA!r}", id="PLG-ENV-003"
        )
    raise EnvelopeError(
        f"the bundle was made for a newer plugsec: its manifest is {excerpt(schema)}, this version reads "
        f"{MANIFEST_SCHEMA!r}",
        "upgrade plugsec",
        id="PLG-ENV-002",
    )


def _check_release(release: object) -> int:
    if type(release) is not int or release < 0:
        raise EnvelopeError(
            f"the release {excerpt(release)} is not a whole number that grows with each release",
            id="PLG-ENV-006",
        )
    return release


def _check_expires(raw: Mapping[str, Any]) -> int | None:
    if "expires" not in raw:
        return None
    expires = raw["expires"]
    seconds = parse_time(expires) if isinstance(expires, str) and expires.endswith("Z") else None
    if seconds is None:
        raise EnvelopeError(
            f"expires is {excerpt(expires)}, not a time such as 2027-01-01T00:00:00Z", id="PLG-ENV-007"
        )
    return seconds


def _check_files(files: object) -> tuple[FileEntry, ...]:
    if not isinstance(files, list) or not files:
        raise EnvelopeError("the manifest has no list of files", id="PLG-ENV-008")
    if len(files) > MAX_FILES:
        raise EnvelopeError(f"the manifest lists {len(files)} files; at most {MAX_FILES}", id="PLG-ENV-009")
    entries = tuple(_check_entry(file) for file in files)
    paths.check_paths(entry.path for entry in entries)
    for before, after in itertools.pairwise(entries):
        if before.path >= after.path:
            raise EnvelopeError(
                f"the file list is not in byte order at {excerpt(after.path)}", id="PLG-ENV-010"
            )
    total = sum(entry.size for entry in entries)
    if total > MAX_PAYLOAD_BYTES:
        raise EnvelopeError(f"the payload is {total} bytes; at most {MAX_PAYLOAD_BYTES}", id="PLG-ENV-009")
    return entries


def _check_entry(file: object) -> FileEntry:
    if not isinstance(file, dict) or file.keys() != _ENTRY_KEYS:
        raise EnvelopeError(
            f"the file {excerpt(file)} does not have exactly path, size, mode and sha256", id="PLG-ENV-008"
        )
    path, size, mode, sha256 = file["path"], file["size"], file["mode"], file["sha256"]
    if not isinstance(path, str):
        raise EnvelopeError(f"the path {excerpt(path)} is not a string", id="PLG-ENV-008")
    if type(size) is not int or size < 0:
        raise EnvelopeError(f"the size of {excerpt(path)} is {excerpt(size)}", id="PLG-ENV-008")
    if type(mode) is not int or mode not in MODES:
        raise EnvelopeError(
            f"the mode of {excerpt(path)} is {excerpt(mode)}, neither 420 (0644) nor 493 (0755)",
            id="PLG-ENV-011",
        )
    if not isinstance(sha256, str) or len(sha256) != 64 or not _HEX.issuperset(sha256):
        raise EnvelopeError(
            f"the sha256 of {excerpt(path)} is not 64 lower-case hex digits", id="PLG-ENV-008"
        )
    return FileEntry(path, size, mode, sha256)


_ENTRY_KEYS = {"path", "size", "mode", "sha256"}
