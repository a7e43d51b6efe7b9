"""The decision: what is granted, refused and narrowed, and what people are told about it."""

import policies_kit as kit
import pytest

from plugsec_policies.decision import HostSupport, Narrowing, combined_digest, decide, grant_to_plain
from plugsec_policies.errors import DegradationRefused, PermissionRefused, PermissionUnsupported
from plugsec_policies.policy import builtin

STRICT = builtin("strict")
NOW = 1_800_000_000


def decided(request, *policies, host=None, narrowing=None, now=NOW):
    return decide(request, policies or (STRICT,), host or HostSupport(), narrowing or Narrowing(), now)


def refused(request, *policies, **more):
    with pytest.raises(PermissionRefused) as caught:
        decided(request, *policies, **more)
    assert caught.value.code == 1
    return caught.value


# Granting -----------------------------------------------------------------------------------------------------------


def test_strict_grants_input_and_output():
    grant = decided(
        kit.request(kit.asks("fs.read", paths=["$INPUT"]), kit.asks("fs.write", paths=["$OUTPUT/report"]))
    )
    assert grant.fs_read == ("$INPUT",)
    assert grant.fs_write == ("$OUTPUT/report",)
    assert (grant.env, grant.exec, grant.processes_allowed, grant.jit, grant.narrowed) == (
        (),
        (),
        0,
        False,
        (),
    )
    assert grant.policy_digest == STRICT.digest


def test_a_plugin_that_asks_for_nothing_gets_nothing():
    grant = decided(kit.request())
    assert (grant.fs_read, grant.fs_write, grant.env, grant.exec, grant.jit) == ((), (), (), (), False)


def test_each_supported_permission_is_granted_by_a_rule_that_says_so():
    policy = kit.policy("""
        [[grant]]
        id = "all"
        plugins = ["acme/*"]
        fs.read = ["/srv"]
        fs.write = ["/srv/out"]
        env = ["TZ", "LANG"]
        exec = ["/usr/bin/dash"]
        process = 8
        jit = true
    """)
    grant = decided(
        kit.request(
            kit.asks("fs.read", paths=["/srv/a", "/srv/b"]),
            kit.asks("fs.write", paths=["/srv/out"]),
            kit.asks("env", names=["TZ"]),
            kit.asks("exec", programs=["/usr/bin/dash"]),
            kit.asks("process", max=4),
            kit.asks("jit"),
        ),
        policy,
    )
    assert grant.fs_read == ("/srv/a", "/srv/b")
    assert grant.env == ("TZ",)
    assert grant.exec == ("/usr/bin/dash",)
    assert grant.processes_allowed == 4
    assert grant.jit


def test_two_entries_of_one_permission_add_up():
    policy = kit.policy('[[grant]]\nid = "a"\nplugins = ["*"]\nprocess = 9\nfs.read = ["$INPUT", "/srv"]')
    grant = decided(
        kit.request(
            kit.asks("fs.read", paths=["$INPUT"]),
            kit.asks("fs.read", paths=["/srv/a", "/etc"], optional=True),
            kit.asks("process", max=2),
            kit.asks("process", max=5),
        ),
        policy,
    )
    assert grant.fs_read == ("$INPUT", "/srv/a")
    assert grant.processes_allowed == 5
    assert len(grant.narrowed) == 1


def test_an_access_word_needs_a_host_that_can_enforce_it():
    policy = kit.policy('[[grant]]\nid = "a"\nplugins = ["*"]\nfs.read = [{ path = "/opt", access = "rox" }]')
    asks = kit.request(kit.asks("fs.read", paths=[{"path": "/opt/tool", "access": "rox"}]))
    assert refused(asks, policy).id == PermissionUnsupported.id
    grant = decided(asks, policy, host=kit.EVERYTHING)
    assert grant.fs_read == grant.fs_read_execute == ("/opt/tool",)
    weaker = kit.policy('[[grant]]\nid = "a"\nplugins = ["*"]\nfs.read = ["/opt"]')
    assert "grants only fs.read /opt/tool" in refused(asks, weaker, host=kit.EVERYTHING).message


# Refusing -----------------------------------------------------------------------------------------------------------


def test_a_refusal_says_who_asks_what_and_which_policy_does_not_grant_it():
    error = refused(kit.request(kit.asks("fs.read", paths=["/etc/passwd"])))
    assert error.message == (
        "acme/wordfreq 1.0.0 asks for what is not granted: fs.read /etc/passwd: "
        "no rule of builtin:strict grants it"
    )
    assert error.hint == (
        'write a policy file with extends = ["builtin:strict"] and a [[grant]] with '
        'plugins = ["acme/wordfreq"] and "fs.read" = ["/etc/passwd"]'
    )


def test_the_line_to_write_makes_it_pass():
    asks = kit.request(
        kit.asks("exec", programs=["/usr/bin/dash"]), kit.asks("process", max=3), kit.asks("jit")
    )
    policy = kit.policy('extends = ["builtin:strict"]', where="own.toml")
    error = refused(asks, policy)
    assert (
        error.hint
        == 'add to own.toml a [[grant]] with plugins = ["acme/wordfreq"] and exec = ["/usr/bin/dash"]'
    )
    lines = "\n".join(line.partition(" and ")[2] for line in error.lines)
    decided(asks, kit.policy(f'[[grant]]\nid = "new"\nplugins = ["acme/wordfreq"]\n{lines}'))


def test_all_refused_permissions_are_told_at_once():
    error = refused(kit.request(*(kit.asks("exec", programs=[f"/usr/bin/{n}"]) for n in range(6))))
    assert len(error.reasons) == 6
    assert error.message.endswith("; and 2 more")


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        (
            'plugins = ["other/*"]\nexec = ["/usr/bin/dash"]',
            "the rule near at near.toml:3 would grant it, but is for other/*",
        ),
        (
            'plugins = ["*"]\nsigned_by = ["review"]\nexec = ["/usr/bin/dash"]',
            "but wants a signature by review",
        ),
        ('plugins = ["*"]\nexpires = 2020-01-01\nexec = ["/usr/bin/dash"]', "but has expired"),
        ('plugins = ["*"]\nexec = ["/usr/bin/env"]', "no rule of near.toml grants it"),
    ],
)
def test_the_nearest_miss_is_named(rule, words):
    policy = kit.policy(f'\n[[grant]]\nid = "near"\n{rule}', where="near.toml")
    assert words in refused(kit.request(kit.asks("exec", programs=["/usr/bin/dash"])), policy).message


def test_a_number_that_is_too_high_is_refused_with_what_is_granted():
    policy = kit.policy('[[grant]]\nid = "a"\nplugins = ["*"]\nprocess = 4')
    assert "grants only process 4" in refused(kit.request(kit.asks("process", max=8)), policy).message


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("net", {"hosts": ["api.acme.com:443"]}),
        ("host", {"functions": ["kv.get"]}),
        ("events", {"publish": ["a"]}),
        ("secrets", {"names": ["a"]}),
        ("device", {"devices": ["gpu"]}),
        ("fs.read", {"paths": ["$CONFIG"]}),
        ("fs.write", {"paths": ["$STATE/cache"]}),
        ("exec", {"programs": ["$BUNDLE/bin/a"]}),
        ("fs.read", {"paths": [{"path": "/opt", "access": "rox"}]}),
    ],
)
def test_what_cannot_be_enforced_yet_is_refused_unless_optional(name, value):
    error = refused(kit.request(kit.asks(name, **value)))
    assert error.id == PermissionUnsupported.id
    assert "not supported yet" in error.message
    grant = decided(kit.request(kit.asks(name, optional=True, **value)))
    assert (grant.fs_read, grant.fs_write, grant.exec) == ((), (), ())
    assert "not supported yet" in grant.narrowed[0]


def test_a_signature_by_one_of_the_named_keys_is_enough():
    policy = kit.policy('[[grant]]\nid = "a"\nplugins = ["*"]\nsigned_by = ["x", "release"]\nenv = ["TZ"]')
    asks = kit.asks("env", names=["TZ"])
    assert decided(kit.request(asks, signers=["release"]), policy).env == ("TZ",)
    refused(kit.request(asks), policy)


def test_a_rule_counts_until_the_end_of_its_last_day_in_utc():
    policy = kit.policy('[[grant]]\nid = "a"\nplugins = ["*"]\nexpires = 2027-06-30\nenv = ["TZ"]')
    asks = kit.request(kit.asks("env", names=["TZ"]))
    assert decided(asks, policy, now=1814399999).env == ("TZ",)
    refused(asks, policy, now=1814400000)


# Denying ------------------------------------------------------------------------------------------------------------

DENIED = """
    [[grant]]
    id = "wide"
    plugins = ["*"]
    fs = { read = ["/srv"], write = ["/srv"] }
    env = ["TZ"]
    process = 9
    jit = true
    [[deny]]
    id = "not-this"
    plugins = ["acme/*"]
"""


@pytest.mark.parametrize(
    ("denial", "asked", "value"),
    [
        ('fs.read = ["/srv/secret"]', "fs.read", {"paths": ["/srv/secret/key"]}),
        ('fs.read = ["/srv/secret"]', "fs.read", {"paths": ["/srv/secret"]}),
        ('fs.read = ["/srv/secret"]', "fs.read", {"paths": ["/srv"]}),
        ('fs.read = ["/"]', "fs.read", {"paths": ["/srv/a"]}),
        ('env = ["TZ"]', "env", {"names": ["TZ"]}),
        ('fs.read = ["/srv/secret"]', "fs.write", {"paths": ["/srv/secret/out"]}),
        ("process = true", "process", {"max": 1}),
        ("jit = true", "jit", {}),
    ],
)
def test_a_denial_beats_every_grant(denial, asked, value):
    policy = kit.policy(DENIED + denial, where="own.toml")
    error = refused(kit.request(kit.asks(asked, **value)), policy)
    assert "denied by the rule not-this at own.toml:10, which no grant overrides" in error.message
    decided(kit.request(kit.asks(asked, **value), name="other/plugin"), policy)


def test_a_denial_leaves_alone_what_it_does_not_touch():
    policy = kit.policy(DENIED + 'fs.read = ["/srv/secret"]')
    assert decided(kit.request(kit.asks("fs.read", paths=["/srv/public"])), policy).fs_read == (
        "/srv/public",
    )


def test_a_denial_in_one_policy_holds_against_a_grant_in_another():
    wide = kit.policy('[[grant]]\nid = "a"\nplugins = ["*"]\nenv = ["TZ"]', where="wide.toml")
    denying = kit.policy(DENIED + 'env = ["TZ"]', where="deny.toml")
    error = refused(kit.request(kit.asks("env", names=["TZ"])), wide, denying)
    assert "deny.toml:10" in error.message


def test_denying_to_write_still_lets_read():
    policy = kit.policy(DENIED + 'fs.write = ["/srv"]')
    assert decided(kit.request(kit.asks("fs.read", paths=["/srv/a"])), policy).fs_read == ("/srv/a",)


def test_denying_a_program_refuses_to_execute_the_directory_that_holds_it():
    policy = kit.policy("""
        [[grant]]
        id = "a"
        plugins = ["*"]
        fs.read = [{ path = "/opt", access = "rox" }]
        [[deny]]
        id = "d"
        plugins = ["*"]
        exec = ["/opt/bin/tool"]
    """)
    asks = kit.request(kit.asks("fs.read", paths=[{"path": "/opt/bin", "access": "rox"}]))
    refused(asks, policy, host=kit.EVERYTHING)
    decided(kit.request(kit.asks("fs.read", paths=["/opt/bin"])), policy, host=kit.EVERYTHING)


def test_a_denied_host_refuses_a_wildcard_that_contains_it():
    policy = kit.policy("""
        [[grant]]
        id = "a"
        plugins = ["*"]
        net = ["any:*"]
        [[deny]]
        id = "metadata"
        plugins = ["*"]
        net = ["169.254.169.254:*"]
    """)
    for hosts in (["any:80"], ["169.254.169.254:80"], ["[::ffff:169.254.169.254]:80"]):
        refused(kit.request(kit.asks("net", hosts=hosts)), policy, host=kit.EVERYTHING)
    decided(kit.request(kit.asks("net", hosts=["10.0.0.1:80"])), policy, host=kit.EVERYTHING)


# Several policies, narrowing, isolation -------------------------------------------------------------------------------


def test_several_policies_grant_only_what_each_of_them_grants():
    left = kit.policy('[[grant]]\nid = "a"\nplugins = ["*"]\nfs.read = ["/srv", "/opt"]')
    right = kit.policy('[[grant]]\nid = "b"\nplugins = ["*"]\nfs.read = ["/srv/data", "/usr/share"]')
    grant = decided(kit.request(kit.asks("fs.read", paths=["/srv", "/opt"], optional=True)), left, right)
    assert grant.fs_read == ("/srv/data",)
    assert grant.policy_digest == combined_digest([right, left])


def test_limits_are_the_minimum_of_all_and_say_who_set_them():
    policy = kit.policy('[limits]\nwall_ms = 2000\nmemory = "64M"', where="own.toml")
    asks = kit.request(limits={"wall_ms": 9000, "memory_bytes": 2**20})
    grant = decided(asks, policy, STRICT, narrowing=Narrowing({"cpu_ms": 10}, frozenset()))
    assert (grant.limits.wall_ms, grant.limits.memory_bytes, grant.limits.cpu_ms) == (2000, 2**20, 10)
    assert grant.narrowed == ("wall_ms limited to 2000 by own.toml:3; the plugin asks for 9000",)
    assert "cpu_ms = 10: --limit cpu_ms=10" in grant.trace
    assert 'memory = "1M": the plugin\'s own limit' in grant.trace


def test_a_limit_on_the_command_line_cannot_raise_anything():
    grant = decided(kit.request(), narrowing=Narrowing({"wall_ms": 10**6}, frozenset()))
    assert grant.limits == STRICT.limits


def test_a_layer_that_the_policy_lists_may_be_given_up():
    policy = kit.policy(
        '[isolation]\nrequired = ["cgroup", "landlock"]\nallow_degraded = ["cgroup", "denial-report"]'
    )
    assert "cgroup" in decided(kit.request(), policy).isolation.required
    grant = decided(kit.request(), policy, narrowing=Narrowing({}, frozenset({"cgroup"})))
    assert "cgroup" not in grant.isolation.required
    assert "cgroup" in grant.isolation.allow_degraded


@pytest.mark.parametrize("layer", ["landlock", "seccomp", "no-new-privs", "no-such-layer"])
def test_a_layer_that_the_policy_does_not_list_may_not_be_given_up(layer):
    with pytest.raises(DegradationRefused, match=f"--allow-degraded {layer} refused") as caught:
        decided(kit.request(), narrowing=Narrowing({}, frozenset({layer})))
    assert caught.value.code == 1
    assert "cgroup, denial-report" in caught.value.hint


def test_a_policy_that_does_not_list_a_layer_forbids_what_another_allows():
    lax = kit.policy('[isolation]\nrequired = []\nallow_degraded = ["landlock"]')
    with pytest.raises(DegradationRefused):
        decided(kit.request(), lax, STRICT, narrowing=Narrowing({}, frozenset({"landlock"})))
    decided(kit.request(), lax, narrowing=Narrowing({}, frozenset({"landlock"})))


def test_the_trace_names_the_rule_that_decided_each_permission():
    grant = decided(
        kit.request(kit.asks("fs.read", paths=["$INPUT"]), kit.asks("env", names=["TZ"], optional=True))
    )
    assert "fs.read $INPUT: granted by the rule input-and-output at builtin:strict:23" in grant.trace
    assert "env TZ: not granted, no rule of builtin:strict grants it" in grant.trace


def test_a_grant_can_be_written_as_json():
    import json

    plain = grant_to_plain(decided(kit.request(kit.asks("fs.read", paths=["$INPUT"]))))
    assert json.loads(json.dumps(plain)) == plain
    assert plain["limits"]["wall_ms"] == 30000


def test_no_policy_at_all_is_our_own_mistake():
    with pytest.raises(RuntimeError):
        decide(kit.request(), (), HostSupport(), Narrowing(), NOW)
