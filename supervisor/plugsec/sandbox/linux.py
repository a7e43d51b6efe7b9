"""The only file with raw system calls: thin, typed, and named as in the man pages.

Every function raises `OSError` with the kernel's errno and the call's name; nothing here decides
anything. Numbers come from the kernel's own tables (arch/x86/entry/syscalls/syscall_64.tbl and
include/uapi/asm-generic/unistd.h). Calls that the C library wraps in every supported version are made
through it; the others through syscall(2).
"""

import ctypes
import os
import struct

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long

MACHINE = os.uname().machine
# Calls older than the unified numbering differ between the two tables; from 424 on they agree.
_NR = {
    "x86_64": {"pivot_root": 155, "capset": 126, "seccomp": 317},
    "aarch64": {"pivot_root": 41, "capset": 91, "seccomp": 277},
}.get(MACHINE, {})
_NR_COMMON = {
    "open_tree": 428,
    "move_mount": 429,
    "fsopen": 430,
    "fsconfig": 431,
    "fsmount": 432,
    "close_range": 436,
    "openat2": 437,
    "mount_setattr": 442,
    "landlock_create_ruleset": 444,
    "landlock_add_rule": 445,
    "landlock_restrict_self": 446,
}

AT_FDCWD = -100
AT_EMPTY_PATH = 0x1000
AT_RECURSIVE = 0x8000

CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC = 1, 2, 4, 8
MS_REC, MS_PRIVATE = 0x4000, 0x40000
MNT_DETACH = 2

OPEN_TREE_CLONE = 1
OPEN_TREE_CLOEXEC = os.O_CLOEXEC
MOVE_MOUNT_F_EMPTY_PATH = 4
FSCONFIG_SET_STRING, FSCONFIG_CMD_CREATE = 1, 6
FSOPEN_CLOEXEC = FSMOUNT_CLOEXEC = 1
MOUNT_ATTR_RDONLY, MOUNT_ATTR_NOSUID, MOUNT_ATTR_NODEV, MOUNT_ATTR_NOEXEC = 1, 2, 4, 8

RESOLVE_NO_XDEV, RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS, RESOLVE_BENEATH = 1, 2, 4, 8

PR_SET_PDEATHSIG, PR_SET_DUMPABLE = 1, 4
PR_CAPBSET_READ, PR_CAPBSET_DROP, PR_SET_SECUREBITS = 23, 24, 28
PR_SET_NO_NEW_PRIVS, PR_GET_NO_NEW_PRIVS = 38, 39
PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL = 47, 4
PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN = 65, 1

_CAP_VERSION_3 = 0x20080522

SECCOMP_SET_MODE_FILTER = 1
SECCOMP_FILTER_FLAG_NEW_LISTENER = 8
SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV = 32
SECCOMP_USER_NOTIF_FLAG_CONTINUE = 1
# _IOWR('!', 0, struct seccomp_notif) and _IOWR('!', 1, struct seccomp_notif_resp)
_SECCOMP_IOCTL_NOTIF_RECV = 0xC0502100
_SECCOMP_IOCTL_NOTIF_SEND = 0xC0182101
_NOTIF = struct.Struct("=QIIiIQ6Q")  # struct seccomp_notif, 80 bytes
_NOTIF_RESP = struct.Struct("=QqiI")  # struct seccomp_notif_resp, 24 bytes

SUPPORTED_MACHINES = ("x86_64", "aarch64")


def _check(result: int, name: str) -> int:
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error), name)
    return result


def _syscall(name: str, *arguments: int | bytes | None) -> int:
    """Make the call `name` through syscall(2); integers are passed as C longs."""
    number = _NR.get(name) or _NR_COMMON[name]
    words = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    return _check(_libc.syscall(ctypes.c_long(number), *words), name)


def prctl(option: int, a: int = 0, b: int = 0, c: int = 0, d: int = 0) -> int:
    """prctl(2)."""
    words = [ctypes.c_ulong(w) for w in (a, b, c, d)]
    return _check(_libc.prctl(option, *words), f"prctl({option})")


def unshare(flags: int) -> None:
    """unshare(2)."""
    _check(_libc.unshare(flags), "unshare")


def mount(source: str, target: str, fstype: str | None, flags: int, data: str | None = None) -> None:
    """mount(2)."""
    encoded = [None if text is None else os.fsencode(text) for text in (source, target, fstype, data)]
    _check(
        _libc.mount(encoded[0], encoded[1], encoded[2], ctypes.c_ulong(flags), encoded[3]),
        f"mount({fstype or 'none'})",
    )


def umount_detach(target: str) -> None:
    """umount2(2) with MNT_DETACH."""
    _check(_libc.umount2(os.fsencode(target), MNT_DETACH), "umount2")


def pivot_root(new_root: str, put_old: str) -> None:
    """pivot_root(2)."""
    _syscall("pivot_root", os.fsencode(new_root), os.fsencode(put_old))


def open_tree(fd: int, *, recursive: bool) -> int:
    """open_tree(2) with OPEN_TREE_CLONE: a detached copy of the mount at an O_PATH descriptor."""
    flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH | (AT_RECURSIVE if recursive else 0)
    return _syscall("open_tree", fd, b"", flags)


def move_mount(tree_fd: int, target: str) -> None:
    """move_mount(2): attach a detached mount at `target`."""
    _syscall("move_mount", tree_fd, b"", AT_FDCWD, os.fsencode(target), MOVE_MOUNT_F_EMPTY_PATH)


def new_tmpfs(*, size_bytes: int, inodes: int, mode: int, attributes: int) -> int:
    """A new, sized, detached tmpfs (fsopen, fsconfig, fsmount of mount_api); returns its descriptor."""
    fs = _syscall("fsopen", b"tmpfs", FSOPEN_CLOEXEC)
    try:
        options = {"size": str(size_bytes), "nr_inodes": str(inodes), "mode": f"{mode:o}"}
        for key, value in options.items():
            _syscall("fsconfig", fs, FSCONFIG_SET_STRING, key.encode(), value.encode(), 0)
        _syscall("fsconfig", fs, FSCONFIG_CMD_CREATE, None, None, 0)
        return _syscall("fsmount", fs, FSMOUNT_CLOEXEC, attributes)
    finally:
        os.close(fs)


def mount_setattr(dirfd: int, path: str, attributes: int, *, recursive: bool) -> None:
    """mount_setattr(2): set (never clear) `attributes` on a mount."""
    attr = struct.pack("=QQQQ", attributes, 0, 0, 0)
    flags = (AT_RECURSIVE if recursive else 0) | (0 if path else AT_EMPTY_PATH)
    _syscall("mount_setattr", dirfd, os.fsencode(path), flags, attr, len(attr))


def openat2(dirfd: int, path: str | bytes, flags: int, mode: int = 0, resolve: int = 0) -> int:
    """openat2(2): open `path` relative to `dirfd` under the RESOLVE_* rules; returns a descriptor."""
    how = struct.pack("=QQQ", flags | os.O_CLOEXEC, mode, resolve)
    return _syscall("openat2", dirfd, os.fsencode(path), how, len(how))


def syncfs(fd: int) -> None:
    """syncfs(2): make everything on a descriptor's file system durable."""
    _check(_libc.syncfs(fd), "syncfs")


def close_range(first: int, last: int) -> None:
    """close_range(2) without flags."""
    _syscall("close_range", first, last, 0)


def set_names(host: str, domain: str) -> None:
    """sethostname(2) and setdomainname(2), of the UTS namespace."""
    for call, name in ((_libc.sethostname, host.encode()), (_libc.setdomainname, domain.encode())):
        _check(call(name, ctypes.c_size_t(len(name))), "sethostname")


def drop_capabilities() -> None:
    """capset(2) with all three sets empty, and the ambient set cleared."""
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL)
    header = struct.pack("=Ii", _CAP_VERSION_3, 0)
    _syscall("capset", header, bytes(24))


def seccomp_load(program: bytes, *, listener: bool) -> int:
    """Install one classic-BPF filter (seccomp(2)); returns the listener's descriptor, or -1 without one.

    `program` is an array of `struct sock_filter` (8 bytes each). With a listener,
    WAIT_KILLABLE_RECV (Linux 5.19) is asked for and done without where the kernel does not know it.
    """
    code = ctypes.create_string_buffer(program, len(program))
    fprog = struct.pack("@HP", len(program) // 8, ctypes.addressof(code))
    if not listener:
        _syscall("seccomp", SECCOMP_SET_MODE_FILTER, 0, fprog)
        return -1
    try:
        flags = SECCOMP_FILTER_FLAG_NEW_LISTENER | SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
        return _syscall("seccomp", SECCOMP_SET_MODE_FILTER, flags, fprog)
    except OSError as error:
        if error.errno != 22:  # EINVAL: a kernel before 5.19
            raise
    return _syscall("seccomp", SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, fprog)


def notif_receive(listener: int) -> tuple[int, int, int, tuple[int, ...]]:
    """Fetch one notification: (id, pid as the caller sees it, call number, six arguments)."""
    buffer = ctypes.create_string_buffer(_NOTIF.size)
    _check(
        _libc.ioctl(listener, ctypes.c_ulong(_SECCOMP_IOCTL_NOTIF_RECV), buffer), "SECCOMP_IOCTL_NOTIF_RECV"
    )
    fields = _NOTIF.unpack(buffer.raw)
    return fields[0], fields[1], fields[3], fields[6:]


def notif_answer(listener: int, notification: int, *, errno: int, proceed: bool = False) -> None:
    """Answer a notification: the guest's call fails with `errno`, or proceeds unchanged."""
    flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE if proceed else 0
    response = _NOTIF_RESP.pack(notification, 0, 0 if proceed else -errno, flags)
    _check(
        _libc.ioctl(listener, ctypes.c_ulong(_SECCOMP_IOCTL_NOTIF_SEND), response), "SECCOMP_IOCTL_NOTIF_SEND"
    )


def landlock_abi() -> int:
    """The kernel's Landlock ABI; raises OSError (ENOSYS, EOPNOTSUPP) where there is none."""
    return _syscall("landlock_create_ruleset", None, 0, 1)


def landlock_create_ruleset(attributes: bytes) -> int:
    """landlock_create_ruleset(2); `attributes` is `struct landlock_ruleset_attr`."""
    return _syscall("landlock_create_ruleset", attributes, len(attributes), 0)


def landlock_add_path(ruleset: int, access: int, path_fd: int) -> None:
    """landlock_add_rule(2) with LANDLOCK_RULE_PATH_BENEATH."""
    _syscall("landlock_add_rule", ruleset, 1, struct.pack("=Qi", access, path_fd), 0)


def landlock_restrict_self(ruleset: int) -> None:
    """landlock_restrict_self(2)."""
    _syscall("landlock_restrict_self", ruleset, 0)
