"""The command line as a user meets it: a process, its exit code, its two streams."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from kit.home import Home

TIMEOUT_S = 120


class Cli:
    """Runs `plugsec` in a directory with a home of its own."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self.directory = home.root
        self.environment = {
            name: value for name, value in os.environ.items() if name not in {"PLUGSEC_HOME", "NO_COLOR"}
        }
        self.environment["PLUGSEC_HOME"] = str(home.home)

    def __call__(
        self, *arguments: str, stdin: bytes = b"", **environment: str
    ) -> subprocess.CompletedProcess[str]:
        ended = subprocess.run(
            [sys.executable, "-m", "plugsec", *arguments],
            cwd=self.directory, env={**self.environment, **environment}, input=stdin,
            capture_output=True, timeout=TIMEOUT_S, check=False,
        )  # fmt: skip
        out, err = ended.stdout.decode(), ended.stderr.decode()
        assert 'File "/plugin/' in err or "Traceback" not in err, (
            err
        )  # the plugin's own trace is its author's help
        return subprocess.CompletedProcess(ended.args, ended.returncode, out, err)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A home with a trusted publisher."""
    return Home(tmp_path)


@pytest.fixture
def cli(home: Home) -> Cli:
    """The command line over that home."""
    return Cli(home)
