"""From a profile to the program that the kernel runs, through libseccomp.

libseccomp writes the tree; a short prologue of our own answers ENOSYS for every number newer than our
tables, which libseccomp cannot express. Only the supervisor compiles, and only when the cache has no
program for these very profiles: the import costs some 30 ms.
"""

import errno
import os
import struct
from typing import Any

from plugsec.sandbox.seccomp import LibseccompMissing
from plugsec.sandbox.seccomp.profile import ALLOW, Rule
from plugsec.sandbox.seccomp.tables import read_table

_AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_X32_BIT = 0x40000000
# linux/bpf_common.h and linux/seccomp.h
_LD_W_ABS, _JEQ, _JGE, _RET = 0x20, 0x15, 0x35, 0x06
_OFFSET_NR, _OFFSET_ARCH = 0, 4
_RET_ERRNO = 0x00050000
_CMP_MASKED_EQ = 7
_OPTIMIZE_BINARY_TREE = 2
PROGRAM_BYTES_MAX = 4096 * 8  # BPF_MAXINSNS


def _library() -> Any:  # noqa: ANN401 - pyseccomp has no types
    try:
        import pyseccomp  # noqa: PLC0415
    except (RuntimeError, ImportError, OSError) as error:
        raise LibseccompMissing(f"libseccomp was not found ({error})") from error
    return pyseccomp


def library_version() -> str:
    """That the library can be loaded and used; raises LibseccompMissing."""
    library = _library()
    library.SyscallFilter(library.ALLOW)
    version = getattr(library, "seccomp_version", None)
    return ".".join(map(str, version())) if version is not None else "present"


def compile_program(rules: tuple[Rule, ...], architecture: str, *, notify: bool) -> bytes:
    """The classic-BPF program for `rules`; the default action is USER_NOTIF or ERRNO(EPERM).

    Raises LibseccompMissing. Calls that an architecture does not have are left out for it.
    """
    library = _library()
    numbers = read_table(architecture)
    default = library.NOTIFY if notify else library.ERRNO(errno.EPERM)
    program = library.SyscallFilter(default)
    _set_architecture(library, program, architecture)
    program.set_attr(library.Attr.ACT_BADARCH, library.KILL_PROCESS)
    program.set_attr(library.Attr.CTL_OPTIMIZE, _OPTIMIZE_BINARY_TREE)
    unconditional = {rule.call for rule in rules if not rule.conditions}
    native = read_table(os.uname().machine)
    for rule in rules:
        # A rule without conditions makes the conditional ones of the same call redundant.
        if rule.call not in numbers or (rule.conditions and rule.call in unconditional):
            continue
        action = library.ALLOW if rule.action == ALLOW else library.ERRNO(errno.ENOSYS)
        comparisons = [library.Arg(c.argument, _CMP_MASKED_EQ, c.mask, c.value) for c in rule.conditions]
        # libseccomp takes the native number and translates it for the filter's architecture.
        program.add_rule(action, native.get(rule.call, numbers[rule.call]), *comparisons)
    return _prologue(architecture, max(numbers.values())) + _export(program)


def _set_architecture(library: Any, program: Any, architecture: str) -> None:  # noqa: ANN401
    wanted = {"x86_64": library.Arch.X86_64, "aarch64": library.Arch.AARCH64}[architecture]
    if architecture != os.uname().machine:
        program.remove_arch(library.Arch.NATIVE)
        program.add_arch(wanted)


def _prologue(architecture: str, newest: int) -> bytes:
    """Native architecture and newest < nr < x32 bit → ENOSYS; everything else goes on to the tree."""
    instructions = [
        (_LD_W_ABS, 0, 0, _OFFSET_ARCH),
        (_JEQ, 0, 4, _AUDIT_ARCH[architecture]),
        (_LD_W_ABS, 0, 0, _OFFSET_NR),
        (_JGE, 2, 0, _X32_BIT),
        (_JGE, 0, 1, newest + 1),
        (_RET, 0, 0, _RET_ERRNO | errno.ENOSYS),
    ]
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in instructions)


def _export(program: Any) -> bytes:  # noqa: ANN401
    fd = os.memfd_create("seccomp", os.MFD_CLOEXEC)
    with os.fdopen(fd, "w+b") as file:
        program.export_bpf(file)
        file.seek(0)
        return file.read(PROGRAM_BYTES_MAX)
