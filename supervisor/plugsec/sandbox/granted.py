"""Host paths that a grant opens, as mounts: what may appear in the jail, and what must not come along.

A policy's author writes a path and means files. What lies beneath it is looked at before anything is
started: the jail's own trees, plugsec's keys and caches, the runtime, and kernel file systems.
"""

import os
import re
import stat
from collections.abc import Iterable

from plugsec.sandbox.spec import INPUT_DIR, OUTPUT_DIR, PLUGIN_DIR, TMP_DIR
from plugsec_plugins.runtimes.plan import Bind, LaunchPlan
from plugsec_policies.decision import Grant
from plugsec_policies.errors import PermissionRefused

# Trees of the jail's own; a grant cannot put the host's in their place.
_RESERVED = (PLUGIN_DIR, INPUT_DIR, OUTPUT_DIR, "/proc", "/sys", "/dev")
_SHARED_LOCKS = "/run/plugsec"
# Windows into the kernel, mounted where one expects files.
_KERNEL_FILE_SYSTEMS = frozenset({
    "autofs", "binfmt_misc", "bpf", "cgroup", "cgroup2", "configfs", "debugfs", "devpts", "devtmpfs",
    "efivarfs", "fusectl", "mqueue", "nsfs", "proc", "pstore", "securityfs", "selinuxfs", "sysfs", "tracefs",
})  # fmt: skip
_OCTAL = r"\\([0-7]{3})"


class PathRefused(PermissionRefused):
    """A granted path cannot be mapped into the jail as it is written (exit 1)."""

    id = "PLG-PERM-020"


def granted_binds(grant: Grant, plan: LaunchPlan, own_directories: Iterable[str]) -> tuple[Bind, ...]:
    """The mounts for a grant, outer ones first; the plan's own trees are mounted over them.

    A readable tree that contains one of plugsec's directories shows it empty. Raises PathRefused, and OSError
    where it cannot be known what lies below.
    """
    write = sorted({path for path in grant.fs_write if path.startswith("/")}, key=_depth)
    read = sorted({path for path in grant.fs_read if path.startswith("/")} - set(write), key=_depth)
    if not read and not write:
        return ()
    own = _outermost(os.path.realpath(path) for path in (*own_directories, _SHARED_LOCKS))
    runtime = tuple(bind.target for bind in plan.binds if not bind.device)
    for path in (*read, *write):
        _check_mappable(path)
    _check_kernel_mounts((*read, *write))
    for path in write:
        _check_apart(path, own, "plugsec's own directory")
        _check_apart(path, runtime, "the runtime's own files in")
    masked = []
    for path in read:
        for directory in own:
            if _beneath(path, directory):
                raise _refused(path, "is plugsec's own", "grant the directories that the plugin needs")
            if _beneath(directory, path) and _is_directory(directory):
                masked.append(Bind("", directory, mask=True))
    binds = [Bind(path, path, exec=path in grant.fs_read_execute) for path in read]
    binds += [Bind(path, path, write=True, exec=path in grant.fs_write_execute) for path in write]
    return (*sorted(binds, key=lambda bind: _depth(bind.target)), *dict.fromkeys(masked))


def _outermost(paths: Iterable[str]) -> tuple[str, ...]:
    """Without those that lie beneath another one."""
    unique = set(paths)
    return tuple(p for p in sorted(unique) if not any(p != q and _beneath(p, q) for q in unique))


def _check_mappable(path: str) -> None:
    """Refuse a path that cannot appear in the jail as it is written, saying what to write instead."""
    if path in {"/", TMP_DIR} or any(_beneath(path, reserved) for reserved in _RESERVED):
        raise _refused(path, "cannot be granted: the jail has its own", "grant what is needed by name")
    real = os.path.realpath(path)
    if real != path:
        raise _refused(path, "leads through a symbolic link", f'write the real path instead: "{real}"')
    if not os.path.lexists(path):
        raise _refused(path, "does not exist on this host", "create it, or make the permission optional")


def _check_apart(path: str, trees: Iterable[str], what: str) -> None:
    for tree in trees:
        if _beneath(path, tree) or _beneath(tree, path):
            raise _refused(path, f"cannot be granted for writing: it holds {what} {tree}", "grant less")


def _check_kernel_mounts(paths: tuple[str, ...]) -> None:
    """What is mounted beneath a granted directory comes along with it (open_tree(2), AT_RECURSIVE)."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            before, _, after = line.partition(" - ")
            kind = after.split(" ", 1)[0]
            if kind not in _KERNEL_FILE_SYSTEMS:
                continue
            point = re.sub(_OCTAL, lambda match: chr(int(match.group(1), 8)), before.split(" ")[4])
            for path in paths:
                if _beneath(point, path):
                    raise _refused(path, f"has a {kind} file system below it, at {point}", "grant less")


def _refused(path: str, why: str, hint: str) -> PathRefused:
    return PathRefused(f"{path} {why}", hint)


def _is_directory(path: str) -> bool:
    """As os.path.isdir, which says no as well where it could not look."""
    try:
        return stat.S_ISDIR(os.stat(path).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False


def _beneath(path: str, tree: str) -> bool:
    return path == tree or path.startswith(tree.rstrip("/") + "/")


def _depth(path: str) -> tuple[int, str]:
    return path.count("/"), path
