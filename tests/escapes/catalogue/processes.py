"""Other processes: not signalled, not outlived; nothing that a plugin starts survives its answer.

The victim is a process of the host with the jail's own kernel user, so that permissions alone would let
the plugin kill it. What a plugin leaves behind is counted from outside, by its pid namespace.
"""

import json
import threading
from collections.abc import Mapping

from catalogue.interface import ESCAPE, Attack, Batch, Scene, started
from kit.outside import (
    all_gone,
    canary,
    cgroup_directories,
    eventually,
    fixed_identity,
    lives,
    victim,
    watched,
)
from plugsec.outcome import Outcome

CHILDREN = '[[grant]]\nid = "children"\nplugins = ["*"]\nprocess = 32\n'
ASKS = ({"name": "process", "max": 32, "reason": "starts children"},)

KILL_GUEST = """
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
_KILLS = ("kill", "its group", "tkill", "tgkill", "a queued signal", "through a handle", "through /proc")

# Each leaves something behind, and the plugin goes on.
SURVIVORS = {
    "a child": "os.fork() or time.sleep(600)",
    "a child of its own session": "os.fork() or (os.setsid(), time.sleep(600))",
    "a daemon, twice forked": "os.fork() or (os.setsid(), os.fork() and os._exit(0), time.sleep(600))",
    "a grandchild that holds both outputs": "os.fork() or (os.fork() and os._exit(0), os.write(1, b'here'), "
    "time.sleep(600))",
    "a child that ignores every signal": "os.fork() or ([signal.signal(n, signal.SIG_IGN) for n in range(1, 32)"
    " if n not in (9, 19)], time.sleep(600))",
    "a stopped child": "os.fork() or os.kill(os.getpid(), signal.SIGSTOP)",
    "a busy child": "os.fork() or [None for _ in iter(int, 1)]",
    "a thread": "threading.Thread(target=time.sleep, args=(600,)).start()",
    "a child that shares everything": "child_of_clone(0x8000 | 17)",
}  # fmt: skip
SURVIVOR_GUEST = """
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
def go(leave_behind, until=""):
    for act in leave_behind:
        eval(act)
    time.sleep(0.3)
    while until and not os.path.exists(until):
        time.sleep(0.02)
    return "left"
"""
_INSIDE_GUEST = """
import os, signal, time
@plugin.method
def go():
    child = os.fork()
    if child == 0:
        time.sleep(60)
    for number in (signal.SIGTERM, signal.SIGSTOP, signal.SIGKILL, signal.SIGQUIT):
        for pid in (os.getppid(), 1):
            os.kill(pid, number)
    os.kill(-1, signal.SIGKILL)
    return os.waitpid(child, 0)[1]
"""
_HOLDS_ALONE = "a process of the host is not killed: "
_NAMESPACE = "with children allowed, a process of the host is not killed: "
_EVERYBODY = "killing the parent, the first process and everybody reaches only the plugin's own"
_LEFT = "nothing outlives the answer: "


def _killing(scene: Scene, before: str, *policies: str, **more: object) -> Mapping[str, str]:
    with fixed_identity(), victim() as pid:
        call = json.dumps({"pid": pid}).encode()
        outcome = started(scene.home.attack(KILL_GUEST, *policies, input=call, **more))
        assert outcome.error is None, outcome.error
        if not lives(pid):
            return {before + name: "the victim died" for name in _KILLS}
    return {before + name: said for name, said in outcome.result.items()}


def _alone(scene: Scene) -> Mapping[str, str]:
    return _killing(scene, _HOLDS_ALONE)


def _with_children(scene: Scene) -> Mapping[str, str]:
    return _killing(scene, _NAMESPACE, scene.home.policy(CHILDREN), permissions=ASKS)


def _everybody(scene: Scene) -> Mapping[str, str]:
    with fixed_identity(), victim() as pid:
        outcome = started(scene.home.attack(_INSIDE_GUEST, scene.home.policy(CHILDREN), permissions=ASKS))
        reached = "its own child" if outcome.result == 9 else repr(outcome)
        return {_EVERYBODY: reached if lives(pid) else "the victim died"}


def _survivors(scene: Scene) -> Mapping[str, str]:
    """The plugin answers when a file appears that it may read: as soon as all of them were seen."""
    outcomes: list[Outcome] = []
    with fixed_identity(), canary() as own, watched() as seen:
        policy = scene.home.policy(f'{CHILDREN}"fs.read" = ["{own.directory}"]\n')
        asked = (*ASKS, {"name": "fs.read", "paths": [str(own.directory)], "reason": "waits"})
        call = {"leave_behind": list(SURVIVORS.values()), "until": str(own.directory / "go")}
        run = threading.Thread(
            target=lambda: outcomes.append(
                scene.home.attack(
                    SURVIVOR_GUEST,
                    policy,
                    permissions=asked,
                    input=json.dumps(call).encode(),
                    limits={"wall_ms": 60_000},
                )
            )
        )
        run.start()
        # A thread is no process of its own, but the plugin and the jail's first process are two more.
        appeared = eventually(lambda: len(seen) > len(SURVIVORS) or not run.is_alive())
        (own.directory / "go").touch()
        run.join()
    (outcome,) = map(started, outcomes)
    assert appeared and outcome.result == "left", f"{len(seen)} were seen, {outcome}"
    left = not all_gone(seen) or [name for name in cgroup_directories() if outcome.run_id in name]
    return {_LEFT + name: f"left: {left}" if left else "gone" for name in SURVIVORS}


BATCHES = (
    Batch(
        "ways to kill",
        tuple(
            Attack(_HOLDS_ALONE + name, ESCAPE, "refused", "the victim, alive",
                   ("pid-namespace", "landlock") if name == "tgkill" else ("seccomp", "pid-namespace", "landlock"))
            for name in _KILLS
        ),
        _alone,
    ),
    Batch(
        "ways to kill with children allowed",
        tuple(
            Attack(_NAMESPACE + name, ESCAPE, "refused", "the victim, alive", ("pid-namespace", "landlock"))
            for name in _KILLS
        ),
        _with_children,
    ),
    Batch(
        "killing everybody",
        (Attack(_EVERYBODY, ESCAPE, "its own child", "the victim, alive", ("pid-namespace",)),),
        _everybody,
    ),
    Batch(
        "survivors",
        tuple(
            Attack(_LEFT + name, ESCAPE, "gone", "the host's list of processes", ("pid-namespace", "cgroup"))
            for name in SURVIVORS
        ),
        _survivors,
    ),
)  # fmt: skip
