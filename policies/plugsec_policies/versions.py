"""Versions and ranges of them: `1.2.3`, `>=0.1,<1`.

Versions are those of semver.org 2.0.0. A range is a list of comparisons that must all hold; a comparison may
leave out minor and patch (`<1` is `<1.0.0`). Precedence follows section 11 of that specification.
"""

import re
from typing import NamedTuple

from plugsec_policies.errors import VersionInvalid

# Longer than any version people write; bounds the regular expression's input.
TEXT_MAX = 128
# Comparisons in one range.
COMPARISONS_MAX = 8
_NUMBER = r"(0|[1-9][0-9]{0,8})"
_IDENTIFIER = r"(?:0|[1-9][0-9]{0,8}|[0-9]*[A-Za-z-][0-9A-Za-z-]*)"
_VERSION = re.compile(
    rf"{_NUMBER}\.{_NUMBER}\.{_NUMBER}(?:-({_IDENTIFIER}(?:\.{_IDENTIFIER})*))?(?:\+[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*)?",
    re.ASCII,
)
_COMPARISON = re.compile(
    rf" *(<=|>=|<|>|==|!=) *"
    rf"({_NUMBER}(?:\.{_NUMBER}(?:\.{_NUMBER}(?:-{_IDENTIFIER}(?:\.{_IDENTIFIER})*)?)?)?) *",
    re.ASCII,
)

# A release sorts above its pre-releases: its last member is (1,), theirs is (0, …).
Key = tuple[int, int, int, tuple[object, ...]]


class Comparison(NamedTuple):
    """One `>=1.2.0` of a range."""

    operator: str
    key: Key


def parse_version(text: object) -> Key:
    """Return what a version compares by. Raises VersionInvalid."""
    match = _VERSION.fullmatch(text) if isinstance(text, str) and len(text) <= TEXT_MAX else None
    if match is None:
        raise VersionInvalid(f"{text} is not a version", "write three numbers, for instance 1.2.3")
    return int(match[1]), int(match[2]), int(match[3]), _pre_release(match[4])


def _pre_release(text: str | None) -> tuple[object, ...]:
    if text is None:
        return (1,)
    # Numbers sort below words, both among their own (section 11.4).
    return (0, *((0, int(part), "") if part.isdigit() else (1, 0, part) for part in text.split(".")))


def parse_range(text: object) -> tuple[Comparison, ...]:
    """Return the comparisons of a range. Raises VersionInvalid."""
    parts = text.split(",", COMPARISONS_MAX) if isinstance(text, str) and len(text) <= TEXT_MAX else [""]
    comparisons = []
    for part in parts:
        match = _COMPARISON.fullmatch(part)
        if match is None or len(parts) > COMPARISONS_MAX:
            raise VersionInvalid(f"{text} is not a range of versions", 'write for instance ">=0.1,<1"')
        number = match[2]
        number += ".0" * (2 - number.partition("-")[0].count("."))
        comparisons.append(Comparison(match[1], parse_version(number)))
    return tuple(comparisons)


def contains(comparisons: tuple[Comparison, ...], version: Key) -> bool:
    """Tell whether the version satisfies every comparison."""
    return all(_holds(each, version) for each in comparisons)


def _holds(comparison: Comparison, version: Key) -> bool:
    below, equal = version < comparison.key, version == comparison.key
    return {
        "<": below,
        "<=": below or equal,
        ">": not (below or equal),
        ">=": not below,
        "==": equal,
        "!=": not equal,
    }[comparison.operator]
