"""The trust store says whom its owner trusts, or it is refused; nothing in it is ignored."""

import contextlib
import fcntl
import json
import os
import re
import stat
import threading

import pytest
import signing_kit as kit
from hypothesis import given
from hypothesis import strategies as st

from plugsec_signing import keys, trust, trust_edit
from plugsec_signing.errors import TrustRefused, TrustStoreError
from plugsec_signing.times import format_time, parse_time

FINGERPRINT = keys.fingerprint(kit.ACME.public)
IDENTITY_LINE = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAEAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"

BAD = {
    "not TOML": ("[[key]", "PLG-TST-001"),
    "deep TOML": ("x = " + "[" * 5000, "PLG-TST-001"),
    "revocation": (kit.trust_text() + "[revocation]\nsequence=1\n", "PLG-TST-007"),
    "unknown table": (kit.trust_text() + "[settings]\n", "PLG-TST-002"),
    "unknown top-level value": ("version = 1\n" + kit.trust_text(), "PLG-TST-002"),
    "one bracket": ('[key]\nid = "a"\n', "PLG-TST-002"),
    "keys as text": ('key = ["a"]\n', "PLG-TST-002"),
    "unknown field": (kit.trust_text(plugin=["acme/*"]), "PLG-TST-002"),
    "no id": (kit.trust_text(id=None), "PLG-TST-002"),
    "no key": (kit.trust_text(ssh=None), "PLG-TST-002"),
    "no publisher": (kit.trust_text(publisher=None), "PLG-TST-002"),
    "id with a path": (kit.trust_text(id="../x"), "PLG-TST-002"),
    "id with spaces": (kit.trust_text(id="a b"), "PLG-TST-002"),
    "long id": (kit.trust_text(id="a" * 65), "PLG-TST-002"),
    "publisher in upper case": (kit.trust_text(publisher="Acme"), "PLG-TST-002"),
    "homoglyph publisher": (kit.trust_text(publisher="\u0430cme"), "PLG-TST-002"),
    "publisher is a number": (kit.trust_text(publisher=1), "PLG-TST-002"),
    "role with spaces": (kit.trust_text(role="Release it"), "PLG-TST-002"),
    "no globs": (kit.trust_text(plugins=[]), "PLG-TST-002"),
    "glob as text": (kit.trust_text(plugins="acme/*"), "PLG-TST-002"),
    "glob without slash": (kit.trust_text(plugins=["*"]), "PLG-TST-002"),
    "glob with two slashes": (kit.trust_text(plugins=["acme/*/*"]), "PLG-TST-002"),
    "glob with a question mark": (kit.trust_text(plugins=["acme/?"]), "PLG-TST-002"),
    "glob with brackets": (kit.trust_text(plugins=["acme/[ab]"]), "PLG-TST-002"),
    "negated glob": (kit.trust_text(plugins=["!acme/*"]), "PLG-TST-002"),
    "local time": (kit.trust_text(valid_after="2026-01-01T00:00:00"), "PLG-TST-002"),
    "time zone": (kit.trust_text(valid_after="2026-01-01T00:00:00+02:00"), "PLG-TST-002"),
    "no such day": (kit.trust_text(valid_before="2026-02-30"), "PLG-TST-002"),
    "time as number": (kit.trust_text(valid_before=5), "PLG-TST-002"),
    "TOML local time": (kit.trust_text() + "valid_before = 2026-01-01T00:00:00\n", "PLG-TST-002"),
    "fraction of a second": (kit.trust_text() + "valid_before = 2026-01-01T00:00:00.5Z\n", "PLG-TST-002"),
    "never valid": (kit.trust_text(valid_after="2027-01-01", valid_before="2027-01-01"), "PLG-TST-002"),
    "RSA key": (kit.trust_text(ssh="ssh-rsa AAAA"), "PLG-TST-006"),
    "identity as key": (kit.trust_text(ssh=IDENTITY_LINE), "PLG-TST-006"),
    "certificate authority": (kit.trust_text(ssh="cert-authority " + IDENTITY_LINE), "PLG-TST-006"),
    "key is a number": (kit.trust_text(ssh=5), "PLG-TST-002"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_malformed_trust_file_is_refused(name):
    text, error_id = BAD[name]
    with pytest.raises(TrustStoreError) as caught:
        trust.parse_trust_toml(text)
    assert (caught.value.id, caught.value.code) == (error_id, 4)


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ('"2027-01-01"', 1798761600),
        ("2027-01-01", 1798761600),
        ('"2027-01-01T00:00:01Z"', 1798761601),
        ("2027-01-01T00:00:01Z", 1798761601),
        ("2027-01-01T01:00:00+01:00", 1798761600),
    ],
)
def test_times_are_utc_however_they_are_written(written, seconds):
    plain = trust.parse_trust_toml(kit.trust_text() + f"valid_before = {written}\n")
    assert plain["key"][0]["valid_before"] == seconds


def test_fields_that_are_left_out_have_the_narrow_meaning():
    (entry,) = trust.parse_trust_toml(kit.trust_text())["key"]
    assert entry["plugins"] == ["acme/*"]
    assert entry["role"] == "release"
    assert entry["valid_after"] is entry["valid_before"] is None


def test_the_plain_form_builds_the_same_store():
    plain = trust.parse_trust_toml(kit.trust_text(valid_after="2026-01-01"))
    again = trust.TrustStore.from_plain([json.loads(json.dumps(plain))])
    assert again == trust.TrustStore.from_plain([plain])


@pytest.mark.parametrize(
    "plain",
    [
        {},
        {"key": None},
        {"key": [1]},
        {"key": [{}]},
        {"key": "x"},
        {"key": []},
        {"key": [], "rule": [{}]},
        [],
        5,
        {"key": [{"id": "a", "ssh": 1}]},
    ],
)
def test_a_damaged_plain_form_is_refused(plain):
    with pytest.raises(TrustStoreError):
        trust.TrustStore.from_plain([plain], digest="")


def test_a_weak_key_in_a_plain_form_is_refused_again():
    plain = trust.parse_trust_toml(kit.trust_text())
    plain["key"][0]["ssh"] = IDENTITY_LINE
    with pytest.raises(TrustStoreError) as caught:
        trust.TrustStore.from_plain([plain])
    assert caught.value.id == "PLG-TST-006"


def test_two_keys_of_one_name_are_refused():
    with pytest.raises(TrustStoreError) as caught:
        kit.store(kit.trust_text(), kit.trust_text(kit.REVIEW))
    assert caught.value.id == "PLG-TST-004"


# Globs.


@pytest.mark.parametrize(
    ("glob", "name", "expected"),
    [
        ("acme/*", "acme/x", True),
        ("acme/*", "acme2/x", False),
        ("acme/*", "acme/x/y", False),
        ("*/*", "acme/x", True),
        ("acme/payments-*", "acme/payments-eu", True),
        ("acme/payments-*", "acme/payments", False),
        ("acme/*-*", "acme/a-b", True),
        ("acme/a*a", "acme/a", False),
        ("acme/a*a", "acme/aa", True),
        ("acme/x", "acme/x", True),
        ("acme/x", "acme/xx", False),
        ("acme/**", "acme/x", True),
        ("a*/x", "acme/x", True),
    ],
)
def test_a_glob_matches_within_one_component(glob, name, expected):
    assert trust.matches(glob, name) is expected


GLOB_PART = st.text("ab*", min_size=1, max_size=6)
NAME_PART = st.text("ab", min_size=1, max_size=8)


@given(GLOB_PART, GLOB_PART, NAME_PART, NAME_PART)
def test_globs_agree_with_regular_expressions(left, right, publisher, plugin):
    pattern = re.escape(f"{left}/{right}").replace(r"\*", "[^/]*")
    expected = re.fullmatch(pattern, f"{publisher}/{plugin}") is not None
    assert trust.matches(f"{left}/{right}", f"{publisher}/{plugin}") is expected


# Who counts.

WINDOW = {"valid_after": "2027-01-01", "valid_before": "2028-01-01"}
START, END = 1798761600, 1830297600
REVIEWER = kit.trust_text(kit.REVIEW, id="acme-review", role="review")
REVIEW_FINGERPRINT = keys.fingerprint(kit.REVIEW.public)

REFUSED = {
    "unsigned": ([kit.trust_text()], [], kit.NOW, "PLG-TRU-001"),
    "empty store": ([""], [FINGERPRINT], kit.NOW, "PLG-TRU-002"),
    "unknown key": ([REVIEWER], [FINGERPRINT], kit.NOW, "PLG-TRU-002"),
    "another glob": ([kit.trust_text(plugins=["acme/other"])], [FINGERPRINT], kit.NOW, "PLG-TRU-003"),
    "another publisher": ([kit.trust_text(publisher="other")], [FINGERPRINT], kit.NOW, "PLG-TRU-003"),
    "not yet valid": ([kit.trust_text(**WINDOW)], [FINGERPRINT], START - 1, "PLG-TRU-004"),
    "expired to the second": ([kit.trust_text(**WINDOW)], [FINGERPRINT], END, "PLG-TRU-005"),
    "reviewers only": ([REVIEWER], [REVIEW_FINGERPRINT], kit.NOW, "PLG-TRU-006"),
    "reviewer, and an unknown releaser": (
        [REVIEWER],
        [REVIEW_FINGERPRINT, FINGERPRINT],
        kit.NOW,
        "PLG-TRU-006",
    ),
    "the same key expired and for another glob": (
        [kit.trust_text(**WINDOW), kit.trust_text(id="b", plugins=["acme/b"])],
        [FINGERPRINT],
        END,
        "PLG-TRU-005",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_signatures_that_do_not_count_are_refused_with_the_closest_reason(name):
    texts, fingerprints, now, error_id = REFUSED[name]
    with pytest.raises(TrustRefused) as caught:
        trust.judge(kit.store(*texts), kit.CANDIDATE, fingerprints, now)
    assert (caught.value.id, caught.value.code) == (error_id, 3)
    assert caught.value.hint


@pytest.mark.parametrize("now", [START, END - 1])
def test_a_key_counts_from_its_first_to_before_its_last_instant(now):
    (signer,) = trust.judge(kit.store(kit.trust_text(**WINDOW)), kit.CANDIDATE, [FINGERPRINT], now).signers
    assert signer == ("acme-release", "acme", "release", FINGERPRINT)


def test_a_reviewer_adds_evidence_to_a_release():
    signers = trust.judge(
        kit.store(kit.trust_text(), REVIEWER), kit.CANDIDATE, [FINGERPRINT, REVIEW_FINGERPRINT], kit.NOW
    ).signers
    assert [signer.key_id for signer in signers] == ["acme-release", "acme-review"]


def test_one_key_under_two_names_is_two_entries_of_one_fingerprint():
    texts = kit.trust_text(), kit.trust_text(id="second", role="review")
    signers = trust.judge(kit.store(*texts), kit.CANDIDATE, [FINGERPRINT], kit.NOW).signers
    assert {signer.fingerprint for signer in signers} == {FINGERPRINT}


@given(st.integers(-(2**36), 2**36))
def test_times_are_written_and_read_back(seconds):
    seconds %= 253402300800  # up to the year 9999
    assert parse_time(format_time(seconds)) == seconds


@given(st.text(max_size=30))
def test_any_text_is_a_time_or_is_not(text):
    assert parse_time(text) is None or re.match(r"\d{4}-\d\d-\d\d", text)


# The directory.


@pytest.fixture
def directory(tmp_path):
    path = tmp_path / "trust.d"
    path.mkdir(mode=0o700)
    return path


def _file(directory, name="acme.toml", text=None, mode=0o600):
    path = directory / name
    path.write_text(kit.trust_text() if text is None else text)
    path.chmod(mode)
    return path


def test_a_missing_directory_is_a_store_that_trusts_nobody(tmp_path):
    assert trust.load_trust(str(tmp_path / "none")).keys == ()


def test_files_are_read_in_order_and_the_digest_names_exactly_their_bytes(directory):
    _file(directory, "b.toml", kit.trust_text(kit.REVIEW, id="b"))
    _file(directory, "a.toml", kit.trust_text(id="a"))
    _file(directory, "notes.txt", "not a trust file")
    first = trust.load_trust(str(directory))
    assert [key.id for key in first.keys] == ["a", "b"]
    assert trust.load_trust(str(directory)) == first
    _file(directory, "a.toml", kit.trust_text(id="a") + "# a comment\n")
    assert trust.load_trust(str(directory)).digest != first.digest


def test_a_callers_parser_gets_each_text_once(directory):
    _file(directory)
    seen = []

    def parse(text):
        seen.append(text)
        return trust.parse_trust_toml(text)

    assert trust.load_trust(str(directory), parse=parse) == trust.load_trust(str(directory))
    assert seen == [kit.trust_text()]


def test_an_error_names_the_file(directory):
    _file(directory, "broken.toml", "[[rule]]\n")
    with pytest.raises(TrustStoreError, match=r"broken\.toml") as caught:
        trust.load_trust(str(directory))
    assert caught.value.id == "PLG-TST-002"


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o722, 0o1777])
def test_a_directory_that_others_can_write_is_refused(mode, directory):
    _file(directory)
    directory.chmod(mode)
    with pytest.raises(TrustStoreError) as caught:
        trust.load_trust(str(directory))
    assert (caught.value.id, caught.value.code) == ("PLG-TST-003", 4)


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_a_file_that_others_can_write_is_refused(mode, directory):
    _file(directory, mode=mode)
    with pytest.raises(TrustStoreError) as caught:
        trust.load_trust(str(directory))
    assert caught.value.id == "PLG-TST-003"


@pytest.mark.parametrize("what", ["directory", "file"])
def test_a_store_that_belongs_to_somebody_else_is_refused(what, directory):
    if os.geteuid() != 0:
        pytest.skip("only root can give a file to another user")
    path = _file(directory)
    os.chown(directory if what == "directory" else path, 12345, 12345)
    with pytest.raises(TrustStoreError) as caught:
        trust.load_trust(str(directory))
    assert caught.value.id == "PLG-TST-003"


def test_links_and_pipes_in_the_store_are_refused_without_waiting(directory, tmp_path):
    elsewhere = _file(tmp_path, "elsewhere")
    os.symlink(elsewhere, directory / "link.toml")
    with pytest.raises(TrustStoreError):
        trust.load_trust(str(directory))
    os.unlink(directory / "link.toml")
    os.mkfifo(directory / "pipe.toml", 0o600)
    with pytest.raises(TrustStoreError) as caught:
        trust.load_trust(str(directory))
    assert caught.value.id == "PLG-TST-003"


def test_a_file_that_is_too_large_or_not_text_is_refused(directory):
    _file(directory, text="#" * (trust.MAX_FILE_BYTES + 1))
    with pytest.raises(TrustStoreError) as caught:
        trust.load_trust(str(directory))
    assert caught.value.id == "PLG-TST-005"
    (directory / "acme.toml").write_bytes(b"\xff")
    with pytest.raises(TrustStoreError) as caught:
        trust.load_trust(str(directory))
    assert caught.value.id == "PLG-TST-001"


# Changing it.

ENTRY = {"id": "new", "ssh": keys.public_line(kit.STRANGER.public), "publisher": "acme"}


def test_an_added_key_is_private_and_counts(tmp_path):
    directory = str(tmp_path / "home" / "trust.d")
    added = trust_edit.add_key(
        directory, {**ENTRY, "plugins": ["acme/a", "acme/b"], "valid_before": "2030-01-01"}
    )
    assert trust.load_trust(directory).keys == (added,)
    assert added.valid_before == parse_time("2030-01-01")
    assert stat.S_IMODE(os.stat(directory).st_mode) == 0o700
    assert stat.S_IMODE(os.stat(os.path.join(directory, "new.toml")).st_mode) == 0o600
    assert os.listdir(directory) == ["new.toml"]


def test_a_taken_id_is_refused_and_the_store_stays_as_it_was(directory):
    _file(directory, text=kit.trust_text(id="new"))
    before = trust.load_trust(str(directory))
    with pytest.raises(TrustStoreError) as caught:
        trust_edit.add_key(str(directory), ENTRY)
    assert caught.value.id == "PLG-TST-004"
    assert trust.load_trust(str(directory)) == before


@pytest.mark.parametrize("comment", ['x "quoted" \\ back', "tab\tDEL\x7f", "ünïcode", "\x1b[31m"])
def test_any_comment_of_a_key_survives_being_written(comment, directory):
    line = keys.public_line(kit.STRANGER.public) + " " + comment
    trust_edit.add_key(str(directory), {**ENTRY, "ssh": line})
    (found,) = trust.load_trust(str(directory)).keys
    assert found.key.comment == comment


def test_removing_the_only_key_of_a_file_removes_the_file(directory):
    trust_edit.add_key(str(directory), ENTRY)
    assert trust_edit.remove_key(str(directory), "new").id == "new"
    assert os.listdir(directory) == []


def test_removing_one_key_keeps_comments_and_the_others(directory):
    text = "# ours\n" + kit.trust_text(id="a") + "# second\n" + kit.trust_text(kit.REVIEW, id="b") + "# end\n"
    path = _file(directory, text=text)
    trust_edit.remove_key(str(directory), "a")
    assert path.read_text() == "# ours\n" + kit.trust_text(kit.REVIEW, id="b") + "# end\n"
    assert [key.id for key in trust.load_trust(str(directory)).keys] == ["b"]


def test_a_file_that_cannot_be_cut_safely_is_left_to_its_owner(directory):
    one, two = (
        f'{{id = "{name}", ssh = "{keys.public_line(kit.ACME.public)}", publisher = "acme"}}' for name in "ab"
    )
    path = _file(directory, text=f"key = [{one}, {two}]\n")
    before = path.read_text()
    with pytest.raises(TrustStoreError) as caught:
        trust_edit.remove_key(str(directory), "a")
    assert caught.value.id == "PLG-TST-009"
    assert path.read_text() == before


def test_removing_an_unknown_key_says_which_there_are(directory):
    _file(directory)
    with pytest.raises(TrustStoreError) as caught:
        trust_edit.remove_key(str(directory), "nobody")
    assert caught.value.id == "PLG-TST-008"
    assert "acme-release" in caught.value.hint


def test_a_change_that_cannot_be_recorded_does_not_happen(directory):
    class LogFullError(Exception):
        pass

    def refuse(_):
        raise LogFullError

    with pytest.raises(LogFullError):
        trust_edit.add_key(str(directory), ENTRY, announce=refuse)
    assert os.listdir(directory) == []
    trust_edit.add_key(str(directory), ENTRY)
    with pytest.raises(LogFullError):
        trust_edit.remove_key(str(directory), "new", announce=refuse)
    assert [key.id for key in trust.load_trust(str(directory)).keys] == ["new"]


def test_a_change_holds_the_store_against_other_editors(directory):
    def try_lock(_):
        fd = os.open(directory, os.O_RDONLY)
        try:
            with pytest.raises(BlockingIOError):
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        finally:
            os.close(fd)

    trust_edit.add_key(str(directory), ENTRY, announce=try_lock)
    trust_edit.remove_key(str(directory), "new", announce=try_lock)


def test_of_concurrent_additions_under_one_id_exactly_one_wins(directory):
    outcomes = []

    def add():
        try:
            trust_edit.add_key(str(directory), ENTRY)
            outcomes.append("added")
        except TrustStoreError as err:
            outcomes.append(err.id)

    threads = [threading.Thread(target=add) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["PLG-TST-004"] * 7 + ["added"]
    assert os.listdir(directory) == ["new.toml"]


@given(st.text(max_size=200) | st.text(alphabet='[]key=id"\n#{}. ', max_size=80))
def test_any_text_is_a_trust_file_or_is_refused_within_our_tree(text):
    with contextlib.suppress(TrustStoreError):
        trust.parse_trust_toml(text)
