"""Directories and files that are this user's alone, whatever the caller's umask is."""

import os
import stat

from plugsec_signing.private import make_directories

__all__ = ["create", "is_private_directory", "make_directories", "replace"]


def is_private_directory(path: str) -> bool:
    """Whether nobody but this user could have put something there."""
    try:
        status = os.lstat(path)
    except OSError:
        return False
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid() and not status.st_mode & 0o022


def create(path: str) -> int:
    """A new file, 0600, open for reading and writing; raises OSError, also when it exists."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    os.fchmod(fd, 0o600)
    return fd


def replace(path: str, data: bytes) -> None:
    """Put a whole file in place at once; raises OSError and then leaves nothing behind."""
    temporary = f"{path}.{os.urandom(8).hex()}"
    fd = create(temporary)
    try:
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(fd, view) :]
        finally:
            os.close(fd)
        os.replace(temporary, path)
    except OSError:
        os.unlink(temporary)
        raise
