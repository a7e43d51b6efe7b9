"""Versions and ranges of them: `1.2.3`, `>=0.1,<1`.

Versions are those of semver.org 2.0.0. A range is a list of comparisons that must all hold; a comparison may
leave out minor and patch (`<1` is `<1.0.0`). Precedence follows section 11 of that specification.
"""

from plugsec_policies.errors import VersionInvalid
from plugsec_policies.typed import NamedTuple

# Longer than any version people write; bounds everything below.
TEXT_MAX = 128
# Digits of one number; Python refuses to convert thousands of them, slowly.
DIGITS_MAX = 9
# Comparisons in one range.
COMPARISONS_MAX = 8

_OPERATORS = ("<=", ">=", "==", "!=", "<", ">")  # a longer one before its own beginning
_LETTERS = frozenset("0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-")

# A release sorts above its pre-releases: its last member is (1,), theirs is (0, …).
Key = tuple[int, int, int, tuple[object, ...]]


class Comparison(NamedTuple):
    """One `>=1.2.0` of a range."""

    operator: str
    key: Key


def parse_version(text: object) -> Key:
    """Return what a version compares by. Raises VersionInvalid."""
    key = _key(text, parts=3) if isinstance(text, str) and len(text) <= TEXT_MAX else None
    if key is None:
        raise VersionInvalid(f"{text} is not a version", "write three numbers, for instance 1.2.3")
    return key


def _key(text: str, *, parts: int) -> Key | None:
    """Read a version, or with fewer `parts` the beginning of one; None if it is neither."""
    text, plus, build = text.partition("+")
    text, dash, pre_release = text.partition("-")
    numbers = text.split(".")
    if not parts <= len(numbers) <= 3 or not all(map(_is_number, numbers)):
        return None
    if (plus and not _are_identifiers(build)) or (dash and not _are_identifiers(pre_release)):
        return None
    if (plus or dash) and len(numbers) < 3:
        return None
    words = pre_release.split(".") if dash else []
    if any(word.isdigit() and not _is_number(word) for word in words):
        return None
    major, minor, patch = (int(number) for number in [*numbers, "0", "0"][:3])
    return major, minor, patch, _precedence(words) if dash else (1,)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= DIGITS_MAX and (text == "0" or text[0] != "0")


def _are_identifiers(text: str) -> bool:
    return all(word and _LETTERS.issuperset(word) for word in text.split("."))


def _precedence(words: list[str]) -> tuple[object, ...]:
    # Numbers sort below words, both among their own (section 11.4).
    return (0, *((0, int(word), "") if word.isdigit() else (1, 0, word) for word in words))


def parse_range(text: object) -> tuple[Comparison, ...]:
    """Return the comparisons of a range. Raises VersionInvalid."""
    parts = text.split(",", COMPARISONS_MAX) if isinstance(text, str) and len(text) <= TEXT_MAX else [""]
    comparisons = []
    for part in parts:
        words = part.strip(" ")
        operator = next((each for each in _OPERATORS if words.startswith(each)), "")
        key = _key(words[len(operator) :].strip(" "), parts=1)
        if not operator or key is None or len(parts) > COMPARISONS_MAX:
            raise VersionInvalid(f"{text} is not a range of versions", 'write for instance ">=0.1,<1"')
        comparisons.append(Comparison(operator, key))
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
