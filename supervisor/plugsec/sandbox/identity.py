"""Who the jail is outside: the caller's own user, or for root a user id that nothing else has.

With host uid 0 RLIMIT_NPROC limits nothing and root's files are readable, so root's run maps to an id
of its own, locked for the length of the run so that two jails never share one.
"""

import fcntl
import os

from plugsec_signing.typed import NamedTuple

# Free by systemd's table of uids (systemd.io/UIDS-GIDS): above containers, below 2^31.
RANGE_START, RANGE_SIZE = 0x70000000, 4096
_LOCK_DIRECTORY = "/run/plugsec/uids"


class IdentityUnavailable(Exception):
    """No free id in the range, or the range is not usable here."""


class Identity(NamedTuple):
    """The host ids that the jail's user maps to; `lock_fd` (or -1) holds them until closed."""

    uid: int
    gid: int
    lock_fd: int
    is_root: bool


def choose() -> Identity:
    """Pick the ids for one run; raises IdentityUnavailable."""
    if os.geteuid() != 0:
        return Identity(os.geteuid(), os.getegid(), -1, is_root=False)
    start = _usable_start()
    try:
        os.makedirs(_LOCK_DIRECTORY, 0o700, exist_ok=True)
        for offset in range(RANGE_SIZE):
            fd = os.open(
                os.path.join(_LOCK_DIRECTORY, str(start + offset)),
                os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW,
                0o600,
            )
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(fd)
                continue
            except OSError:
                os.close(fd)
                raise
            return Identity(start + offset, start + offset, fd, is_root=True)
    except OSError as error:
        raise IdentityUnavailable(f"{_LOCK_DIRECTORY}: {error.strerror}") from error
    raise IdentityUnavailable(f"all {RANGE_SIZE} user ids from {start} are in use")


def _usable_start() -> int:
    """The range's start: the default, or the top of what a container's uid_map lets us have."""
    try:
        with open("/proc/self/uid_map", encoding="utf-8") as file:
            extents = [tuple(map(int, line.split())) for line in file]
    except OSError as error:
        raise IdentityUnavailable(f"/proc/self/uid_map: {error.strerror}") from error
    taken = _subordinate_ranges()
    for inside, _, count in sorted(extents, reverse=True):
        start = RANGE_START if inside <= RANGE_START < inside + count - RANGE_SIZE else 0
        start = start or inside + count - RANGE_SIZE
        free = all(start + RANGE_SIZE <= low or start >= low + size for low, size in taken)
        if count >= RANGE_SIZE * 2 and start > 0 and free:
            return start
    raise IdentityUnavailable("no range of user ids is free of /etc/subuid and inside /proc/self/uid_map")


def _subordinate_ranges() -> list[tuple[int, int]]:
    ranges = []
    for path in ("/etc/subuid", "/etc/subgid"):
        try:
            with open(path, encoding="utf-8", errors="replace") as file:
                for line in file:
                    fields = line.strip().split(":")
                    if len(fields) == 3 and fields[1].isdigit() and fields[2].isdigit():
                        ranges.append((int(fields[1]), int(fields[2])))
        except FileNotFoundError:
            continue
        except OSError as error:  # there may be ranges that we would step into
            raise IdentityUnavailable(f"{path}: {error.strerror}") from error
    return ranges
