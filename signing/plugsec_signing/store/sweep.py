"""What crashed installs and removals left in `tmp/`, told from what living ones are at.

Whoever writes or reads a tree holds a flock on it, and a flock ends with its process; so what can be
locked exclusively is nobody's any more. It is chosen under the store's lock and removed after that.
"""

import fcntl
import os
from contextlib import suppress

from plugsec_signing.store.directories import Directories, try_lock, unusable
from plugsec_signing.tree import DIRECTORY, remove_tree

PAYLOAD = "payload"
_SWEPT_MAX = 10_000  # leftovers that one sweep takes on; the next one goes on


def set_aside(where: Directories, bundle_hex: str) -> str:
    """Move an installed tree out of the way, under the lock; returns its new name in tmp/. Raises OSError."""
    name = os.urandom(8).hex()
    try:
        directory = os.open(bundle_hex, DIRECTORY, dir_fd=where.objects)
    except OSError as err:  # a link or a file can be moved as it is
        if isinstance(err, FileNotFoundError):
            raise
    else:
        os.fchmod(directory, 0o755)  # what moves to another parent must be writable itself: its `..` changes
        os.close(directory)
    os.rename(bundle_hex, name, src_dir_fd=where.objects, dst_dir_fd=where.temporary)
    return name


def sweep(where: Directories) -> int:
    """Remove every dead leftover; returns how many there were. Raises StoreUnusable."""
    dead: list[tuple[str, list[int]]] = []
    removed = 0
    try:
        with where.locked():
            for name in os.listdir(where.temporary)[:_SWEPT_MAX]:
                locks = _claim(where.temporary, name)
                if locks is not None:
                    dead.append((name, locks))
        for name, _ in dead:
            with suppress(FileNotFoundError):
                remove_tree(where.temporary, name)
                removed += 1
    except OSError as err:
        raise unusable(where.path, err) from err
    finally:
        for _, locks in dead:
            for fd in locks:
                os.close(fd)
    return removed


def _claim(temporary: int, name: str) -> list[int] | None:
    """Lock a leftover and its payload; returns the locks, or None if somebody is at it."""
    locks: list[int] = []
    try:
        locks.append(os.open(name, DIRECTORY, dir_fd=temporary))
        with suppress(FileNotFoundError):
            locks.append(os.open(PAYLOAD, DIRECTORY, dir_fd=locks[0]))
    except OSError:
        pass  # a file, or a directory that was never finished: nobody holds those
    if all(try_lock(fd, fcntl.LOCK_EX) for fd in locks):
        return locks
    for fd in locks:
        os.close(fd)
    return None
