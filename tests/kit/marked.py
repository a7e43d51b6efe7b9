"""The processes of one run, found from outside by a mark that they cannot shed.

RLIMIT_RSS limits nothing since Linux 2.4.30, is inherited by fork and exec, left alone by boot, closed to a
plugin, and shown to everybody in /proc/PID/limits (getrlimit(2), proc(5)). So a process that nobody
had seen before its supervisor died is found too.
"""

import contextlib
import functools
import os
import re
import resource
import secrets
from collections.abc import Iterator
from pathlib import Path

import psutil

from kit.outside import lives

GENERATIONS = {"supervisor": 0, "boot": 1, "init": 2, "plugin": 3}  # below the command that a test started
_LOWEST, _RANGE = 1 << 32, 1 << 30  # as a limit in bytes, should a kernel ever heed it


@contextlib.contextmanager
def marked() -> Iterator[bytes]:
    """What this process starts meanwhile bears the mark."""
    soft, hard = resource.getrlimit(resource.RLIMIT_RSS)
    mark = _LOWEST + secrets.randbelow(_RANGE)
    resource.setrlimit(resource.RLIMIT_RSS, (mark, hard))
    try:
        yield str(mark).encode()
    finally:
        resource.setrlimit(resource.RLIMIT_RSS, (soft, hard))


def bearers(mark: bytes) -> set[int]:
    """The pids of every living process that bears the mark; a zombie runs nothing and holds nothing."""
    wanted = re.compile(rb"^Max resident set +%s " % mark, re.MULTILINE)
    found = set()
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                limits = Path(f"/proc/{name}/limits").read_bytes()
            except (OSError, ProcessLookupError):
                continue
            if wanted.search(limits) and lives(int(name)):
                found.add(int(name))
    return found - {os.getpid()}


def below(pid: int, generations: int) -> int:
    """The first descendant so many generations below; 0 where there is none yet, or none any more."""
    for _ in range(generations):
        children = _children(pid)
        if not children:
            return 0
        pid = children[0]
    return pid


def _children(pid: int) -> list[int]:
    try:
        if not _tells_children():
            return [child.pid for child in psutil.Process(pid).children()]
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except (OSError, psutil.NoSuchProcess):
        return []


@functools.cache
def _tells_children() -> bool:
    """Whether this kernel has CONFIG_PROC_CHILDREN."""
    return os.path.exists(f"/proc/{os.getpid()}/task/{os.getpid()}/children")
