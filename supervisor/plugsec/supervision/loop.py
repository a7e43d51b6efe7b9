"""One thread, one poll: everything that can happen to a run, without ever blocking on the plugin.

    waiting for: the end of the run (control socket) · refused calls (listener) · output (stdout, stderr,
    call channel) · room to write the input · the operator's interruption · the next tick or deadline

The loop ends on the plugin's end, on a limit, on an answer followed by a short grace, or on
interruption; then the whole jail is killed and reaped, and what was already written is drained.
"""

import os
import select
import time

from plugsec.sandbox import control
from plugsec.sandbox.cgroups import Usage
from plugsec.sandbox.launch import Boot
from plugsec.supervision.denials import Denial, DenialCounter
from plugsec.supervision.dialects import Answer, Dialect, Oneshot, Rpc
from plugsec.supervision.interruption import Interruption
from plugsec.supervision.listener import Listener
from plugsec.supervision.monitor import Monitor, high_water_bytes
from plugsec.supervision.streams import OutputBudget, Reader, Writer
from plugsec_signing.typed import NamedTuple

# After its answer a plugin may flush and leave by itself; then it is ended.
ANSWER_GRACE_S = 0.1
_DRAIN_TURNS_MAX = 100_000  # every turn reads at least a byte of a budget that is smaller than this


class Watch(NamedTuple):
    """What the loop enforces: milliseconds, bytes and counts."""

    wall_ms: int
    output_bytes: int
    denials: int


class Facts(NamedTuple):
    """Everything that was seen of a run, for `attribution` to judge."""

    answer: Answer | None
    status: int | None  # pid 2's wait status; None when it did not end by itself
    limit: str | None  # the limit that the loop enforced
    interrupted: bool
    launch_error: str  # boot could not start the program after the go-ahead
    stdout: bytes
    stderr: bytes
    notes: tuple[str, ...]
    denials: tuple[Denial, ...]
    denials_total: int
    output_bytes: int
    wall_ms: int
    cpu_ms: int
    memory_peak_bytes: int
    processes_peak: int
    cgroup: Usage | None
    tmp_full: str  # the limit that a tmpfs of the jail had reached: "tmp_bytes", "files" or ""


class Supervision:
    """The loop over one entered jail. Use once: `run()` starts the plugin and returns the facts."""

    def __init__(
        self,
        jail: Boot,
        *,
        dialect: str,
        request: bytes,
        watch: Watch,
        monitor: Monitor,
        call_names: dict[int, str],
        interruption: Interruption,
    ) -> None:
        self._jail, self._watch, self._monitor = jail, watch, monitor
        self._interruption = interruption
        self._budget = OutputBudget(watch.output_bytes)
        self._stdout = Reader(jail.stdout, self._budget)
        self._stderr = Reader(jail.stderr, self._budget)
        self._rpc = Reader(jail.rpc, self._budget)
        self._readers = [self._stdout, self._stderr]
        self._dialect: Dialect
        if dialect == "rpc":
            self._dialect, self._writer = Rpc(self._rpc), Writer(jail.rpc, request)
            self._readers.append(self._rpc)
            jail.close("stdin")
        else:
            self._dialect, self._writer = Oneshot(self._stdout), Writer(jail.stdin, request)
            jail.close("rpc")
        self._is_oneshot = dialect != "rpc"
        self._denials = DenialCounter()
        self._listener: Listener | None = None
        if jail.listener >= 0:
            self._listener = Listener(jail.listener, call_names, start_once=self._is_oneshot)
        self._status: int | None = None
        self._peak_bytes = 0
        self._ended = False
        self._launch_error = ""
        self._limit: str | None = None

    def run(self) -> Facts:
        """Give the go-ahead, watch to the end, take everything down, and report what was seen."""
        started = time.monotonic()
        deadline = started + self._watch.wall_ms / 1000
        grace: float | None = None
        try:
            self._jail.go()
        except OSError as error:
            self._ended, self._launch_error = True, f"boot: go: {error}"
        while not self._ended and self._limit is None and not self._interruption.requested:
            now = time.monotonic()
            if now >= deadline:
                self._limit = "wall"
                break
            if self._dialect.over:
                grace = grace or now + ANSWER_GRACE_S
                if now >= grace:
                    break
            self._wait(min(deadline, self._monitor.next_tick, grace or deadline) - now)
            self._limit = self._limit or self._monitor.tick(time.monotonic())
        return self._finish(started)

    def _wait(self, seconds: float) -> None:
        """One turn: wait for anything, then serve whatever is ready, the listener first."""
        ready = self._poll(seconds)
        if self._listener is not None and self._listener.fd in ready:
            if ready[self._listener.fd] & select.POLLIN:
                self._listener.serve(self._denials)
            else:
                self._listener = None  # its filter is gone: it would poll POLLHUP for ever
        if not self._writer.done and self._writer.fd in ready:
            self._writer.pump()
            if self._writer.done and self._is_oneshot:
                self._jail.close("stdin")
        for reader in self._readers:
            if reader.fd in ready:
                reader.pump()
        self._dialect.advance(self._denials)
        if self._jail.sock.fileno() in ready:
            self._control()
        if self._budget.exceeded:
            self._limit = "output"
        elif self._denials.total > self._watch.denials:
            self._limit = "denials"

    def _poll(self, seconds: float) -> dict[int, int]:
        poll = select.poll()
        poll.register(self._jail.sock.fileno(), select.POLLIN)
        poll.register(self._interruption.fd, select.POLLIN)
        if self._listener is not None:
            poll.register(self._listener.fd, select.POLLIN)
        for reader in self._readers:
            if not reader.ended:
                poll.register(reader.fd, select.POLLIN)
        if not self._writer.done:
            mask = select.POLLOUT
            if self._writer.fd == self._rpc.fd and not self._rpc.ended:
                mask |= select.POLLIN
            poll.register(self._writer.fd, mask)
        timeout = 0 if self._dialect.pending else max(0, seconds) * 1000
        return dict(poll.poll(timeout))

    def _control(self) -> None:
        try:
            message, descriptors = control.receive(self._jail.sock)
        except (control.PeerGone, OSError):
            self._ended = True
            return
        for fd in descriptors:
            os.close(fd)
        if message["at"] == "exited":
            self._status = int(message["status"])
            self._peak_bytes = int(message["peak_bytes"])
            self._ended = True
        elif message["at"] == "failed":
            self._launch_error = f"{message['layer']}: {message['step']}: {message['detail']}"

    def _finish(self, started: float) -> Facts:
        self._monitor.count()  # what lives now; a kernel that keeps no peaks forgets it
        # Not boot's own figure: it starts at its parent's, so it would tell how large the supervisor is.
        self._peak_bytes = self._peak_bytes or high_water_bytes(self._jail.pid)
        full = _exhausted(self._jail.tmp) or _exhausted(self._jail.output)
        used = self._jail.end()
        wall_ms = round((time.monotonic() - started) * 1000)  # until nothing of the plugin ran any more
        cgroup = self._monitor.count()
        self._drain()
        self._dialect.finish(self._status)
        if self._budget.exceeded and self._limit is None:
            self._limit = "output"
        peak = self._monitor.peak
        cpu_ms = peak.cpu_ms
        memory = peak.memory_bytes
        if cgroup is None or not memory:
            memory = max(memory, self._peak_bytes)
        if used is not None and (cgroup is None or cgroup.cpu_ms is None):
            whole = round((used.ru_utime + used.ru_stime) * 1000)
            cpu_ms = max(cpu_ms, whole - int(self._jail.entered["setup_cpu_ms"]))
        return Facts(
            answer=self._dialect.answer,
            status=self._status,
            limit=self._limit,
            interrupted=self._interruption.requested,
            launch_error=self._launch_error,
            stdout=b"" if self._is_oneshot else bytes(self._stdout.data),
            stderr=bytes(self._stderr.data),
            notes=tuple(self._dialect.notes),
            denials=self._denials.collected(),
            denials_total=self._denials.total,
            output_bytes=self._budget.used,
            wall_ms=wall_ms,
            cpu_ms=cpu_ms,
            memory_peak_bytes=memory,
            processes_peak=max(peak.processes, 1),
            cgroup=cgroup,
            tmp_full=full,
        )

    def _drain(self) -> None:
        """Read what the dead jail had written; nobody can write any more, so this ends."""
        for reader in self._readers:
            for _ in range(_DRAIN_TURNS_MAX):
                before = len(reader.data)
                reader.pump()
                if reader.ended or len(reader.data) == before:
                    break
        for _ in range(_DRAIN_TURNS_MAX):
            self._dialect.advance(self._denials)
            if not self._dialect.pending:
                break


def _exhausted(fd: int) -> str:
    """Which limit a sized tmpfs has reached: no block left, or no inode (statvfs(3))."""
    if fd < 0:
        return ""
    figures = os.fstatvfs(fd)
    if figures.f_bavail == 0:
        return "tmp_bytes"
    return "files" if figures.f_favail == 0 else ""
