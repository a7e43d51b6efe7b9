"""Many system calls from one program of machine code, made without a compiler: a table in, their errnos out.

The program writes a JSON text with a character for each call: `@` where it succeeded, else `@` + errno.
"""

import os
import struct

from kit import elf

_FIRST = 0x400000 + 64 + 56  # the address of the first instruction, see kit.elf
_SCRATCH = 0x1000  # zeros on the stack, above the answers, for whatever a call reads or writes
_STACK = 0x3000
_ZERO = 0x40

Call = tuple[int, tuple[int | str | list[int], ...]]  # as in kit.calls: its number and its arguments


def program(calls: list[Call]) -> bytes:
    """An ELF file that makes these calls, whatever comes of them, and answers."""
    assert len(calls) < _SCRATCH - 2
    return elf.program(_aarch64(calls) if os.uname().machine == "aarch64" else _x86_64(calls))


def errnos(answer: str) -> list[int]:
    """What the program wrote, as one number for each call."""
    return [ord(character) - _ZERO for character in answer]


def _texts(calls: list[Call], start: int) -> tuple[bytes, dict[str, int]]:
    """The texts among the arguments, padded to whole words, and the address of each."""
    data, places = b"", dict[str, int]()
    for text in dict.fromkeys(a for _, arguments in calls for a in arguments if isinstance(a, str)):
        places[text] = start + len(data)
        data += text.encode() + b"\0"
    return data + bytes(-len(data) % 4), places


def _x86_64(calls: list[Call]) -> bytes:
    texts, places = _texts(calls, _FIRST + 5)
    code = b"\xe9" + struct.pack("<i", len(texts)) + texts  # jmp over the texts
    code += b"\x48\x81\xec" + struct.pack("<I", _STACK)  # sub rsp, STACK
    code += b"\x49\x89\xe4"  # mov r12, rsp
    code += b"\x4d\x8d\xac\x24" + struct.pack("<I", _SCRATCH)  # lea r13, [r12 + SCRATCH]
    load = (b"\x48\xbf", b"\x48\xbe", b"\x48\xba", b"\x49\xba", b"\x49\xb8", b"\x49\xb9")  # mov reg, imm64
    point = (
        b"\x4c\x89\xef",
        b"\x4c\x89\xee",
        b"\x4c\x89\xea",
        b"\x4d\x89\xea",
        b"\x4d\x89\xe8",
        b"\x4d\x89\xe9",
    )
    store = b"\x41\x88\x84\x24"  # mov [r12 + disp32], al
    quote = b"\x41\xc6\x84\x24"  # mov byte [r12 + disp32], imm8
    for at, (number, arguments) in enumerate(calls, start=1):
        for register, value in enumerate((*arguments, *(0,) * (6 - len(arguments)))):
            if isinstance(value, list):
                code += point[register]  # mov reg, r13
            else:
                word = places[value] if isinstance(value, str) else value & (1 << 64) - 1
                code += load[register] + struct.pack("<Q", word)
        code += b"\xb8" + struct.pack("<I", number) + b"\x0f\x05"  # mov eax, number; syscall
        code += b"\xf7\xd8\x04" + bytes([_ZERO]) + store + struct.pack("<I", at)  # neg eax; add al, 0x40
    for at in (0, len(calls) + 1):
        code += quote + struct.pack("<I", at) + b'"'
    # write(1, r12, length), exit(0)
    code += bytes.fromhex("b801000000bf010000004c89e6ba") + struct.pack("<I", len(calls) + 2)
    return code + bytes.fromhex("0f05b83c00000031ff0f05")


def _aarch64(calls: list[Call]) -> bytes:
    texts, places = _texts(calls, _FIRST + 4)
    words = [
        0xD1400000 | _STACK >> 12 << 10 | 31 << 5 | 31,  # sub sp, sp, STACK
        0x91000000 | 31 << 5 | 19,  # mov x19, sp
        0x91400000 | _SCRATCH >> 12 << 10 | 19 << 5 | 20,  # add x20, x19, SCRATCH
    ]

    def load(register: int, value: int) -> None:
        for part in range(4):  # movz, then movk
            opcode = 0xF2800000 if part else 0xD2800000
            words.append(opcode | part << 21 | (value >> 16 * part & 0xFFFF) << 5 | register)

    def store(at: int) -> int:
        return 0x39000000 | at << 10 | 19 << 5  # strb w0, [x19, at]

    for at, (number, arguments) in enumerate(calls, start=1):
        for register, value in enumerate((*arguments, *(0,) * (6 - len(arguments)))):
            if isinstance(value, list):
                words.append(0xAA0003E0 | 20 << 16 | register)  # mov reg, x20
            else:
                load(register, places[value] if isinstance(value, str) else value & (1 << 64) - 1)
        load(8, number)
        # svc 0; neg w0, w0; add w0, w0, 0x40
        words += [0xD4000001, 0x4B0003E0, 0x11000000 | _ZERO << 10, store(at)]
    load(0, ord('"'))
    words += [store(0), store(len(calls) + 1)]
    load(0, 1)
    words.append(0xAA0003E0 | 19 << 16 | 1)  # mov x1, x19
    load(2, len(calls) + 2)
    load(8, 64)
    words.append(0xD4000001)  # write
    load(0, 0)
    load(8, 93)
    words.append(0xD4000001)  # exit
    jump = struct.pack("<I", 0x14000000 | (len(texts) // 4 + 1))
    return jump + texts + b"".join(struct.pack("<I", word) for word in words)
