"""Plugins that will not end, will not stop or want everything: each ends by the limit that the table names.

These disturb each other, so each has a jail of its own. What the supervisor saw is the outcome's limit; that
nothing is left is the host's list of processes.
"""

from collections.abc import Mapping
from typing import NamedTuple

from catalogue.interface import ESCAPE, Attack, Batch, Scene, started
from catalogue.processes import ASKS, CHILDREN
from kit.outside import eventually, fixed_identity, nested_processes

_GUEST = """
import ctypes, itertools, mmap, os, resource, signal, socket, threading, time
libc = ctypes.CDLL(None)
MIB = 1024 * 1024
kept = []

def spin():
    while True: pass

def many(name):
    while True: threading.Thread(target=time.sleep, args=(600,)).start()

def hold(flags):
    while True:
        block = mmap.mmap(-1, 8 * MIB, flags | mmap.MAP_ANONYMOUS)
        for at in range(0, 8 * MIB, 4096): block[at] = 1
        kept.append(block)

def fill(size):
    for n in itertools.count():
        with open(f"/tmp/{n}", "wb", buffering=0) as file:
            while file.tell() < size: file.write(bytes(min(65536, size - file.tell())))

def refused():
    try: socket.socket()
    except OSError: pass

def write(data, *fds):
    while True:
        for fd in fds: os.write(fd, data)

@plugin.method
def go():
    BODY
"""
_MIB = 1024 * 1024
_SLOW = {"wall_ms": 60_000}  # for what another limit has to end, also on an emulated host
_WALL = {"wall_ms": 1000, "cpu_ms": 60_000}
_MEMORY = {**_SLOW, "memory_bytes": 64 * _MIB, "tmp_bytes": 16 * _MIB}
_OUTPUT = {**_SLOW, "output_bytes": 300_000}
_FILES = {**_SLOW, "tmp_bytes": 4 * _MIB, "files": 50, "file_bytes": 2 * _MIB}
_ANSWER = '{"jsonrpc":"2.0","id":2,"result":'


class Ending(NamedTuple):
    """A plugin, its limits, and how its run ends: `limit NAME`, or `exit CODE`."""

    name: str
    ending: str
    limits: dict[str, int]
    body: str
    layers: tuple[str, ...] = ()
    children: bool = False


ENDINGS = (
    # Time: the supervisor's clock, whatever the plugin does about signals
    Ending("a sleep for ever ends", "limit wall", _WALL, "time.sleep(600)"),
    Ending("a C loop that keeps the interpreter ends", "limit wall", _WALL, "sum(iter(int, 1))"),
    Ending("a plugin that stopped itself ends", "limit wall", _WALL, "signal.raise_signal(signal.SIGSTOP)"),
    Ending("a plugin that ignores every signal ends", "limit wall", _WALL,
           "[signal.signal(n, signal.SIG_IGN) for n in range(1, 32) if n not in (9, 19)]; time.sleep(600)"),
    Ending("a plugin that reads for ever ends", "limit wall", _WALL, "os.read(3, 100)"),
    Ending("a busy loop ends", "limit cpu", {**_SLOW, "cpu_ms": 700}, "spin()", ("rlimits", "cgroup")),
    # Memory and processes
    Ending("a growing heap ends", "limit memory", _MEMORY, "while True: kept.append('x' * 100_000)",
           ("cgroup", "rlimits")),
    Ending("shared mappings end", "limit memory", _MEMORY, "hold(mmap.MAP_SHARED)", ("cgroup", "rlimits")),
    Ending("a thread bomb ends", "limit processes", {**_SLOW, "processes": 8}, "many('thread')",
           ("cgroup", "rlimits")),
    Ending("a fork bomb ends", "limit processes", {**_SLOW, "processes": 8},
           "while True: os.fork() or time.sleep(0.01)", ("cgroup", "rlimits", "pid-namespace"), True),
    # Files
    Ending("a full /tmp ends", "limit files", _FILES, "fill(1 * MIB)", ("mount-namespace",)),
    Ending("a /tmp without inodes ends", "limit files", _FILES, "fill(0)", ("mount-namespace",)),
    Ending("a sparse petabyte ends", "limit files", _FILES,
           "os.truncate(os.open('/tmp/x', os.O_CREAT | os.O_RDWR), 1 << 50)", ("rlimits", "mount-namespace")),
    # Output and the call channel
    Ending("endless stdout ends", "limit output", _OUTPUT, "write(b'x' * 65536, 1)"),
    Ending("endless stderr ends", "limit output", _OUTPUT, "write(b'x\\n' * 32768, 2)"),
    Ending("both at once end", "limit output", _OUTPUT, "write(b'x' * 4096, 1, 2)"),
    Ending("a flood of log lines ends", "limit output", _OUTPUT,
           """write(b'{"jsonrpc":"2.0","method":"$/log","params":{"text":"x"}}\\n' * 1000, 3)"""),
    Ending("a frame without end ends", "limit output", _OUTPUT, "write(b'x' * 65536, 3)"),
    Ending("a flood of denied calls ends", "limit denials", {**_SLOW, "denials": 50},
           "while True: refused()", ("denial-report",)),
    # Answers that are none
    Ending("a forged answer to another call fails", "exit 6", _SLOW,
           f"""os.write(3, b'{_ANSWER}"x"}}\\n'.replace(b':2,', b':3,')); os._exit(0)"""),
    Ending("half an answer fails", "exit 6", _SLOW, f"os.write(3, b'{_ANSWER}'); os._exit(0)"),
    Ending("an answer of a thousand levels fails", "exit 6", _SLOW,
           f"os.write(3, b'{_ANSWER}' + b'[' * 1000 + b']' * 1000 + b'}}\\n'); os._exit(0)"),
    Ending("an answer with a duplicate member fails", "exit 6", _SLOW,
           f"""os.write(3, b'{_ANSWER}1,"result":2}}\\n'); os._exit(0)"""),
    Ending("an answer of five thousand digits fails", "exit 6", _SLOW,
           f"os.write(3, b'{_ANSWER}' + b'9' * 5000 + b'}}\\n'); os._exit(0)"),
    Ending("a batch of answers fails", "exit 6", _SLOW,
           f"os.write(3, b'[{_ANSWER}1}}]\\n'); os._exit(0)"),
    Ending("memory overwritten fails", "exit 6", _SLOW, "ctypes.memset(8, 0, 8)"),
)  # fmt: skip


def _try(scene: Scene, ending: Ending) -> str:
    policies = [scene.home.policy(CHILDREN)] if ending.children else []
    code = _GUEST.replace("BODY", ending.body)
    with fixed_identity():
        before = nested_processes()
        outcome = started(
            scene.home.attack(
                code, *policies, permissions=ASKS if ending.children else (), limits=ending.limits
            )
        )
        if not eventually(lambda: not nested_processes() - before):
            return "processes are left"
    if outcome.result is not None:
        return f"it answered: {outcome.result!r}"
    return f"limit {outcome.limit.name}" if outcome.limit else f"exit {outcome.code}"


def _batch(ending: Ending) -> Batch:
    def play(scene: Scene) -> Mapping[str, str]:
        return {ending.name: _try(scene, ending)}

    attack = Attack(ending.name, ESCAPE, ending.ending, "the outcome, the host's processes", ending.layers)
    return Batch(ending.name, (attack,), play)


BATCHES = tuple(_batch(ending) for ending in ENDINGS)
