"""Putting a whole directory or a whole file where the command line says, or nothing. Cold path.

What is made grows beside its destination under a name that begins with a dot, and takes the place by one
rename: a failure, a signal or a full disk leaves no half of it behind.
"""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from plugsec_signing.errors import DestinationRefused, excerpt
from plugsec_signing.tree import DIRECTORY, remove_tree

_FILE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


@contextmanager
def new_directory(path: str) -> Iterator[int]:
    """A directory that appears at `path` when the block succeeds; yields its descriptor.

    `path` must not exist, or be an empty directory. Raises DestinationRefused (exit 2).
    """
    path = os.path.abspath(path)
    _refuse_existing(path)
    with _beside(path) as (parent, name, temporary):
        try:
            os.mkdir(temporary, 0o700, dir_fd=parent)
            directory = os.open(temporary, DIRECTORY, dir_fd=parent)
        except OSError as err:
            raise refused(path, err) from err
        try:
            yield directory
            try:
                os.fchmod(directory, 0o755)
                os.fsync(directory)
                os.rename(temporary, name, src_dir_fd=parent, dst_dir_fd=parent)  # onto an empty one at most
            except OSError as err:
                raise refused(path, err) from err
        finally:
            os.close(directory)


@contextmanager
def new_file(path: str) -> Iterator[int]:
    """A file, 0644, that appears at `path` when the block succeeds; yields a descriptor to write and read.

    `path` must not exist. Raises DestinationRefused (exit 2).
    """
    path = os.path.abspath(path)
    if os.path.lexists(path):
        raise DestinationRefused(f"{excerpt(path)} exists already", "name another file with -o")
    with _beside(path) as (parent, name, temporary):
        try:
            fd = os.open(temporary, _FILE, 0o600, dir_fd=parent)
        except OSError as err:
            raise refused(path, err) from err
        try:
            yield fd
            try:
                os.fchmod(fd, 0o644)
                os.fsync(fd)
                # link(2) and not rename: a file that came into being meanwhile is not overwritten.
                os.link(temporary, name, src_dir_fd=parent, dst_dir_fd=parent, follow_symlinks=False)
            except OSError as err:
                raise refused(path, err) from err
        finally:
            os.close(fd)


def refused(path: str, err: OSError) -> DestinationRefused:
    """Make the refusal of a destination that the system refused."""
    hints = {
        errno.ENOSPC: "free space there, or name a place on another file system",
        errno.EDQUOT: "free space there, or name a place on another file system",
        errno.ENOENT: f"make {excerpt(os.path.dirname(path) or '.')} first, or name another place",
    }
    hint = hints.get(err.errno or 0, "")
    return DestinationRefused(f"{excerpt(path)} cannot be written: {err.strerror}", hint)


@contextmanager
def _beside(path: str) -> Iterator[tuple[int, str, str]]:
    """The open directory of `path`, the last component, and a name beside it that is removed afterwards."""
    directory, name = os.path.split(path)
    try:
        parent = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as err:
        raise refused(path, err) from err
    temporary = f".{name[:64]}.{os.urandom(8).hex()}"
    try:
        yield parent, name, temporary
    finally:
        with suppress(OSError):  # it has taken its place, or never came into being
            remove_tree(parent, temporary)
        os.close(parent)


def _refuse_existing(path: str) -> None:
    try:
        if stat.S_ISDIR(os.lstat(path).st_mode) and not os.listdir(path):
            return
    except FileNotFoundError:
        return
    except OSError as err:
        raise refused(path, err) from err
    raise DestinationRefused(f"{excerpt(path)} exists and is not an empty directory")
