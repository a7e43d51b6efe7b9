"""Which runs are alive, so that the next start can clean up after one that was killed.

Each run holds a flock on a file of its own for as long as it lives; the kernel drops the lock with the
process. A file whose lock can be taken belongs to a dead run: its cgroups are removed and the caller
records it as interrupted.
"""

import errno
import fcntl
import json
import os
from typing import Any, NamedTuple

from plugsec import private
from plugsec.sandbox import cgroups

_DIRECTORY = "runs"
_RECORD_BYTES_MAX = 64 * 1024
_BEGIN_TRIES = 100  # each lost to a start in the same instant
SWEEP_MAX = 1000  # the rest waits for the next start


class RunFile:
    """A live run's file; `close` ends the run in good order."""

    def __init__(self, path: str, fd: int) -> None:
        self._path, self._fd = path, fd

    def note(self, record: dict[str, Any]) -> None:
        """Write what a later start needs in order to clean up; not durable, the kernel's crash needs none."""
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, json.dumps(record).encode(), 0)

    def close(self) -> None:
        """Remove the file, then drop the lock."""
        try:
            os.unlink(self._path)
        except OSError:
            pass  # a read-only state directory: the empty file is swept later
        os.close(self._fd)


class DeadRun(NamedTuple):
    """A run whose supervisor ended without ending it."""

    run_id: str
    bundle_id: str | None
    plugin: str


def begin(state: str, run_id: str) -> RunFile:
    """Register a run; raises OSError when the state directory cannot be written."""
    directory = os.path.join(state, _DIRECTORY)
    private.make_directories(directory)
    path = os.path.join(directory, run_id)
    for _ in range(_BEGIN_TRIES):
        fd = private.create(path)
        fcntl.flock(fd, fcntl.LOCK_EX)
        if os.fstat(fd).st_nlink:
            return RunFile(path, fd)
        os.close(fd)  # another start swept it before it was locked
    raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), path)


def sweep(state: str) -> list[DeadRun]:
    """Clean up after every dead run and say which they were."""
    directory = os.path.join(state, _DIRECTORY)
    try:
        names = os.listdir(directory)[:SWEEP_MAX]
    except OSError:
        return []
    dead = []
    for name in names:
        found = _claim(os.path.join(directory, name))
        if found is None:
            continue
        cgroups.remove_directories(_cgroups(found))
        if found.get("started"):
            dead.append(DeadRun(name, _text(found.get("bundle_id")), _text(found.get("plugin")) or ""))
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


def _claim(path: str) -> dict[str, Any] | None:
    """The record of a dead run, whose file is removed under its lock; None for a live one."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        data = os.pread(fd, _RECORD_BYTES_MAX, 0)
        os.unlink(path)
        found = json.loads(data) if data else {}
        return found if isinstance(found, dict) else {}
    except (ValueError, RecursionError):
        return {}
    except OSError:
        return None
    finally:
        os.close(fd)
