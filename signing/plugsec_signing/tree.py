"""A directory tree as a bundle's payload: written from verified bytes, read back file by file.

Everything happens relative to open directory descriptors and without following a link, so a directory
that is swapped under its path changes nothing: `TreeWriter` creates every file anew, `read_payload` hands
over what it hashed. Cold path: the store and `unpack`; a run of a bundle file never comes here.
"""

import hashlib
import itertools
import os
import stat
from collections.abc import Callable, Sequence

from plugsec_signing.bundle import Sink
from plugsec_signing.envelope import FileEntry
from plugsec_signing.errors import StoreError, StoreUnusable, excerpt
from plugsec_signing.paths import MAX_PATH_DEPTH

DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_BUFFER_BYTES = 256 * 1024  # as the container's reader
_REMOVE_DEPTH_MAX = MAX_PATH_DEPTH + 4  # a payload below payload/ below its tree, and one to spare


class TreeWriter:
    """Writes payload files below an open directory, in the order of a manifest; a part of a Sink.

    `read_only` gives the store's modes (0444, 0555) instead of the manifest's (0644, 0755). Raises
    StoreUnusable when the system refuses, a full disk above all; `close` then only gives back descriptors.
    """

    def __init__(self, directory: int, *, read_only: bool) -> None:
        self._directories = _Directories(directory, _make_directory, self._leave)
        self._withheld = 0o222 if read_only else 0
        self._mode = 0
        self._file = -1

    def begin(self, entry: FileEntry) -> None:
        """Create the next file and what is missing above it."""
        try:
            self._finish_file()
            parent, name = self._directories.parent_of(entry.path)
            self._file = os.open(name, _CREATE, 0o600, dir_fd=parent)
            self._mode = entry.mode & ~self._withheld
        except OSError as err:
            raise cannot_write(entry.path, err) from err

    def chunk(self, data: memoryview) -> None:
        """Append to the file begun last."""
        try:
            while data:  # each round writes at least one byte
                data = data[os.write(self._file, data) :]
        except OSError as err:
            raise cannot_write("the payload", err) from err

    def finish(self) -> None:
        """Give the last file and every directory its final mode."""
        try:
            self._finish_file()
            self._directories.close()
        except OSError as err:
            raise cannot_write("the payload", err) from err

    def close(self) -> None:
        """Close what is open; once, and harmless after `finish`."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
        self._directories.abandon()

    def _finish_file(self) -> None:
        if self._file >= 0:
            os.fchmod(self._file, self._mode)  # past the umask
            os.close(self._file)
            self._file = -1

    def _leave(self, directory: int, _: int) -> None:
        os.fchmod(directory, 0o755 & ~self._withheld)


def read_payload(directory: int, files: Sequence[FileEntry], sink: Sink) -> None:
    """Hand over every file of a stored payload, hashed as it is read; nothing else may lie there.

    1. Each file is opened relative to the directory that was opened before it, never through a link.
    2. It is a regular file of the promised size and mode, which only this user or root could write.
    3. The bytes that are handed over are the bytes that are hashed. 4. A directory holds no other entry.
    Raises StoreError (exit 4).
    """
    directories = _Directories(directory, open_directory, _refuse_strays)
    try:
        for entry in files:
            parent, name = directories.parent_of(entry.path)
            fd = os.open(name, _READ, dir_fd=parent)  # 1
            try:
                _check_file(os.fstat(fd), entry)  # 2
                sink.begin(entry)
                _hand_over(fd, entry, sink)  # 3
            finally:
                os.close(fd)
        directories.close()  # 4
    except OSError as err:
        raise damaged(f"a file is missing or cannot be read ({err.strerror})") from err
    finally:
        directories.abandon()


def open_directory(parent: int, name: str) -> int:
    """Open a directory of a stored bundle; raises OSError, and StoreError when others own or can write it."""
    directory = os.open(name, DIRECTORY, dir_fd=parent)
    status = os.fstat(directory)
    if status.st_uid not in (os.geteuid(), 0) or status.st_mode & 0o022:
        os.close(directory)
        raise damaged(f"others can write {excerpt(name)}")
    return directory


def read_small(directory: int, name: str, most_bytes: int) -> bytes:
    """Return a small regular file of a directory; raises StoreError when it is anything else."""
    try:
        fd = os.open(name, _READ, dir_fd=directory)
    except OSError as err:
        raise damaged(f"{name} is missing or cannot be read ({err.strerror})") from err
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or status.st_size > most_bytes:
            raise damaged(f"{name} is not a regular file of at most {most_bytes} bytes")
        return b"".join(iter(lambda: os.read(fd, _BUFFER_BYTES), b""))[: most_bytes + 1]
    except OSError as err:
        raise damaged(f"{name} cannot be read ({err.strerror})") from err
    finally:
        os.close(fd)


def write_small(directory: int, name: str, content: bytes, mode: int) -> None:
    """Create a file of a directory; raises OSError, also when it exists."""
    fd = os.open(name, _CREATE, 0o600, dir_fd=directory)
    try:
        view = memoryview(content)
        while view:
            view = view[os.write(fd, view) :]
        os.fchmod(fd, mode)
    finally:
        os.close(fd)


def remove_tree(parent: int, name: str, depth: int = _REMOVE_DEPTH_MAX) -> None:
    """Remove a file or a directory with everything in it, following no link; raises OSError."""
    if not stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
        os.unlink(name, dir_fd=parent)
        return
    if not depth:
        raise OSError(f"{name} is nested more deeply than anything that is written here")
    directory = os.open(name, DIRECTORY, dir_fd=parent)
    try:
        os.fchmod(directory, 0o700)
        for each in os.listdir(directory):
            remove_tree(directory, each, depth - 1)
    finally:
        os.close(directory)
    os.rmdir(name, dir_fd=parent)


def damaged(what: str) -> StoreError:
    """Make the refusal of a stored bundle that is not as it was installed."""
    return StoreError(f"the installed bundle is not as it was installed: {what}", id="PLG-STO-003")


def cannot_write(what: str, err: OSError) -> StoreUnusable:
    """Make the refusal of a write that the system refused."""
    return StoreUnusable(
        f"{excerpt(what)} cannot be written: {err.strerror}",
        "free space, or change the rights",
        id="PLG-STO-005",
    )


class _Directories:
    """The open directories between a root and the file handled last.

    In byte order all files of a directory follow one another, so each directory is entered once and left
    once, with `leave(descriptor, number of entries seen in it)`.
    """

    def __init__(
        self, root: int, enter: Callable[[int, str], int], leave: Callable[[int, int], None]
    ) -> None:
        self._enter, self._leave = enter, leave
        self._names: list[str] = []
        self._fds = [root]  # the root itself belongs to the caller
        self._counts = [0]

    def parent_of(self, path: str) -> tuple[int, str]:
        """Return the descriptor of the directory of `path` and the last component; raises OSError."""
        *names, last = path.split("/")
        common = sum(
            1
            for _ in itertools.takewhile(
                lambda pair: pair[0] == pair[1], zip(names, self._names, strict=False)
            )
        )
        self._up_to(common)
        for name in names[common:]:
            self._fds.append(self._enter(self._fds[-1], name))
            self._names.append(name)
            self._counts[-1] += 1
            self._counts.append(0)
        self._counts[-1] += 1
        return self._fds[-1], last

    def close(self) -> None:
        """Leave every directory, the root last."""
        self._up_to(0)
        self._leave(self._fds[0], self._counts[0])

    def abandon(self) -> None:
        """Close the descriptors without more ado."""
        while len(self._fds) > 1:
            os.close(self._fds.pop())
        self._names.clear()

    def _up_to(self, depth: int) -> None:
        while len(self._names) > depth:
            self._leave(self._fds[-1], self._counts.pop())
            os.close(self._fds.pop())
            self._names.pop()


def _make_directory(parent: int, name: str) -> int:
    os.mkdir(name, 0o700, dir_fd=parent)
    return os.open(name, DIRECTORY, dir_fd=parent)


def _refuse_strays(directory: int, expected: int) -> None:
    """Every expected entry was opened, so a directory with that many entries holds nothing else."""
    with os.scandir(directory) as entries:
        if sum(1 for _ in itertools.islice(entries, expected + 1)) > expected:
            raise damaged("there are files that its manifest does not list")


def _check_file(status: os.stat_result, entry: FileEntry) -> None:
    if not stat.S_ISREG(status.st_mode) or status.st_size != entry.size:
        raise damaged(f"{excerpt(entry.path)} is not a regular file of {entry.size} bytes")
    if status.st_uid not in (os.geteuid(), 0) or stat.S_IMODE(status.st_mode) != entry.mode & ~0o222:
        raise damaged(f"{excerpt(entry.path)} has another owner or mode than it was given")


def _hand_over(fd: int, entry: FileEntry, sink: Sink) -> None:
    digest, left, buffer = hashlib.sha256(), entry.size, memoryview(bytearray(min(entry.size, _BUFFER_BYTES)))
    while left:
        count = os.readv(fd, [buffer[:left]])
        if not count:
            raise damaged(f"{excerpt(entry.path)} became shorter while it was read")
        digest.update(buffer[:count])
        sink.chunk(buffer[:count])
        left -= count
    if digest.hexdigest() != entry.sha256:
        raise damaged(f"{excerpt(entry.path)} does not have the hash that its manifest promises")
