"""Trying one layer by doing, in boot's own process, which ends afterwards.

Some hosts let `unshare` pass and refuse the mount, so each attempt goes through to its effect.
"""

import _socket
import os
import resource
from typing import Any, NoReturn

from plugsec.sandbox import capabilities, control, enter, landlock, linux, mounts

_QUIET_NAMESPACES = ("ipc", "uts", "cgroup")
_before: dict[str, str] = {}  # this process tries one layer and ends
_RETURN_ALLOW = b"\x06\x00\x00\x00\x00\x00\xff\x7f"  # one instruction: SECCOMP_RET_ALLOW


def run(sock: _socket.socket, layer: str) -> NoReturn:
    """Try `layer`, report {"at":"probed"} or {"at":"failed"}, and leave."""
    detail = ""
    try:
        if layer in _NAMESPACED:
            for name in _QUIET_NAMESPACES:
                _before[name] = os.readlink(f"/proc/self/ns/{name}")
            enter.unshare_and_map(sock)
        enter.at(layer, "probe")
        detail = _ATTEMPTS[layer]()
    except OSError as error:
        enter.fail(sock, error.errno or 0, str(error))
    else:
        control.send(sock, {"at": "probed", "detail": detail})
    os._exit(0)


def _user_namespace() -> str:
    os.setresgid(1000, 1000, 1000)
    os.setresuid(1000, 1000, 1000)
    return ""


def _mount_namespace() -> str:
    mounts.make_private()
    root = linux.new_tmpfs(size_bytes=65536, inodes=16, mode=0o755, attributes=0)
    linux.move_mount(root, "/tmp")  # noqa: S108 - in this namespace only
    os.fchdir(root)
    linux.pivot_root(".", ".")
    linux.umount_detach(".")
    return ""


def _pid_namespace() -> str:
    child = os.fork()
    if child == 0:
        os._exit(0 if os.getpid() == 1 else 1)
    _, status = os.waitpid(child, 0)
    if status != 0:
        raise OSError(0, "the first child is not pid 1")
    return ""


def _network_namespace() -> str:
    with open("/proc/self/net/dev", encoding="ascii") as file:
        names = [line.split(":")[0].strip() for line in file if ":" in line]
    if names != ["lo"]:
        raise OSError(0, f"interfaces inside: {', '.join(names)}")
    return ""


def _other_namespace(name: str) -> str:
    """`unshare_and_map` made all of them at once; these three show no effect but their identity."""
    if os.readlink(f"/proc/self/ns/{name}") == _before[name]:
        raise OSError(0, f"the {name} namespace is still the supervisor's")
    return ""


def _landlock() -> str:
    abi = linux.landlock_abi()
    capabilities.no_new_privs()
    landlock.restrict(abi, [])
    try:
        os.close(os.open("/", os.O_RDONLY))
    except PermissionError:
        return f"ABI {abi}"
    raise OSError(0, "the empty ruleset refuses nothing")


def _seccomp() -> str:
    capabilities.no_new_privs()
    linux.seccomp_load(_RETURN_ALLOW, listener=False)
    return ""


def _denial_report() -> str:
    capabilities.no_new_privs()
    os.close(linux.seccomp_load(_RETURN_ALLOW, listener=True))
    return ""


def _no_new_privs() -> str:
    capabilities.no_new_privs()
    return ""


def _capabilities() -> str:
    capabilities.drop_bounding_set()
    capabilities.drop_all()
    return ""


def _rlimits() -> str:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (16, 16))
    return ""


_NAMESPACED = (
    "user-namespace", "mount-namespace", "pid-namespace", "network-namespace", "ipc-namespace",
    "uts-namespace", "cgroup-namespace", "capabilities",
)  # fmt: skip
_ATTEMPTS: dict[str, Any] = {
    "user-namespace": _user_namespace,
    "mount-namespace": _mount_namespace,
    "pid-namespace": _pid_namespace,
    "network-namespace": _network_namespace,
    "ipc-namespace": lambda: _other_namespace("ipc"),
    "uts-namespace": lambda: _other_namespace("uts"),
    "cgroup-namespace": lambda: _other_namespace("cgroup"),
    "landlock": _landlock,
    "seccomp": _seccomp,
    "denial-report": _denial_report,
    "no-new-privs": _no_new_privs,
    "capabilities": _capabilities,
    "rlimits": _rlimits,
}
