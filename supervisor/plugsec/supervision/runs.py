"""Which runs are alive, so that the next start can clean up after one that was killed.

Each run holds a flock on a file of its own for as long as it lives; the kernel drops the lock with the
process. A file whose lock can be taken belongs to a dead run: its cgroups are removed and the caller
records it as interrupted.
"""

import errno
import fcntl
import json
import os
from collections.abc import Callable

from plugsec import private
from plugsec.places import StateExposed
from plugsec.sandbox import cgroups
from plugsec_signing.typed import Any, NamedTuple

_DIRECTORY = "runs"
_RECORD_BYTES_MAX = 64 * 1024
_RESERVED_BYTES = 4096  # more than a record needs, taken at once: a disk that fills up later is no matter
_BEGIN_TRIES = 100  # each lost to a start in the same instant
SWEEP_MAX = 1000  # the rest waits for the next start


class RunFile:
    """A live run's file; `close` ends the run in good order."""

    def __init__(self, path: str, fd: int) -> None:
        self._path, self._fd = path, fd
        self._length = _RESERVED_BYTES

    def note(self, record: dict[str, Any]) -> None:
        """Write what a later start needs in order to clean up; not durable, the kernel's crash needs none.

        One write, padded over what stood there: killed at any moment, there is always a whole record.
        """
        data = json.dumps(record).encode().ljust(self._length)
        os.pwrite(self._fd, data, 0)
        self._length = len(data)

    def close(self, *, keep: bool = False) -> None:
        """Remove the file, then drop the lock; with `keep` leave the rest to the next start's sweep."""
        try:
            if not keep:
                os.unlink(self._path)
        except OSError:
            pass  # a read-only state directory: the file is swept later
        os.close(self._fd)


class DeadRun(NamedTuple):
    """A run whose supervisor ended without ending it."""

    run_id: str
    bundle_id: str | None
    plugin: str
    audit: str | None = None  # the directory of its audit log


def begin(state: str, run_id: str) -> RunFile:
    """Register a run; raises OSError when the state directory cannot be written.

    Raises StateExposed when others own or can write the register: what they put there would be recorded.
    """
    directory = os.path.join(state, _DIRECTORY)
    private.make_directories(directory)
    if not private.is_private_directory(directory):
        raise StateExposed(
            f"others own or may write {directory}", f"remove it, or chmod go-w {directory} if it is yours"
        )
    path = os.path.join(directory, run_id)
    for _ in range(_BEGIN_TRIES):
        fd = private.create(path)
        fcntl.flock(fd, fcntl.LOCK_EX)
        if os.fstat(fd).st_nlink:
            file = RunFile(path, fd)
            try:
                os.pwrite(fd, b" " * _RESERVED_BYTES, 0)
            except OSError:
                file.close()
                raise
            return file
        os.close(fd)  # another start swept it before it was locked
    raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), path)


def sweep(state: str, record: Callable[[DeadRun], object] = lambda _: None) -> list[DeadRun]:
    """Clean up after every dead run, have each that had started recorded, and say which they were.

    A dead run's file goes last, under its lock: a start that is killed in the middle leaves the rest to
    the next one. So does a cgroup that is still busy. `record` may be called again for the same run, and
    looks whether that is needed. What it raises ends the sweep.
    """
    directory = os.path.join(state, _DIRECTORY)
    if not private.is_private_directory(directory):
        return []
    try:
        names = os.listdir(directory)[:SWEEP_MAX]
    except OSError:
        return []
    dead: list[DeadRun] = []
    for name in names:
        path = os.path.join(directory, name)
        fd = _claim(path)
        if fd < 0:
            continue
        try:
            found = _read(fd)
            directories = _cgroups(found)
            cgroups.remove_directories(directories)
            if found.get("started"):
                run = DeadRun(
                    name,
                    _text(found.get("bundle_id")),
                    _text(found.get("plugin")) or "",
                    _text(found.get("audit")),
                )
                record(run)
                dead.append(run)
            if not any(map(os.path.exists, directories)):
                os.unlink(path)
        except OSError:
            continue  # a read-only state directory: it is found again
        finally:
            os.close(fd)
    return dead


def _cgroups(found: dict[str, Any]) -> tuple[str, ...]:
    """Those of the noted directories that can only be a run's own."""
    noted = found.get("cgroups")
    texts = [each for each in noted if isinstance(each, str)] if isinstance(noted, list) else []
    return tuple(
        path
        for path in texts
        if os.path.normpath(path) == path and os.path.basename(path).startswith("plugsec-")
    )


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _claim(path: str) -> int:
    """The locked descriptor of a dead run's file; -1 for a live one, or one that somebody else swept."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return -1
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        status = os.fstat(fd)
        ours = status.st_uid == os.geteuid() and not status.st_mode & 0o022  # or it is a stranger's tale
        # The name may stand for another, live file by now; from here on nobody else may remove it.
        if ours and os.path.samestat(status, os.lstat(path)):
            return fd
    except OSError:
        pass
    os.close(fd)
    return -1


def _read(fd: int) -> dict[str, Any]:
    """The record, whatever was left there."""
    try:
        found = json.loads(os.pread(fd, _RECORD_BYTES_MAX, 0) or b"{}")
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
