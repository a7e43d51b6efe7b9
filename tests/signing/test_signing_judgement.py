"""The decision over keys, rules, revocations, memory and clock: every attack on it has one stable answer."""

import pytest
import signing_kit as kit
from hypothesis import given
from hypothesis import strategies as st

from plugsec_signing import keys, trust
from plugsec_signing.errors import TrustRefused, TrustStoreError
from plugsec_signing.memory import NOTHING, Remembered, Seen
from plugsec_signing.revocation import EMPTY, Revoked
from plugsec_signing.times import format_time

NOW, DAY = kit.NOW, 86400
NAME, ID = kit.CANDIDATE.name, kit.CANDIDATE.bundle_id
OTHER_ID = "sha256:" + "b" * 64
ACME, REVIEW, STRANGER = (keys.fingerprint(each.public) for each in (kit.ACME, kit.REVIEW, kit.STRANGER))
REVIEWER = kit.trust_text(kit.REVIEW, id="acme-review", role="review")
SECOND = kit.trust_text(kit.REVIEW, id="acme-second")


def rule(threshold, roles=("release",), plugins=("acme/*",)):
    return "\n".join((
        "[[rule]]", f"plugins = {list(plugins)!r}", f"threshold = {threshold}", f"roles = {list(roles)!r}", "",
    ))  # fmt: skip


def until(moment):
    """The entry of acme's key, valid until then."""
    return kit.trust_text(valid_before=format_time(moment))


def seen(*signers, at=NOW - DAY, release=7, bundle_id=ID, newest=None):
    """A memory of one bundle, whose signatures first counted then."""
    return Remembered({bundle_id: Seen(release, dict.fromkeys(signers, at))}, newest or at, 0)


def revoked(kind, since, fingerprint=ACME):
    return EMPTY._replace(keys={fingerprint: Revoked(kind, since)})


COMPROMISED, SUPERSEDED = revoked("compromised", NOW - 10), revoked("superseded", NOW - 10)
FIRST_BEFORE, FIRST_AFTER = seen(ACME, at=NOW - 11), seen(ACME, at=NOW - 10)
TWO = kit.trust_text(), SECOND

# name: (trust files, signers, what else the verdict is given, the refusal's id or None when accepted)
CASES = {
    "two of two": ((*TWO, rule(2)), (ACME, REVIEW), {}, None),
    "stripped below the threshold": ((*TWO, rule(2)), (ACME,), {}, "PLG-TRU-012"),
    "the same key under two ids, against a threshold": (
        (kit.trust_text(), kit.trust_text(id="again"), rule(2)), (ACME,), {}, "PLG-TRU-012"),
    "the same key under two roles, against a threshold": (
        (kit.trust_text(), kit.trust_text(id="again", role="security"), rule(2, ("release", "security"))),
        (ACME,), {}, "PLG-TRU-012"),
    "a stranger's signature does not fill a threshold": ((*TWO, rule(2)), (ACME, STRANGER), {}, "PLG-TRU-012"),
    "an expired key does not fill a threshold": (
        (kit.trust_text(), kit.trust_text(kit.REVIEW, id="old", valid_before="2020-01-01"), rule(2)),
        (ACME, REVIEW), {}, "PLG-TRU-012"),
    "a key for another glob does not fill a threshold": (
        (kit.trust_text(), kit.trust_text(kit.REVIEW, id="b", plugins=["acme/b"]), rule(2)),
        (ACME, REVIEW), {}, "PLG-TRU-012"),
    "a role that the rule does not name": ((kit.trust_text(), REVIEWER, rule(2)), (ACME, REVIEW), {}, "PLG-TRU-012"),
    "roles together": (
        (kit.trust_text(), REVIEWER, rule(2, ("release", "review"))), (ACME, REVIEW), {}, None),
    "a rule for another plugin": ((kit.trust_text(), rule(9, plugins=("acme/payments-*",))), (ACME,), {}, None),
    "every rule that matches must hold": (
        (*TWO, rule(1), rule(2, ("security",))), (ACME, REVIEW), {}, "PLG-TRU-012"),
    "enough reviewers do not release": ((REVIEWER, rule(1, ("review",))), (REVIEW,), {}, "PLG-TRU-006"),
    "a rule without a signature": ((kit.trust_text(), rule(1)), (), {}, "PLG-TRU-001"),

    "compromised": ((kit.trust_text(),), (ACME,), {"revocations": COMPROMISED}, "PLG-TRU-008"),
    "compromised, first seen here before": (
        (kit.trust_text(),), (ACME,), {"revocations": COMPROMISED, "remembered": FIRST_BEFORE}, None),
    "compromised, first seen here in that second": (
        (kit.trust_text(),), (ACME,), {"revocations": COMPROMISED, "remembered": FIRST_AFTER}, "PLG-TRU-008"),
    "compromised from a time to come": (
        (kit.trust_text(),), (ACME,), {"revocations": revoked("compromised", NOW + DAY)}, "PLG-TRU-008"),
    "compromised, and the bundle is known but this signature is new": (
        (kit.trust_text(), SECOND), (ACME,),
        {"revocations": COMPROMISED, "remembered": seen(REVIEW, at=NOW - DAY)}, "PLG-TRU-008"),
    "an unknown kind of revocation is taken for the gravest": (
        (kit.trust_text(),), (ACME,), {"revocations": revoked("unwell", NOW - 10)}, "PLG-TRU-008"),
    "compromised, but another key released it too": (
        (kit.trust_text(), SECOND), (ACME, REVIEW), {"revocations": COMPROMISED}, None),
    "a compromised key does not fill a threshold": (
        (*TWO, rule(2)), (ACME, REVIEW), {"revocations": COMPROMISED}, "PLG-TRU-012"),
    "superseded": ((kit.trust_text(),), (ACME,), {"revocations": SUPERSEDED}, "PLG-TRU-009"),
    "superseded, accepted before": (
        (kit.trust_text(),), (ACME,), {"revocations": SUPERSEDED, "remembered": FIRST_BEFORE}, None),
    "superseded, accepted before the list came": (
        (kit.trust_text(),), (ACME,), {"revocations": SUPERSEDED, "remembered": FIRST_AFTER}, None),
    "superseded, the bundle is known but this signature is new": (
        (kit.trust_text(), SECOND), (ACME,),
        {"revocations": SUPERSEDED, "remembered": seen(REVIEW)}, "PLG-TRU-009"),
    "superseded from a time to come": (
        (kit.trust_text(),), (ACME,), {"revocations": revoked("superseded", NOW + 1)}, None),
    "superseded from a time to come, clock put back": (
        (kit.trust_text(),), (ACME,),
        {"revocations": revoked("superseded", NOW + 1), "remembered": NOTHING._replace(newest=NOW + 2)},
        "PLG-TRU-009"),
    "a revoked bundle": (
        (kit.trust_text(),), (ACME,), {"revocations": EMPTY._replace(bundles=frozenset((ID,)))}, "PLG-TRU-010"),
    "a revoked bundle, however long it is known": (
        (kit.trust_text(),), (ACME,),
        {"revocations": EMPTY._replace(bundles=frozenset((ID,))), "remembered": FIRST_BEFORE}, "PLG-TRU-010"),
    "below the least release": (
        (kit.trust_text(),), (ACME,), {"revocations": EMPTY._replace(min_release={NAME: 8})}, "PLG-TRU-011"),
    "below the least release, however long it is known": (
        (kit.trust_text(),), (ACME,),
        {"revocations": EMPTY._replace(min_release={NAME: 8}), "remembered": FIRST_BEFORE}, "PLG-TRU-011"),
    "the least release itself": (
        (kit.trust_text(),), (ACME,), {"revocations": EMPTY._replace(min_release={NAME: 7})}, None),
    "another plugin's least release": (
        (kit.trust_text(),), (ACME,), {"revocations": EMPTY._replace(min_release={"acme/b": 8})}, None),
    "another key is compromised": (
        (kit.trust_text(),), (ACME,), {"revocations": revoked("compromised", 0, STRANGER)}, None),

    "a key that expired": ((until(NOW),), (ACME,), {}, "PLG-TRU-005"),
    "a key that expired after the bundle was accepted": (
        (until(NOW),), (ACME,), {"remembered": seen(ACME, at=NOW - 1)}, None),
    "a key that expired before the bundle was seen": (
        (until(NOW - 5),), (ACME,), {"remembered": seen(ACME, at=NOW - 5)}, "PLG-TRU-005"),
    "a key that expired after the bundle was accepted by another key": (
        (until(NOW),), (ACME,), {"remembered": seen(STRANGER, at=NOW - 1)}, "PLG-TRU-005"),
    "a key that expired after another bundle was accepted": (
        (until(NOW),), (ACME,),
        {"remembered": seen(ACME, at=NOW - 1, bundle_id=OTHER_ID, release=6)}, "PLG-TRU-005"),
    "a key that was accepted before it was valid": (
        (kit.trust_text(valid_after=format_time(NOW - 5), valid_before=format_time(NOW)),), (ACME,),
        {"remembered": seen(ACME, at=NOW - 6)}, "PLG-TRU-005"),
    "a key that is not valid yet": ((kit.trust_text(valid_after="2030-01-01"),), (ACME,), {}, "PLG-TRU-004"),
    "a bundle that expired": (
        (kit.trust_text(),), (ACME,), {"candidate": {"expires": NOW}}, "PLG-TRU-007"),
    # Red team, second pass, 2: its publisher's end is no key's, and holds for those who ran it before as well.
    "a bundle that expired after it was accepted": (
        (kit.trust_text(),), (ACME,),
        {"candidate": {"expires": NOW}, "remembered": seen(ACME, at=NOW - 1)}, "PLG-TRU-007"),
    "a bundle in its last second": (
        (kit.trust_text(),), (ACME,), {"candidate": {"expires": NOW + 1}}, None),
    "a bundle that expired before it was seen": (
        (kit.trust_text(),), (ACME,),
        {"candidate": {"expires": NOW - 5}, "remembered": seen(ACME, at=NOW - 5)}, "PLG-TRU-007"),

    "the clock was put back to before a key expired": (
        (until(NOW + 1),), (ACME,), {"remembered": NOTHING._replace(newest=NOW + 1)}, "PLG-TRU-005"),
    "the clock was put back to before a bundle expired": (
        (kit.trust_text(),), (ACME,),
        {"candidate": {"expires": NOW + 1}, "remembered": NOTHING._replace(newest=NOW + 1)}, "PLG-TRU-007"),
    "the clock was put back to before a key was valid": (
        (kit.trust_text(valid_after=format_time(NOW + 1)),), (ACME,),
        {"remembered": NOTHING._replace(newest=NOW + DAY)}, "PLG-TRU-004"),
    "the clock was put back to before a key was valid, and the bundle is known": (
        (kit.trust_text(valid_after=format_time(NOW + 1)),), (ACME,),
        {"remembered": seen(ACME, at=NOW + 2)}, None),
    "the clock was put back, which nothing depends on": (
        (kit.trust_text(),), (ACME,), {"remembered": NOTHING._replace(newest=NOW + DAY)}, None),

    "a downgrade": ((kit.trust_text(),), (ACME,),
        {"remembered": seen(ACME, bundle_id=OTHER_ID, release=8)}, "PLG-TRU-013"),
    "a downgrade to a bundle that was accepted before": (
        (kit.trust_text(),), (ACME,),
        {"remembered": Remembered({ID: Seen(7, {ACME: 1}), OTHER_ID: Seen(8, {ACME: 2})}, 2, 0)}, "PLG-TRU-013"),
    "a downgrade that the operator means": (
        (kit.trust_text(),), (ACME,),
        {"remembered": seen(ACME, bundle_id=OTHER_ID, release=8), "allow_downgrade": True}, None),
    "the same release, other digest": (
        (kit.trust_text(),), (ACME,), {"remembered": seen(ACME, bundle_id=OTHER_ID)}, "PLG-TRU-014"),
    "the same release, other digest, downgrades allowed": (
        (kit.trust_text(),), (ACME,),
        {"remembered": seen(ACME, bundle_id=OTHER_ID), "allow_downgrade": True}, "PLG-TRU-014"),
    "an old release, other digest, downgrades allowed": (
        (kit.trust_text(),), (ACME,),
        {"remembered": Remembered({OTHER_ID: Seen(7, {ACME: 1}), "sha256:" + "c" * 64: Seen(9, {ACME: 2})}, 2, 0),
         "allow_downgrade": True}, "PLG-TRU-014"),
    "the same bundle again": ((kit.trust_text(),), (ACME,), {"remembered": seen(ACME)}, None),
    "an upgrade": ((kit.trust_text(),), (ACME,),
        {"remembered": seen(ACME, bundle_id=OTHER_ID, release=6)}, None),
}  # fmt: skip


def examine(texts, signers, candidate=None, **given):
    asked = kit.CANDIDATE._replace(**(candidate or {}))
    return trust.examine(kit.store(*texts), asked, signers, NOW, **given)


@pytest.mark.parametrize("name", CASES)
def test_each_attack_on_the_decision_has_its_answer(name):
    texts, signers, given_, error_id = CASES[name]
    verdict = examine(texts, signers, **given_)
    assert verdict.refused == (error_id or "")
    if error_id is None:
        assert trust.require(verdict) is verdict
        assert any(signer.role == "release" for signer in verdict.signers)
        return
    with pytest.raises(TrustRefused) as caught:
        trust.require(verdict)
    assert (caught.value.id, caught.value.code) == (error_id, 3)
    assert caught.value.message and caught.value.hint


def test_a_clock_that_is_behind_is_noticed():
    assert examine((kit.trust_text(),), (ACME,), remembered=NOTHING._replace(newest=NOW + 1)).clock_is_behind
    assert not examine((kit.trust_text(),), (ACME,), remembered=NOTHING._replace(newest=NOW)).clock_is_behind


def test_a_key_that_only_expired_by_memory_says_that_the_clock_may_be_wrong():
    with pytest.raises(TrustRefused) as caught:
        trust.require(examine((until(NOW + 1),), (ACME,), remembered=NOTHING._replace(newest=NOW + 1)))
    assert "the clock says" in caught.value.message
    assert "trust memory" in caught.value.hint


def test_the_trace_names_every_entry_that_was_considered_and_why():
    texts = (
        kit.trust_text(), kit.trust_text(id="old", valid_before="2020-01-01"),
        kit.trust_text(id="b", plugins=["acme/b"]), REVIEWER, kit.trust_text(kit.STRANGER, id="nobody"),
    )  # fmt: skip
    found = examine(texts, (ACME, REVIEW), revocations=revoked("superseded", 0, REVIEW)).considered
    assert {each.entry.id: each.reason for each in found} == {
        "acme-release": "counted", "old": "expired", "b": "other-plugins", "acme-review": "superseded",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("texts", "given_", "error_id"),
    [
        ((REVIEWER, until(NOW)), {}, "PLG-TRU-005"),
        ((REVIEWER, kit.trust_text(plugins=["acme/b"])), {}, "PLG-TRU-006"),
        ((until(NOW), kit.trust_text(id="b", plugins=["acme/b"])), {}, "PLG-TRU-005"),
        ((kit.trust_text(),), {"revocations": COMPROMISED}, "PLG-TRU-008"),
        ((until(NOW),), {"revocations": COMPROMISED}, "PLG-TRU-008"),
    ],
)
def test_a_releasers_near_miss_is_told_before_what_else_is_amiss(texts, given_, error_id):
    assert examine(texts, (ACME, REVIEW), **given_).refused == error_id


# Properties. A world is small enough that every corner of it is met.

SIGNERS = (kit.ACME, kit.REVIEW, kit.STRANGER)
PRINTS = tuple(keys.fingerprint(each.public) for each in SIGNERS)
MOMENTS = st.integers(NOW - 3, NOW + 3)
IDS = (ID, OTHER_ID, "sha256:" + "c" * 64)


@st.composite
def entries(draw):
    after, before = draw(st.none() | MOMENTS), draw(st.none() | MOMENTS)
    if after is not None and before is not None and after >= before:
        after = None
    return trust.TrustedKey(
        id=draw(st.uuids()).hex,
        key=(key := draw(st.sampled_from(SIGNERS)).public),
        fingerprint=keys.fingerprint(key),
        publisher="acme",
        plugins=draw(st.sampled_from((("acme/*",), ("acme/b",)))),
        role=draw(st.sampled_from(("release", "release", "review"))),
        valid_after=after,
        valid_before=before,
    )


RULES = st.builds(
    trust.Rule,
    id=st.just(""),
    plugins=st.sampled_from((("acme/*",), ("acme/b",), ("*/wordfreq",))),
    threshold=st.integers(1, 3),
    roles=st.sampled_from((("release",), ("review",), ("release", "review"))),
)
STORES = st.builds(
    trust.TrustStore,
    st.lists(entries(), max_size=5).map(tuple),
    st.lists(RULES, max_size=2).map(tuple),
    st.just(""),
)
REVOCATIONS = st.builds(
    lambda keys_, bundles, least: EMPTY._replace(
        keys=keys_, bundles=frozenset(bundles), min_release={NAME: least}
    ),
    st.dictionaries(
        st.sampled_from(PRINTS), st.builds(Revoked, st.sampled_from(("compromised", "superseded")), MOMENTS)
    ),
    st.lists(st.sampled_from(IDS[1:]), max_size=1),
    st.integers(0, 8),
)
SEEN = st.builds(
    Seen, st.integers(6, 8), st.dictionaries(st.sampled_from(PRINTS), MOMENTS, min_size=1, max_size=3)
)
MEMORIES = st.builds(Remembered, st.dictionaries(st.sampled_from(IDS), SEEN, max_size=2), MOMENTS, st.just(0))
PRESENT = st.frozensets(st.sampled_from(PRINTS))


def accepted(store, present, **given_):
    return not trust.examine(store, kit.CANDIDATE, present, NOW, **given_).refused


@given(STORES, PRESENT, REVOCATIONS, MEMORIES, RULES, st.booleans())
def test_adding_a_rule_never_widens(store, present, revocations, remembered, more, allow):
    given_ = {"revocations": revocations, "remembered": remembered, "allow_downgrade": allow}
    if accepted(store._replace(rules=(*store.rules, more)), present, **given_):
        assert accepted(store, present, **given_)


@given(STORES, PRESENT, PRESENT, REVOCATIONS, MEMORIES)
def test_removing_a_signature_never_turns_refused_into_accepted(
    store, present, fewer, revocations, remembered
):
    given_ = {"revocations": revocations, "remembered": remembered}
    if accepted(store, present & fewer, **given_):
        assert accepted(store, present, **given_)


@given(STORES, PRESENT, MEMORIES, RULES)
def test_a_lower_threshold_accepts_all_that_a_higher_one_does(store, present, remembered, one):
    lower = one._replace(threshold=max(1, one.threshold - 1))
    if accepted(store._replace(rules=(one,)), present, remembered=remembered):
        assert accepted(store._replace(rules=(lower,)), present, remembered=remembered)


@given(STORES, PRESENT, REVOCATIONS, REVOCATIONS, MEMORIES)
def test_a_revocation_never_widens(store, present, revocations, more, remembered):
    joined = revocations._replace(
        keys={**more.keys, **revocations.keys},
        bundles=revocations.bundles | more.bundles,
        min_release={NAME: max(revocations.min_release[NAME], more.min_release[NAME])},
    )
    if accepted(store, present, revocations=joined, remembered=remembered):
        assert accepted(store, present, revocations=revocations, remembered=remembered)
        assert accepted(store, present, remembered=remembered)


@given(STORES, PRESENT, REVOCATIONS, MEMORIES)
def test_taking_a_key_from_the_store_never_widens(store, present, revocations, remembered):
    given_ = {"revocations": revocations, "remembered": remembered}
    if store.keys and accepted(store._replace(keys=store.keys[1:]), present, **given_):
        assert accepted(store, present, **given_)


@given(STORES, PRESENT, MEMORIES, st.integers(0, 6))
def test_a_clock_that_is_put_back_accepts_nothing_that_the_memory_has_outlived(
    store, present, remembered, back
):
    remembered = remembered._replace(newest=max(remembered.newest, NOW))
    if not trust.examine(store, kit.CANDIDATE, present, NOW - back, remembered=remembered).refused:
        assert accepted(store, present, remembered=remembered)


@given(STORES, PRESENT, REVOCATIONS, MEMORIES)
def test_whatever_is_refused_is_refused_in_words(store, present, revocations, remembered):
    verdict = trust.examine(
        store, kit.CANDIDATE, present, NOW, revocations=revocations, remembered=remembered
    )
    if verdict.refused:
        with pytest.raises(TrustRefused) as caught:
            trust.require(verdict)
        assert caught.value.id == verdict.refused
        assert caught.value.message and caught.value.hint


# Rules as they are written.

BAD_RULES = {
    "no plugins": "threshold = 2",
    "no threshold": 'plugins = ["acme/*"]',
    "threshold zero": 'plugins = ["acme/*"]\nthreshold = 0',
    "threshold negative": 'plugins = ["acme/*"]\nthreshold = -1',
    "threshold true": 'plugins = ["acme/*"]\nthreshold = true',
    "threshold with a fraction": 'plugins = ["acme/*"]\nthreshold = 1.5',
    "threshold above what a bundle can carry": 'plugins = ["acme/*"]\nthreshold = 17',
    "no glob": "plugins = []\nthreshold = 1",
    "glob as text": 'plugins = "acme/*"\nthreshold = 1',
    "bad glob": 'plugins = ["*"]\nthreshold = 1',
    "too many globs": f"plugins = {['acme/x'] * 101!r}\nthreshold = 1",
    "no role": 'plugins = ["acme/*"]\nthreshold = 1\nroles = []',
    "role as text": 'plugins = ["acme/*"]\nthreshold = 1\nroles = "release"',
    "bad role": 'plugins = ["acme/*"]\nthreshold = 1\nroles = ["Release it"]',
    "unknown field": 'plugins = ["acme/*"]\nthreshold = 1\nrole = "release"',
    "bad id": 'id = "../x"\nplugins = ["acme/*"]\nthreshold = 1',
}


@pytest.mark.parametrize("name", BAD_RULES)
def test_a_malformed_rule_is_refused(name):
    with pytest.raises(TrustStoreError) as caught:
        trust.parse_trust_toml("[[rule]]\n" + BAD_RULES[name] + "\n")
    assert (caught.value.id, caught.value.code) == ("PLG-TST-002", 4)


@pytest.mark.parametrize("text", ["[rule]\nthreshold = 1\n", "rule = 1\n", "rule = [1]\n"])
def test_a_rule_has_two_brackets(text):
    with pytest.raises(TrustStoreError) as caught:
        trust.parse_trust_toml(text)
    assert caught.value.id == "PLG-TST-002"


def test_two_rules_of_one_name_are_refused_and_two_without_are_not():
    named = 'id = "a"\n'
    with pytest.raises(TrustStoreError) as caught:
        kit.store(rule(1) + named, rule(2) + named)
    assert caught.value.id == "PLG-TST-004"
    assert len(kit.store(rule(1), rule(2)).rules) == 2


def test_a_rule_means_release_keys_unless_it_says_otherwise():
    (plain,) = trust.parse_trust_toml('[[rule]]\nplugins = ["acme/*"]\nthreshold = 2\n')["rule"]
    assert plain == {"id": "", "plugins": ["acme/*"], "threshold": 2, "roles": ["release"]}


@pytest.mark.parametrize("field", ["threshold", "roles", "plugins", "id"])
def test_a_damaged_rule_in_a_plain_form_is_refused(field):
    plain = trust.parse_trust_toml(rule(2))
    del plain["rule"][0][field]
    with pytest.raises(TrustStoreError) as caught:
        trust.TrustStore.from_plain([plain])
    assert caught.value.id == "PLG-TST-002"


@pytest.mark.parametrize("threshold", [0, -1, True, 17, "2", None, 1.0])
def test_a_threshold_in_a_plain_form_is_checked_again(threshold):
    plain = trust.parse_trust_toml(rule(2))
    plain["rule"][0]["threshold"] = threshold
    with pytest.raises(TrustStoreError):
        trust.TrustStore.from_plain([plain])


def test_more_rules_than_a_store_may_have_are_refused():
    plain = trust.parse_trust_toml(rule(1))
    with pytest.raises(TrustStoreError) as caught:
        trust.TrustStore.from_plain([{"key": [], "rule": plain["rule"] * (trust.MAX_RULES + 1)}])
    assert caught.value.id == "PLG-TST-005"


def test_the_entry_decides_the_algorithm():
    for wanted in ("ecdsa-sha2-nistp256", "sk-ssh-ed25519@openssh.com", "rsa"):
        with pytest.raises(TrustStoreError) as caught:
            trust.parse_trust_toml(kit.trust_text(algorithm=wanted))
        assert caught.value.id == "PLG-TST-010"
    (entry,) = trust.parse_trust_toml(kit.trust_text(algorithm="ssh-ed25519"))["key"]
    assert entry["algorithm"] == "ssh-ed25519"
    plain = trust.parse_trust_toml(kit.trust_text())
    plain["key"][0]["algorithm"] = "ecdsa-sha2-nistp256"
    with pytest.raises(TrustStoreError):
        trust.TrustStore.from_plain([plain])
