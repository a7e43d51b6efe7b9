"""A hundred thousand refused calls under a 5 ms timer, with stdin blocked and both outputs flooded.

The listener answers each, the loop keeps up with the pipes, the record stays small and a neighbour in the
same process is served; with WAIT_KILLABLE_RECV and on a kernel that does not know it, where every signal
makes the guest's call start anew.
"""

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from workloads import ASKS, generous, static_program

from kit import weak
from kit.home import Home
from kit.native import run_file
from plugsec.outcome import Outcome
from plugsec.supervision.denials import DISTINCT_MAX

CALLS, KINDS = 100_000, 20_000
MIB = 1024 * 1024
_OUT, _ERR = 32, 128  # bytes a call on each output, none of them a newline
_WALL_MS = 300_000  # so far away that who reaches it hangs
_LIMITS = {"wall_ms": _WALL_MS, "cpu_ms": 60_000, "denials": 1_000_000}
# Result and flood fit in by a hand's breadth: what is refused of the pipes would show.
_OUTPUT_BYTES = (_OUT + _ERR) * CALLS + 1024
_AUDIT_BYTES_MAX = 512 * 1024
# As much as a method's input may be, and many times what a pipe holds; nobody reads it.
UNREAD = b'{"text":"' + b"y" * 8_000_000 + b'"}'
REPORTED = "denial-report: another filter's listener stands in the way on this host"

# A bit that no kernel knows stands for the one that an old kernel does not: the kernel itself says EINVAL,
# and a boot that was not made to fall back refuses to go on.
_OLD_KERNEL = """
linux.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV = 1 << 30
_syscall, _load, _refused = linux._syscall, linux.seccomp_load, []
def _watched(name, *arguments):
    try:
        return _syscall(name, *arguments)
    except OSError as error:
        _refused.append((name, error.errno))
        raise
def _fall_back(program, *, listener):
    fd = _load(program, listener=listener)
    if listener and _refused != [("seccomp", 22)]:
        refuse()
    return fd
linux._syscall, linux.seccomp_load = _watched, _fall_back
"""

_NATIVE = r"""
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

static long ticks;
static void tick(int number) { ticks++; }
static int refused(int family) {
    while (socket(family, SOCK_STREAM, 0) < 0) {
        if (errno == EPERM) return 1;
        if (errno != EINTR) return 0;
    }
    return 0;
}
int main(int argc, char **argv) {
    char block[4096];
    struct sigaction action = {.sa_handler = tick, .sa_flags = RESTART};
    struct itimerval every = {{0, 5000}, {0, 5000}};
    long count = 0, kinds = !strcmp(argv[argc - 1], "kinds");
    memset(block, ' ', sizeof block);
    sigaction(SIGALRM, &action, 0);
    setitimer(ITIMER_REAL, &every, 0);
    for (long call = 0; call < (kinds ? N_KINDS : N_CALLS); call++) {
        count += refused(kinds ? call + 100 : AF_INET);
        if (kinds) continue;
        for (int fd = 1; fd < 3; fd++)
            for (long left = fd == 1 ? N_OUT : N_ERR; left > 0;) {
                long n = write(fd, block, left);
                if (n > 0) left -= n; else if (errno != EINTR) return 9;
            }
    }
    struct itimerval never = {{0, 0}, {0, 0}};
    setitimer(ITIMER_REAL, &never, 0);
    printf("%ld\n", count);
    return ticks ? 0 : 8;
}
"""
_NUMBERS = {"N_CALLS": CALLS, "N_KINDS": KINDS, "N_OUT": _OUT, "N_ERR": _ERR}

# A Python plugin has read its call before it can do anything, so here the outputs alone are blocked.
_PYTHON = f"""
import signal, os, socket, threading, time
ticks = []

def refused():
    while True:
        try: socket.socket()
        except InterruptedError: continue  # before the supervisor had the call
        except PermissionError: return 1
        return 0

@plugin.method
def go(**unread):
    signal.signal(signal.SIGALRM, lambda *a: ticks.append(1))
    signal.setitimer(signal.ITIMER_REAL, 0.005, 0.005)
    over = []
    def flood(fd):
        for _ in range(3500):  # both together stay below the cap, however long the storm takes
            if over: return
            os.write(fd, b"x" * 8192)
            time.sleep(0.001)
    threads = [threading.Thread(target=flood, args=(fd,)) for fd in (1, 2)]
    for t in threads: t.start()
    count = sum(refused() for _ in range({CALLS}))
    over.append(1)
    for t in threads: t.join()
    signal.setitimer(signal.ITIMER_REAL, 0)
    return count if ticks else -1
"""

_NEIGHBOUR = """
import socket
@plugin.method
def go():
    count = 0
    for _ in range(500):
        try: socket.socket()
        except PermissionError: count += 1
    return count
"""


def _source(*, restart: bool) -> str:
    numbers = {**_NUMBERS, "RESTART": "SA_RESTART" if restart else "0"}
    return "".join(f"#define {name} {value}\n" for name, value in numbers.items()) + _NATIVE


@contextlib.contextmanager
def _kernel(directory: Path, *, old: bool) -> Iterator[None]:
    """This kernel, or one before 5.19."""
    with weak.broken(directory, _OLD_KERNEL, 71) if old else contextlib.nullcontext():
        yield


def _native(home: Home, method: str, *, restart: bool, denials: int = 1_000_000) -> Outcome:
    methods = {"storm": {"summary": "storms"}, "kinds": {"summary": "storms in many ways"}}
    return run_file(
        home, static_program(_source(restart=restart)), generous(home), method=method, methods=methods,
        input=UNREAD, limits={**_LIMITS, "output_bytes": _OUTPUT_BYTES, "denials": denials}, permissions=ASKS,
    )  # fmt: skip


def _all_refused(outcome: Outcome, calls: int) -> None:
    """The guest saw each refused; the record has each, in one line."""
    assert (outcome.code, outcome.result) == (0, calls), (outcome.code, outcome.error, outcome.limit)
    if "denial-report" not in outcome.layers_active:
        pytest.skip(REPORTED)
    (denial,) = [d for d in outcome.denials if d.source == "kernel"]
    # A call that a signal interrupted between its fetch and its answer came twice.
    assert denial.call == "socket"
    assert calls <= denial.count <= calls * 1.5


def _audited(home: Home) -> int:
    """Bytes of the whole audit log."""
    return sum(path.stat().st_size for path in Path(home.supervisor().places.audit).rglob("*.jsonl"))


@pytest.mark.parametrize(
    ("old", "restart"), [(False, True), (True, True), (True, False)], ids=["killable", "old", "old_interrupted"]
)  # fmt: skip
def test_a_native_storm_ends_well_and_small(old: bool, restart: bool, home: Home) -> None:
    """Every byte of both outputs and every refusal arrives; the input is never read."""
    with _kernel(home.root, old=old):
        outcome = _native(home, "storm", restart=restart)
    _all_refused(outcome, CALLS)
    assert len(outcome.stderr) == _ERR * CALLS
    assert _OUTPUT_BYTES - 1024 < outcome.usage.output_bytes <= _OUTPUT_BYTES
    assert 0 < _audited(home) < _AUDIT_BYTES_MAX


def test_a_python_storm_leaves_a_neighbour_its_pace(home: Home) -> None:
    """Two runs share this process and its interpreter: the storm's loop may not keep the other's waiting."""
    alone = home.attack(_NEIGHBOUR)
    storm: list[Outcome] = []

    def rage() -> None:
        limits = {**_LIMITS, "output_bytes": 64 * MIB}
        storm.append(home.attack(_PYTHON, generous(home), limits=limits, input=UNREAD))

    thread = threading.Thread(target=rage)
    with _kernel(home.root, old=True):
        thread.start()
        beside = []
        while thread.is_alive() and len(beside) < 10:
            beside.append(home.attack(_NEIGHBOUR))
        thread.join()
    _all_refused(storm[0], CALLS)
    assert [outcome.result for outcome in (alone, *beside)] == [500] * (1 + len(beside))
    assert len(beside) > 1, "the storm was over before anybody noticed"
    slowest = max(outcome.usage.wall_ms for outcome in beside)
    print(f"neighbour: {alone.usage.wall_ms} ms alone, at most {slowest} ms beside the storm "
          f"(ratio {slowest / max(1, alone.usage.wall_ms):.1f}, {len(beside)} runs)")  # fmt: skip
    assert slowest < 10_000, "a third of its own wall limit"


def test_refusals_of_ever_new_kinds_fill_no_record(home: Home) -> None:
    """Each of twenty thousand is another kind: some are told apart, all are counted, the log stays small."""
    outcome = _native(home, "kinds", restart=True)
    assert outcome.result == KINDS, outcome.error
    if "denial-report" not in outcome.layers_active:
        pytest.skip(REPORTED)
    assert len(outcome.denials) <= DISTINCT_MAX + 1
    assert outcome.denials[-1].call == "(others)"
    assert sum(denial.count for denial in outcome.denials) >= KINDS
    assert 0 < _audited(home) < _AUDIT_BYTES_MAX


def test_a_storm_over_its_limit_of_refusals_is_ended_by_it(home: Home) -> None:
    """At the first one over: the loop does not first serve what is queued."""
    outcome = _native(home, "storm", restart=True, denials=1000)
    if "denial-report" not in outcome.layers_active:
        pytest.skip(REPORTED)
    assert outcome.limit is not None, outcome
    assert (outcome.limit.name, outcome.limit.value, outcome.code) == ("denials", 1000, 7)
    total = sum(denial.count for denial in outcome.denials if denial.source == "kernel")
    assert 1000 < total <= 1000 + 64 + 1, "one turn of the loop, and no more"
