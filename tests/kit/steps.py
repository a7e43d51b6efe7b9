"""Acting between two steps of the code under test: at its nth touch of a path, or after its nth stage.

The interpreter's own audit events (PEP 578) say when a file is opened, listed or renamed, before it happens;
nothing of the code under test is replaced.
"""

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import Any

_TOUCHES = frozenset({"open", "os.listdir", "os.scandir", "os.rename", "os.mkdir", "os.link", "os.remove"})
_hooks: list["Steps"] = []  # the one that is active; a hook cannot be taken away again


class Steps:
    """Counts steps and acts once, before the one numbered `at`."""

    def __init__(self, about: Callable[[str], bool], at: int, act: Callable[[], None]) -> None:
        self._about, self._at, self._act = about, at, act
        self._acting = False
        self.count = 0

    def touch(self, path: object) -> None:
        """A path is about to be touched."""
        if self._acting or not isinstance(path, str | bytes):
            return
        text = path if isinstance(path, str) else path.decode("utf-8", "replace")
        if self._about(text):
            self.step()

    def step(self) -> None:
        """One step; the numbered one acts first."""
        if self._acting:
            return
        self.count += 1
        if self.count == self._at:
            self._acting = True
            try:
                self._act()
            finally:
                self._acting = False


@contextlib.contextmanager
def steps(about: Callable[[str], bool], at: int, act: Callable[[], None]) -> Iterator[Steps]:
    """For as long as this lasts, `act` happens before the `at`th touch of a path that `about` accepts."""
    if not getattr(sys, "_plugsec_steps", False):
        sys.addaudithook(_hook)
        sys._plugsec_steps = True  # type: ignore[attr-defined]
    found = Steps(about, at, act)
    _hooks.append(found)
    try:
        yield found
    finally:
        _hooks.remove(found)


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if _hooks and event in _TOUCHES and arguments:
        _hooks[-1].touch(arguments[0])
