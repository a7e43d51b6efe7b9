"""The wall limit is kept within 250 ms, whatever a plugin does to outlast it, and nothing of it is left.

Judged by the run's own monotonic figure, which ends when the jail is dead and reaped. A host that is busy
with something else can be late with anything, so the best of three runs counts.
"""

import json

import pytest
from workloads import ASKS, generous, static_program

from kit import weak
from kit.home import Home
from kit.native import run_file
from kit.outside import all_gone, fixed_identity, watched
from plugsec.outcome import Outcome

WALL_MS, LATE_MS = 400, 250
_TRIES = 3

_HELPERS = """
import json, os, signal, socket, threading, time

def stop(): signal.raise_signal(signal.SIGSTOP)

def ignore():
    for number in range(1, 65):
        if number not in (9, 19, 32, 33): signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))

def apart(act):  # a grandchild in a session of its own, whose parent is gone
    if not os.fork():
        os.setsid()
        if not os.fork(): act()
        os._exit(0)

def flood(size=4096):
    while True:
        for fd in (1, 2): os.write(fd, b"x" * size)

def flood_slowly():  # for as long as the cap allows it, in the smallest pieces
    while True:
        for fd in (1, 2): os.write(fd, b"x")

def refuse():
    while True:
        try: socket.socket()
        except OSError: pass

def hang(): time.sleep(600)

def spread(act, count=24):
    for _ in range(count):
        if not os.fork(): act()
    act()
"""

# What `go` does. Nothing here ends by itself.
BODIES = {
    "it stops itself": "stop()",
    "it stops itself and its children": "[os.fork() or stop() for _ in range(4)]; stop()",
    "it ignores and blocks every signal": "ignore(); hang()",
    "it ignores every signal and works": "ignore()\n    while True: pass",
    "it forks twice and waits": "apart(hang); hang()",
    "it forks twice, ignores every signal and stops": "ignore(); apart(stop); stop()",
    "a grandchild holds the pipes": "apart(hang); os.closerange(0, 3); hang()",
    "a grandchild holds the pipes and stops": "apart(stop); apart(hang); os.closerange(0, 100); hang()",
    "it floods both outputs without a newline": "flood()",
    "it floods both outputs by single bytes": "flood_slowly()",
    "children flood both outputs, ignoring every signal": "ignore(); spread(flood, 6)",
    "it floods the call channel with notes": "while True: ctx.log('x' * 1000)",
    "it floods the call channel without a newline": "while True: os.write(3, b'x')",
    "children that work, many at once": "spread(lambda: [0 for _ in iter(int, 1)])",
    "it makes refused calls, ignoring every signal": "ignore(); refuse()",
    "all at once": "ignore(); apart(stop); apart(flood); apart(refuse); spread(flood_slowly, 4)",
}
# Each is one frame, large and slow to decode, and comes just before the deadline.
NOTES = {
    "many small lists": "b'[' + b'[],' * 2_600_000 + b'1]'",
    "many numbers": "b'[' + b'1,' * 3_900_000 + b'1]'",
}
_LIMITS = {"wall_ms": WALL_MS, "cpu_ms": 60_000, "output_bytes": 64 * 1024 * 1024, "denials": 1_000_000}


def _attack(home: Home, body: str) -> Outcome:
    code = f"{_HELPERS}\n@plugin.method\ndef go(*, ctx):\n    {body}\n"
    return home.attack(code, generous(home), permissions=ASKS, limits=_LIMITS)


def _kept(outcome: Outcome) -> bool:
    """Whether the deadline was; what ends earlier must have reached another limit."""
    assert outcome.limit is not None, outcome
    assert outcome.code == 7
    if outcome.limit.name == "wall":
        assert outcome.limit.value == WALL_MS
        assert outcome.usage.wall_ms >= WALL_MS
    else:
        assert outcome.limit.name in {"output", "denials"}, outcome
    return outcome.usage.wall_ms <= WALL_MS + LATE_MS


@pytest.mark.parametrize("how", BODIES)
def test_the_deadline_is_kept_when(how: str, home: Home) -> None:
    """With what this host counts by."""
    with fixed_identity(), watched() as seen:
        kept = any(_kept(_attack(home, BODIES[how])) for _ in range(_TRIES))
    assert kept
    assert seen
    assert all_gone(seen)


@pytest.mark.parametrize("how", ["children that work, many at once", "all at once", "it stops itself"])
def test_the_deadline_is_kept_without_a_cgroup_when(how: str, home: Home) -> None:
    """The monitor's look at many processes does not hold it up."""
    with fixed_identity(), weak.without(home.root, "cgroup"), watched() as seen:
        kept = any(_kept(_attack(home, BODIES[how])) for _ in range(_TRIES))
    assert kept
    assert all_gone(seen)


@pytest.mark.parametrize("what", NOTES)
def test_the_deadline_is_kept_by_a_frame_that_takes_a_second_to_decode(what: str, home: Home) -> None:
    """It is not decoded while the plugin lives."""
    body = f"""
    frame = b'{{"jsonrpc":"2.0","method":"$/log","params":{{"x":' + {NOTES[what]} + b'}}}}\\n'
    view = memoryview(frame)
    while view: view = view[os.write(3, view):]
    hang()
"""
    figures = []
    for _ in range(_TRIES):
        outcome = _attack(home, body.strip())
        figures.append(outcome.usage)
        assert outcome.error is not None
        assert "notification of more than" in outcome.error.message or outcome.limit is not None, outcome
        if outcome.usage.wall_ms <= WALL_MS + LATE_MS:
            return
    pytest.fail(f"never in time: {figures}")


def test_a_large_answer_is_one_though_it_is_decoded_late(home: Home) -> None:
    """Its size decides when it is read, not whether."""
    outcome = home.attack("@plugin.method\ndef go(): return ['x' * 100] * 30_000\n")
    assert outcome.code == 0, outcome
    assert len(outcome.result) == 30_000


def test_what_follows_a_large_answer_changes_nothing(home: Home) -> None:
    """The conversation is over with it."""
    code = """
import json, os, time
@plugin.method
def go():
    answer = {"jsonrpc": "2.0", "id": 2, "result": "x" * 300_000}
    more = {"jsonrpc": "2.0", "id": 2, "result": "other"}
    data = b"".join(json.dumps(frame).encode() + b"\\n" for frame in (answer, more))
    while data: data = data[os.write(3, data):]
    time.sleep(600)
"""
    outcome = home.attack(code)
    assert outcome.result == "x" * 300_000


_NATIVE = r"""
#define _GNU_SOURCE
#include <signal.h>
#include <string.h>
#include <unistd.h>

static char block[4096];
static void flood(void) { for (;;) for (int fd = 1; fd < 3; fd++) if (write(fd, block, sizeof block) < 0) pause(); }

int main(void) {
    char in[200] = "";
    sigset_t all;
    if (read(0, in, sizeof in - 1) < 1) return 9;
    memset(block, ' ', sizeof block);
    for (int number = 1; number < 65; number++) signal(number, SIG_IGN);
    sigfillset(&all);
    sigprocmask(SIG_BLOCK, &all, 0);
    if (strstr(in, "apart") && !fork()) { setsid(); if (fork()) _exit(0); flood(); }
    if (strstr(in, "flood")) flood();
    if (strstr(in, "leave")) _exit(0);
    if (strstr(in, "stop")) raise(SIGSTOP);
    for (;;) pause();
}
"""
NATIVE = ("stop", "flood", "apart stop", "apart flood", "ignore")


@pytest.mark.parametrize("how", NATIVE)
def test_the_deadline_is_kept_by_a_native_program_that_does(how: str, home: Home) -> None:
    """No interpreter between it and the kernel; every signal ignored and blocked."""
    more = {"permissions": ASKS, "limits": _LIMITS, "input": json.dumps({"do": how}).encode()}
    with fixed_identity(), watched() as seen:
        kept = any(
            _kept(run_file(home, static_program(_NATIVE), generous(home), **more)) for _ in range(_TRIES)
        )
    assert kept
    assert all_gone(seen)


def test_a_grandchild_that_holds_the_pipes_does_not_hold_a_run_that_has_ended(home: Home) -> None:
    """The program left; what it left behind dies with it, long before any limit."""
    more = {"permissions": ASKS, "limits": {"wall_ms": 60_000, "output_bytes": 1 << 30},
            "input": b'{"do": "apart leave"}'}  # fmt: skip
    with fixed_identity(), watched() as seen:
        outcome = run_file(home, static_program(_NATIVE), generous(home), **more)
    assert outcome.outcome in {"failed", "limit"}, outcome  # spaces are no result
    assert outcome.usage.wall_ms < 30_000
    assert all_gone(seen)
