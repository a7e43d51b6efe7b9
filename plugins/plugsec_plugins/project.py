"""A plugin's directory as its author keeps it: `plugin.toml`, and the schemas it names or spells out.

Everything is checked here that can be checked without packing, so that a mistake is told as
`plugin.toml:12: …` and not as a fault of a manifest that the author never wrote.
"""

import os
import re
from collections.abc import Callable, Mapping
from typing import Any, NoReturn, TypeVar

from plugsec_plugins import fields
from plugsec_plugins.errors import PluginError, ProjectMalformed, ProjectUnreadable, SchemaRefused
from plugsec_plugins.fields import Dependency, Health, MethodFacts, Restart, RuntimeSpec
from plugsec_plugins.schema import compile_schema
from plugsec_plugins.schema.check import SCHEMA_BYTES_MAX
from plugsec_policies.errors import PolicyMalformed
from plugsec_policies.permissions import Permission
from plugsec_policies.tables import Path, Table
from plugsec_policies.toml import TEXT_MAX, Document, parse_toml
from plugsec_signing import canonical
from plugsec_signing.envelope import check_name, check_version
from plugsec_signing.errors import SigningError
from plugsec_signing.typed import NamedTuple

PROJECT_SCHEMA = "plugsec.plugin/1"
PROJECT_FILE = "plugin.toml"
EXCLUDES_MAX = 256
_SCHEMA = re.compile(r"plugsec\.plugin/[1-9][0-9]{0,8}", re.ASCII)
_SCHEMA_FILE = re.compile(r"schemas/[A-Za-z0-9_./-]+\.json", re.ASCII)

_T = TypeVar("_T")


class SchemaSource(NamedTuple):
    """A JSON Schema: the payload path it has or will get, and its value; `inline` if plugin.toml holds it."""

    path: str
    value: Any
    inline: bool


class ProjectMethod(NamedTuple):
    """A method as plugin.toml describes it."""

    name: str
    facts: MethodFacts
    input: SchemaSource | None
    output: SchemaSource | None


class Project(NamedTuple):
    """A whole plugin.toml, checked; texts are empty and numbers None where the author gave none."""

    directory: str
    name: str
    version: str
    release: int
    summary: str
    license: str
    source: str
    created: str
    expires: str
    exclude: tuple[str, ...]
    requires_plugsec: str
    runtime: RuntimeSpec
    methods: Mapping[str, ProjectMethod]
    permissions: tuple[Permission, ...]
    limits: Mapping[str, int]
    config_schema: SchemaSource | None
    dependencies: tuple[Dependency, ...]
    health: Health | None
    restart: Restart | None
    priority: int


def read_project(directory: str) -> Project:
    """Read `plugin.toml` and the schemas it names.

    Raises ProjectMalformed (`file:line`, did-you-mean) and ProjectUnreadable.
    """
    where = os.path.join(directory, PROJECT_FILE)
    data = read_file(where, TEXT_MAX, f"plugsec new NAME makes a plugin with a {PROJECT_FILE}")
    try:
        document = parse_toml(data.decode("utf-8"), where)
    except UnicodeDecodeError as err:
        raise ProjectMalformed(f"{where}: it is not UTF-8 text", "save it as UTF-8") from err
    except PolicyMalformed as err:
        raise ProjectMalformed(err.message, err.hint) from err
    return _Reader(directory, document).project()


def read_file(path: str, most: int, hint: str) -> bytes:
    """Read a regular file of at most `most` bytes. Raises ProjectUnreadable."""
    try:
        # O_NONBLOCK: a FIFO in place of the file must not make us wait for ever (open(2)).
        with open(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb") as stream:
            data = stream.read(most + 1) or b""
    except (OSError, ValueError) as err:
        reason = err.strerror if isinstance(err, OSError) else "the name holds a NUL"
        raise ProjectUnreadable(f"{path} cannot be read: {reason}", hint) from err
    if len(data) > most:
        raise ProjectUnreadable(f"{path} is longer than {most} bytes", "shorten it")
    return data


class _Reader:
    """Reads one plugin.toml."""

    def __init__(self, directory: str, document: Document) -> None:
        self._directory = directory
        self._document = document

    def _refuse(self, path: Path, message: str, hint: str) -> NoReturn:
        raise ProjectMalformed(f"{self._document.at(path)}: {message}", hint)

    def _at(self, path: Path, read: Callable[[], _T]) -> _T:
        """Return what `read` returns; give its refusal a place in plugin.toml."""
        try:
            return read()
        except (SigningError, SchemaRefused) as err:
            self._refuse(path, err.message, err.hint)

    def project(self) -> Project:
        table = Table(self._document.data, (), self._refuse)
        self._schema(table)
        name, version = table.text("name", 129), table.text("version", 64)
        self._at(("name",), lambda: check_name(name))
        self._at(("version",), lambda: check_version(version))
        runtime = self._runtime(table)
        project = Project(
            directory=self._directory,
            name=name,
            version=version,
            release=table.integer("release", 0, canonical.MAX_CANONICAL_INTEGER),
            summary=table.text("summary", fields.SUMMARY_MAX, required=False),
            license=table.text("license", fields.LICENSE_MAX, required=False),
            source=table.text("source", fields.SOURCE_MAX, required=False),
            created=fields.check_time(table, "created"),
            expires=fields.check_time(table, "expires"),
            exclude=table.texts("exclude", EXCLUDES_MAX, fields.PATH_MAX, required=False),
            requires_plugsec=fields.read_requires(table),
            runtime=runtime,
            methods=self._methods(table, runtime.kind),
            permissions=fields.read_permissions(table, "permission"),
            limits=fields.read_limits(table, sizes=True),
            config_schema=self._schema_source(table, "config_schema", "schemas/config.json"),
            dependencies=fields.read_dependencies(table),
            health=fields.read_health(table),
            restart=fields.read_restart(table),
            priority=table.integer("priority", fields.PRIORITY_MIN, fields.PRIORITY_MAX, required=False),
        )
        for key in ("summary", "license", "source"):
            if not str(getattr(project, key)).isprintable():
                table.fail(key, f"{key} holds control or invisible characters", "write one plain line")
        table.finish()
        return project

    def _schema(self, table: Table) -> None:
        schema = table.text("schema", 64)
        if schema == PROJECT_SCHEMA:
            return
        if _SCHEMA.fullmatch(schema):
            table.fail("schema", f"it is written for a newer plugsec ({schema})", "upgrade plugsec")
        table.fail(
            "schema", f"the schema {schema} is not one of a plugin", f'write schema = "{PROJECT_SCHEMA}"'
        )

    def _runtime(self, table: Table) -> RuntimeSpec:
        try:
            return fields.read_runtime(table.table("runtime"))
        except fields.UnsupportedRuntime as err:
            self._refuse(("runtime",), err.message, err.hint)

    def _methods(self, table: Table, kind: str) -> dict[str, ProjectMethod]:
        inner = table.table("methods")
        names = inner.names()
        if not 1 <= len(names) <= fields.METHODS_MAX:
            table.fail("methods", f"a plugin has 1 to {fields.METHODS_MAX} methods", "add [methods.NAME]")
        methods = {}
        for name in names:
            fields.check_method_name(inner, name, kind)
            each = inner.table(name)
            given = self._schema_source(each, "input", f"schemas/{name}.input.json")
            returned = self._schema_source(each, "output", f"schemas/{name}.output.json")
            methods[name] = ProjectMethod(name, fields.read_method_facts(each), given, returned)
        return methods

    def _schema_source(self, table: Table, key: str, own_path: str) -> SchemaSource | None:
        written = table.take(key)
        if written is None:
            return None
        if isinstance(written, str):
            source = self._schema_file(table, key, written)
        elif isinstance(written, Mapping):
            source = SchemaSource(own_path, written, True)
        else:
            table.fail(
                key,
                f"{key} is neither a schema nor the path of one",
                f'write {key} = {{ type = "object" }} or {key} = "{own_path}"',
            )
        self._at((*table.path, key), lambda: compile_schema(source.value))
        return source

    def _schema_file(self, table: Table, key: str, path: str) -> SchemaSource:
        if not _SCHEMA_FILE.fullmatch(path) or ".." in path.split("/"):
            table.fail(
                key, f"the schema {path} is not a .json file under schemas/", 'keep it as "schemas/NAME.json"'
            )
        try:
            data = read_file(os.path.join(self._directory, path), SCHEMA_BYTES_MAX, "correct the path")
        except PluginError as err:
            table.fail(key, err.message, err.hint)
        value = self._at((*table.path, key), lambda: canonical.decode(data, max_bytes=SCHEMA_BYTES_MAX))
        return SchemaSource(path, value, False)
