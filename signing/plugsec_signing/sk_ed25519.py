"""Ed25519 keys inside FIDO tokens: `ssh-keygen -t ed25519-sk`.

A token does not sign the message but a statement of its own about it: for which application, that somebody
touched it, how often it has signed. All of that is covered by the signature, so none of it can be changed
afterwards; here the touch is demanded and the rest is left as it is. `ssh-keygen` accepts signatures made
without a touch: whoever runs code on the author's machine could make those.

Source: PROTOCOL.u2f of OpenSSH ("SSH U2F Signatures"). Loaded only where such a key or signature occurs.
"""

import hashlib

from plugsec_signing import ed25519, wire
from plugsec_signing.errors import KeyRefused, SignatureRefused, excerpt

NAME = "sk-ssh-ed25519@openssh.com"
APPLICATION_PREFIX = b"ssh:"  # what ssh-keygen demands; other applications are websites, which others run
MAX_APPLICATION_BYTES = 255  # a domain name's length; ssh-keygen's default has 4
_TOUCHED = 0x01  # "user presence" of CTAP; the other bits (0x04: PIN or finger) are the token's to say
_STATE_BYTES = 1 + 4  # flags, counter


def raw_key(blob: bytes) -> bytes:
    """Return the 32 bytes of the key in an SSH key blob; raises KeyRefused (exit 3)."""
    return _key(blob)[0]


def pack(signature: bytes) -> bytes:
    """Return a signature as its fields in an SSH signature blob; `signature` is 64 + 1 + 4 bytes."""
    return wire.string(signature[:-_STATE_BYTES]) + signature[-_STATE_BYTES:]


def unpack(fields: bytes) -> bytes | None:
    """Return signature, flags and counter of such fields; None if they are not filled exactly."""
    signature, state = wire.first(fields)
    return signature + state if len(state) == _STATE_BYTES else None


def from_bare(signature: bytes) -> bytes:
    """Refuse: without the token's flags and counter nothing can be verified."""
    raise SignatureRefused(
        f"a bare signature of {len(signature)} bytes by a FIDO key cannot be imported",
        "sign with `plugsec sign --agent`, or `ssh-keygen -Y sign` and --signature",
        id="PLG-SIG-006",
    )


def one_spelling(signature: bytes) -> bytes:
    """Return the signature: as with Ed25519 there is one spelling."""
    return signature


def verify_blob(blob: bytes, signature: bytes, message: bytes) -> None:
    """Verify a signature under an SSH key blob; raises KeyRefused or SignatureRefused (exit 3)."""
    key, application = _key(blob)
    state = signature[ed25519.SIGNATURE_BYTES :]
    if len(state) != _STATE_BYTES:
        raise SignatureRefused(
            f"the FIDO signature is {len(signature)} bytes long, not "
            f"{ed25519.SIGNATURE_BYTES + _STATE_BYTES}",
            id="PLG-SIG-006",
        )
    if not state[0] & _TOUCHED:
        raise SignatureRefused(
            "a signature was made without touching the FIDO token",
            "sign again with a key made without `-O no-touch-required`",
            id="PLG-SIG-009",
        )
    statement = hashlib.sha256(application).digest() + state + hashlib.sha256(message).digest()
    ed25519.verify(key, signature[: ed25519.SIGNATURE_BYTES], statement)


def _key(blob: bytes) -> tuple[bytes, bytes]:
    """Return key and application of a blob, both checked."""
    parts = wire.strings(blob, 3)
    if parts is None:
        raise KeyRefused("the public key is not a well-formed FIDO Ed25519 key", id="PLG-KEY-001")
    _, key, application = parts
    if (
        not application.startswith(APPLICATION_PREFIX)
        or len(application) > MAX_APPLICATION_BYTES
        or not (application.isascii() and application.decode("ascii").isprintable())
    ):
        raise KeyRefused(
            f"the FIDO key belongs to the application {excerpt(application)}, not to one of SSH",
            "make one with `ssh-keygen -t ed25519-sk`",
            id="PLG-KEY-009",
        )
    return ed25519.check_key(key), application
