"""Two runs at once, or one after the other: nothing passes between them but what the caller passes on."""

import fcntl
import json
import threading
from pathlib import Path

import pytest

from kit import weak
from kit.home import Home, is_root
from kit.outside import canary
from plugsec.outcome import Outcome
from plugsec.sandbox import identity

_MEET = """
import ctypes, fcntl, glob, os, time
libc = ctypes.CDLL(None, use_errno=True)
SHARED = [p for p in glob.glob("/usr/lib/*/libc.so*") + ["/etc/ld.so.cache", os.__file__] if os.path.exists(p)]

def attempt(act):
    try:
        return act()
    except OSError:
        return "refused"

@plugin.method
def go(wait):
    leave = {
        "a lock": [attempt(lambda: fcntl.flock(os.open(p, os.O_RDONLY), fcntl.LOCK_EX | fcntl.LOCK_NB)) for p in SHARED],
        "a shared lock": [attempt(lambda: fcntl.flock(os.open(p, os.O_RDONLY), fcntl.LOCK_SH | fcntl.LOCK_NB))
                          for p in SHARED],
        "a write lock": [attempt(lambda: fcntl.lockf(os.open(p, os.O_RDONLY), fcntl.LOCK_EX | fcntl.LOCK_NB))
                         for p in SHARED],
        "shared memory": attempt(lambda: open("/dev/shm/x", "x").close()),
        "a file in /tmp": sorted(os.listdir("/tmp")),
        "a watch": libc.inotify_init1(0),
    }
    open("/tmp/left", "w").close()
    time.sleep(wait)
    return leave
"""


def test_nothing_to_meet_at(home: Home) -> None:
    """No lock on a library that both map, no shared memory, no file, no watch."""
    for _ in range(2):
        told = home.attack(_MEET, input=b'{"wait":0}').result
        assert {said for name in ("a lock", "a shared lock", "a write lock") for said in told[name]} == {
            "refused"
        }
        assert told["shared memory"] == "refused"
        assert told["a file in /tmp"] == []
        assert told["a watch"] == -1


def test_without_seccomp_a_library_is_locked(home: Home) -> None:
    """So the filter is what refuses it: the lock would be seen by every process of the host."""
    with weak.without(home.root, "seccomp"):
        told = home.attack(_MEET, input=b'{"wait":0}').result
    assert None in told["a lock"]


@pytest.mark.parametrize("missing", [(), ("seccomp",)], ids=["the real jail", "without seccomp"])
def test_a_file_that_the_host_locks_stays_the_hosts(missing: tuple[str, ...], home: Home) -> None:
    """fs.read on a package manager's lock file must not stop the package manager."""
    code = """
import fcntl, time
@plugin.method
def go(path):
    file = open(path)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        pass
    time.sleep(0.3)
"""
    with canary() as own:
        policy = home.policy(f'[[grant]]\nid = "own"\nplugins = ["*"]\n"fs.read" = ["{own.directory}"]\n')
        asked = [{"name": "fs.read", "paths": [str(own.directory)], "reason": "reads"}]
        call = json.dumps({"path": str(own.file)}).encode()
        refused = 0
        with weak.without(home.root, *missing):
            thread = threading.Thread(
                target=home.attack, args=(code, policy), kwargs={"permissions": asked, "input": call}
            )
            thread.start()
            while thread.is_alive():
                refused += not _can_lock(own.file)
                thread.join(0.005)
    assert bool(refused) is bool(missing)


def _can_lock(path: Path) -> bool:
    with path.open("r+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def test_two_runs_at_once_have_their_own_everything(home: Home, tmp_path: Path) -> None:
    """Different jails, and as root different users, so that neither could signal or trace the other."""
    code = """
import os, time
@plugin.method
def go():
    open("/tmp/mine", "x").close()
    time.sleep(0.5)
    return [os.getpid(), sorted(os.listdir("/tmp"))]
"""
    bundle = home.bundle({"main.py": "from plugsec_plugins.guest import plugin\n" + code})
    chosen: list[identity.Identity] = []
    choose = identity.choose

    def note() -> identity.Identity:
        chosen.append(choose())
        return chosen[-1]

    outcomes: list[Outcome] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(identity, "choose", note)
        threads = [threading.Thread(target=lambda: outcomes.append(home.run(bundle))) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert [outcome.result for outcome in outcomes] == [[2, ["mine"]]] * 4
    assert len({outcome.run_id for outcome in outcomes}) == 4
    assert len({who.uid for who in chosen}) == (4 if is_root() else 1)
    assert not {who.uid for who in chosen} & {0}


def test_an_answer_goes_to_its_own_call(home: Home) -> None:
    """Eight runs at once on one home; each gets what it asked for, and the log holds them all."""
    code = "import time\n@plugin.method\ndef go(number):\n    time.sleep(0.1)\n    return number\n"
    bundle = home.bundle({"main.py": "from plugsec_plugins.guest import plugin\n" + code})
    answers: dict[int, Outcome] = {}

    def ask(number: int) -> None:
        answers[number] = home.run(bundle, input=json.dumps({"number": number}).encode())

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {number: outcome.result for number, outcome in answers.items()} == {n: n for n in range(8)}
    assert len({outcome.audit_seq for outcome in answers.values()}) == 8


_LOCK = """
import fcntl, os

@plugin.method
def go(path):
    outcomes = {}
    for name in ("F_SETLK", "F_SETLKW", "F_OFD_SETLK", "F_OFD_SETLKW"):
        kind, number = getattr(fcntl, "F_RDLCK"), {"F_OFD_SETLK": 37, "F_OFD_SETLKW": 38}.get(name) or getattr(fcntl, name)
        fd = os.open(path, os.O_RDONLY)
        try:
            fcntl.fcntl(fd, number, kind.to_bytes(2, "little") + bytes(30))
            outcomes[name] = "locked"
        except OSError as error:
            outcomes[name] = error.strerror
    return outcomes
"""


def test_what_may_only_be_read_cannot_be_locked(home: Home, tmp_path: Path) -> None:
    """Red team, second pass, 5 and 6: locks keep the host's writers out, and nothing counts their memory."""
    (tmp_path / "data").mkdir()
    database = tmp_path / "data" / "host.db"
    database.write_text("x")
    database.chmod(0o666)
    (tmp_path / "data").chmod(0o755)
    reads = {"name": "fs.read", "paths": [str(tmp_path / "data")], "reason": "reads"}
    policy = home.policy(f'[[grant]]\nid = "r"\nplugins = ["*"]\n"fs.read" = ["{tmp_path / "data"}"]\n')
    value = b'{"path":"%s"}' % str(database).encode()
    told = home.attack(_LOCK, policy, permissions=[reads], input=value)
    assert set(told.result.values()) == {"Operation not permitted"}, told
    with weak.without(home.root, "seccomp"):
        assert set(home.attack(_LOCK, policy, permissions=[reads], input=value).result.values()) == {"locked"}


def test_a_database_in_its_output_can_be_locked(home: Home, tmp_path: Path) -> None:
    """What `fs.write` is for."""
    writes = {"name": "fs.write", "paths": ["$OUTPUT"], "reason": "writes"}
    code = """
import sqlite3
@plugin.method
def go():
    connection = sqlite3.connect("/output/data.db")
    connection.execute("create table t (n)")
    connection.execute("insert into t values (1)")
    connection.commit()
    return connection.execute("select n from t").fetchall()[0][0]
"""
    told = home.attack(code, permissions=[writes], output_dir=str(tmp_path / "out"))
    assert told.result == 1, told
