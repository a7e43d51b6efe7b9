"""What a run is said to have used, against workloads of known size: within a fifth, for both kinds of plugin.

With a cgroup the kernel's counters are exact. Without one the monitor looks every TICK_S, so its figure of
what lives apart and is not waited for is a lower bound: that a row may be low, by how much, is in the row.
"""

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import pytest
from workloads import MIB, use_up

from kit import weak
from kit.home import Home
from plugsec.outcome import Outcome
from plugsec.sandbox.cgroups import RunCgroup

KINDS = ("python", "native")
_TOLERANCE = 0.2
_TICKS_MS = 100  # two looks of the monitor: what may be missed of a process that is killed
_TRIES = 3  # a figure of time that a loaded host stretches must be right once


class Row(NamedTuple):
    """A workload, the figure that tells of it, how much of that it is, and what a start adds by itself."""

    sentence: str
    what: str
    amount: int
    figure: str
    expected: int
    limits: Mapping[str, int] = MappingProxyType({})
    start: int = 0  # interpreter, libraries, frames: in the figure's unit
    low_by: int = 0  # without a cgroup
    is_time: bool = False

    def __str__(self) -> str:
        return self.sentence.replace(" ", "_")


_FILES = {"tmp_bytes": 96 * MIB, "file_bytes": 96 * MIB}

ROWS = (
    Row("half a second of work", "burn", 500, "cpu_ms", 500, is_time=True),
    Row("work of a child that nobody waits for", "burn_in_a_child", 500, "cpu_ms", 500, low_by=_TICKS_MS, is_time=True),
    Row("work before a hang", "burn_and_hang", 250, "cpu_ms", 250, {"wall_ms": 1500}, low_by=_TICKS_MS, is_time=True),
    Row("sleep costs no work", "sleep", 400, "cpu_ms", 0, start=60, is_time=True),
    Row("sleep is wall time", "sleep", 400, "wall_ms", 400, start=50, is_time=True),
    Row("touched memory", "touch", 96, "memory_peak_bytes", 96 * MIB),
    Row("touched memory of four children", "touch_in_children", 240, "memory_peak_bytes", 240 * MIB, low_by=180 * MIB),
    Row("memory that is only a file", "write_files", 64, "memory_peak_bytes", 64 * MIB, _FILES, low_by=64 * MIB),
    Row("ten processes at once", "live_together", 10, "processes_peak", 10, low_by=9),
    Row("one process", "sleep", 1, "processes_peak", 1),
    Row("bytes on both outputs", "say", 1_000_000, "output_bytes", 1_000_000, start=200),
)  # fmt: skip


@contextlib.contextmanager
def _host(home: Home, *, cgroup: bool) -> Iterator[None]:
    with contextlib.nullcontext() if cgroup else weak.without(home.root, "cgroup"):
        yield


@pytest.mark.parametrize("cgroup", [True, False], ids=["cgroup", "no_cgroup"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("row", ROWS, ids=str)
def test_usage_is_within_a_fifth(row: Row, kind: str, cgroup: bool, home: Home) -> None:
    """The figures of `run --json` and of the receipt."""
    seen = []
    for _ in range(_TRIES if row.is_time else 1):
        with _host(home, cgroup=cgroup):
            outcome = use_up(home, kind, row.what, row.amount, **row.limits)
        if cgroup and "cgroup" not in outcome.layers_active:
            pytest.skip("cgroup: none here; the same row without one runs beside this")
        assert outcome.code == (7 if row.what == "burn_and_hang" else 0), outcome
        least, most = _bounds(row, outcome, cgroup=cgroup)
        seen.append((least, getattr(outcome.usage, row.figure), most))
        if least <= seen[-1][1] <= most:
            return
    pytest.fail(f"the least expected, what was told, the most expected: {seen}")


def _bounds(row: Row, outcome: Outcome, *, cgroup: bool) -> tuple[int, int]:
    # A busy loop may pass its mark by a turn, so its own clock says how much it was.
    known = outcome.result if row.what == "burn" else row.expected
    least = round(known * (1 - _TOLERANCE)) - (0 if cgroup else row.low_by)
    return least, round(known * (1 + _TOLERANCE)) + row.start


@pytest.mark.parametrize("kind", KINDS)
def test_a_short_life_is_counted_too(kind: str, home: Home) -> None:
    """Nobody looks twice within 30 ms, yet with a cgroup the peak is the peak."""
    outcome = use_up(home, kind, "touch_in_children", 4)
    if "cgroup" not in outcome.layers_active:
        pytest.skip("cgroup: none here, so what lives for less than a tick may go unseen")
    assert outcome.usage.processes_peak == 5, outcome.usage


@pytest.mark.parametrize("kept", [True, False], ids=["peaks", "no_peaks"])
def test_a_kernel_that_keeps_no_peaks_gives_the_moments_figures(kept: bool, tmp_path: Path) -> None:
    """Version 2 before 5.19 (memory) and 6.11 (processes): the monitor's looks make the peak."""
    files = {"memory.current": 70, "pids.current": 4, **({"memory.peak": 90, "pids.peak": 6} if kept else {})}
    for name, number in files.items():
        (tmp_path / name).write_text(f"{number}\n")
    usage = RunCgroup(2, (str(tmp_path),)).usage()
    assert (usage.memory_peak_bytes, usage.processes_peak) == ((90, 6) if kept else (70, 4))
