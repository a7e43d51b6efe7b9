"""The store's own directories: opened once, checked through their descriptors, and locked.

    STORE/format            "1"
    STORE/lock              flock: shared to look something up, exclusive to change what is installed
    STORE/sha256/ID/        installed bundles, read-only
    STORE/index/            one small file per plugin
    STORE/tmp/              what is being written or removed; whoever is at it holds a flock on it

Everything else happens relative to these descriptors, so a store whose parent is swapped for another
directory in the middle of something stays the store that was opened.
"""

import fcntl
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager

from plugsec_signing.errors import StoreError, StoreUnusable
from plugsec_signing.private import make_directories
from plugsec_signing.tree import DIRECTORY, read_small, write_small

FORMAT = 1
OBJECTS, INDEX, TEMPORARY = "sha256", "index", "tmp"
LOCK_WAIT_S = 60.0  # the longest that is done under the lock is hashing one installed bundle again
_LOCK_POLL_S = 0.02
_FORMAT_BYTES_MAX = 16


class Directories:
    """Descriptors of the store's directories."""

    __slots__ = ("index", "objects", "path", "root", "temporary")

    def __init__(self, path: str, root: int) -> None:
        self.path, self.root = path, root
        self.objects = self.index = self.temporary = -1

    def close(self) -> None:
        """Close every descriptor."""
        for fd in (self.root, self.objects, self.index, self.temporary):
            if fd >= 0:
                os.close(fd)

    @contextmanager
    def locked(self, *, shared: bool = False) -> Iterator[None]:
        """Hold the store's lock; raises StoreUnusable when another process does not let go of it."""
        try:
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            fd = os.open("lock", flags, 0o600, dir_fd=self.root)
        except OSError as err:
            raise unusable(self.path, err) from err
        try:
            wait_for_lock(fd, fcntl.LOCK_SH if shared else fcntl.LOCK_EX, self.path)
            yield
        finally:
            os.close(fd)


@contextmanager
def opened(path: str, *, create: bool = False) -> Iterator[Directories | None]:
    """The store at `path`, or None when there is none yet and `create` does not make one.

    Raises StoreError when others own or can write it, or a newer plugsec has; StoreUnusable when the system
    refuses, also for an OSError of the block.
    """
    if create:
        _create(path)
    try:
        root = os.open(path, DIRECTORY)
    except FileNotFoundError:
        yield None
        return
    except OSError as err:
        raise unusable(path, err) from err
    found = Directories(path, root)
    try:
        check_private(root, path)
        if "format" not in os.listdir(root):  # somebody is just making it
            yield None
            return
        _check_format(root, path)
        for slot, name in (("objects", OBJECTS), ("index", INDEX), ("temporary", TEMPORARY)):
            setattr(found, slot, os.open(name, DIRECTORY, dir_fd=root))
            check_private(getattr(found, slot), f"{path}/{name}")
        yield found
    except OSError as err:  # whatever the system refused in the whole block, and nobody had better words for
        raise unusable(path, err) from err
    finally:
        found.close()


def check_private(fd: int, path: str) -> None:
    """Refuse a directory that another user owns or may write; raises StoreError."""
    status = os.fstat(fd)
    if status.st_uid not in (os.geteuid(), 0):
        raise StoreError(f"{path} belongs to another user", f"chown it to yourself: {path}", id="PLG-STO-001")
    if status.st_mode & 0o022:
        raise StoreError(f"others may write {path}", f"chmod go-w {path}", id="PLG-STO-001")


def unusable(path: str, err: OSError) -> StoreUnusable | StoreError:
    """Make the refusal of what the system refused."""
    if isinstance(err, NotADirectoryError) or (err.errno or 0) == 40:  # ELOOP: a link, opened with O_NOFOLLOW
        return StoreError(f"the store {path} is not made of directories only", id="PLG-STO-001")
    return StoreUnusable(
        f"the store {path} cannot be read or written: {err.strerror}",
        "free space, change the rights, or give another --home",
        id="PLG-STO-005",
    )


def wait_for_lock(fd: int, kind: int, path: str) -> None:
    """Take a flock(2), waiting LOCK_WAIT_S at most; raises StoreUnusable."""
    deadline = time.monotonic() + LOCK_WAIT_S
    while not try_lock(fd, kind):
        if time.monotonic() > deadline:
            raise StoreUnusable(
                f"another plugsec has held the store {path} for {LOCK_WAIT_S:.0f} s",
                "is one suspended? otherwise try again",
                id="PLG-STO-006",
            )
        time.sleep(_LOCK_POLL_S)


def try_lock(fd: int, kind: int) -> bool:
    """Take a flock(2) if nobody stands in the way; say whether."""
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as err:  # a file system without locks
        raise StoreUnusable(f"the store cannot be locked: {err.strerror}", id="PLG-STO-005") from err
    return True


def _create(path: str) -> None:
    """Make what is missing, 0700; the format mark comes last, so that a store with one is whole."""
    try:
        make_directories(os.path.dirname(path))
        for directory in (path, *(os.path.join(path, name) for name in (OBJECTS, INDEX, TEMPORARY))):
            try:
                os.mkdir(directory, 0o700)
            except FileExistsError:
                continue  # another start was faster
            os.chmod(directory, 0o700)  # past the umask
        if not os.path.lexists(os.path.join(path, "format")):
            _mark(path)
    except OSError as err:
        raise unusable(path, err) from err


def _mark(path: str) -> None:
    root = os.open(path, DIRECTORY)
    try:
        name = f"format.{os.urandom(8).hex()}"
        write_small(root, name, b"%d\n" % FORMAT, 0o600)
        os.rename(name, "format", src_dir_fd=root, dst_dir_fd=root)
    finally:
        os.close(root)


def _check_format(root: int, path: str) -> None:
    text = read_small(root, "format", _FORMAT_BYTES_MAX).strip()
    if not text.isdigit() or stat.S_IFMT(os.fstat(root).st_mode) != stat.S_IFDIR:
        raise StoreError(f"{path} is no store: its format is not a number", id="PLG-STO-001")
    if int(text) > FORMAT:
        raise StoreError(
            f"the store {path} was written by a newer plugsec (format {int(text)}, this one knows {FORMAT})",
            "use that version, or another --home",
            id="PLG-STO-004",
        )
