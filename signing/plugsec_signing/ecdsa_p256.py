"""ECDSA over P-256 with SHA-256, with the edges closed: one spelling for each signature.

For every signature (r, s) there is a second one, (r, n - s), that anybody can compute and that the common
library and `ssh-keygen` accept as well. A bundle must not have two spellings of one signature, so only the
one with the smaller s verifies here ("low S", as in BIP 62). Signers make either: `plugsec sign` writes
the low one, and rewrites what it imports.

Sources: SEC 1 §4.1 and FIPS 186-5 (ranges, n), SEC 2 §2.4.2 (the curve), RFC 5656 §3.1 (SSH's form),
RFC 4251 §5 (`mpint`). Loaded only where such a key or signature occurs.
"""

from plugsec_signing import wire
from plugsec_signing.errors import KeyRefused, SignatureRefused

NAME = "ecdsa-sha2-nistp256"
_CURVE = b"nistp256"
_POINT_BYTES = 1 + 32 + 32
_NUMBER_BYTES = 32
_UNCOMPRESSED = 4
_P = 2**256 - 2**224 + 2**192 + 2**96 - 1
_B = 0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B
_N = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
_NEGATIVE = 0x80  # the sign bit of an mpint


def raw_key(blob: bytes) -> bytes:
    """Return the uncompressed point (65 bytes) of an SSH key blob; raises KeyRefused (exit 3).

    Other forms of the point are second spellings. The curve has prime order, so that a point on it other
    than infinity, which has no uncompressed form, generates all of it.
    """
    parts = wire.strings(blob, 3)
    if parts is None or parts[1] != _CURVE:
        raise KeyRefused("the public key is not a well-formed ECDSA P-256 key", id="PLG-KEY-001")
    point = parts[2]
    if len(point) != _POINT_BYTES or point[0] != _UNCOMPRESSED:
        raise KeyRefused("the ECDSA key is not an uncompressed point of P-256", id="PLG-KEY-001")
    x, y = (int.from_bytes(point[at : at + _NUMBER_BYTES], "big") for at in (1, 1 + _NUMBER_BYTES))
    if x >= _P or y >= _P or (y * y - (x * x * x - 3 * x + _B)) % _P:
        raise KeyRefused(
            "the ECDSA key is not a point of P-256", "ask its owner for another key", id="PLG-KEY-002"
        )
    return point


def pack(signature: bytes) -> bytes:
    """Return a signature as its field in an SSH signature blob; `signature` is two mpints."""
    return wire.string(signature)


def unpack(fields: bytes) -> bytes | None:
    """Return the two mpints that such a field holds, unread; None if it is not filled exactly."""
    parts = wire.strings(fields, 1)
    return parts[0] if parts else None


def from_bare(signature: bytes) -> bytes:
    """Return a signature in the one spelling, from what a signer that knows nothing of SSH made.

    64 bytes are r and s one after the other, as PKCS#11 tokens return them; anything else must be DER,
    as OpenSSL and the clouds' key services do. Raises SignatureRefused (exit 3).
    """
    from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature  # noqa: PLC0415

    if len(signature) == 2 * _NUMBER_BYTES:
        r, s = (
            int.from_bytes(half, "big") for half in (signature[:_NUMBER_BYTES], signature[_NUMBER_BYTES:])
        )
    else:
        try:
            r, s = decode_dss_signature(signature)
        except ValueError as err:
            raise SignatureRefused(
                "the ECDSA signature is neither DER nor 64 bytes", id="PLG-SIG-006"
            ) from err
    _check_range(r, s)
    return _join(r, s)


def one_spelling(signature: bytes) -> bytes:
    """Return the spelling that verifies here, of a signature in either; raises SignatureRefused."""
    return _join(*_numbers(signature))


def verify_blob(blob: bytes, signature: bytes, message: bytes) -> None:
    """Verify a signature under an SSH key blob; raises KeyRefused or SignatureRefused (exit 3)."""
    from cryptography.exceptions import InvalidSignature  # noqa: PLC0415 - 20 ms, only where needed
    from cryptography.hazmat.primitives.asymmetric import ec, utils  # noqa: PLC0415
    from cryptography.hazmat.primitives.hashes import SHA256  # noqa: PLC0415

    point = raw_key(blob)
    r, s = _numbers(signature)
    if s > _N // 2:
        raise SignatureRefused(
            "the ECDSA signature has a high S: a second spelling",
            "import it again: `plugsec sign BUNDLE --signature FILE` writes the low one",
            id="PLG-SIG-006",
        )
    try:
        key = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), point)
        key.verify(utils.encode_dss_signature(r, s), message, ec.ECDSA(SHA256()))
    except (InvalidSignature, ValueError) as err:
        raise SignatureRefused(
            "a signature does not verify: the manifest or the signature was changed",
            "get the bundle again from its publisher",
            id="PLG-SIG-005",
        ) from err


def _numbers(signature: bytes) -> tuple[int, int]:
    """Return r and s of two mpints; raises SignatureRefused unless both are in their range and form."""
    parts = wire.strings(signature, 2)
    if parts is None:
        raise SignatureRefused("the ECDSA signature is not two numbers", id="PLG-SIG-006")
    for part in parts:
        padded = part[:1] == b"\0" and part[1:2] < bytes([_NEGATIVE])
        if part[:1] >= bytes([_NEGATIVE]) or padded:
            raise SignatureRefused("the ECDSA signature spells a number oddly", id="PLG-SIG-006")
    r, s = (int.from_bytes(part, "big") for part in parts)
    _check_range(r, s)
    return r, s


def _check_range(r: int, s: int) -> None:
    if not (0 < r < _N and 0 < s < _N):
        raise SignatureRefused("the ECDSA signature has a number out of range", id="PLG-SIG-006")


def _join(r: int, s: int) -> bytes:
    return wire.string(_mpint(r)) + wire.string(_mpint(min(s, _N - s)))


def _mpint(number: int) -> bytes:
    return number.to_bytes(number.bit_length() // 8 + 1, "big")  # the top bit, the sign, stays free
