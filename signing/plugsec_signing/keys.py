"""SSH keys: public ones in one strict form, private ones read from and written to OpenSSH files.

Three algorithms are accepted, each a module with the same functions; Ed25519 is the default, and the other
two count only where the operator's trust entry says so (`trust_toml`). Everything else has its own
refusal, so that nobody mistakes "not supported" for "not trusted".
"""

import binascii
import hashlib
import os
from collections.abc import Callable

from plugsec_signing import ed25519, wire
from plugsec_signing.errors import KeyFileError, KeyRefused, excerpt
from plugsec_signing.typed import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    class Algorithm(Protocol):
        """What a module of an algorithm offers; a signature is in the form that `unpack` returns."""

        def raw_key(self, blob: bytes) -> bytes: ...
        def pack(self, signature: bytes) -> bytes: ...
        def unpack(self, fields: bytes) -> bytes | None: ...
        def from_bare(self, signature: bytes) -> bytes: ...
        def one_spelling(self, signature: bytes) -> bytes: ...
        def verify_blob(self, blob: bytes, signature: bytes, message: bytes) -> None: ...


MAX_LINE_CHARS = 16 * 1024  # the largest RSA key that ssh-keygen makes has 3 KB; a line is never longer

# Named here rather than by their modules, which are loaded only where such a key occurs.
_FIDO = "sk-ssh-ed25519@openssh.com"
_ECDSA = "ecdsa-sha2-nistp256"
_REFUSED = {
    "ssh-rsa": "RSA keys are refused",
    "ssh-dss": "DSA keys are refused",
    "ecdsa-sha2-nistp384": "of ECDSA keys, only those of P-256 are accepted",
    "ecdsa-sha2-nistp521": "of ECDSA keys, only those of P-256 are accepted",
    "sk-ecdsa-sha2-nistp256@openssh.com": "of FIDO keys, only Ed25519 ones (`-t ed25519-sk`) are accepted",
}
_USE_ED25519 = "use an Ed25519 key: plugsec keygen NAME"


class PublicKey(NamedTuple):
    """A public key that may be used: `blob` as SSH writes it, `raw` its bytes, `comment` for people."""

    algorithm: str
    blob: bytes
    raw: bytes
    comment: str = ""


class PrivateKey(NamedTuple):
    """Something that signs: `sign(data)` returns the signature under `public`, in its algorithm's form.

    A closure rather than key material, so that an agent or a token can stand here as well.
    """

    public: PublicKey
    sign: Callable[[bytes], bytes]


def algorithm_named(name: str) -> "Algorithm":
    """Return the module of an accepted algorithm; raises KeyRefused (exit 3), which says why not."""
    if name == ed25519.NAME:
        return ed25519
    if name == _FIDO:
        from plugsec_signing import sk_ed25519  # noqa: PLC0415 - most runs meet Ed25519 alone

        return sk_ed25519
    if name == _ECDSA:
        from plugsec_signing import ecdsa_p256  # noqa: PLC0415

        return ecdsa_p256
    raise _refused_algorithm(name)


def parse_blob(blob: bytes, comment: str = "") -> PublicKey:
    """Return the key that an SSH key blob holds; raises KeyRefused (exit 3)."""
    algorithm = wire.first(blob)[0].decode("ascii", "replace")
    return PublicKey(algorithm, blob, algorithm_named(algorithm).raw_key(blob), comment)


def parse_public_key(line: str) -> PublicKey:
    """Return the key of one line `ssh-ed25519 AAAA… [comment]`, as `ssh-keygen` writes `.pub` files.

    Options in front (as in `authorized_keys`) are refused, never ignored. Raises KeyRefused (exit 3).
    """
    line = line.strip("\r\n\t ")
    fields = line.split(None, 2) if len(line) <= MAX_LINE_CHARS else []
    if len(fields) < 2 or "\n" in line or "\r" in line:
        raise KeyRefused(
            f"{excerpt(line)} is not one line of an SSH public key", _USE_ED25519, id="PLG-KEY-001"
        )
    algorithm, encoded = fields[0], fields[1]
    algorithm_named(algorithm)
    try:
        blob = binascii.a2b_base64(encoded, strict_mode=True)
    except (binascii.Error, ValueError) as err:
        raise KeyRefused("the public key is not base64", id="PLG-KEY-001") from err
    if _base64(blob) != encoded:
        raise KeyRefused("the public key's base64 has a second spelling", id="PLG-KEY-001")
    key = parse_blob(blob, fields[2] if len(fields) == 3 else "")
    if key.algorithm != algorithm:
        raise KeyRefused(f"the line says {algorithm}, its key is of {key.algorithm}", id="PLG-KEY-001")
    return key


def public_line(key: PublicKey) -> str:
    """Return the key as one line, without newline."""
    return f"{key.algorithm} {_base64(key.blob)} {key.comment}".rstrip()


def fingerprint(key: PublicKey) -> str:
    """Return the SHA-256 of the key blob in lower-case hex: what names a signature in a bundle."""
    return hashlib.sha256(key.blob).hexdigest()


def ssh_fingerprint(key: PublicKey) -> str:
    """Return the fingerprint as `ssh-keygen -l` prints it: `SHA256:` and unpadded base64."""
    return "SHA256:" + _base64(hashlib.sha256(key.blob).digest()).rstrip("=")


def _base64(data: bytes) -> str:
    return binascii.b2a_base64(data, newline=False).decode("ascii")


def load_private_key(path: str, passphrase: Callable[[], bytes] | None = None) -> PrivateKey:
    """Return the signing key of an OpenSSH (or PKCS#8) file, asking for the passphrase only if needed.

    The file must be a regular file that only its owner can read. Raises KeyFileError (exit 4) or
    KeyRefused (exit 3).
    """
    from cryptography.hazmat.primitives.asymmetric import ec  # noqa: PLC0415 - 80 ms, signing only
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: PLC0415

    from plugsec_signing import keyfile  # noqa: PLC0415

    key = keyfile.decode(path, passphrase)
    if isinstance(key, Ed25519PrivateKey):
        return PrivateKey(_public_of(key), key.sign)
    if isinstance(key, ec.EllipticCurvePrivateKey) and isinstance(key.curve, ec.SECP256R1):
        return _ecdsa_signer(key)
    raise KeyRefused("the private key is of a kind that is not accepted", _USE_ED25519, id="PLG-KEY-003")


def generate_keypair(directory: str, name: str, passphrase: bytes | None, comment: str = "") -> PublicKey:
    """Write a new Ed25519 pair `NAME` (0600, OpenSSH form) and `NAME.pub`; never overwrites either.

    `passphrase` None leaves the private file unprotected. Raises KeyFileError (exit 4).
    """
    from cryptography.hazmat.primitives import serialization as forms  # noqa: PLC0415 - cold path only
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: PLC0415

    from plugsec_signing import keyfile  # noqa: PLC0415

    key = Ed25519PrivateKey.generate()
    protection = forms.BestAvailableEncryption(passphrase) if passphrase else forms.NoEncryption()
    private = key.private_bytes(forms.Encoding.PEM, forms.PrivateFormat.OpenSSH, protection)
    public = _public_of(key)._replace(comment=comment)
    path = os.path.join(directory, name)
    keyfile.create(path, private, 0o600)
    try:
        keyfile.create(path + ".pub", (public_line(public) + "\n").encode(), 0o644)
    except KeyFileError:
        os.unlink(path)  # half a pair is of no use and would block the next attempt
        raise
    return public


def _refused_algorithm(algorithm: str) -> KeyRefused:
    if algorithm.endswith("-cert-v01@openssh.com"):
        reason = "certificates and certificate authorities are refused"
    else:
        reason = _REFUSED.get(algorithm, f"{excerpt(algorithm)} is not a kind of SSH public key known here")
    return KeyRefused(reason, _USE_ED25519, id="PLG-KEY-003")


def _public_of(key: "Ed25519PrivateKey") -> PublicKey:
    raw = key.public_key().public_bytes_raw()
    return parse_blob(wire.string(ed25519.NAME.encode()) + wire.string(raw))


def _ecdsa_signer(key: "EllipticCurvePrivateKey") -> PrivateKey:
    from cryptography.hazmat.primitives import serialization as forms  # noqa: PLC0415 - cold path only
    from cryptography.hazmat.primitives.asymmetric.ec import ECDSA  # noqa: PLC0415
    from cryptography.hazmat.primitives.hashes import SHA256  # noqa: PLC0415

    from plugsec_signing import ecdsa_p256  # noqa: PLC0415

    line = key.public_key().public_bytes(forms.Encoding.OpenSSH, forms.PublicFormat.OpenSSH)
    public = parse_public_key(line.decode("ascii"))
    return PrivateKey(public, lambda data: ecdsa_p256.from_bare(key.sign(data, ECDSA(SHA256()))))
