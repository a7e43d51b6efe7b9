"""What the policy tests share: strategies over a vocabulary so small that things overlap, and builders."""

from collections.abc import Mapping, Sequence
from typing import Any

from hypothesis import strategies as st

from plugsec_policies.decision import HostSupport, Narrowing, Request
from plugsec_policies.isolation import FLOOR, LAYERS
from plugsec_policies.limits import Limits
from plugsec_policies.permissions import PERMISSION_NAMES, Permission, parse_permission, parse_value
from plugsec_policies.policy import Policy, builtin_plain, parse_policy_toml

EVERYTHING = HostSupport(
    frozenset({*PERMISSION_NAMES, "$STATE", "$CONFIG", "$BUNDLE", "rox", "rwx"}), frozenset()
)
HEAD = 'schema = "plugsec.policy/1"\n'


def policy(text: str, where: str = "test.toml") -> Policy:
    """Make a policy of TOML without its first line."""
    return Policy.from_plain(parse_policy_toml(HEAD + text, where=where))


def asks(name: str, *, optional: bool = False, **value: Any) -> Permission:
    """Make a permission as a manifest writes it."""
    return parse_permission({"name": name, "reason": "needed", "optional": optional, **value})


def request(
    *permissions: Permission,
    signers: Sequence[str] = (),
    limits: Mapping[str, int] | None = None,
    name: str = "acme/wordfreq",
) -> Request:
    return Request("sha256:" + "0" * 64, name, "1.0.0", tuple(signers), permissions, limits or {}, "python")


# Values ----------------------------------------------------------------------------------------------------

_PARTS = st.lists(st.sampled_from(["a", "b", "ab"]), max_size=3)
_ROOTS = ["$INPUT", "$OUTPUT", "$STATE", "/srv", "/opt/a"]
_HOSTS = [
    "any",
    "a.com",
    "b.a.com",
    "c.b.a.com",
    "*.a.com",
    "*.b.a.com",
    "com.a.com",
    "10.0.0.1",
    "[2001:db8::1]",
]


def _path(roots: Sequence[str]) -> st.SearchStrategy[str]:
    return st.builds(lambda root, parts: "/".join([root, *parts]), st.sampled_from(roots), _PARTS)


def _paths(word: str) -> st.SearchStrategy[Any]:
    path = _path([root for root in _ROOTS if word == "ro" or root != "$INPUT"])
    entry = path | st.builds(
        lambda text, x: {"path": text, "access": word + x}, path, st.sampled_from(["", "x"])
    )
    return st.lists(entry, min_size=1, max_size=4)


_NAMES = st.lists(st.sampled_from(["a", "b", "a.b", "c"]), min_size=1, max_size=4)
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "fs.read": _paths("ro"),
    "fs.write": _paths("rw"),
    "net": st.lists(
        st.builds("{}:{}".format, st.sampled_from(_HOSTS), st.sampled_from(["*", "443", "80"])),
        min_size=1,
        max_size=4,
    ),
    "env": st.lists(st.sampled_from(["LANG", "TZ", "LC_ALL"]), min_size=1, max_size=3),
    "exec": st.lists(
        st.sampled_from(["/usr/bin/dash", "/usr/bin/env", "$BUNDLE/bin/a"]), min_size=1, max_size=3
    ),
    "process": st.integers(1, 6),
    "host": _NAMES,
    "events": st.dictionaries(st.sampled_from(["publish", "subscribe"]), _NAMES, min_size=1),
    "secrets": _NAMES,
    "device": _NAMES,
    "jit": st.just(True),
}
_FIELDS = {
    "fs.read": "paths",
    "fs.write": "paths",
    "net": "hosts",
    "env": "names",
    "exec": "programs",
    "process": "max",
    "host": "functions",
    "secrets": "names",
    "device": "devices",
}


def value_sets(name: str) -> st.SearchStrategy[Any]:
    """Values of one permission, parsed."""
    return VALUES[name].map(lambda raw: parse_value(name, raw))


@st.composite
def pairs_of_one_kind(draw: st.DrawFn, count: int = 2) -> tuple[Any, ...]:
    """Several values of the same, drawn, permission."""
    name = draw(st.sampled_from(PERMISSION_NAMES))
    return tuple(draw(value_sets(name)) for _ in range(count))


@st.composite
def permissions(draw: st.DrawFn) -> Permission:
    name = draw(st.sampled_from(PERMISSION_NAMES))
    raw = draw(VALUES[name])
    entry: dict[str, Any] = {"name": name, "optional": draw(st.booleans())}
    if name == "events":
        entry |= raw
    elif name != "jit":
        entry[_FIELDS[name]] = raw
    return parse_permission(entry)


# Policies and requests ---------------------------------------------------------------------------------------

_LIMITS = st.fixed_dictionaries({field: st.integers(1, 9) for field in Limits._fields})
_PLUGINS = st.lists(
    st.sampled_from(["*", "acme/*", "acme/word*", "other/x", "acme/wordfreq"]), min_size=1, max_size=2
)
_KEYS = ["release", "review"]


def _deny_form(name: str, raw: Any) -> Any:
    """A denial takes no access words and no numbers of processes."""
    if name == "process":
        return True
    if name.startswith("fs."):
        return [item["path"] if isinstance(item, dict) else item for item in raw]
    return raw


@st.composite
def _rules(draw: st.DrawFn, deny: bool) -> dict[str, Any]:
    names = draw(st.lists(st.sampled_from(PERMISSION_NAMES), min_size=1, max_size=4, unique=True))
    raw = {name: draw(VALUES[name]) for name in names}
    return {
        "id": "rule",
        "where": "random.toml:1",
        "plugins": draw(_PLUGINS),
        "signed_by": [] if deny else draw(st.lists(st.sampled_from(_KEYS), max_size=1)),
        "expires": None if deny else draw(st.sampled_from([None, None, 50, 150])),
        "permissions": {name: _deny_form(name, value) if deny else value for name, value in raw.items()},
    }


@st.composite
def isolations(draw: st.DrawFn) -> dict[str, list[str]]:
    levels = {layer: draw(st.integers(0, 3)) for layer in LAYERS}
    for layer in FLOOR:
        levels[layer] = 3
    return {
        "required": sorted(layer for layer, level in levels.items() if level >= 2),
        "allow_degraded": sorted(layer for layer, level in levels.items() if level in (1, 2)),
    }


@st.composite
def policies(draw: st.DrawFn) -> Policy:
    plain = {
        **builtin_plain("strict"),
        "where": "random.toml",
        "isolation": draw(isolations()),
        "limits": draw(_LIMITS),
        "grants": draw(st.lists(_rules(deny=False), max_size=4)),
        "denies": draw(st.lists(_rules(deny=True), max_size=2)),
    }
    return Policy.from_plain(plain)


@st.composite
def generous_policies(draw: st.DrawFn) -> Policy:
    """Policies that grant so much that most requests pass, and deny little."""
    drawn = draw(policies())
    plain = {
        **builtin_plain("strict"),
        "where": "generous.toml",
        "limits": drawn.limits._asdict(),
        "isolation": {
            "required": sorted(drawn.isolation.required),
            "allow_degraded": sorted(drawn.isolation.allow_degraded),
        },
        "grants": [
            {
                "id": "much",
                "where": "generous.toml:1",
                "plugins": ["*"],
                "signed_by": [],
                "expires": None,
                "permissions": {
                    "fs.read": [{"path": root, "access": "rox"} for root in _ROOTS],
                    "fs.write": [{"path": root, "access": "rwx"} for root in _ROOTS if root != "$INPUT"],
                    "net": ["any:*"],
                    "env": ["LANG", "TZ", "LC_ALL"],
                    "process": 6,
                    "jit": True,
                    "exec": ["/usr/bin/dash", "/usr/bin/env", "$BUNDLE/bin/a"],
                    "host": ["a", "b", "a.b", "c"],
                    "secrets": ["a", "b", "a.b", "c"],
                    "device": ["a", "b", "a.b", "c"],
                    "events": {"publish": ["a", "b", "a.b", "c"], "subscribe": ["a", "b", "a.b", "c"]},
                },
            }
        ],
    }
    plain["denies"] = draw(st.lists(_rules(deny=True), max_size=1))
    return Policy.from_plain(plain)


def any_policies() -> st.SearchStrategy[Policy]:
    return policies() | generous_policies()


@st.composite
def requests(draw: st.DrawFn) -> Request:
    limits = draw(st.dictionaries(st.sampled_from(Limits._fields), st.integers(1, 12)))
    return request(
        *draw(st.lists(permissions(), max_size=4)),
        limits=limits,
        signers=draw(st.lists(st.sampled_from(_KEYS), unique=True)),
    )


@st.composite
def narrowings(draw: st.DrawFn) -> Narrowing:
    limits = draw(st.dictionaries(st.sampled_from(Limits._fields), st.integers(1, 12)))
    return Narrowing(limits, frozenset(draw(st.lists(st.sampled_from(LAYERS), max_size=1))))
