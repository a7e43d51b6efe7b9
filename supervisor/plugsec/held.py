"""What a run holds while it lasts, taken in order and given back whatever happens.

Boot, a registered run file, a cgroup, an identity and the audit log: processes end first, then
descriptors, cgroups and files go. A run that a crash left behind is cleaned up by the next one's start.
"""

import os
from collections.abc import Callable, Iterable

from plugsec import places
from plugsec.errors import HostUnsupported, Refusal
from plugsec.sandbox import cgroups, identity, launch, layers
from plugsec.sandbox.spec import SandboxSpec
from plugsec.supervision import runs
from plugsec_signing.typed import NoReturn

TYPE_CHECKING = False
if TYPE_CHECKING:
    from plugsec.audit.log import AuditLog, Evidence


class Held:
    """The resources of one run. `take` first, `release` last; in between they are simply there."""

    def __init__(self, where: places.Places, run_id: str, boot: launch.Boot | None) -> None:
        self._where, self._run_id = where, run_id
        self._boot = boot
        self._log: AuditLog | None = None  # opened by `open_log`
        self._file: runs.RunFile | None = None
        self._identity: identity.Identity | None = None
        self._cgroup_missing = ""
        self._directories: tuple[str, ...] = ()
        self._start_noted = False
        self._swept: Evidence | None = None  # the newest run.end that the sweep recorded for another run
        self.cgroup: cgroups.RunCgroup | None = None

    @property
    def boot(self) -> launch.Boot:
        """The waiting or entered jail."""
        if self._boot is None:
            raise RuntimeError("boot was not started")
        return self._boot

    def take(self) -> None:
        """Start boot, register, and let boot join its cgroup. Raises StateUnusable or HostUnsupported."""
        places.prepare_state(self._where.state)
        self._boot = self._boot or launch.spawn()
        try:
            self._file = runs.begin(self._where.state, self._run_id)
        except OSError as error:
            self._unregistered(error)
        try:
            self.cgroup = cgroups.create(self._run_id, announce=self._announce)
            self._boot.join(self.cgroup.open_procs())
        except cgroups.CgroupUnavailable as error:
            self._cgroup_missing = str(error)
        except launch.EnterFailed as error:
            raise _entering_failed(error) from error
        except OSError as error:
            layers.require("cgroup", str(error), ())

    def open_log(self) -> "AuditLog":
        """Open the log, once, and sweep after the dead; nothing starts without it. Raises AuditError."""
        if self._log is None:
            from plugsec.audit.log import AuditLog  # noqa: PLC0415 - while boot is busy entering

            self._log = AuditLog.open(self._where.audit)
            self._sweep(self._log)
        return self._log

    def limit(self, *, memory_bytes: int, processes: int, tolerated: Iterable[str]) -> None:
        """Set the cgroup's limits, or accept that there is none; raises HostUnsupported."""
        if self.cgroup is None:
            layers.require("cgroup", self._cgroup_missing, tolerated)
            return
        try:
            self.cgroup.limit(memory_bytes=memory_bytes, processes=processes)
        except OSError as error:
            # Joined but not limited would be a weaker jail than was said, so it is never tolerated.
            layers.require("cgroup", str(error), ())

    def begin(self, spec: SandboxSpec, payload_fd: int, inputs: tuple[int, ...]) -> None:
        """Send boot off into its layers; raises HostUnsupported."""
        try:
            self._identity = identity.choose()
            self.boot.begin(spec, payload_fd, inputs)
        except identity.IdentityUnavailable as error:
            layers.require("user-namespace", str(error), ())
        except launch.EnterFailed as error:
            raise _entering_failed(error) from error

    def follow(self, meanwhile: Callable[[], object]) -> None:
        """Go with boot through every layer; raises HostUnsupported, and what `meanwhile` raises."""
        if self._identity is None:
            raise RuntimeError("follow() before begin()")
        try:
            self.boot.follow(self._identity, meanwhile)
        except launch.EnterFailed as error:
            raise _entering_failed(error) from error

    def note(self, *, started: bool, bundle_id: str | None, plugin: str | None) -> None:
        """Write down what a later start needs, should this run be killed; raises StateUnusable."""
        if self._file is None:
            return
        self._start_noted = started
        record = {
            "cgroups": list(self._directories),
            "started": started,
            "bundle_id": bundle_id,
            "plugin": plugin,
            "audit": self._where.audit,
        }
        try:
            self._file.note(record)
        except OSError as error:
            self._unregistered(error)

    def end(self) -> None:
        """Kill whatever runs; the rest stays until `release`."""
        if self._boot is not None:
            self._boot.end()

    def release(self) -> None:
        """Give everything back: processes first."""
        if self._boot is not None:
            self._boot.reap()
        if self._identity is not None and self._identity.lock_fd >= 0:
            os.close(self._identity.lock_fd)
        if self.cgroup is not None:
            self.cgroup.remove()
        if self._file is not None:
            self._file.close(keep=self._leaves_something())
        if self._log is not None:
            self._log.close()

    def _leaves_something(self) -> bool:
        """A cgroup that stayed busy, or a start whose end the log could not take: work for a later start."""
        unrecorded = self._start_noted and self._log is not None and self._log.evidence is self._swept
        return unrecorded or any(map(os.path.exists, self._directories))

    def _unregistered(self, error: OSError) -> NoReturn:
        raise places.StateUnusable(
            f"the state directory {self._where.state} cannot be written: {error.strerror}",
            "free space there if it is full, or give a writable --home DIR",
        ) from error

    def _announce(self, directories: tuple[str, ...]) -> None:
        """Note the cgroup before it is made, so that none is ever left without a note."""
        self._directories = directories
        self.note(started=False, bundle_id=None, plugin=None)

    def _sweep(self, log: "AuditLog") -> None:
        def record(dead: runs.DeadRun) -> None:
            from plugsec.supervision.recorded import lacks_an_end  # noqa: PLC0415 - only after a kill

            # Another log cannot tell: there the note's word counts.
            if dead.audit == self._where.audit and not lacks_an_end(self._where.audit, dead.run_id):
                return
            log.append(
                "run.end",
                run=dead.run_id,
                bundle_id=dead.bundle_id,
                decision="interrupted",
                detail={"outcome": "interrupted", "plugin": dead.plugin, "found_by": self._run_id},
                durable=True,
            )

        runs.sweep(self._where.state, record)
        self._swept = log.evidence


def _entering_failed(error: launch.EnterFailed) -> Refusal:
    """A layer that could not be applied is the host's refusal; never a weaker jail."""
    if error.layer in layers.NAMES:
        try:
            layers.require(error.layer, f"{error.step}: {error.detail}", ())
        except HostUnsupported as refusal:
            return refusal
    return HostUnsupported(
        f"the jail could not be entered ({error.layer}: {error.step}: {error.detail}); nothing was started",
        "see `plugsec doctor`",
    )
