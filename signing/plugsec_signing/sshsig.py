"""SSHSIG signatures exactly as `ssh-keygen -Y` makes them, and read more strictly than it reads them.

One signature has one spelling here: the armour must equal its own re-encoding, the reserved field must
be empty, nothing may follow. Stock `ssh-keygen` accepts several spellings, so its verdict is the weaker.

Source: PROTOCOL.sshsig of OpenSSH.
"""

import binascii
import hashlib

from plugsec_signing import keys, wire
from plugsec_signing.errors import SignatureRefused, excerpt
from plugsec_signing.typed import NamedTuple

NAMESPACE_MANIFEST = "plugsec-manifest@v1"
NAMESPACE_RECEIPT = "plugsec-receipt@v1"
MAX_ARMOUR_BYTES = 16 * 1024  # an Ed25519 signature has 300 bytes, an ECDSA or FIDO one up to 800

_MAGIC = b"SSHSIG"
_VERSION = (1).to_bytes(4, "big")
_HASH = b"sha512"  # what ssh-keygen writes unless told otherwise; one choice is enough
_BEGIN = b"-----BEGIN SSH SIGNATURE-----\n"
_END = b"-----END SSH SIGNATURE-----\n"
_LINE_CHARS = 70  # sshbuf_dtob64() with wrapping


class SshSignature(NamedTuple):
    """A well-formed signature, not verified yet: `signature` is in the form of the key's algorithm."""

    key: keys.PublicKey
    namespace: str
    signature: bytes


def sign(private: keys.PrivateKey, message: bytes, namespace: str) -> bytes:
    """Return the armoured signature; for Ed25519 byte for byte what `ssh-keygen -Y sign` writes."""
    made = private.sign(signed_data(message, namespace))
    return encode(SshSignature(private.public, namespace, made))


def from_bare(key: keys.PublicKey, bare: bytes, namespace: str) -> bytes:
    """Return the armour around what a signer that knows nothing of SSH made of `signed_data`.

    Not verified. Raises SignatureRefused (exit 3) where the key's algorithm has no such form.
    """
    return encode(SshSignature(key, namespace, keys.algorithm_named(key.algorithm).from_bare(bare)))


def one_spelling(armoured: bytes) -> bytes:
    """Return the armour of the same signature that verifies here, for one that others made.

    Only ECDSA has two (see `ecdsa_p256`). Raises SignatureRefused or KeyRefused (exit 3).
    """
    signature = parse(armoured)
    one = keys.algorithm_named(signature.key.algorithm).one_spelling(signature.signature)
    return encode(signature._replace(signature=one))


def encode(signature: SshSignature) -> bytes:
    """Return the only armour that a signature has."""
    algorithm = keys.algorithm_named(signature.key.algorithm)
    inner = wire.string(signature.key.algorithm.encode()) + algorithm.pack(signature.signature)
    blob = (
        _MAGIC
        + _VERSION
        + wire.string(signature.key.blob)
        + wire.string(signature.namespace.encode())
        + wire.string(b"")
        + wire.string(_HASH)
        + wire.string(inner)
    )
    text = binascii.b2a_base64(blob, newline=False)
    lines = [text[at : at + _LINE_CHARS] + b"\n" for at in range(0, len(text), _LINE_CHARS)]
    return b"".join((_BEGIN, *lines, _END))


def parse(armoured: bytes) -> SshSignature:
    """Return the signature that an armoured file holds; raises SignatureRefused or KeyRefused (exit 3)."""
    if len(armoured) > MAX_ARMOUR_BYTES:
        raise SignatureRefused(f"a signature is longer than {MAX_ARMOUR_BYTES} bytes", id="PLG-SIG-001")
    if not armoured.startswith(_BEGIN) or not armoured.endswith(_END):
        raise SignatureRefused("a signature is not an armoured SSH signature", id="PLG-SIG-001")
    try:
        blob = binascii.a2b_base64(armoured[len(_BEGIN) : -len(_END)].replace(b"\n", b""), strict_mode=True)
    except (binascii.Error, ValueError) as err:
        raise SignatureRefused("a signature's armour is not base64", id="PLG-SIG-001") from err
    if not blob.startswith(_MAGIC + _VERSION):
        raise SignatureRefused("a signature is not SSHSIG version 1", id="PLG-SIG-001")
    parts = wire.strings(blob[len(_MAGIC + _VERSION) :], 5)
    if parts is None:
        raise SignatureRefused("a signature's fields do not fill it exactly", id="PLG-SIG-001")
    signature = _from_parts(*parts)
    if encode(signature) != armoured:
        raise SignatureRefused("a signature's armour is not its own re-encoding", id="PLG-SIG-002")
    return signature


def verify(signature: SshSignature, message: bytes, namespace: str) -> keys.PublicKey:
    """Return the key under which the signature over `message` verifies; raises SignatureRefused (exit 3).

    Evidence of who signed, not of whether they are trusted: that is the trust store's question.
    """
    if signature.namespace != namespace:
        raise SignatureRefused(
            f"a signature was made for {excerpt(signature.namespace)}, not for {namespace!r}",
            f"sign with `plugsec sign`, or `ssh-keygen -Y sign -n {namespace}`",
            id="PLG-SIG-004",
        )
    key = signature.key
    algorithm = keys.algorithm_named(key.algorithm)
    algorithm.verify_blob(key.blob, signature.signature, signed_data(message, namespace))
    return key


def signed_data(message: bytes, namespace: str) -> bytes:
    """Return what the key's algorithm signs for a message: the same bytes for every key."""
    digest = hashlib.sha512(message).digest()
    return b"".join(
        (_MAGIC, wire.string(namespace.encode()), wire.string(b""), wire.string(_HASH), wire.string(digest))
    )


def _from_parts(
    blob: bytes, namespace: bytes, reserved: bytes, hash_name: bytes, inner: bytes
) -> SshSignature:
    key = keys.parse_blob(blob)
    if reserved:
        raise SignatureRefused("a signature's reserved field is not empty", id="PLG-SIG-002")
    if hash_name != _HASH:
        raise SignatureRefused(
            f"a signature uses the hash {excerpt(hash_name)}, not sha512",
            "sign again with -O hashalg=sha512",
            id="PLG-SIG-003",
        )
    kind, fields = wire.first(inner)
    if kind != key.algorithm.encode():
        raise SignatureRefused(
            f"a signature by an {key.algorithm} key claims to be {excerpt(kind)}", id="PLG-SIG-003"
        )
    made = keys.algorithm_named(key.algorithm).unpack(fields)
    if made is None:
        raise SignatureRefused("a signature's inner fields do not fill it exactly", id="PLG-SIG-001")
    # A namespace that is not ASCII cannot be one of ours; `verify` then names it.
    return SshSignature(key, namespace.decode("utf-8", "backslashreplace"), made)
