"""TOML with line numbers: what people write by hand, so that every complaint can say `file:line`.

`tomllib` decides what is valid and what it means; it does not keep lines. A second, much simpler pass over
the same, by then valid, text finds where each key and each list member stands.
"""

import re
import tomllib
from bisect import bisect_right
from collections.abc import Mapping
from typing import Any

from plugsec_policies.errors import PolicyMalformed, Problem
from plugsec_policies.typed import NamedTuple

# Files for people; tomllib's cost can grow with the square of the length of one dotted key.
TEXT_MAX = 256 * 1024
# Tables and lists inside one another; policies need 4.
DEPTH_MAX = 16

# tomllib keeps every beginning of a dotted key: 130,000 parts, a 256 KB line, would need 60 GB. So a run of
# names and dots this long is refused before it is parsed, also in a text or comment, where nobody writes it.
DOTS_MAX = 64

Path = tuple[str | int, ...]

_NOT_IN_KEYS = re.compile(r"[^A-Za-z0-9_\"'. \t-]+")
_NEXT_PART = re.compile(r"\.[ \t]*[A-Za-z0-9_\"'-]")

_AT_LINE = re.compile(r" \(at line (\d+), column \d+\)$|^.*line (\d+)", re.ASCII)
_SPACE = re.compile(r"[ \t]*")
_BLANK = re.compile(r"(?:[ \t\n]+|#[^\n]*)*")
_BARE = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)
_SCALAR = re.compile(r"[^,\]}\n#]*")
_STRING = re.compile(
    r'"""(?:[^\\"]|\\.|"(?!""))*"{3,5}' r"|'''(?:[^']|'(?!''))*'{3,5}" r'|"(?:[^"\\\n]|\\.)*"' r"|'[^'\n]*'",
    re.DOTALL,
)


class Document(NamedTuple):
    """A parsed file: its data and where each part of it stands."""

    data: Mapping[str, Any]
    where: str
    lines: Mapping[Path, int]

    def at(self, path: Path) -> str:
        """Return `file:line` of the nearest part of `path` that has a line."""
        for end in range(len(path), 0, -1):
            if path[:end] in self.lines:
                return f"{self.where}:{self.lines[path[:end]]}"
        return self.where


def parse_toml(text: str, where: str) -> Document:
    """Parse a file's text; `where` names it in messages. Raises PolicyMalformed with `file:line`."""
    if len(text) > TEXT_MAX:
        raise _malformed(where, f"it is longer than {TEXT_MAX} characters", "split it")
    text = text.replace("\r\n", "\n")
    if any(len(_NEXT_PART.findall(run)) > DOTS_MAX for run in _NOT_IN_KEYS.split(text)):
        raise _malformed(where, f"a key has more than {DOTS_MAX} parts", "flatten it")
    try:
        data = tomllib.loads(text)
    except RecursionError as err:
        raise _malformed(where, "its lists or tables are nested too deeply", "flatten it") from err
    except ValueError as err:  # TOMLDecodeError, and int() of too many digits
        message = str(err)
        match = _AT_LINE.search(message)
        line = next((number for number in match.groups() if number), "") if match else ""
        raise _malformed(
            f"{where}:{line}" if line else where,
            f"it is not TOML: {message[: match.start()] if match and match.start() else message}",
            "see https://toml.io",
        ) from err
    return Document(data, where, _Scanner(text, where).scan())


def _malformed(where: str, message: str, hint: str) -> PolicyMalformed:
    return PolicyMalformed(f"{where}: {message}", hint, (Problem(where, message, hint),))


class _Scanner:
    """Finds the line of every key in a text that tomllib has accepted, so only its shape matters here."""

    def __init__(self, text: str, where: str) -> None:
        self._text = text
        self._where = where
        self._at = 0
        self._starts = [0, *(match.end() for match in re.finditer("\n", text))]
        self._lines: dict[Path, int] = {}
        self._last: dict[Path, int] = {}  # arrays of tables: the index of the latest element

    def scan(self) -> dict[Path, int]:
        prefix: Path = ()
        while self._skip(_BLANK) < len(self._text):
            if self._text[self._at] == "[":
                prefix = self._header()
            else:
                self._assignment(prefix, 0)
        return self._lines

    def _skip(self, pattern: re.Pattern[str]) -> int:
        match = pattern.match(self._text, self._at)
        self._at = match.end() if match else self._at
        return self._at

    def _record(self, path: Path) -> None:
        line = bisect_right(self._starts, self._at)
        for end in range(1, len(path) + 1):
            self._lines.setdefault(path[:end], line)

    def _header(self) -> Path:
        start = self._at
        double = self._text.startswith("[[", start)
        self._at += 2 if double else 1
        parts = self._key()
        resolved: Path = ()
        for part in parts[:-1]:
            resolved = self._element((*resolved, part))
        resolved = (*resolved, parts[-1])
        end = self._at
        self._at = start
        if double:
            self._last[resolved] = self._last.get(resolved, -1) + 1
        resolved = self._element(resolved)
        self._record(resolved)
        self._at = end + (2 if double else 1)
        return resolved

    def _element(self, path: Path) -> Path:
        return (*path, self._last[path]) if path in self._last else path

    def _key(self) -> list[str]:
        parts: list[str] = []
        while True:
            self._skip(_SPACE)
            start = self._at
            if self._text[start] in "\"'":
                self._skip(_STRING)
                # tomllib unquotes: a key may hold escapes.
                parts.append(next(iter(tomllib.loads(self._text[start : self._at] + "=0"))))
            else:
                self._skip(_BARE)
                parts.append(self._text[start : self._at])
            self._skip(_SPACE)
            if not self._text.startswith(".", self._at):
                return parts
            if len(parts) >= DEPTH_MAX:
                raise self._too_deep()
            self._at += 1

    def _assignment(self, prefix: Path, depth: int) -> None:
        start = self._at
        path = (*prefix, *self._key())
        end, self._at = self._at, start
        self._record(path)
        self._at = end + 1  # the equals sign
        self._value(path, depth)

    def _too_deep(self) -> PolicyMalformed:
        where = f"{self._where}:{bisect_right(self._starts, self._at)}"
        return _malformed(where, f"it is nested more than {DEPTH_MAX} deep", "flatten it")

    def _value(self, path: Path, depth: int) -> None:
        if depth > DEPTH_MAX:
            raise self._too_deep()
        self._skip(_SPACE)
        first = self._text[self._at]
        if first == "[":
            self._list(path, depth)
        elif first == "{":
            self._inline_table(path, depth)
        elif first in "\"'":
            self._skip(_STRING)
        else:
            self._skip(_SCALAR)

    def _list(self, path: Path, depth: int) -> None:
        self._at += 1
        index = 0
        while self._text[self._skip(_BLANK)] != "]":
            self._record((*path, index))
            self._value((*path, index), depth + 1)
            index += 1
            if self._text[self._skip(_BLANK)] == ",":
                self._at += 1
        self._at += 1

    def _inline_table(self, path: Path, depth: int) -> None:
        self._at += 1
        while self._text[self._skip(_BLANK)] != "}":
            self._assignment(path, depth + 1)
            if self._text[self._skip(_BLANK)] == ",":
                self._at += 1
        self._at += 1
