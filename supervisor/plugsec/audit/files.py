"""The log's directory: its files by name, opened so that nobody can lead us elsewhere.

    lock                     the writers' lock, and the watermark of what is known to be on the disk
    head                     two slots of 4096 bytes (head.py)
    segment-000001.jsonl     the records, one canonical line each
    checkpoints.jsonl        signed checkpoints, one JSON line each (checkpoints.py)
    keys/epoch-000001.key    the epoch's secret, 32 raw bytes    keys/epoch-000001.pub   its public key
    torn/                    what crashed writers left behind, kept for ever
    reserve                  blocks set aside so that a full disk can still be recorded

Every file is a regular file with one link, of our own uid, closed to everybody else; anything else is
refused rather than repaired, because whoever made it so may still be there.
"""

import errno
import fcntl
import os
import stat
import time

from plugsec import private
from plugsec.audit.errors import Fault, LogBusy, LogMissing, LogTampered, LogUnsafe, LogUnwritable

LOCK, HEAD, CHECKPOINTS, RESERVE = "lock", "head", "checkpoints.jsonl", "reserve"
KEYS, TORN = "keys", "torn"

LOCK_WAIT_S = 30.0
"""A writer holds the lock for milliseconds, seconds on a dying disk; then a person must look."""
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.0002, 0.01

MAX_SEGMENTS = 999_999  # six digits keep names in order for `ls` and `cat`


def segment_name(number: int) -> str:
    """The file name of segment `number`, counted from 1."""
    return f"segment-{number:06d}.jsonl"


def segment_number(name: str) -> int:
    """The number of a segment's file name; 0 for any other name."""
    digits = name.removeprefix("segment-").removesuffix(".jsonl")
    number = int(digits) if digits.isascii() and digits.isdigit() and len(digits) == 6 else 0
    return number if name == segment_name(number) else 0


def open_directory(path: str, *, create: bool = False) -> int:
    """Open the log's directory and return a descriptor; with `create`, make it (0700) where missing.

    Raises LogMissing, LogUnsafe (a symbolic link, not ours, or open to others) or LogUnwritable.
    """
    if create:
        _make(path)
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError as err:
        raise missing(path) from err
    except NotADirectoryError as err:  # also what O_NOFOLLOW with O_DIRECTORY says of a symbolic link
        raise LogUnsafe(
            f"the audit directory {path} is a symbolic link or not a directory",
            "name the real directory with --audit",
        ) from err
    except OSError as err:
        raise LogUnwritable(f"cannot open the audit directory {path}: {err.strerror}") from err
    try:
        _check_owner(os.fstat(fd), path, writing=create)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _make(path: str) -> None:
    try:
        if not os.path.lexists(path):
            private.make_directories(path)
    except OSError as err:
        raise LogUnwritable(
            f"cannot create the audit directory {path}: {err.strerror}", "choose another one with --audit"
        ) from err


def _check_owner(status: os.stat_result, path: str, *, writing: bool) -> None:
    """Ours and closed to others. Root may read anybody's log, but a record in it would be a stranger's."""
    uid = os.geteuid()
    if status.st_uid != uid and (writing or uid != 0):
        raise LogUnsafe(
            f"{path} belongs to uid {status.st_uid}, not to uid {uid}",
            "every user has a log of their own; name yours with --audit",
        )
    if stat.S_IMODE(status.st_mode) & 0o077:
        raise LogUnsafe(
            f"{path} is open to other users (mode {stat.S_IMODE(status.st_mode):04o})",
            f"chmod go= {path}, and ask who could have written there",
        )


def open_file(dirfd: int, name: str, flags: int, mode: int = 0o600) -> int:
    """Open one of the log's files; a missing file is the caller's FileNotFoundError.

    O_NONBLOCK keeps a FIFO put in its place from blocking us. Raises LogUnsafe.
    """
    try:
        fd = os.open(name, flags | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, mode, dir_fd=dirfd)
    except OSError as err:
        # ELOOP: a symbolic link. ENXIO: a socket, or a FIFO nobody reads. EISDIR: a directory.
        if err.errno in (errno.ELOOP, errno.ENXIO, errno.EISDIR):
            raise LogUnsafe(f"the audit file {name} is not a regular file") from err
        raise
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise LogUnsafe(f"the audit file {name} is not a regular file")
        if flags & os.O_CREAT and not status.st_mode & 0o777:
            os.fchmod(fd, mode)  # just made under a umask that took everything away
        if status.st_nlink != 1:
            raise LogUnsafe(f"the audit file {name} has {status.st_nlink} names, so others may write it")
        _check_owner(status, name, writing=flags & os.O_ACCMODE != os.O_RDONLY)
    except BaseException:
        os.close(fd)
        raise
    return fd


def lock(fd: int, *, shared: bool = False) -> None:
    """Take the lock on an open lock file, waiting LOCK_WAIT_S at most. Raises LogBusy.

    flock(2) belongs to the open file description: it ends with `unlock`, or with the last process that
    holds the descriptor. Polling, because a blocking flock cannot be given a deadline without signals.
    """
    how = (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB
    pause, deadline = _FIRST_PAUSE_S, time.monotonic() + LOCK_WAIT_S
    while True:
        try:
            return fcntl.flock(fd, how)
        except BlockingIOError as err:
            if time.monotonic() > deadline:
                raise LogBusy(
                    f"the audit log's lock was not released within {LOCK_WAIT_S:.0f} s",
                    "see who holds it: fuser -v LOG/lock",
                ) from err
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE_S)


def unlock(fd: int) -> None:
    """Release the lock for every holder of this open file description (a forked child included)."""
    fcntl.flock(fd, fcntl.LOCK_UN)


def read_all(fd: int, limit: int) -> bytes:
    """Read a small file from its beginning, at most `limit` bytes."""
    parts: list[bytes] = []
    offset = 0
    while offset < limit:
        part = os.pread(fd, limit - offset, offset)
        if not part:
            break
        parts.append(part)
        offset += len(part)
    return b"".join(parts)


def write_new(dirfd: int, name: str, content: bytes) -> None:
    """Write a file that must not exist yet, durably (the caller syncs the directory)."""
    fd = open_file(dirfd, name, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    try:
        written = 0
        while written < len(content):
            written += os.write(fd, content[written:])
        os.fsync(fd)
    finally:
        os.close(fd)


def write_whole(fd: int, data: bytes, offset: int) -> None:
    """Append `data`, all of it or nothing; `offset` is the file's length before.

    One write() on O_APPEND. The system cuts it short only when space runs out, and then the beginning is
    taken back: it is ours, nobody has been told of it, and the lock is held.
    """
    try:
        written = os.write(fd, data)
    except OSError:
        os.ftruncate(fd, offset)
        raise
    if written != len(data):
        os.ftruncate(fd, offset)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def sync_directory(dirfd: int, name: str) -> None:
    """Make the names in a directory durable (renaming and creating are not, by themselves)."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW
    fd = os.open(name, flags, dir_fd=dirfd)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def boot_id() -> str:
    """What tells one start of the machine from the next: page-cache contents do not survive it."""
    try:
        fd = os.open("/proc/sys/kernel/random/boot_id", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return "unknown"
    try:
        return os.read(fd, 64).decode("ascii", "replace").strip()
    finally:
        os.close(fd)


def headless(directory: str) -> LogTampered:
    """The refusal of a log without its head: writers make the head last, so somebody removed it."""
    return LogTampered(Fault("head", HEAD, None, None, None, "the head is missing"), directory)


def missing(directory: str) -> LogMissing:
    """There is nothing to read."""
    return LogMissing(f"there is no audit log in {directory}", "the first `plugsec run` starts one")
