"""The layer contract of pyproject.toml holds, and the lock files lock everything."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

CLONE = Path(__file__).parent.parent.parent
LOCKS = ("requirements.lock", "requirements-dev.lock", "requirements-build.lock")
PIN = re.compile(r"^([a-z0-9.-]+)==(\S+)(?: ; [^\\]+)? \\$")
HASH = re.compile(r"^    --hash=sha256:[0-9a-f]{64}(?: \\)?$")


def pins(name: str) -> dict[str, str]:
    lines = (CLONE / name).read_text(encoding="utf-8").splitlines()
    return {match[1]: match[2] for line in lines if (match := PIN.match(line))}


def canonical(requirement: str) -> str:
    return re.sub(r"[-_.]+", "-", re.split(r"[\[><=!~ ;]", requirement, maxsplit=1)[0]).lower()


def test_no_room_imports_against_the_layer_contract() -> None:
    pytest.importorskip("importlinter", reason="import-linter is missing; `make test` installs it")
    lint = "from importlinter.cli import lint_imports_command as lint; lint(['--no-cache'])"
    sources = os.pathsep.join(("supervisor", "policies", "signing", "plugins"))
    done = subprocess.run(
        [sys.executable, "-c", lint],
        cwd=CLONE,
        env={**os.environ, "PYTHONPATH": sources},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_holds_pins_and_hashes_and_nothing_else(lock: str) -> None:
    """In particular no index and no host: the lock must hold for any mirror."""
    lines = (CLONE / lock).read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if not PIN.match(line) and not HASH.match(line)] == []
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        assert not PIN.match(line) or HASH.match(following), f"{line} has no hash"


@pytest.mark.parametrize("lock", LOCKS[:2])
def test_every_dependency_of_the_project_is_locked(lock: str) -> None:
    project = tomllib.loads((CLONE / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert {canonical(word) for word in project["dependencies"]} <= set(pins(lock))


@pytest.mark.parametrize("lock", LOCKS)
def test_the_locks_agree_with_one_another(lock: str) -> None:
    everything = pins("requirements-dev.lock")
    assert {name: everything.get(name) for name in pins(lock)} == pins(lock)
