"""Calls that lead out of the jail, into another process or into the kernel: each is refused at the door.

One jail makes all of them, so that a slow host can run them too. A second jail, without seccomp, makes
them again: there they reach the kernel, which shows that the filter is what refuses them here.
"""

import errno
import os
from pathlib import Path

import pytest

from kit import weak
from kit.calls import MISSING, Answers, Attack, make_all, number_of
from kit.home import Home

HIGH = 1 << 32  # the kernel reads 32 bits of an ioctl request; a filter that reads 64 can be fooled
AT_FDCWD, SELF = -100, 0
CLONE_NEWUSER, CLONE_NEWNS, CLONE_NEWPID, SIGCHLD = 0x10000000, 0x20000, 0x20000000, 17
READ, WRITE, EXECUTE = 1, 2, 4
PRIVATE_ANONYMOUS, SHARED_ANONYMOUS = 0x22, 0x21
NOBODY = 0x7FFFFFFE  # no such process

REFUSED = (
    # Other processes
    Attack("ptrace of the first process is refused", "ptrace", (16, 1, 0, 0)),
    Attack("reading another process's memory is refused", "process_vm_readv", (1, [16], 1, [16], 1, 0)),
    Attack("writing another process's memory is refused", "process_vm_writev", (1, [16], 1, [16], 1, 0)),
    Attack("taking a descriptor of another process is refused", "pidfd_getfd", (-1, 0, 0)),
    Attack("a handle on the first process is refused", "pidfd_open", (1, 0)),
    Attack("a signal through a handle is refused", "pidfd_send_signal", (-1, 9, 0, 0)),
    Attack("advising another process's memory is refused", "process_madvise", (-1, [16], 1, 4, 0)),
    Attack("comparing processes is refused", "kcmp", (1, 1, 0, 0, 0)),
    Attack("kill is refused", "kill", (NOBODY, 9)),
    Attack("tkill is refused", "tkill", (NOBODY, 9)),
    Attack("a queued signal is refused", "rt_sigqueueinfo", (NOBODY, 9, [128])),
    Attack("a queued signal to a thread is refused", "rt_tgsigqueueinfo", (NOBODY, NOBODY, 9, [128])),
    Attack("limits of another process stay", "prlimit64", (1, 7, [16], 0)),
    Attack("own limits stay", "prlimit64", (SELF, 7, [16], 0)),
    Attack("own limits stay, the old way", "setrlimit", (7, [16])),
    # New processes and namespaces
    Attack("a new user namespace is refused", "unshare", (CLONE_NEWUSER | 0x80000000,)),
    Attack("a new mount namespace is refused", "unshare", (CLONE_NEWNS,)),
    Attack("joining a namespace is refused", "setns", (-1, 0)),
    # Programs
    Attack("execve is refused", "execve", ("/nonexistent", 0, 0)),
    Attack("execveat is refused", "execveat", (AT_FDCWD, "/nonexistent", 0, 0, 0)),
    Attack("an anonymous file to execute is refused", "memfd_create", ("x", 0)),
    Attack("secret memory is refused", "memfd_secret", (0,)),
    # Memory
    Attack("writable and executable memory is refused", "mmap", (0, 4096, 7, PRIVATE_ANONYMOUS, -1, 0)),
    Attack("executable anonymous memory is refused", "mmap", (0, 4096, 5, PRIVATE_ANONYMOUS, -1, 0)),
    Attack("executable shared memory is refused", "mmap", (0, 4096, 5, SHARED_ANONYMOUS, -1, 0)),
    Attack("making memory executable is refused", "mprotect", (0, 4096, READ | EXECUTE)),
    Attack("making memory executable with a key is refused", "pkey_mprotect", (0, 4096, 5, -1)),
    Attack("nonlinear mappings are refused", "remap_file_pages", (0, 4096, 0, 0, 0)),
    Attack("handling others' page faults is refused", "userfaultfd", (0,)),
    Attack("locking memory is refused", "mlockall", (0,)),
    Attack("moving pages is refused", "move_pages", (1, 0, 0, 0, 0, 0)),
    Attack("migrating pages is refused", "migrate_pages", (1, 0, 0, 0)),
    Attack("sharing pages with a pipe is refused", "vmsplice", (-1, [16], 1, 0)),
    # The kernel itself
    Attack("bpf is refused", "bpf", (0, [128], 128)),
    Attack("performance counters are refused", "perf_event_open", ([128], 0, -1, -1, 0)),
    Attack("keyrings are refused", "keyctl", (0, -3, 0)),
    Attack("adding a key is refused", "add_key", ("user", "x", "y", 1, -3)),
    Attack("asking for a key is refused", "request_key", ("user", "x", 0, -3)),
    Attack("another kernel is refused", "kexec_load", (0, 0, 0, 0)),
    Attack("another kernel from a file is refused", "kexec_file_load", (-1, -1, 0, 0, 0)),
    Attack("loading a module is refused", "init_module", ([16], 16, "")),
    Attack("loading a module from a file is refused", "finit_module", (-1, "", 0)),
    Attack("unloading a module is refused", "delete_module", ("x", 0)),
    Attack("restarting the host is refused", "reboot", (0, 0, 0, 0)),
    Attack("the kernel's log is refused", "syslog", (3, [16], 16)),
    Attack("swap on is refused", "swapon", ("/x", 0)),
    Attack("swap off is refused", "swapoff", ("/x",)),
    Attack("process accounting is refused", "acct", ("/x",)),
    Attack("quotas are refused", "quotactl", (0, "/x", 0, 0)),
    Attack("quotas by descriptor are refused", "quotactl_fd", (-1, 0, 0, 0)),
    Attack("port access levels are refused", "iopl", (3,)),
    Attack("ports are refused", "ioperm", (0, 1, 1)),
    Attack("segment descriptors are refused", "modify_ldt", (0, [16], 16)),
    Attack("a second filter is refused", "seccomp", (99, 0, 0)),
    Attack("Landlock rulesets are refused", "landlock_create_ruleset", (0, 0, 1)),
    Attack("asynchronous input and output is refused", "io_setup", (1, [8])),
    Attack("watching files is refused", "inotify_init1", (0,)),
    Attack("watching file systems is refused", "fanotify_init", (0, 0)),
    Attack("listing mounts is refused", "listmount", ([32], [16], 1, 0)),
    Attack("describing mounts is refused", "statmount", ([32], [64], 64, 0)),
    Attack("attributes of security modules are refused", "lsm_set_self_attr", (100, [32], 32, 0)),
    # Mounts and files
    Attack("mount is refused", "mount", ("none", "/tmp", "tmpfs", 0, 0)),
    Attack("remounting the root is refused", "mount", ("none", "/", "", 0x20, 0)),
    Attack("unmounting is refused", "umount2", ("/tmp", 2)),
    Attack("another root is refused", "pivot_root", (".", ".")),
    Attack("chroot is refused", "chroot", ("/",)),
    Attack("a device node is refused", "mknodat", (AT_FDCWD, "/tmp/node", 0o020666, 0x101)),
    Attack("a device node is refused, the old way", "mknod", ("/tmp/node", 0o060666, 0x800)),
    Attack("a pipe in the file tree is refused", "mknodat", (AT_FDCWD, "/tmp/pipe", 0o010666, 0)),
    Attack("a file by its handle is refused", "open_by_handle_at", (AT_FDCWD, [16], 0)),
    Attack("a handle of a file is refused", "name_to_handle_at", (AT_FDCWD, "/", [16], [8], 0)),
    Attack("giving a file away is refused", "fchownat", (AT_FDCWD, "/tmp", 0, 0, 0)),
    Attack("giving an open file away is refused", "fchown", (1, 0, 0)),
    Attack("extended attributes are refused", "setxattr", ("/tmp", "user.x", "y", 1, 0)),
    Attack("a lease on a file is refused", "fcntl", (0, 1024, 0)),
    Attack("watching a directory is refused", "fcntl", (0, 1026, 0)),
    Attack("signals for a descriptor are refused", "fcntl", (0, 8, 1)),
    Attack("a larger pipe is refused", "fcntl", (1, 1031, 1 << 20)),
    # Sockets
    Attack("an IPv4 socket is refused", "socket", (2, 1, 0)),
    Attack("a datagram socket is refused", "socket", (2, 2, 0)),
    Attack("a raw socket is refused", "socket", (2, 3, 1)),
    Attack("an IPv6 socket is refused", "socket", (10, 1, 0)),
    Attack("a unix socket is refused", "socket", (1, 1, 0)),
    Attack("a netlink socket is refused", "socket", (16, 3, 0)),
    Attack("a packet socket is refused", "socket", (17, 3, 0)),
    Attack("a socket for the kernel's ciphers is refused", "socket", (38, 5, 0)),
    Attack("a socket to the hypervisor is refused", "socket", (40, 1, 0)),
    Attack("a family in the high bits is refused", "socket", (HIGH | 2, 1, 0)),
    Attack("a pair of another family is refused", "socketpair", (2, 1, 0, [8])),
    Attack("connect is refused", "connect", (-1, [16], 16)),
    Attack("bind is refused", "bind", (-1, [16], 16)),
    Attack("listen is refused", "listen", (-1, 1)),
    Attack("accept is refused", "accept4", (-1, 0, 0, 0)),
    Attack("socket options are refused", "setsockopt", (3, 1, 16, [4], 4)),
    Attack(
        "a handle on the supervisor through the call channel is refused", "getsockopt", (3, 1, 77, [4], [4])
    ),
    Attack("shared memory is refused", "shmget", (1, 4096, 0o600)),
    Attack("semaphores are refused", "semget", (1, 1, 0o600)),
    Attack("message queues are refused", "msgget", (1, 0o600)),
    Attack("POSIX message queues are refused", "mq_open", ("x", 0, 0, 0)),
    # Terminals and devices
    Attack("typing into a terminal is refused", "ioctl", (1, 0x5412, "x")),
    Attack("typing into a terminal with high bits is refused", "ioctl", (1, HIGH | 0x5412, "x")),
    Attack("pasting into a console is refused", "ioctl", (1, 0x541C, [16])),
    Attack("pasting into a console with high bits is refused", "ioctl", (1, HIGH | 0x541C, [16])),
    Attack("taking a terminal is refused", "ioctl", (1, 0x540E, 0)),
    Attack("asynchronous signals are refused", "ioctl", (1, 0x5452, [4])),
    Attack("flags of a file are refused", "ioctl", (1, 0x40086602, [8])),
    Attack("adding entropy is refused", "ioctl", (1, 0x40085203, [16])),
    # The process's own standing
    Attack("another personality is refused", "personality", (0x0040000,)),
    Attack("the plain personality is refused", "personality", (0,)),
    Attack("becoming dumpable is refused", "prctl", (4, 1, 0, 0, 0)),
    Attack("moving the program's own borders is refused", "prctl", (35, 0, 0, 0, 0)),
    Attack("stopping the time-stamp counter is refused", "prctl", (26, 1, 0, 0, 0)),
    Attack("outliving the supervisor is refused", "prctl", (1, 0, 0, 0, 0)),
    Attack("choosing a tracer is refused", "prctl", (0x59616D61, -1, 0, 0, 0)),
    Attack("adopting orphans is refused", "prctl", (36, 1, 0, 0, 0)),
    Attack("ambient capabilities are refused", "prctl", (47, 2, 21, 0, 0)),
    Attack("other secure bits are refused", "prctl", (28, 0, 0, 0, 0)),
    Attack("prctl with high bits is refused", "prctl", (HIGH | 4, 1, 0, 0, 0)),
    Attack("another user is refused", "setuid", (1000,)),
    Attack("another group is refused", "setgid", (1000,)),
    Attack("other users are refused", "setresuid", (1000, 1000, 1000)),
    Attack("other groups are refused", "setresgid", (1000, 1000, 1000)),
    Attack("real and effective user stay", "setreuid", (1000, 1000)),
    Attack("real and effective group stay", "setregid", (1000, 1000)),
    Attack("supplementary groups stay", "setgroups", (0, 0)),
    Attack("the file-system user stays", "setfsuid", (1000,)),
    Attack("the file-system group stays", "setfsgid", (1000,)),
    Attack("capabilities stay", "capset", ([8], [24])),
    Attack("another priority is refused", "setpriority", (0, 0, -5)),
    Attack("another scheduler is refused", "sched_setscheduler", (0, 1, [4])),
    Attack("another input and output priority is refused", "ioprio_set", (1, 0, 0)),
    # The host's name and time
    Attack("the host's name stays", "sethostname", ("x", 1)),
    Attack("the domain's name stays", "setdomainname", ("x", 1)),
    Attack("the clock stays", "clock_settime", (0, [16])),
    Attack("the clock stays, the old way", "settimeofday", ([16], 0)),
    Attack("the clock's pace stays", "clock_adjtime", (0, [256])),
    Attack("the clock's pace stays, the old way", "adjtimex", ([256],)),
    Attack("hanging up the terminal is refused", "vhangup", ()),
)
# libcs and runtimes try these and fall back on ENOSYS; EPERM would break them.
UNKNOWN = (
    Attack("clone3 does not exist", "clone3", (0, 0), errno.ENOSYS),
    Attack("io_uring does not exist", "io_uring_setup", (0, 0), errno.ENOSYS),
    Attack("entering io_uring does not exist", "io_uring_enter", (-1, 0, 0, 0, 0, 0), errno.ENOSYS),
    Attack("registering with io_uring does not exist", "io_uring_register", (-1, 0, 0, 0), errno.ENOSYS),
    Attack("open_tree does not exist", "open_tree", (-1, "x", 0), errno.ENOSYS),
    Attack("move_mount does not exist", "move_mount", (-1, "x", -1, "x", 0), errno.ENOSYS),
    Attack("fsopen does not exist", "fsopen", ("tmpfs", 0), errno.ENOSYS),
    Attack("fsconfig does not exist", "fsconfig", (-1, 0, 0, 0, 0), errno.ENOSYS),
    Attack("fsmount does not exist", "fsmount", (-1, 0, 0), errno.ENOSYS),
    Attack("fspick does not exist", "fspick", (-1, "x", 0), errno.ENOSYS),
    Attack("mount_setattr does not exist", "mount_setattr", (-1, "x", 0, 0, 0), errno.ENOSYS),
)
# Numbers that no kernel of today has, up to the bit that marks x32.
FUTURE = tuple(
    Attack(f"call number {number} does not exist", number, (), errno.ENOSYS)
    for number in (1000, 4096, 0x10000, 0x3FFFFFFF)
)

# Where another layer refuses too, with seccomp's own errno: it stands behind the filter.
BACKED_UP = frozenset(
    [
        "mount",
        "umount2",
        "pivot_root",
        "chroot",
        "mknod",
        "mknodat",
        "open_by_handle_at",
        "kexec_load",
        "kexec_file_load",
        "init_module",
        "finit_module",
        "delete_module",
        "reboot",
        "syslog",
        "swapon",
        "swapoff",
        "acct",
        "quotactl",
        "iopl",
        "ioperm",
        "vhangup",
        "sethostname",
        "setdomainname",
        "clock_settime",
        "settimeofday",
        "clock_adjtime",
        "adjtimex",
        "setgroups",
        "bpf",
        "perf_event_open",
        "userfaultfd",
        "socket",
        "ptrace",
        "fchown",
        "fchownat",
        "unshare",
        "setns",
        "kcmp",
        "prctl",
        "sched_setscheduler",
        "setpriority",
        "setrlimit",
        "prlimit64",
        "fanotify_init",
        "move_mount",
        "fsopen",
        "fsmount",
        "fspick",
        "open_tree",
        "mount_setattr",
        "io_uring_setup",
        "setxattr",
        "ioctl",
        "fcntl",
        "process_vm_readv",
        "process_vm_writev",
        "rt_sigqueueinfo",
        "rt_tgsigqueueinfo",
        "move_pages",
        "migrate_pages",
    ]
)


@pytest.fixture(scope="module")
def strong(tmp_path_factory: pytest.TempPathFactory) -> Answers:
    """The real jail's answers."""
    return make_all(Home(tmp_path_factory.mktemp("strong")), (*REFUSED, *UNKNOWN, *FUTURE))


@pytest.fixture(scope="module")
def without_seccomp(tmp_path_factory: pytest.TempPathFactory) -> Answers:
    """The answers of a jail whose filter lets everything through; namespaces last, they change the rest."""
    home = Home(tmp_path_factory.mktemp("weak"))
    attacks = sorted((*REFUSED, *UNKNOWN), key=lambda attack: attack.call in {"unshare", "setns"})
    with weak.without(home.root, "seccomp"):
        return make_all(home, attacks)


@pytest.mark.parametrize("attack", (*REFUSED, *UNKNOWN, *FUTURE), ids=str)
def test_refused(attack: Attack, strong: Answers) -> None:
    """The guest's call fails with the errno that the profile means it to have."""
    if number_of(attack.call) is None:
        pytest.skip(f"seccomp: {MISSING}: {attack.call}")
    assert strong.by_sentence[str(attack)] == attack.answer


def test_every_refused_call_is_in_the_report(strong: Answers) -> None:
    """The supervisor saw them with its own eyes; the guest's word is not needed."""
    if "denial-report" not in strong.outcome.layers_active:
        pytest.skip("denial-report: another filter's listener stands in the way on this host")
    seen = {denial.call for denial in strong.outcome.denials if denial.source == "kernel"}
    assert seen == {attack.call for attack in REFUSED if number_of(attack.call) is not None}


def test_what_does_not_exist_is_no_denial(strong: Answers) -> None:
    """A libc that probes for a new call must not look like an attacker."""
    assert not {denial.call for denial in strong.outcome.denials} & {attack.call for attack in UNKNOWN}


@pytest.mark.parametrize("attack", [a for a in (*REFUSED, *UNKNOWN) if a.call not in BACKED_UP], ids=str)
def test_reaches_the_kernel_without_seccomp(attack: Attack, without_seccomp: Answers) -> None:
    """The same call, the same arguments, no filter: something else answers."""
    if number_of(attack.call) is None:
        pytest.skip(f"seccomp: {MISSING}: {attack.call}")
    if _host_filters():
        pytest.skip("seccomp: this host has a filter of its own, which answers in the kernel's place")
    answer = without_seccomp.by_sentence[str(attack)]
    if answer == errno.ENOSYS:
        pytest.skip(f"seccomp: this kernel has no {attack.call}, so there is nothing to refuse")
    assert answer != attack.answer


def test_nothing_is_reported_without_seccomp(without_seccomp: Answers) -> None:
    """So the report above is the filter's doing."""
    assert without_seccomp.outcome.denials == ()


def _host_filters() -> bool:
    with open("/proc/self/status", encoding="ascii") as file:
        return any(line.split() == ["Seccomp:", "2"] for line in file)


def test_a_hole_in_the_table_is_refused_and_reported(tmp_path: Path) -> None:
    """Between two known numbers a newer kernel could have put anything; x86-64 has a large hole."""
    if os.uname().machine != "x86_64":
        pytest.skip("seccomp: only the x86-64 table has a hole that no kernel uses")
    hole = Attack("a number that nobody assigned is refused", 400)
    answers = make_all(Home(tmp_path), [hole])
    assert answers.by_sentence[str(hole)] == errno.EPERM
    assert [denial.call for denial in answers.outcome.denials] in ([], ["call 400"])
