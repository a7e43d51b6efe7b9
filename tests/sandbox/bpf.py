"""A classic-BPF interpreter, small enough to be read: it says what the kernel would do with a filter.

Only what seccomp allows (kernel/seccomp.c, seccomp_check_filter): 32-bit loads from `struct seccomp_data`,
jumps, the accumulator's arithmetic, and returns. Anything else is an error here as it is there.
"""

import struct

ALLOW, ERRNO, USER_NOTIF, KILL_PROCESS = 0x7FFF0000, 0x00050000, 0x7FC00000, 0x80000000
_STEPS_MAX = 4096  # BPF_MAXINSNS; programs only jump forward


def run(program: bytes, number: int, architecture: int, arguments: tuple[int, ...]) -> int:
    """The filter's return value for one call (`number` and `architecture` as the kernel sees them)."""
    data = struct.pack("=iIQ6Q", number - (1 << 32 if number >= 1 << 31 else 0), architecture, 0, *arguments)
    code = list(struct.iter_unpack("=HBBI", program))
    a = 0
    memory = [0] * 16
    at = 0
    for _ in range(_STEPS_MAX):
        operation, when_true, when_false, k = code[at]
        at += 1
        match operation:
            case 0x20:  # ld [k]
                a = struct.unpack_from("=I", data, k)[0]
            case 0x54:  # and #k
                a &= k
            case 0x02:  # st M[k]
                memory[k] = a
            case 0x60:  # ld M[k]
                a = memory[k]
            case 0x05:  # ja
                at += k
            case 0x15:  # jeq #k
                at += when_true if a == k else when_false
            case 0x25:  # jgt #k
                at += when_true if a > k else when_false
            case 0x35:  # jge #k
                at += when_true if a >= k else when_false
            case 0x45:  # jset #k
                at += when_true if a & k else when_false
            case 0x06:  # ret #k
                return k
            case _:
                raise AssertionError(f"an instruction that seccomp refuses: {operation:#x}")
    raise AssertionError("the program does not end")
