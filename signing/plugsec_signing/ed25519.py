"""Ed25519 with the edges closed: what the common library accepts and we do not.

OpenSSL (and `ssh-keygen`) accept the identity point as a public key, under which one trivial signature
verifies for *every* message. Any key of small order has forgeries of that kind, and a key or R that is
not the canonical encoding of its point gives one signature two spellings. All of them are refused here,
at import and again at verification.

Sources: RFC 8032 §5.1.7 (S < L, decoding); "Taming the many EdDSAs" (Chalkias, Garillot, Nikolaenko,
2020), table 6, for the small-order encodings; libsodium refuses the same keys and R.
"""

from plugsec_signing import wire
from plugsec_signing.errors import KeyRefused, SignatureRefused

NAME = "ssh-ed25519"
KEY_BYTES = 32
SIGNATURE_BYTES = 64
_P = 2**255 - 19
_L = 2**252 + 27742317777372353535851937790883648493
_SIGN_BIT = 1 << 255

# The y coordinates of the eight points whose order divides 8: order 1 and 2 (y = ±1), order 4 (y = 0),
# order 8 (the remaining two). With either sign bit, each names a small-order point or none at all.
_SMALL_ORDER_Y = frozenset(
    (
        0,
        1,
        _P - 1,
        0x7A03AC9277FDC74EC6CC392CFA53202A0F67100D760B3CBA4FD84D3D706A17C7,
        0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826,
    )
)


def check_key(raw: bytes) -> bytes:
    """Return the 32 bytes of a public key if they may be used; raises KeyRefused (exit 3)."""
    if len(raw) != KEY_BYTES:
        raise KeyRefused(f"the Ed25519 key is {len(raw)} bytes long, not {KEY_BYTES}", id="PLG-KEY-001")
    fault = _fault(raw)
    if fault:
        raise KeyRefused(
            f"the Ed25519 key is {fault}; signatures under it prove nothing",
            "ask its owner for another key",
            id="PLG-KEY-002",
        )
    return raw


def raw_key(blob: bytes) -> bytes:
    """Return the 32 bytes of an SSH key blob if they may be used; raises KeyRefused (exit 3)."""
    parts = wire.strings(blob, 2)
    if parts is None:
        raise KeyRefused("the public key is not a well-formed Ed25519 key", id="PLG-KEY-001")
    return check_key(parts[1])


def pack(signature: bytes) -> bytes:
    """Return a signature as its fields in an SSH signature blob (RFC 8709 §6)."""
    return wire.string(signature)


def unpack(fields: bytes) -> bytes | None:
    """Return the signature that such fields hold; None if they are not filled exactly."""
    parts = wire.strings(fields, 1)
    return parts[0] if parts else None


def from_bare(signature: bytes) -> bytes:
    """Return what a signer that knows nothing of SSH made; for Ed25519 it is the same 64 bytes."""
    return signature


def one_spelling(signature: bytes) -> bytes:
    """Return the spelling that `verify` accepts; Ed25519 has one from the start (RFC 8032 §5.1.7)."""
    return signature


def verify_blob(blob: bytes, signature: bytes, message: bytes) -> None:
    """Verify a signature under an SSH key blob; raises KeyRefused or SignatureRefused (exit 3)."""
    verify(raw_key(blob), signature, message)


def verify(key: bytes, signature: bytes, message: bytes) -> None:
    """Verify 64 bytes under the 32 of a key; raises KeyRefused or SignatureRefused (exit 3)."""
    from cryptography.exceptions import InvalidSignature  # noqa: PLC0415 - 20 ms, only where needed
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey  # noqa: PLC0415

    check_key(key)
    if len(signature) != SIGNATURE_BYTES:
        raise SignatureRefused(
            f"the Ed25519 signature is {len(signature)} bytes long, not {SIGNATURE_BYTES}", id="PLG-SIG-006"
        )
    if int.from_bytes(signature[32:], "little") >= _L:
        raise SignatureRefused("the Ed25519 signature has S >= L: a second spelling", id="PLG-SIG-006")
    fault = _fault(signature[:32])
    if fault:
        raise SignatureRefused(f"the Ed25519 signature has an R that is {fault}", id="PLG-SIG-006")
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, message)
    except (InvalidSignature, ValueError) as err:
        raise SignatureRefused(
            "a signature does not verify: the manifest or the signature was changed",
            "get the bundle again from its publisher",
            id="PLG-SIG-005",
        ) from err


def _fault(encoded: bytes) -> str:
    """Say what is wrong with the encoding of a point, or nothing."""
    y = int.from_bytes(encoded, "little") & ~_SIGN_BIT
    if y >= _P:
        return "not in canonical form"
    return "a point of small order" if y in _SMALL_ORDER_Y else ""
