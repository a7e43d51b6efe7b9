"""Nothing is executed but what was signed and granted: no other program, no memory turned into code.

A program that ran betrays itself by writing `7` to stdout, which the supervisor reads.
"""

import json
import os
from pathlib import Path

import pytest

from kit import elf, weak
from kit.home import PROGRAM, Home
from kit.native import run_file, run_native, run_script
from kit.outside import canary
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
_GUEST = """
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
def go(way):
    try:
        eval(way)
    except Exception as error:
        return f"refused: {type(error).__name__}"
    return "done"
"""


def _run(home: Home, way: str, *policies: str, **more: object) -> Outcome:
    files: dict[str, bytes | str] = {
        "main.py": "from plugsec_plugins.guest import plugin\n" + _GUEST,
        "program": PROGRAM_THAT_BETRAYS_ITSELF,
    }
    bundle = home.bundle(files, modes={"program": PROGRAM}, **more)  # type: ignore[arg-type]
    return home.run(bundle, *policies, input=json.dumps({"way": WAYS[way]}).encode())


def _betrayed(outcome: Outcome) -> bool:
    return b"7" in outcome.stdout


@pytest.mark.parametrize("way", WAYS)
def test_a_python_plugin_executes_nothing(way: str, home: Home) -> None:
    """Its process is the interpreter and stays it."""
    assert not _betrayed(_run(home, way))


@pytest.mark.parametrize("way", ["execve", "vfork and execve", "a child", "posix_spawn"])
def test_children_execute_nothing_either(way: str, home: Home) -> None:
    """The `process` permission gives children, not programs."""
    policy = home.policy('[[grant]]\nid = "children"\nplugins = ["*"]\nprocess = 8\n')
    asked = [{"name": "process", "max": 8, "reason": "starts children"}]
    assert not _betrayed(_run(home, way, policy, permissions=asked))


@pytest.mark.parametrize(
    ("missing", "runs"),
    [(("seccomp",), False), (("landlock",), False), (("seccomp", "landlock"), True)],
    ids=["Landlock holds alone", "seccomp holds alone", "without both it runs"],
)
@pytest.mark.parametrize("way", ["execve", "execve of a descriptor", "execveat", "execve through /proc"])
def test_layers_before_a_program(way: str, missing: tuple[str, ...], runs: bool, home: Home) -> None:
    """The program is there, may be executed and works; two layers refuse it."""
    with weak.without(home.root, *missing):
        assert _betrayed(_run(home, way)) is runs


def test_without_seccomp_a_memory_file_runs(home: Home) -> None:
    """Landlock does not see files without a place, so the filter is what refuses them."""
    with weak.without(home.root, "seccomp"):
        outcome = _run(home, "a memory file")
    assert _betrayed(outcome) or "refused" in str(outcome.result)
    if "refused" in str(outcome.result):
        pytest.skip("seccomp: this host also forbids executable memory files (vm.memfd_noexec)")


# Machine code made at run time ------------------------------------------------------------------------------

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
_MAKER = """
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
def go(maker, path):
    global CODE
    CODE = bytes.fromhex(path[1])
    try:
        return ctypes.CFUNCTYPE(ctypes.c_int)(eval(maker, globals(), {"granted": path[0]}))()
    except (OSError, AttributeError) as error:
        return "refused"
"""


def _make(home: Home, maker: str, *policies: str, granted: str = "", **more: object) -> Outcome:
    call = {"maker": maker, "path": [granted, elf.returns_42().hex()]}
    return home.attack(_MAKER, *policies, input=json.dumps(call).encode(), **more)


@pytest.mark.parametrize("maker", CODE_MAKERS)
def test_no_code_is_made_at_run_time(maker: str, home: Home) -> None:
    """Where nothing refuses the mapping, calling it must at least not run what was written."""
    outcome = _make(home, CODE_MAKERS[maker])
    assert outcome.result != 42
    assert outcome.outcome in {"ok", "failed"}


@pytest.mark.parametrize("maker", ["writable and executable memory", "memory made executable"])
def test_with_jit_code_is_made(maker: str, home: Home) -> None:
    """The permission is what opens it, and the machine code is good."""
    policy = home.policy('[[grant]]\nid = "jit"\nplugins = ["*"]\njit = true\n')
    outcome = _make(home, CODE_MAKERS[maker], policy, permissions=[{"name": "jit", "reason": "compiles"}])
    assert outcome.result == 42


@pytest.mark.parametrize(
    ("maker", "missing"),
    [
        ("writable and executable memory", ("seccomp", "mdwe")),
        ("memory made executable", ("seccomp", "mdwe")),
        ("/dev/zero, written through a second mapping", ("noexec",)),
        ("a file of /tmp", ("noexec",)),
    ],
    ids=str,
)
def test_without_the_layers_code_is_made(maker: str, missing: tuple[str, ...], home: Home) -> None:
    """The filter and MDWE for memory, noexec mounts for whatever has a file behind it."""
    with weak.without(home.root, *missing):
        assert _make(home, CODE_MAKERS[maker]).result == 42


@pytest.mark.parametrize("missing", ["seccomp", "mdwe"])
def test_one_of_the_layers_before_executable_memory_is_enough(missing: str, home: Home) -> None:
    """Kernels before 6.3 have no MDWE: the filter holds alone."""
    if missing == "seccomp" and not _has_mdwe():
        pytest.skip("seccomp: this kernel has no PR_SET_MDWE, so nothing stands behind the filter")
    with weak.without(home.root, missing):
        for maker in ("writable and executable memory", "memory made executable"):
            assert _make(home, CODE_MAKERS[maker]).result != 42


def _has_mdwe() -> bool:
    major, minor = os.uname().release.split(".")[:2]
    return (int(major), int("".join(c for c in minor if c.isdigit()))) >= (6, 3)


def test_a_granted_directory_holds_no_code(home: Home) -> None:
    """What a plugin may write it may not run, by whichever permission it may write."""
    with canary() as own:
        directory = str(own.directory)
        text = f'[[grant]]\nid = "own"\nplugins = ["*"]\n"fs.write" = ["{directory}"]\n"fs.read" = ["{directory}"]\n'
        asked = [
            {"name": name, "paths": [directory], "reason": "keeps files"} for name in ("fs.write", "fs.read")
        ]
        for maker in ("file(granted + '/code', 5, 2)", "twice(granted + '/code2')"):
            outcome = _make(home, maker, home.policy(text), granted=directory, permissions=asked)
            assert outcome.result == "refused"
        with weak.without(home.root, "noexec"):
            outcome = _make(
                home,
                "file(granted + '/code3', 5, 2)",
                home.policy(text),
                granted=directory,
                permissions=asked,
            )
        assert outcome.result == 42


# Native programs --------------------------------------------------------------------------------------------

_INT80_GETPID = bytes.fromhex("b814000000cd80")  # mov eax,20; int 0x80
_INT80_EXECVE = bytes.fromhex("b80b00000031db31c931d2cd80")
_X32_GETPID = bytes.fromhex("b8270000400f05")  # mov eax,0x40000027; syscall
_X32_EXECVE = bytes.fromhex("b8080200400f05")  # the number that only x32 has
_EXECVE = bytes.fromhex("b83b00000031ff31f631d20f05")
_FAR_TO_32_BIT = bytes.fromhex("6a23488d05030000005048cb")  # push 0x23; lea rax,[rip+3]; push rax; retfq


def _only_x86_64() -> None:
    if os.uname().machine != "x86_64":
        pytest.skip("seccomp: only x86-64 has a second and third call convention")


@pytest.mark.parametrize(
    "code",
    [_INT80_GETPID, _INT80_EXECVE, _X32_GETPID, _X32_EXECVE, _FAR_TO_32_BIT + _INT80_GETPID],
    ids=["int 0x80", "execve by int 0x80", "an x32 number", "execve by x32", "32-bit mode"],
)
def test_a_foreign_call_convention_kills(code: bytes, home: Home) -> None:
    """SIGSYS to the whole process, before the kernel looks at the number."""
    _only_x86_64()
    outcome = run_native(home, code + elf.answers_seven())
    assert outcome.code == 6
    assert outcome.error is not None
    assert "SIGSYS" in outcome.error.message or "SIGSEGV" in outcome.error.message


def test_without_seccomp_a_foreign_call_is_made(home: Home) -> None:
    """The program goes on to its answer (a kernel without these conventions answers ENOSYS or faults)."""
    _only_x86_64()
    with weak.without(home.root, "seccomp"):
        outcome = run_native(home, _X32_GETPID + elf.answers_seven())
    assert outcome.result == 7


def test_a_native_program_starts_and_answers(home: Home) -> None:
    """What these tests rest on."""
    assert run_native(home, elf.answers_seven()).result == 7


def test_a_native_program_executes_once(home: Home) -> None:
    """Boot's own execve was let through; the program's is refused and reported."""
    _only_x86_64()
    outcome = run_native(home, _EXECVE + elf.answers_seven())
    assert outcome.result == 7
    if "denial-report" in outcome.layers_active:
        assert [(d.call, d.count) for d in outcome.denials] == [("execve", 1)]


def _loader() -> str:
    """The dynamic loader that this host's own programs name."""
    fd = os.open("/bin/sh", os.O_RDONLY)
    try:
        return read_elf(fd).interpreter or "/lib/ld.so"
    finally:
        os.close(fd)


_OTHER_WAYS = {
    "directly": "/plugin/other",
    "in place": "exec /plugin/other",
    "through a link": "ln -s /plugin/other /tmp/l; /tmp/l",
    "through /proc": "exec 5< /plugin/other; /proc/self/fd/5",
    "through the loader": "LOADER /plugin/other",
    "copied": "while read -r line; do echo; done < /plugin/other > /tmp/other; /tmp/other",
}  # fmt: skip


@pytest.mark.parametrize("way", _OTHER_WAYS)
def test_a_granted_shell_starts_no_other_program(way: str, home: Home) -> None:
    """`exec` names programs; another one of the bundle is not among them."""
    way = _OTHER_WAYS[way].replace("LOADER", _loader())
    script = f'({way}) 2>/tmp/said >/tmp/out; read -r x < /tmp/out; echo "[\\"$x\\"]"'
    assert run_script(home, script, files={"other": PROGRAM_THAT_BETRAYS_ITSELF}).result == [""]


def test_without_landlock_a_granted_shell_starts_other_programs(home: Home) -> None:
    """So Landlock's EXECUTE is what refuses them."""
    with weak.without(home.root, "landlock"):
        outcome = run_script(home, "/plugin/other", files={"other": PROGRAM_THAT_BETRAYS_ITSELF})
    assert outcome.result == 7


def test_a_readable_directory_is_no_directory_of_programs(home: Home) -> None:
    """The loader maps what it may read: a program below fs.read must not run through it."""
    shell, true = os.path.realpath("/bin/sh"), os.path.realpath("/bin/true")
    with canary() as own:
        copy = own.directory / "true"
        copy.write_bytes(Path(true).read_bytes())
        copy.chmod(0o755)
        policy = home.policy(
            f'[[grant]]\nid = "shell"\nplugins = ["*"]\nexec = ["{shell}"]\nprocess = 8\n'
            f'"fs.read" = ["{own.directory}"]\n'
        )
        asked = [
            {"name": "exec", "programs": [shell], "reason": "is a script"},
            {"name": "process", "max": 8, "reason": "starts programs"},
            {"name": "fs.read", "paths": [str(own.directory)], "reason": "reads"},
        ]
        script = (
            f"#!/bin/sh\nr=0\n{copy} 2>/dev/null && r=1\n{_loader()} {copy} 2>/dev/null && r=2\necho $r\n"
        )
        outcome = run_file(home, script.encode(), policy, permissions=asked)
        assert outcome.result == 0, outcome
        with weak.without(home.root, "noexec"):
            assert run_file(home, script.encode(), policy, permissions=asked).result == 2


def test_set_id_programs_give_nothing(home: Home) -> None:
    """Every mount is nosuid and no_new_privs is set; the flags are read from inside, the kernel's word."""
    code = """
@plugin.method
def go():
    lines = open("/proc/self/status").read().splitlines()
    mounts = [line.split(" - ")[0].split()[5] for line in open("/proc/self/mountinfo")]
    return {
        "flags": {k: v.strip() for k, v in (l.split(":", 1) for l in lines) if k[:3] in ("NoN", "Cap", "Sec")},
        "suid": [m for m in mounts if "nosuid" not in m.split(",")],
    }
"""
    told = home.attack(code).result
    assert told["suid"] == []
    assert told["flags"]["NoNewPrivs"] == "1"
    assert told["flags"]["Seccomp"] == "2"
    assert {value for name, value in told["flags"].items() if name.startswith("Cap")} == {"0" * 16}
