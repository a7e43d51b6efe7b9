"""Profiles: which calls are allowed, under which conditions on their arguments, and why.

The files under `profiles/` are the reviewed source; `parse` is strict, and what it returns is the
meaning that the compiled program is proven equal to in the tests. A profile with a forbidden call, an
unknown name or a line without a reason does not parse.
"""

import re

from plugsec.sandbox.seccomp.tables import ARCHITECTURES, read_table
from plugsec_signing.typed import NamedTuple

ALLOW, ENOSYS = "allow", "enosys"
_LINES_MAX = 2000  # a profile is a page or two

# Never in any profile: each is a way out of the jail, into another process, or into the kernel.
FORBIDDEN = frozenset(
    """execveat memfd_create memfd_secret userfaultfd bpf perf_event_open keyctl add_key request_key
    ptrace process_vm_readv process_vm_writev pidfd_getfd process_madvise kcmp mount umount umount2
    pivot_root chroot setns unshare kexec_load kexec_file_load init_module finit_module delete_module
    seccomp swapon swapoff reboot acct quotactl quotactl_fd open_by_handle_at name_to_handle_at
    iopl ioperm modify_ldt sethostname setdomainname settimeofday clock_settime clock_adjtime adjtimex
    syslog lookup_dcookie vhangup fanotify_init fanotify_mark landlock_create_ruleset
    mknod mknodat capset setuid setgid setreuid setregid setresuid setresgid setgroups setfsuid setfsgid
    socket connect bind listen accept accept4 shmget shmat semget msgget mq_open
    pkey_mprotect remap_file_pages""".split()
)
# Forbidden as a permission; answering ENOSYS is how they are refused.
_ENOSYS_ONLY = frozenset(
    """clone3 openat2 io_uring_setup io_uring_enter io_uring_register open_tree move_mount fsopen fsconfig
    fsmount fspick mount_setattr""".split()
)

_CONDITION = re.compile(
    r"arg([0-5])(?:\s*&\s*(0x[0-9a-f]+|\d+))?\s*(==|in)\s*((?:0x[0-9a-f]+|\d+)(?:\s*,\s*(?:0x[0-9a-f]+|\d+))*)$"
)
_FULL_MASK = 0xFFFFFFFFFFFFFFFF


class Condition(NamedTuple):
    """`args[argument] & mask == value`, in 64 bits."""

    argument: int
    mask: int
    value: int


class Rule(NamedTuple):
    """One alternative for one call: every condition must hold."""

    call: str
    action: str
    conditions: tuple[Condition, ...]
    reason: str


class ProfileError(Exception):
    """A profile of ours does not parse; a defect, never a user's doing."""


def parse(text: str, where: str) -> tuple[Rule, ...]:
    """Parse one profile; raises ProfileError naming the line."""
    known = {name for architecture in ARCHITECTURES for name in read_table(architecture)}
    rules: list[Rule] = []
    action = ""
    lines = text.splitlines()
    if len(lines) > _LINES_MAX:
        raise ProfileError(f"{where}: more than {_LINES_MAX} lines")
    for number, line in enumerate(lines, 1):
        content, _, reason = line.partition("#")
        content = content.strip()
        if not content:
            continue
        if content in {f"[{ALLOW}]", f"[{ENOSYS}]"}:
            action = content[1:-1]
            continue
        call, _, rest = content.partition(" ")
        problem = _problem(call, action, reason, known)
        if problem:
            raise ProfileError(f"{where}:{number}: {call}: {problem}")
        for conditions in _alternatives(rest.strip(), f"{where}:{number}"):
            rules.append(Rule(call, action, conditions, reason.strip()))
    return tuple(rules)


def _problem(call: str, action: str, reason: str, known: set[str]) -> str:
    if call not in known:
        return "no such call in our tables"
    if not action:
        return "stands before the first section"
    if not reason.strip():
        return "has no reason"
    if action == ALLOW and call in FORBIDDEN | _ENOSYS_ONLY:
        return "is forbidden in every profile"
    return ""


def _alternatives(text: str, where: str) -> list[tuple[Condition, ...]]:
    """The condition text as alternatives; `in` multiplies them."""
    alternatives: list[tuple[Condition, ...]] = [()]
    if not text:
        return alternatives
    for part in text.split(" and "):
        match = _CONDITION.match(part.strip())
        if match is None:
            raise ProfileError(f"{where}: cannot read the condition {part.strip()!r}")
        index, mask_text, operator, values_text = match.groups()
        mask = int(mask_text, 0) if mask_text else _FULL_MASK
        values = [int(value, 0) for value in values_text.split(",")]
        if operator == "==" and len(values) != 1:
            raise ProfileError(f"{where}: == takes one value")
        alternatives = [
            (*done, Condition(int(index), mask, value)) for done in alternatives for value in values
        ]
    return alternatives


def meaning(rules: tuple[Rule, ...], call: str, arguments: tuple[int, ...]) -> str | None:
    """What the rules say of one call: "allow", "enosys", or None for the default action."""
    for rule in rules:
        if rule.call == call and all(arguments[c.argument] & c.mask == c.value for c in rule.conditions):
            return rule.action
    return None
