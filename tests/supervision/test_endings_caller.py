"""What a run leaves to its caller: no descriptor, no child, nothing of the caller's process changed, no odd exit."""

import errno
import os
import resource
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import pytest

from kit.home import Home
from kit.outside import PATIENCE_S, command_line
from kit.started import GREETING, SLEEPER, bundle_of, records
from plugsec.__main__ import main
from plugsec.outcome import Outcome
from plugsec.pipeline import Supervisor

ASKS = [{"name": "process", "max": 16, "reason": "starts children"}]


READERS = {"closed at once": None, "head -n 1": ["head", "-n", "1"], "head -c 1": ["head", "-c", "1"]}


@pytest.mark.parametrize("as_json", [False, True], ids=["plain", "json"])
@pytest.mark.parametrize("reader", READERS)
def test_a_reader_that_leaves_changes_nothing(reader: str, as_json: bool, home: Home) -> None:
    """`plugsec run … | head`: the run is recorded all the same, and there is no traceback."""
    bundle = bundle_of(home, "@plugin.method\ndef go(): return 'x' * 1_000_000\n")
    arguments = command_line("run", bundle, "--home", str(home.home), *(["--json"] if as_json else []))
    run = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert run.stdout is not None
    assert run.stderr is not None
    command = READERS[reader]
    if command is not None:
        subprocess.run(command, stdin=run.stdout, capture_output=True, check=True)
    run.stdout.close()
    err = run.stderr.read().decode()
    assert run.wait(timeout=PATIENCE_S) == 0
    assert "Traceback" not in err
    assert "Exception ignored" not in err
    assert [r["decision"] for r in records(home) if r["event"] == "run.end"] == ["ok"]


@pytest.mark.parametrize("as_json", [False, True], ids=["plain", "json"])
def test_a_refusal_keeps_its_code_without_a_reader(as_json: bool, home: Home) -> None:
    """Nobody may take a refusal for a success because it was piped into something that left."""
    missing = str(home.root / "no such bundle")
    wrong = ["--limit", "memory=none"]
    for more in ([], wrong):
        arguments = command_line("run", missing, *more, "--home", str(home.home), *(["--json"] * as_json))
        run = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert run.stdout is not None
        run.stdout.close()
        _, err = run.communicate(timeout=PATIENCE_S)
        assert run.returncode == 2, err


def test_a_broken_pipe_inside_a_run_is_no_reader_that_left(
    home: Home, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It is a defect, exit 70; taken for stdout's it would be exit 0 without a word."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(Supervisor, "run", mock.Mock(side_effect=BrokenPipeError(errno.EPIPE, "Broken pipe")))
    monkeypatch.setattr("sys.argv", ["plugsec", "run", bundle_of(home, GREETING), "--home", str(home.home)])
    monkeypatch.setattr("os._exit", sys.exit)
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 70


def _descriptors() -> set[str]:
    return {
        os.readlink(f"/proc/self/fd/{fd}")
        for fd in os.listdir("/proc/self/fd")
        if os.path.lexists(f"/proc/self/fd/{fd}")
    }


def _attacks(home: Home) -> dict[str, Callable[[], Outcome]]:
    return {
        "an answer": lambda: home.attack(GREETING),
        "a failure": lambda: home.attack("@plugin.method\ndef go(): raise ValueError\n"),
        "a limit": lambda: home.attack(SLEEPER, limits={"wall_ms": 200}),
        "a refusal": lambda: home.run(str(home.root / "no such bundle")),
        "a refused permission": lambda: home.attack(GREETING, permissions=ASKS),
        "a crash": lambda: home.attack("import os\n@plugin.method\ndef go(): os.abort()\n"),
        "bad input": lambda: home.run(bundle_of(home, GREETING), input=b"{"),
    }


def test_a_run_leaves_no_descriptor_and_no_child(home: Home) -> None:
    """A host application calls thousands of times."""
    runs = _attacks(home)
    for run in runs.values():  # what is cached at first use is open from here on
        run()
    before = len(os.listdir("/proc/self/fd"))
    for run in runs.values():
        run()
    assert len(os.listdir("/proc/self/fd")) == before, _descriptors()
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def test_a_run_changes_nothing_of_its_callers_process(home: Home) -> None:
    """Signal handlers, mask, umask, directory, limits and environment are the host application's."""

    def standing() -> object:
        mask = os.umask(0)
        os.umask(mask)
        return (
            [signal.getsignal(number) for number in range(1, 32)],
            signal.pthread_sigmask(signal.SIG_BLOCK, []),
            mask,
            Path.cwd(),
            dict(os.environ),
            [resource.getrlimit(kind) for kind in range(16)],
        )

    before = standing()
    for run in _attacks(home).values():
        run()
    assert standing() == before
