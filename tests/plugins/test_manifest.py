"""The manifest: every field read, every unknown, missing or odd one refused with its place."""

import plugins_kit as kit
import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugsec_plugins.errors import ManifestMalformed, NeedsOtherPlugsec, PluginError, RuntimeUnsupported
from plugsec_plugins.fields import Dependency, Health, Restart
from plugsec_plugins.manifest import check_machine, check_requires
from plugsec_signing.errors import SigningError


def test_a_whole_manifest_is_read():
    manifest = kit.parse(kit.PLAIN)
    assert manifest.envelope.name == "acme/wordfreq"
    assert (manifest.summary, manifest.license, manifest.created) == (
        "Counts words",
        "Apache-2.0",
        "2026-01-01T00:00:00Z",
    )
    assert manifest.requires_plugsec == ">=0.1,<1"
    assert (manifest.runtime.kind, manifest.runtime.entry, manifest.runtime.args) == (
        "python",
        "wordfreq",
        (),
    )
    count, ping = manifest.methods["count"], manifest.methods["ping"]
    assert (count.input, count.output, count.timeout_ms) == (
        "schemas/count.input.json",
        "schemas/count.output.json",
        1000,
    )
    assert (count.idempotent, count.stream) == (True, True)
    assert (ping.input, ping.output, ping.timeout_ms, ping.idempotent) == (None, None, None, False)
    assert manifest.limits == {"wall_ms": 5000, "memory_bytes": 134217728}
    assert manifest.permissions[0].reason == "reads it"
    assert manifest.config_schema == "schemas/config.json"
    assert manifest.dependencies == (Dependency("acme/base", ">=1"),)
    assert manifest.health == Health("ping", 1000, 100)
    assert manifest.restart == Restart("on-failure", 5)
    assert manifest.priority == 5


def test_what_may_be_left_out_may_be_left_out():
    plain = kit.PLAIN
    for field in (
        "summary",
        "license",
        "source",
        "created",
        "expires",
        "requires",
        "permissions",
        "limits",
        "config_schema",
        "dependencies",
        "health",
        "restart",
        "priority",
    ):
        plain = kit.changed(field, ..., plain)
    manifest = kit.parse(plain)
    assert (manifest.summary, manifest.permissions, manifest.limits, manifest.health) == ("", (), {}, None)


def test_a_program_with_arguments_and_a_machine_is_read():
    plain = kit.changed("runtime/args", ["--json"], kit.changed("runtime/abi", "x86_64", kit.EXEC))
    runtime = kit.parse(plain).runtime
    assert (runtime.args, runtime.abi, runtime.dialect) == (("--json",), "x86_64", "oneshot")


@pytest.mark.parametrize("path", ["wordfreq/__init__.py", "site/wordfreq.py", "site/wordfreq/__init__.py"])
def test_a_module_may_be_a_package_or_vendored(path):
    plain = kit.changed(
        "files", sorted([*kit.PLAIN["files"][:-1], kit.entry(path)], key=lambda each: each["path"])
    )
    assert kit.parse(plain).runtime.entry == "wordfreq"


BAD = [
    ("unknown", 1, "/unknown", "has no field unknown"),
    ("summry", "x", "/summry", "did you mean summary?"),
    ("summary", None, "/summary", "null"),
    ("summary", "x" * 501, "/summary", "500 characters"),
    ("summary", 1, "/summary", "text"),
    ("license", ["MIT"], "/license", "text"),
    ("created", "2026-01-01", "/created", "moment"),
    ("created", "yesterday", "/created", "moment"),
    ("created", "", "/created", "moment"),
    ("requires", ">=1", "/requires", "not a table"),
    ("requires/plugsec", "1", "/requires/plugsec", "range"),
    ("requires/python", ">=3", "/requires/python", "no field"),
    ("runtime", ..., "/runtime", "lacks runtime"),
    ("runtime", [], "/runtime", "not a table"),
    ("runtime/kind", "pyton", "/runtime/kind", "did you mean python?"),
    ("runtime/kind", None, "/runtime/kind", "null"),
    ("runtime/entry", "missing", "/runtime/entry", "not in the bundle"),
    ("runtime/entry", "wordfreq:count", "/runtime/entry", "Python module"),
    ("runtime/entry", "word-freq", "/runtime/entry", "Python module"),
    ("runtime/entry", "class", "/runtime/entry", "Python module"),
    ("runtime/entry", "../wordfreq", "/runtime/entry", "Python module"),
    ("runtime/entry", "wordfreq.", "/runtime/entry", "Python module"),
    ("runtime/args", ["x"], "/runtime/args", "no arguments"),
    ("runtime/dialect", "oneshot", "/runtime/dialect", "no field"),
    ("runtime/abi", "x86_64", "/runtime/abi", "no field"),
    ("methods", {}, "/methods", "1 to 256"),
    ("methods", [], "/methods", "not a table"),
    ("methods", ..., "/methods", "lacks methods"),
    ("methods", {f"m{n}": {} for n in range(257)}, "/methods", "1 to 256"),
    ("methods/two words", {}, "/methods/two words", "method's name"),
    ("methods/-x", {}, "/methods/-x", "method's name"),
    ("methods/import", {}, "/methods/import", "Python function"),
    ("methods/a.b", {}, "/methods/a.b", "Python function"),
    ("methods/" + "a" * 65, {}, "/methods/", "method's name"),
    ("methods/count", 1, "/methods/count", "not a table"),
    ("methods/count/inptu", "x", "/methods/count/inptu", "did you mean input?"),
    ("methods/count/input", "schemas/missing.json", "/methods/count/input", "not in the bundle"),
    ("methods/count/input", "wordfreq.py", "/methods/count/input", "path of a schema"),
    ("methods/count/input", {"type": "object"}, "/methods/count/input", "text"),
    ("methods/count/timeout_ms", 0, "/methods/count/timeout_ms", "whole number"),
    ("methods/count/timeout_ms", True, "/methods/count/timeout_ms", "whole number"),
    ("methods/count/timeout_ms", 2**31, "/methods/count/timeout_ms", "whole number"),
    ("methods/count/stream", 1, "/methods/count/stream", "true nor false"),
    ("permissions", {}, "/permissions", "list"),
    ("permissions", [1], "/permissions/0", "not a table"),
    ("permissions/0/name", "fs.raed", "/permissions/0", "did you mean fs.read?"),
    ("permissions/0/paths", ["/proc"], "/permissions/0", "never be granted"),
    ("permissions/0/path", "x", "/permissions/0", "no field path"),
    ("permissions", [{"name": "env", "names": ["LD_PRELOAD"]}], "/permissions/0", "never be granted"),
    (
        "permissions",
        [{"name": "exec", "programs": ["$BUNDLE/bin/none"]}],
        "/permissions/0",
        "not in the bundle",
    ),
    (
        "permissions",
        [{"name": "exec", "programs": ["$BUNDLE/wordfreq.py"]}],
        "/permissions/0",
        "not executable",
    ),
    ("permission", [], "/permission", "no field permission"),
    ("limits/memory", "128M", "/limits/memory", "whole number"),
    ("limits/memory_bytes", 5, "/limits", "twice"),
    ("limits/wall_ms", 0, "/limits/wall_ms", "outside"),
    ("limits/wall", 1, "/limits/wall", "no limit called"),
    ("config_schema", "schemas/none.json", "/config_schema", "not in the bundle"),
    ("dependencies/0/name", "acme/*", "/dependencies/0/name", "one plugin"),
    ("dependencies/0/name", "acme", "/dependencies/0/name", "name plugins"),
    ("dependencies/0/versions", "new", "/dependencies/0/versions", "range"),
    ("dependencies/0/extra", 1, "/dependencies/0/extra", "no field"),
    ("health/method", "none", "/health", "not there"),
    ("health/interval_ms", -1, "/health/interval_ms", "whole number"),
    ("health/timeout_ms", ..., "/health/timeout_ms", "lacks"),
    ("restart/policy", "allways", "/restart/policy", "did you mean always?"),
    ("restart/most", 1001, "/restart/most", "whole number"),
    ("priority", 20, "/priority", "whole number"),
    ("priority", True, "/priority", "whole number"),
]


@pytest.mark.parametrize(
    ("path", "value", "pointer", "words"), BAD, ids=[f"{b[0]}-{i}"[:40] for i, b in enumerate(BAD)]
)
def test_a_bad_field_is_refused_with_its_pointer(path, value, pointer, words):
    with pytest.raises(ManifestMalformed) as refused:
        kit.parse(kit.changed(path, value))
    assert f"the manifest at {pointer}" in refused.value.message
    assert words in f"{refused.value.message} {refused.value.hint}"
    assert refused.value.code == 4
    assert refused.value.hint


BAD_PROGRAMS = [
    ("runtime/entry", "bin/none", "not in the bundle"),
    ("runtime/entry", "wordfreq.py", "not executable"),
    ("runtime/dialect", ..., "lacks dialect"),
    ("runtime/dialect", "oneshoot", "did you mean oneshot?"),
    ("runtime/abi", "arm", "no machine"),
    ("runtime/args", ["a\0b"], "NUL"),
    ("runtime/args", ["x"] * 65, "list"),
    ("runtime/args", [1], "text"),
    ("runtime/args", "x", "list"),
]


@pytest.mark.parametrize(("path", "value", "words"), BAD_PROGRAMS)
def test_a_bad_program_is_refused(path, value, words):
    with pytest.raises(ManifestMalformed) as refused:
        kit.parse(kit.changed(path, value, kit.EXEC))
    assert words in f"{refused.value.message} {refused.value.hint}"


@pytest.mark.parametrize(
    "plain",
    [
        *(
            kit.changed("runtime/kind", kind)
            for kind in ("wasm", "lua", "so", "go-plugin", "mcp", "http", "mq")
        ),
        *(kit.changed("runtime/dialect", dialect, kit.EXEC) for dialect in ("plugsec", "jsonrpc1", "lsp")),
    ],
)
def test_what_only_a_later_plugsec_runs_is_answered_as_that(plain):
    with pytest.raises(RuntimeUnsupported, match="not supported yet"):
        kit.parse(plain)


@pytest.mark.parametrize("path", ["x" * 1_000_000, "methods/" + "x" * 1_000_000, "limits/" + "x" * 1_000_000])
def test_a_message_stays_short_whatever_the_manifest_holds(path):
    with pytest.raises(ManifestMalformed) as refused:
        kit.parse(kit.changed(path, 1))
    assert len(refused.value.message) <= 2001
    assert len(refused.value.hint) <= 2001


def test_the_word_of_plugin_toml_is_not_a_word_of_the_manifest():
    with pytest.raises(ManifestMalformed, match="no field permission"):
        kit.parse(kit.changed("permission", [], kit.changed("permissions", ...)))


def test_asking_for_thousands_of_things_is_refused():
    entries = [
        {"name": "host", "functions": [f"f{n}.g{m}" for m in range(250)], "reason": "", "optional": False}
        for n in range(5)
    ]
    kit.parse(kit.changed("permissions", entries[:4]))
    with pytest.raises(ManifestMalformed, match="more than 1024 things"):
        kit.parse(kit.changed("permissions", entries))


def test_a_schema_that_is_too_large_is_refused_before_it_is_read():
    files = [
        {**each, "size": 300_000} if each["path"] == "schemas/config.json" else each
        for each in kit.PLAIN["files"]
    ]
    with pytest.raises(ManifestMalformed, match="longer than"):
        kit.parse(kit.changed("files", files))


@pytest.mark.parametrize(
    ("version", "ok"), [("0.1.0", True), ("0.99.0", True), ("1.0.0", False), ("0.0.9", False)]
)
def test_a_plugin_runs_only_under_the_versions_that_it_accepts(version, ok):
    manifest = kit.parse(kit.PLAIN)
    if ok:
        check_requires(manifest, version)
        return
    with pytest.raises(NeedsOtherPlugsec, match=f"needs plugsec >=0.1,<1, this is {version}"):
        check_requires(manifest, version)


def test_a_program_for_another_machine_is_refused():
    manifest = kit.parse(kit.changed("runtime/abi", "aarch64", kit.EXEC))
    check_machine(manifest, "aarch64")
    check_machine(kit.parse(kit.EXEC), "anything")
    with pytest.raises(RuntimeUnsupported, match="is a program for aarch64, this machine is x86_64"):
        check_machine(manifest, "x86_64")


_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.text(alphabet="ab./$\x00é", max_size=6),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(alphabet="ab.", max_size=4), inner, max_size=3)
    ),
    max_leaves=8,
)
_PLACES = [
    *kit.PLAIN,
    *(f"runtime/{key}" for key in ("kind", "entry", "args", "dialect", "abi", "x")),
    *(f"methods/count/{key}" for key in kit.PLAIN["methods"]["count"]),
    "methods/x",
    "permissions/0",
    *(f"permissions/0/{key}" for key in ("name", "paths", "reason", "optional")),
    "limits/wall_ms",
    "dependencies/0",
    "health/method",
    "restart/policy",
    "requires/plugsec",
]


@given(st.sampled_from(_PLACES), _JSON)
def test_whatever_stands_in_a_field_is_read_or_refused(path, value):
    try:
        kit.parse(kit.changed(path, value))
    except (PluginError, SigningError) as refused:
        assert refused.code == 4
