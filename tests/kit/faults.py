"""One fault in one run: a boot script and a supervisor whose n-th call of a kind fails, and what is left.

`recorded` gives the calls of a healthy run; `struck` makes one run in which one of them fails and looks
for everything that must not be left behind.
"""

import contextlib
import json
import os
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple
from unittest import mock

from kit import outside, tap
from plugsec.outcome import Outcome, to_json
from plugsec.sandbox import cgroups, spawn

_TESTS = str(Path(__file__).resolve().parent.parent)
_SCRIPT = """
import sys
sys.path[:0] = sys.argv[1:]
sys.path.append({tests!r})
from kit import tap
from plugsec.sandbox import enter
tap.BootTap({log!r}, {site!r}, {occurrence}, {fault}).install()
enter.main()
"""
SUPERVISOR = "supervisor"

Run = Callable[[], Outcome]


class Fault(NamedTuple):
    """The n-th call at a site ("PROCESS LAYER CALL") fails with an errno, or the process ends there."""

    site: str
    occurrence: int
    number: int

    def __str__(self) -> str:
        words = {tap.DIES: "leaves", tap.CRASHES: "crashes", 0: "nothing"}
        return f"{self.site} #{self.occurrence}: {words.get(self.number) or os.strerror(self.number)}"


_NOTHING = Fault("", 0, 0)


class Struck(NamedTuple):
    """A run with a fault: whether the call was reached, how it ended, and what was left behind."""

    met: bool
    outcome: Outcome
    calls: tuple[str, ...]
    left: tuple[str, ...]


def struck(directory: Path, fault: Fault, run: Run) -> Struck:
    """Run with this fault and look around afterwards; whatever `run` raises passes through."""
    log, script = directory / "calls.log", directory / "boot-tapped.py"
    log.write_bytes(bytes(tap.LOG_SIZE))
    in_boot = fault if not fault.site.startswith(SUPERVISOR) else _NOTHING
    script.write_text(
        _SCRIPT.format(
            tests=_TESTS, log=str(log), site=in_boot.site, occurrence=in_boot.occurrence, fault=in_boot.number
        )
    )
    descriptors, mounts = _descriptors(), outside.host_mounts()
    with mock.patch.object(spawn, "BOOT_SCRIPT", str(script)), _tapped(fault) as above:
        outcome = run()
    calls, met = tap.read_log(str(log))
    left = list(_leftovers(outcome, str(script)))
    if _descriptors() != descriptors:
        left.append(f"descriptors: {sorted(_descriptors() ^ descriptors)}")
    if not outside.eventually(lambda: outside.host_mounts() == mounts):  # others on this host mount too
        left.append("a mount")
    json.dumps(to_json(outcome))  # what the command line prints
    return Struck(met or above.met, outcome, (*above.calls, *calls), tuple(left))


def recorded(directory: Path, run: Run) -> Struck:
    """A healthy run and its calls."""
    return struck(directory, _NOTHING, run)


def sandbox_modules() -> list[types.ModuleType]:
    """Every module of the sandbox's own that has been imported."""
    return [module for name, module in sys.modules.items() if name.rpartition(".")[0] == "plugsec.sandbox"]


class _Above:
    """The supervisor's side of the tap."""

    def __init__(self, fault: Fault) -> None:
        self.calls: list[str] = []
        self.met = False
        self._fault = fault

    def wants(self, module: str) -> Callable[[str, object], int]:
        def seen(name: str, about: object) -> int:
            site = f"{SUPERVISOR} {module} {name}"
            if name in {"os.open", "open"}:  # which file, for there is no layer to tell them apart by
                site += f"({_generic(os.path.basename(str(about)))})"
            self.calls.append(site)
            if site != self._fault.site or self.calls.count(site) != self._fault.occurrence:
                return 0
            self.met = True
            return self._fault.number

        return seen


@contextlib.contextmanager
def _tapped(fault: Fault) -> Iterator[_Above]:
    above = _Above(fault)
    taps = []
    try:
        for module in sandbox_modules():
            short = module.__name__.rpartition(".")[2]
            if short not in _BOOTS_OWN:
                taps.append(tap.Tap(above.wants(short)))
                taps[-1].install([module])
        yield above
    finally:
        for each in taps:
            each.remove()


def _generic(name: str) -> str:
    """A file's name without what differs from run to run: a user id, a digest."""
    return "N" if name.isdigit() else f"*{os.path.splitext(name)[1]}" if len(name) > 40 else name


# Imported here by tests for their names; in a run, boot's side of the socket is another process.
_BOOTS_OWN = frozenset("enter mounts landlock capabilities probe boot linux".split())


def _descriptors() -> set[tuple[str, str]]:
    found = set()
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            found.add((name, os.readlink(f"/proc/self/fd/{name}")))
    return {pair for pair in found if not pair[1].endswith("/fd")}  # the listing's own


def _leftovers(outcome: Outcome, script: str) -> Iterator[str]:
    with contextlib.suppress(ChildProcessError):
        pid, _ = os.waitpid(-1, os.WNOHANG)
        yield f"a child that nobody waited for ({pid or 'alive'})"
    if not outside.eventually(lambda: not _processes(script)):
        yield "a process"
    for base in _cgroup_bases():
        if os.path.exists(f"{base}/plugsec-{outcome.run_id}"):
            yield "a cgroup"


def _processes(script: str) -> list[str]:
    """Every process of boot's (init and the plugin are its forks), zombies of others apart."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError):
                if script.encode() in Path(f"/proc/{name}/cmdline").read_bytes():
                    found.append(name)
    return found


def _cgroup_bases() -> set[str]:
    members, mounts = cgroups._v1_members(), cgroups._v1_mounts()
    bases = {f"{mounts[name]}{path.rstrip('/')}" for name, path in members.items() if name in mounts}
    return bases | {os.environ.get("PLUGSEC_CGROUP", ""), "/sys/fs/cgroup/plugsec"}
