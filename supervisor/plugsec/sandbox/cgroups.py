"""Control groups: hard limits and exact figures for one jail, where the host lets us make one.

Version 2 (Documentation/admin-guide/cgroup-v2.rst) in a delegated subtree: `$PLUGSEC_CGROUP`, or for
root a subtree of our own at the top. Version 1 memory and pids for root. Where neither can be had,
`create` says why and the run goes on with rlimits and the monitor, if its policy allows that.
"""

import errno
import os
import time
from collections.abc import Callable

from plugsec_signing.typed import NamedTuple

_ROOT_V2 = "/sys/fs/cgroup"
_V1_CONTROLLERS = ("memory", "pids")
_V1_OPTIONAL = ("cpuacct",)  # CPU time of children that nobody waits for
_REMOVE_TRIES, _REMOVE_WAIT_S = 50, 0.01  # a dying cgroup stays busy for some milliseconds
_READ_BYTES = 4096


Announce = Callable[[tuple[str, ...]], object]


class CgroupUnavailable(Exception):
    """This host gives us no cgroup; the message says why and what would help."""


class Usage(NamedTuple):
    """What the kernel counted. None: this host does not say.

    Kernels that keep no peak (of memory before 5.19, of processes before 6.11) give the figure of the
    moment instead; whoever looks repeatedly makes a peak of it.
    """

    memory_peak_bytes: int | None
    processes_peak: int | None
    cpu_ms: int | None
    oom_kills: int
    forks_refused: int


class RunCgroup:
    """One run's cgroup: created empty, joined by boot, limited, read, killed, removed.

    `directories` has one entry (version 2) or one for each controller (version 1).
    """

    def __init__(self, version: int, directories: tuple[str, ...]) -> None:
        self.version = version
        self.directories = directories

    def open_procs(self) -> list[int]:
        """Descriptors of the files where writing "0" moves the writer in, which must be single-threaded.

        Of version 1 these are `tasks`: moving one thread, the writer itself, spares the kernel the grace
        period of some 12 ms that moving a process takes (cgroup_procs_write_start, kernel/cgroup/cgroup.c).
        Version 2 moves single threads within threaded cgroups only.
        """
        name = "cgroup.procs" if self.version == 2 else "tasks"
        opened: list[int] = []
        try:
            for directory in self.directories:
                opened.append(os.open(os.path.join(directory, name), os.O_WRONLY | os.O_CLOEXEC))
        except OSError:
            for fd in opened:
                os.close(fd)
            raise
        return opened

    def limit(self, *, memory_bytes: int, processes: int) -> None:
        """Set the hard limits; raises OSError. Only a kernel that lacks a file is done without it."""
        if self.version == 2:
            self._write("memory.max", memory_bytes)
            self._write("memory.swap.max", 0, may_lack=True)
            self._write("memory.oom.group", 1, may_lack=True)
            self._write("pids.max", processes)
        else:
            self._write("memory.limit_in_bytes", memory_bytes)
            self._write("memory.memsw.limit_in_bytes", memory_bytes, may_lack=True)
            self._write("pids.max", processes, directory=1)

    def usage(self) -> Usage:
        """The figures so far."""
        if self.version == 2:
            events = self._pairs("memory.events")
            return Usage(
                self._first(("memory.peak", "memory.current")),
                self._first(("pids.peak", "pids.current")),
                _thousandth(self._pairs("cpu.stat").get("usage_usec")),
                events.get("oom_kill", 0),
                self._pairs("pids.events").get("max", 0),
            )
        oom = self._pairs("memory.oom_control")
        return Usage(
            self._number("memory.max_usage_in_bytes"),
            self._first(("pids.peak", "pids.current"), 1),
            _thousandth(_thousandth(self._number("cpuacct.usage", 2))),
            oom.get("oom_kill", 0),
            self._pairs("pids.events", directory=1).get("max", 0),
        )

    def kill(self) -> None:
        """SIGKILL to every member at once where the kernel can (5.14)."""
        if self.version == 2:
            self._write("cgroup.kill", 1, may_lack=True)

    def remove(self) -> None:
        """Remove the directories; what stays busy is found again by the next start's sweep."""
        remove_directories(self.directories)

    def _write(self, name: str, value: int, *, directory: int = 0, may_lack: bool = False) -> None:
        path = os.path.join(self.directories[directory], name)
        try:
            fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            if may_lack:
                return
            raise
        try:
            os.write(fd, str(value).encode())
        except OSError as error:
            error.filename = path
            raise
        finally:
            os.close(fd)

    def _read(self, name: str, directory: int = 0) -> str:
        try:
            fd = os.open(os.path.join(self.directories[directory], name), os.O_RDONLY | os.O_CLOEXEC)
            try:
                return os.read(fd, _READ_BYTES).decode("ascii", "replace")
            finally:
                os.close(fd)
        except OSError:
            return ""

    def _number(self, name: str, directory: int = 0) -> int | None:
        if directory >= len(self.directories):
            return None
        text = self._read(name, directory).strip()
        return int(text) if text.isdigit() else None

    def _first(self, names: tuple[str, ...], directory: int = 0) -> int | None:
        """The first of these numbers that this kernel has."""
        found = (self._number(name, directory) for name in names)
        return next((number for number in found if number is not None), None)

    def _pairs(self, name: str, directory: int = 0) -> dict[str, int]:
        pairs = {}
        for line in self._read(name, directory).splitlines():
            key, _, value = line.partition(" ")
            if value.isdigit():
                pairs[key] = int(value)
        return pairs


def create(run_id: str, announce: Announce = lambda _: None) -> RunCgroup:
    """Make this run's cgroup, telling its directories beforehand; raises CgroupUnavailable."""
    name = f"plugsec-{run_id}"
    if os.path.exists(os.path.join(_ROOT_V2, "cgroup.controllers")) or "PLUGSEC_CGROUP" in os.environ:
        return _create_v2(name, announce)
    return _create_v1(name, announce)


def remove_directories(directories: tuple[str, ...]) -> None:
    """Remove cgroup directories of a run that is over, with bounded patience."""
    for directory in directories:
        for _ in range(_REMOVE_TRIES):
            try:
                os.rmdir(directory)
            except FileNotFoundError:
                break
            except OSError as error:
                if error.errno != errno.EBUSY:
                    break
                time.sleep(_REMOVE_WAIT_S)
            else:
                break


def _create_v2(name: str, announce: Announce) -> RunCgroup:
    base = os.environ.get("PLUGSEC_CGROUP", "")
    if not base:
        if os.geteuid() != 0:
            raise CgroupUnavailable(
                "no delegated cgroup: start under `systemd-run --user --scope -p Delegate=yes`"
                " and set PLUGSEC_CGROUP to a subtree that you own"
            )
        base = os.path.join(_ROOT_V2, "plugsec")
    try:
        if os.path.dirname(base) == _ROOT_V2:
            os.makedirs(base, 0o755, exist_ok=True)
        with open(os.path.join(base, "cgroup.controllers"), encoding="utf-8") as file:
            available = file.read().split()
        missing = {"memory", "pids"} - set(available)
        if missing:
            raise CgroupUnavailable(f"{base} has no {' and '.join(sorted(missing))} controller")
        _enable(base, available)
        directory = os.path.join(base, name)
        announce((directory,))
        os.mkdir(directory, 0o755)
    except OSError as error:
        busy = "; move the processes in it to a child first (docs/user-guide.md)"
        more = busy if error.errno == errno.EBUSY else ""
        raise CgroupUnavailable(f"{base}: {error.strerror}{more}") from error
    return RunCgroup(2, (directory,))


def _enable(base: str, available: list[str]) -> None:
    path = os.path.join(base, "cgroup.subtree_control")
    with open(path, encoding="utf-8") as file:
        enabled = file.read().split()
    wanted = [name for name in ("memory", "pids", "cpu") if name in available and name not in enabled]
    if wanted:
        with open(path, "w", encoding="utf-8") as file:
            file.write(" ".join(f"+{name}" for name in wanted))


def _create_v1(name: str, announce: Announce) -> RunCgroup:
    if os.geteuid() != 0:
        raise CgroupUnavailable("cgroup version 1 and not root: limits are kept by rlimits and the monitor")
    try:
        mounts, members = _v1_mounts(), _v1_members()
    except OSError as error:
        raise CgroupUnavailable(f"the cgroups of this process: {error.strerror}") from error
    planned: list[str] = []
    for controller in (*_V1_CONTROLLERS, *_V1_OPTIONAL):
        if controller in mounts and controller in members:
            planned.append(f"{mounts[controller]}{members[controller].rstrip('/')}/{name}")
        elif controller in _V1_CONTROLLERS:
            raise CgroupUnavailable(f"no {controller} controller is mounted")
    directories = tuple(planned)
    announce(directories)
    try:
        for directory in directories:
            os.mkdir(directory, 0o755)
    except OSError as error:
        remove_directories(directories)
        raise CgroupUnavailable(f"{error.filename}: {error.strerror}") from error
    return RunCgroup(1, directories)


def _v1_mounts() -> dict[str, str]:
    """Controller to mount point, from /proc/self/mountinfo (proc(5))."""
    mounts: dict[str, str] = {}
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            before, _, after = line.partition(" - ")
            fields, tail = before.split(), after.split()
            if len(fields) > 4 and len(tail) > 2 and tail[0] == "cgroup":
                for option in tail[2].split(","):
                    mounts.setdefault(option, fields[4])
    return mounts


def _v1_members() -> dict[str, str]:
    """Controller to this process's path, from /proc/self/cgroup (cgroups(7))."""
    members: dict[str, str] = {}
    with open("/proc/self/cgroup", encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            _, controllers, path = line.rstrip("\n").split(":", 2)
            for controller in controllers.split(","):
                members[controller] = path
    return members


def _thousandth(number: int | None) -> int | None:
    return None if number is None else number // 1000
