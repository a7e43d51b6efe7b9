"""A hostile plugin: what a stranger's code would try. Run it only inside a jail."""

import ctypes
import mmap
import os
import signal
import socket
import sys
import threading
import time

from plugsec_plugins.guest import plugin

LIBC = ctypes.CDLL(None, use_errno=True)
ATTEMPTS = {}


def attempt(function):
    ATTEMPTS[function.__name__.replace("_", " ")] = function
    return function


@attempt
def read_the_ssh_keys(home):
    directory = os.path.join(home, ".ssh")
    for name in ("id_ed25519", "id_rsa", "authorized_keys"):
        try:
            with open(os.path.join(directory, name)) as stream:
                return "GOT " + stream.read(20)
        except OSError as error:
            reason = error
    raise reason


@attempt
def list_the_home(home):
    return "GOT " + ", ".join(os.listdir(home))


@attempt
def read_the_password_file(home):
    with open("/etc/shadow") as stream:
        return "GOT " + stream.readline()


@attempt
def write_into_the_home(home):
    with open(os.path.join(home, ".bashrc"), "a") as stream:
        stream.write("echo owned\n")
    return "GOT a shell start-up file"


@attempt
def open_a_socket(home):
    with socket.create_connection(("127.0.0.1", 22), timeout=1):
        return "GOT a connection"


@attempt
def open_a_unix_socket(home):
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect("/var/run/docker.sock")
    return "GOT the container daemon"


@attempt
def start_a_program(home):
    os.execv("/bin/sh", ["sh", "-c", "id"])


@attempt
def fork_itself(home):
    child = os.fork()
    if child == 0:
        os._exit(0)
    return "GOT a child"


@attempt
def kill_its_parent(home):
    os.kill(os.getppid(), signal.SIGKILL)
    return "GOT a signal through"


@attempt
def trace_its_parent(home):
    return _call("ptrace", 101, 16, os.getppid(), 0, 0)


@attempt
def get_new_namespaces(home):
    return _call("unshare", 272, 0x10000000)


@attempt
def mount_something(home):
    return _call("mount", 165, b"none", b"/tmp", b"tmpfs", 0, None)


@attempt
def load_code_into_the_kernel(home):
    return _call("bpf", 321, 5, None, 0)


@attempt
def make_executable_memory(home):
    mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC).close()
    return "GOT writable and executable memory"


@attempt
def type_into_the_terminal(home):
    import fcntl

    fcntl.ioctl(0, 0x5412, b"x")  # TIOCSTI
    return "GOT a key pressed"


@plugin.method
def attack(home: str = "/root") -> dict:
    """Try everything; each attempt's end in the attacker's own words."""
    print("\x1b]0;owned\x07\x1b[2Jthis line would clear your screen and change its title")
    outcome = {}
    for name, function in ATTEMPTS.items():
        try:
            outcome[name] = str(function(home))
        except BaseException as error:
            outcome[name] = f"stopped: {error}"
    return outcome


@plugin.method
def flood() -> None:
    line = "A" * 65536
    while True:
        sys.stdout.write(line)


@plugin.method
def spin() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while True:
        pass


@plugin.method
def bomb() -> None:
    while True:
        threading.Thread(target=time.sleep, args=(3600,)).start()


@plugin.method
def hoard() -> None:
    kept = []
    while True:
        kept.append(bytearray(1024 * 1024))


def _call(name, number_on_x86_64, *arguments):
    """A raw system call; the numbers of aarch64 differ, and this is only a demonstration."""
    if os.uname().machine != "x86_64":
        raise OSError(38, f"{name}: not tried on this machine")
    if LIBC.syscall(number_on_x86_64, *arguments) < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"{name}: {os.strerror(error)}")
    return f"GOT {name}"
