"""The parent's side of the jail: start boot early, hand it its spec, follow it in, and end it.

    spawn() ──▶ waiting, has done nothing ──begin(), follow()──▶ entered ──go()──▶ running ──▶ ended

Boot is spawned before verification finishes, so that the interpreter's start overlaps it; without a
grant it is killed having done nothing. posix_spawn only: never preexec_fn, never fork.
"""

import _socket
import fcntl
import os
import resource
import select
import signal
import time
from collections.abc import Callable

from plugsec.errors import HostUnsupported
from plugsec.sandbox import control
from plugsec.sandbox import spawn as spawning
from plugsec.sandbox import spec as spec_module
from plugsec.sandbox.identity import Identity
from plugsec.sandbox.spec import JAIL_UID, SandboxSpec
from plugsec_signing.typed import Any

SUPPORTED_MACHINES = ("x86_64", "aarch64")
ENTER_TIMEOUT_S = 60.0  # an emulated or overloaded host still enters; a wedged one is given up
_REAP_TIMEOUT_S = 10.0
_WAITER_GRACE_S = 2.0
_LAST_WORDS_MAX, _LAST_WORDS_S = 8, 0.001  # more than boot ever has to say; what it said is there already
_DESCRIPTORS = ("stdin", "stdout", "stderr", "rpc", "init_pidfd", "pidfd", "listener", "tmp", "output")


class EnterFailed(Exception):
    """Boot could not apply a layer. `layer`, `step`, `errno` and `detail` are as it reported."""

    def __init__(self, layer: str, step: str, errno: int, detail: str) -> None:
        super().__init__(f"{layer}: {step}: {detail}")
        self.layer, self.step, self.errno, self.detail = layer, step, errno, detail


class Boot:
    """A spawned interpreter that waits for a spec. Every descriptor is ours until closed."""

    def __init__(self, spawned: spawning.Spawned) -> None:
        self.pid = spawned.pid
        self.pidfd = spawned.pidfd
        self.sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET, 0, spawned.control)
        self.stdin, self.stdout, self.stderr, self.rpc = spawned.streams
        self.init_pidfd = -1
        self.listener = -1
        self.output = -1
        self.entered: dict[str, Any] = {}
        self.tmp = -1
        self._wants_output = False
        self._is_reaping = False
        self._ended = False
        self._usage: resource.struct_rusage | None = None

    def join(self, procs: list[int]) -> None:
        """Have boot enter a cgroup by what `open_procs` opened, closed here; raises EnterFailed."""
        try:
            self._send("join the cgroup", {"do": "cgroup"}, tuple(procs))
        finally:
            for fd in procs:
                os.close(fd)

    def begin(self, spec: SandboxSpec, payload_fd: int, inputs: tuple[int, ...]) -> None:
        """Hand over the spec; boot sets off at once. Raises EnterFailed."""
        self._wants_output = spec.output
        try:
            spec_fd = sealed_memory("spec", spec_module.encode(spec))
        except OSError as error:
            raise EnterFailed("boot", "write the spec", error.errno or 0, str(error)) from error
        try:
            self._send("send the spec", {"do": "enter"}, (spec_fd, payload_fd, *inputs))
        finally:
            os.close(spec_fd)

    def follow(self, identity: Identity, meanwhile: Callable[[], object] = lambda: None) -> None:
        """Go with boot through every layer, writing the id maps when it asks; raises EnterFailed.

        Once it has them, boot needs nothing of us for some 4 ms: that is when `meanwhile` is called.
        """
        deadline = time.monotonic() + ENTER_TIMEOUT_S
        while self.init_pidfd < 0 or not self._is_reaping or not self.entered:
            message, descriptors = self._receive(deadline)
            match message["at"]:
                case "unshared":
                    self._map(identity)
                    meanwhile()
                case "init":
                    self.init_pidfd = descriptors[0]
                case "reaping":
                    self._is_reaping = True
                case "entered":
                    self.entered = message
                    held = list(descriptors)
                    self.tmp = held.pop(0)
                    self.output = held.pop(0) if self._wants_output else -1
                    self.listener = held.pop(0) if held else -1
                case "failed":
                    raise EnterFailed(message["layer"], message["step"], message["errno"], message["detail"])
                case "exited":
                    raise EnterFailed("boot", "enter", 0, "the first process ended before it had entered")

    def go(self) -> None:
        """Let the plugin start; call it once the run's start is durable."""
        control.send(self.sock, {"do": "go"})

    def probe(self, layer: str, identity: Identity) -> dict[str, Any]:
        """Ask boot to try one layer in its own throw-away process; returns its report, raises EnterFailed."""
        self._send("probe", {"do": "probe", "layer": layer})
        deadline = time.monotonic() + ENTER_TIMEOUT_S
        while True:
            message, descriptors = self._receive(deadline)
            for fd in descriptors:
                os.close(fd)
            if message["at"] != "unshared":
                return message
            self._map(identity)

    def kill(self) -> None:
        """SIGKILL to the jail's pid 1, which takes its whole namespace; before there is one, to boot."""
        _kill(self.init_pidfd if self.init_pidfd >= 0 else self.pidfd)

    def end(self) -> resource.struct_rusage | None:
        """Kill, and wait until nothing of the jail is left; returns what all of it used.

        The streams stay open, so that what was already written can be read to its end.
        """
        if self._usage is not None or self._ended:
            return self._usage
        self._ended = True
        self.kill()
        if self.init_pidfd >= 0:
            _gone(self.init_pidfd, _REAP_TIMEOUT_S)
            # The waiter reaps init and leaves by itself; killed with it, it would leave a zombie to others.
            if not _gone(self.pidfd, _WAITER_GRACE_S):
                _kill(self.pidfd)
        _gone(self.pidfd, _REAP_TIMEOUT_S)
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

    def _map(self, identity: Identity) -> None:
        try:
            write_id_maps(self.pid, identity)
        except EnterFailed as failure:
            raise self._last_words() or failure from failure
        self._send("go on after the id maps", {"do": "mapped"})

    def _send(self, step: str, message: dict[str, Any], descriptors: tuple[int, ...] = ()) -> None:
        try:
            control.send(self.sock, message, descriptors)
        except OSError as error:
            raise self._last_words() or EnterFailed("boot", step, error.errno or 0, str(error)) from error

    def _last_words(self) -> EnterFailed | None:
        """What boot reported before it left, which tells more than the broken pipe that it left behind."""
        try:
            for _ in range(_LAST_WORDS_MAX):
                message, descriptors = self._receive(time.monotonic() + _LAST_WORDS_S)
                for fd in descriptors:
                    os.close(fd)
                if message["at"] == "failed":
                    return EnterFailed(message["layer"], message["step"], message["errno"], message["detail"])
        except EnterFailed:
            pass
        return None

    def _receive(self, deadline: float) -> tuple[dict[str, Any], tuple[int, ...]]:
        poll = select.poll()
        poll.register(self.sock.fileno(), select.POLLIN)
        left = deadline - time.monotonic()
        if left <= 0 or not poll.poll(left * 1000):
            raise EnterFailed("boot", "wait", 0, f"no answer within {ENTER_TIMEOUT_S:.0f} s")
        try:
            return control.receive(self.sock)
        except control.PeerGone as error:
            raise EnterFailed("boot", "wait", 0, "boot ended without a report") from error
        except OSError as error:
            raise EnterFailed("boot", "receive", error.errno or 0, str(error)) from error


def spawn() -> Boot:
    """Start boot; it waits for `begin` and does nothing without it. Raises HostUnsupported."""
    return adopt(spawning.spawn)


def adopt(start: Callable[[], spawning.Spawned]) -> Boot:
    """Make a Boot of a process that `start` gives; its failure becomes a refusal here."""
    if os.uname().machine not in SUPPORTED_MACHINES:
        raise HostUnsupported(f"the jail has no system-call table for {os.uname().machine}")
    try:
        return Boot(start())
    except OSError as error:
        raise HostUnsupported(
            f"boot could not be started: {error.strerror}",
            "are the limits of this session reached (ulimit -u, ulimit -n)?",
            id="PLG-HOST-004",
        ) from error


def _kill(pidfd: int) -> None:
    try:
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    except ProcessLookupError:
        return


def _gone(pidfd: int, seconds: float) -> bool:
    """Wait for a process to end (pidfd_open(2)); whether it did."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(seconds * 1000))


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
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]
        seals = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
    except OSError:
        os.close(fd)
        raise
    return fd


def _write(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)
