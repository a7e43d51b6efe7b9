"""Each permission's value: what is accepted, what is refused, what can never be granted."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugsec_policies.errors import NeverGrantable, PermissionInvalid, PolicyError
from plugsec_policies.permissions import (
    ATOMS_MAX,
    PERMISSION_NAMES,
    Atom,
    parse_permission,
    parse_value,
)

GOOD = [
    ("fs.read", ["$INPUT"], {Atom("$INPUT", "ro")}),
    ("fs.read", ["/srv/data", "/srv/data/more"], {Atom("/srv/data", "ro")}),
    ("fs.read", [{"path": "/opt/tool", "access": "rox"}], {Atom("/opt/tool", "rox")}),
    (
        "fs.read",
        ["/srv", {"path": "/srv/lib", "access": "rox"}],
        {Atom("/srv", "ro"), Atom("/srv/lib", "rox")},
    ),
    ("fs.read", ["/sr", "/srv"], {Atom("/sr", "ro"), Atom("/srv", "ro")}),
    ("fs.read", ["$CONFIG/a", "$STATE"], {Atom("$CONFIG/a", "ro"), Atom("$STATE", "ro")}),
    (
        "fs.read",
        ["/processes", "/system", "/devices"],
        {Atom(p, "ro") for p in ("/processes", "/system", "/devices")},
    ),
    ("fs.read", ["/srv/ünïcode"], {Atom("/srv/ünïcode", "ro")}),
    ("fs.write", ["$OUTPUT/a"], {Atom("$OUTPUT/a", "rw")}),
    ("net", ["api.acme.com:443"], {Atom("api.acme.com", "", 443)}),
    ("net", ["API.Acme.COM:443"], {Atom("api.acme.com", "", 443)}),
    ("net", ["*.acme.com:443", "api.acme.com:443"], {Atom("*.acme.com", "", 443)}),
    ("net", ["*.acme.com:443", "acme.com:443"], {Atom("*.acme.com", "", 443), Atom("acme.com", "", 443)}),
    ("net", ["any:443"], {Atom("any", "", 443)}),
    ("net", ["169.254.169.254:*"], {Atom("169.254.169.254", "", 0)}),
    ("net", ["[2001:DB8:0::1]:443"], {Atom("[2001:db8::1]", "", 443)}),
    ("net", ["[::ffff:10.0.0.1]:80"], {Atom("10.0.0.1", "", 80)}),
    ("env", ["LANG", "TZ"], {Atom("LANG"), Atom("TZ")}),
    ("exec", ["/usr/bin/dash", "$BUNDLE/bin/helper"], {Atom("/usr/bin/dash"), Atom("$BUNDLE/bin/helper")}),
    ("process", 4, {Atom(number=4)}),
    ("host", ["kv.get"], {Atom("kv.get")}),
    ("events", {"publish": ["a"], "subscribe": ["a"]}, {Atom("a", "publish"), Atom("a", "subscribe")}),
    ("secrets", ["db-password"], {Atom("db-password")}),
    ("device", ["gpu"], {Atom("gpu")}),
    ("jit", True, {Atom()}),
]

BAD = [
    *[
        ("fs.read", [path])
        for path in (
            "",
            "relative",
            "./a",
            "../a",
            "/a/../b",
            "/a/./b",
            "/a//b",
            "/a/",
            "//a",
            "$INPUT/",
            "$HOME",
            "$input",
            "$INPUT/..",
            "~",
            "/a\0b",
            "/a\nb",
            "/a\x1b[2J",
            "/a\u202eb",
            "/a*",
            "/a?",
            "/" + "a" * 256,
            "/a" * 65,
            "/" + "ü" * 128 + "/" + "ab/" * 10,
            "/\ud800",
            1,
            None,
            True,
            ["/a"],
            "/a/" + "b/" * 4000,
        )
    ],
    ("fs.read", []),
    ("fs.read", "/srv"),
    ("fs.read", {"path": "/srv"}),
    ("fs.read", None),
    ("fs.read", [{"path": "/srv", "access": "rw"}]),
    ("fs.read", [{"path": "/srv"}]),
    ("fs.read", [{"path": "/srv", "access": "rox", "more": 1}]),
    ("fs.read", [{"access": "rox"}]),
    ("fs.write", ["$INPUT"]),
    ("fs.write", ["$INPUT/a"]),
    ("fs.write", ["$CONFIG"]),
    *[
        ("net", [text])
        for text in (
            "acme.com",
            "acme.com:",
            "acme.com:0",
            "acme.com:65536",
            "acme.com:0443",
            "acme.com:https",
            ":443",
            "*:443",
            "*.*.com:443",
            "a.*.com:443",
            "acme.com.:443",
            ".acme.com:443",
            "-a.com:443",
            "a-.com:443",
            "a_b.com:443",
            "a b.com:443",
            "http://acme.com:443",
            "user@acme.com:443",
            "acme.com:443/x",
            "1.2.3:443",
            "01.2.3.4:443",
            "256.1.1.1:443",
            "0x7f.1:443",
            "0x7f000001:443",
            "127.1:443",
            "2130706433:443",
            "a.123:443",
            "[::1:443",
            "[::1%eth0]:443",
            "::1:443",
            "[zz]:443",
            "ünïcode.com:443",
            "a" * 64 + ".com:443",
            "any:any",
            "*.any.com.:443",
            "acme.com:٤٤٣",
            "\u200bacme.com:443",
            443,
            None,
        )
    ],
    *[
        ("env", [name])
        for name in ("", "1A", "A-B", "A=B", "A B", "A\n", "ü", "A" * 129, "*", "ACME_*", 1, None)
    ],
    *[
        ("exec", [path])
        for path in (
            "dash",
            "bin/helper",
            "./x",
            "$INPUT/x",
            "$BUNDLE",
            "$BUNDLE/",
            "$BUNDLE/../x",
            "$BUNDLE//x",
            "/usr/bin/../x",
            1,
        )
    ],
    *[("process", number) for number in (0, -1, True, 1.0, "4", None, 2**63, [4], 4_194_305)],
    *[("host", [name]) for name in ("", "A", "a..b", ".a", "a.", "a b", "a" * 129, "a/b", 1)],
    ("events", {}),
    ("events", ["a"]),
    ("events", {"publish": []}),
    ("events", {"emit": ["a"]}),
    ("events", {"publish": "a"}),
    ("secrets", []),
    ("device", "gpu"),
    *[("jit", value) for value in (False, 1, "true", None, [True])],
    ("fs.raed", ["/srv"]),
    ("", 1),
    (None, 1),
    (["net"], 1),
    ({"a": 1}, 1),
]

NEVER = [
    *[
        ("fs.read", [path])
        for path in ("/", "/proc", "/proc/1/root", "/sys", "/sys/kernel", "/dev", "/dev/mem")
    ],
    *[("fs.write", [path]) for path in ("/", "/proc/self", "/dev/shm")],
    ("exec", ["/proc/self/exe"]),
    *[
        ("env", [name])
        for name in (
            "LD_PRELOAD",
            "LD_LIBRARY_PATH",
            "LD_AUDIT",
            "ld_preload",
            "PYTHONPATH",
            "PYTHONSTARTUP",
            "PYTHON_GIL",
            "GLIBC_TUNABLES",
            "BASH_ENV",
            "ENV",
            "IFS",
            "PS4",
            "BASH_FUNC_ls",
            "SHELLOPTS",
            "PROMPT_COMMAND",
            "MALLOC_CHECK_",
            "GCONV_PATH",
            "LOCPATH",
            "HOSTALIASES",
            "NODE_OPTIONS",
            "PERL5OPT",
            "RUBYOPT",
            "JAVA_TOOL_OPTIONS",
            "LUA_INIT",
            "OPENSSL_CONF",
            "PATH",
            "HOME",
            "TMPDIR",
            "PLUGSEC_RPC_FD",
            "DYLD_INSERT_LIBRARIES",
        )
    ],
]


@pytest.mark.parametrize(("name", "raw", "atoms"), GOOD, ids=lambda each: str(each)[:40])
def test_a_good_value_is_read(name, raw, atoms):
    value = parse_value(name, raw)
    assert set(value.atoms) == atoms
    assert list(value.atoms) == sorted(value.atoms)


@pytest.mark.parametrize(("name", "raw"), BAD, ids=lambda each: ascii(each)[:40])
def test_a_bad_value_is_refused(name, raw):
    with pytest.raises(PermissionInvalid) as refused:
        parse_value(name, raw)
    assert refused.value.code == 4
    assert refused.value.hint


@pytest.mark.parametrize(("name", "raw"), NEVER, ids=lambda each: str(each)[:40])
def test_a_value_that_would_undo_the_jail_can_never_be_granted(name, raw):
    with pytest.raises(NeverGrantable):
        parse_value(name, raw)


@pytest.mark.parametrize(("name", "raw"), [*NEVER, ("process", True)], ids=lambda each: str(each)[:40])
def test_a_denial_may_name_what_can_never_be_granted(name, raw):
    assert parse_value(name, raw, deny=True).atoms


@pytest.mark.parametrize(
    ("name", "raw"),
    [
        ("process", 4),
        ("fs.read", [{"path": "/srv", "access": "rox"}]),
        ("fs.write", [{"path": "/srv", "access": "rw"}]),
    ],
)
def test_a_denial_has_no_degrees(name, raw):
    with pytest.raises(PermissionInvalid):
        parse_value(name, raw, deny=True)


def test_more_than_the_bound_of_things_is_refused():
    parse_value("host", [f"a{n}" for n in range(ATOMS_MAX)])
    with pytest.raises(PermissionInvalid, match="more than"):
        parse_value("host", [f"a{n}" for n in range(ATOMS_MAX + 1)])


ENTRIES = [
    ({}, "there is no permission"),
    ([], "not a table"),
    ({"name": "fs.raed", "paths": ["/a"]}, "no permission called fs.raed"),
    ({"name": "fs.read"}, "does not say which"),
    ({"name": "fs.read", "path": ["/a"]}, "has no field path"),
    ({"name": "fs.read", "paths": ["/a"], "reason": 1}, "reason"),
    ({"name": "fs.read", "paths": ["/a"], "reason": "x" * 501}, "reason"),
    ({"name": "fs.read", "paths": ["/a"], "optional": "no"}, "optional"),
    ({"name": "jit", "value": True}, "has no field value"),
    ({"name": "events"}, "does not say which"),
]


@pytest.mark.parametrize(("entry", "words"), ENTRIES, ids=lambda each: str(each)[:40])
def test_a_bad_entry_of_a_manifest_is_refused(entry, words):
    with pytest.raises(PermissionInvalid, match=words):
        parse_permission(entry)


def test_a_misspelt_permission_is_answered_with_a_guess():
    with pytest.raises(PermissionInvalid) as refused:
        parse_permission({"name": "fs.raed", "paths": ["/a"]})
    assert refused.value.hint == "did you mean fs.read?"


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=10,
)


@given(st.sampled_from(PERMISSION_NAMES), _JSON, st.booleans())
def test_whatever_is_written_is_read_or_refused(name, raw, deny):
    try:
        parse_value(name, raw, deny=deny)
    except PolicyError:
        pass


@given(
    _JSON
    | st.fixed_dictionaries(
        {"name": st.sampled_from(PERMISSION_NAMES)},
        optional=dict.fromkeys(("paths", "hosts", "names", "max", "publish", "reason", "optional"), _JSON),
    )
)
def test_whatever_a_manifest_asks_is_read_or_refused(entry):
    try:
        parse_permission(entry)
    except PolicyError:
        pass
