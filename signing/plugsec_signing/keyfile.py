"""Private key files: what `ssh-keygen` and OpenSSL write, read only if nobody else can read them.

Holds the files, not the keys' meaning: `keys` says what may sign. Cold path: only signing comes here.
"""

import base64
import binascii
import os
import stat
from collections.abc import Callable
from typing import TYPE_CHECKING

from plugsec_signing import wire
from plugsec_signing.errors import KeyFileError, KeyFileUnreadable, KeyRefused, excerpt

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.serialization.ssh import SSHPrivateKeyTypes

MAX_KEY_FILE_BYTES = 64 * 1024  # an encrypted Ed25519 key has 500 bytes
_BEGIN = b"-----BEGIN OPENSSH PRIVATE KEY-----"
_END = b"-----END OPENSSH PRIVATE KEY-----"
_MAGIC = b"openssh-key-v1\0"
_PUBLIC_PARTS = 3  # cipher, key derivation and its options stand before the number of keys
_FIDO = "sk-"  # OpenSSH's mark of keys that live in a FIDO token


def read(path: str) -> bytes:
    """Return the content of a private key file.

    Raises KeyFileUnreadable (exit 2), and KeyFileError (exit 4) unless it is a regular file that only its
    owner can reach.
    """
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


def decode(path: str, passphrase: Callable[[], bytes] | None) -> "SSHPrivateKeyTypes":
    """Return the private key in a file of OpenSSH's or PKCS#8 form, of whatever kind it is.

    The passphrase is asked for only if the file is encrypted. Raises KeyFileError, KeyRefused.
    """
    from cryptography.exceptions import InvalidTag, UnsupportedAlgorithm  # noqa: PLC0415 - 80 ms

    data = read(path)
    _refuse_token(data, path)
    try:
        try:
            return _decode(data, None)
        except TypeError:  # how `cryptography` says that a passphrase is needed
            if passphrase is None:
                raise KeyFileError(
                    f"the key {excerpt(path)} is protected by a passphrase",
                    "give --passphrase-fd N",
                    id="PLG-KEY-005",
                ) from None
            return _decode(data, passphrase())
    except UnsupportedAlgorithm as err:
        raise KeyFileError(
            f"the key {excerpt(path)} is of a kind, or encrypted in a way, that is not supported",
            "for another encryption: ssh-keygen -p -Z aes256-ctr -f KEY",
            id="PLG-KEY-005",
        ) from err
    except (ValueError, TypeError, InvalidTag) as err:
        raise KeyFileError(
            f"the key {excerpt(path)} cannot be read: wrong passphrase, or not an OpenSSH private key",
            id="PLG-KEY-005",
        ) from err


def create(path: str, content: bytes, mode: int) -> None:
    """Write a new file, to the disk; raises KeyFileError (exit 4) and leaves nothing half-written."""
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


def _decode(data: bytes, passphrase: bytes | None) -> "SSHPrivateKeyTypes":
    from cryptography.hazmat.primitives import serialization as forms  # noqa: PLC0415 - cold path only

    if _BEGIN in data:
        return forms.load_ssh_private_key(data, passphrase)
    return forms.load_pem_private_key(data, passphrase)  # type: ignore[return-value]  # `keys` looks at it


def _refuse_token(data: bytes, path: str) -> None:
    """Refuse the file of a FIDO key in time: it holds a handle, and the signature needs the token."""
    _, begun, rest = data.partition(_BEGIN)
    try:
        blob = base64.b64decode(b"".join(rest.partition(_END)[0].split()))
    except (binascii.Error, ValueError):
        return  # not an OpenSSH file; the decoder says so better
    if not begun or not blob.startswith(_MAGIC):
        return
    rest = blob[len(_MAGIC) :]
    for _ in range(_PUBLIC_PARTS):
        rest = wire.first(rest)[1]
    algorithm = wire.first(wire.first(rest[4:])[0])[0].decode("ascii", "replace")
    if algorithm.startswith(_FIDO):
        raise KeyRefused(
            f"the key {excerpt(path)} lives in a FIDO token, which only ssh-agent and ssh-keygen can ask",
            "plugsec sign BUNDLE --agent, or `ssh-keygen -Y sign` and --signature",
            id="PLG-KEY-003",
        )
