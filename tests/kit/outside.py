"""What an attack is judged by: things outside the jail that it must not change, read, reach or leave."""

import contextlib
import hashlib
import os
import secrets
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from unittest import mock

from plugsec.sandbox import identity

PATIENCE_S = 20.0  # for what must happen at once, on a host that is emulated or overloaded
_STEP_S = 0.02
# Out of the range that real runs take their ids from, so that a test's processes are its own.
_TEST_UID = identity.RANGE_START + identity.RANGE_SIZE + 77


def jail_uid() -> int:
    """The kernel uid that a jail of this test has: the caller's own, or for root one that tests alone use."""
    return os.geteuid() or _TEST_UID


@contextlib.contextmanager
def fixed_identity() -> Iterator[int]:
    """For as long as this lasts, jails run as `jail_uid()`; only root's would have another."""
    if os.geteuid() != 0:
        yield os.geteuid()
        return
    chosen = identity.Identity(_TEST_UID, _TEST_UID, -1, is_root=True)
    with mock.patch.object(identity, "choose", lambda: chosen):
        yield _TEST_UID


class Canary(NamedTuple):
    """A directory that everybody on the host may read and write, with one file of unguessable content."""

    directory: Path
    file: Path
    secret: str

    def state(self) -> tuple[tuple[str, int, int, int, str], ...]:
        """Every name below, with mode, links, modification time (ns) and digest."""
        found = []
        for path in sorted(self.directory.rglob("*")):
            status = path.lstat()
            digest = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
            found.append((str(path), status.st_mode, status.st_nlink, status.st_mtime_ns, digest))
        return tuple(found)


@contextlib.contextmanager
def canary() -> Iterator[Canary]:
    """Outside pytest's own directories, which root keeps from other users: only the jail stands before it."""
    # Not in /tmp, of which the jail has its own: a refusal there would be for another reason.
    shared = next((d for d in ("/var/tmp", "/dev/shm") if os.access(d, os.W_OK)), None)
    directory = Path(tempfile.mkdtemp(prefix="plugsec-canary-", dir=shared))
    try:
        directory.chmod(0o777)
        file = directory / "secret"
        secret = secrets.token_hex(16)
        file.write_text(secret)
        file.chmod(0o666)
        yield Canary(directory, file, secret)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


class Visited:
    """A listening socket that remembers whether anybody came."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock

    def count(self) -> int:
        """Connections or datagrams that are waiting."""
        visits = 0
        while select.select([self.sock], [], [], 0)[0]:
            if self.sock.type == socket.SOCK_STREAM:
                self.sock.accept()[0].close()
            else:
                self.sock.recv(65536)
            visits += 1
        return visits


@contextlib.contextmanager
def listening(family: int, kind: int, address: object) -> Iterator[Visited]:
    """A bound socket of the host."""
    with socket.socket(family, kind) as sock:
        sock.bind(address)  # type: ignore[arg-type]
        if kind == socket.SOCK_STREAM:
            sock.listen()
        yield Visited(sock)


@contextlib.contextmanager
def victim() -> Iterator[int]:
    """A host process of the jail's own kernel uid, which only the jail keeps from being killed; its pid."""
    user = jail_uid() if os.geteuid() == 0 else None
    process = subprocess.Popen(
        [os.path.realpath(shutil.which("sleep") or "/bin/sleep"), "600"], user=user, group=user, cwd="/"
    )
    try:
        yield process.pid
    finally:
        process.kill()
        process.wait()


def lives(pid: int) -> bool:
    """Whether the process exists and is no zombie."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"


class Nested(NamedTuple):
    """A process in a pid namespace below ours, known by its pid and the clock tick of its start."""

    pid: int
    started: str


def nested_processes(*, zombies: bool = False) -> set[Nested]:
    """Every process of `jail_uid()` that lives in a deeper pid namespace than this one (proc(5), NSpid).

    A zombie runs nothing and holds nothing; `zombies` counts those too.
    """
    found = set()
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            status = Path(f"/proc/{name}/status").read_text()
            state, *figures = Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        fields = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
        if len(fields.get("NSpid", "").split()) < 2 or int(fields["Uid"].split()[0]) != jail_uid():
            continue
        if zombies or state not in "ZX":
            found.add(Nested(int(name), figures[18]))
    return found


@contextlib.contextmanager
def watched() -> Iterator[set[Nested]]:
    """Collects the nested processes that appear while this lasts, seen from outside every few milliseconds."""
    before, seen, over = nested_processes(), set[Nested](), threading.Event()

    def look() -> None:
        while not over.wait(_STEP_S):
            seen.update(nested_processes() - before)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield seen
    finally:
        over.set()
        thread.join()


def all_gone(processes: set[Nested]) -> bool:
    """Whether none of these is left, at once or within PATIENCE_S."""
    return eventually(lambda: not processes & nested_processes())


def eventually(condition: object) -> bool:
    """Whether the condition comes true within PATIENCE_S."""
    ends = time.monotonic() + PATIENCE_S
    while not condition():  # type: ignore[operator]
        if time.monotonic() > ends:
            return False
        time.sleep(_STEP_S)
    return True


def host_mounts() -> int:
    """How many mounts this process sees."""
    return len(Path("/proc/self/mountinfo").read_bytes().splitlines())


def cgroup_directories() -> set[str]:
    """Every cgroup directory of plugsec's on this host."""
    # Other runs come and go meanwhile, which os.walk does not mind.
    walked = os.walk("/sys/fs/cgroup")
    return {
        os.path.join(at, name) for at, names, _ in walked for name in names if name.startswith("plugsec-")
    }


def command_line(*arguments: str) -> list[str]:
    """The command line of this very tree, as a child process starts it."""
    return [sys.executable, "-m", "plugsec", *arguments]


def stop(process: "subprocess.Popen[bytes]", number: int = signal.SIGKILL) -> None:
    """Send a signal to a supervisor that a test started, and reap it."""
    process.send_signal(number)
    process.wait(timeout=PATIENCE_S)
