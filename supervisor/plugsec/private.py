"""Directories and files that are this user's alone, whatever the caller's umask is."""

import os
import stat

_PARENTS_MAX = 64  # deeper than any home directory


def make_directories(path: str) -> None:
    """Make `path` and what is missing above it, each 0700; what exists stays as it is. Raises OSError."""
    missing: list[str] = []
    at = os.path.abspath(path)
    while not os.path.isdir(at) and len(missing) < _PARENTS_MAX:
        missing.append(at)
        at = os.path.dirname(at)
    for directory in reversed(missing):
        try:
            os.mkdir(directory, 0o700)
        except FileExistsError:
            continue  # another start was faster
        os.chmod(directory, 0o700)  # a umask of 777 would leave it unusable


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
