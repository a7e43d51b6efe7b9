"""Closed, full and abandoned standard streams: a sentence and a code, never a defect."""

import subprocess
import sys

import pytest

ECHO = "from plugsec_plugins.guest import plugin\n@plugin.method\ndef go(**value):\n    return value\n"
CASES = {
    "stdout closed": (">&-", 0, ""),
    "stdout full": (">/dev/full", 2, "PLG-USE-002"),
    "stderr closed": ("2>&-", 0, ""),
    "stdin closed": ("<&-", 0, ""),
    "all closed": ("<&- >&- 2>&-", 0, ""),
    "the reader left": ("| true", 0, ""),
}


@pytest.mark.parametrize("command", ["run", "inspect", "verify"])
@pytest.mark.parametrize("case", CASES)
def test_a_stream_that_cannot_be_used_is_no_defect(cli, home, case, command) -> None:
    redirection, code, words = CASES[case]
    line = f'"{sys.executable}" -m plugsec {command} "{home.bundle({"main.py": ECHO})}" {redirection}'
    ended = subprocess.run(
        ["/bin/sh", "-c", line], env=cli.environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == code, ended.stderr
    assert words in ended.stderr
    assert "defect" not in ended.stderr
    assert "Exception ignored" not in ended.stderr
