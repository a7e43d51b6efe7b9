"""Resource use while a run lasts, and which limit it has passed.

Where a cgroup exists its counters are exact. Elsewhere psutil sums over the process tree, which sees
only what lasts for a tick and is declared weaker in the receipt. psutil is imported at the first tick
that needs it, so short runs never pay for it.
"""

import os
import time

from plugsec.sandbox.cgroups import RunCgroup, Usage
from plugsec.sandbox.spec import OWN_PROCESSES
from plugsec_signing.typed import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    import psutil

TICK_S = 0.05
_THREADS_MAX = 4096
_OWN_TASKS = 1  # init, among the children of the waiter


class Reading(NamedTuple):
    """Peaks so far; 0 where nothing was measured yet."""

    memory_bytes: int = 0
    processes: int = 0
    cpu_ms: int = 0


class Monitor:
    """Looks at one jail every TICK_S and says which limit is passed."""

    def __init__(
        self, pid: int, cgroup: RunCgroup | None, *, memory_bytes: int, processes: int, cpu_ms: int
    ) -> None:
        self._pid = pid
        self._cgroup = cgroup
        self._memory_bytes, self._processes, self._cpu_ms = memory_bytes, processes, cpu_ms
        self.peak = Reading()
        self._setup_cpu_ms = (cgroup.usage().cpu_ms or 0) if cgroup is not None else 0
        self._cpu_s: dict[tuple[int, float], float] = {}  # by pid and start: the ended keep their last
        self.next_tick = time.monotonic() + TICK_S

    def tick(self, now: float) -> str | None:
        """Take a reading if one is due; the name of a limit that is passed, or None."""
        if now < self.next_tick:
            return None
        exceeded = self._from_cgroup() if self._cgroup is not None else None
        if self._cgroup is None:
            exceeded = self._from_tree()
        self.next_tick = time.monotonic() + TICK_S
        return exceeded

    def count(self) -> Usage | None:
        """Take the cgroup's figures into the peaks and return them; None without a cgroup.

        Ticks are too far apart for what happens last, so the loop asks before and after the jail's death.
        """
        if self._cgroup is None:
            return None
        usage = self._cgroup.usage()
        cpu_ms = max(0, (usage.cpu_ms or 0) - self._setup_cpu_ms)  # boot's own part came before
        tasks = max(0, (usage.processes_peak or 0) - OWN_PROCESSES)
        self._note(usage.memory_peak_bytes or 0, tasks, cpu_ms)
        return usage

    def _from_cgroup(self) -> str | None:
        usage = self.count()
        assert usage is not None  # noqa: S101 - the caller's condition
        if usage.oom_kills:
            return "memory"
        if usage.forks_refused:
            return "processes"
        return "cpu" if self.peak.cpu_ms > self._cpu_ms else None

    def _from_tree(self) -> str | None:
        import psutil  # noqa: PLC0415 - see the module's docstring

        memory = files = tasks = 0
        waited_for = 0.0
        try:
            tree = psutil.Process(self._pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return None
        for process in tree:
            try:
                own, mapped = _memory(process, psutil)
                memory, files = memory + own, max(files, mapped)
                tasks += process.num_threads()
                times = process.cpu_times()
                self._cpu_s[process.pid, process.create_time()] = times.user + times.system
                waited_for += times.user + times.system + times.children_user + times.children_system
            except (psutil.Error, OSError):
                continue  # it ended in between
        memory += files
        tasks = max(0, tasks - _OWN_TASKS)
        # A lower bound: a child that nobody waits for and that lives between two ticks is not seen.
        cpu = max(waited_for, sum(self._cpu_s.values()))
        self._note(memory, tasks, round(cpu * 1000))
        if memory > self._memory_bytes:
            return "memory"
        if tasks > self._processes:
            return "processes"
        return "cpu" if cpu * 1000 > self._cpu_ms else None

    def _note(self, memory: int, processes: int, cpu_ms: int) -> None:
        peak = self.peak
        self.peak = Reading(
            max(peak.memory_bytes, memory), max(peak.processes, processes), max(peak.cpu_ms, cpu_ms)
        )


def _memory(process: "psutil.Process", module: object) -> tuple[int, int]:
    """Bytes that are the process's own, and bytes of files, which all of a jail map alike.

    The proportional set size is the first, with nothing in the second. Where /proc does not tell it (a
    process that is not dumpable), what was forked and never written counts for each process.
    """
    try:
        size = int(process.memory_full_info().pss)
    except module.AccessDenied:  # type: ignore[attr-defined]
        size = 0
    return (size, 0) if size else _resident(process.pid)


def high_water_bytes(pid: int) -> int:
    """The largest VmHWM among the descendants of `pid` (proc(5)); 0 when none is left."""
    largest = 0
    waiting = [str(pid)]
    for _ in range(_THREADS_MAX):
        if not waiting:
            break
        process = waiting.pop()
        try:
            with open(f"/proc/{process}/task/{process}/children", encoding="utf-8") as file:
                children = file.read().split()
        except OSError:
            continue
        waiting += children
        largest = max([largest, *map(_high_water, children)])
    return largest


def _high_water(pid: str) -> int:
    return _sizes(f"/proc/{pid}/status").get("VmHWM", 0)


def _resident(pid: int) -> tuple[int, int]:
    """Own and file-backed bytes, from a live thread: a leader that has exited shows none (proc(5))."""
    for thread in os.listdir(f"/proc/{pid}/task")[:_THREADS_MAX]:
        sizes = _sizes(f"/proc/{pid}/task/{thread}/status")
        if "RssAnon" in sizes:
            return sizes["RssAnon"] + sizes.get("RssShmem", 0), sizes.get("RssFile", 0)
    return 0, 0


def _sizes(path: str) -> dict[str, int]:
    """The lines of a status file that are in kB, in bytes; empty when the process is gone (proc(5))."""
    sizes = {}
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            for line in file:
                name, _, value = line.partition(":")
                if value.endswith(" kB\n"):
                    sizes[name] = int(value.split()[0]) * 1024
    except OSError:
        return {}
    return sizes
