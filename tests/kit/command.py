"""The command line inside this process, for suites that type hundreds of commands on slow hosts."""

import contextlib
import functools
import io
import json
from typing import Any, NamedTuple

import typer.main

from plugsec.cli.app import build


class Said(NamedTuple):
    """An exit code and what was written to each stream."""

    code: int
    stdout: str
    stderr: str

    @property
    def value(self) -> Any:
        """The one JSON object on stdout."""
        return json.loads(self.stdout)


class CommandLine:
    """`plugsec` with every command but `run`'s fast path, which leaves the process."""

    def __init__(self) -> None:
        self._command = typer.main.get_command(build())

    def __call__(self, *arguments: str) -> Said:
        """Type a command line and wait for it."""
        out, err, code = io.StringIO(), io.StringIO(), 0
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                self._command.main(list(arguments), prog_name="plugsec")
            except SystemExit as leaving:
                code = leaving.code if isinstance(leaving.code, int) else 1 if leaving.code else 0
        return Said(code, out.getvalue(), err.getvalue())


@functools.cache
def command_line() -> CommandLine:
    """The one command line of this process: building it takes longer than most commands."""
    return CommandLine()
