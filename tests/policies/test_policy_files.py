"""Policy files: what they mean, how they merge, and every mistake told as file:line with a way out."""

import hashlib
import json
import os
import textwrap

import policies_kit as kit
import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugsec_policies.errors import PolicyError, PolicyMalformed, PolicyNewer, PolicyUnreadable
from plugsec_policies.isolation import FLOOR
from plugsec_policies.policy import Policy, builtin, builtin_plain, load_policy, parse_policy_toml

EXAMPLE = """
schema = "plugsec.policy/1"
extends = ["builtin:strict"]

[isolation]
required = ["user-namespace", "seccomp", "no-new-privs"]
allow_degraded = ["cgroup", "denial-report"]

[limits]
wall_ms = 10000
memory = "256M"

[[grant]]
id = "acme-api"
plugins = ["acme/*"]
signed_by = ["acme-release-2026"]
expires = 2027-06-30
net = ["api.acme.com:443"]
fs.read = ["/srv/data"]
"fs.write" = ["/srv/out"]
process = 4
jit = true
events = { publish = ["orders.new"] }

[[deny]]
id = "no-metadata-service"
plugins = ["*"]
net = ["169.254.169.254:*"]
process = true

[[check]]
id = "PLG-LIM-003"
severity = "error"
parameters = { most = 3 }

[[waiver]]
check = "PLG-LIM-003"
plugin = "acme/legacy"
versions = "<2"
approved_by = "security"
reason = "being replaced"
expires = 2026-12-31
"""


def parse(text, where="p.toml", read=None):
    return parse_policy_toml(textwrap.dedent(text), where=where, read=read)


def problems(text, read=None):
    with pytest.raises(PolicyMalformed) as refused:
        parse(text, read=read)
    return refused.value.problems


# Meaning -----------------------------------------------------------------------------------------------------


def test_a_whole_policy_is_read():
    policy = Policy.from_plain(parse(EXAMPLE))
    base, own = policy.grants
    assert (base.id, own.id, own.where) == ("input-and-output", "acme-api", "p.toml:13")
    assert own.signed_by == ("acme-release-2026",)
    assert own.expires == 1814400000  # 2027-07-01T00:00:00Z: the day named is the last
    assert set(own.permissions) == {"net", "fs.read", "fs.write", "process", "jit", "events"}
    assert [rule.id for rule in policy.denies] == ["no-metadata-service"]
    assert policy.limits.wall_ms == 10000
    assert policy.limits.memory_bytes == 256 * 2**20
    assert policy.limits.cpu_ms == builtin("strict").limits.cpu_ms
    assert policy.limits_where["wall_ms"] == "p.toml:10"
    assert policy.limits_where["cpu_ms"].startswith("builtin:strict:")
    assert policy.checks[0].parameters == {"most": 3}
    assert policy.waivers[0].expires == 1798761600  # 2027-01-01T00:00:00Z


def test_the_plain_form_survives_json():
    plain = parse(EXAMPLE)
    assert Policy.from_plain(json.loads(json.dumps(plain))) == Policy.from_plain(plain)


def test_the_digest_is_about_meaning_and_not_about_names_and_lines():
    here = Policy.from_plain(parse(EXAMPLE))
    elsewhere = Policy.from_plain(parse("# a comment\n" + EXAMPLE, where="other/name.toml"))
    narrower = Policy.from_plain(parse(EXAMPLE.replace("process = 4", "process = 3")))
    assert here.digest == elsewhere.digest
    assert here.digest != narrower.digest


def test_an_empty_policy_grants_nothing_and_demands_what_strict_demands():
    policy, strict = kit.policy(""), builtin("strict")
    assert policy.grants == ()
    assert (policy.limits, policy.isolation) == (strict.limits, strict.isolation)


def test_the_floor_is_required_even_when_a_cache_has_lost_it():
    plain = {**builtin_plain("strict"), "isolation": {"required": [], "allow_degraded": ["seccomp"]}}
    isolation = Policy.from_plain(plain).isolation
    assert isolation.required == FLOOR
    assert not isolation.allow_degraded & FLOOR


def test_a_policy_of_its_own_may_set_higher_ceilings_than_strict():
    assert kit.policy("[limits]\nwall_ms = 60000").limits.wall_ms == 60000


def test_the_floor_is_required_even_when_nobody_writes_it():
    assert kit.policy("[isolation]\nrequired = []").isolation.required >= FLOOR


@pytest.mark.parametrize(
    "damage",
    [
        {},
        {"grants": [{}]},
        {"limits": {}},
        {"limits": None},
        {"isolation": {"required": ["x"], "allow_degraded": []}},
        {
            "grants": [
                {
                    "id": "a",
                    "where": "x",
                    "plugins": ["*"],
                    "signed_by": [],
                    "expires": None,
                    "permissions": {"env": ["LD_PRELOAD"]},
                }
            ]
        },
        {"grants": 1},
        {"denies": [1]},
        {"waivers": [{}]},
        {"checks": [{}]},
    ],
)
def test_a_damaged_cache_is_refused_and_never_trusted(damage):
    with pytest.raises(PolicyMalformed, match="stored form"):
        Policy.from_plain({**builtin_plain("strict"), **damage} if damage else {})


# Extending -----------------------------------------------------------------------------------------------------


def test_extending_adds_grants_and_takes_the_lower_limit_and_the_stricter_isolation(tmp_path):
    (tmp_path / "base.toml").write_text(
        kit.HEAD
        + textwrap.dedent("""
        [isolation]
        required = ["cgroup"]
        [limits]
        wall_ms = 1000
        cpu_ms = 9000
        [[grant]]
        id = "base"
        plugins = ["*"]
        env = ["TZ"]
        [[deny]]
        id = "never-exec"
        plugins = ["*"]
        exec = ["/usr/bin/env"]
    """)
    )
    (tmp_path / "own.toml").write_text(
        kit.HEAD
        + textwrap.dedent("""
        extends = ["base.toml"]
        [isolation]
        allow_degraded = ["cgroup", "denial-report"]
        [limits]
        wall_ms = 5000
        cpu_ms = 5000
        [[grant]]
        id = "own"
        plugins = ["*"]
        exec = ["/usr/bin/env"]
    """)
    )
    plain = load_policy(str(tmp_path / "own.toml"))
    policy = Policy.from_plain(plain)
    assert [rule.id for rule in policy.grants] == ["base", "own"]
    assert [rule.id for rule in policy.denies] == ["never-exec"]
    assert (policy.limits.wall_ms, policy.limits.cpu_ms) == (1000, 5000)
    assert "cgroup" in policy.isolation.required
    assert policy.isolation.allow_degraded == {"denial-report"}
    assert plain["warnings"] == [
        f"{tmp_path}/own.toml:7: wall_ms = 5000 has no effect, {tmp_path}/base.toml:6 says wall_ms = 1000"
    ]


def test_the_sources_name_every_file_with_its_digest(tmp_path):
    (tmp_path / "base.toml").write_text(kit.HEAD)
    (tmp_path / "own.toml").write_text(kit.HEAD + 'extends = ["base.toml", "builtin:ci"]')
    sources = load_policy(str(tmp_path / "own.toml"))["sources"]
    assert [os.path.basename(each["path"]) for each in sources] == ["own.toml", "base.toml"]
    assert sources[1]["sha256"] == hashlib.sha256(kit.HEAD.encode()).hexdigest()


def test_a_base_that_two_others_share_counts_once(tmp_path):
    (tmp_path / "base.toml").write_text(kit.HEAD + '[[grant]]\nid = "a"\nplugins = ["*"]\nenv = ["TZ"]')
    for name in ("left", "right"):
        (tmp_path / f"{name}.toml").write_text(kit.HEAD + 'extends = ["base.toml"]')
    (tmp_path / "own.toml").write_text(kit.HEAD + 'extends = ["left.toml", "right.toml"]')
    assert len(load_policy(str(tmp_path / "own.toml"))["grants"]) == 1


@pytest.mark.parametrize("chain", [["own.toml"], ["a.toml", "own.toml"], ["a.toml", "b.toml", "a.toml"]])
def test_a_policy_that_extends_itself_is_refused(tmp_path, chain):
    for name, base in zip(["own.toml", *chain], chain, strict=False):
        (tmp_path / name).write_text(kit.HEAD + f'extends = ["{base}"]')
    with pytest.raises(PolicyMalformed, match=r"toml:2: .* extends itself"):
        load_policy(str(tmp_path / "own.toml"))


def test_bases_that_fan_out_without_end_are_refused(tmp_path):
    for level in range(7):
        (tmp_path / f"{level}.toml").write_text(
            kit.HEAD + f'extends = ["{level + 1}.toml", "{level + 1}.toml", "{level + 1}.toml"]'
        )
    (tmp_path / "7.toml").write_text(kit.HEAD)
    with pytest.raises(PolicyMalformed, match="more than"):
        load_policy(str(tmp_path / "0.toml"))


def test_a_chain_of_readers_without_files_works_and_ends():
    texts = {"a": kit.HEAD + 'extends = ["b"]', "b": kit.HEAD + 'extends = ["b"]'}
    with pytest.raises(PolicyMalformed, match="extends itself"):
        parse(texts["a"], read=lambda name: (name, texts[name]))
    texts["b"] = kit.HEAD + "[limits]\nwall_ms = 7"
    assert parse(texts["a"], read=lambda name: (name, texts[name]))["limits"]["wall_ms"] == 7


@pytest.mark.parametrize("make", ["missing", "directory", "fifo", "large", "latin1"])
def test_what_cannot_be_read_is_refused(tmp_path, make):
    path = tmp_path / "p.toml"
    if make == "directory":
        path.mkdir()
    elif make == "fifo":
        os.mkfifo(path)
    elif make == "large":
        path.write_text(kit.HEAD + "#" * 300_000)
    elif make == "latin1":
        path.write_bytes(b"# \xe9")
    with pytest.raises(PolicyError) as refused:
        load_policy(str(path))
    assert str(path) in refused.value.message
    assert refused.value.code in (2, 4)


def test_a_name_with_a_nul_is_refused():
    with pytest.raises(PolicyUnreadable):
        load_policy("a\0b")


def test_an_unknown_builtin_is_answered_with_the_known_ones():
    with pytest.raises(PolicyUnreadable) as refused:
        load_policy("builtin:lax")
    assert "builtin:strict" in refused.value.hint


# Mistakes --------------------------------------------------------------------------------------------------------

_GRANT = '[[grant]]\nid = "a"\nplugins = ["*"]\n'
_WAIVER = '[[waiver]]\ncheck = "PLG-LIM-003"\nplugin = "a/b"\napproved_by = "x"\nreason = "y"\n'

MISTAKES = [
    ("", 1, "not one of a policy"),
    ("limits = 1", 2, "not a table"),
    ("[limit]\nwall_ms = 1", 2, "did you mean limits?"),
    ("[limits]\n\nwal_ms = 1", 4, "did you mean wall_ms?"),
    ("[limits]\nmemory_bytes = 1", 3, "the known words"),
    ("[limits]\nwall_ms = -1", 3, "outside 1 to"),
    ("[limits]\nwall_ms = nan", 3, "whole number"),
    ('[limits]\nmemory = "128MB"', 3, "not a size"),
    ('[isolation]\nrequired = [\n  "seccomp",\n  "secomp",\n]', 5, "did you mean seccomp?"),
    ('[isolation]\nallow_degraded = ["seccomp"]', 3, "can never be missing"),
    ("[isolation]\nrequred = []", 3, "did you mean required?"),
    ('[isolation]\nrequired = "seccomp"', 3, "not a list"),
    ('extends = "builtin:strict"', 2, "not a list"),
    ('extends = ["builtin:strikt"]', 2, "no built-in policy"),
    ('extends = ["/etc/policy.toml"]', 2, "absolute"),
    ('[[grant]]\nplugins = ["*"]\nenv = ["TZ"]', 2, "lacks id"),
    ('[[grant]]\nid = "a b"\nplugins = ["*"]\nenv = ["TZ"]', 3, "letters, digits"),
    ('[[grant]]\nid = "a"\nenv = ["TZ"]', 2, "lacks plugins"),
    ('[[grant]]\nid = "a"\nplugins = []\nenv = ["TZ"]', 4, "1 to"),
    ('[[grant]]\nid = "a"\nplugins = ["acme"]\nenv = ["TZ"]', 4, "does not name plugins"),
    (_GRANT, 3, "grants nothing"),
    (_GRANT + 'evn = ["TZ"]', 5, "did you mean env?"),
    (_GRANT + 'fs.raed = ["/a"]', 5, "did you mean fs.read?"),
    (_GRANT + 'fs = ["/a"]', 5, "not a table"),
    (_GRANT + 'env = ["LD_PRELOAD"]', 5, "can never be granted"),
    (_GRANT + 'fs.read = ["/proc"]', 5, "can never be granted"),
    (_GRANT + 'fs.read = ["a"]', 5, "neither absolute"),
    (_GRANT + 'net = ["*:443"]', 5, "any:443"),
    (_GRANT + "jit = false", 5, "either there or not"),
    (_GRANT + "process = true", 5, "whole number"),
    (_GRANT + 'env = ["TZ"]\nsigned_by = []', 6, "1 to"),
    (_GRANT + 'env = ["TZ"]\nsigned_by = "release"', 6, "not a list"),
    (_GRANT + 'env = ["TZ"]\nexpires = "2027-01-01"', 6, "not a day"),
    (_GRANT + 'env = ["TZ"]\nexpires = 2027-01-01T00:00:00Z', 6, "not a day"),
    (_GRANT + 'env = ["TZ"]\nexpires = 9999-12-31', 6, "not a day"),
    (_GRANT + 'env = ["TZ"]\n' + _GRANT + 'env = ["TZ"]', 6, "already at"),
    ('[[deny]]\nid = "a"\nplugins = ["*"]', 3, "denies nothing"),
    ('[[deny]]\nid = "a"\nplugins = ["*"]\nprocess = 4', 5, "altogether"),
    (
        '[[deny]]\nid = "a"\nplugins = ["*"]\nsigned_by = ["x"]\nenv = ["TZ"]',
        5,
        "does not look at signatures",
    ),
    ('[[check]]\nid = "LIM-3"\nseverity = "error"', 3, "not the id of a check"),
    ('[[check]]\nid = "PLG-LIM-003"\nseverity = "eror"', 4, "did you mean error?"),
    ('[[check]]\nid = "PLG-LIM-003"\nseverity = "error"\nparameters = { a = [1] }', 5, "parameters"),
    ('[[check]]\nid = "PLG-LIM-003"\nseverity = "error"\nlevel = 1', 5, "no field level"),
    (_WAIVER, 2, "must say when it ends"),
    (_WAIVER + 'expires = 2027-01-01\nversions = "old"', 8, "not a range"),
    (_WAIVER + "expires = 2027-01-01\ngrant = true", 8, "no field grant"),
    ("grant = 1", 2, "not a list"),
    ("grant = [1]", 2, "not a table"),
    ("[[grant]", 2, "not TOML"),
    ("a = " + "[" * 5000, None, "nested"),
    ("a = " + "[" * 30 + "]" * 30, 2, "nested"),
    ("a = " + "1" * 5000, None, "not TOML"),
    ('a = "\x00"', 2, "not TOML"),
    ('schema = "plugsec.policy/1"', None, "not TOML"),
]


@pytest.mark.parametrize(("text", "line", "words"), MISTAKES, ids=[str(i) for i in range(len(MISTAKES))])
def test_a_mistake_is_told_with_its_line(text, line, words):
    head = kit.HEAD if text else 'schema = "policy"\n'
    found = problems(head + text)
    place = f"p.toml:{line}" if line else "p.toml"
    told = next((each for each in found if words in f"{each.message} {each.hint}"), None)
    assert told is not None, found
    assert told.where.startswith(place)
    assert told.hint


def test_all_mistakes_of_a_file_are_told_at_once():
    found = problems(
        kit.HEAD
        + '[limits]\nwal_ms = 1\nmemory = "x"\n'
        + _GRANT
        + 'evn = []\n[[deny]]\nid = "d"\nplugins = ["*"]'
    )
    assert [each.where for each in found] == ["p.toml:3", "p.toml:4", "p.toml:8", "p.toml:10"]


def test_a_policy_that_names_too_many_things_is_refused():
    names = ", ".join(f'"f{n}"' for n in range(250))
    rules = "".join(f'[[grant]]\nid = "g{n}"\nplugins = ["*"]\nhost = [{names}]\n' for n in range(33))
    assert "more than 8192 things" in problems(kit.HEAD + rules)[0].message


def test_a_policy_for_a_newer_plugsec_says_so():
    with pytest.raises(PolicyNewer, match="newer plugsec"):
        parse('schema = "plugsec.policy/2"\nnew_word = 1')


def test_files_cannot_be_extended_where_there_is_no_reader():
    with pytest.raises(PolicyMalformed, match=r"p\.toml:2: .* cannot be read here"):
        parse(kit.HEAD + 'extends = ["other.toml"]')


# Anything -----------------------------------------------------------------------------------------------------------

_WORDS = st.sampled_from(
    [
        'schema = "plugsec.policy/1"',
        "[limits]",
        "wall_ms = 5",
        "[[grant]]",
        'id = "a"',
        'plugins = ["*"]',
        'env = ["TZ"]',
        "[isolation]",
        "required = []",
        "[[deny]]",
        "fs.read = [",
        '"/srv",',
        "]",
        "process = true",
        "extends = []",
        "= = =",
        "[[check]]",
        "expires = 2027-01-01",
        '"""',
        "'",
        "{ a = 1 }",
        "\\",
        "#",
        "a.b.c.d = 1",
        "[a.b]",
        "[[a.b]]",
        "\x00",
        "é",
    ]
)


@given(st.lists(_WORDS, max_size=12).map("\n".join) | st.text(max_size=60))
def test_whatever_is_in_a_file_is_a_policy_or_refused(text):
    try:
        Policy.from_plain(parse_policy_toml(text, where="p.toml"))
    except PolicyError as refused:
        assert refused.code == 4
        assert refused.message.startswith("p.toml")
