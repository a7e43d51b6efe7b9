"""The signed revocation list: every attack on it has one stable answer, and a good one is never in doubt."""

import os

import pytest
import signing_kit as kit
from hypothesis import given
from hypothesis import strategies as st

from plugsec_signing import canonical, detached, keys, memory, revocation, sshsig
from plugsec_signing import revocation_edit as edit
from plugsec_signing.errors import RevocationError, RevocationUsage, SigningError
from plugsec_signing.memory import Remembered
from plugsec_signing.revocation import EMPTY, NAMESPACE, RevocationList, Revoked
from plugsec_signing.trust import load_revocations, load_trust
from plugsec_signing.verify import Circumstances, verify_bundle

NOW, DAY = kit.NOW, 86_400
FIRST, SECOND = kit.signer(20), kit.signer(21)  # may sign lists
ACME = keys.fingerprint(kit.ACME.public)
NAME, ID = "acme/wordfreq", "sha256:" + "a" * 64
GOOD = {
    "schema": "plugsec.revocations/1", "sequence": 7, "next_update": NOW + DAY,
    "keys": {ACME: {"kind": "compromised", "since": NOW - DAY}}, "bundles": [ID], "min_release": {NAME: 8},
}  # fmt: skip


def entry(private=FIRST, **fields) -> str:
    return kit.trust_text(private, **{"id": "revoker", "role": "revocation", **fields})


def document(**fields) -> bytes:
    value = {**GOOD, **fields}
    return canonical.encode({key: field for key, field in value.items() if field is not None})


def signed(data: bytes, *privates, namespace: str = NAMESPACE) -> bytes:
    return b"".join(kit.armour(each, data, namespace) for each in privates or (FIRST,))


def check(data: bytes, armours: bytes | None = None, *texts: str, **under) -> RevocationList:
    store = kit.store(*(texts or (entry(),)))
    return revocation.check(data, signed(data) if armours is None else armours, store, NOW, **under)


def test_a_good_list_says_exactly_what_was_signed():
    data = document()
    listed = check(data)
    assert listed.keys == {ACME: Revoked("compromised", NOW - DAY)}
    assert (listed.sequence, listed.next_update) == (7, NOW + DAY)
    assert (listed.bundles, listed.min_release) == ({ID}, {NAME: 8})
    assert revocation.encode(listed) == data


MALFORMED = {
    "empty": (b"", "PLG-REV-001"),
    "not JSON": (b"sequence: 7", "PLG-REV-001"),
    "spaces": (document().replace(b",", b", "), "PLG-REV-001"),
    "a key twice": (document().replace(b'"sequence":7', b'"sequence":7,"sequence":7'), "PLG-REV-001"),
    "a trailing newline": (document() + b"\n", "PLG-REV-001"),
    "an array": (b"[]", "PLG-REV-001"),
    "another schema": (document(schema="plugsec.manifest/1"), "PLG-REV-001"),
    "no schema": (document(schema=None), "PLG-REV-001"),
    "a newer schema": (document(schema="plugsec.revocations/2"), "PLG-REV-002"),
    "a newer schema with other fields": (b'{"schema":"plugsec.revocations/9"}', "PLG-REV-002"),
    "an unknown field": (document(comment="x"), "PLG-REV-001"),
    "no next update": (document(next_update=None), "PLG-REV-001"),
    "a next update of zero": (document(next_update=0), "PLG-REV-001"),
    "a next update in words": (document(next_update="2027-01-01"), "PLG-REV-001"),
    "sequence zero": (document(sequence=0), "PLG-REV-001"),
    "a negative sequence": (document(sequence=-1), "PLG-REV-001"),
    "a sequence that is true": (document(sequence=True), "PLG-REV-001"),
    "a huge sequence": (document().replace(b'"sequence":7', b'"sequence":9' + b"9" * 30), "PLG-REV-001"),
    "keys in a list": (document(keys=[ACME]), "PLG-REV-001"),
    "a fingerprint in capitals": (
        document(keys={ACME.upper(): {"kind": "superseded", "since": 1}}), "PLG-REV-001"),
    "a short fingerprint": (document(keys={ACME[:-1]: {"kind": "superseded", "since": 1}}), "PLG-REV-001"),
    "an unknown kind": (document(keys={ACME: {"kind": "unwell", "since": 1}}), "PLG-REV-001"),
    "a kind that is a list": (document(keys={ACME: {"kind": [], "since": 1}}), "PLG-REV-001"),
    "no since": (document(keys={ACME: {"kind": "superseded"}}), "PLG-REV-001"),
    "a negative since": (document(keys={ACME: {"kind": "superseded", "since": -1}}), "PLG-REV-001"),
    "bundles out of order": (document(bundles=[ID, "sha256:" + "0" * 64]), "PLG-REV-001"),
    "a bundle twice": (document(bundles=[ID, ID]), "PLG-REV-001"),
    "a bundle that is no id": (document(bundles=["a" * 64]), "PLG-REV-001"),
    "a bundle that is a number": (document(bundles=[7]), "PLG-REV-001"),
    "a plugin without publisher": (document(min_release={"wordfreq": 8}), "PLG-REV-001"),
    "a glob of plugins": (document(min_release={"acme/*": 8}), "PLG-REV-001"),
    "a release in words": (document(min_release={NAME: "8"}), "PLG-REV-001"),
    "too many bundles": (document(bundles=[f"sha256:{n:064x}" for n in range(10_001)]), "PLG-REV-010"),
    "too large": (b'{"a":"' + b"x" * revocation.MAX_BYTES + b'"}', "PLG-REV-001"),
    "nested without end": (b"[" * 100_000, "PLG-REV-001"),
}  # fmt: skip


@pytest.mark.parametrize("case", MALFORMED)
def test_what_is_no_list_is_refused_whoever_signed_it(case):
    data, error_id = MALFORMED[case]
    with pytest.raises(RevocationError) as caught:
        check(data, signed(data))
    assert (caught.value.id, caught.value.code) == (error_id, 4)


DATA = document()
SIGNATURES = {
    "unsigned": (b"", (entry(),), "PLG-REV-003"),
    "signed by a stranger": (signed(DATA, kit.STRANGER), (entry(),), "PLG-REV-004"),
    "signed by a key that may release": (signed(DATA, kit.ACME), (kit.trust_text(), entry()), "PLG-REV-004"),
    "a store in which nobody may sign lists": (signed(DATA), (kit.trust_text(),), "PLG-REV-004"),
    "signed as a manifest": (
        signed(DATA, namespace=sshsig.NAMESPACE_MANIFEST), (entry(),), "PLG-SIG-004"),
    "signed as a file": (signed(DATA, namespace="file"), (entry(),), "PLG-SIG-004"),
    "the signature of another list": (signed(document(sequence=6)), (entry(),), "PLG-SIG-005"),
    "a cut signature": (signed(DATA)[:-1], (entry(),), "PLG-SIG-001"),
    "words after the signature": (signed(DATA) + b"\n", (entry(),), "PLG-SIG-001"),
    "CRLF": (signed(DATA).replace(b"\n", b"\r\n"), (entry(),), "PLG-SIG-001"),
    "10,000 signatures": (signed(DATA) * 10_000, (entry(),), "PLG-SIG-001"),
    "a key that is not valid yet": (
        signed(DATA), (entry(valid_after="2027-02-01"),), "PLG-REV-004"),
    "a key that has expired": (signed(DATA), (entry(valid_before="2027-01-01"),), "PLG-REV-004"),
}  # fmt: skip


@pytest.mark.parametrize("case", SIGNATURES)
def test_a_list_that_nobody_signed_who_may_is_refused(case):
    armours, texts, error_id = SIGNATURES[case]
    with pytest.raises(SigningError) as caught:
        check(DATA, armours, *texts)
    assert (caught.value.id, caught.value.code) == (error_id, 3)


def test_a_signature_over_other_bytes_says_nothing_beside_a_good_one():
    other = document(sequence=6)
    assert check(DATA, signed(other, SECOND) + signed(DATA)).sequence == 7


def test_a_list_that_was_accepted_here_outlives_its_signers_key():
    expired = entry(valid_before="2027-01-01")
    digest = revocation.parse(DATA).digest
    assert check(DATA, None, expired, accepted=lambda: digest).sequence == 7
    with pytest.raises(RevocationError, match="not valid now"):
        check(DATA, None, expired, accepted=lambda: "0" * 64)


def test_a_key_that_the_list_in_force_revokes_signs_no_next_one():
    fingerprint = keys.fingerprint(FIRST.public)
    current = EMPTY._replace(keys={fingerprint: Revoked("superseded", NOW)})
    with pytest.raises(RevocationError) as caught:
        check(DATA, current=current)
    assert caught.value.id == "PLG-REV-004"
    both = (entry(), entry(SECOND, id="second"))
    assert check(DATA, signed(DATA, FIRST, SECOND), *both, current=current).sequence == 7


def test_a_threshold_counts_distinct_keys_and_not_ids():
    twice = kit.store(entry(), entry(id="again"))._replace(revocation_threshold=2)
    with pytest.raises(RevocationError, match=r"signed by 1 key .*; 2 must"):
        revocation.check(DATA, signed(DATA, FIRST, FIRST), twice, NOW)
    two = kit.store(entry(), entry(SECOND, id="second"))._replace(revocation_threshold=2)
    assert revocation.check(DATA, signed(DATA, FIRST, SECOND), two, NOW).sequence == 7


LISTED = revocation.parse(DATA)
CONTINUES = {
    "the first one": (LISTED, (0, ""), None),
    "the very one": (LISTED, (7, LISTED.digest), None),
    "a later one": (LISTED, (6, "0" * 64), None),
    "none, where there was none": (None, (0, ""), None),
    "an older one": (LISTED, (8, "0" * 64), "PLG-REV-005"),
    "another with the same sequence": (LISTED, (7, "0" * 64), "PLG-REV-006"),
    "none, where there was one": (None, (1, "0" * 64), "PLG-REV-007"),
}


@pytest.mark.parametrize("case", CONTINUES)
def test_a_rollback_of_the_list_is_refused(case):
    listed, known, error_id = CONTINUES[case]
    remembered = Remembered({}, 0, *known)
    if error_id is None:
        revocation.check_continues(listed, remembered)
        return
    with pytest.raises(RevocationError) as caught:
        revocation.check_continues(listed, remembered)
    assert (caught.value.id, caught.value.code) == (error_id, 3)


# On the disk.


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path)


class Machine:
    """A trust store that trusts acme's releases and two revokers, a memory, and a clock."""

    def __init__(self, root):
        self.trust = str(root / "trust.d")
        self.memory = str(root / "state" / "trust" / "memory.jsonl")
        os.mkdir(self.trust, 0o700)
        (root / "state").mkdir(mode=0o700)
        self.write("keys.toml", (kit.trust_text() + entry() + entry(SECOND, id="second")).encode())

    def write(self, name, data):
        path = os.path.join(self.trust, name)
        with open(path, "wb") as file:
            file.write(data)
        os.chmod(path, 0o600)

    def put(self, data, armours=None):
        self.write("revocations.json", data)
        self.write("revocations.json.sshsig", signed(data) if armours is None else armours)

    def place(self, data, armours=None):
        armours = signed(data) if armours is None else armours
        return edit.place(self.trust, self.memory, data, armours, NOW, announce=lambda *_: None)

    def verify(self, path, now=NOW):
        store = load_trust(self.trust)
        return verify_bundle(
            path, store, now,
            under=Circumstances(
                load_revocations(self.trust, store, now, self.memory),
                lambda name: memory.recall(self.memory, name, self.trust),
            ),
        )  # fmt: skip


NOTHING = {"keys": {}, "bundles": [], "min_release": {}}


def test_without_a_list_a_bundle_is_accepted_and_the_list_asked_for_once(machine, good, monkeypatch):
    asked = []
    real = os.path.lexists
    monkeypatch.setattr(os.path, "lexists", lambda path: asked.append(path) or real(path))
    assert machine.verify(good).warnings == ()
    assert [os.path.basename(path) for path in asked] == ["revocations.json"]


@pytest.mark.parametrize(
    ("fields", "error_id"),
    [
        ({"keys": {ACME: {"kind": "compromised", "since": 0}}}, "PLG-TRU-008"),
        ({"keys": {ACME: {"kind": "superseded", "since": 0}}}, "PLG-TRU-009"),
        ({"bundles": ["sha256:" + kit.hashlib.sha256(kit.manifest()).hexdigest()]}, "PLG-TRU-010"),
        ({"min_release": {NAME: 8}}, "PLG-TRU-011"),
    ],
)
def test_what_the_list_names_is_refused(machine, good, fields, error_id):
    machine.put(document(**{**NOTHING, **fields}))
    with pytest.raises(SigningError) as caught:
        machine.verify(good)
    assert (caught.value.id, caught.value.code) == (error_id, 3)


def test_a_stale_list_still_counts_and_says_that_it_is_stale(machine, good):
    machine.put(document(**NOTHING))
    assert machine.verify(good).warnings == ()
    (warning,) = machine.verify(good, NOW + DAY).warnings
    assert "revocation list 7 is stale" in warning
    machine.put(document(bundles=[], min_release={}))
    with pytest.raises(SigningError):
        machine.verify(good, NOW + DAY)


def test_a_list_that_was_accepted_and_is_gone_or_older_stops_every_bundle(machine, good):
    machine.place(document(**NOTHING))
    assert machine.verify(good).verdict.revocations.sequence == 7
    machine.put(document(**NOTHING, sequence=6))
    with pytest.raises(RevocationError) as caught:
        machine.verify(good)
    assert caught.value.id == "PLG-REV-005"
    os.unlink(os.path.join(machine.trust, "revocations.json"))
    with pytest.raises(RevocationError) as caught:
        machine.verify(good)
    assert caught.value.id == "PLG-REV-007"


def test_an_accepted_run_remembers_the_list_that_was_copied_into_place(machine, good):
    machine.put(document(**NOTHING))
    memory.remember(machine.memory, machine.verify(good).verdict)
    machine.put(document(**NOTHING, sequence=8))
    memory.remember(machine.memory, machine.verify(good).verdict)  # the bundle is known, the list is not
    machine.put(document(**NOTHING))
    with pytest.raises(RevocationError) as caught:
        machine.verify(good)
    assert caught.value.id == "PLG-REV-005"


@pytest.mark.parametrize("name", ["revocations.json", "revocations.json.sshsig"])
@pytest.mark.parametrize("spoil", ["writable", "link", "fifo"])
def test_a_list_that_others_could_have_written_is_refused(machine, good, name, spoil):
    machine.put(document(**NOTHING))
    path = os.path.join(machine.trust, name)
    if spoil == "writable":
        os.chmod(path, 0o622)
    else:
        os.rename(path, path + ".aside")
        if spoil == "link":
            os.symlink(path + ".aside", path)
        else:
            os.mkfifo(path, 0o600)
    with pytest.raises(RevocationError) as caught:
        machine.verify(good)
    assert (caught.value.id, caught.value.code) == ("PLG-REV-008", 4)


PLACED = {
    "older": (document(sequence=6), None, "PLG-REV-005"),
    "another with the same sequence": (document(bundles=[]), None, "PLG-REV-006"),
    "by a stranger": (document(sequence=8), (kit.STRANGER,), "PLG-REV-004"),
    "by a key that the one in force revokes": (document(sequence=8), (FIRST,), "PLG-REV-004"),
}


@pytest.mark.parametrize("case", PLACED)
def test_what_may_not_follow_the_list_in_force_changes_nothing(machine, case):
    fingerprint = keys.fingerprint(FIRST.public)
    first = document(keys={fingerprint: {"kind": "compromised", "since": 0}})
    machine.place(first, signed(first))
    data, by, error_id = PLACED[case]
    with pytest.raises(RevocationError) as caught:
        machine.place(data, signed(data, *(by or (SECOND,))))
    assert caught.value.id == error_id
    listed = edit.in_force(machine.trust, load_trust(machine.trust), NOW, machine.memory)
    assert listed.digest == revocation.parse(first).digest


def test_the_very_list_may_be_put_in_place_again(machine):
    assert machine.place(DATA).listed == machine.place(DATA).listed


def test_a_damaged_list_is_mended_by_the_next_one(machine, good):
    machine.place(document(**NOTHING))
    machine.write("revocations.json", b"{")
    with pytest.raises(RevocationError):
        machine.verify(good)
    machine.place(document(**NOTHING, sequence=8))
    assert machine.verify(good).verdict.revocations.sequence == 8


def test_at_every_step_of_a_replacement_the_two_files_belong_together(machine, monkeypatch):
    from plugsec_signing import trust_edit

    machine.place(document(**NOTHING))
    seen = []
    real = trust_edit.replace_file

    def replace(path, data):
        real(path, data)
        seen.append(edit.in_force(machine.trust, load_trust(machine.trust), NOW, "/nowhere").sequence)

    monkeypatch.setattr(trust_edit, "replace_file", replace)
    machine.place(document(**NOTHING, sequence=8))
    assert seen == [7, 8]


def test_a_reader_who_has_read_the_list_before_still_finds_its_signatures(machine):
    first, second, third = (document(**NOTHING, sequence=number) for number in (7, 8, 9))
    path = os.path.join(machine.trust, "revocations.json.sshsig")

    def beside():
        with open(path, "rb") as file:
            return file.read()

    machine.place(first)
    assert beside() == signed(first)
    machine.place(second)
    assert beside() == signed(first) + signed(second)
    machine.place(third)
    assert beside() == signed(second) + signed(third)


# The next list.


def test_the_next_list_follows_the_one_before():
    listed = edit.following(LISTED, NOW, 3)
    assert (listed.sequence, listed.next_update, listed.keys) == (8, NOW + 3 * DAY, LISTED.keys)


@pytest.mark.parametrize("days", [0, -1, 367, 10**30])
def test_a_list_that_is_never_due_again_is_not_made(days):
    with pytest.raises(RevocationUsage):
        edit.following(LISTED, NOW, days)


@pytest.mark.parametrize(
    "change",
    [
        lambda: edit.with_key(LISTED, ACME, "superseded", 0),
        lambda: edit.with_key(LISTED, ACME, "compromised", NOW),
        lambda: edit.with_min_release(LISTED, NAME, 7),
        lambda: edit.without(LISTED, "acme/other"),
    ],
)
def test_what_would_quietly_take_something_back_is_refused(change):
    with pytest.raises(RevocationUsage) as caught:
        change()
    assert (caught.value.id, caught.value.code) == ("PLG-REV-009", 2)


def test_everything_can_be_taken_back_on_purpose():
    left = edit.without(edit.without(edit.without(LISTED, ACME), ID), NAME)
    assert (left.keys, left.bundles, left.min_release) == ({}, frozenset(), {})


def test_a_superseded_key_may_turn_out_to_be_compromised():
    superseded = edit.with_key(EMPTY, ACME, "superseded", 5)
    assert edit.with_key(superseded, ACME, "compromised", 9).keys[ACME] == Revoked("compromised", 9)


# Anything at all.

HASHES = st.text("0123456789abcdef", min_size=64, max_size=64)
NAMES = st.from_regex(r"\A[a-z0-9][a-z0-9._-]{0,9}/[a-z0-9][a-z0-9._-]{0,9}\Z")
COUNTS = st.integers(1, 2**53 - 1)
LISTS = st.builds(
    RevocationList,
    sequence=COUNTS,
    next_update=COUNTS,
    keys=st.dictionaries(HASHES, st.builds(Revoked, st.sampled_from(["compromised", "superseded"]), COUNTS), max_size=5),
    bundles=st.frozensets(HASHES.map("sha256:{}".format), max_size=5),
    min_release=st.dictionaries(NAMES, COUNTS, max_size=5),
    digest=st.just(""),
    origin=st.just(""),
)  # fmt: skip


@given(LISTS)
def test_a_list_survives_being_written_and_read(listed):
    assert revocation.parse(revocation.encode(listed))._replace(digest="") == listed


@given(st.binary(max_size=300) | st.text(max_size=100).map(str.encode))
def test_arbitrary_bytes_raise_nothing_but_our_errors(data):
    for read in (revocation.parse, detached.split):
        try:
            read(data)
        except SigningError:
            pass


@given(st.data())
def test_a_changed_byte_never_leaves_the_list_accepted(data):
    whole = bytearray(DATA + signed(DATA))
    at = data.draw(st.integers(0, len(whole) - 1))
    whole[at] ^= data.draw(st.integers(1, 255))
    with pytest.raises(SigningError):
        check(bytes(whole[: len(DATA)]), bytes(whole[len(DATA) :]))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.text(max_size=8) | HASHES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8) | HASHES, inner, max_size=3),
    max_leaves=6,
)  # fmt: skip


@given(st.sampled_from(sorted(GOOD)), JSON)
def test_any_value_in_any_field_is_a_list_or_refused(field, value):
    try:
        revocation.parse(canonical.encode({**GOOD, field: value}))
    except RevocationError as err:
        assert err.code == 4
