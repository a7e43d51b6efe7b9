"""What others vouch for about a bundle: each attestation holds by itself or the bundle is refused."""

import base64
import hashlib
import io
import os
import subprocess

import pytest
import signing_kit as kit
from hypothesis import given, settings
from hypothesis import strategies as st

from plugsec_signing import bundle, canonical, dsse, keys, rewrite, sshsig
from plugsec_signing.envelope import parse_envelope
from plugsec_signing.errors import AttestationMissing, SigningError
from plugsec_signing.memory import NOTHING
from plugsec_signing.times import format_time
from plugsec_signing.verify import Circumstances, verify_bundle, verify_unsafe_unsigned

ENVELOPE = parse_envelope(kit.manifest())
REVIEW = "https://example.org/review/v1"
SLSA = "https://slsa.dev/provenance/v1"
STATEMENT = dsse.statement(ENVELOPE, REVIEW, {"verdict": "good", "score": 0.5})
GOOD = dsse.attest(STATEMENT, [kit.REVIEW])
FINGERPRINT = keys.fingerprint(kit.REVIEW.public)
STORE = kit.store(kit.trust_text(), kit.trust_text(kit.REVIEW, id="reviewer", role="review"))


def packed(*contents: bytes, signers=(kit.ACME,)) -> bytes:
    """The good bundle with these attestations, each named by its hash."""
    out = io.BytesIO()
    manifest = kit.manifest()
    named = {hashlib.sha256(content).hexdigest(): content for content in contents}
    bundle.write_bundle(
        out, manifest, kit.signatures(manifest, *signers), named,
        lambda entry: io.BytesIO(kit.FILES[entry.path]),
    )  # fmt: skip
    return out.getvalue()


def wrapped(statement: object) -> bytes:
    return dsse.attest(canonical.encode(statement), [kit.REVIEW])


def enveloped(**changes: object) -> bytes:
    """The good envelope with fields replaced, or removed where the change is `...`."""
    value = {**canonical.decode(GOOD), **changes}
    return canonical.encode({key: each for key, each in value.items() if each is not ...})


def signed_as(armour: bytes, keyid: str = FINGERPRINT) -> bytes:
    return enveloped(signatures=[{"keyid": keyid, "sig": base64.b64encode(armour).decode()}])


PLAIN = {
    "_type": "https://in-toto.io/Statement/v1",
    "subject": [{"name": "x", "digest": {"sha256": ENVELOPE.bundle_id.removeprefix("sha256:")}}],
    "predicateType": REVIEW,
    "predicate": {},
}
OTHER = parse_envelope(kit.manifest(release=8))
PAE = dsse.pre_authentication(STATEMENT)
ONE = canonical.decode(GOOD)["signatures"][0]

ATTACKS = {
    "empty": (b"", "PLG-ATT-001"),
    "no JSON": (b"attested!", "PLG-ATT-001"),
    "spaces": (GOOD.replace(b'":', b'": ', 1), "PLG-ATT-001"),
    "a newline at the end": (GOOD + b"\n", "PLG-ATT-001"),
    "another order of fields": (GOOD[:-1] + b',"a":1}', "PLG-ATT-001"),
    "a list": (b"[]", "PLG-ATT-001"),
    "nested": (b'{"payload":' + b"[" * 100 + b"]" * 100 + b"}", "PLG-ATT-001"),
    "a field more": (enveloped(more="x"), "PLG-ATT-001"),
    "a field less": (enveloped(payload=...), "PLG-ATT-001"),
    "payload is a number": (enveloped(payload=1), "PLG-ATT-001"),
    "payload not base64": (enveloped(payload="****"), "PLG-ATT-001"),
    "payload in URL-safe base64": (enveloped(payload=base64.urlsafe_b64encode(b"\xfb\xff\xfe").decode()), "PLG-ATT-001"),
    "stray bits at the end of the base64": (enveloped(payload="e31="), "PLG-ATT-001"),
    "no signature": (enveloped(signatures=[]), "PLG-ATT-001"),
    "seventeen signatures": (enveloped(signatures=[ONE] * 17), "PLG-ATT-001"),
    "signatures not a list": (enveloped(signatures=ONE), "PLG-ATT-001"),
    "a signature not an object": (enveloped(signatures=["x"]), "PLG-ATT-001"),
    "a signature with a field more": (enveloped(signatures=[{**ONE, "cert": "x"}]), "PLG-ATT-001"),
    "keyid a number": (enveloped(signatures=[{**ONE, "keyid": 1}]), "PLG-ATT-001"),
    "a kind from the future": (enveloped(payloadType="application/vnd.other+json"), "PLG-SIG-008"),
    "a statement from the future": (wrapped({**PLAIN, "_type": "https://in-toto.io/Statement/v2"}), "PLG-SIG-008"),
    "statement not JSON": (dsse.attest(b"yes", [kit.REVIEW]), "PLG-ATT-002"),
    "statement a list": (wrapped([]), "PLG-ATT-002"),
    "statement with a doubled key": (dsse.attest(b'{"_type":1,"_type":2}', [kit.REVIEW]), "PLG-ATT-002"),
    "statement with a field more": (wrapped({**PLAIN, "extra": 1}), "PLG-ATT-002"),
    "predicate a list": (wrapped({**PLAIN, "predicate": []}), "PLG-ATT-002"),
    "type not a URI": (wrapped({**PLAIN, "predicateType": "good"}), "PLG-ATT-002"),
    "type with an escape": (wrapped({**PLAIN, "predicateType": "x:\x1b[2J"}), "PLG-ATT-002"),
    "type too long": (wrapped({**PLAIN, "predicateType": "x:" + "y" * 300}), "PLG-ATT-002"),
    "type missing": (wrapped({key: PLAIN[key] for key in ("_type", "subject")}), "PLG-ATT-002"),
    "no subject": (wrapped({**PLAIN, "subject": []}), "PLG-ATT-002"),
    "two subjects": (wrapped({**PLAIN, "subject": PLAIN["subject"] * 2}), "PLG-ATT-002"),
    "subject with a link": (wrapped({**PLAIN, "subject": [{**PLAIN["subject"][0], "uri": "x"}]}), "PLG-ATT-002"),
    "about another bundle": (dsse.attest(dsse.statement(OTHER, REVIEW, {}), [kit.REVIEW]), "PLG-ATT-003"),
    "about nothing": (wrapped({**PLAIN, "subject": [{"name": "x"}]}), "PLG-ATT-003"),
    "about two digests": (
        wrapped({**PLAIN, "subject": [{"digest": {**PLAIN["subject"][0]["digest"], "sha1": "0" * 40}}]}),
        "PLG-ATT-003",
    ),
    "named for another key": (signed_as(kit.armour(kit.STRANGER, PAE, dsse.NAMESPACE_ATTESTATION)), "PLG-ATT-004"),
    "the same signature twice": (enveloped(signatures=[ONE, ONE]), "PLG-ATT-004"),
    "signatures out of order": (
        enveloped(signatures=sorted(
            canonical.decode(dsse.attest(STATEMENT, [kit.REVIEW, kit.ACME]))["signatures"],
            key=lambda each: each["keyid"], reverse=True,
        )),
        "PLG-ATT-004",
    ),
    "signed over the payload alone": (signed_as(kit.armour(kit.REVIEW, STATEMENT, dsse.NAMESPACE_ATTESTATION)), "PLG-SIG-005"),
    "a bundle's signature replayed": (signed_as(kit.armour(kit.REVIEW, kit.manifest())), "PLG-SIG-004"),
    "made for another purpose": (signed_as(kit.armour(kit.REVIEW, PAE, "git")), "PLG-SIG-004"),
    "armour with CRLF": (
        signed_as(kit.armour(kit.REVIEW, PAE, dsse.NAMESPACE_ATTESTATION).replace(b"\n", b"\r\n")),
        "PLG-SIG-001",
    ),
    "a raw signature": (signed_as(bytes(64)), "PLG-SIG-001"),
}  # fmt: skip


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attestation_that_does_not_hold_refuses_the_bundle(name, bundle_path):
    content, error_id = ATTACKS[name]
    path = bundle_path(packed(content))
    for verify in (lambda: verify_bundle(path, STORE, kit.NOW), lambda: verify_unsafe_unsigned(path)):
        with pytest.raises(SigningError) as caught:
            verify()
        assert (caught.value.id, caught.value.code) == (error_id, 3)
    with open(path, "rb") as file, pytest.raises(SigningError) as caught:
        before = file.read()
        rewrite.rewrite_attestations(path, lambda head: dict(head.attestations))
    with open(path, "rb") as file:
        assert file.read() == before


def test_one_bad_attestation_among_good_ones_refuses_the_bundle(bundle_path):
    provenance = dsse.attest(dsse.statement(ENVELOPE, SLSA, {}), [kit.ACME])
    with pytest.raises(SigningError, match="not about this bundle"):
        verify_bundle(
            bundle_path(packed(GOOD, provenance, ATTACKS["about another bundle"][0])), STORE, kit.NOW
        )


def test_the_evidence_says_what_is_attested_and_by_whom(bundle_path):
    by_two = dsse.attest(dsse.statement(ENVELOPE, SLSA, {"builder": "ci"}), [kit.STRANGER, kit.ACME])
    found = verify_bundle(bundle_path(packed(GOOD, by_two)), STORE, kit.NOW).attestations
    seen = {each.predicate_type: each for each in found}
    assert seen[REVIEW].signers == (FINGERPRINT,)
    assert [signer.key_id for signer in seen[REVIEW].counted] == ["reviewer"]
    assert set(seen[SLSA].signers) == {keys.fingerprint(each.public) for each in (kit.ACME, kit.STRANGER)}
    assert [signer.key_id for signer in seen[SLSA].counted] == ["acme-release"]
    assert seen[REVIEW].digest == hashlib.sha256(GOOD).hexdigest()


@pytest.mark.parametrize(("newest", "counts"), [(0, True), (kit.NOW + 59, True), (kit.NOW + 60, False)])
def test_no_clock_that_was_put_back_revives_an_attestation(bundle_path, newest, counts):
    """Red team, second pass, 11: as for signatures, the newest moment remembered here decides."""
    until = format_time(kit.NOW + 60)
    reviewer = kit.trust_text(kit.REVIEW, id="reviewer", role="review", valid_before=until)
    under = Circumstances(recall=lambda _: NOTHING._replace(newest=newest))
    found = verify_bundle(
        bundle_path(packed(GOOD)), kit.store(kit.trust_text(), reviewer), kit.NOW, under=under
    )
    assert bool(found.attestations[0].counted) is counts


def test_without_a_trust_store_no_attestation_counts(bundle_path):
    (found,) = verify_unsafe_unsigned(bundle_path(packed(GOOD))).attestations
    assert (found.predicate_type, found.counted) == (REVIEW, ())


def test_attestations_do_not_replace_a_signature(bundle_path):
    by_release_key = dsse.attest(STATEMENT, [kit.ACME])
    with pytest.raises(SigningError) as caught:
        verify_bundle(bundle_path(packed(by_release_key, signers=())), STORE, kit.NOW)
    assert caught.value.id == "PLG-TRU-001"


@pytest.mark.parametrize(
    ("signer", "entry", "says"),
    [
        (kit.STRANGER, {}, "not trusted"),
        (kit.REVIEW, {"valid_before": "2026-01-01"}, "not trusted"),
        (kit.REVIEW, {"valid_after": "2028-01-01"}, "not trusted"),
        (kit.REVIEW, {"plugins": ["acme/other"]}, "not trusted"),
        (None, {}, "has none"),
    ],
)
def test_a_demanded_attestation_must_be_by_a_key_that_counts(signer, entry, says, bundle_path):
    store = kit.store(kit.trust_text(), kit.trust_text(kit.REVIEW, id="reviewer", role="review", **entry))
    contents = [dsse.attest(STATEMENT, [signer])] if signer else []
    evidence = verify_bundle(bundle_path(packed(*contents)), store, kit.NOW)
    with pytest.raises(AttestationMissing, match=says) as caught:
        dsse.require("acme/wordfreq", [REVIEW], evidence.attestations)
    assert (caught.value.id, caught.value.code) == ("PLG-ATT-005", 3)
    dsse.require("acme/wordfreq", [], evidence.attestations)


def test_an_attestation_is_added_in_place_and_the_id_stays(bundle_path):
    path = bundle_path(kit.pack())
    before = verify_bundle(path, STORE, kit.NOW).bundle_id
    for _ in range(2):  # the same again is the same
        rewrite.rewrite_attestations(path, lambda head: rewrite.with_attestation(head, GOOD))
    with open(path, "rb") as file:
        assert file.read() == packed(GOOD)
    evidence = verify_bundle(path, STORE, kit.NOW)
    assert evidence.bundle_id == before
    dsse.require(evidence.envelope.name, [REVIEW], evidence.attestations)


def test_a_seventeenth_attestation_is_refused_and_changes_nothing(bundle_path):
    contents = [dsse.attest(dsse.statement(ENVELOPE, REVIEW, {"n": n}), [kit.REVIEW]) for n in range(17)]
    path = bundle_path(packed(*contents[:16]))
    with pytest.raises(SigningError) as caught:
        rewrite.rewrite_attestations(path, lambda head: rewrite.with_attestation(head, contents[16]))
    assert caught.value.id == "PLG-BND-006"
    assert len(verify_bundle(path, STORE, kit.NOW).attestations) == 16


def test_signing_keeps_attestations(bundle_path):
    path = bundle_path(packed(GOOD))
    rewrite.rewrite_signatures(
        path, lambda head: rewrite.with_signature(head, kit.armour(kit.REVIEW, kit.manifest()))
    )
    with open(path, "rb") as file:
        assert file.read() == packed(GOOD, signers=(kit.ACME, kit.REVIEW))


def test_the_statement_comes_back_with_its_predicate():
    statement = dsse.read_statement(GOOD)
    assert statement["predicate"] == {"verdict": "good", "score": 0.5}
    assert statement["subject"][0]["name"] == "acme/wordfreq@1.2.3"


def test_stock_ssh_keygen_checks_an_attestation(tmp_path):
    keygen = kit.stock("ssh-keygen")
    (tmp_path / "allowed").write_text(f"reviewer {keys.public_line(kit.REVIEW.public)}\n")
    (tmp_path / "s").write_bytes(base64.b64decode(ONE["sig"]))
    done = subprocess.run(
        [keygen, "-Y", "verify", "-f", "allowed", "-I", "reviewer", "-n", "plugsec-attestation@v1", "-s", "s"],
        cwd=tmp_path, input=PAE, capture_output=True, check=False,
    )  # fmt: skip
    assert b"Good" in done.stdout, done.stderr


def test_the_encoding_that_is_signed_is_that_of_the_dsse_specification():
    # protocol.md, "Test vectors", with our payload type: lengths in decimal, single spaces.
    assert dsse.pre_authentication(b"hello world") == b"DSSEv1 28 application/vnd.in-toto+json 11 hello world"


@given(st.binary(max_size=400))
def test_any_bytes_are_refused_within_our_tree(content):
    for candidate in (content, enveloped(payload=base64.b64encode(content).decode()), signed_as(content)):
        with pytest.raises(SigningError):
            dsse.check(candidate, ENVELOPE.bundle_id)


# Malleability: what of a signed, attested bundle can be changed and still be verified.

WHOLE = packed(
    GOOD,
    dsse.attest(dsse.statement(ENVELOPE, SLSA, {}), [kit.ACME, kit.REVIEW]),
    signers=(kit.ACME, kit.REVIEW),
)
SPARE_SIGNATURE = kit.armour(kit.STRANGER, kit.manifest())
SPARE = dsse.attest(STATEMENT, [kit.STRANGER])
EDIT = st.tuples(
    st.integers(0, len(WHOLE)), st.integers(0, 700), st.binary(max_size=64) | st.just(bytes(512))
)


def _verifies(data: bytes) -> bool:
    fd = os.memfd_create("bundle")
    try:
        os.write(fd, data)
        verify_bundle(f"/proc/self/fd/{fd}", STORE, kit.NOW)
    except SigningError:
        return False
    finally:
        os.close(fd)
    return True


@given(st.lists(EDIT, min_size=1, max_size=3))
@settings(max_examples=400)
def test_an_edited_bundle_verifies_only_if_nothing_changed(edits):
    data = WHOLE
    for at, removed, inserted in edits:
        data = data[:at] + inserted + data[at + removed :]
    assert _verifies(data) == (data == WHOLE)


@given(st.sets(st.sampled_from(range(3))), st.sets(st.sampled_from(range(3))), st.booleans())
def test_whole_signatures_and_attestations_can_be_added_and_removed(signers, attested, spare):
    everyone = (kit.ACME, kit.REVIEW, kit.STRANGER)
    contents = [dsse.attest(STATEMENT, [everyone[each]]) for each in attested] + [SPARE] * spare
    data = packed(*contents, signers=tuple(everyone[each] for each in signers))
    assert _verifies(data) == (0 in signers)


@given(st.integers(0, len(GOOD) - 1), st.integers(1, 255))
@settings(max_examples=300)
def test_no_byte_of_an_attestation_can_be_changed(at, change):
    content = bytearray(GOOD)
    content[at] ^= change
    with pytest.raises(SigningError):
        dsse.check(bytes(content), ENVELOPE.bundle_id)
    assert sshsig.parse(base64.b64decode(ONE["sig"])).namespace == dsse.NAMESPACE_ATTESTATION
