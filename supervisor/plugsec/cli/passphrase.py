"""Passphrases: from the terminal or a descriptor, never from arguments, the environment or stdin."""

import os

from plugsec.errors import UsageError

MAX_PASSPHRASE_BYTES = 1024  # what ssh-keygen itself reads; nobody types more


def passphrase(passphrase_fd: int | None, path: str | None) -> bytes:
    """Return the passphrase of an existing key; raises UsageError (exit 2)."""
    if passphrase_fd is not None:
        return _passphrase_from(passphrase_fd)
    return _prompt(f"Passphrase for {path}: ")


def new_passphrase(passphrase_fd: int | None) -> bytes:
    """Return the passphrase for a key to be made, asked for twice; raises UsageError (exit 2)."""
    if passphrase_fd is not None:
        return _passphrase_from(passphrase_fd)
    first = _prompt("Passphrase for the new key: ")
    if first != _prompt("The same again: "):
        raise UsageError("the two passphrases differ; no key was made")
    return first


def _prompt(text: str) -> bytes:
    """Ask on the terminal; never on stdin, where a script's data would be taken for a passphrase."""
    import getpass  # noqa: PLC0415

    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
        answer = getpass.getpass(text)
    except (OSError, EOFError) as err:
        raise UsageError(
            "a passphrase is needed and there is no terminal to ask on", "give --passphrase-fd N"
        ) from err
    return _not_empty(answer.encode("utf-8", "surrogateescape"))


def _passphrase_from(fd: int) -> bytes:
    """Read the first line of a descriptor; raises UsageError (exit 2)."""
    data = b""
    try:
        while b"\n" not in data and len(data) <= MAX_PASSPHRASE_BYTES:
            more = os.read(fd, MAX_PASSPHRASE_BYTES)
            if not more:
                break
            data += more
    except (OSError, OverflowError) as err:
        raise UsageError(
            f"descriptor {fd} cannot be read for a passphrase: {err}", "--passphrase-fd 3 3< FILE"
        ) from err
    line = data.partition(b"\n")[0].removesuffix(b"\r")
    if len(line) > MAX_PASSPHRASE_BYTES:
        raise UsageError(f"the passphrase is longer than {MAX_PASSPHRASE_BYTES} bytes")
    return _not_empty(line)


def _not_empty(passphrase: bytes) -> bytes:
    if not passphrase:
        raise UsageError("the passphrase is empty", "for a key without passphrase: --no-passphrase")
    return passphrase
