"""Starting boot: the very first thing that a run does, before anything else is imported.

posix_spawn only: never preexec_fn, never fork. The child gets its standard streams, the call channel
and the control socket, an empty environment and a process group of its own, so that a Ctrl-C meant for
the supervisor does not reach it. This module imports next to nothing: each millisecond here delays boot.
"""

import _socket
import fcntl
import os
import sys

import plugsec
import plugsec_plugins
import plugsec_signing

BOOT_SCRIPT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "boot.py")
_SIGKILL = 9
_FD_FLOOR = 20  # above every target, so that no dup2 overwrites a source still to come


class Spawned:
    """A started boot: its pid and pidfd, our end of the control socket, and our ends of its streams.

    `streams` are stdin (to write), stdout, stderr (to read) and the call channel, all non-blocking.
    """

    __slots__ = ("control", "pid", "pidfd", "streams")

    def __init__(self, pid: int, pidfd: int, control: int, streams: "tuple[int, int, int, int]") -> None:
        self.pid, self.pidfd, self.control, self.streams = pid, pidfd, control, streams


def spawn() -> Spawned:
    """Start boot, which waits on its control socket; raises OSError and then leaves nothing behind."""
    ours: list[int] = []
    theirs: list[int] = []
    pid = 0
    try:
        control, control_child = _pair(_socket.SOCK_SEQPACKET, ours, theirs)
        rpc, rpc_child = _pair(_socket.SOCK_STREAM, ours, theirs)
        stdin_child, stdin = _pipe(theirs, ours)
        stdout, stdout_child = _pipe(ours, theirs)
        stderr, stderr_child = _pipe(ours, theirs)
        # In the order of their numbers in the child: 0 to 2, RPC_FD, CONTROL_FD.
        sources = (stdin_child, stdout_child, stderr_child, rpc_child, control_child)
        raised: list[int] = []
        for fd in sources:
            raised.append(fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _FD_FLOOR))
            theirs.append(raised[-1])
        actions = [(os.POSIX_SPAWN_DUP2, fd, target) for target, fd in enumerate(raised)]
        interpreter = os.path.realpath(sys.executable)
        argv = [interpreter, "-I", "-S", "-B", BOOT_SCRIPT, *package_roots()]
        pid = os.posix_spawn(interpreter, argv, {}, file_actions=actions, setpgroup=0)
        streams = (stdin, stdout, stderr, rpc)
        for fd in streams:
            os.set_blocking(fd, False)
        pidfd = os.pidfd_open(pid)
    except OSError:
        for fd in ours:
            os.close(fd)
        if pid:
            os.kill(pid, _SIGKILL)
            os.waitpid(pid, 0)
        raise
    finally:
        for fd in theirs:
            os.close(fd)
    return Spawned(pid, pidfd, control, streams)


def package_roots() -> list[str]:
    """The directories from which boot imports the sandbox, the guest SDK and what its records are made of."""
    roots: list[str] = []
    for module in (plugsec, plugsec_plugins, plugsec_signing):
        root = os.path.dirname(os.path.dirname(os.path.abspath(str(module.__file__))))
        if root not in roots:
            roots.append(root)
    return roots


def _pair(kind: int, ours: list[int], theirs: list[int]) -> tuple[int, int]:
    first, second = (end.detach() for end in _socket.socketpair(_socket.AF_UNIX, kind))
    ours.append(first)
    theirs.append(second)
    return first, second


def _pipe(readers: list[int], writers: list[int]) -> tuple[int, int]:
    read, write = os.pipe()
    readers.append(read)
    writers.append(write)
    return read, write
