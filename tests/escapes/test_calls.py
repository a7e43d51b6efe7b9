"""Without seccomp the calls of catalogue/system_calls.py reach the kernel: the filter is what refuses them."""

import errno
import os
from pathlib import Path

import pytest
from catalogue.system_calls import REFUSED, UNKNOWN

from kit import weak
from kit.calls import MISSING, Answers, Attack, make_all, number_of
from kit.home import Home

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
def without_seccomp(tmp_path_factory: pytest.TempPathFactory) -> Answers:
    """The answers of a jail whose filter lets everything through; namespaces last, they change the rest."""
    home = Home(tmp_path_factory.mktemp("weak"))
    attacks = sorted((*REFUSED, *UNKNOWN), key=lambda attack: attack.call in {"unshare", "setns"})
    with weak.without(home.root, "seccomp"):
        return make_all(home, attacks)


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
