"""The decision never widens, does not mind order or repetition, and always answers."""

import policies_kit as kit
from hypothesis import given, settings
from hypothesis import strategies as st

from plugsec_policies.decision import Grant, Narrowing, decide
from plugsec_policies.errors import PolicyError
from plugsec_policies.permissions import PERMISSION_NAMES, PermissionSet, parse_value, uncovered, union

NOW = 100
_LISTS = {"fs.read": "fs_read", "fs.write": "fs_write", "env": "env", "exec": "exec"}


def outcome(request, policies, narrowing=None):
    """A Grant, or the refusal; any other exception fails the test that let it happen."""
    try:
        return decide(request, policies, kit.EVERYTHING, narrowing or Narrowing(), NOW)
    except PolicyError as refusal:
        assert refusal.code == 1
        assert refusal.hint
        return refusal


def granted_sets(grant):
    """The grant's permissions as sets again; the access words of paths are the strongest."""
    sets = {}
    for name, field in _LISTS.items():
        texts = getattr(grant, field)
        if texts and name.startswith("fs."):
            reads = name == "fs.read"
            word, executable = ("rox", grant.fs_read_execute) if reads else ("rwx", grant.fs_write_execute)
            raw = [{"path": t, "access": word} if t in executable else t for t in texts]
            sets[name] = parse_value(name, raw)
        elif texts:
            sets[name] = parse_value(name, list(texts))
    if grant.processes_allowed:
        sets["process"] = parse_value("process", grant.processes_allowed)
    if grant.jit:
        sets["jit"] = parse_value("jit", True)
    return sets


def assert_within(narrow, wide):
    """Everything in one grant is in the other."""
    assert isinstance(wide, Grant)
    there = granted_sets(wide)
    for name, value in granted_sets(narrow).items():
        assert not uncovered(value, there.get(name, PermissionSet(name, ()))), name
    assert all(a <= b for a, b in zip(narrow.limits, wide.limits, strict=True))
    assert narrow.isolation.required >= wide.isolation.required


@settings(max_examples=200)
@given(kit.requests(), st.lists(kit.any_policies(), min_size=1, max_size=3), kit.narrowings())
def test_every_request_gets_a_grant_or_a_refusal(request, policies, narrowing):
    assert isinstance(outcome(request, policies, narrowing), Grant | PolicyError)


@given(kit.requests(), st.lists(kit.any_policies(), min_size=1, max_size=3))
def test_the_order_of_policies_and_naming_one_twice_make_no_difference(request, policies):
    first = outcome(request, policies)
    for others in (policies[::-1], policies + policies[:1], policies[1:] + policies[:1]):
        again = outcome(request, others)
        if isinstance(first, Grant):
            assert again == first
        else:
            assert (type(again), again.message) == (type(first), first.message)


@settings(max_examples=200)
@given(kit.requests(), st.lists(kit.any_policies(), min_size=1, max_size=2), kit.any_policies())
def test_adding_a_policy_never_widens(request, policies, one_more):
    narrow = outcome(request, [*policies, one_more])
    if isinstance(narrow, Grant):
        assert_within(narrow, outcome(request, policies))


@given(kit.requests(), kit.any_policies(), kit.narrowings())
def test_the_command_line_never_widens(request, policy, narrowing):
    narrow = outcome(request, [policy], Narrowing(narrowing.limits))
    if isinstance(narrow, Grant):
        assert_within(narrow, outcome(request, [policy]))


@given(kit.requests(), kit.any_policies())
def test_a_grant_is_within_what_was_asked_and_within_what_the_policy_says(request, policy):
    grant = outcome(request, [policy])
    if not isinstance(grant, Grant):
        return
    for name, value in granted_sets(grant).items():
        asked = union(name, [p.value for p in request.permissions if p.name == name])
        said = union(name, [rule.permissions[name] for rule in policy.grants if name in rule.permissions])
        assert not uncovered(value, asked)
        assert not uncovered(value, said)


@settings(max_examples=200)
@given(kit.requests(), kit.any_policies(), st.data())
def test_asking_for_less_never_breaks_what_is_left(request, policy, data):
    if not isinstance(outcome(request, [policy]), Grant) or not request.permissions:
        return
    dropped = data.draw(st.integers(0, len(request.permissions) - 1))
    kept = tuple(p for index, p in enumerate(request.permissions) if index != dropped)
    less = outcome(request._replace(permissions=kept), [policy])
    assert isinstance(less, Grant)
    assert_within(less, outcome(request, [policy]))
    for permission in kept:
        if not permission.optional and permission.name in _LISTS:
            got = granted_sets(less)[permission.name]
            assert not uncovered(permission.value, got)


@given(kit.requests(), kit.any_policies())
def test_what_is_required_is_granted_wholly_or_refused(request, policy):
    grant = outcome(request, [policy])
    if isinstance(grant, Grant):
        got = granted_sets(grant)
        for permission in request.permissions:
            if not permission.optional and permission.name in got:
                assert not uncovered(permission.value, got[permission.name])


@given(kit.requests(), kit.any_policies())
def test_a_policy_with_all_its_rules_for_others_grants_nothing(request, policy):
    foreign = policy._replace(grants=tuple(rule._replace(plugins=("other/x",)) for rule in policy.grants))
    grant = outcome(request, [foreign])
    if isinstance(grant, Grant):
        assert granted_sets(grant) == {}
        assert all(p.optional for p in request.permissions)


def test_the_laws_speak_of_every_permission():
    assert set(kit.VALUES) == set(PERMISSION_NAMES)


def test_reading_and_executing_a_path_is_not_writing_and_executing_it():
    """Found by the law above: `rox` on what may also be written (`rw`) must not become `rwx`."""
    request = kit.request(
        kit.asks("fs.read", paths=[{"path": "/opt/a", "access": "rox"}]),
        kit.asks("fs.write", paths=[{"path": "/opt/a", "access": "rw"}]),
    )
    policy = kit.policy(
        '[[grant]]\nid = "g"\nplugins = ["*"]\n'
        'fs.read = [{ path = "/opt/a", access = "rox" }]\nfs.write = [{ path = "/opt/a", access = "rw" }]\n'
    )
    grant = outcome(request, [policy])
    assert (grant.fs_read_execute, grant.fs_write, grant.fs_write_execute) == (("/opt/a",), ("/opt/a",), ())
