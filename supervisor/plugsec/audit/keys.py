"""The epoch's keys: one secret of 32 raw bytes, from which a key for each purpose is derived.

Raw bytes, because parsing an OpenSSH key file costs 31 ms of imports; one file, because replacing one
file is atomic: the seal of an epoch (a later record `key.rotated`) renames the next secret over it.
The MAC key costs microseconds to derive; the Ed25519 key is made only for a checkpoint or a receipt.

`keys/epoch-NNNNNN.pub` is the public half in OpenSSH's one-line form. It outlives the secret, and a
stock `ssh-keygen -Y verify` checks receipts with it.
"""

import hmac
import os
from binascii import b2a_base64

from plugsec.audit import files
from plugsec.audit.errors import Fault, LogTampered

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

SECRET_BYTES = 32
MAX_EPOCHS = 999_999  # six digits in names

_MAC_PURPOSE = b"plugsec.audit.head/1"
_SIGN_PURPOSE = b"plugsec.audit.sign/1"


def secret_name(epoch: int) -> str:
    """Path of an epoch's secret within the log's directory."""
    return f"{files.KEYS}/epoch-{epoch:06d}.key"


def public_name(epoch: int) -> str:
    """Path of an epoch's public key within the log's directory."""
    return f"{files.KEYS}/epoch-{epoch:06d}.pub"


def load_secret(dirfd: int, directory: str, epoch: int) -> bytes:
    """Read an epoch's secret. Raises LogTampered when it is missing or not 32 bytes, LogUnsafe."""
    name = secret_name(epoch)
    try:
        fd = files.open_file(dirfd, name, os.O_RDONLY)
    except FileNotFoundError as err:
        fault = Fault("key", name, None, None, None, f"the key of epoch {epoch} ({name}) is missing")
        raise LogTampered(fault, directory) from err
    try:
        secret = os.read(fd, SECRET_BYTES + 1)
    finally:
        os.close(fd)
    if len(secret) != SECRET_BYTES:
        fault = Fault("key", name, None, None, None, f"{name} is not {SECRET_BYTES} bytes long")
        raise LogTampered(fault, directory)
    return secret


def mac_key(secret: bytes) -> bytes:
    """The symmetric key that authenticates the head."""
    return hmac.digest(secret, _MAC_PURPOSE, "sha256")


class MacKeys:
    """The MAC keys of epochs, each read from its file once."""

    __slots__ = ("_directory", "_dirfd", "_known")

    def __init__(self, dirfd: int, directory: str) -> None:
        self._dirfd, self._directory, self._known = dirfd, directory, dict[int, bytes]()

    def __call__(self, epoch: int) -> bytes:
        """Raises LogTampered when the key is missing, LogUnsafe."""
        if epoch not in self._known:
            self._known[epoch] = mac_key(load_secret(self._dirfd, self._directory, epoch))
        return self._known[epoch]


def signing_key(secret: bytes) -> "Ed25519PrivateKey":
    """The key that signs checkpoints and receipts."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: PLC0415 - 21 ms

    return Ed25519PrivateKey.from_private_bytes(hmac.digest(secret, _SIGN_PURPOSE, "sha256"))


def public_raw(private: "Ed25519PrivateKey") -> bytes:
    """The 32 bytes of RFC 8032."""
    return private.public_key().public_bytes_raw()


def openssh_line(public: bytes, comment: str) -> str:
    """`ssh-ed25519 AAAA… comment`, without a newline (RFC 8709 section 4)."""
    kind = b"ssh-ed25519"
    blob = len(kind).to_bytes(4, "big") + kind + len(public).to_bytes(4, "big") + public
    return f"ssh-ed25519 {b2a_base64(blob, newline=False).decode()} {comment}"
