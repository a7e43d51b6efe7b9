"""Every row of the table of limits: the run ends with exit 7 and the limit's name, whatever the plugin does.

With a cgroup the kernel counts; without one rlimits and the monitor do. Rows that need no particular
one run with what the host has, and once more with the cgroup taken away where it has one.
"""

import json
from typing import Any, NamedTuple

import pytest

from kit import weak
from kit.home import Home
from kit.native import run_script
from kit.outside import all_gone, fixed_identity, watched
from plugsec.outcome import Outcome

MIB = 1024 * 1024
CHILDREN = '[[grant]]\nid = "children"\nplugins = ["*"]\nprocess = 64\n'
ASKS = [{"name": "process", "max": 64, "reason": "starts children"}]
OUTPUT = [{"name": "fs.write", "paths": ["$OUTPUT"], "reason": "leaves results"}]


class Row(NamedTuple):
    """A plugin, the limits it gets, and the one that ends it."""

    sentence: str
    limit: str
    limits: dict[str, int]
    body: str  # what `go` does
    children: bool = False
    permissions: tuple[dict[str, Any], ...] = ()

    def __str__(self) -> str:
        return self.sentence.replace(" ", "_")


_WALL = {"wall_ms": 400}
_CPU = {"cpu_ms": 400, "wall_ms": 20_000}
_MEMORY = {"memory_bytes": 64 * MIB, "wall_ms": 20_000, "tmp_bytes": 16 * MIB}
_PROCESSES = {"processes": 6, "wall_ms": 20_000}
_OUTPUT = {"output_bytes": 200_000, "wall_ms": 20_000}
_FILES = {"tmp_bytes": 4 * MIB, "files": 50, "file_bytes": 2 * MIB, "wall_ms": 20_000}
_DENIALS = {"denials": 20, "wall_ms": 20_000}

ROWS = (
    # The supervisor's clock and nothing else
    Row("a busy loop ends with wall", "wall", {**_WALL, "cpu_ms": 60_000}, "while True: pass"),
    Row("a sleeper ends with wall", "wall", _WALL, "time.sleep(600)"),
    Row("a plugin that stops itself ends with wall", "wall", _WALL, "signal.raise_signal(signal.SIGSTOP)"),
    Row(
        "a plugin that ignores every signal ends with wall",
        "wall",
        _WALL,
        "[signal.signal(n, signal.SIG_IGN) for n in range(1, 32) if n not in (9, 19)]; time.sleep(600)",
    ),
    Row(
        "a plugin that blocks every signal ends with wall",
        "wall",
        _WALL,
        "signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65)); time.sleep(600)",
    ),
    Row(
        "a C loop that keeps the interpreter ends with wall",
        "wall",
        {**_WALL, "cpu_ms": 60_000},
        "sum(iter(int, 1))",
    ),
    Row("a plugin that waits for more input ends with wall", "wall", _WALL, "os.read(3, 100)"),
    Row(
        "a plugin that closed everything ends with wall",
        "wall",
        _WALL,
        "os.closerange(0, 100); time.sleep(600)",
    ),
    Row("a plugin whose main thread left ends with wall", "wall", _WALL, "leave(lambda: time.sleep(600))"),
    Row("a plugin that never reads its call ends with wall", "wall", _WALL, "signal.pause()"),
    Row(
        "a plugin that traps in a deadlock ends with wall",
        "wall",
        _WALL,
        "lock = threading.Lock(); lock.acquire(); lock.acquire()",
    ),
    Row("a waiting parent ends with wall", "wall", _WALL, "os.fork() and os.wait() or time.sleep(600)", True),
    Row(
        "a daemon and a parent that waits for ever end with wall",
        "wall",
        _WALL,
        "os.fork() or (os.setsid(), os.fork() and os._exit(0)); time.sleep(600)",
        True,
    ),
    Row(
        "stopped children end with wall",
        "wall",
        _WALL,
        "[os.fork() or os.kill(os.getpid(), signal.SIGSTOP) for _ in range(4)]; time.sleep(600)",
        True,
    ),
    # CPU time
    Row("a busy loop ends with cpu", "cpu", _CPU, "while True: pass"),
    Row(
        "a busy loop that ignores SIGXCPU ends with cpu",
        "cpu",
        _CPU,
        "signal.signal(24, signal.SIG_IGN); spin()",
    ),
    Row(
        "busy threads end with cpu",
        "cpu",
        _CPU,
        "[threading.Thread(target=spin).start() for _ in range(4)]; spin()",
    ),
    Row("a busy thread behind a leader that left ends with cpu", "cpu", _CPU, "leave(spin)"),
    Row(
        "busy children end with cpu",
        "cpu",
        _CPU,
        "[os.fork() or spin() for _ in range(4)]; time.sleep(600)",
        True,
    ),
    Row(
        "busy children that nobody waits for end with cpu",
        "cpu",
        {**_CPU, "cpu_ms": 700},
        "signal.signal(signal.SIGCHLD, signal.SIG_IGN)\n    while True:\n"
        "        if not os.fork(): spin(0.12), os._exit(0)\n        time.sleep(0.06)",
        True,
    ),
    # Memory
    Row("one large allocation ends with memory", "memory", _MEMORY, "x = bytearray(200 * MIB)"),
    Row(
        "a growing list ends with memory", "memory", _MEMORY, "x = []\n    while True: x.append('x' * 10_000)"
    ),
    Row("private mappings end with memory", "memory", _MEMORY, "hold(mmap.MAP_PRIVATE)"),
    Row("shared mappings end with memory", "memory", _MEMORY, "hold(mmap.MAP_SHARED)"),
    Row(
        "shared mappings behind a leader that left end with memory",
        "memory",
        _MEMORY,
        "leave(lambda: hold(mmap.MAP_SHARED))",
    ),
    Row(
        "a thread's allocation ends with memory",
        "memory",
        _MEMORY,
        "thread(lambda: hold(mmap.MAP_PRIVATE)).join()",
    ),
    Row(
        "children that share the burden end with memory",
        "memory",
        _MEMORY,
        "[os.fork() or hold(mmap.MAP_PRIVATE, 24) for _ in range(6)]; time.sleep(600)",
        True,
    ),
    # Processes and threads, counted together
    Row("a fork bomb ends with processes", "processes", _PROCESSES, "while True: os.fork()", True),
    Row(
        "a fork bomb that catches every error ends with processes",
        "processes",
        _PROCESSES,
        "while True:\n        try: os.fork()\n        except OSError: pass",
        True,
    ),
    Row(
        "a chain of forks ends with processes",
        "processes",
        _PROCESSES,
        "while not os.fork(): pass\n    time.sleep(600)",
        True,
    ),
    Row(
        "a bomb of threads ends with processes",
        "processes",
        _PROCESSES,
        "while True: threading.Thread(target=time.sleep, args=(600,)).start()",
    ),
    Row(
        "a bomb of threads in children ends with processes",
        "processes",
        _PROCESSES,
        "os.fork(); os.fork()\n    while True: threading.Thread(target=time.sleep, args=(600,)).start()",
        True,
    ),
    # Bytes over every channel together
    Row("a flood of stdout ends with output", "output", _OUTPUT, "while True: os.write(1, b'x' * 4096)"),
    Row("a flood of stderr ends with output", "output", _OUTPUT, "while True: os.write(2, b'x' * 4096)"),
    Row(
        "a flood of both ends with output",
        "output",
        _OUTPUT,
        "while True: os.write(1, b'x' * 99), os.write(2, b'\\n' * 99)",
    ),
    Row(
        "floods of threads end with output",
        "output",
        _OUTPUT,
        "[thread(lambda: [os.write(1 + n % 2, b'x') for n in itertools.count()]) for _ in range(4)]; time.sleep(600)",
    ),
    Row("a flood of log lines ends with output", "output", _OUTPUT, "while True: ctx.log('x' * 100)"),
    Row("a flood of prints ends with output", "output", _OUTPUT, "while True: print('x', end='')"),
    Row("a large answer ends with output", "output", _OUTPUT, "return 'x' * 300_000"),
    # Files
    Row("a full /tmp ends with files", "files", _FILES, "fill('/tmp', 1 * MIB)"),
    Row("more names than allowed end with files", "files", _FILES, "fill('/tmp', 0)"),
    Row(
        "more directories than allowed end with files",
        "files",
        _FILES,
        "[os.mkdir(f'/tmp/{n}') for n in range(99)]",
    ),
    Row(
        "more links than allowed end with files",
        "files",
        _FILES,
        "[os.symlink('x', f'/tmp/{n}') for n in range(99)]",
    ),
    Row("a file over its size ends with files", "files", _FILES, "fill('/tmp', 3 * MIB)"),
    Row(
        "a sparse file over its size ends with files",
        "files",
        _FILES,
        "os.truncate(fill('/tmp', 1, 1), 1 << 40)",
    ),
    Row("a full $OUTPUT ends with files", "files", _FILES, "fill('/output', 1 * MIB)", False, (*OUTPUT,)),
    Row("too many names in $OUTPUT end with files", "files", _FILES, "fill('/output', 0)", False, (*OUTPUT,)),
    # Refused calls
    Row("a loop of refused calls ends with denials", "denials", _DENIALS, "while True: refused()"),
    Row(
        "refused calls of many threads end with denials",
        "denials",
        _DENIALS,
        "[thread(lambda: [refused() for _ in range(100)]) for _ in range(4)]; time.sleep(600)",
    ),
    Row(
        "refused calls of children end with denials",
        "denials",
        _DENIALS,
        "[os.fork() or [refused() for _ in range(100)] for _ in range(3)]; time.sleep(600)",
        True,
    ),
)
_HELPERS = """
import ctypes, itertools, mmap, os, signal, socket, threading, time
libc = ctypes.CDLL(None)
MIB = 1024 * 1024
kept = []

def spin(seconds=600):
    ends = time.monotonic() + seconds
    while time.monotonic() < ends: pass

def thread(act):
    thread = threading.Thread(target=act)
    thread.start()
    return thread

def leave(act):
    thread(act)
    libc.syscall({"x86_64": 60, "aarch64": 93}[os.uname().machine], 0)

def hold(flags, most=512):
    for _ in range(most // 8):
        block = mmap.mmap(-1, 8 * MIB, flags | mmap.MAP_ANONYMOUS)
        for at in range(0, 8 * MIB, 4096): block[at] = 1
        kept.append(block)
        time.sleep(0.005)
    time.sleep(600)

def fill(where, size, most=1000):
    for n in range(most):
        with open(f"{where}/{n}", "wb", buffering=0) as file:
            while file.tell() < size: file.write(bytes(min(65536, size - file.tell())))
    return f"{where}/0"

def refused():
    try: socket.socket()
    except OSError: pass
"""


# Which members of the limits an exit name stands for: the value that is told is one of theirs.
_SETTINGS = {
    "wall": ("wall_ms",), "cpu": ("cpu_ms",), "memory": ("memory_bytes",), "processes": ("processes",),
    "output": ("output_bytes",), "denials": ("denials",), "files": ("tmp_bytes", "file_bytes", "files"),
}  # fmt: skip


def _run(home: Home, row: Row) -> Outcome:
    code = f"{_HELPERS}\n@plugin.method\ndef go(*, ctx):\n    {row.body}\n"
    policies = [home.policy(CHILDREN)] if row.children else []
    asked = [*row.permissions, *(ASKS if row.children else [])]
    return home.attack(code, *policies, permissions=asked, limits=row.limits)


def _ended_with(row: Row, outcome: Outcome) -> None:
    assert outcome.limit is not None, outcome
    assert (outcome.limit.name, outcome.code, outcome.outcome) == (row.limit, 7, "limit"), outcome
    assert outcome.limit.value in {row.limits.get(field) for field in _SETTINGS[row.limit]}, outcome.limit
    assert outcome.result is None
    assert outcome.error is not None
    assert outcome.error.id.startswith("PLG-LIM-1")
    assert row.limit in outcome.error.message


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_limit(row: Row, home: Home) -> None:
    """With whatever this host counts by; nothing is left afterwards."""
    with fixed_identity(), watched() as seen:
        outcome = _run(home, row)
    if row.limit == "denials" and "denial-report" not in outcome.layers_active:
        pytest.skip("denial-report: another filter's listener stands in the way on this host")
    _ended_with(row, outcome)
    assert all_gone(seen)


@pytest.mark.parametrize("row", [r for r in ROWS if r.limit in {"cpu", "memory", "processes"}], ids=str)
def test_limit_without_a_cgroup(row: Row, home: Home) -> None:
    """Rlimits and the monitor: what a host without delegation has."""
    with fixed_identity(), weak.without(home.root, "cgroup"), watched() as seen:
        outcome = _run(home, row)
    assert "cgroup" in outcome.layers_degraded
    _ended_with(row, outcome)
    assert all_gone(seen)


def test_bytes_in_tmp_count_as_memory_where_a_cgroup_counts(home: Home) -> None:
    """They are memory: a /tmp larger than the memory limit is no way around it."""
    row = Row("", "memory", {"memory_bytes": 48 * MIB, "tmp_bytes": 512 * MIB, "file_bytes": 512 * MIB},
              "fill('/tmp', 200 * MIB, 1)")  # fmt: skip
    outcome = _run(home, row._replace(limits={**row.limits, "wall_ms": 20_000}))
    if "cgroup" not in outcome.layers_active:
        pytest.skip("cgroup: none here, so tmp_bytes alone bounds what /tmp holds")
    _ended_with(row, outcome)


# What stays within its limits ------------------------------------------------------------------------------

WITHIN = (
    Row("as many threads as allowed", "", _PROCESSES, "[thread(lambda: time.sleep(0.2)) for _ in range(5)]; return 1"),
    Row(
        "as many children as allowed",
        "",
        _PROCESSES,
        "[os.fork() or (time.sleep(0.2), os._exit(0)) for _ in range(5)]; [os.wait() for _ in range(5)]; return 1",
        True,
    ),
    Row("children one after the other", "", _PROCESSES,
        "for _ in range(50): os.fork() or os._exit(0); os.wait()\n    return 1", True),
    Row("most of the memory", "", {**_MEMORY, "memory_bytes": 128 * MIB}, "x = bytearray(60 * MIB); return 1"),
    Row("memory again and again", "", _MEMORY, "for _ in range(30): bytearray(20 * MIB)\n    return 1"),
    Row("most of /tmp", "", _FILES, "fill('/tmp', 1 * MIB, 3); return 1"),
    Row("as many files as allowed", "", _FILES, "fill('/tmp', 0, 50); return 1"),
    Row("a file of exactly its size", "", _FILES, "fill('/tmp', 2 * MIB, 1); return 1"),
    Row("a full /tmp that the plugin copes with", "", _FILES,
        "try: fill('/tmp', 0)\n    except OSError: return 1"),
    Row("most of the output", "", _OUTPUT, "os.write(1, b'x' * 150_000); return 1"),
    Row("as many refused calls as allowed", "", _DENIALS, "[refused() for _ in range(20)]; return 1"),
    Row("most of the time", "", {"wall_ms": 20_000}, "time.sleep(0.3); return 1"),
)  # fmt: skip


@pytest.mark.parametrize("row", WITHIN, ids=str)
def test_within_the_limits_nothing_ends_it(row: Row, home: Home) -> None:
    """A limit is where it says, not before."""
    outcome = _run(home, row)
    assert (outcome.code, outcome.result, outcome.limit) == (0, 1, None), outcome


@pytest.mark.parametrize("row", [r for r in WITHIN if "children" in str(r) or "threads" in str(r)], ids=str)
def test_within_the_limits_without_a_cgroup(row: Row, home: Home) -> None:
    """The weaker means refuse no earlier."""
    with fixed_identity(), weak.without(home.root, "cgroup"):
        outcome = _run(home, row)
    assert (outcome.code, outcome.result, outcome.limit) == (0, 1, None), outcome


def test_the_granted_number_of_processes_counts(home: Home) -> None:
    """process = 2 means two, though limits.processes would allow more."""
    code = """
import os, time
@plugin.method
def go():
    count = 0
    for _ in range(20):
        if os.fork() == 0:
            time.sleep(600)
        count += 1
    return count
"""
    with fixed_identity(), watched() as seen:
        outcome = home.attack(
            code, home.policy(CHILDREN), permissions=[{"name": "process", "max": 2, "reason": "two"}]
        )
    assert outcome.limit is not None
    assert (outcome.limit.name, outcome.limit.value) == ("processes", 3)
    assert len(seen) <= 5, "the jail's first process, the plugin, its two, and one too many"


def test_a_wall_limit_counts_top_level_code_and_waits_for_no_grace(home: Home) -> None:
    """From the go-ahead on everything counts, the import of the plugin too."""
    outcome = home.attack("import time\ntime.sleep(600)\n", limits=_WALL)
    assert outcome.limit is not None
    assert outcome.limit.name == "wall"
    assert outcome.usage.wall_ms < 10_000


# The exec kind ---------------------------------------------------------------------------------------------

SCRIPTS = {
    "a script that loops ends with cpu": ("while :; do :; done", "cpu", _CPU),
    "a script that stops itself ends with wall": ("kill -STOP $$", "wall", _WALL),
    "a script that floods stdout ends with output": ("while :; do echo xxxxxxxxxxxxxxxxxxxxxxxx; done", "output", _OUTPUT),
    "a script that fills /tmp ends with files": (
        "x=1234567890; for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18; do x=$x$x; done; echo $x > /tmp/x; exit 1",
        "files", {**_FILES, "wall_ms": 60_000},
    ),
    "a script that forks for ever ends with processes": ("f() { f & f; }; f", "processes", _PROCESSES),
}  # fmt: skip


@pytest.mark.parametrize("name", SCRIPTS)
def test_limits_of_a_program(name: str, home: Home) -> None:
    """One-shot programs are held to the same table."""
    lines, limit, limits = SCRIPTS[name]
    outcome = run_script(home, lines, limits=limits)
    if limit == "processes" and "cgroup" in outcome.layers_degraded and outcome.limit is None:
        pytest.skip("cgroup: without one, a shell that dies of its failed fork says no more than its status")
    assert outcome.limit is not None, outcome
    assert (outcome.limit.name, outcome.code) == (limit, 7)


def test_a_program_that_never_reads_its_input_is_no_deadlock(home: Home) -> None:
    """Eight megabytes wait in the pipe for a program that only writes."""
    big = json.dumps({"x": "y" * 5_000_000}).encode()
    outcome = run_script(
        home, "i=0; while [ $i -lt 2000 ]; do echo out >&2; i=$((i+1)); done; echo 7", input=big
    )
    assert outcome.result == 7, outcome
