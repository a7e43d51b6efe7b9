"""Other processes, layer by layer: not seen, not signalled; nothing of the jail outlives its run.

The victim is a process of the host with the jail's own kernel user, so that permissions alone would let
the plugin kill it.
"""

import json
import os
import signal
from collections.abc import Iterator

import pytest
from catalogue.processes import ASKS, CHILDREN, KILL_GUEST, SURVIVOR_GUEST

from kit import weak
from kit.home import Home
from kit.outside import (
    all_gone,
    canary,
    cgroup_directories,
    eventually,
    fixed_identity,
    lives,
    nested_processes,
    victim,
    watched,
)
from plugsec.outcome import Outcome
from plugsec.sandbox import linux


@pytest.fixture(autouse=True)
def own_identity() -> Iterator[None]:
    """Jails of this room run as `jail_uid()`, so that their processes can be told from everybody else's."""
    with fixed_identity():
        yield


def _kill(home: Home, pid: int, *policies: str, **more: object) -> Outcome:
    outcome = home.attack(KILL_GUEST, *policies, input=json.dumps({"pid": pid}).encode(), **more)
    assert outcome.error is None, outcome.error
    return outcome


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

# These end the plugin's first thread, or never stop forking: each has a jail of its own.
_SURVIVORS = {
    "a child that forks for ever": "os.fork() or [os.fork() or (time.sleep(0.01), os._exit(0)) for _ in iter(int, 1)]",
    "a thread that outlives its leader": "threading.Thread(target=lambda: (answer(), time.sleep(600))).start() or "
    "leave()",
}  # fmt: skip


@pytest.mark.parametrize("survivor", _SURVIVORS)
def test_nothing_outlives_the_answer(survivor: str, home: Home) -> None:
    """The run ends at once with the plugin's answer, and everything that it started is gone."""
    call = json.dumps({"leave_behind": [_SURVIVORS[survivor]]}).encode()
    with watched() as seen:
        outcome = home.attack(
            SURVIVOR_GUEST, home.policy(CHILDREN), permissions=ASKS, input=call, limits={"wall_ms": 20_000}
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
    while not os.path.exists(path + ".alive"):
        time.sleep(0.01)
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
            assert eventually(grows)
        finally:
            (own.directory / "secret.stop").touch()
            os.chmod(own.directory / "secret.stop", 0o644)
            assert eventually(lambda: not grows())
