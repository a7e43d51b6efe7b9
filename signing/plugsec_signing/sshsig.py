"""SSHSIG signatures exactly as `ssh-keygen -Y` makes them, and read more strictly than it reads them.

One signature has one spelling here: the armour must equal its own re-encoding, the reserved field must
be empty, nothing may follow. Stock `ssh-keygen` accepts several spellings, so its verdict is the weaker.

Source: PROTOCOL.sshsig of OpenSSH; algorithm names from RFC 8709.
"""

import base64
import binascii
import hashlib

from plugsec_signing import ed25519, keys, wire
from plugsec_signing.errors import SignatureRefused, excerpt
from plugsec_signing.record import NamedTuple

NAMESPACE_MANIFEST = "plugsec-manifest@v1"
NAMESPACE_RECEIPT = "plugsec-receipt@v1"
MAX_ARMOUR_BYTES = 16 * 1024  # an Ed25519 signature has 300 bytes, a FIDO one 700

_MAGIC = b"SSHSIG"
_VERSION = (1).to_bytes(4, "big")
_HASH = b"sha512"  # what ssh-keygen writes unless told otherwise; one choice is enough
_BEGIN = b"-----BEGIN SSH SIGNATURE-----\n"
_END = b"-----END SSH SIGNATURE-----\n"
_LINE_CHARS = 70  # sshbuf_dtob64() with wrapping


class SshSignature(NamedTuple):
    """A well-formed signature, not verified yet: `signature` is what the key's algorithm produced."""

    key: keys.PublicKey
    namespace: str
    signature: bytes


def sign(private: keys.PrivateKey, message: bytes, namespace: str) -> bytes:
    """Return the armoured signature; for Ed25519 byte for byte what `ssh-keygen -Y sign` writes."""
    raw = private.sign(_signed_data(message, namespace))
    return encode(SshSignature(private.public, namespace, raw))


def encode(signature: SshSignature) -> bytes:
    """Return the only armour that a signature has."""
    inner = wire.string(signature.key.algorithm.encode()) + wire.string(signature.signature)
    blob = (
        _MAGIC
        + _VERSION
        + wire.string(signature.key.blob)
        + wire.string(signature.namespace.encode())
        + wire.string(b"")
        + wire.string(_HASH)
        + wire.string(inner)
    )
    text = base64.b64encode(blob)
    lines = [text[at : at + _LINE_CHARS] + b"\n" for at in range(0, len(text), _LINE_CHARS)]
    return b"".join((_BEGIN, *lines, _END))


def parse(armoured: bytes) -> SshSignature:
    """Return the signature that an armoured file holds; raises SignatureRefused or KeyRefused (exit 3)."""
    if len(armoured) > MAX_ARMOUR_BYTES:
        raise SignatureRefused(f"a signature is longer than {MAX_ARMOUR_BYTES} bytes", id="PLG-SIG-001")
    if not armoured.startswith(_BEGIN) or not armoured.endswith(_END):
        raise SignatureRefused("a signature is not an armoured SSH signature", id="PLG-SIG-001")
    try:
        blob = base64.b64decode(armoured[len(_BEGIN) : -len(_END)].replace(b"\n", b""), validate=True)
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
    ed25519.verify(signature.key.raw, signature.signature, _signed_data(message, namespace))
    return signature.key


def _signed_data(message: bytes, namespace: str) -> bytes:
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
    parts = wire.strings(inner, 2)
    if parts is None:
        raise SignatureRefused("a signature's inner fields do not fill it exactly", id="PLG-SIG-001")
    if parts[0] != key.algorithm.encode():
        raise SignatureRefused(
            f"a signature by an {key.algorithm} key claims to be {excerpt(parts[0])}", id="PLG-SIG-003"
        )
    # A namespace that is not ASCII cannot be one of ours; `verify` then names it.
    return SshSignature(key, namespace.decode("utf-8", "backslashreplace"), parts[1])
