"""Grants that would open more than their writer meant: plugsec's own files, the runtime's, whole systems.

A policy's author writes paths; what lies beneath them is checked before anything is started.
"""

import json
import os
import sys
from pathlib import Path

import pytest

from kit import weak
from kit.home import Home, is_root
from kit.outside import canary
from plugsec.outcome import Outcome
from plugsec.sandbox import linux

HELLO = "@plugin.method\ndef go(): return 'hello'\n"


def _granted(home: Home, word: str, path: Path | str, code: str = HELLO, **more: object) -> Outcome:
    policy = home.policy(f'[[grant]]\nid = "wide"\nplugins = ["*"]\n"{word}" = ["{path}"]\n')
    asked = [{"name": word, "paths": [str(path)], "reason": "asks for much"}]
    return home.attack(code, policy, permissions=asked, **more)


OWN = ("", "config", "config/trust.d", "state", "state/audit", "state/audit/keys", "cache", "cache/seccomp")


@pytest.mark.parametrize("part", OWN, ids=lambda part: part or "home")
def test_plugsecs_own_directories_are_not_writable(part: str, home: Home) -> None:
    """Else a plugin would trust its next key, take the next run's filter away and rewrite the log."""
    home.attack(HELLO)  # so that every directory is there
    outcome = _granted(home, "fs.write", home.home / part)
    assert (outcome.outcome, outcome.code) == ("refused", 1), outcome


def test_a_directory_above_plugsecs_own_is_not_writable(home: Home) -> None:
    """`fs.write = ["/home/alice"]` is the natural thing to write."""
    home.attack(HELLO)
    outcome = _granted(home, "fs.write", home.root)
    assert (outcome.outcome, outcome.code) == ("refused", 1), outcome


@pytest.mark.parametrize("part", ["", "state/audit/keys", "config/trust.d", "cache/seccomp"])
def test_plugsecs_keys_are_not_readable(part: str, home: Home) -> None:
    """Who reads the log's signing key can write another history; refused, or nothing is there to read."""
    home.attack(HELLO)
    keys = home.home / "state" / "audit" / "keys"
    names = [str(path) for path in keys.iterdir()]
    assert names
    code = """
@plugin.method
def go(names):
    found = []
    for name in names:
        try: found.append(open(name, "rb").read().hex())
        except OSError: pass
    return found
"""
    outcome = _granted(home, "fs.read", home.home / part, code, input=json.dumps({"names": names}).encode())
    assert outcome.code == 1 or outcome.result == [], outcome


def _broad() -> list[str]:
    library = os.path.dirname(os.path.realpath(os.__file__))
    found = ["/usr", "/usr/lib", library, os.path.dirname(library), os.path.realpath(sys.base_prefix)]
    return [path for path in dict.fromkeys(found) if os.path.realpath(path) == path and path != "/"]


@pytest.mark.parametrize("path", _broad())
def test_a_readable_directory_above_the_library_breaks_nothing(path: str, home: Home) -> None:
    """The runtime's own trees stay executable where a grant covers them."""
    code = "import _ctypes, ctypes, decimal, _bz2, mmap\n@plugin.method\ndef go(): return 'hello'\n"
    outcome = _granted(home, "fs.read", path, code)
    assert outcome.result == "hello", outcome


def test_a_whole_systems_proc_does_not_come_along(home: Home, tmp_path: Path) -> None:
    """A granted directory with /proc mounted below it would show every process of the host."""
    if not is_root():
        pytest.skip("mount-namespace: only root can mount a /proc below a directory here")
    said = tmp_path / "said"
    with canary() as own:
        (own.directory / "proc").mkdir()
        child = os.fork()
        if child == 0:
            try:
                linux.unshare(linux.CLONE_NEWNS)
                linux.mount("none", "/", None, linux.MS_REC | linux.MS_PRIVATE)
                linux.mount("proc", str(own.directory / "proc"), "proc", 0)
                code = f"import os\n@plugin.method\ndef go(): return os.listdir({str(own.directory / 'proc')!r})\n"
                outcome = _granted(home, "fs.read", own.directory, code)
                said.write_text(json.dumps([outcome.code, outcome.result]))
            finally:
                os._exit(0)
        os.waitpid(child, 0)
    code_, names = json.loads(said.read_text())
    assert code_ == 1 or "1" not in (names or [])


def test_files_for_roots_group_are_not_read(home: Home) -> None:
    """Root's run has a user of its own and no group of root's: file modes hold where all else is gone."""
    if not is_root():
        pytest.skip("user-namespace: an ordinary user's run keeps the user's own rights on the host")
    code = """
@plugin.method
def go(paths):
    found = []
    for path in paths:
        try: found.append(open(path).read())
        except OSError: pass
    return found
"""
    with canary() as own:
        for mode in (0o600, 0o640, 0o660):
            own.file.chmod(mode)
            call = json.dumps({"paths": [f"/host{own.file}", "/host/etc/shadow", str(own.file)]}).encode()
            with weak.without(home.root, "mount-namespace", "landlock", "seccomp", "capabilities"):
                assert home.attack(code, input=call).result == []
        own.file.chmod(0o644)
        with weak.without(home.root, "mount-namespace", "landlock"):
            assert home.attack(code, input=call).result == [own.secret]
