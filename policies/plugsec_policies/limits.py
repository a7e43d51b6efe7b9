"""Limits: what a run may use up, as whole numbers, and the minimum of several opinions about them.

A manifest asks for less than the default, a policy sets ceilings for everybody, the command line may
lower them again: what is in force is always the minimum. Times are milliseconds, sizes are bytes;
`"128M"` means 128 * 1024² bytes.
"""

import re
from collections.abc import Mapping

from plugsec_policies.errors import LimitArgumentInvalid, LimitInvalid
from plugsec_policies.typed import Any, NamedTuple

# poll(2) takes a signed 32-bit number of milliseconds; a longer deadline could not be waited for (24.8 days).
MILLISECONDS_MAX = 2**31 - 1
# Manifests are canonical JSON, whose integers end here (RFC 8785 section 3.2.2.3: IEEE 754 doubles).
BYTES_MAX = 2**53 - 1
# PID_MAX_LIMIT of the kernel on 64-bit machines (include/linux/threads.h).
PROCESSES_MAX = 4_194_304
# The kernel's default fs.nr_open, above which RLIMIT_NOFILE is refused (proc_sys_fs(5)).
OPEN_FILES_MAX = 1_048_576
# Counters the supervisor keeps for one run; more would never be reached within MILLISECONDS_MAX.
COUNT_MAX = 2**31 - 1


class Limits(NamedTuple):
    """Ceilings for one run; every member is at least 1."""

    wall_ms: int
    cpu_ms: int
    memory_bytes: int
    processes: int
    open_files: int
    output_bytes: int
    tmp_bytes: int
    file_bytes: int
    files: int
    denials: int


class _Word(NamedTuple):
    """One limit as people write it: its member of `Limits`, its ceiling, whether it is a size (8M)."""

    field: str
    most: int
    is_size: bool


_WORDS: dict[str, _Word] = {
    "wall_ms": _Word("wall_ms", MILLISECONDS_MAX, False),
    "cpu_ms": _Word("cpu_ms", MILLISECONDS_MAX, False),
    "memory": _Word("memory_bytes", BYTES_MAX, True),
    "processes": _Word("processes", PROCESSES_MAX, False),
    "open_files": _Word("open_files", OPEN_FILES_MAX, False),
    "output_bytes": _Word("output_bytes", BYTES_MAX, True),
    "tmp_bytes": _Word("tmp_bytes", BYTES_MAX, True),
    "file_bytes": _Word("file_bytes", BYTES_MAX, True),
    "files": _Word("files", COUNT_MAX, False),
    "denials": _Word("denials", COUNT_MAX, False),
}
# What files and the command line call a limit, in the order of `Limits`.
LIMIT_WORDS: tuple[str, ...] = tuple(_WORDS)
_WORD_OF_FIELD = {word.field: name for name, word in _WORDS.items()}

# Compiled when first used: what a run reads from manifests and cached policies are numbers already.
_SIZE = r"([0-9]{1,16})([KMGT]?)"
_DIGITS = r"[0-9]{1,16}"
_FACTOR = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def parse_limits(mapping: Mapping[str, Any], partial: bool = True) -> dict[str, int]:
    """Read limits as files write them (`memory = "128M"`) into members of `Limits` (`memory_bytes`).

    The members' own names are read too, so that the result parses to itself. With `partial=False` a
    missing limit is an error. Raises LimitInvalid.
    """
    if not isinstance(mapping, Mapping):
        raise LimitInvalid("limits must be a table of names and numbers", "write for instance wall_ms = 5000")
    limits: dict[str, int] = {}
    for name, value in mapping.items():
        field, number = parse_limit(name, value)
        if field in limits:
            raise LimitInvalid(
                f"the limit {field} is given twice", f"keep one line, {_WORD_OF_FIELD[field]} = …"
            )
        limits[field] = number
    if not partial:
        for field in Limits._fields:
            if field not in limits:
                raise LimitInvalid(
                    f"the limit {_WORD_OF_FIELD[field]} is missing", f"add {_WORD_OF_FIELD[field]} = …"
                )
    return limits


def parse_limit(name: object, value: object) -> tuple[str, int]:
    """Read one limit; return its member of `Limits` and its number. Raises LimitInvalid."""
    known = isinstance(name, str) and (name in _WORDS or name in _WORD_OF_FIELD)
    if not known:
        raise LimitInvalid(f"there is no limit called {name}", "the limits are " + ", ".join(LIMIT_WORDS))
    word_name = _WORD_OF_FIELD.get(str(name), str(name))
    word = _WORDS[word_name]
    number = _number(word_name, word, value)
    if not 1 <= number <= word.most:
        raise LimitInvalid(
            f"the limit {word_name} is {number}, outside 1 to {word.most}",
            f"write {word_name} = N with N between 1 and {word.most}",
        )
    return word.field, number


def _number(name: str, word: _Word, value: object) -> int:
    # bool is an int in Python; `processes = true` is a mistake, not a 1.
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if word.is_size and isinstance(value, str):
        match = re.fullmatch(_SIZE, value, re.ASCII)
        if match:
            return int(match[1]) * _FACTOR[match[2]]
        raise LimitInvalid(
            f"the limit {name} is not a size", f'write for instance {name} = "128M" (K, M, G, T)'
        )
    example = f'{name} = 1000000 or {name} = "128M"' if word.is_size else f"{name} = 5000"
    raise LimitInvalid(f"the limit {name} is not a whole number", f"write for instance {example}")


def parse_limit_argument(text: str) -> tuple[str, int]:
    """Read `K=V` as `--limit` takes it; return the member of `Limits` and its number.

    Raises LimitArgumentInvalid.
    """
    name, equals, value = text.partition("=")
    if not equals:
        raise LimitArgumentInvalid(f"--limit {text} has no value", "write --limit wall_ms=5000")
    try:
        return parse_limit(name, int(value) if re.fullmatch(_DIGITS, value, re.ASCII) else value)
    except LimitInvalid as err:
        raise LimitArgumentInvalid(f"--limit {text}: {err.message}", err.hint) from err


def word_of(field: str) -> str:
    """Name a member of `Limits` as files and the command line write it."""
    return _WORD_OF_FIELD[field]


def minimum(a: Limits, b: Limits | Mapping[str, int]) -> Limits:
    """Take the smaller of each limit; a limit that `b` does not mention stays as it is in `a`."""
    other = b._asdict() if isinstance(b, Limits) else b
    return Limits(*(min(value, other.get(field, value)) for field, value in zip(a._fields, a, strict=True)))


def format_size(number: int) -> str:
    """Write a number of bytes as a policy would, with the largest suffix that divides it: 512M."""
    for suffix in ("T", "G", "M", "K"):
        if number and number % _FACTOR[suffix] == 0:
            return f"{number // _FACTOR[suffix]}{suffix}"
    return str(number)


def format_limit(field: str, number: int) -> str:
    """Write one limit as a line of a policy: `memory = "512M"`."""
    name = _WORD_OF_FIELD[field]
    if _WORDS[name].is_size and not (text := format_size(number)).isdigit():
        return f'{name} = "{text}"'
    return f"{name} = {number}"
