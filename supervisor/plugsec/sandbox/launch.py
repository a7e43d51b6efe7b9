"""The parent's side of the jail: start boot early, hand it its spec, follow it in, and end it.

    spawn() ──▶ Boot (waiting, has done nothing) ──enter()──▶ Jail (entered, waiting for go()) ──▶ ended

Boot is spawned before verification finishes, so that the interpreter's start overlaps it; without a
grant it is killed having done nothing. posix_spawn only: never preexec_fn, never fork.
"""

import _socket
import fcntl
import os
import resource
import select
import signal
import sys
import time
from typing import Any

import plugsec
import plugsec_plugins
from plugsec.errors import HostUnsupported
from plugsec.sandbox import control
from plugsec.sandbox import spec as spec_module
from plugsec.sandbox.identity import Identity
from plugsec.sandbox.spec import CONTROL_FD, JAIL_UID, RPC_FD, SandboxSpec

BOOT_SCRIPT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "boot.py")
ENTER_TIMEOUT_S = 60.0  # an emulated or overloaded host still enters; a wedged one is given up
_REAP_TIMEOUT_S = 10.0
_DESCRIPTORS = ("stdin", "stdout", "stderr", "rpc", "init_pidfd", "pidfd", "listener", "tmp", "output")
_FD_FLOOR = 20  # above every target, so that no dup2 overwrites a source still to come


class EnterFailed(Exception):
    """Boot could not apply a layer. `layer`, `step`, `errno` and `detail` are as it reported."""

    def __init__(self, layer: str, step: str, errno: int, detail: str) -> None:
        super().__init__(f"{layer}: {step}: {detail}")
        self.layer, self.step, self.errno, self.detail = layer, step, errno, detail


class Boot:
    """A spawned interpreter that waits for a spec. Every descriptor is ours until closed."""

    def __init__(self, pid: int, pidfd: int, sock: _socket.socket, streams: dict[str, int]) -> None:
        self.pid = pid
        self.pidfd = pidfd
        self.sock = sock
        self.stdin = streams["stdin"]
        self.stdout = streams["stdout"]
        self.stderr = streams["stderr"]
        self.rpc = streams["rpc"]
        self.init_pidfd = -1
        self.listener = -1
        self.output = -1
        self.entered: dict[str, Any] = {}
        self.tmp = -1
        self._ended = False
        self._usage: resource.struct_rusage | None = None

    def join(self, procs: list[int]) -> None:
        """Have boot enter a cgroup by its cgroup.procs descriptors, which are closed here."""
        control.send(self.sock, {"do": "cgroup"}, tuple(procs))
        for fd in procs:
            os.close(fd)

    def enter(self, spec: SandboxSpec, identity: Identity, payload_fd: int, inputs: tuple[int, ...]) -> None:
        """Hand over the spec and follow boot through every layer; raises EnterFailed or HostUnsupported."""
        spec_fd = sealed_memory("spec", spec_module.encode(spec))
        try:
            control.send(self.sock, {"do": "enter"}, (spec_fd, payload_fd, *inputs))
        except OSError as error:
            raise EnterFailed("boot", "send the spec", error.errno or 0, str(error)) from error
        finally:
            os.close(spec_fd)
        deadline = time.monotonic() + ENTER_TIMEOUT_S
        while self.init_pidfd < 0 or not self.entered:
            message, descriptors = self._receive(deadline)
            match message["at"]:
                case "unshared":
                    write_id_maps(self.pid, identity)
                    control.send(self.sock, {"do": "mapped"})
                case "init":
                    self.init_pidfd = descriptors[0]
                case "entered":
                    self.entered = message
                    held = list(descriptors)
                    self.tmp = held.pop(0)
                    self.output = held.pop(0) if spec.output else -1
                    self.listener = held.pop(0) if held else -1
                case "failed":
                    raise EnterFailed(message["layer"], message["step"], message["errno"], message["detail"])
                case "exited":
                    raise EnterFailed("boot", "enter", 0, "the first process ended before it had entered")

    def go(self) -> None:
        """Let the plugin start; call it once the run's start is durable."""
        control.send(self.sock, {"do": "go"})

    def probe(self, layer: str, identity: Identity) -> dict[str, Any]:
        """Ask boot to try one layer in its own throw-away process; returns its report."""
        control.send(self.sock, {"do": "probe", "layer": layer})
        deadline = time.monotonic() + ENTER_TIMEOUT_S
        while True:
            message, descriptors = self._receive(deadline)
            for fd in descriptors:
                os.close(fd)
            if message["at"] != "unshared":
                return message
            write_id_maps(self.pid, identity)
            control.send(self.sock, {"do": "mapped"})

    def kill(self) -> None:
        """SIGKILL to the jail's pid 1, which takes its whole namespace, and to boot."""
        for fd in (self.init_pidfd, self.pidfd):
            if fd >= 0:
                try:
                    signal.pidfd_send_signal(fd, signal.SIGKILL)
                except ProcessLookupError:
                    continue

    def end(self) -> resource.struct_rusage | None:
        """Kill, and wait until nothing of the jail is left; returns what all of it used.

        The streams stay open, so that what was already written can be read to its end.
        """
        if self._usage is not None or self._ended:
            return self._usage
        self._ended = True
        self.kill()
        for fd in (self.init_pidfd, self.pidfd):
            if fd >= 0:
                poll = select.poll()
                poll.register(fd, select.POLLIN)
                poll.poll(_REAP_TIMEOUT_S * 1000)
        try:
            self._usage = os.wait4(self.pid, 0)[2]
        except ChildProcessError:
            pass  # the host application reaps children of its own
        return self._usage

    def reap(self) -> None:
        """End the jail and close every descriptor; once, and harmless afterwards."""
        self.end()
        self.sock.close()
        for name in _DESCRIPTORS:
            self.close(name)

    def close(self, name: str) -> None:
        """Close one of the descriptors by its attribute's name, once."""
        fd = getattr(self, name)
        if fd >= 0:
            setattr(self, name, -1)
            os.close(fd)

    def _receive(self, deadline: float) -> tuple[dict[str, Any], tuple[int, ...]]:
        poll = select.poll()
        poll.register(self.sock.fileno(), select.POLLIN)
        left = deadline - time.monotonic()
        if left <= 0 or not poll.poll(left * 1000):
            raise EnterFailed("boot", "wait", 0, f"no answer within {ENTER_TIMEOUT_S:.0f} s")
        try:
            return control.receive(self.sock)
        except (control.PeerGone, OSError) as error:
            raise EnterFailed("boot", "wait", 0, "boot ended without a report") from error


def spawn() -> Boot:
    """Start boot in its own process group; it waits for `enter` and does nothing without it."""
    if os.uname().machine not in ("x86_64", "aarch64"):
        raise HostUnsupported(f"the jail has no system-call table for {os.uname().machine}")
    ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
    rpc, rpc_child = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_STREAM)
    stdin_read, stdin_write = os.pipe()
    stdout_read, stdout_write = os.pipe()
    stderr_read, stderr_write = os.pipe()
    child = [stdin_read, stdout_write, stderr_write, rpc_child.detach(), theirs.detach()]
    raised = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _FD_FLOOR) for fd in child]
    actions = [(os.POSIX_SPAWN_DUP2, fd, target) for target, fd in enumerate(raised)]
    assert (RPC_FD, CONTROL_FD) == (3, 4)  # noqa: S101 - the order of `child`
    interpreter = os.path.realpath(sys.executable)
    argv = [interpreter, "-I", "-S", "-B", BOOT_SCRIPT, *package_roots()]
    try:
        pid = os.posix_spawn(interpreter, argv, {}, file_actions=actions, setpgroup=0)
    except OSError as error:
        for fd in (stdin_write, stdout_read, stderr_read):
            os.close(fd)
        raise HostUnsupported(
            f"boot could not be started: {interpreter}: {error.strerror}",
            "is the limit of processes of this session reached (ulimit -u)?",
            id="PLG-HOST-004",
        ) from error
    finally:
        for fd in (*child, *raised):
            os.close(fd)
    streams = {"stdin": stdin_write, "stdout": stdout_read, "stderr": stderr_read, "rpc": rpc.detach()}
    for fd in streams.values():
        os.set_blocking(fd, False)
    return Boot(pid, os.pidfd_open(pid), ours, streams)


def package_roots() -> list[str]:
    """The directories from which boot imports the supervisor's sandbox and the guest SDK."""
    roots: list[str] = []
    for module in (plugsec, plugsec_plugins):
        root = os.path.dirname(os.path.dirname(os.path.abspath(str(module.__file__))))
        if root not in roots:
            roots.append(root)
    return roots


def write_id_maps(pid: int, identity: Identity) -> None:
    """Map the jail's one user and group (user_namespaces(7)); raises EnterFailed."""
    try:
        if not identity.is_root:
            _write(f"/proc/{pid}/setgroups", "deny")
        _write(f"/proc/{pid}/uid_map", f"{JAIL_UID} {identity.uid} 1")
        _write(f"/proc/{pid}/gid_map", f"{JAIL_UID} {identity.gid} 1")
    except OSError as error:
        raise EnterFailed("user-namespace", "write the id maps", error.errno or 0, str(error)) from error


def sealed_memory(name: str, data: bytes) -> int:
    """A memory file with `data` that nobody can change any more (memfd_create(2), F_ADD_SEALS)."""
    fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
    seals = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
    return fd


def _write(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)
