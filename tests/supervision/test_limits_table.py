"""The table of limits, row by row: what reaches a limit exactly is fine, one more ends the run by its name.

Where a limit cannot be met to the unit (time, memory) the two sides stand well apart. `test_run_limits.py`
has the many ways to reach one.
"""

import json
import os
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from workloads import ASKS, MIB, generous

from kit.home import Home
from kit.outside import command_line
from plugsec.outcome import Outcome


class Row(NamedTuple):
    """One limit, its value in force, what stays within it and what does not."""

    limit: str  # the name that the run ends with
    field: str
    value: int
    within: str
    beyond: str
    by: str = ""  # the way, where a limit has several
    more: tuple[tuple[str, int], ...] = ()

    def __str__(self) -> str:
        return f"{self.field}{'_by_' if self.by else ''}{self.by}"


_ROOM = (("tmp_bytes", 256 * MIB), ("file_bytes", 256 * MIB))
_SMALL = (("file_bytes", 4 * MIB), ("tmp_bytes", 16 * MIB))
ROWS = (
    Row("wall", "wall_ms", 700, "time.sleep(0.2)", "time.sleep(60)"),
    Row("cpu", "cpu_ms", 700, "burn(300)", "burn(60_000)"),
    Row("memory", "memory_bytes", 96 * MIB, "x = bytearray(64 * MIB)", "x = bytearray(160 * MIB)", "heap"),
    Row("memory", "memory_bytes", 96 * MIB, "touch(64)", "touch(160)", "mmap"),
    Row("memory", "memory_bytes", 96 * MIB, "fill('x', 64 * MIB)", "fill('x', 160 * MIB)", "tmpfs", _ROOM),
    Row("processes", "processes", 5, "children(4)", "children(5)", "fork"),
    Row("processes", "processes", 5, "threads(4)", "threads(5)", "threads"),
    Row("output", "output_bytes", 100_000, "say(1, 99_900)", "say(1, 100_001)", "stdout"),
    Row("output", "output_bytes", 100_000, "say(2, 99_900)", "say(2, 100_001)", "stderr"),
    Row("output", "output_bytes", 100_000, "return 'x' * 99_900", "return 'x' * 100_000", "result"),
    Row("output", "output_bytes", 100_000, "say(1, 49_950); say(2, 49_950)", "say(1, 50_000); say(2, 50_001)", "both"),
    Row("files", "tmp_bytes", 4 * MIB, "[fill(n, MIB) for n in range(4)]", "[fill(n, MIB) for n in range(5)]"),
    Row("files", "file_bytes", 1 * MIB, "fill('x', MIB)", "fill('x', MIB + 1)", "", (("tmp_bytes", 8 * MIB),)),
    Row("files", "files", 20, "[fill(n, 0) for n in range(20)]", "[fill(n, 0) for n in range(21)]"),
    Row("denials", "denials", 30, "[refused() for _ in range(30)]", "[refused() for _ in range(31)]; time.sleep(60)"),
)  # fmt: skip
_CODE = """
import mmap, os, socket, threading, time
MIB = 1 << 20

def burn(milliseconds):
    while time.process_time() * 1000 < milliseconds: pass

def touch(megabytes):
    block = mmap.mmap(-1, megabytes << 20, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    for at in range(0, megabytes << 20, 4096): block[at] = 1
    time.sleep(0.15)

def fill(name, size):
    with open(f"/tmp/{name}", "wb", buffering=0) as file:
        while file.tell() < size: file.write(bytes(min(65536, size - file.tell())))

def children(count):
    for _ in range(count): os.fork() or time.sleep(60)
    time.sleep(0.15)

def threads(count):
    for _ in range(count): threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
    time.sleep(0.15)

def say(fd, count):
    data = memoryview(b"x" * count)
    while data: data = data[os.write(fd, data):]

def refused():
    try: socket.socket()
    except OSError: pass
"""


def _run(home: Home, row: Row, body: str) -> Outcome:
    code = f"{_CODE}\n@plugin.method\ndef go():\n    {body}\n    return 'done'\n"
    limits: dict[str, Any] = {"wall_ms": 20_000, **dict(row.more), row.field: row.value}
    asked = ASKS if row.by == "fork" else ()
    return home.attack(code, generous(home), permissions=asked, limits=limits)


def _needs(row: Row, outcome: Outcome) -> None:
    if row.by == "tmpfs" and "cgroup" not in outcome.layers_active:
        pytest.skip("cgroup: none here, so what /tmp holds is bounded by tmp_bytes alone")
    if row.limit == "denials" and "denial-report" not in outcome.layers_active:
        pytest.skip("denial-report: another filter's listener stands in the way on this host")


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_what_stays_within_a_limit_is_done(row: Row, home: Home) -> None:
    """To the last unit, where the limit has units that a plugin can count."""
    outcome = _run(home, row, row.within)
    assert (outcome.outcome, outcome.code, outcome.limit) == ("ok", 0, None), outcome.error


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_what_goes_beyond_a_limit_ends_by_its_name_and_value(row: Row, home: Home) -> None:
    """Exit 7, the name, the value in force, and the setting's own name in the message."""
    outcome = _run(home, row, row.beyond)
    _needs(row, outcome)
    assert (outcome.outcome, outcome.code, outcome.result) == ("limit", 7, None), outcome
    assert outcome.limit == (row.limit, row.value)
    assert outcome.error is not None
    assert f"{row.field} = {row.value}" in outcome.error.message


def test_too_many_open_files_are_the_plugins_own_error(home: Home) -> None:
    """The one limit that kills nobody: EMFILE at exactly the number, which the plugin may handle."""
    row = Row("", "open_files", 40, "", "")
    count = """held = []
    try:
        while True: held.append(os.open("/dev/null", os.O_RDONLY))
    except OSError as error: return [error.errno, max(held)]"""
    outcome = _run(home, row, count)
    assert (outcome.code, outcome.result) == (0, [24, 39]), outcome
    unhandled = _run(home, row, "[os.open('/dev/null', os.O_RDONLY) for _ in range(99)]")
    assert (unhandled.outcome, unhandled.code, unhandled.limit) == ("failed", 6, None)
    assert unhandled.error is not None
    assert "Too many open files" in unhandled.error.message


def test_the_command_line_exits_with_seven_and_says_which(home: Home, tmp_path: Path) -> None:
    """`--limit` lowers it; exit status, JSON and the figures agree."""
    code = "from plugsec_plugins.guest import plugin\n@plugin.method\ndef go():\n    while True: pass\n"
    bundle = home.bundle({"main.py": code})
    command = command_line("run", bundle, "--home", str(home.home), "--json", "--limit", "cpu_ms=300")
    done = subprocess.run(command, capture_output=True, check=False, cwd=tmp_path, env=dict(os.environ))
    answer = json.loads(done.stdout)
    assert (done.returncode, answer["code"], answer["outcome"]) == (7, 7, "limit"), done.stderr
    assert answer["limit"] == {"name": "cpu", "value": 300}
    assert 300 <= answer["usage"]["cpu_ms"] < 600 or answer["usage"]["wall_ms"] > 1000
