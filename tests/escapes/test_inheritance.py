"""What a process inherits from its parent, the jail does not: descriptors, directory, environment, terminal."""

import fcntl
import json
import os
import pty
from collections.abc import Iterator
from pathlib import Path

import pytest

from kit import weak
from kit.home import Home
from kit.outside import Canary, canary

SECRET_NAME = "ACME_TEST_SECRET"

_DESCRIPTORS = """
import os, stat
@plugin.method
def go():
    found = {}
    for fd in range(1024):
        try:
            mode = os.fstat(fd).st_mode
        except OSError:
            continue
        said = stat.filemode(mode)[0]
        if fd > 3:
            for read in (lambda: os.pread(fd, 100, 0).decode(), lambda: os.listdir(fd),
                         lambda: os.read(os.open("secret", os.O_RDONLY, dir_fd=fd), 100).decode()):
                try:
                    said += " " + str(read())
                except OSError:
                    pass
        found[fd] = said
    return found
"""


@pytest.fixture
def outside() -> Iterator[Canary]:
    """A directory of the host with a secret in it."""
    with canary() as found:
        yield found


@pytest.fixture
def leaked(outside: Canary) -> Iterator[list[int]]:
    """The supervisor's process holds the secret and its directory open, inheritable, low and high."""
    fds = []
    for place in (60, 300):
        for path in (outside.file, outside.directory):
            fd = os.open(path, os.O_RDONLY)
            fds.append(fcntl.fcntl(fd, fcntl.F_DUPFD, place))  # a free number, and inheritable
            os.close(fd)
    yield fds
    for fd in fds:
        os.close(fd)


def test_the_callers_descriptors_are_closed(leaked: list[int], outside: Canary, home: Home) -> None:
    """The plugin has its three streams and the call channel, which are pipes, /dev/null and a socket."""
    outcome = home.attack(_DESCRIPTORS)
    assert outcome.result == {"0": "c", "1": "p", "2": "p", "3": "s"}
    assert outside.secret not in repr(outcome)


def test_without_closing_the_callers_descriptors_are_read(
    leaked: list[int], outside: Canary, home: Home
) -> None:
    """So closing them is what keeps the secret; no other layer looks at what is open already."""
    with weak.without(home.root, "descriptors"):
        outcome = home.attack(_DESCRIPTORS)
    assert outside.secret in repr(outcome)


def test_the_working_directory_is_the_jails(
    outside: Canary, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Started from the secret's directory, the plugin finds itself in an empty /tmp."""
    code = """
import os
@plugin.method
def go():
    found = [os.getcwd(), os.listdir(".")]
    for path in ("secret", "./secret", "../secret", "/proc/self/cwd/secret", "/proc/1/cwd/secret"):
        try:
            found.append(open(path).read())
        except OSError:
            pass
    return found
"""
    monkeypatch.chdir(outside.directory)
    assert home.attack(code).result == ["/tmp", []]
    # Outside the jail the very same function finds it.
    names: dict[str, object] = {"plugin": type("P", (), {"method": staticmethod(lambda f: f)})}
    exec(code, names)
    assert outside.secret in names["go"]()  # type: ignore[operator]


_ENVIRONMENT = """
import ctypes, os
@plugin.method
def go():
    libc = ctypes.CDLL(None)
    libc.getenv.restype = ctypes.c_char_p
    environ = ctypes.POINTER(ctypes.c_char_p).in_dll(libc, "environ")
    raw, index = [], 0
    while environ[index]:
        raw.append(environ[index].decode())
        index += 1
    try:
        proc = open("/proc/self/environ").read()
    except OSError:
        proc = ""
    stack = ""
    for line in open("/proc/self/maps") if os.access("/proc/self/maps", os.R_OK) else ():
        if "[stack]" in line:
            start, end = (int(x, 16) for x in line.split()[0].split("-"))
            stack = ctypes.string_at(start, end - start).decode("latin-1")
    return {"names": sorted(os.environ), "raw": sorted(line.split("=")[0] for line in raw), "proc": proc,
        "stack": "SECRETVALUE" + "OFTHECALLER" in stack}
"""
OWN_NAMES = ["HOME", "INPUT", "LANG", "OUTPUT", "PATH", "TMPDIR"]


def test_the_callers_environment_is_not_inherited(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not in os.environ, not in the C library's, not in /proc, not on the stack."""
    monkeypatch.setenv(SECRET_NAME, "SECRETVALUE" + "OFTHECALLER")
    monkeypatch.setenv("PYTHONSTARTUP", "/etc/passwd")
    outcome = home.attack(_ENVIRONMENT)
    assert outcome.result["names"] == OWN_NAMES
    assert outcome.result["raw"] == OWN_NAMES
    assert "SECRETVALUE" not in outcome.result["proc"]
    assert outcome.result["stack"] is False


def test_a_granted_name_is_inherited_alone(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """So the names are counted right."""
    monkeypatch.setenv(SECRET_NAME, "x")
    monkeypatch.setenv(SECRET_NAME + "_2", "x")
    policy = home.policy(f'[[grant]]\nid = "name"\nplugins = ["*"]\nenv = ["{SECRET_NAME}"]\n')
    asked = [{"name": "env", "names": [SECRET_NAME], "reason": "wants it"}]
    outcome = home.attack(_ENVIRONMENT, policy, permissions=asked)
    assert outcome.result["names"] == sorted([*OWN_NAMES, SECRET_NAME])


@pytest.mark.parametrize("name", ["PATH", "HOME", "TMPDIR", "INPUT", "OUTPUT", "LANG"])
def test_a_granted_name_does_not_replace_the_jails_own(
    name: str, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A grant of PATH must not bring the caller's directories in."""
    monkeypatch.setenv(name, "/callers/own")
    policy = home.policy(f'[[grant]]\nid = "name"\nplugins = ["*"]\nenv = ["{name}"]\n')
    asked = [{"name": "env", "names": [name], "reason": "wants it"}]
    code = "import os\n@plugin.method\ndef go(): return dict(os.environ)\n"
    outcome = home.attack(code, policy, permissions=asked)
    assert "/callers/own" not in repr(outcome.result), outcome


def test_the_command_line_tells_nothing_of_the_caller(home: Home) -> None:
    """sys.argv, and what the memory of the interpreter still holds of its arguments."""
    code = """
import sys
@plugin.method
def go(): return [sys.argv, sys.orig_argv[-1:] if False else sys.flags.isolated, sys.path]
"""
    outcome = home.attack(code)
    argv, isolated, path = outcome.result
    assert argv == ["plugin"]
    assert isolated == 1
    assert path[:2] == ["/plugin", "/plugin/site"]
    assert not [entry for entry in path if "plugsec" in entry]


_TERMINAL = """
import fcntl, os, termios
@plugin.method
def go():
    said = []
    for fd in range(0, 70):
        for request in (termios.TIOCSTI, 0x100000000 | termios.TIOCSTI):
            try:
                import ctypes
                libc = ctypes.CDLL(None, use_errno=True)
                if libc.ioctl(fd, ctypes.c_ulong(request), b"x") == 0:
                    said.append(fd)
            except OSError:
                pass
    for path in ("/dev/tty", "/dev/console", "/dev/pts/0", "/dev/ptmx"):
        try:
            os.close(os.open(path, os.O_RDWR | os.O_NOCTTY))
            said.append(path)
        except OSError:
            pass
    return said
"""


def test_the_callers_terminal_is_out_of_reach(home: Home, tmp_path: Path) -> None:
    """A supervisor with a controlling terminal: the plugin has neither it nor a way to type into it."""
    bundle = home.bundle({"main.py": "from plugsec_plugins.guest import plugin\n" + _TERMINAL})
    said = tmp_path / "said"
    child, terminal = pty.fork()
    if child == 0:  # the supervisor, with the pty as its controlling terminal
        try:
            os.dup2(0, 60, inheritable=True)
            outcome = home.run(bundle)
            said.write_text(json.dumps([outcome.result, os.ttyname(0)]))
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    os.close(terminal)
    result, name = json.loads(said.read_text())
    assert name.startswith("/dev/")
    assert result == []


def test_the_umask_of_the_caller_does_not_count(home: Home) -> None:
    """What the plugin creates is private to it, whatever the caller's umask."""
    code = """
import os
@plugin.method
def go():
    open("/tmp/x", "w").close()
    return os.stat("/tmp/x").st_mode & 0o777
"""
    for mask in (0, 0o777, 0o022):
        before = os.umask(mask)
        try:
            outcome = home.attack(code)
        finally:
            os.umask(before)
        assert outcome.result == 0o600, outcome


def test_signals_that_the_caller_ignores_are_not_ignored_inside(home: Home) -> None:
    """nohup's SIGHUP and Python's own SIGPIPE and SIGXFSZ would change what limits do."""
    code = """
@plugin.method
def go():
    fields = dict(line.split(":", 1) for line in open("/proc/self/status").read().splitlines())
    return [int(fields[name], 16) for name in ("SigIgn", "SigBlk")]
"""
    import signal

    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
    try:
        ignored, blocked_inside = home.attack(code).result
    finally:
        signal.signal(signal.SIGHUP, before)
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    real_time = ~((1 << 31) - 1)  # 32 and 33 belong to the C library
    assert ignored & ~real_time == 0
    assert blocked_inside == 0
