"""The registry of methods and the context that a method may ask for.

Both also work outside the jail, so that an author's unit tests call the functions directly.
"""

import os
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeVar

    F = TypeVar("F", bound=Callable[..., Any])


class Context:
    """What one call may use besides its input.

    `deadline_ms` is the wall time left, in milliseconds (0 or less: over). `notify` sends a notification
    to the supervisor; outside the jail it is absent and log lines go to stderr.
    """

    def __init__(
        self, *, deadline_ms: int = 0, notify: "Callable[[str, dict[str, Any]], None] | None" = None
    ) -> None:
        self._ends = time.monotonic() + deadline_ms / 1000
        self._notify = notify

    @property
    def deadline_ms(self) -> int:
        """Milliseconds of wall time left."""
        return round((self._ends - time.monotonic()) * 1000)

    def log(self, text: str, level: str = "info") -> None:
        """Send a line to the run's log; levels are debug, info, warning and error."""
        if self._notify is None:
            os.write(2, f"{level}: {text}\n".encode(errors="backslashreplace"))
        else:
            self._notify("$/log", {"level": level, "text": text})

    def progress(self, done: int, total: int) -> None:
        """Tell how far the call has come."""
        if self._notify is not None:
            self._notify("$/progress", {"done": done, "total": total})

    @staticmethod
    def input_path(name: str) -> str:
        """The path of an input file given as `--input-file NAME=PATH`."""
        return os.path.join(os.environ.get("INPUT", "input"), name)

    @staticmethod
    def output_path(name: str) -> str:
        """The path under which a result file is collected (needs fs.write on $OUTPUT)."""
        return os.path.join(os.environ.get("OUTPUT", "output"), name)


class Plugin:
    """The methods that this plugin offers, by name."""

    def __init__(self) -> None:
        self.methods: dict[str, Callable[..., Any]] = {}

    def method(self, function: "F") -> "F":
        """Offer `function` under its own name; the manifest must declare a method of that name."""
        self.methods[function.__name__] = function
        return function


plugin = Plugin()
