"""What somebody vouches for about a bundle (a review, a CI verdict, provenance): in-toto in DSSE.

An attestation is a DSSE envelope around an in-toto statement whose only subject is the bundle id. It
travels inside the bundle, beside the signatures, and does not change the id. As with signatures, every one
that is present must hold by itself (well-formed, about this bundle, each signature good under its own
key); the trust store then decides whose word counts.

Its signatures are SSHSIG over the pre-authentication encoding, in a namespace of their own: keys, agents
and FIDO tokens that sign bundles sign attestations too, `ssh-keygen -Y verify` checks them, and neither
kind of signature can be passed off as the other. Envelope and base64 have one spelling, so a third party
can add or remove whole attestations and nothing else. Not on the hot path: loaded for bundles that have any.

Sources: DSSE v1.0 (secure-systems-lab/dsse, protocol.md), in-toto Statement v1 (in-toto/attestation).
"""

import base64
import binascii
import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from plugsec_signing import canonical, keys, sshsig
from plugsec_signing.envelope import Envelope
from plugsec_signing.errors import AttestationMissing, AttestationRefused, JsonError, excerpt
from plugsec_signing.trust import Signer, TrustStore, counting

if TYPE_CHECKING:
    from plugsec_signing.revocation import RevocationList

PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
NAMESPACE_ATTESTATION = "plugsec-attestation@v1"
MAX_SIGNATURES = 16  # as many as a bundle's
MAX_TYPE_CHARS = 256
_TYPE = re.compile(r"[a-z][a-z0-9+.-]{1,30}:[!-~]+", re.ASCII)  # a URI, loosely (RFC 3986 §3)
_ENVELOPE_DEPTH = 4
_SIGN_AGAIN = "get it again from whoever made it: plugsec attest BUNDLE --predicate FILE --type URI --key K"


class Attestation(NamedTuple):
    """An attestation that holds by itself: its `digest` names it in the bundle, `signers` are fingerprints.

    `counted` are those of them that the trust store knows for this plugin, whatever their role.
    """

    predicate_type: str
    signers: tuple[str, ...]
    digest: str
    counted: tuple[Signer, ...] = ()


def pre_authentication(payload: bytes) -> bytes:
    """Return the bytes that are signed: type and payload with their lengths (DSSE "PAE")."""
    return b"DSSEv1 %d %s %d %s" % (len(PAYLOAD_TYPE), PAYLOAD_TYPE.encode(), len(payload), payload)


def check_type(text: object) -> str:
    """Return a predicate type if it is a URI of reasonable length; raises AttestationRefused."""
    if not isinstance(text, str) or len(text) > MAX_TYPE_CHARS or not _TYPE.fullmatch(text):
        raise AttestationRefused(
            f"the predicate type {excerpt(text)} is not a URI",
            "use one such as https://slsa.dev/provenance/v1",
            id="PLG-ATT-002",
        )
    return text


def statement(envelope: Envelope, predicate_type: str, predicate: Mapping[str, Any]) -> bytes:
    """Return the in-toto statement that says `predicate` about a bundle, compact and sorted.

    Not in canonical form, since predicates may hold fractions; it is signed, so nobody re-encodes it.
    """
    value = {
        "_type": STATEMENT_TYPE,
        "subject": [
            {
                "name": f"{envelope.name}@{envelope.version}",
                "digest": {"sha256": envelope.bundle_id.removeprefix("sha256:")},
            }
        ],
        "predicateType": check_type(predicate_type),
        "predicate": dict(predicate),
    }
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def attest(payload: bytes, signers: Sequence[keys.PrivateKey]) -> bytes:
    """Return the envelope of a statement, signed by each of `signers`."""
    signed = pre_authentication(payload)
    return wrap(payload, [sshsig.sign(each, signed, NAMESPACE_ATTESTATION) for each in signers])


def wrap(payload: bytes, armours: Iterable[bytes]) -> bytes:
    """Return the only envelope that this payload with these signatures has; raises SignatureRefused."""
    named = {keys.fingerprint(sshsig.parse(armour).key): armour for armour in armours}
    return canonical.encode(
        {
            "payload": base64.b64encode(payload).decode(),
            "payloadType": PAYLOAD_TYPE,
            "signatures": [
                {"keyid": name, "sig": base64.b64encode(named[name]).decode()} for name in sorted(named)
            ],
        }
    )


def check_all(
    contents: Iterable[bytes],
    envelope: Envelope,
    trust: TrustStore | None,
    now: int,
    revocations: "RevocationList | None" = None,
    *,
    newest: int = 0,
) -> tuple[Attestation, ...]:
    """Check each attestation of a bundle, and note whose word counts at `now` (unix seconds).

    `newest` is the newest moment remembered here: a clock that was put back revives no key.
    """
    found = []
    for content in contents:  # at most bundle.MAX_ATTESTATIONS
        one = check(content, envelope.bundle_id)
        counted: tuple[Signer, ...] = ()
        if trust is not None:
            counted = counting(trust, envelope.name, one.signers, now, revocations, newest=newest)
        found.append(one._replace(counted=counted))
    return tuple(found)


def check(content: bytes, bundle_id: str) -> Attestation:
    """Check an attestation completely, but for the question whether its signers are trusted.

    1. The envelope is canonical JSON of exactly the DSSE fields. 2. The payload is an in-toto statement v1
    whose one subject is `bundle_id`. 3. Each signature verifies under its own key, which names it; no
    key signs twice. Raises AttestationRefused, SignatureRefused, KeyRefused (exit 3).
    """
    payload, signatures = _envelope(content)  # 1
    predicate_type = _statement(payload, bundle_id)  # 2
    signed = pre_authentication(payload)
    for name, armour in signatures:  # 3
        key = sshsig.verify(sshsig.parse(armour), signed, NAMESPACE_ATTESTATION)
        if keys.fingerprint(key) != name:
            raise AttestationRefused(
                "an attestation's signature is named for another key than the one that made it",
                id="PLG-ATT-004",
            )
    digest = hashlib.sha256(content).hexdigest()
    return Attestation(predicate_type, tuple(name for name, _ in signatures), digest)


def read_statement(content: bytes) -> dict[str, Any]:
    """Return the statement inside an envelope that `check` has accepted, for people to read."""
    value: dict[str, Any] = canonical.decode(_envelope(content)[0])
    return value


def require(name: str, wanted: Iterable[str], present: Sequence[Attestation]) -> None:
    """Return if a trusted key vouches for each wanted predicate type.

    Raises AttestationMissing (exit 3), which tells an absent one from one by keys that do not count.
    """
    for kind in wanted:
        found = [each for each in present if each.predicate_type == kind]
        if any(each.counted for each in found):
            continue
        why = "carries it only from keys that are not trusted for this plugin" if found else "has none"
        raise AttestationMissing(
            f"{name} must carry an attestation of type {excerpt(kind)}, and {why}",
            f"plugsec attest BUNDLE --predicate FILE --type {kind} --key K, by a key of the trust store",
        )


def _envelope(content: bytes) -> tuple[bytes, list[tuple[str, bytes]]]:
    """Return the payload and the (name, armour) pairs of an envelope."""
    try:
        value = canonical.decode_canonical(content, max_depth=_ENVELOPE_DEPTH)
    except JsonError as err:
        raise AttestationRefused(
            f"an attestation is not canonical JSON: {err.message}", _SIGN_AGAIN, id="PLG-ATT-001"
        ) from err
    if not isinstance(value, dict) or value.keys() != {"payload", "payloadType", "signatures"}:
        raise AttestationRefused("an attestation is not a DSSE envelope", _SIGN_AGAIN, id="PLG-ATT-001")
    if value["payloadType"] != PAYLOAD_TYPE:
        raise _unknown(value["payloadType"])
    given = value["signatures"]
    if not isinstance(given, list) or not 1 <= len(given) <= MAX_SIGNATURES:
        raise AttestationRefused(
            f"an attestation has not 1 to {MAX_SIGNATURES} signatures", _SIGN_AGAIN, id="PLG-ATT-001"
        )
    signatures: list[tuple[str, bytes]] = []
    for each in given:
        if (
            not isinstance(each, dict)
            or each.keys() != {"keyid", "sig"}
            or not isinstance(each["keyid"], str)
        ):
            raise AttestationRefused(
                "an attestation's signature is not a keyid and a sig", _SIGN_AGAIN, id="PLG-ATT-001"
            )
        if signatures and each["keyid"] <= signatures[-1][0]:
            raise AttestationRefused(
                "an attestation's signatures are not in order, or one is doubled", id="PLG-ATT-004"
            )
        signatures.append((each["keyid"], _unbase64(each["sig"])))
    return _unbase64(value["payload"]), signatures


def _unbase64(text: object) -> bytes:
    """Decode standard base64 in its one spelling (RFC 4648 §3.5: no stray bits)."""
    try:
        if isinstance(text, str):
            data = base64.b64decode(text, validate=True)
            if base64.b64encode(data).decode() == text:
                return data
    except (binascii.Error, ValueError):
        pass  # said below, with the same words as a second spelling
    raise AttestationRefused("a part of an attestation is not base64", _SIGN_AGAIN, id="PLG-ATT-001")


def _statement(payload: bytes, bundle_id: str) -> str:
    """Return the predicate type of a statement about `bundle_id` and nothing else."""
    try:
        value = canonical.decode(payload)
    except JsonError as err:
        raise AttestationRefused(
            f"an attestation's statement is not JSON: {err.message}", id="PLG-ATT-002"
        ) from err
    if not isinstance(value, dict):
        raise AttestationRefused("an attestation's statement is not a JSON object", id="PLG-ATT-002")
    if value.get("_type") != STATEMENT_TYPE:
        raise _unknown(value.get("_type"))
    if not value.keys() <= {"_type", "subject", "predicateType", "predicate"} or not isinstance(
        value.get("predicate", {}), dict
    ):
        raise AttestationRefused(
            "an attestation's statement has other fields than in-toto's", id="PLG-ATT-002"
        )
    subject = value.get("subject")
    one = subject[0] if isinstance(subject, list) and len(subject) == 1 else None
    if not isinstance(one, dict) or not one.keys() <= {"name", "digest"}:
        raise AttestationRefused(
            "an attestation's statement has not one subject with name and digest", id="PLG-ATT-002"
        )
    if one.get("digest") != {"sha256": bundle_id.removeprefix("sha256:")}:
        raise AttestationRefused(
            f"an attestation is about {excerpt(one.get('name'))} with another digest, not about this bundle",
            "whoever adds attestations must use this very bundle",
            id="PLG-ATT-003",
        )
    return check_type(value.get("predicateType"))


def _unknown(kind: object) -> AttestationRefused:
    return AttestationRefused(
        f"the bundle carries an attestation of a kind that this version cannot check: {excerpt(kind)}",
        "use the bundle without it, or a newer plugsec",
        id="PLG-SIG-008",
    )
