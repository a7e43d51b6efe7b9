"""Other processes: not seen, not signalled, not traced; nothing of the jail outlives its run.

The victim is a process of the host with the jail's own kernel user, so that permissions alone would let
the plugin kill it.
"""

import json
import os
import signal
from collections.abc import Iterator

import pytest

from kit import weak
from kit.home import Home
from kit.outside import (
    all_gone,
    canary,
    cgroup_directories,
    fixed_identity,
    lives,
    nested_processes,
    victim,
    watched,
)
from plugsec.outcome import Outcome
from plugsec.sandbox import linux

CHILDREN = '[[grant]]\nid = "children"\nplugins = ["*"]\nprocess = 16\n'
ASKS = [{"name": "process", "max": 16, "reason": "starts children"}]

_KILL = """
import ctypes, os, signal, threading
libc = ctypes.CDLL(None, use_errno=True)
CALLS = {"x86_64": (62, 200, 234, 129, 424, 434), "aarch64": (129, 130, 131, 138, 424, 434)}[os.uname().machine]
KILL, TKILL, TGKILL, QUEUE, SEND, OPEN = CALLS

def check(result):
    if result < 0:
        raise OSError(ctypes.get_errno(), "refused")
    return result

@plugin.method
def go(pid):
    said = {}
    for name, way in {
        "kill": lambda: check(libc.syscall(KILL, pid, 9)),
        "its group": lambda: check(libc.syscall(KILL, -pid, 9)),
        "tkill": lambda: check(libc.syscall(TKILL, pid, 9)),
        "tgkill": lambda: check(libc.syscall(TGKILL, pid, pid, 9)),
        "a queued signal": lambda: check(libc.syscall(QUEUE, pid, 9, ctypes.create_string_buffer(128))),
        "through a handle": lambda: check(libc.syscall(SEND, check(libc.syscall(OPEN, pid, 0)), 9, None, 0)),
        "through /proc": lambda: check(libc.syscall(SEND, os.open(f"/proc/{pid}", os.O_RDONLY), 9, None, 0)),
    }.items():
        try:
            way()
            said[name] = "done"
        except OSError as error:
            said[name] = "refused"
    return said
"""


@pytest.fixture(autouse=True)
def own_identity() -> Iterator[None]:
    """Jails of this room run as `jail_uid()`, so that their processes can be told from everybody else's."""
    with fixed_identity():
        yield


def _kill(home: Home, pid: int, *policies: str, **more: object) -> Outcome:
    outcome = home.attack(_KILL, *policies, input=json.dumps({"pid": pid}).encode(), **more)
    assert outcome.error is None, outcome.error
    return outcome


def test_a_process_of_the_host_is_not_killed(home: Home) -> None:
    """By no call that sends signals."""
    with victim() as pid:
        assert set(_kill(home, pid).result.values()) == {"refused"}
        assert lives(pid)


def test_with_children_a_process_of_the_host_is_not_killed(home: Home) -> None:
    """The `process` permission allows kill: the pid namespace is what keeps it inside."""
    with victim() as pid:
        told = _kill(home, pid, home.policy(CHILDREN), permissions=ASKS)
        assert set(told.result.values()) == {"refused"}
        assert lives(pid)


@pytest.mark.parametrize(
    ("missing", "survives"),
    [
        (("seccomp",), True),
        (("pid-namespace",), True),
        (("seccomp", "pid-namespace"), None),
        (("seccomp", "pid-namespace", "landlock"), False),
    ],
    ids=["the pid namespace holds alone", "seccomp holds alone", "Landlock's scope", "without all it dies"],
)
def test_layers_before_a_process_of_the_host(
    missing: tuple[str, ...], survives: bool | None, home: Home
) -> None:
    """Landlock scopes signals from ABI 6 on."""
    if survives is None:
        survives = linux.landlock_abi() >= 6
    with victim() as pid:
        with weak.without(home.root, *missing):
            _kill(home, pid)
        assert lives(pid) is survives


def test_the_parent_and_everybody_are_not_killed(home: Home) -> None:
    """kill(getppid()), kill(1), kill(-1), kill(0): the supervisor lives to tell, and so does the victim."""
    code = """
import os, signal, time
@plugin.method
def go():
    child = os.fork()
    if child == 0:
        time.sleep(60)
    said = []
    for number in (signal.SIGTERM, signal.SIGSTOP, signal.SIGKILL, signal.SIGQUIT):
        for pid in (os.getppid(), 1):
            os.kill(pid, number)
    os.kill(-1, signal.SIGKILL)
    return os.waitpid(child, 0)[1]
"""
    with victim() as pid:
        outcome = home.attack(code, home.policy(CHILDREN), permissions=ASKS)
        assert outcome.result == signal.SIGKILL, "its own child is all that it reached"
        assert lives(pid)
        home.attack(
            "import os\n@plugin.method\ndef go(): os.killpg(0, 9)\n", home.policy(CHILDREN), permissions=ASKS
        )
        assert lives(pid)


def test_processes_of_the_host_are_not_seen(home: Home) -> None:
    """Neither in /proc nor by asking for them."""
    code = """
import os
@plugin.method
def go(pid):
    seen = [name for name in os.listdir("/proc") if name.isdigit()] if os.path.isdir("/proc/self") else []
    asked = []
    for ask in (os.getsid, os.getpgid, os.sched_getaffinity, os.sched_getscheduler):
        try:
            asked.append(str(ask(pid)))
        except OSError:
            pass
    return [seen, asked]
"""
    with victim() as pid:
        seen, asked = home.attack(code, input=json.dumps({"pid": pid}).encode()).result
    assert set(seen) <= {"1", "2"}
    assert asked == []


def test_the_first_process_shows_nothing(home: Home) -> None:
    """Its memory, files, root and environment are closed: it holds the control socket."""
    code = """
import os
@plugin.method
def go():
    open_ = {}
    for name in ("mem", "maps", "environ", "root", "cwd", "exe", "fd", "fdinfo", "ns", "map_files", "auxv", "syscall",
                 "stack", "io", "smaps", "pagemap", "personality"):
        path = "/proc/1/" + name
        try:
            if name in ("root", "cwd", "exe"):
                open_[name] = os.readlink(path)
            elif name in ("fd", "ns", "fdinfo", "map_files"):
                open_[name] = [os.readlink(f"{path}/{n}") for n in os.listdir(path)]
            else:
                with open(path, "rb") as file:
                    open_[name] = len(file.read(64))
        except OSError:
            pass
    return open_
"""
    assert home.attack(code).result == {}


def test_the_supervisor_cannot_be_reached_through_the_call_channel(home: Home) -> None:
    """A handle on the channel's peer would be one on a process outside; no signal goes through it."""
    code = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
@plugin.method
def go():
    fd, size = ctypes.c_int(-1), ctypes.c_uint(4)
    got = libc.getsockopt(3, 1, 77, ctypes.byref(fd), ctypes.byref(size))
    sent = libc.syscall(424, fd.value, 15, None, 0)
    return [got, sent]
"""
    terminated: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: terminated.append(number))
    try:
        outcome = home.attack(code, home.policy(CHILDREN), permissions=ASKS)
        with weak.without(home.root, "seccomp"):
            home.attack(code)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert outcome.result == [-1, -1]
    assert terminated == []


# What is left after the end ---------------------------------------------------------------------------------

_SURVIVORS = {
    "a child": "os.fork() or time.sleep(600)",
    "a child of its own session": "os.fork() or (os.setsid(), time.sleep(600))",
    "a daemon, twice forked": "os.fork() or (os.setsid(), os.fork() and os._exit(0), time.sleep(600))",
    "a grandchild that holds both outputs": "os.fork() or (os.fork() and os._exit(0), os.write(1, b'here'), "
    "time.sleep(600))",
    "a child that ignores every signal": "os.fork() or ([signal.signal(n, signal.SIG_IGN) for n in range(1, 32)"
    " if n not in (9, 19)], time.sleep(600))",
    "a stopped child": "os.fork() or os.kill(os.getpid(), signal.SIGSTOP)",
    "a busy child": "os.fork() or [None for _ in iter(int, 1)]",
    "a child that forks for ever": "os.fork() or [os.fork() or (time.sleep(0.01), os._exit(0)) for _ in iter(int, 1)]",
    "a thread": "threading.Thread(target=time.sleep, args=(600,)).start()",
    "a thread that outlives its leader": "threading.Thread(target=lambda: (answer(), time.sleep(600))).start() or "
    "leave()",
    "a child that shares everything": "child_of_clone(0x8000 | 17)",
}  # fmt: skip
_SURVIVOR = """
import ctypes, os, signal, threading, time
libc = ctypes.CDLL(None)
EXIT, CLONE = {"x86_64": (60, 56), "aarch64": (93, 220)}[os.uname().machine]

def leave():
    libc.syscall(EXIT, 0)

def answer():
    os.write(3, b'{"jsonrpc":"2.0","id":2,"result":"left"}\\n')

def child_of_clone(flags):
    if libc.syscall(ctypes.c_long(CLONE), ctypes.c_ulong(flags), None, None, None, None) == 0:
        time.sleep(600)

@plugin.method
def go(leave_behind):
    eval(leave_behind)
    time.sleep(0.3)
    return "left"
"""


@pytest.mark.parametrize("survivor", _SURVIVORS)
def test_nothing_outlives_the_answer(survivor: str, home: Home) -> None:
    """The run ends at once with the plugin's answer, and everything that it started is gone."""
    call = json.dumps({"leave_behind": _SURVIVORS[survivor]}).encode()
    with watched() as seen:
        outcome = home.attack(
            _SURVIVOR, home.policy(CHILDREN), permissions=ASKS, input=call, limits={"wall_ms": 20_000}
        )
    assert outcome.limit is None or outcome.limit.name == "processes", outcome
    if outcome.limit is None:
        assert outcome.result == "left"
    assert seen, "the jail's processes were there to be seen"
    assert all_gone(seen)
    assert not [name for name in cgroup_directories() if outcome.run_id in name]


@pytest.mark.parametrize(
    "code",
    [
        "time.sleep(600)",
        "[signal.signal(n, signal.SIG_IGN) for n in range(1, 32) if n not in (9, 19)] and time.sleep(600)",
        "os.fork() or (os.setsid(), os.fork() and os._exit(0), time.sleep(600)), time.sleep(600)",
        "os.kill(os.getpid(), signal.SIGSTOP)",
    ],
    ids=["a sleeper", "one that ignores every signal", "one with a daemon", "one that stopped itself"],
)
def test_nothing_outlives_the_deadline(code: str, home: Home) -> None:
    """At the limit everything is killed, whatever it does about signals."""
    source = f"import os, signal, time\n@plugin.method\ndef go(): {code}\n"
    with watched() as seen:
        outcome = home.attack(source, home.policy(CHILDREN), permissions=ASKS, limits={"wall_ms": 400})
    assert outcome.limit is not None
    assert outcome.limit.name == "wall"
    assert seen
    assert all_gone(seen)


def test_a_killed_run_leaves_no_zombie(home: Home) -> None:
    """Whoever is pid 1 of this host (in a container often nobody who reaps) gets none of ours to reap."""
    with watched() as seen:
        home.attack("import time\n@plugin.method\ndef go(): time.sleep(600)\n", limits={"wall_ms": 300})
    assert seen
    assert not seen & nested_processes(zombies=True)


def test_without_the_pid_namespace_a_daemon_outlives_its_run(home: Home) -> None:
    """So the process list can tell. The survivor writes to the canary until it is told to stop."""
    code = """
import os, time
@plugin.method
def go(path):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            for _ in range(2000):
                if os.path.exists(path + ".stop"):
                    break
                open(path + ".alive", "a").write("x")
                time.sleep(0.01)
        os._exit(0)
    time.sleep(0.2)
    return "left"
"""
    with canary() as own:
        directory = str(own.directory)
        policy = home.policy(CHILDREN + f'"fs.write" = ["{directory}"]\n"fs.read" = ["{directory}"]\n')
        asked = [
            *ASKS,
            *({"name": name, "paths": [directory], "reason": "x"} for name in ("fs.write", "fs.read")),
        ]
        call = json.dumps({"path": str(own.file)}).encode()
        alive = own.directory / "secret.alive"

        def grows() -> bool:
            size = alive.stat().st_size
            signal.sigtimedwait([], 0.3)
            return alive.stat().st_size > size

        home.attack(code, policy, permissions=asked, input=call)
        assert alive.exists()
        assert not grows()
        try:
            with weak.without(home.root, "pid-namespace", "cgroup"):
                home.attack(code, policy, permissions=asked, input=call)
            assert grows()
        finally:
            (own.directory / "secret.stop").touch()
            os.chmod(own.directory / "secret.stop", 0o644)
            assert not grows() or not grows()
