"""Refused calls: counted by the kernel's word, told apart, explained, and answered at once."""

import signal
import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.home import Home
from plugsec.outcome import Outcome
from plugsec.supervision.denials import DISTINCT_MAX, Denial, DenialCounter, describe, hint

REPORTED = "denial-report: another filter's listener stands in the way on this host"


def test_the_same_call_is_one_kind() -> None:
    """However often: the report stays readable."""
    counter = DenialCounter()
    for _ in range(1000):
        counter.refuse("socket", (2, 1, 0, 0, 0, 0))
    assert [(d.call, d.detail, d.count) for d in counter.collected()] == [("socket", "AF_INET", 1000)]
    assert counter.total == 1000


def test_kinds_are_bounded_and_none_is_lost() -> None:
    """A guest that makes every denial another kind fills no memory, and each is counted."""
    counter = DenialCounter()
    for number in range(DISTINCT_MAX * 3):
        counter.refuse("ioctl", (0, number, 0, 0, 0, 0))
    collected = counter.collected()
    assert len(collected) <= DISTINCT_MAX + 2
    assert sum(denial.count for denial in collected) == counter.total == DISTINCT_MAX * 3


def test_claims_do_not_count_as_refusals() -> None:
    """Only the kernel's are held against the limit."""
    counter = DenialCounter()
    counter.claim("read", "/etc/shadow")
    assert counter.total == 0
    assert [(d.source, d.layer) for d in counter.collected()] == [("claimed", "mount-namespace")]


@given(st.text(max_size=20), st.tuples(*[st.integers(0, 2**64 - 1)] * 6))
def test_any_arguments_are_described(call: str, arguments: tuple[int, ...]) -> None:
    """The guest chooses all six words."""
    assert len(describe(call, arguments)) < 100


@given(
    st.sampled_from(["socket", "ioctl", "kill", "mmap", "clone", "prctl", "personality", "unshare", "x"]),
    st.tuples(*[st.integers(0, 2**64 - 1)] * 6),
)
def test_the_arguments_that_matter_are_described(call: str, arguments: tuple[int, ...]) -> None:
    """In words or in numbers, never in a traceback."""
    text = describe(call, arguments)
    assert text == "" if call == "x" else text
    assert text.isprintable()


EXPLAINED = {
    "an IPv6 socket": ("socket", (10, 1, 0, 0, 0, 0), "AF_INET6"),
    "a family in the high bits": ("socket", (1 << 32 | 2, 1, 0, 0, 0, 0), "AF_INET"),
    "an unknown family": ("socket", (99, 1, 0, 0, 0, 0), "family 99"),
    "a signal to everybody": ("kill", (0xFFFFFFFFFFFFFFFF, 9, 0, 0, 0, 0), "pid -1, SIGKILL"),
    "a signal to a group": ("kill", (0xFFFFFF85, 15, 0, 0, 0, 0), "pid -123, SIGTERM"),
    "typing into a terminal": ("ioctl", (0, 1 << 32 | 0x5412, 0, 0, 0, 0), "request 0x5412"),
    "memory to execute": ("mmap", (0, 4096, 7, 34, 0, 0), "executable memory"),
    "a namespace": ("unshare", (0x10000000, 0, 0, 0, 0, 0), "flags 0x10000000"),
}


@pytest.mark.parametrize("what", EXPLAINED)
def test_explained(what: str) -> None:
    """What a reader of the report needs to know."""
    call, arguments, text = EXPLAINED[what]
    assert describe(call, arguments) == text


HINTED = {
    "a signal": Denial("seccomp", "kill", "pid 1, SIGKILL", 1, "kernel", ""),
    "a fork": Denial("seccomp", "clone", "flags 0x11", 1, "kernel", ""),
    "a program": Denial("seccomp", "execve", "", 1, "kernel", ""),
    "memory to execute": Denial("seccomp", "mprotect", "executable memory", 1, "kernel", ""),
    "a file read": Denial("mount-namespace", "read", "/srv/data/x.txt", 1, "claimed", ""),
    "a file written": Denial("mount-namespace", "write", "/srv/data/x.txt", 1, "claimed", ""),
    "a directory listed": Denial("mount-namespace", "listdir", "/srv/data", 1, "claimed", ""),
    "a file with quotes in its name": Denial("mount-namespace", "read", '/srv/a"b\\c', 1, "claimed", ""),
    "a file with a newline in its name": Denial("mount-namespace", "read", "/srv/a\nb", 1, "claimed", ""),
    "a file with an escape in its name": Denial("mount-namespace", "read", "/srv/a\x1b[2Jb", 1, "claimed", ""),
    "a file that names a table": Denial("mount-namespace", "read", '/x"]\n[[permission]]\nname = "jit', 1, "claimed", ""),
}  # fmt: skip


@pytest.mark.parametrize("what", HINTED)
def test_a_hint_is_one_line_that_a_manifest_takes(what: str) -> None:
    """It is typed into plugin.toml as it stands; a path is the plugin's text and must not become more."""
    denial = HINTED[what]
    text = hint(denial.call, denial.detail, denial.source)
    if not text:
        return
    assert "\n" not in text
    lines = text.replace("]] ", "]]\n", 1)
    for name in (", paths", ", max", ", programs", ", count"):
        lines = lines.replace(name, f"\n{name[2:]}", 1)
    permissions = tomllib.loads(lines)["permission"]
    assert len(permissions) == 1
    if denial.source == "claimed":
        assert permissions[0]["paths"] == [denial.detail]


def test_a_hinted_permission_is_one_that_the_manifest_knows(home: Home) -> None:
    """`process` was once hinted with a field that does not exist."""
    text = hint("clone", "flags 0x11", "kernel").replace("]] ", "]]\n", 1).replace(", ", "\n")
    permission = tomllib.loads(text)["permission"][0]
    outcome = home.attack("@plugin.method\ndef go(): return 1\n", permissions=[{**permission, "reason": "x"}])
    assert outcome.code == 1, outcome  # understood, and not granted by strict


# In a jail -------------------------------------------------------------------------------------------------


def _storm(home: Home, calls: int, body: str, **more: object) -> Outcome:
    code = f"""
import os, signal, socket, threading, time
def refused():
    while True:
        try: socket.socket()
        except InterruptedError: continue  # a handler without SA_RESTART, before the supervisor had the call
        except PermissionError: return 1
        return 0
CALLS = {calls}
@plugin.method
def go(**rest):
{body}
"""
    return home.attack(code, "builtin:dev", **more)  # which allows 100,000 denials


def test_every_refused_call_gets_its_answer(home: Home) -> None:
    """Thousands from several threads at once; none is lost, none hangs."""
    body = """
    done = []
    def work(): done.append(sum(refused() for _ in range(CALLS)))
    threads = [threading.Thread(target=work) for _ in range(4)]
    for t in threads: t.start()
    for t in threads: t.join()
    return sum(done)
"""
    outcome = _storm(home, 1000, body)
    assert outcome.result == 4000
    if "denial-report" not in outcome.layers_active:
        pytest.skip(REPORTED)
    assert [(d.call, d.count) for d in outcome.denials if d.source == "kernel"] == [("socket", 4000)]


def test_a_storm_of_signals_and_floods_neither_hangs_nor_loses_a_call(home: Home) -> None:
    """A 5 ms timer interrupts the waiting calls, both outputs are flooded, and eight megabytes of input wait."""
    body = """
    signal.signal(signal.SIGALRM, lambda *a: None)
    signal.setitimer(signal.ITIMER_REAL, 0.005, 0.005)
    over = []
    def flood(fd):
        while not over: os.write(fd, b"x" * 4096); time.sleep(0.001)
    threads = [threading.Thread(target=flood, args=(fd,)) for fd in (1, 2)]
    for t in threads: t.start()
    count = sum(refused() for _ in range(CALLS))
    over.append(1)
    for t in threads: t.join()
    signal.setitimer(signal.ITIMER_REAL, 0)
    return count
"""
    big = b'{"text":"' + b"y" * 8_000_000 + b'"}'
    outcome = _storm(home, 5000, body, input=big)
    assert outcome.result == 5000, outcome


def test_a_caller_killed_while_it_waits_is_no_failure_of_ours(home: Home) -> None:
    """The answer finds nobody (ENOENT), which is normal."""
    body = """
    for _ in range(20):
        child = os.fork()
        if child == 0:
            while True: refused()
        time.sleep(0.005)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    return 1
"""
    asked = [{"name": "process", "max": 4, "reason": "x"}]
    code = f"import os, signal, socket, time\ndef refused():\n    try: socket.socket()\n    except OSError: pass\n@plugin.method\ndef go():\n{body}"
    outcome = home.attack(code, "builtin:dev", permissions=asked)
    assert outcome.result == 1, outcome


def test_refused_calls_of_a_neighbour_slow_nobody(home: Home) -> None:
    """Two runs in one process, one storming: each has its own loop and its own listener."""
    import threading

    storm = "    while True: refused()\n"
    outcomes: list[Outcome] = []
    thread = threading.Thread(
        target=lambda: outcomes.append(_storm(home, 0, storm, limits={"wall_ms": 1500, "denials": 100_000}))
    )
    thread.start()
    quiet = [home.attack("@plugin.method\ndef go(): return 1\n").result for _ in range(3)]
    thread.join()
    assert quiet == [1, 1, 1]
    assert outcomes[0].limit is not None
    assert outcomes[0].limit.name in {"wall", "denials"}


def test_the_default_signal_dispositions_are_in_force(home: Home) -> None:
    """Writing to a closed pipe kills with SIGPIPE, as a C program expects and Python hides."""
    code = (
        "import os\n@plugin.method\ndef go():\n    r, w = os.pipe()\n    os.close(r)\n    os.write(w, b'x')\n"
    )
    outcome = home.attack(code)
    assert outcome.error is not None
    assert signal.SIGPIPE.name in outcome.error.message
