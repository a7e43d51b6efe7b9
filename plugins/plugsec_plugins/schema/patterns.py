"""How large the patterns of a schema become when they are compiled, which is what a byte of text costs.

The engine has several ways to search. The slowest, which a hostile pattern can always force
(`[ab]*a[ab]{500}[^ab]`, or word boundaries among letters beyond ASCII), follows every state of the compiled
pattern for every byte of the text; so states, not characters, are counted. The library does not tell
the size, but it refuses to go beyond a limit: the smallest limit that passes is the size.
"""

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from plugsec_plugins.errors import SchemaRefused

if TYPE_CHECKING:
    import jsonschema_rs

_KIB = 1024
# The sizes that are told apart, in KiB: at most a third too much is charged, for five trials.
_SIZES = (1, 2, 3, 4, 6, 8, 10, 12, 14, 16, 18, 20, 24, 28, 32, 40, 48, 64, 80, 96, 128)
# One compiled pattern. Real ones need 1 KiB (words) to 18 KiB (HTML's e-mail addresses), 43 KiB with letters
# of all scripts, 128 KiB where they count to 512 as those of cloud providers do. `(a{1000}){1000}` ends here
# and not in our memory.
REGEX_BYTES_MAX = _SIZES[-1] * _KIB
# All of them, in KiB, each as often as it is written: the library keeps several forms of each, which makes
# this some MiB of memory.
PATTERNS_KIB_MAX = 1024


def options(size: int) -> "jsonschema_rs.RegexOptions":
    """Return the engine's settings: without backtracking, and no pattern larger than `size` bytes."""
    import jsonschema_rs  # noqa: PLC0415

    return jsonschema_rs.RegexOptions(size_limit=size, dfa_size_limit=REGEX_BYTES_MAX)


def weigh(patterns: Sequence[str]) -> Mapping[str, int]:
    """Return the compiled size of each pattern, in KiB; raises SchemaRefused if the sum is too large.

    Every pattern must compile under REGEX_BYTES_MAX.
    """
    sizes: dict[str, int] = {}
    total = 0
    for pattern in patterns:
        if pattern not in sizes:
            sizes[pattern] = _size(pattern)
        total += sizes[pattern]
        if total > PATTERNS_KIB_MAX:
            raise SchemaRefused(
                f"the patterns of the schema take more than {PATTERNS_KIB_MAX} KiB when compiled",
                "use maxLength in place of counts such as {1,255}, and write a pattern once, under $defs",
            )
    return sizes


def _size(pattern: str) -> int:
    return _SIZES[bisect_left(_SIZES[:-1], 1, key=lambda kib: int(_fits(pattern, kib)))]


def _fits(pattern: str, kib: int) -> bool:
    import jsonschema_rs  # noqa: PLC0415

    try:
        jsonschema_rs.Draft202012Validator({"pattern": pattern}, pattern_options=options(kib * _KIB))
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException:  # (as in full.py; the reason was told when the schema was compiled)
        return False
    return True
