"""Landlock: what file trees the jail may touch, enforced by the kernel even if a mount were wrong.

Access bits and the ABI in which each appeared are from the kernel's userspace-api/landlock.rst and
include/uapi/linux/landlock.h. Everything the running ABI knows is handled, so that what no rule
allows is refused; scopes (ABI 6) keep signals and abstract sockets inside.
"""

import os
import stat
import struct

from plugsec.sandbox import linux

EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
REMOVE_DIR, REMOVE_FILE = 1 << 4, 1 << 5
MAKE_DIR, MAKE_REG, MAKE_SYM = 1 << 7, 1 << 8, 1 << 12
REFER, TRUNCATE, IOCTL_DEV = 1 << 13, 1 << 14, 1 << 15
_ALL_ABI_1 = (1 << 13) - 1

READ = READ_FILE | READ_DIR
# No MAKE_CHAR, MAKE_BLOCK, MAKE_SOCK or MAKE_FIFO: results are regular files and folders.
WRITE = WRITE_FILE | REMOVE_DIR | REMOVE_FILE | MAKE_DIR | MAKE_REG | MAKE_SYM | REFER | TRUNCATE
_FILE_ONLY = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV
_NET_TCP = 3  # BIND_TCP | CONNECT_TCP
_SCOPES = 3  # ABSTRACT_UNIX_SOCKET | SIGNAL


def handled(abi: int) -> int:
    """Every file-system access that `abi` can refuse."""
    bits = _ALL_ABI_1
    for version, bit in ((2, REFER), (3, TRUNCATE), (5, IOCTL_DEV)):
        if abi >= version:
            bits |= bit
    return bits


def ruleset_attributes(abi: int) -> bytes:
    """`struct landlock_ruleset_attr` with everything that `abi` knows; its size grows with the ABI."""
    fields = [handled(abi)]
    if abi >= 4:
        fields.append(_NET_TCP)
    if abi >= 6:
        fields.append(_SCOPES)
    return struct.pack(f"={len(fields)}Q", *fields)


def restrict(abi: int, rules: list[tuple[str, int]]) -> None:
    """Allow each `(path, access)` and nothing else for this process and its descendants.

    Needs no_new_privs. Raises OSError. A rule for a file keeps only what applies to files (the kernel
    refuses the rest with EINVAL), and nothing that the ABI does not know.
    """
    known = handled(abi)
    ruleset = linux.landlock_create_ruleset(ruleset_attributes(abi))
    try:
        for path, access in rules:
            fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
            try:
                applies = known if stat.S_ISDIR(os.fstat(fd).st_mode) else known & _FILE_ONLY
                linux.landlock_add_path(ruleset, access & applies, fd)
            finally:
                os.close(fd)
        linux.landlock_restrict_self(ruleset)
    finally:
        os.close(ruleset)
