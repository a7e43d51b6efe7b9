"""Calls that lead out of the jail, into another process or into the kernel: each is refused at the door.

A Python plugin makes all of them in one jail through ctypes, and a program of machine code in another.
The supervisor's own report of denials is what shows that the filter refused them, not the plugin's word.
"""

import errno
import json
from collections.abc import Mapping

from catalogue.interface import ESCAPE, Attack, Batch, Scene, started
from kit import calls, machine
from kit.native import run_file
from plugsec.outcome import Outcome

HIGH = 1 << 32  # the kernel reads 32 bits of an ioctl request; a filter that reads 64 can be fooled
AT_FDCWD, SELF = -100, 0
CLONE_NEWUSER, CLONE_NEWNS, CLONE_NEWPID, SIGCHLD = 0x10000000, 0x20000, 0x20000000, 17
READ, WRITE, EXECUTE = 1, 2, 4
PRIVATE_ANONYMOUS, SHARED_ANONYMOUS = 0x22, 0x21
NOBODY = 0x7FFFFFFE  # no such process

_Call = calls.Attack
REFUSED = (
    # Other processes
    _Call("ptrace of the first process is refused", "ptrace", (16, 1, 0, 0)),
    _Call("reading another process's memory is refused", "process_vm_readv", (1, [16], 1, [16], 1, 0)),
    _Call("writing another process's memory is refused", "process_vm_writev", (1, [16], 1, [16], 1, 0)),
    _Call("taking a descriptor of another process is refused", "pidfd_getfd", (-1, 0, 0)),
    _Call("a handle on the first process is refused", "pidfd_open", (1, 0)),
    _Call("a signal through a handle is refused", "pidfd_send_signal", (-1, 9, 0, 0)),
    _Call("advising another process's memory is refused", "process_madvise", (-1, [16], 1, 4, 0)),
    _Call("comparing processes is refused", "kcmp", (1, 1, 0, 0, 0)),
    _Call("kill is refused", "kill", (NOBODY, 9)),
    _Call("tkill is refused", "tkill", (NOBODY, 9)),
    _Call("a queued signal is refused", "rt_sigqueueinfo", (NOBODY, 9, [128])),
    _Call("a queued signal to a thread is refused", "rt_tgsigqueueinfo", (NOBODY, NOBODY, 9, [128])),
    _Call("limits of another process stay", "prlimit64", (1, 7, [16], 0)),
    _Call("own limits stay", "prlimit64", (SELF, 7, [16], 0)),
    _Call("own limits stay, the old way", "setrlimit", (7, [16])),
    # New processes and namespaces
    _Call("a new user namespace is refused", "unshare", (CLONE_NEWUSER | 0x80000000,)),
    _Call("a new mount namespace is refused", "unshare", (CLONE_NEWNS,)),
    _Call("joining a namespace is refused", "setns", (-1, 0)),
    # Programs
    _Call("execve is refused", "execve", ("/nonexistent", 0, 0)),
    _Call("execveat is refused", "execveat", (AT_FDCWD, "/nonexistent", 0, 0, 0)),
    _Call("an anonymous file to execute is refused", "memfd_create", ("x", 0)),
    _Call("secret memory is refused", "memfd_secret", (0,)),
    # Memory
    _Call("writable and executable memory is refused", "mmap", (0, 4096, 7, PRIVATE_ANONYMOUS, -1, 0)),
    _Call("executable anonymous memory is refused", "mmap", (0, 4096, 5, PRIVATE_ANONYMOUS, -1, 0)),
    _Call("executable shared memory is refused", "mmap", (0, 4096, 5, SHARED_ANONYMOUS, -1, 0)),
    _Call("making memory executable is refused", "mprotect", (0, 4096, READ | EXECUTE)),
    _Call("making memory executable with a key is refused", "pkey_mprotect", (0, 4096, 5, -1)),
    _Call("nonlinear mappings are refused", "remap_file_pages", (0, 4096, 0, 0, 0)),
    _Call("handling others' page faults is refused", "userfaultfd", (0,)),
    _Call("locking memory is refused", "mlockall", (0,)),
    _Call("moving pages is refused", "move_pages", (1, 0, 0, 0, 0, 0)),
    _Call("migrating pages is refused", "migrate_pages", (1, 0, 0, 0)),
    _Call("sharing pages with a pipe is refused", "vmsplice", (-1, [16], 1, 0)),
    # The kernel itself
    _Call("bpf is refused", "bpf", (0, [128], 128)),
    _Call("performance counters are refused", "perf_event_open", ([128], 0, -1, -1, 0)),
    _Call("keyrings are refused", "keyctl", (0, -3, 0)),
    _Call("adding a key is refused", "add_key", ("user", "x", "y", 1, -3)),
    _Call("asking for a key is refused", "request_key", ("user", "x", 0, -3)),
    _Call("another kernel is refused", "kexec_load", (0, 0, 0, 0)),
    _Call("another kernel from a file is refused", "kexec_file_load", (-1, -1, 0, 0, 0)),
    _Call("loading a module is refused", "init_module", ([16], 16, "")),
    _Call("loading a module from a file is refused", "finit_module", (-1, "", 0)),
    _Call("unloading a module is refused", "delete_module", ("x", 0)),
    _Call("restarting the host is refused", "reboot", (0, 0, 0, 0)),
    _Call("the kernel's log is refused", "syslog", (3, [16], 16)),
    _Call("swap on is refused", "swapon", ("/x", 0)),
    _Call("swap off is refused", "swapoff", ("/x",)),
    _Call("process accounting is refused", "acct", ("/x",)),
    _Call("quotas are refused", "quotactl", (0, "/x", 0, 0)),
    _Call("quotas by descriptor are refused", "quotactl_fd", (-1, 0, 0, 0)),
    _Call("port access levels are refused", "iopl", (3,)),
    _Call("ports are refused", "ioperm", (0, 1, 1)),
    _Call("segment descriptors are refused", "modify_ldt", (0, [16], 16)),
    _Call("a second filter is refused", "seccomp", (99, 0, 0)),
    _Call("Landlock rulesets are refused", "landlock_create_ruleset", (0, 0, 1)),
    _Call("asynchronous input and output is refused", "io_setup", (1, [8])),
    _Call("watching files is refused", "inotify_init1", (0,)),
    _Call("watching file systems is refused", "fanotify_init", (0, 0)),
    _Call("listing mounts is refused", "listmount", ([32], [16], 1, 0)),
    _Call("describing mounts is refused", "statmount", ([32], [64], 64, 0)),
    _Call("attributes of security modules are refused", "lsm_set_self_attr", (100, [32], 32, 0)),
    # Mounts and files
    _Call("mount is refused", "mount", ("none", "/tmp", "tmpfs", 0, 0)),
    _Call("remounting the root is refused", "mount", ("none", "/", "", 0x20, 0)),
    _Call("unmounting is refused", "umount2", ("/tmp", 2)),
    _Call("another root is refused", "pivot_root", (".", ".")),
    _Call("chroot is refused", "chroot", ("/",)),
    _Call("a device node is refused", "mknodat", (AT_FDCWD, "/tmp/node", 0o020666, 0x101)),
    _Call("a device node is refused, the old way", "mknod", ("/tmp/node", 0o060666, 0x800)),
    _Call("a pipe in the file tree is refused", "mknodat", (AT_FDCWD, "/tmp/pipe", 0o010666, 0)),
    _Call("a file by its handle is refused", "open_by_handle_at", (AT_FDCWD, [16], 0)),
    _Call("a handle of a file is refused", "name_to_handle_at", (AT_FDCWD, "/", [16], [8], 0)),
    _Call("giving a file away is refused", "fchownat", (AT_FDCWD, "/tmp", 0, 0, 0)),
    _Call("giving an open file away is refused", "fchown", (1, 0, 0)),
    _Call("extended attributes are refused", "setxattr", ("/tmp", "user.x", "y", 1, 0)),
    _Call("a lease on a file is refused", "fcntl", (0, 1024, 0)),
    _Call("watching a directory is refused", "fcntl", (0, 1026, 0)),
    _Call("signals for a descriptor are refused", "fcntl", (0, 8, 1)),
    _Call("a larger pipe is refused", "fcntl", (1, 1031, 1 << 20)),
    # Sockets
    _Call("an IPv4 socket is refused", "socket", (2, 1, 0)),
    _Call("a datagram socket is refused", "socket", (2, 2, 0)),
    _Call("a raw socket is refused", "socket", (2, 3, 1)),
    _Call("an IPv6 socket is refused", "socket", (10, 1, 0)),
    _Call("a unix socket is refused", "socket", (1, 1, 0)),
    _Call("a netlink socket is refused", "socket", (16, 3, 0)),
    _Call("a packet socket is refused", "socket", (17, 3, 0)),
    _Call("a socket for the kernel's ciphers is refused", "socket", (38, 5, 0)),
    _Call("a socket to the hypervisor is refused", "socket", (40, 1, 0)),
    _Call("a family in the high bits is refused", "socket", (HIGH | 2, 1, 0)),
    _Call("a pair of another family is refused", "socketpair", (2, 1, 0, [8])),
    _Call("connect is refused", "connect", (-1, [16], 16)),
    _Call("bind is refused", "bind", (-1, [16], 16)),
    _Call("listen is refused", "listen", (-1, 1)),
    _Call("accept is refused", "accept4", (-1, 0, 0, 0)),
    _Call("socket options are refused", "setsockopt", (3, 1, 16, [4], 4)),
    _Call(
        "a handle on the supervisor through the call channel is refused", "getsockopt", (3, 1, 77, [4], [4])
    ),
    _Call("shared memory is refused", "shmget", (1, 4096, 0o600)),
    _Call("semaphores are refused", "semget", (1, 1, 0o600)),
    _Call("message queues are refused", "msgget", (1, 0o600)),
    _Call("POSIX message queues are refused", "mq_open", ("x", 0, 0, 0)),
    # Terminals and devices
    _Call("typing into a terminal is refused", "ioctl", (1, 0x5412, "x")),
    _Call("typing into a terminal with high bits is refused", "ioctl", (1, HIGH | 0x5412, "x")),
    _Call("pasting into a console is refused", "ioctl", (1, 0x541C, [16])),
    _Call("pasting into a console with high bits is refused", "ioctl", (1, HIGH | 0x541C, [16])),
    _Call("taking a terminal is refused", "ioctl", (1, 0x540E, 0)),
    _Call("asynchronous signals are refused", "ioctl", (1, 0x5452, [4])),
    _Call("flags of a file are refused", "ioctl", (1, 0x40086602, [8])),
    _Call("adding entropy is refused", "ioctl", (1, 0x40085203, [16])),
    # The process's own standing
    _Call("another personality is refused", "personality", (0x0040000,)),
    _Call("the plain personality is refused", "personality", (0,)),
    _Call("becoming dumpable is refused", "prctl", (4, 1, 0, 0, 0)),
    _Call("moving the program's own borders is refused", "prctl", (35, 0, 0, 0, 0)),
    _Call("stopping the time-stamp counter is refused", "prctl", (26, 1, 0, 0, 0)),
    _Call("outliving the supervisor is refused", "prctl", (1, 0, 0, 0, 0)),
    _Call("choosing a tracer is refused", "prctl", (0x59616D61, -1, 0, 0, 0)),
    _Call("adopting orphans is refused", "prctl", (36, 1, 0, 0, 0)),
    _Call("ambient capabilities are refused", "prctl", (47, 2, 21, 0, 0)),
    _Call("other secure bits are refused", "prctl", (28, 0, 0, 0, 0)),
    _Call("prctl with high bits is refused", "prctl", (HIGH | 4, 1, 0, 0, 0)),
    _Call("another user is refused", "setuid", (1000,)),
    _Call("another group is refused", "setgid", (1000,)),
    _Call("other users are refused", "setresuid", (1000, 1000, 1000)),
    _Call("other groups are refused", "setresgid", (1000, 1000, 1000)),
    _Call("real and effective user stay", "setreuid", (1000, 1000)),
    _Call("real and effective group stay", "setregid", (1000, 1000)),
    _Call("supplementary groups stay", "setgroups", (0, 0)),
    _Call("the file-system user stays", "setfsuid", (1000,)),
    _Call("the file-system group stays", "setfsgid", (1000,)),
    _Call("capabilities stay", "capset", ([8], [24])),
    _Call("another priority is refused", "setpriority", (0, 0, -5)),
    _Call("another scheduler is refused", "sched_setscheduler", (0, 1, [4])),
    _Call("another input and output priority is refused", "ioprio_set", (1, 0, 0)),
    # The host's name and time
    _Call("the host's name stays", "sethostname", ("x", 1)),
    _Call("the domain's name stays", "setdomainname", ("x", 1)),
    _Call("the clock stays", "clock_settime", (0, [16])),
    _Call("the clock stays, the old way", "settimeofday", ([16], 0)),
    _Call("the clock's pace stays", "clock_adjtime", (0, [256])),
    _Call("the clock's pace stays, the old way", "adjtimex", ([256],)),
    _Call("hanging up the terminal is refused", "vhangup", ()),
)
# libcs and runtimes try these and fall back on ENOSYS; EPERM would break them.
UNKNOWN = (
    _Call("clone3 does not exist", "clone3", (0, 0), errno.ENOSYS),
    _Call("io_uring does not exist", "io_uring_setup", (0, 0), errno.ENOSYS),
    _Call("entering io_uring does not exist", "io_uring_enter", (-1, 0, 0, 0, 0, 0), errno.ENOSYS),
    _Call("registering with io_uring does not exist", "io_uring_register", (-1, 0, 0, 0), errno.ENOSYS),
    _Call("open_tree does not exist", "open_tree", (-1, "x", 0), errno.ENOSYS),
    _Call("move_mount does not exist", "move_mount", (-1, "x", -1, "x", 0), errno.ENOSYS),
    _Call("fsopen does not exist", "fsopen", ("tmpfs", 0), errno.ENOSYS),
    _Call("fsconfig does not exist", "fsconfig", (-1, 0, 0, 0, 0), errno.ENOSYS),
    _Call("fsmount does not exist", "fsmount", (-1, 0, 0), errno.ENOSYS),
    _Call("fspick does not exist", "fspick", (-1, "x", 0), errno.ENOSYS),
    _Call("mount_setattr does not exist", "mount_setattr", (-1, "x", 0, 0, 0), errno.ENOSYS),
)
# Numbers that no kernel of today has, up to the bit that marks x32.
FUTURE = tuple(
    _Call(f"call number {number} does not exist", number, (), errno.ENOSYS)
    for number in (1000, 4096, 0x10000, 0x3FFFFFFF)
)

PYTHON_CALLS = tuple(call for call in (*REFUSED, *UNKNOWN, *FUTURE) if calls.number_of(call.call) is not None)
# musl's abort() uses it, so programs have it; the pid namespace holds only the jail.
_OF_PROGRAMS = frozenset({"tkill"})
PROGRAM_CALLS = tuple(call for call in PYTHON_CALLS if call.call not in _OF_PROGRAMS)
_SEEN = "the kernel's report to the supervisor"


def _attack(call: calls.Attack, by: str) -> Attack:
    reported = call.answer == errno.EPERM
    seen = _SEEN if reported else "the errno that the plugin got"
    return Attack(f"{call.sentence}{by}", ESCAPE, errno.errorcode[call.answer], seen, ("seccomp",))


def _ending(call: calls.Attack, answer: int, reported: frozenset[str] | None) -> str:
    """The errno's name; for what has to be in the report, also whether it is there."""
    ending = errno.errorcode.get(answer, f"errno {answer}") if answer else "it succeeded"
    if reported is None or (call.answer == errno.EPERM) is (call.call in reported):
        return ending
    return ending + (", but the report names it" if call.call in reported else ", but not in the report")


def _reported(outcome: Outcome) -> frozenset[str] | None:
    """The calls that the kernel reported, None where this host cannot have a report."""
    if "denial-report" not in outcome.layers_active:
        return None
    return frozenset(denial.call for denial in outcome.denials if denial.source == "kernel")


def by_python(scene: Scene) -> Mapping[str, str]:
    """All of them from one Python plugin."""
    table = [[calls.number_of(call.call), list(call.arguments)] for call in PYTHON_CALLS]
    outcome = started(scene.home.attack(calls.GUEST, input=json.dumps({"calls": table}).encode()))
    assert outcome.error is None, outcome.error
    reported = _reported(outcome)
    answers = zip(PYTHON_CALLS, outcome.result, strict=True)
    return {call.sentence: _ending(call, answer, reported) for call, answer in answers}


def by_program(scene: Scene) -> Mapping[str, str]:
    """All of them from one native program, whose filter is another."""
    table = [(calls.number_of(call.call) or 0, call.arguments) for call in PROGRAM_CALLS]
    outcome = started(run_file(scene.home, machine.program(table)))
    assert outcome.error is None, outcome.error
    reported = _reported(outcome)
    answers = zip(PROGRAM_CALLS, machine.errnos(outcome.result), strict=True)
    return {f"{call.sentence}{_BY}": _ending(call, answer, reported) for call, answer in answers}


_BY = ", by a program"
BATCHES = (
    Batch("calls of a Python plugin", tuple(_attack(call, "") for call in PYTHON_CALLS), by_python),
    Batch("calls of a program", tuple(_attack(call, _BY) for call in PROGRAM_CALLS), by_program),
)
