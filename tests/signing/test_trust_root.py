"""The trust root: only enough of its own signers, old and new, replace it, one version at a time."""

import os

import pytest
import signing_kit as kit
from hypothesis import given
from hypothesis import strategies as st

from plugsec_signing import canonical, keys, root, sshsig, trust_edit
from plugsec_signing.errors import RootError, SigningError, TrustStoreError
from plugsec_signing.trust import load_trust
from plugsec_signing.verify import verify_bundle

OLD, NEW = [kit.signer(seed) for seed in (30, 31, 32)], [kit.signer(seed) for seed in (40, 41, 42)]


def entry(private, name, role="root", **fields):
    return {"id": name, "ssh": keys.public_line(private.public), "publisher": "acme", "role": role, **fields}


def value(version=1, signers=OLD, threshold=2, more=(), **fields):
    found = {
        "schema": "plugsec.root/1",
        "version": version,
        "thresholds": {"root": threshold},
        "key": [*(entry(each, f"root-{number}") for number, each in enumerate(signers)), *more],
        "rule": [],
        **fields,
    }
    return {name: field for name, field in found.items() if field is not None}


def document(*arguments, **fields) -> bytes:
    return canonical.encode(value(*arguments, **fields))


def signed(data, *privates, namespace=root.NAMESPACE) -> bytes:
    return b"".join(kit.armour(each, data, namespace) for each in privates)


RELEASE = entry(kit.ACME, "acme-release", "release")
FIRST = document(more=[RELEASE])
SECOND = document(2, NEW, more=[RELEASE])
CURRENT = root.parse(FIRST)


def test_a_root_says_who_may_replace_it():
    assert (CURRENT.version, CURRENT.thresholds) == (1, {"root": 2})
    assert [each.raw for each in CURRENT.keys] == [each.public.raw for each in OLD]


def test_the_next_version_is_accepted_when_both_thresholds_have_signed():
    armours = signed(SECOND, *OLD[:2], *NEW[1:])
    assert root.check_next(CURRENT, SECOND, armours).version == 2


def test_a_key_that_stays_counts_on_both_sides():
    after = document(2, [OLD[0], *NEW[:2]])
    assert root.check_next(CURRENT, after, signed(after, *OLD[:2], NEW[0])).version == 2


NEXT = {
    "unsigned": (SECOND, (), "PLG-ROT-003"),
    "by the new keys only": (SECOND, (*NEW,), "PLG-ROT-003"),
    "by the old keys only": (SECOND, (*OLD,), "PLG-ROT-004"),
    "by too few of the old": (SECOND, (OLD[0], *NEW), "PLG-ROT-003"),
    "by too few of the new": (SECOND, (*OLD, NEW[0]), "PLG-ROT-004"),
    "by one old key twice": (SECOND, (OLD[0], OLD[0], *NEW), "PLG-ROT-003"),
    "by strangers": (SECOND, (kit.REVIEW, kit.STRANGER), "PLG-ROT-003"),
    "by a release key of the old one": (SECOND, (kit.ACME, OLD[0], *NEW), "PLG-ROT-003"),
    "the same version": (document(1, NEW), (*OLD, *NEW), "PLG-ROT-005"),
    "a version left out": (document(3, NEW), (*OLD, *NEW), "PLG-ROT-005"),
    "the version before": (FIRST, (*OLD,), "PLG-ROT-005"),
    "a lower threshold does not help itself": (document(2, NEW, 1), (OLD[0], *NEW), "PLG-ROT-003"),
    "a key listed twice counts once": (
        document(2, [NEW[0]], 1, more=[entry(OLD[0], "a"), entry(OLD[1], "b")]), (OLD[0], NEW[0]), "PLG-ROT-003"),
}  # fmt: skip


@pytest.mark.parametrize("case", NEXT)
def test_what_the_thresholds_do_not_sign_is_not_the_next_root(case):
    data, by, error_id = NEXT[case]
    with pytest.raises(RootError) as caught:
        root.check_next(CURRENT, data, signed(data, *by))
    assert (caught.value.id, caught.value.code) == (error_id, 3)


@pytest.mark.parametrize("namespace", [sshsig.NAMESPACE_MANIFEST, "plugsec-revocation@v1", "file"])
def test_a_signature_for_another_purpose_does_not_count(namespace):
    with pytest.raises(SigningError) as caught:
        root.check_next(CURRENT, SECOND, signed(SECOND, *OLD, *NEW, namespace=namespace))
    assert (caught.value.id, caught.value.code) == ("PLG-SIG-004", 3)


def test_the_signatures_of_another_root_do_not_count():
    other = document(2, NEW)
    with pytest.raises(SigningError) as caught:
        root.check_next(CURRENT, SECOND, signed(other, *OLD, *NEW))
    assert (caught.value.id, caught.value.code) == ("PLG-SIG-005", 3)


MALFORMED = {
    "not JSON": (b"version = 1", "PLG-ROT-001"),
    "spaces": (FIRST.replace(b",", b", "), "PLG-ROT-001"),
    "an array": (b"[]", "PLG-ROT-001"),
    "a newer schema": (document(schema="plugsec.root/2"), "PLG-ROT-002"),
    "another schema": (document(schema="plugsec.manifest/1"), "PLG-ROT-001"),
    "no version": (document(None), "PLG-ROT-001"),
    "version zero": (document(0), "PLG-ROT-001"),
    "a version that is true": (document(version=True), "PLG-ROT-001"),
    "an unknown field": (document(comment="x"), "PLG-ROT-001"),
    "an unknown field of a key": (document(more=[{**RELEASE, "note": "x"}]), "PLG-ROT-001"),
    "keys that are no list": (document(key={}), "PLG-ROT-001"),
    "a key that is a number": (document(key=[7]), "PLG-ROT-001"),
    "two keys of one name": (document(more=[RELEASE, RELEASE]), "PLG-ROT-001"),
    "no thresholds": (document(thresholds={}), "PLG-ROT-001"),
    "a threshold of another role": (document(thresholds={"root": 2, "release": 2}), "PLG-ROT-001"),
    "a threshold of zero": (document(threshold=0), "PLG-ROT-001"),
    "a threshold above its keys": (document(threshold=4), "PLG-ROT-001"),
    "a threshold that one key under two names would reach": (
        document(signers=[OLD[0], OLD[0]], threshold=2), "PLG-ROT-001"),
    "a threshold of revocations above its keys": (document(thresholds={"root": 2, "revocation": 1}), "PLG-ROT-001"),
    "a root key that expires": (
        document(more=[entry(NEW[0], "late", valid_before="2028-01-01")]), "PLG-ROT-001"),
    "an RSA key": (document(more=[{**RELEASE, "ssh": "ssh-rsa AAAAB3NzaC1yc2E="}]), "PLG-ROT-001"),
    "nested without end": (b"{" * 100_000, "PLG-ROT-001"),
}  # fmt: skip


@pytest.mark.parametrize("case", MALFORMED)
def test_what_is_no_root_is_refused_whoever_signed_it(case):
    data, error_id = MALFORMED[case]
    with pytest.raises(RootError) as caught:
        root.check_first(data, signed(data, *OLD))
    assert (caught.value.id, caught.value.code) == (error_id, 4)


def test_a_first_root_must_be_signed_by_its_own_threshold():
    assert root.check_first(FIRST, signed(FIRST, *OLD[:2])).version == 1
    for by in ((), (OLD[0],), (OLD[0], OLD[0])):
        with pytest.raises(RootError) as caught:
            root.check_first(FIRST, signed(FIRST, *by))
        assert caught.value.id == "PLG-ROT-004"


# In a trust store.


@pytest.fixture
def trust(tmp_path):
    return str(tmp_path / "trust.d")


def install(trust, data, *privates, first=False):
    return root.install(trust, data, signed(data, *privates), first=first, announce=lambda *_: None)


def test_the_roots_keys_count_beside_the_operators_own(trust, good):
    install(trust, FIRST, *OLD, first=True)
    trust_edit.add_key(trust, {**entry(kit.REVIEW, "mine", "review")})
    store = load_trust(trust)
    assert {key.id for key in store.keys} == {"root-0", "root-1", "root-2", "acme-release", "mine"}
    assert verify_bundle(good, store, kit.NOW).signers[0].key_id == "acme-release"


def test_a_root_key_releases_nothing(trust, bundle_path):
    install(trust, FIRST, *OLD, first=True)
    with pytest.raises(SigningError) as caught:
        verify_bundle(bundle_path(kit.pack(signers=OLD)), load_trust(trust), kit.NOW)
    assert caught.value.id == "PLG-TRU-006"


def test_rotation_takes_keys_away_and_hands_out_others(trust, good):
    install(trust, FIRST, *OLD, first=True)
    data = document(2, NEW, more=[entry(kit.REVIEW, "acme-release-2", "release")])
    install(trust, data, *OLD, *NEW)
    with pytest.raises(SigningError) as caught:
        verify_bundle(good, load_trust(trust), kit.NOW)
    assert caught.value.id == "PLG-TRU-002"


def test_a_refused_root_changes_nothing(trust):
    install(trust, FIRST, *OLD, first=True)
    before = load_trust(trust)
    for data, by, error_id in ((SECOND, NEW, "PLG-ROT-003"), (document(3, NEW), OLD, "PLG-ROT-005")):
        with pytest.raises(RootError) as caught:
            install(trust, data, *by)
        assert caught.value.id == error_id
    assert load_trust(trust) == before


def test_a_first_root_is_put_in_place_once_and_the_next_needs_one(trust):
    with pytest.raises(RootError) as caught:
        install(trust, SECOND, *OLD, *NEW)
    assert (caught.value.id, caught.value.code) == ("PLG-ROT-006", 2)
    install(trust, FIRST, *OLD, first=True)
    with pytest.raises(RootError) as caught:
        install(trust, FIRST, *OLD, first=True)
    assert caught.value.id == "PLG-ROT-006"


def test_a_root_whose_ids_are_taken_is_refused_before_the_store_would_not_load(trust):
    trust_edit.add_key(trust, RELEASE)
    with pytest.raises(TrustStoreError) as caught:
        install(trust, FIRST, *OLD, first=True)
    assert caught.value.id == "PLG-TST-004"
    assert len(load_trust(trust).keys) == 1
    trust_edit.remove_key(trust, "acme-release")
    rule = {"id": "two", "plugins": ["acme/*"], "threshold": 2}
    trust_edit.add_rule(trust, rule)
    with pytest.raises(TrustStoreError) as caught:
        install(trust, document(rule=[rule]), *OLD, first=True)
    assert caught.value.id == "PLG-TST-004"
    assert load_trust(trust).keys == ()


def test_the_operator_removes_no_key_from_the_root(trust):
    install(trust, FIRST, *OLD, first=True)
    with pytest.raises(RootError) as caught:
        trust_edit.remove_key(trust, "acme-release")
    assert (caught.value.id, caught.value.code) == ("PLG-ROT-007", 3)


def test_a_root_that_others_can_write_is_refused(trust):
    install(trust, FIRST, *OLD, first=True)
    os.chmod(os.path.join(trust, "root.json"), 0o622)
    with pytest.raises(TrustStoreError) as caught:
        load_trust(trust)
    assert caught.value.id == "PLG-TST-003"


def test_a_damaged_root_stops_the_whole_store(trust):
    install(trust, FIRST, *OLD, first=True)
    with open(os.path.join(trust, "root.json"), "ab") as file:
        file.write(b"\n")
    with pytest.raises(TrustStoreError) as caught:
        load_trust(trust)
    assert (caught.value.id, caught.value.code) == ("PLG-ROT-001", 4)


def test_the_root_says_how_many_must_sign_a_revocation_list(trust):
    revokers = [entry(kit.signer(50 + number), f"revoker-{number}", "revocation") for number in range(2)]
    data = document(more=revokers, thresholds={"root": 2, "revocation": 2})
    install(trust, data, *OLD, first=True)
    assert load_trust(trust).revocation_threshold == 2


# Drafts.


def test_a_draft_in_toml_becomes_the_one_form_that_is_signed():
    text = 'version = 1\n[thresholds]\nroot = 2\n' + "".join(
        kit.trust_text(each, id=f"root-{number}", role="root") for number, each in enumerate(OLD)
    )  # fmt: skip
    text += kit.trust_text(valid_after="2027-01-01") + '[[rule]]\nplugins = ["acme/*"]\nthreshold = 1\n'
    made = root.parse(root.from_toml(text))
    assert made.keys == tuple(each.public for each in OLD)
    assert made.plain["key"][3]["valid_after"] == 1_798_761_600
    assert made.plain["rule"] == [{"id": "", "plugins": ["acme/*"], "threshold": 1, "roles": ["release"]}]


DRAFTS = [
    "version = ",
    "[[key]]\n",
    "version = 1\n",
    "version = 1\nthresholds = 3\n",
    "x = 1979-05-27T07:32:00Z\n",
    "a" * 9,
]


@pytest.mark.parametrize("text", DRAFTS)
def test_a_draft_that_is_no_root_is_refused(text):
    with pytest.raises(RootError) as caught:
        root.from_toml(text)
    assert (caught.value.id, caught.value.code) == ("PLG-ROT-001", 4)


# Anything at all.

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip


@given(st.sampled_from(sorted(value())), JSON)
def test_any_value_in_any_field_is_a_root_or_refused(field, found):
    try:
        root.parse(canonical.encode({**value(), field: found}))
    except RootError as err:
        assert err.code == 4


@given(
    st.binary(max_size=200) | st.text(max_size=100).map(lambda text: text.encode("utf-8", "surrogatepass"))
)
def test_arbitrary_bytes_raise_nothing_but_our_errors(data):
    for read in (root.parse, lambda found: root.trust_part("{" + found.decode("latin-1"))):
        try:
            read(data)
        except SigningError as err:
            assert err.code == 4


@given(st.sets(st.integers(0, 2)), st.sets(st.integers(0, 2)), st.integers(1, 3), st.integers(1, 3))
def test_a_root_rotates_exactly_when_both_thresholds_are_reached(old, new, least, most):
    current = root.parse(document(threshold=least))
    data = document(2, NEW, most)
    armours = signed(data, *(OLD[each] for each in sorted(old)), *(NEW[each] for each in sorted(new)))
    try:
        root.check_next(current, data, armours)
    except RootError:
        assert len(old) < least or len(new) < most
    else:
        assert len(old) >= least and len(new) >= most
