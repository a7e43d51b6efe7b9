"""Files of the host: not read, not written, not changed, not learnt of.

Each canary lies where everybody may read and write it, so nothing but the jail stands before it.
"""

import hashlib
import json
import os
import stat
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from catalogue.interface import ESCAPE, Attack, Batch, Scene, started
from kit.home import Home
from kit.outside import Canary, canary, host_mounts
from plugsec.outcome import Outcome

# Each tries one way to the file and returns what it found; `p` is the path from the host's root.
READ_ROUTES = {
    "by its path": "open(p).read()",
    "by its path as bytes": "open(p.encode()).read()",
    "from the working directory upwards": "open('../' * 40 + p.lstrip('/')).read()",
    "through the root of this process": "open('/proc/self/root' + p).read()",
    "through the root of the first process": "open('/proc/1/root' + p).read()",
    "through the directory of the first process": "open('/proc/1/cwd' + p).read()",
    "through the parent's root": "open('/proc/%d/root' % os.getppid() + p).read()",
    "through a thread's root": "open('/proc/thread-self/root' + p).read()",
    "through a symbolic link": "(os.symlink(p, '/tmp/l'), open('/tmp/l').read())[1]",
    "through a link to a directory": "(os.symlink(os.path.dirname(p), '/tmp/d'), open('/tmp/d/secret').read())[1]",
    "through a hard link": "(os.link(p, '/tmp/h'), open('/tmp/h').read())[1]",
    "from a descriptor of the root": "os.read(os.open(p.lstrip('/'), 0, dir_fd=os.open('/', 0)), 99).decode()",
    "from a descriptor of the root upwards": "os.read(os.open('..' + p, 0, dir_fd=os.open('/', 0)), 99).decode()",
    "by a path-only descriptor": "open('/proc/self/fd/%d' % os.open(p, os.O_PATH)).read()",
    "by the C library": "(lambda f: libc.read(f, buf, 99) if f >= 0 else oops())(libc.open(p.encode(), 0)) and text(buf)",
    "by the import system": "importlib.machinery.SourceFileLoader('x', p).get_data(p).decode()",
    "as a module's own loader": "open(json.__spec__.loader.path.replace(json.__spec__.loader.path, p)).read()",
    "as a zip archive": "zipfile.ZipFile(p).namelist()",
    "by moving it": "(os.rename(p, '/tmp/m'), open('/tmp/m').read())[1]",
    "by its directory's listing": "[n for n in os.listdir(os.path.dirname(p)) if n == 'secret'] or oops()",
    "by its metadata": "os.stat(p).st_size",
    "by asking whether it exists": "os.access(p, os.F_OK) or oops()",
    "by its extended attributes": "os.listxattr(p)",
    "by its file system": "os.statvfs(p).f_bsize",
}  # fmt: skip
WRITE_ROUTES = {
    "overwriting": "open(p, 'w').write('x')",
    "appending": "open(p, 'a').write('x')",
    "creating beside it": "open(p + '.new', 'x').close()",
    "creating a directory": "os.mkdir(p + '.dir')",
    "creating a nameless file": "os.open(os.path.dirname(p), os.O_TMPFILE | os.O_RDWR)",
    "removing": "os.remove(p)",
    "renaming": "os.rename(p, p + '.moved')",
    "linking": "os.link(p, p + '.link')",
    "linking symbolically": "os.symlink('x', p + '.symlink')",
    "truncating": "os.truncate(p, 0)",
    "changing its mode": "os.chmod(p, 0o600)",
    "changing its times": "os.utime(p, (0, 0))",
    "changing its directory's mode": "os.chmod(os.path.dirname(p), 0o700)",
    "through the root of this process": "open('/proc/self/root' + p, 'w').write('x')",
    "through a symbolic link": "(os.symlink(p, '/tmp/l'), open('/tmp/l', 'w').write('x'))",
}

GUEST = """
import ctypes, importlib.machinery, json, os, zipfile
libc = ctypes.CDLL(None)
buf = ctypes.create_string_buffer(100)
def text(buffer): return buffer.value.decode()
def oops(): raise OSError("nothing found")

@plugin.method
def go(paths, routes, before):
    found = {}
    for name, route in routes.items():
        path = paths[name]
        for prefix in before:
            try:
                found[name] = str(eval(route, globals(), {"p": prefix + path}))
                break
            except Exception as error:
                found[name] = f"refused: {type(error).__name__}"
    return found
"""
HOST_ROOTS = ("", "/host")  # where a mount mistake would show the host's tree, see kit.weak
# What else there is to find, each as an expression that is false where nothing is
TREE = {
    "the interpreter is not rewritten through /proc/self/exe": "writable('/proc/self/exe')",
    "the interpreter is not rewritten through the first process": "writable('/proc/1/exe')",
    "the interpreter is not rewritten by its path": "writable(os.path.realpath('/proc/self/exe'))",
    "own memory is not rewritten through /proc": "writable('/proc/self/mem')",
    "the first process's memory is closed": "readable('/proc/1/mem')",
    "the first process's environment is closed": "readable('/proc/1/environ')",
    "the first process's files are closed": "listed('/proc/1/fd')",
    "the first process's root leads nowhere": "listed('/proc/1/root/')",
    "the first process's directory leads nowhere": "listed('/proc/1/cwd/')",
    "the parent's root leads nowhere": "listed('/proc/%d/root/' % os.getppid())",
    "other processes are not seen": "[n for n in listed('/proc') if n.isdigit() and int(n) > 2]",
    "the host's users are not known": "'root:' in open('/etc/passwd').read()",
    "the host's name is not known": "os.uname().nodename != 'plugin'",
    "there is no terminal": "[p for p in ('/dev/tty', '/dev/console', '/dev/ptmx', '/dev/pts/0') if readable(p)]",
    "there is no shared memory between runs": "writable('/dev/shm/x', os.O_CREAT)",
    "there is no device but five": "[n for n in listed('/dev') if n not in ('null','zero','full','random','urandom','fd',"
    "'stdin','stdout','stderr')]",
    "there is no memory of the kernel": "[p for p in ('/dev/mem', '/dev/kmem', '/proc/kcore', '/proc/kallsyms')"
    " if os.path.lexists(p)]",
    "there is no switch of the kernel": "[p for p in ('/proc/sys', '/proc/sysrq-trigger', '/sys') if os.path.lexists(p)]",
    "the root cannot be written": "writable('/x', os.O_CREAT)",
    "the plugin's own files cannot be written": "writable('/plugin/main.py')",
    "the C library cannot be locked for others": "locked(os.__file__)",
    "no core can be dumped": "resource.getrlimit(resource.RLIMIT_CORE) != (0, 0)",
    "limits cannot be raised": "raised()",
    "descriptors run out for the plugin alone": "descriptors() >= 4096",
}  # fmt: skip
_TREE_GUEST = """
import errno, fcntl, os, resource

def writable(path, flags=0):
    try:
        os.close(os.open(path, os.O_RDWR | flags, 0o600))
    except OSError as error:
        return False
    return True

def readable(path):
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOCTTY)
        os.read(fd, 1)
    except OSError as error:
        return False
    return True

def listed(path):
    try:
        return os.listdir(path)
    except OSError:
        return []

def locked(path):
    try:
        fcntl.flock(os.open(path, os.O_RDONLY), fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        return False
    return True

def raised():
    for name in ("RLIMIT_NOFILE", "RLIMIT_AS", "RLIMIT_NPROC", "RLIMIT_CPU", "RLIMIT_FSIZE", "RLIMIT_CORE"):
        try:
            resource.setrlimit(getattr(resource, name), (1 << 40, 1 << 40))
        except (OSError, ValueError):
            continue
        return name

def descriptors():
    fds = []
    try:
        while len(fds) < 5000:
            fds.append(os.open("/dev/null", os.O_RDONLY))
    except OSError as error:
        assert error.errno == errno.EMFILE
    for fd in fds:
        os.close(fd)
    return len(fds)

@plugin.method
def go(tries):
    return {name: repr(eval(code)) if eval(code) else "" for name, code in tries.items()}
"""
_READ, _WRITE = "the file is not read: ", "the file is not changed: "
_LAYERS = ("mount-namespace", "landlock")


def try_routes(
    home: Home, paths: Mapping[str, Path], routes: Mapping[str, str], *policies: str, **more: Any
) -> Outcome:
    """Try each route to its path in one jail; its result says for each what came of it."""
    call = {"paths": {name: str(paths[name]) for name in routes}, "routes": routes, "before": HOST_ROOTS}
    outcome = started(home.attack(GUEST, *policies, input=json.dumps(call).encode(), **more))
    assert outcome.error is None, outcome.error
    return outcome


def _refused(said: str) -> str:
    return "refused" if said.startswith("refused") else said


def reading(scene: Scene) -> Mapping[str, str]:
    """All ways of reading, in one jail: neither content nor existence is told."""
    with canary() as own:
        outcome = try_routes(scene.home, dict.fromkeys(READ_ROUTES, own.file), READ_ROUTES)
    if own.secret in repr(outcome):
        return dict.fromkeys((_READ + name for name in READ_ROUTES), "the canary was read")
    return {_READ + name: _refused(outcome.result[name]) for name in READ_ROUTES}


def writing(scene: Scene) -> Mapping[str, str]:
    """All ways of changing, in one jail, each at a canary of its own."""
    with ExitStack() as stack:
        canaries = {name: stack.enter_context(canary()) for name in WRITE_ROUTES}
        before = {name: _state(own) for name, own in canaries.items()}
        paths = {name: own.file for name, own in canaries.items()}
        outcome = try_routes(scene.home, paths, WRITE_ROUTES)
        return {
            _WRITE + name: _refused(outcome.result[name])
            if _state(own) == before[name]
            else "the canary changed"
            for name, own in canaries.items()
        }


def _state(own: Canary) -> tuple[object, ...]:
    return (stat.S_IMODE(own.directory.stat().st_mode), *own.state())


def looking_around(scene: Scene) -> Mapping[str, str]:
    """The jail's tree and the process's own standing; the interpreter and the host's mounts are compared."""
    interpreter = Path(os.path.realpath(sys.executable))
    before = hashlib.sha256(interpreter.read_bytes()).digest(), host_mounts()
    outcome = started(scene.home.attack(_TREE_GUEST, input=json.dumps({"tries": TREE}).encode()))
    assert outcome.error is None, outcome.error
    assert before == (hashlib.sha256(interpreter.read_bytes()).digest(), host_mounts()), "the host changed"
    return {name: outcome.result[name] or "nothing" for name in TREE}


_TREE_LAYERS = {
    "the host's name is not known": ("uts-namespace",),
    "other processes are not seen": ("pid-namespace", "mount-namespace"),
    "the C library cannot be locked for others": ("seccomp",),
    "own memory is not rewritten through /proc": ("user-namespace", "landlock"),
    "no core can be dumped": ("rlimits",),
    "limits cannot be raised": ("seccomp", "rlimits"),
    "descriptors run out for the plugin alone": ("rlimits",),
    **dict.fromkeys(
        (name for name in TREE if "first process" in name), ("landlock", "capabilities", "user-namespace")
    ),
}

BATCHES = (
    Batch(
        "ways to read a file of the host",
        tuple(Attack(_READ + name, ESCAPE, "refused", "a canary's secret", _LAYERS) for name in READ_ROUTES),
        reading,
    ),
    Batch(
        "ways to change a file of the host",
        tuple(
            Attack(_WRITE + name, ESCAPE, "refused", "a canary of its own", _LAYERS) for name in WRITE_ROUTES
        ),
        writing,
    ),
    Batch(
        "what is to be found in the jail",
        tuple(
            Attack(
                name,
                ESCAPE,
                "nothing",
                "the interpreter's digest, the host's mounts",
                _TREE_LAYERS.get(name, _LAYERS),
            )
            for name in TREE
        ),
        looking_around,
    ),
)
