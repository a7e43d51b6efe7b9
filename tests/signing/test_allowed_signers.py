"""allowed_signers files: what they say of plugins is taken over exactly, or the file is refused."""

import os
import subprocess
import time

import pytest
import signing_kit as kit
from hypothesis import given
from hypothesis import strategies as st

from plugsec_signing import allowed_signers, keys, revocation, sshsig, trust_toml
from plugsec_signing.errors import InterchangeError, SigningError
from plugsec_signing.trust import TrustStore

LINE = keys.public_line(kit.ACME.public)
MANIFEST, REVOKE = sshsig.NAMESPACE_MANIFEST, revocation.NAMESPACE
STOCK = f'acme namespaces="{MANIFEST}" {LINE} acme-release\n'
ECDSA = "ecdsa-sha2-nistp256"
IDENTITY = kit.wire.string(b"ssh-ed25519") + kit.wire.string(b"\1" + bytes(31))


def parse(text, **options):
    return allowed_signers.parse(text.encode() if isinstance(text, str) else text, **options)


def imported(text, **options) -> TrustStore:
    found = parse(text, **options)
    return TrustStore.from_plain(
        [{"key": [trust_toml.check_entry(each) for each in found.entries], "rule": []}]
    )


@pytest.fixture
def zone(monkeypatch):
    """Local time is that of New York."""
    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def test_a_plain_line_trusts_a_publishers_releases():
    (key,) = imported(STOCK).keys
    assert (key.id, key.publisher, key.plugins, key.role) == ("acme-release", "acme", ("acme/*",), "release")
    assert key.fingerprint == keys.fingerprint(kit.ACME.public)


TAKEN = {
    "no namespaces: releases, and no revocations": (f"acme {LINE}", [("acme", ("acme/*",), "release")]),
    "plugins": (f"acme/wordfreq,acme/x-* {LINE}", [("acme", ("acme/wordfreq", "acme/x-*"), "release")]),
    "a publisher and its plugins": (f"acme,acme/* {LINE}", [("acme", ("acme/*",), "release")]),
    "two publishers": (f"acme,b {LINE}", [("acme", ("acme/*",), "release"), ("b", ("b/*",), "release")]),
    "quoted principals": (f'"acme,b/x" {LINE}', [("acme", ("acme/*",), "release"), ("b", ("b/x",), "release")]),
    "revocations": (f'acme namespaces="{REVOKE}" {LINE}', [("acme", ("acme/*",), "revocation")]),
    "both": (f'acme namespaces="{MANIFEST},{REVOKE}" {LINE}',
             [("acme", ("acme/*",), "release"), ("acme", ("acme/*",), "revocation")]),
    "a pattern of namespaces": (f'acme namespaces="git,plugsec-m*@v?" {LINE}', [("acme", ("acme/*",), "release")]),
    "all but one": (f'acme namespaces="*,!{REVOKE}" {LINE}', [("acme", ("acme/*",), "release")]),
    "options in capitals": (f'acme NameSpaces="{MANIFEST}" {LINE}', [("acme", ("acme/*",), "release")]),
    "tabs and CRLF": (f"acme\t{LINE}\r\n", [("acme", ("acme/*",), "release")]),
    "comments and blank lines": (f"# acme\n\n   \nacme {LINE}", [("acme", ("acme/*",), "release")]),
}  # fmt: skip


@pytest.mark.parametrize("case", TAKEN)
def test_a_line_becomes_what_it_says(case):
    text, wanted = TAKEN[case]
    assert [(key.publisher, key.plugins, key.role) for key in imported(text).keys] == wanted


def test_a_mail_address_is_whoever_the_operator_says():
    (key,) = imported(f"anna@acme.example {LINE}", publisher="acme").keys
    assert (key.publisher, key.plugins) == ("acme", ("acme/*",))


def test_a_glob_stays_that_publishers_whatever_the_operator_says():
    assert {key.publisher for key in imported(f"b/x,anna@x.example {LINE}", publisher="acme").keys} == {
        "acme",
        "b",
    }


REFUSED = {
    "no key": ("acme", "PLG-ALS-001"),
    "no principals": (LINE, "PLG-ALS-001"),
    "an empty principal": (f"acme,,b {LINE}", "PLG-ALS-001"),
    "an open quote": (f'"acme {LINE}', "PLG-ALS-001"),
    "a key that is none": ("acme ssh-ed25519 AAAA", "PLG-ALS-001"),
    "an RSA key": ("acme ssh-rsa AAAAB3NzaC1yc2E=", "PLG-ALS-001"),
    "the identity point as key": (
        f"acme {keys.public_line(kit.ACME.public._replace(blob=IDENTITY))}",
        "PLG-ALS-001"),
    "words in Latin-1": (b"acm\xe9 " + LINE.encode(), "PLG-ALS-001"),
    "namespaces twice": (f'acme namespaces="{MANIFEST}",namespaces="git" {LINE}', "PLG-ALS-001"),
    "an empty namespace": (f'acme namespaces="{MANIFEST}," {LINE}', "PLG-ALS-001"),
    "cert-authority": (f"acme cert-authority {LINE}", "PLG-ALS-002"),
    "CERT-AUTHORITY behind another": (f'acme namespaces="{MANIFEST}",CERT-AUTHORITY {LINE}', "PLG-ALS-002"),
    "an unknown option": (f"acme no-touch-required {LINE}", "PLG-ALS-002"),
    "an unknown option with a value": (f'acme from="10.0.0.1" {LINE}', "PLG-ALS-002"),
    "namespaces without value": (f"acme namespaces {LINE}", "PLG-ALS-002"),
    "a value without quotes": (f"acme namespaces={MANIFEST} {LINE}", "PLG-ALS-001"),
    "an ECDSA key that nobody asked for": (
        f"acme {ECDSA} AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBGsX0fLhLEJH+Lzm5WOkQPJ3A32BLeszoPShOUXYmMKWT+NC4v4af5uO5+tKfA+eFivOM1drMV7Oy7ZAaDe/UfU=",
        "PLG-ALS-002"),
    "everybody": (f"* {LINE}", "PLG-ALS-003"),
    "a mail address": (f"anna@acme.example {LINE}", "PLG-ALS-003"),
    "a question mark": (f"acm? {LINE}", "PLG-ALS-003"),
    "a negation": (f"acme,!acme/x {LINE}", "PLG-ALS-003"),
    "a glob of publishers": (f"*/x {LINE}", "PLG-ALS-003"),
    "capitals": (f"Acme {LINE}", "PLG-ALS-003"),
    "a time in words": (f'acme valid-after="tomorrow" {LINE}', "PLG-ALS-001"),
    "the 31st of February": (f'acme valid-after="20270231Z" {LINE}', "PLG-ALS-001"),
    "a 25th hour": (f'acme valid-after="202701012500Z" {LINE}', "PLG-ALS-001"),
    "before 1970": (f'acme valid-after="19600101Z" {LINE}', "PLG-ALS-001"),
    "after the end": (f'acme valid-before="99991231235959Z" {LINE}', "PLG-ALS-001"),
    "never valid": (f'acme valid-after="20280101Z",valid-before="20270101Z" {LINE}', "PLG-ALS-001"),
    "only for git": (f'acme namespaces="git" {LINE}', "PLG-ALS-004"),
    "empty": ("", "PLG-ALS-004"),
    "too many lines": ("\n" * 10_001, "PLG-ALS-005"),
    "too large": ("#" * (allowed_signers.MAX_BYTES + 1), "PLG-ALS-005"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_meant_exactly_is_refused(case):
    text, error_id = REFUSED[case]
    for before in ("", STOCK):  # a good line beside it changes nothing, unless there is nothing else amiss
        if before and error_id == "PLG-ALS-004":
            continue
        with pytest.raises(InterchangeError) as caught:
            parse(before.encode() + (text if isinstance(text, bytes) else text.encode()))
        assert (caught.value.id, caught.value.code) == (error_id, 4)


def test_the_refusal_names_the_line():
    with pytest.raises(InterchangeError, match=r"^line 3 has cert-authority"):
        parse(f"# mine\n{STOCK}acme cert-authority {LINE}\n")


def test_a_pattern_with_negation_is_refused_even_where_the_operator_says_whose_it_is():
    for principal in ("*", "an?a", "!anna", "*@acme.example"):
        with pytest.raises(InterchangeError, match="principal"):
            parse(f"{principal} {LINE}", publisher="acme")


def test_a_line_for_something_else_is_left_out_and_said_to_be():
    found = parse(f'acme namespaces="git" {LINE}\n{STOCK}')
    assert len(found.entries) == 1
    assert found.notes == ("line 1 is left out: it is for 'git' only, and not for plugins",)


def test_local_time_is_converted_and_said_to_be(zone):
    found = parse(f'acme valid-after="20270115",valid-before="202707150800" {LINE}')
    (entry,) = found.entries
    assert (entry["valid_after"], entry["valid_before"]) == ("2027-01-15T05:00:00Z", "2027-07-15T13:00:01Z")
    assert "20270115 has no Z, so it is local standard time (EST)" in found.notes[0]
    assert "(EST) and was taken for 2027-07-15T13:00:00Z" in found.notes[1]


def test_utc_is_taken_as_it_is(zone):
    (entry,) = parse(f'acme valid-after="20270115Z",valid-before="20270715235959Z" {LINE}').entries
    assert (entry["valid_after"], entry["valid_before"]) == ("2027-01-15T00:00:00Z", "2027-07-16T00:00:00Z")


def test_two_entries_never_get_one_id():
    text = f"acme {LINE} me\nb {keys.public_line(kit.REVIEW.public)} me\nacme,acme/x {LINE} anna@acme\nacme/y {LINE}\n"
    names = [entry["id"] for entry in parse(text).entries]
    assert len(set(names)) == len(names)
    assert names[0] == "me"
    imported(f"{'a' * 64} {LINE}")  # the longest publisher leaves room for the rest of an id


# Exporting.

ROLES = kit.trust_text() + kit.trust_text(kit.REVIEW, id="reviewer", role="review")


def export(text, **options):
    return allowed_signers.export(kit.store(text), **options)


def test_only_keys_that_may_release_or_revoke_are_exported():
    text = ROLES + kit.trust_text(kit.STRANGER, id="revoker", role="revocation")
    exported = export(text)
    assert [line.split()[:2] for line in exported.text.splitlines()] == [
        ["acme,acme/*", f'namespaces="{MANIFEST}"'],
        ["acme,acme/*", f'namespaces="{REVOKE}"'],
    ]
    assert exported.notes == ("reviewer is left out: allowed_signers cannot say that its role is review",)


def test_revoked_keys_and_rules_are_left_out_and_said_to_be():
    rule = '[[rule]]\nid = "two"\nplugins = ["acme/*"]\nthreshold = 2\n'
    exported = export(kit.trust_text() + rule, revoked=frozenset({keys.fingerprint(kit.ACME.public)}))
    assert exported.text == ""
    assert [note.split(":")[0] for note in exported.notes] == [
        "acme-release is left out",
        "1 rules are left out",
    ]


def test_a_key_for_one_plugin_does_not_pass_for_its_publishers():
    assert export(kit.trust_text(plugins=["acme/wordfreq"])).text.startswith("acme/wordfreq namespaces=")


def test_times_are_exported_with_z(zone):
    text = export(kit.trust_text(valid_after="2027-01-01", valid_before="2028-01-01T12:00:00Z")).text
    assert 'valid-after="20270101000000Z",valid-before="20280101115959Z"' in text


TIMES = st.none() | st.integers(1, 4_000_000_000)
GLOBS = st.lists(
    st.sampled_from(["acme/*", "acme/x", "acme/y-*", "acme/*-z"]), min_size=1, max_size=3, unique=True
)


@given(GLOBS, st.sampled_from(["release", "revocation"]), TIMES, TIMES)
def test_what_is_exported_and_imported_again_is_the_same(plugins, role, after, before):
    if after is not None and before is not None and after >= before:
        after, before = before, after + 1
    fields = {"plugins": plugins, "role": role}
    entry = trust_toml.check_entry({"id": "acme-release", "ssh": LINE, "publisher": "acme", **fields})
    store = TrustStore.from_plain(
        [{"key": [{**entry, "valid_after": after, "valid_before": before}], "rule": []}]
    )
    (again,) = imported(allowed_signers.export(store).text).keys
    (key,) = store.keys
    assert again._replace(key=key.key, plugins=()) == key._replace(plugins=())
    assert set(again.plugins) == set(key.plugins)


# Both ways with the real one.


class Openssh:
    """A directory with an allowed_signers file, asked by a real ssh-keygen."""

    def __init__(self, directory, text, message=b"hello", namespace=MANIFEST):
        self.directory, self.message, self.namespace = directory, message, namespace
        (directory / "allowed").write_text(text)
        (directory / "sig").write_bytes(kit.armour(kit.ACME, message, namespace))

    def ask(self, *arguments, zone="UTC"):
        command = [kit.stock("ssh-keygen"), "-Y", *arguments, "-n", self.namespace, "-s", "sig"]
        return subprocess.run(
            command, cwd=self.directory, input=self.message, capture_output=True, check=False,
            env={**os.environ, "TZ": zone},
        )  # fmt: skip

    def verifies(self, principal, moment, zone="UTC"):
        when = f"verify-time={time.strftime('%Y%m%d%H%M%SZ', time.gmtime(moment))}"
        return self.ask("verify", "-f", "allowed", "-I", principal, "-O", when, zone=zone).returncode == 0


def test_ssh_keygen_accepts_what_is_exported_for_exactly_these_principals(tmp_path):
    openssh = Openssh(tmp_path, export(kit.trust_text(plugins=["acme/word*"])).text)
    asked = ("acme/wordfreq", "acme/word", "acme/other", "acme", "other/wordfreq")
    assert [openssh.verifies(each, kit.NOW) for each in asked] == [True, True, False, False, False]
    found = openssh.ask("find-principals", "-f", "allowed")
    assert (found.returncode, found.stdout) == (0, b"acme/word*\n")
    assert openssh.ask("check-novalidate").returncode == 0


@pytest.mark.parametrize("zone", ["UTC", "America/New_York", "Asia/Tokyo"])
def test_a_key_counts_for_ssh_keygen_in_exactly_the_seconds_in_which_it_counts_here(tmp_path, zone):
    after, before = kit.NOW, kit.NOW + 86_400
    text = kit.trust_text(valid_after="2027-01-15T08:00:00Z", valid_before="2027-01-16T08:00:00Z")
    openssh = Openssh(tmp_path, export(text).text)
    moments = (after - 1, after, before - 1, before)
    assert [openssh.verifies("acme", moment, zone) for moment in moments] == [False, True, True, False]


def test_local_time_means_here_what_it_means_to_ssh_keygen(tmp_path, zone):
    text = f'acme valid-after="20270115",valid-before="20270716" {LINE}\n'
    (key,) = imported(text).keys
    openssh = Openssh(tmp_path, text)
    for moment in (key.valid_after - 1, key.valid_after, key.valid_before - 1, key.valid_before):
        counts = key.valid_after <= moment < key.valid_before
        assert openssh.verifies("acme", moment, "America/New_York") == counts


NAMESPACES = [
    MANIFEST, "git", "*", "plugsec-*", "plugsec-manifest@v?", f"git,{MANIFEST}", f"!{MANIFEST}", f"*,!{MANIFEST}",
    f"!git,{MANIFEST}", "plugsec-manifest@v", "*@v1", "p*s*c*m*t@*1", "**", "?*", "plugsec-manifest@v1?",
]  # fmt: skip


@pytest.mark.parametrize("patterns", NAMESPACES)
def test_a_pattern_of_namespaces_means_here_what_it_means_to_ssh_keygen(tmp_path, patterns):
    text = f'acme namespaces="{patterns}" {LINE}\n'
    try:
        releases = any(key.role == "release" for key in imported(text).keys)
    except InterchangeError as err:
        assert err.id == "PLG-ALS-004"
        releases = False
    assert Openssh(tmp_path, text).verifies("acme", kit.NOW) == releases


def test_ssh_keygen_verifies_a_revocation_list_by_what_is_exported(tmp_path):
    data = revocation.encode(revocation.EMPTY._replace(sequence=1, next_update=kit.NOW))
    openssh = Openssh(tmp_path, export(kit.trust_text(role="revocation")).text, data, REVOKE)
    assert openssh.verifies("acme", kit.NOW)
    as_manifest = Openssh(tmp_path, export(kit.trust_text(role="revocation")).text, data, MANIFEST)
    assert not as_manifest.verifies("acme", kit.NOW)


# Anything at all.


@given(
    st.binary(max_size=200) | st.text(max_size=100).map(lambda text: text.encode("utf-8", "surrogatepass"))
)
def test_arbitrary_bytes_raise_nothing_but_our_errors(data):
    for text in (data, data + b" " + LINE.encode(), b"acme " + data + b" " + LINE.encode()):
        try:
            parse(text)
        except SigningError:
            pass


@given(st.data())
def test_a_changed_line_raises_nothing_but_our_errors_and_never_gains_another_key(data):
    line = bytearray(f'acme namespaces="{MANIFEST}",valid-before="20280101Z" {LINE}\n'.encode())
    for _ in range(data.draw(st.integers(1, 3))):
        line[data.draw(st.integers(0, len(line) - 1))] = data.draw(st.integers(0, 255))
    try:
        store = imported(bytes(line), publisher=None)
    except SigningError:
        return
    assert len(store.keys) <= 2
