"""The jail's file tree: a sized tmpfs root, read-only binds, the payload, private /tmp and /output.

Sources are opened by `open_sources` before the user id changes (a private home is still reachable
then) and attached by `build_root` afterwards. Nothing of the host's tree remains after `enter_root`.
"""

import errno
import os
import stat

from plugsec.sandbox import linux
from plugsec.sandbox.spec import INPUT_DIR, OUTPUT_DIR, PLUGIN_DIR, TMP_DIR, SandboxSpec
from plugsec_plugins.runtimes.plan import Bind

_ROOT_SLACK_BYTES = 1024 * 1024  # directories and the few small files of /etc
_ROOT_SLACK_INODES = 256
_BLOCK_BYTES = 4096
_COPY_BYTES = 1024 * 1024
_CONSTANT_FILES = {
    "etc/passwd": "plugin:x:1000:1000::/tmp:/nonexistent\n",
    "etc/group": "plugin:x:1000:\n",
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
    "etc/hosts": "127.0.0.1 localhost\n",
}
_LINKS = {"dev/fd": "/proc/self/fd", "dev/stdin": "/proc/self/fd/0"}
_LINKS |= {"dev/stdout": "/proc/self/fd/1", "dev/stderr": "/proc/self/fd/2"}
# Mounted over while the root is built. /proc must stay visible until the new one is mounted.
_STAGING = ("/tmp", "/mnt", "/var", "/opt")  # noqa: S108


def make_private() -> None:
    """No mount event crosses between the host's tree and the jail's (mount_namespaces(7))."""
    linux.mount("none", "/", None, linux.MS_REC | linux.MS_PRIVATE)


def open_sources(binds: tuple[Bind, ...]) -> list[int]:
    """A detached copy of every source, in order.

    Each source is opened without following any symbolic link (the supervisor resolved them all when
    it decided), so that a path swapped in between is refused with ELOOP.
    """
    trees = []
    for bind in binds:
        if bind.mask:
            trees.append(-1)
            continue
        fd = linux.openat2(linux.AT_FDCWD, bind.source, os.O_PATH, resolve=linux.RESOLVE_NO_SYMLINKS)
        trees.append(linux.open_tree(fd, recursive=not bind.device))
        os.close(fd)
    return trees


def open_payload() -> int:
    """A detached copy of the installed directory in which boot stands since before it had its own mounts.

    It was changed into by descriptor, so that no path leads there that could be swapped; unshare(2) moves
    a working directory into the new mount namespace, as it does not move an open descriptor.
    """
    fd = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return linux.open_tree(fd, recursive=False)
    finally:
        os.close(fd)


def build_root(spec: SandboxSpec, trees: list[int], payload_fd: int, input_fds: list[int]) -> tuple[int, int]:
    """Build the root and stand in it; returns descriptors of /tmp and of /output (-1 without one)."""
    size = spec.input_bytes + _ROOT_SLACK_BYTES
    for file in spec.files:
        size += -(-file.size // _BLOCK_BYTES) * _BLOCK_BYTES
    size += len(spec.inputs) * _BLOCK_BYTES
    paths = sum(1 + file.path.count("/") for file in spec.files) + len(spec.inputs)
    paths += sum(bind.target.count("/") for bind in spec.binds)
    hardened = linux.MOUNT_ATTR_NOSUID | linux.MOUNT_ATTR_NODEV
    root = linux.new_tmpfs(
        size_bytes=size, inodes=paths + _ROOT_SLACK_INODES, mode=0o755, attributes=hardened
    )
    linux.move_mount(root, _staging())
    os.fchdir(root)
    for name, text in _CONSTANT_FILES.items():
        _write_file(name, text.encode(), 0o644)
    os.makedirs("dev", 0o755, exist_ok=True)
    for name, target in _LINKS.items():
        os.symlink(target, name)
    for name, target in spec.links:
        os.makedirs(os.path.dirname(name.lstrip("/")) or ".", 0o755, exist_ok=True)
        os.symlink(target, name.lstrip("/"))
    temporary = _private_tmpfs(TMP_DIR, spec)  # before the binds: one of them may lie beneath it
    for bind, tree in zip(spec.binds, trees, strict=True):
        _attach(bind, tree)
    _unpack(spec, payload_fd, input_fds)
    output = _private_tmpfs(OUTPUT_DIR, spec) if spec.output else -1
    os.makedirs("proc", 0o555, exist_ok=True)
    return temporary, output


def _staging() -> str:
    for path in _STAGING:
        if os.path.isdir(path):
            return path
    raise OSError(errno.ENOENT, "no directory to build the root at", ", ".join(_STAGING))


def mount_proc() -> bool:
    """A /proc that shows only the jail's own processes; False where the host refuses one (masked /proc)."""
    flags = linux.MS_RDONLY | linux.MS_NOSUID | linux.MS_NODEV | linux.MS_NOEXEC
    try:
        linux.mount("proc", "proc", "proc", flags, "subset=pid,hidepid=2")
    except OSError as error:
        if error.errno != 1:  # EPERM: mount_too_revealing() in fs/namespace.c
            raise
        return False
    return True


def enter_root() -> None:
    """Make the current directory the root, drop the host's tree, and make the root read-only."""
    linux.pivot_root(".", ".")
    linux.umount_detach(".")
    os.chdir("/")
    linux.mount_setattr(linux.AT_FDCWD, "/", linux.MOUNT_ATTR_RDONLY, recursive=False)


def _attach(bind: Bind, tree: int) -> None:
    target = bind.target.lstrip("/")
    if bind.mask:
        hidden = linux.MOUNT_ATTR_RDONLY | linux.MOUNT_ATTR_NOSUID | linux.MOUNT_ATTR_NODEV
        tree = linux.new_tmpfs(size_bytes=_BLOCK_BYTES, inodes=1, mode=0o555, attributes=hidden)
        linux.move_mount(tree, target)
        os.close(tree)
        return
    if stat.S_ISDIR(os.fstat(tree).st_mode):  # the source's path may be out of reach by now
        os.makedirs(target, 0o755, exist_ok=True)
    elif not os.path.exists(target):
        _write_file(target, b"", 0o644)
    attributes = linux.MOUNT_ATTR_NOSUID
    if not bind.device:
        attributes |= linux.MOUNT_ATTR_NODEV
    if not bind.write:
        attributes |= linux.MOUNT_ATTR_RDONLY
    if not bind.exec and not bind.libraries:
        # Neither started nor mapped executable: `ld.so FILE` needs no execute right on FILE, what a plugin
        # can write would be code, and /dev/zero maps as fresh memory.
        attributes |= linux.MOUNT_ATTR_NOEXEC
    linux.mount_setattr(tree, "", attributes, recursive=True)
    linux.move_mount(tree, target)
    os.close(tree)


def _private_tmpfs(path: str, spec: SandboxSpec) -> int:
    attributes = linux.MOUNT_ATTR_NOSUID | linux.MOUNT_ATTR_NODEV | linux.MOUNT_ATTR_NOEXEC
    fd = linux.new_tmpfs(size_bytes=spec.tmp_bytes, inodes=spec.tmp_inodes, mode=0o700, attributes=attributes)
    target = path.lstrip("/")
    os.makedirs(target, 0o755, exist_ok=True)
    linux.move_mount(fd, target)
    os.close(fd)
    return os.open(target, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def _unpack(spec: SandboxSpec, payload_fd: int, input_fds: list[int]) -> None:
    """Write the verified bytes, which no one can change any more, into the jail's own memory.

    A payload that is too large for that is mounted read-only where it was hashed.
    """
    os.makedirs(PLUGIN_DIR.lstrip("/"), 0o755, exist_ok=True)
    if not spec.files:
        attributes = linux.MOUNT_ATTR_RDONLY | linux.MOUNT_ATTR_NOSUID | linux.MOUNT_ATTR_NODEV
        linux.mount_setattr(payload_fd, "", attributes, recursive=False)
        linux.move_mount(payload_fd, PLUGIN_DIR.lstrip("/"))
    for file in spec.files:
        _copy(payload_fd, file.offset, file.size, f"{PLUGIN_DIR}/{file.path}".lstrip("/"), file.mode)
    os.makedirs(INPUT_DIR.lstrip("/"), 0o755, exist_ok=True)
    for name, fd in zip(spec.inputs, input_fds, strict=True):
        _copy(fd, 0, spec.input_bytes + 1, f"{INPUT_DIR}/{name}".lstrip("/"), 0o444)


def _copy(source: int, offset: int, limit: int, target: str, mode: int) -> None:
    fd = _create(target, mode)
    try:
        while limit > 0:
            chunk = os.pread(source, min(limit, _COPY_BYTES), offset)
            if not chunk:
                break
            view = memoryview(chunk)
            while view:
                view = view[os.write(fd, view) :]
            offset += len(chunk)
            limit -= len(chunk)
    finally:
        os.close(fd)


def _create(path: str, mode: int) -> int:
    parent = os.path.dirname(path)
    if parent:
        os.makedirs(parent, 0o755, exist_ok=True)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    os.fchmod(fd, mode)  # past the umask, which keeps what the plugin makes private
    return fd


def _write_file(path: str, data: bytes, mode: int) -> None:
    fd = _create(path, mode)
    try:
        os.write(fd, data)
    finally:
        os.close(fd)
