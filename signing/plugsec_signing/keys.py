"""SSH keys: public ones in one strict form, private ones read from and written to OpenSSH files.

The algorithm table has one entry so far; everything else has its own refusal, so that nobody mistakes
"not supported" for "not trusted".
"""

import base64
import binascii
import hashlib
import os
import stat
from collections.abc import Callable
from typing import TYPE_CHECKING

from plugsec_signing import ed25519, wire
from plugsec_signing.errors import KeyFileError, KeyFileUnreadable, KeyRefused, excerpt
from plugsec_signing.record import NamedTuple

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

MAX_LINE_CHARS = 16 * 1024  # the largest RSA key that ssh-keygen makes has 3 KB; a line is never longer
MAX_KEY_FILE_BYTES = 64 * 1024  # an encrypted Ed25519 key has 500 bytes

_REFUSED = {
    "ssh-rsa": "RSA keys are refused",
    "ssh-dss": "DSA keys are refused",
    "ecdsa-sha2-nistp256": "ECDSA keys are not supported yet",
    "sk-ssh-ed25519@openssh.com": "FIDO keys are not supported yet",
    "sk-ecdsa-sha2-nistp256@openssh.com": "FIDO keys are not supported yet",
}
_USE_ED25519 = "use an Ed25519 key: plugsec keygen NAME"


class PublicKey(NamedTuple):
    """A public key that may be used: `blob` as SSH writes it, `raw` its bytes, `comment` for people."""

    algorithm: str
    blob: bytes
    raw: bytes
    comment: str = ""


class PrivateKey(NamedTuple):
    """Something that signs: `sign(data)` returns the raw signature under `public`.

    A closure rather than key material, so that an agent or a token can stand here as well.
    """

    public: PublicKey
    sign: Callable[[bytes], bytes]


def parse_blob(blob: bytes, comment: str = "") -> PublicKey:
    """Return the key that an SSH key blob holds; raises KeyRefused (exit 3)."""
    at = 4 + int.from_bytes(blob[:4], "big")
    algorithm = blob[4:at].decode("ascii", "replace")
    if algorithm != ed25519.NAME:
        raise _refused_algorithm(algorithm)
    parts = wire.strings(blob, 2)
    if parts is None:
        raise KeyRefused("the public key is not a well-formed Ed25519 key", id="PLG-KEY-001")
    return PublicKey(algorithm, blob, ed25519.check_key(parts[1]), comment)


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
    if algorithm != ed25519.NAME:
        raise _refused_algorithm(algorithm)
    try:
        blob = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError) as err:
        raise KeyRefused("the public key is not base64", id="PLG-KEY-001") from err
    if base64.b64encode(blob).decode("ascii") != encoded:
        raise KeyRefused("the public key's base64 has a second spelling", id="PLG-KEY-001")
    return parse_blob(blob, fields[2] if len(fields) == 3 else "")


def public_line(key: PublicKey) -> str:
    """Return the key as one line, without newline."""
    return f"{key.algorithm} {base64.b64encode(key.blob).decode('ascii')} {key.comment}".rstrip()


def fingerprint(key: PublicKey) -> str:
    """Return the SHA-256 of the key blob in lower-case hex: what names a signature in a bundle."""
    return hashlib.sha256(key.blob).hexdigest()


def ssh_fingerprint(key: PublicKey) -> str:
    """Return the fingerprint as `ssh-keygen -l` prints it: `SHA256:` and unpadded base64."""
    return "SHA256:" + base64.b64encode(hashlib.sha256(key.blob).digest()).decode("ascii").rstrip("=")


def load_private_key(path: str, passphrase: Callable[[], bytes] | None = None) -> PrivateKey:
    """Return the signing key of an OpenSSH (or PKCS#8) file, asking for the passphrase only if needed.

    The file must be a regular file that only its owner can read. Raises KeyFileError (exit 4) or
    KeyRefused (exit 3).
    """
    from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415 - 80 ms, signing only

    data = _read_private(path)
    try:
        try:
            key = _decode_private(data, None)
        except TypeError:  # how `cryptography` says that a passphrase is needed
            if passphrase is None:
                raise KeyFileError(
                    f"the key {excerpt(path)} is protected by a passphrase",
                    "give --passphrase-fd N",
                    id="PLG-KEY-005",
                ) from None
            key = _decode_private(data, passphrase())
    except (ValueError, TypeError, UnsupportedAlgorithm) as err:
        raise KeyFileError(
            f"the key {excerpt(path)} cannot be read: wrong passphrase, or not an OpenSSH private key",
            id="PLG-KEY-005",
        ) from err
    return PrivateKey(_public_of(key), key.sign)


def generate_keypair(directory: str, name: str, passphrase: bytes | None, comment: str = "") -> PublicKey:
    """Write a new Ed25519 pair `NAME` (0600, OpenSSH form) and `NAME.pub`; never overwrites either.

    `passphrase` None leaves the private file unprotected. Raises KeyFileError (exit 4).
    """
    from cryptography.hazmat.primitives import serialization as forms  # noqa: PLC0415 - cold path only
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: PLC0415

    key = Ed25519PrivateKey.generate()
    protection = forms.BestAvailableEncryption(passphrase) if passphrase else forms.NoEncryption()
    private = key.private_bytes(forms.Encoding.PEM, forms.PrivateFormat.OpenSSH, protection)
    public = _public_of(key)._replace(comment=comment)
    path = os.path.join(directory, name)
    _create(path, private, 0o600)
    try:
        _create(path + ".pub", (public_line(public) + "\n").encode(), 0o644)
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


def _read_private(path: str) -> bytes:
    try:
        # O_NONBLOCK: opening a FIFO must not wait for a writer.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except (OSError, ValueError) as err:
        raise KeyFileUnreadable(f"the key {excerpt(path)} cannot be opened: {err}") from err
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or status.st_size > MAX_KEY_FILE_BYTES:
            raise KeyFileError(f"{excerpt(path)} is not a private key file", id="PLG-KEY-007")
        if status.st_mode & 0o077:
            raise KeyFileError(
                f"the key {excerpt(path)} has mode {stat.S_IMODE(status.st_mode):04o}: others may read it",
                f"chmod 600 {path}",
                id="PLG-KEY-004",
            )
        return os.read(fd, MAX_KEY_FILE_BYTES)
    except OSError as err:
        raise KeyFileError(f"the key {excerpt(path)} cannot be read: {err}", id="PLG-KEY-007") from err
    finally:
        os.close(fd)


def _decode_private(data: bytes, passphrase: bytes | None) -> "Ed25519PrivateKey":
    from cryptography.hazmat.primitives import serialization as forms  # noqa: PLC0415 - cold path only
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: PLC0415

    openssh = b"BEGIN OPENSSH PRIVATE KEY" in data
    key = (forms.load_ssh_private_key if openssh else forms.load_pem_private_key)(data, passphrase)
    if not isinstance(key, Ed25519PrivateKey):
        raise KeyRefused("the private key is not an Ed25519 key", _USE_ED25519, id="PLG-KEY-003")
    return key


def _public_of(key: "Ed25519PrivateKey") -> PublicKey:
    raw = key.public_key().public_bytes_raw()
    return parse_blob(wire.string(ed25519.NAME.encode()) + wire.string(raw))


def _create(path: str, content: bytes, mode: int) -> None:
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    except FileExistsError as err:
        raise KeyFileError(
            f"{excerpt(path)} exists and is not overwritten", "choose another name", id="PLG-KEY-006"
        ) from err
    except (OSError, ValueError) as err:
        raise KeyFileError(f"{excerpt(path)} cannot be created: {err}", id="PLG-KEY-006") from err
    try:
        with os.fdopen(fd, "wb") as file:
            os.fchmod(fd, mode)  # the umask must neither widen nor narrow what ssh expects
            file.write(content)
            file.flush()
            os.fsync(fd)
    except OSError as err:
        os.unlink(path)
        raise KeyFileError(f"{excerpt(path)} cannot be written: {err}", id="PLG-KEY-006") from err
