"""The parts of a plugin that its author writes: read alike from `plugin.toml` and from the manifest.

Every reader takes a `Table`, which knows how to say where a fault is, and returns a frozen type. A field
that nobody asked for is refused by `Table.finish`: an older plugsec must never ignore what a newer one
would enforce.
"""

import keyword

from plugsec_policies.errors import PolicyError
from plugsec_policies.globs import parse_glob
from plugsec_policies.limits import MILLISECONDS_MAX, parse_limit
from plugsec_policies.permissions import ASKED_MAX, PERMISSIONS_MAX, Permission, parse_permission
from plugsec_policies.suggest import did_you_mean
from plugsec_policies.tables import Table
from plugsec_policies.versions import parse_range
from plugsec_signing.typed import NamedTuple

KINDS = ("python", "exec")
# Kinds and dialects that the format knows and this version cannot run: not unknown, only not yet.
PLANNED_KINDS = frozenset({"so", "wasm", "lua", "go-plugin", "mcp", "http", "mq"})
DIALECTS = ("oneshot",)
PLANNED_DIALECTS = frozenset({"plugsec", "jsonrpc1", "lsp", "msgpack-rpc"})
# uname(2) names of the machines that the jail's system call tables cover.
MACHINES = ("x86_64", "aarch64")

SUMMARY_MAX = 500
LICENSE_MAX = 200
SOURCE_MAX = 1000
TIME_MAX = 20  # 2027-01-01T00:00:00Z
RANGE_MAX = 128
PATH_MAX = 240  # that of a bundle
# A plugin is one tool with a handful of verbs; bounds what describing it costs.
METHODS_MAX = 256
METHOD_NAME_MAX = 64
# execve(2) takes far more; a plugin's fixed arguments are few.
ARGS_MAX = 64
ARG_MAX = 4096
DEPENDENCIES_MAX = 256
_METHOD_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-")
# Attempts after which something else than starting again must happen.
RESTARTS_MAX = 1000
PRIORITY_MIN, PRIORITY_MAX = -20, 19  # nice(2)


class RuntimeSpec(NamedTuple):
    """How the plugin is started; `abi` is the machine a native program is for, empty where any will do."""

    kind: str
    entry: str
    args: tuple[str, ...]
    dialect: str
    abi: str


class MethodFacts(NamedTuple):
    """What is said of a method besides its schemas; `timeout_ms` is None when only the run's limit counts."""

    summary: str
    timeout_ms: int | None
    idempotent: bool
    stream: bool


class Dependency(NamedTuple):
    """Another plugin that this one calls, and the range of its versions."""

    name: str
    versions: str


class Health(NamedTuple):
    """How a persistent plugin is asked whether it is well."""

    method: str
    interval_ms: int
    timeout_ms: int


class Restart(NamedTuple):
    """What happens when a persistent plugin ends: `never`, `on-failure` or `always`, at most `most` times."""

    policy: str
    most: int


class UnsupportedRuntime(Exception):  # internal: the caller raises its own class
    """The runtime is known, but cannot be run yet."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.message, self.hint = message, hint


def read_runtime(table: Table) -> RuntimeSpec:
    """Read `[runtime]`. Raises UnsupportedRuntime for what later versions run."""
    kind = _known(table, "kind", KINDS, PLANNED_KINDS)
    entry = table.text("entry", PATH_MAX)
    args = table.texts("args", ARGS_MAX, ARG_MAX, required=False)
    dialect = abi = ""
    if kind == "python":
        if not all(map(_is_python_name, entry.split("."))):
            table.fail(
                "entry",
                f"the entry {entry} is not the name of a Python module",
                'write the module that defines the methods, for instance entry = "wordfreq"',
            )
        if args:
            table.fail(
                "args",
                "a python plugin takes no arguments",
                "remove args: methods get their input as parameters",
            )
    else:
        dialect = _known(table, "dialect", DIALECTS, PLANNED_DIALECTS)
        if any("\0" in arg for arg in args):
            table.fail("args", "an argument holds a NUL character", "remove it")
        abi = table.text("abi", 16, required=False)
        if abi and abi not in MACHINES:
            table.fail("abi", f"there is no machine called {abi}", did_you_mean(abi, MACHINES))
    table.finish()
    return RuntimeSpec(kind, entry, args, dialect, abi)


def _known(table: Table, key: str, known: tuple[str, ...], planned: frozenset[str]) -> str:
    word = table.text(key, 32)
    if word in planned:
        raise UnsupportedRuntime(
            f"the {key} {word} is not supported yet by this plugsec",
            f"the {key}s are {', '.join(known)}; upgrade plugsec for more",
        )
    if word not in known:
        table.fail(key, f"there is no {key} called {word}", did_you_mean(word, known))
    return word


def _is_python_name(text: str) -> bool:
    return text.isascii() and text.isidentifier() and not keyword.iskeyword(text)


def check_method_name(table: Table, name: str, kind: str) -> None:
    """Refuse a method name that the runtime could not call."""
    if len(name) > METHOD_NAME_MAX or not _METHOD_LETTERS.issuperset(name) or not name[:1].isalpha():
        table.fail(name, f"{name} is not a method's name", "use letters, digits, _ . and -, a letter first")
    if kind == "python" and not _is_python_name(name):
        table.fail(name, f"the method {name} is not a Python function's name", "use letters, digits and _")


def read_method_facts(table: Table) -> MethodFacts:
    """Read what a method says besides `input` and `output`, which the caller has taken already."""
    facts = MethodFacts(
        summary=table.text("summary", SUMMARY_MAX, required=False),
        timeout_ms=table.integer("timeout_ms", 1, MILLISECONDS_MAX, required=False) or None,
        idempotent=table.boolean("idempotent"),
        stream=table.boolean("stream"),
    )
    table.finish()
    return facts


def read_permissions(table: Table, key: str) -> tuple[Permission, ...]:
    """Read the list of permissions: `permissions` of a manifest, `permission` of plugin.toml."""
    entries = table.take(key)
    if entries is None:
        return ()
    if not isinstance(entries, list | tuple) or len(entries) > PERMISSIONS_MAX:
        table.fail(
            key, f"{key} is not a list of at most {PERMISSIONS_MAX} tables", "write [[permission]] above each"
        )
    found = []
    for index, entry in enumerate(entries):
        try:
            found.append(parse_permission(entry))
        except PolicyError as err:
            table.refuse((*table.path, key, index), err.message, err.hint)
    if sum(len(permission.value.atoms) for permission in found) > ASKED_MAX:
        table.fail(key, f"it asks for more than {ASKED_MAX} things together", "ask for what is above them")
    return tuple(found)


def read_limits(table: Table, *, sizes: bool) -> dict[str, int]:
    """Read `[limits]` into members of `Limits`; `sizes` allows `"128M"`, which a manifest must not have."""
    inner = table.maybe_table("limits")
    limits: dict[str, int] = {}
    if inner is None:
        return limits
    for name in inner.names():
        value = inner.take(name)
        try:
            field, number = parse_limit(name, value if sizes or isinstance(value, int) else None)
        except PolicyError as err:
            inner.fail(name, err.message, err.hint)
        if field in limits:
            inner.fail(name, f"the limit {field} is given twice", "keep one of them")
        limits[field] = number
    return limits


def read_requires(table: Table) -> str:
    """Read `[requires]`: the range of plugsec's versions, empty for any."""
    inner = table.maybe_table("requires")
    if inner is None:
        return ""
    versions = inner.text("plugsec", RANGE_MAX)
    _check_range(inner, "plugsec", versions)
    inner.finish()
    return versions


def _check_range(table: Table, key: str, versions: str) -> None:
    try:
        parse_range(versions)
    except PolicyError as err:
        table.fail(key, err.message, err.hint)


def read_dependencies(table: Table) -> tuple[Dependency, ...]:
    """Read `dependencies`, each with the plugin's name and a range of versions."""
    found = []
    for inner in table.tables("dependencies", DEPENDENCIES_MAX):
        name = inner.text("name", 2 * PATH_MAX)
        try:
            parse_glob(name)
        except PolicyError as err:
            inner.fail("name", err.message, err.hint)
        if "*" in name:
            inner.fail("name", "a dependency is one plugin", 'write name = "publisher/plugin"')
        versions = inner.text("versions", RANGE_MAX)
        _check_range(inner, "versions", versions)
        inner.finish()
        found.append(Dependency(name, versions))
    return tuple(found)


def read_health(table: Table) -> Health | None:
    """Read `[health]`."""
    inner = table.maybe_table("health")
    if inner is None:
        return None
    health = Health(
        method=inner.text("method", METHOD_NAME_MAX),
        interval_ms=inner.integer("interval_ms", 1, MILLISECONDS_MAX),
        timeout_ms=inner.integer("timeout_ms", 1, MILLISECONDS_MAX),
    )
    inner.finish()
    return health


def read_restart(table: Table) -> Restart | None:
    """Read `[restart]`."""
    inner = table.maybe_table("restart")
    if inner is None:
        return None
    policy = inner.text("policy", 32)
    policies = ("never", "on-failure", "always")
    if policy not in policies:
        inner.fail("policy", f"there is no restart policy called {policy}", did_you_mean(policy, policies))
    most = inner.integer("most", 0, RESTARTS_MAX, required=False, default=RESTARTS_MAX)
    inner.finish()
    return Restart(policy, most)


def check_time(table: Table, key: str) -> str:
    """Read a moment as `2027-01-01T00:00:00Z`, empty when absent."""
    from plugsec_signing.times import parse_time  # noqa: PLC0415  (most plugins give no time)

    text = table.text(key, TIME_MAX, required=False)
    if table.has(key) and (not text.endswith("Z") or parse_time(text) is None):
        table.fail(key, f"{key} is not a moment in UTC", f'write {key} = "2027-01-01T00:00:00Z"')
    return text


def module_files(module: str) -> tuple[str, ...]:
    """Name the payload files that may define a Python module; `site/` holds what was vendored."""
    stem = module.replace(".", "/")
    return (f"{stem}.py", f"{stem}/__init__.py", f"site/{stem}.py", f"site/{stem}/__init__.py")
