"""The child's side: the ordered entry into every layer, and the first process of the jail.

boot ──fork──▶ init (pid 1, reaper) ──fork──▶ plugin (pid 2)

    1. die with the supervisor; reset signals; umask
    2. join the cgroup
    3. unshare all namespaces; the supervisor writes the id maps
    4. make mounts private; open a detached copy of every source
    5. take the jail's user id; die with the supervisor again (setresuid clears it)
    6. fork init; build the root, mount /proc, pivot; not dumpable
    7. session, rlimits
    8. bounding set, securebits, no_new_privs, Landlock, capabilities, MDWE
    9. fork the plugin; close descriptors; one seccomp filter, and init's own
   10. wait for the go-ahead, then execve or import

The order is the design's and each step needs it (docs/threat-model.md). A step that fails is
reported as {layer, step, errno} and ends boot: there is no weaker jail to fall back to.
"""

import _socket
import gc
import os
import resource
import select
import signal
import sys

from plugsec.sandbox import capabilities, control, landlock, linux, mounts
from plugsec.sandbox.spec import (
    CONTROL_FD,
    INPUT_DIR,
    JAIL_UID,
    OUTPUT_DIR,
    PLUGIN_DIR,
    RPC_FD,
    SPEC_BYTES_MAX,
    TMP_DIR,
    SandboxSpec,
    decode,
)
from plugsec_signing.typed import Any, NoReturn

_NAMESPACES = (
    linux.CLONE_NEWUSER | linux.CLONE_NEWNS | linux.CLONE_NEWPID | linux.CLONE_NEWNET
    | linux.CLONE_NEWIPC | linux.CLONE_NEWUTS | linux.CLONE_NEWCGROUP
)  # fmt: skip
_OOM_SCORE = b"500"  # under memory pressure the jail goes before its supervisor
_BOOT_FAILED = 125
_HOST_NAME, _DOMAIN_NAME = "plugin", "(none)"
_FD_MAX = 0x7FFFFFFF
_DETAIL_CHARACTERS_MAX = 300  # JSON makes at most twelve bytes of one, and the report is one message
_EBUSY = 16  # another filter of this process already has a listener (seccomp(2))


class _Step:
    """Where boot stands, for the report of a failure."""

    layer = "boot"
    step = "start"


def at(layer: str, step: str) -> None:
    """Note the layer and step about to be entered."""
    _Step.layer, _Step.step = layer, step


def main() -> NoReturn:
    """Run boot to its end; never returns."""
    sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET, 0, CONTROL_FD)
    try:
        _main(sock)
    except control.PeerGone:
        os._exit(0)  # no grant: killed or left, having done nothing
    except OSError as error:
        fail(sock, error.errno or 0, str(error))
    except BaseException as error:  # the last line of defence: a report instead of a traceback
        fail(sock, 0, f"{type(error).__name__}: {error}")
    os._exit(_BOOT_FAILED)


def fail(sock: _socket.socket, errno: int, detail: str) -> None:
    """Report the current step's failure; the supervisor decides what it means."""
    report = {"at": "failed", "layer": _Step.layer, "step": _Step.step, "errno": errno}
    try:
        control.send(sock, {**report, "detail": detail[:_DETAIL_CHARACTERS_MAX]})
    except OSError:
        os._exit(_BOOT_FAILED)


def _main(sock: _socket.socket) -> None:
    at("boot", "close descriptors")
    supervisor = os.getppid()
    linux.close_range(CONTROL_FD + 1, _FD_MAX)  # whatever the caller's shell left open
    at("boot", "parent-death signal")
    die_with_parent()
    at("boot", "reset signals")
    reset_signals()
    os.umask(0o077)
    _warm_up()
    at("boot", "receive the spec")
    spec, descriptors = _await_spec(sock)
    payload_fd, input_fds = descriptors[0], list(descriptors[1:])
    at("rlimits", "oom_score_adj")
    _write("/proc/self/oom_score_adj", _OOM_SCORE)
    if not spec.files:
        at("mount-namespace", "stand in the payload")
        os.fchdir(payload_fd)
    unshare_and_map(sock)
    at("mount-namespace", "make / private")
    mounts.make_private()
    at("mount-namespace", "open sources")
    trees = mounts.open_sources(spec.binds)
    if not spec.files:
        os.close(payload_fd)
        payload_fd = mounts.open_payload()
    become_jail_user(setgroups=spec.setgroups)
    if os.getppid() != supervisor:
        os._exit(_BOOT_FAILED)
    own = resource.getrusage(resource.RUSAGE_SELF)
    setup_cpu_ms = round((own.ru_utime + own.ru_stime) * 1000)  # not the plugin's, so told to be taken off
    at("pid-namespace", "fork init")
    alive_read, alive_write = os.pipe()
    init = os.fork()
    if init == 0:
        os.close(alive_write)
        _init(sock, spec, trees, payload_fd, input_fds, alive_read, setup_cpu_ms)
    opened = [tree for tree in trees if tree >= 0]  # a mask has no source
    try:
        _hand_over(init, sock, (alive_read, payload_fd, *input_fds, *opened, 0, 1, 2, RPC_FD))
    except OSError:
        os.kill(init, signal.SIGKILL)
        os.waitpid(init, 0)  # nobody else would: it must not outlive the refusal as a zombie
        raise
    sock.close()
    os.waitpid(init, 0)
    os._exit(0)


def die_with_parent() -> None:
    """SIGKILL when the parent's spawning thread ends (prctl(2)); cleared by fork and by setresuid."""
    linux.prctl(linux.PR_SET_PDEATHSIG, signal.SIGKILL)


def reset_signals() -> None:
    """Every disposition to its default and nothing blocked: Python leaves SIGPIPE and SIGXFSZ ignored."""
    for number in signal.valid_signals():  # without those that belong to the C library
        if number not in (signal.SIGKILL, signal.SIGSTOP):
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])


def _warm_up() -> None:
    """What costs time at first use, done while the supervisor still verifies."""
    compile("0", "boot", "eval")
    from plugsec_plugins.guest import serve  # noqa: F401, PLC0415 - after the pivot it is out of reach


def _await_spec(sock: _socket.socket) -> tuple[SandboxSpec, tuple[int, ...]]:
    while True:
        message, descriptors = control.receive(sock)
        if message["do"] == "enter":
            data = os.pread(descriptors[0], SPEC_BYTES_MAX, 0)
            os.close(descriptors[0])
            return decode(data), descriptors[1:]
        if message["do"] == "probe":
            from plugsec.sandbox import probe  # noqa: PLC0415 - doctor only

            probe.run(sock, message["layer"])
        at("cgroup", "join")
        for fd in descriptors:
            os.write(fd, b"0")
            os.close(fd)
        at("boot", "receive the spec")


def unshare_and_map(sock: _socket.socket) -> None:
    """New namespaces of every kind; returns once the supervisor has written the id maps."""
    at("user-namespace", "unshare")
    try:
        linux.unshare(_NAMESPACES)
    except OSError:
        # Which of them the host refuses is worth a sentence: try the first alone.
        linux.unshare(linux.CLONE_NEWUSER)
        at("mount-namespace", "unshare")
        linux.unshare(_NAMESPACES & ~linux.CLONE_NEWUSER)
    at("user-namespace", "id maps")
    control.send(sock, {"at": "unshared"})
    control.receive(sock)


def become_jail_user(*, setgroups: bool) -> None:
    """The jail's own user, for every id; root's run also drops the supplementary groups."""
    at("user-namespace", "set ids")
    if setgroups:
        os.setgroups([])
    os.setresgid(JAIL_UID, JAIL_UID, JAIL_UID)
    os.setresuid(JAIL_UID, JAIL_UID, JAIL_UID)
    die_with_parent()


def _hand_over(init: int, sock: _socket.socket, unneeded: tuple[int, ...]) -> None:
    """The waiter outside the pid namespace gives up everything, and says so by handing out init's pidfd."""
    at("no-new-privs", "waiter")
    capabilities.no_new_privs()
    at("capabilities", "waiter")
    capabilities.drop_all()
    at("pid-namespace", "hand over init")
    for fd in unneeded:
        os.close(fd)
    pidfd = os.pidfd_open(init)
    control.send(sock, {"at": "init"}, (pidfd,))
    os.close(pidfd)


def _init(  # noqa: PLR0917 - the one place where the whole of steps 6 to 9 can be read in order
    sock: _socket.socket,
    spec: SandboxSpec,
    trees: list[int],
    payload: int,
    inputs: list[int],
    alive: int,
    setup_cpu_ms: int,
) -> NoReturn:
    try:
        die_with_parent()
        _still_wanted(alive)
        at("mount-namespace", "build the root")
        results = mounts.build_root(spec, trees, payload, inputs)
        at("mount-namespace", "mount /proc")
        has_proc = mounts.mount_proc()
        at("mount-namespace", "pivot_root")
        mounts.enter_root()
        at("uts-namespace", "names")
        linux.set_names(_HOST_NAME, _DOMAIN_NAME)  # a new namespace starts as a copy of the host's
        at("mount-namespace", "not dumpable")
        linux.prctl(linux.PR_SET_DUMPABLE, 0)
        at("rlimits", "setsid")
        os.setsid()
        at("rlimits", "setrlimit")
        for kind, soft, hard in spec.rlimits:
            resource.setrlimit(kind, (soft, hard))
        at("capabilities", "bounding set")
        capabilities.drop_bounding_set()
        at("no-new-privs", "prctl")
        capabilities.no_new_privs()
        at("landlock", "restrict")
        abi = _landlock_abi(spec)
        if abi:
            landlock.restrict(abi, _landlock_rules(spec, has_proc=has_proc))
        at("capabilities", "capset")
        capabilities.drop_all()
        mdwe = not spec.write_exec_memory and capabilities.refuse_exec_gain()
        at("pid-namespace", "fork plugin")
        plugin = os.fork()
        if plugin == 0:
            _plugin(
                sock,
                spec,
                results,
                {"proc": has_proc, "mdwe": mdwe, "landlock_abi": abi, "setup_cpu_ms": setup_cpu_ms},
            )
        _reap(sock, plugin, spec, results)
    except OSError as error:
        fail(sock, error.errno or 0, str(error))
    except BaseException as error:
        fail(sock, 0, f"{type(error).__name__}: {error}")
    os._exit(_BOOT_FAILED)


def _still_wanted(alive: int) -> None:
    """Leave if the waiter died before the parent-death signal was armed."""
    poll = select.poll()
    poll.register(alive, 0)
    if poll.poll(0):
        os._exit(_BOOT_FAILED)
    os.close(alive)


def _landlock_abi(spec: SandboxSpec) -> int:
    """The kernel's ABI; 0 where it has none and the policy allows that. Raises OSError."""
    try:
        return linux.landlock_abi()
    except OSError:
        if not spec.landlock_may_miss:
            raise
    return 0


def _landlock_rules(spec: SandboxSpec, *, has_proc: bool) -> list[tuple[str, int]]:
    rules = [(PLUGIN_DIR, landlock.READ), (INPUT_DIR, landlock.READ), ("/etc", landlock.READ)]
    rules.append((TMP_DIR, landlock.READ | landlock.WRITE))
    if spec.output:
        rules.append((OUTPUT_DIR, landlock.READ | landlock.WRITE))
    if has_proc:
        rules.append(("/proc", landlock.READ))
    rules += [(path, landlock.EXECUTE | landlock.READ_FILE) for path in spec.program_exec]
    for bind in spec.binds:
        if bind.mask:
            continue
        access = landlock.READ
        if bind.device:
            access |= landlock.WRITE_FILE
        if bind.write:
            access |= landlock.WRITE
        if bind.exec:
            access |= landlock.EXECUTE
        rules.append((bind.target, access))
    return rules


def _reap(sock: _socket.socket, plugin: int, spec: SandboxSpec, results: tuple[int, int]) -> NoReturn:
    """Pid 1: reap everything, report how the plugin ended, and take the rest down by leaving."""
    at("seccomp", "init's filter")
    for fd in results:
        if fd >= 0:
            os.close(fd)
    for fd in range(CONTROL_FD):
        os.close(fd)
    linux.close_range(CONTROL_FD + 1, _FD_MAX)
    gc.disable()
    linux.seccomp_load(spec.seccomp_init, listener=False)
    control.send(sock, {"at": "reaping"})  # no plugin starts beside an init that is not confined
    peak_kib = 0  # of the largest process; the kernel starts it anew at each fork (getrusage(2))
    while True:
        try:
            pid, status, usage = os.wait4(-1, 0)
        except ChildProcessError:
            os._exit(_BOOT_FAILED)
        peak_kib = max(peak_kib, usage.ru_maxrss)
        if pid == plugin:
            break
    try:
        control.send(sock, {"at": "exited", "status": status, "peak_bytes": peak_kib * 1024})
    finally:
        os._exit(0)


def _plugin(
    sock: _socket.socket, spec: SandboxSpec, results: tuple[int, int], entered: dict[str, Any]
) -> NoReturn:
    """Pid 2: the last layer, the go-ahead, and the plugin."""
    try:
        at("seccomp", "keep descriptors")
        held = [fd for fd in results if fd >= 0]
        _close_except([0, 1, 2, RPC_FD, CONTROL_FD, *held])
        os.set_inheritable(CONTROL_FD, False)  # a program closes it by starting; one that cannot, says so
        os.chdir(TMP_DIR)
        runner = _prepare_python(spec) if spec.kind == "python" else None
        at("seccomp", "filter")
        listener, reports = _load_filter(spec)
        at("seccomp", "hand over the listener")
        descriptors = (*held, *([listener] if reports else []))
        control.send(sock, {"at": "entered", "denial_report": reports, **entered}, descriptors)
        for fd in descriptors:
            os.close(fd)
        control.receive(sock)
        if runner is not None:
            sock.close()
            gc.freeze()  # or the plugin's first collection looks at everything that boot has loaded: 2 ms
            gc.enable()
            runner()
        os.close(RPC_FD)
        os.execve(spec.program[0], list(spec.program), dict(spec.environment))  # noqa: S606 - step 10
    except control.PeerGone:
        os._exit(0)
    except OSError as error:
        fail(sock, error.errno or 0, str(error))
    os._exit(_BOOT_FAILED)


def _load_filter(spec: SandboxSpec) -> tuple[int, bool]:
    """One filter; without reports where another's listener stands in the way and that is allowed."""
    try:
        return linux.seccomp_load(spec.seccomp, listener=True), True
    except OSError as error:
        if error.errno == _EBUSY:
            at("denial-report", "listener")
        if not spec.seccomp_silent:
            raise
    at("seccomp", "filter")
    return linux.seccomp_load(spec.seccomp_silent, listener=False), False


def _close_except(keep: list[int]) -> None:
    first = 0
    for fd in sorted(keep):
        if fd > first:
            linux.close_range(first, fd - 1)
        first = fd + 1
    linux.close_range(first, _FD_MAX)


def _prepare_python(spec: SandboxSpec) -> Any:  # noqa: ANN401
    """Everything that the Python kind needs from boot before the filter forbids it."""
    from plugsec_plugins.guest import serve  # noqa: PLC0415

    null = os.open("/dev/null", os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    os.environ.clear()
    os.environ.update(dict(spec.environment))
    sys.path[:] = spec.python_path
    sys.path_importer_cache.clear()
    sys.argv[:] = ["plugin"]
    return lambda: serve.main(RPC_FD, spec.program[0])


def _write(path: str, data: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, data)
    finally:
        os.close(fd)
