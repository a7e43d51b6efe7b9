"""A boot with chosen layers taken away, to show that an attack succeeds without them.

Only tests can have one: it is another boot script, generated here, which replaces single functions of
the real boot before it runs. The kernel is the real one throughout.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

from plugsec.sandbox import cgroups, spawn

_HEAD = """
import sys
sys.path[:0] = sys.argv[1:]
from plugsec.sandbox import capabilities, enter, landlock, linux, mounts
import os, resource
_unshare = linux.unshare
_ALLOW = b"\\x06\\x00\\x00\\x00\\x00\\x00\\xff\\x7f"
"""
_DROP_NAMESPACE = "enter._NAMESPACES &= ~linux.{flag}\n"
_WITHOUT = {
    "seccomp": """
_load = linux.seccomp_load
linux.seccomp_load = lambda program, *, listener: _load(_ALLOW, listener=listener)
""",
    "landlock": "landlock.restrict = lambda abi, rules: None\n",
    "rlimits": "resource.setrlimit = lambda kind, pair: None\n",
    "capabilities": "capabilities.drop_bounding_set = capabilities.drop_all = lambda: None\n",
    "no-new-privs": "capabilities.no_new_privs = lambda: None\n",
    "mdwe": "capabilities.refuse_exec_gain = lambda: False\n",
    "noexec": "linux.MOUNT_ATTR_NOEXEC = 0\n",
    "descriptors": "linux.close_range = lambda first, last: None\n",
    "parent-death": "enter.die_with_parent = lambda: None\n",
    "network-namespace": _DROP_NAMESPACE.format(flag="CLONE_NEWNET"),
    "pid-namespace": _DROP_NAMESPACE.format(flag="CLONE_NEWPID"),
    "ipc-namespace": _DROP_NAMESPACE.format(flag="CLONE_NEWIPC"),
    "uts-namespace": _DROP_NAMESPACE.format(flag="CLONE_NEWUTS"),
    # The host's tree, writable, appears at /host: what a wrong bind would be.
    "mount-namespace": """
_enter_root = mounts.enter_root
_open_sources = mounts.open_sources
_host = []
def open_sources(binds):
    fd = os.open("/", os.O_PATH)
    _host.append(linux.open_tree(fd, recursive=True))
    return _open_sources(binds)
def enter_root():
    os.makedirs("host")
    linux.move_mount(_host[0], "host")
    _enter_root()
mounts.open_sources, mounts.enter_root = open_sources, enter_root
""",
}


@contextlib.contextmanager
def broken(directory: Path, change: str, number: int) -> Iterator[None]:
    """Boot with one call that fails with this errno: `change` assigns `refuse` to it."""
    script = directory / "boot-broken.py"
    refuse = f'raise OSError({number}, os.strerror({number}), "refused by a test")'
    script.write_text(f"{_HEAD}def refuse(*arguments, **more):\n    {refuse}\n{change}\nenter.main()\n")
    with mock.patch.object(spawn, "BOOT_SCRIPT", str(script)):
        yield


@contextlib.contextmanager
def without(directory: Path, *names: str) -> Iterator[None]:
    """Boot without the named layers for as long as this lasts."""
    with contextlib.ExitStack() as stack:
        if "cgroup" in names:
            gone = mock.Mock(side_effect=cgroups.CgroupUnavailable("taken away by a test"))
            stack.enter_context(mock.patch.object(cgroups, "create", gone))
        weakened = [name for name in names if name != "cgroup"]
        if weakened:
            script = directory / f"boot-without-{'-'.join(weakened)}.py"
            script.write_text(_HEAD + "".join(_WITHOUT[name] for name in weakened) + "enter.main()\n")
            stack.enter_context(mock.patch.object(spawn, "BOOT_SCRIPT", str(script)))
        yield
