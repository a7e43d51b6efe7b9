"""A classic-BPF machine for seccomp filters, as the kernel has one: to ask a program without running it.

The instruction set is that of linux/filter.h as far as seccomp_check_filter() in kernel/seccomp.c lets a
filter use it; anything else, and anything that the kernel would refuse to load, raises `ProgramError`.
"""

import struct
from typing import NamedTuple

KILL_PROCESS, USER_NOTIF, ALLOW = 0x80000000, 0x7FC00000, 0x7FFF0000
ERRNO = 0x00050000
_DATA_BYTES = 64  # struct seccomp_data: nr, arch, instruction pointer, six arguments
_INSTRUCTIONS_MAX = 4096

_RETURNS = (0x06, 0x16)  # BPF_RET of a constant and of the accumulator


class ProgramError(Exception):
    """The kernel would not load this program."""


class _Instruction(NamedTuple):
    code: int
    on_true: int
    on_false: int
    k: int


class Program:
    """A filter, checked as it is loaded: every jump lands inside and goes forward, every path returns."""

    def __init__(self, data: bytes) -> None:
        if not data or len(data) % 8 or len(data) // 8 > _INSTRUCTIONS_MAX:
            raise ProgramError(f"{len(data)} bytes")
        self._instructions = [_Instruction(*fields) for fields in struct.iter_unpack("=HBBI", data)]
        if self._instructions[-1].code not in _RETURNS:
            raise ProgramError("the last instruction does not return")

    def answer(self, architecture: int, number: int, arguments: tuple[int, ...] = (0,) * 6) -> int:
        """What the filter returns for a call; arguments are 64-bit."""
        data = struct.pack("=IIQ6Q", number & 0xFFFFFFFF, architecture, 0, *arguments)
        accumulator = index = 0
        memory = [0] * 16
        at = 0
        while True:
            if at >= len(self._instructions):
                raise ProgramError("a jump past the end")
            code, on_true, on_false, k = self._instructions[at]
            at += 1
            match code:
                case 0x20:  # BPF_LD|W|ABS
                    if k % 4 or k + 4 > _DATA_BYTES:
                        raise ProgramError(f"a load at {k}")
                    accumulator = int(struct.unpack_from("=I", data, k)[0])
                case 0x00:  # BPF_LD|IMM
                    accumulator = k
                case 0x01:  # BPF_LDX|IMM
                    index = k
                case 0x60:  # BPF_LD|MEM
                    accumulator = memory[k]
                case 0x61:  # BPF_LDX|MEM
                    index = memory[k]
                case 0x02:  # BPF_ST
                    memory[k] = accumulator
                case 0x03:  # BPF_STX
                    memory[k] = index
                case 0x54:  # BPF_ALU|AND|K
                    accumulator &= k
                case 0x5C:  # BPF_ALU|AND|X
                    accumulator &= index
                case 0x74:  # BPF_ALU|RSH|K
                    accumulator >>= k
                case 0x64:  # BPF_ALU|LSH|K
                    accumulator = (accumulator << k) & 0xFFFFFFFF
                case 0x07:  # BPF_TAX
                    index = accumulator
                case 0x87:  # BPF_TXA
                    accumulator = index
                case 0x05:  # BPF_JA
                    at += k
                case 0x15:  # BPF_JEQ
                    at += on_true if accumulator == k else on_false
                case 0x25:  # BPF_JGT
                    at += on_true if accumulator > k else on_false
                case 0x35:  # BPF_JGE
                    at += on_true if accumulator >= k else on_false
                case 0x45:  # BPF_JSET
                    at += on_true if accumulator & k else on_false
                case 0x1D:  # BPF_JEQ|X
                    at += on_true if accumulator == index else on_false
                case 0x06:  # BPF_RET|K
                    return k
                case 0x16:  # BPF_RET|A
                    return accumulator
                case _:
                    raise ProgramError(f"instruction {code:#x}")
