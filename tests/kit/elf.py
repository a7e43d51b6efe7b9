"""The smallest programs there are: machine code in a static ELF file, made without a compiler."""

import os
import struct

_BASE, _HEADERS = 0x400000, 64 + 56
_MACHINES = {"x86_64": 62, "aarch64": 183}


def program(code: bytes) -> bytes:
    """An executable for this machine that starts at the first byte of `code`, which may hold data too."""
    size = _HEADERS + len(code)
    header = b"\x7fELF\x02\x01\x01" + bytes(9)
    machine = _MACHINES[os.uname().machine]
    header += struct.pack("<HHIQQQIHHHHHH", 2, machine, 1, _BASE + _HEADERS, 64, 0, 0, 64, 56, 1, 64, 0, 0)
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, _BASE, _BASE, size, size, 4096)
    return header + segment + code


def answers_seven() -> bytes:
    """Code that writes `7`, which is JSON, to stdout and exits with 0."""
    if os.uname().machine == "aarch64":
        # movz x8,#64; movz x0,#1; adr x1,data; movz x2,#1; svc 0; movz x8,#93; movz x0,#0; svc 0
        words = (
            0xD2800808,
            0xD2800020,
            0x100000C1,
            0xD2800022,
            0xD4000001,
            0xD2800BA8,
            0xD2800000,
            0xD4000001,
        )
        return b"".join(struct.pack("<I", word) for word in words) + b"7"
    # mov eax,1; mov edi,1; lea rsi,[rip+16]; mov edx,1; syscall; mov eax,60; xor edi,edi; syscall
    return bytes.fromhex("b801000000bf01000000488d3510000000ba010000000f05b83c00000031ff0f05") + b"7"


def returns_42() -> bytes:
    """A function, in machine code, that returns 42."""
    if os.uname().machine == "aarch64":
        return struct.pack("<II", 0x52800540, 0xD65F03C0)  # mov w0,#42; ret
    return bytes.fromhex("b82a000000c3")  # mov eax,42; ret
