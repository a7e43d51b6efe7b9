"""Nothing is executed but what was signed and granted: no other program, no memory turned into code.

A program that ran betrays itself by writing `7` to stdout, which the supervisor reads. Before each attempt
its name goes to stderr, so that one that ended the plugin is known.
"""

import json
import os
from collections.abc import Mapping
from typing import Any

from catalogue.interface import ESCAPE, Attack, Batch, Scene, started
from kit import elf
from kit.home import PROGRAM, Home
from kit.native import run_native, run_script
from plugsec.outcome import Outcome
from plugsec_plugins.elf import read_elf

PROGRAM_THAT_BETRAYS_ITSELF = elf.program(elf.answers_seven())
# Each starts the program of the bundle in its own way; `program` is its content.
WAYS = {
    "execve": "os.execv('/plugin/program', ['program'])",
    "execve of a script's interpreter": "os.execv('/bin/sh', ['sh', '-c', 'echo 7'])",
    "execve through /proc": "os.execv('/proc/self/fd/%d' % os.open('/plugin/program', 0), ['program'])",
    "execve of a descriptor": "os.execve(os.open('/plugin/program', os.O_RDONLY), ['program'], {})",
    "execveat": "call('execveat', os.open('/plugin/program', os.O_PATH), b'', 0, 0, 0x1000)",
    "execve of a dropped file": "os.execv(drop('/tmp/program'), ['program'])",
    "execve through the loader": "os.execv(loader(), ['ld.so', '/plugin/program'])",
    "a memory file": "os.execve(memory(), ['program'], {})",
    "posix_spawn": "os.posix_spawn('/plugin/program', ['program'], {}) and time.sleep(0.5)",
    "vfork and execve": "subprocess.run(['/plugin/program'])",
    "the shell": "os.system('/plugin/program')",
    "a child": "os.fork() or os.execv('/plugin/program', ['program'])",
    "a terminal's child": "pty.spawn(['/plugin/program'])",
}  # fmt: skip
WAYS_GUEST = """
import ctypes, glob, os, pty, subprocess, time
libc = ctypes.CDLL(None, use_errno=True)
NUMBERS = {"x86_64": {"execveat": 322}, "aarch64": {"execveat": 281}}[os.uname().machine]

def call(name, *arguments):
    words = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    if libc.syscall(ctypes.c_long(NUMBERS[name]), *words) < 0:
        raise OSError(ctypes.get_errno(), name)

def drop(path):
    with open(path, "wb") as file:
        file.write(open("/plugin/program", "rb").read())
    os.chmod(path, 0o700)
    return path

def memory():
    fd = os.memfd_create("program", 0)
    os.write(fd, open("/plugin/program", "rb").read())
    return fd

def loader():
    return glob.glob("/lib64/ld-linux*")[0] if os.path.isdir("/lib64") else "/lib/ld-linux-aarch64.so.1"

@plugin.method
def go(ways):
    said = {}
    for name, way in ways.items():
        os.write(2, (name + "\\n").encode())
        try:
            eval(way)
            said[name] = "done"
        except Exception as error:
            said[name] = f"refused: {type(error).__name__}"
    return said
"""


CODE_MAKERS = {
    "writable and executable memory": "anonymous(7)",
    "executable memory": "anonymous(5)",
    "memory made executable": "protect(anonymous(3))",
    "memory made executable after a fork of the mapping": "protect(remap(anonymous(3)))",
    "a file of /tmp": "file('/tmp/code', 5, 2)",
    "a shared file of /tmp": "file('/tmp/code', 5, 1)",
    "a shared file of /tmp, mapped twice": "twice('/tmp/code')",
    "a nameless file of /tmp": "descriptor(os.open('/tmp', os.O_TMPFILE | os.O_RDWR), 5, 2)",
    "/dev/zero, written through a second mapping": "zero()",
    "/dev/zero, private": "protect(map(os.open('/dev/zero', os.O_RDWR), 3, 2))",
    "a memory file": "descriptor(os.memfd_create('code', 0), 5, 2)",
    "secret memory": "descriptor(secret(), 5, 1)",
    "the interpreter's own code": "overwrite()",
    "the interpreter's own code through /proc": "through_proc()",
}
MAKER_GUEST = """
import ctypes, mmap, os
libc = ctypes.CDLL(None, use_errno=True)
PAGE = mmap.PAGESIZE
for function, arguments in (
    (libc.mmap, [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]),
    (libc.mremap, [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_int]),
    (libc.mprotect, [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]),
):
    function.argtypes = arguments
libc.mmap.restype = libc.mremap.restype = ctypes.c_void_p

def checked(address):
    if address in (None, 2**64 - 1):
        raise OSError(ctypes.get_errno(), "refused")
    return address

def map(fd, protection, flags):
    return checked(libc.mmap(None, PAGE, protection, flags, fd, 0))

def anonymous(protection):
    place = map(-1, protection, 0x22)
    if protection & 2 == 0:
        if libc.mprotect(place, PAGE, 3):
            raise OSError("refused")
        return protect(fill(place))
    return fill(place)

def fill(place):
    ctypes.memmove(place, CODE, len(CODE))
    return place

def protect(place):
    fill(place)
    if libc.mprotect(place, PAGE, 5):
        raise OSError(ctypes.get_errno(), "refused")
    return place

def remap(place):
    return checked(libc.mremap(place, PAGE, 2 * PAGE, 1))

def file(path, protection, flags):
    with open(path, "wb") as out:
        out.write(CODE.ljust(PAGE, b"\\0"))
    return map(os.open(path, os.O_RDWR), protection, flags)

def twice(path):
    with open(path, "wb") as out:
        out.truncate(PAGE)
    fd = os.open(path, os.O_RDWR)
    runs = map(fd, 5, 1)
    fill(map(fd, 3, 1))
    return runs

def descriptor(fd, protection, flags):
    os.ftruncate(fd, PAGE)
    os.pwrite(fd, CODE, 0)
    return map(fd, protection, flags)

def zero():
    runs = map(os.open("/dev/zero", os.O_RDWR), 5, 1)
    writes = checked(libc.mremap(runs, 0, PAGE, 1))
    if libc.mprotect(writes, PAGE, 3):
        raise OSError("refused")
    fill(writes)
    return runs

def secret():
    fd = libc.syscall(447, 0)
    if fd < 0:
        raise OSError("refused")
    return fd

def overwrite():
    place = ctypes.cast(libc.getpid, ctypes.c_void_p).value // PAGE * PAGE
    if libc.mprotect(place, PAGE, 7):
        raise OSError("refused")
    return fill(place)

def through_proc():
    place = ctypes.cast(libc.getpid, ctypes.c_void_p).value
    os.pwrite(os.open("/proc/self/mem", os.O_RDWR), CODE, place)
    return place

@plugin.method
def go(makers, granted, code):
    global CODE
    CODE, said = bytes.fromhex(code), {}
    for name, maker in makers.items():
        os.write(2, (name + "\\n").encode())
        try:
            said[name] = ctypes.CFUNCTYPE(ctypes.c_int)(eval(maker, globals(), {"granted": granted}))()
        except (OSError, AttributeError) as error:
            said[name] = "refused"
    return said
"""


INT80_GETPID = bytes.fromhex("b814000000cd80")  # mov eax,20; int 0x80
INT80_EXECVE = bytes.fromhex("b80b00000031db31c931d2cd80")
X32_GETPID = bytes.fromhex("b8270000400f05")  # mov eax,0x40000027; syscall
X32_EXECVE = bytes.fromhex("b8080200400f05")  # the number that only x32 has
EXECVE = bytes.fromhex("b83b00000031ff31f631d20f05")
FAR_TO_32_BIT = bytes.fromhex("6a23488d05030000005048cb")  # push 0x23; lea rax,[rip+3]; push rax; retfq


def loader() -> str:
    """The dynamic loader that this host's own programs name."""
    fd = os.open("/bin/sh", os.O_RDONLY)
    try:
        return read_elf(fd).interpreter or "/lib/ld.so"
    finally:
        os.close(fd)


OTHER_WAYS = {
    "directly": "/plugin/other",
    "in place": "exec /plugin/other",
    "through a link": "ln -s /plugin/other /tmp/l; /tmp/l",
    "through /proc": "exec 5< /plugin/other; /proc/self/fd/5",
    "through the loader": "LOADER /plugin/other",
    "copied": "while read -r line; do echo; done < /plugin/other > /tmp/other; /tmp/other",
}  # fmt: skip


# The filter's own signal; a fault where the kernel has no such convention; and what an emulated processor
# that cannot go to 32-bit mode makes of the attempt.
_FATAL = ("SIGSYS", "SIGSEGV", "SIGKILL")
FOREIGN = {
    "int 0x80": INT80_GETPID,
    "execve by int 0x80": INT80_EXECVE,
    "an x32 number": X32_GETPID,
    "execve by x32": X32_EXECVE,
    "32-bit mode": FAR_TO_32_BIT + INT80_GETPID,
}


def run_ways(home: Home, ways: Mapping[str, str], *policies: str, **more: Any) -> Outcome:
    """Try these ways to a program of the bundle in one jail."""
    files: dict[str, bytes | str] = {
        "main.py": "from plugsec_plugins.guest import plugin\n" + WAYS_GUEST,
        "program": PROGRAM_THAT_BETRAYS_ITSELF,
    }
    bundle = home.bundle(files, modes={"program": PROGRAM}, **more)
    return started(home.run(bundle, *policies, input=json.dumps({"ways": dict(ways)}).encode()))


def make_code(
    home: Home, makers: Mapping[str, str], *policies: str, granted: str = "", **more: Any
) -> Outcome:
    """Try to make code by these means in one jail, and to run it; the result says `refused` or 42."""
    call = {"makers": dict(makers), "granted": granted, "code": elf.returns_42().hex()}
    return started(home.attack(MAKER_GUEST, *policies, input=json.dumps(call).encode(), **more))


def last_tried(outcome: Outcome) -> str:
    """The attempt that was under way when the plugin ended."""
    return (outcome.stderr.decode(errors="replace").split("\n") or [""])[-2]


def _programs(scene: Scene) -> Mapping[str, str]:
    outcome = run_ways(scene.home, WAYS)
    if b"7" in outcome.stdout or outcome.error is not None:
        return {_RUN + last_tried(outcome): f"{outcome.stdout!r} {outcome.error}"}
    return {_RUN + name: "nothing was executed" for name in outcome.result}


def _code(scene: Scene) -> Mapping[str, str]:
    outcome = make_code(scene.home, CODE_MAKERS)
    if outcome.error is not None:
        return {_MAKE + last_tried(outcome): str(outcome.error)}
    return {_MAKE + name: str(said) for name, said in outcome.result.items()}


def _foreign(scene: Scene) -> Mapping[str, str]:
    endings = {}
    for name, code in FOREIGN.items():
        outcome = started(run_native(scene.home, code + elf.answers_seven()))
        said = outcome.error.message if outcome.error else f"it went on: {outcome.result}"
        killed = any(signal in said for signal in _FATAL)
        endings[_CONVENTION + name] = "killed" if killed else said
    return endings


def _shell(scene: Scene) -> Mapping[str, str]:
    tries = []
    for number, way in enumerate(OTHER_WAYS.values()):
        command = way.replace("LOADER", loader())
        tries.append(
            f"({command}) 2>/tmp/said{number} >/tmp/out{number}\nread -r x{number} < /tmp/out{number}"
        )
    answer = ",".join(f'\\"$x{number}\\"' for number in range(len(OTHER_WAYS)))
    script = "\n".join([*tries, f'echo "[{answer}]"'])
    outcome = started(run_script(scene.home, script, files={"other": PROGRAM_THAT_BETRAYS_ITSELF}))
    assert outcome.error is None, outcome.error
    return {
        _OTHER + name: f"it ran: {said}" if said else "nothing was executed"
        for name, said in zip(OTHER_WAYS, outcome.result, strict=True)
    }


_RUN, _MAKE = "a program is not executed: ", "code is not made: "
_CONVENTION, _OTHER = "another call convention kills: ", "a granted shell starts no other program: "
_FILE_BEHIND = ("mount-namespace",)  # its noexec mounts
_LAYERS_BEFORE_CODE = {name: _FILE_BEHIND for name in CODE_MAKERS if "/tmp" in name or "/dev/zero, w" in name}
BATCHES = (
    Batch(
        "ways to a program",
        tuple(
            Attack(
                _RUN + name,
                ESCAPE,
                "nothing was executed",
                "the program's own word on stdout",
                ("seccomp",) if name == "a memory file" else ("seccomp", "landlock"),
            )
            for name in WAYS
        ),
        _programs,
    ),
    Batch(
        "ways to make code",
        tuple(
            Attack(
                _MAKE + name,
                ESCAPE,
                "refused",
                "what the code returned",
                _LAYERS_BEFORE_CODE.get(name, ("seccomp",)),
            )
            for name in CODE_MAKERS
        ),
        _code,
    ),
    Batch(
        "other call conventions",
        tuple(
            Attack(_CONVENTION + name, ESCAPE, "killed", "the signal that ended it", ("seccomp",))
            for name in FOREIGN
        )
        if os.uname().machine == "x86_64"
        else (),
        _foreign,
    ),
    Batch(
        "ways to a program from a granted shell",
        tuple(
            Attack(
                _OTHER + name,
                ESCAPE,
                "nothing was executed",
                "the program's own word on stdout",
                ("mount-namespace",) if name == "copied" else ("landlock",),
            )
            for name in OTHER_WAYS
        ),
        _shell,
    ),
)
