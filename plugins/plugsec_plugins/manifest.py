"""The manifest: what a bundle says of itself, every field of it.

`plugsec_signing.envelope` answers for identity and files; this module reads everything else from the same
decoded document and holds it against the file list: an entry that is not there, a schema that is not
there, an unknown field, permission or runtime is refused. Faults name their place as a JSON pointer.
"""

from collections.abc import Mapping

from plugsec_plugins import fields
from plugsec_plugins.errors import ManifestMalformed, NeedsOtherPlugsec, RuntimeUnsupported
from plugsec_plugins.fields import Dependency, Health, Restart, RuntimeSpec
from plugsec_plugins.schema.check import SCHEMA_BYTES_MAX, format_pointer
from plugsec_policies.permissions import BUNDLE_ROOT, Permission
from plugsec_policies.tables import Path, Table
from plugsec_policies.versions import contains, parse_range, parse_version
from plugsec_signing.envelope import Envelope, FileEntry
from plugsec_signing.typed import NamedTuple, NoReturn

EXECUTABLE = 0o755
# Read by the envelope, so known here.
_ENVELOPE_FIELDS = ("schema", "name", "version", "release", "files")


class Method(NamedTuple):
    """A callable of the plugin; `input` and `output` are payload paths of JSON Schemas, None for anything."""

    name: str
    summary: str
    input: str | None
    output: str | None
    timeout_ms: int | None
    idempotent: bool
    stream: bool


class Manifest(NamedTuple):
    """A whole manifest, checked; times are RFC 3339 texts, empty where the author gave none."""

    envelope: Envelope
    summary: str
    license: str
    source: str
    created: str
    requires_plugsec: str
    runtime: RuntimeSpec
    methods: Mapping[str, Method]
    permissions: tuple[Permission, ...]
    limits: Mapping[str, int]
    config_schema: str | None
    dependencies: tuple[Dependency, ...]
    health: Health | None
    restart: Restart | None
    priority: int


def parse_manifest(envelope: Envelope) -> Manifest:
    """Read all fields of a manifest whose envelope was checked.

    Raises ManifestMalformed, and RuntimeUnsupported for a runtime that only a later plugsec can start.
    """
    files = {entry.path: entry for entry in envelope.files}
    table = Table(envelope.raw, (), _refuse)
    for key in (*_ENVELOPE_FIELDS, "expires"):
        table.take(key)
    runtime = _runtime(table)
    _check_entry(runtime, files)
    permissions = fields.read_permissions(table, "permissions")
    _check_programs(permissions, files)
    methods = _methods(table, runtime.kind, files)
    manifest = Manifest(
        envelope=envelope,
        summary=table.text("summary", fields.SUMMARY_MAX, required=False),
        license=table.text("license", fields.LICENSE_MAX, required=False),
        source=table.text("source", fields.SOURCE_MAX, required=False),
        created=fields.check_time(table, "created"),
        requires_plugsec=fields.read_requires(table),
        runtime=runtime,
        methods=methods,
        permissions=permissions,
        limits=fields.read_limits(table, sizes=False),
        config_schema=_schema_file(table, "config_schema", files),
        dependencies=fields.read_dependencies(table),
        health=fields.read_health(table),
        restart=fields.read_restart(table),
        priority=table.integer("priority", fields.PRIORITY_MIN, fields.PRIORITY_MAX, required=False),
    )
    if manifest.health is not None and manifest.health.method not in methods:
        table.fail(
            "health",
            f"health asks the method {manifest.health.method}, which is not there",
            "name one of the methods",
        )
    table.finish()
    return manifest


def check_requires(manifest: Manifest, plugsec_version: str) -> None:
    """Return if this version of plugsec is one that the plugin accepts. Raises NeedsOtherPlugsec."""
    wanted, who = manifest.requires_plugsec, f"{manifest.envelope.name} {manifest.envelope.version}"
    if wanted and not contains(parse_range(wanted), parse_version(plugsec_version)):
        raise NeedsOtherPlugsec(
            f"{who} needs plugsec {wanted}, this is {plugsec_version}",
            "upgrade plugsec, or ask the author for a release that accepts this one",
        )


def check_machine(manifest: Manifest, machine: str) -> None:
    """Return if the native program is for this machine, by its uname(2) name. Raises RuntimeUnsupported."""
    abi, who = manifest.runtime.abi, f"{manifest.envelope.name} {manifest.envelope.version}"
    if abi and abi != machine:
        raise RuntimeUnsupported(
            f"{who} is a program for {abi}, this machine is {machine}",
            f"ask the publisher for a bundle built for {machine}",
        )


def _refuse(path: Path, message: str, hint: str) -> NoReturn:
    raise ManifestMalformed(f"the manifest at {format_pointer(path) or 'its top'}: {message}", hint)


def _runtime(table: Table) -> RuntimeSpec:
    try:
        return fields.read_runtime(table.table("runtime"))
    except fields.UnsupportedRuntime as err:
        raise RuntimeUnsupported(f"the manifest at /runtime: {err.message}", err.hint) from err


def _check_entry(runtime: RuntimeSpec, files: Mapping[str, FileEntry]) -> None:
    if runtime.kind == "python":
        if not any(path in files for path in fields.module_files(runtime.entry)):
            _refuse(
                ("runtime", "entry"),
                f"the module {runtime.entry} is not in the bundle",
                f"add {fields.module_files(runtime.entry)[0]}, or correct entry",
            )
        return
    entry = files.get(runtime.entry)
    if entry is None:
        _refuse(("runtime", "entry"), f"the program {runtime.entry} is not in the bundle", "correct entry")
    _check_executable(entry, ("runtime", "entry"))


def _check_executable(entry: FileEntry, path: Path) -> None:
    if entry.mode != EXECUTABLE:
        _refuse(
            path, f"the program {entry.path} is not executable", f"chmod +x {entry.path}, then pack again"
        )


def _check_programs(permissions: tuple[Permission, ...], files: Mapping[str, FileEntry]) -> None:
    """Hold programs of the bundle itself that are asked for against the files that there are."""
    for index, permission in enumerate(permissions):
        if permission.name != "exec":
            continue
        for atom in permission.value.atoms:
            root, _, path = atom.text.partition("/")
            if root != BUNDLE_ROOT:
                continue
            if path not in files:
                _refuse(
                    ("permissions", index), f"the program {path} is not in the bundle", "correct programs"
                )
            _check_executable(files[path], ("permissions", index))


def _methods(table: Table, kind: str, files: Mapping[str, FileEntry]) -> dict[str, Method]:
    inner = table.table("methods")
    names = inner.names()
    if not 1 <= len(names) <= fields.METHODS_MAX:
        table.fail("methods", f"a plugin has 1 to {fields.METHODS_MAX} methods", "add [methods.NAME]")
    methods = {}
    for name in names:
        fields.check_method_name(inner, name, kind)
        each = inner.table(name)
        given, returned = _schema_file(each, "input", files), _schema_file(each, "output", files)
        methods[name] = Method(
            name=name, input=given, output=returned, **fields.read_method_facts(each)._asdict()
        )
    return methods


def _schema_file(table: Table, key: str, files: Mapping[str, FileEntry]) -> str | None:
    path = table.text(key, fields.PATH_MAX, required=False)
    if not table.has(key):
        return None
    if not (path.startswith("schemas/") and path.endswith(".json")):
        table.fail(
            key, f"{key} is not the path of a schema", 'schemas are files such as "schemas/count.input.json"'
        )
    entry = files.get(path)
    if entry is None:
        table.fail(key, f"the schema {path} is not in the bundle", "correct the path, or add the file")
    if entry.size > SCHEMA_BYTES_MAX:
        table.fail(
            key, f"the schema {path} is longer than {SCHEMA_BYTES_MAX} bytes", "describe less in detail"
        )
    return path
