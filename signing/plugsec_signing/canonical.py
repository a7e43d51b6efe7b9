"""The one hardened JSON decoder, and the canonical form in which things are signed.

`decode` is what every untrusted JSON text passes through: it is capped, strict about UTF-8, bounded in
depth and in numbers, and refuses what parsers disagree about (duplicate keys, NaN, lone surrogates,
BOM). `encode` writes RFC 8785 with integers only; `decode_canonical` accepts only bytes equal to their
own re-encoding, so a signed document has exactly one spelling.

The parser is the standard library's scanner in C; the rules are its hooks and three checks on the text,
so a manifest costs microseconds. Decoding needs at most about 25 times the input's size in memory.
"""

import json
import re

from plugsec_signing.errors import JsonError, excerpt
from plugsec_signing.typed import Any, NoReturn

MAX_BYTES = 8 * 1024 * 1024  # one message or manifest; more is what files are for
MAX_DEPTH = 64  # far below the interpreter's recursion limit, far above any honest document
MAX_CANONICAL_DEPTH = 32  # signed documents are ours and flatter
MAX_INTEGER = 2**63 - 1  # what the receivers of a message (C, Go, Rust) hold in one word
MAX_CANONICAL_INTEGER = 2**53 - 1  # RFC 8785 §3.2.2.3: exact in every IEEE 754 double
_INTEGER_CHARS = 20  # sign and nineteen digits; checked first because int() is quadratic in the length
_NUMBER_CHARS = 1024  # no honest decimal is longer; float() of megabytes of digits is not free

_BOM = b"\xef\xbb\xbf"
_STRING = rb'(?s)"[^"\\]*+(?:\\.[^"\\]*+)*+"'  # compiled when first needed: most texts are flat
_BRACKETS = bytes.maketrans(b"{}", b"[]")
_NOT_BRACKETS = bytes(byte for byte in range(256) if byte not in b"[]{}")


def decode(
    data: bytes, *, max_bytes: int = MAX_BYTES, max_depth: int = MAX_DEPTH, integers_only: bool = False
) -> Any:  # noqa: ANN401 - any JSON value
    """Return the value of a JSON text of unknown origin (RFC 8259, stricter where parsers disagree).

    Integers keep their value up to |n| ≤ 2^63 - 1; `-0` becomes the float -0.0, because no integer can
    hold it. With `integers_only` every fraction, exponent and `-0` is refused and |n| ≤ 2^53 - 1.
    Raises JsonError (exit 4) and nothing else for any bytes.
    """
    if len(data) > max_bytes:
        raise JsonError(f"the JSON text is {len(data)} bytes; at most {max_bytes} are read", id="PLG-JSN-001")
    if data.startswith(_BOM):
        raise JsonError(
            "the JSON text begins with a byte order mark", "save it without BOM", id="PLG-JSN-002"
        )
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as err:
        raise JsonError(f"the JSON text is not UTF-8 at byte {err.start}", id="PLG-JSN-002") from err
    if data.count(b"[") + data.count(b"{") > max_depth:
        _check_depth(data, max_depth)
    try:
        value = (_INTEGERS if integers_only else _ANYTHING).decode(text)
    except json.JSONDecodeError as err:
        where = f"line {err.lineno}, column {err.colno}"
        raise JsonError(f"the text is not JSON: {err.msg} at {where}", id="PLG-JSN-003") from err
    except RecursionError as err:
        # Only where a caller allows more depth than the interpreter has: shallower was counted above.
        raise JsonError(f"the JSON text nests deeper than {max_depth}", id="PLG-JSN-004") from err
    if b"\\ud" in data or b"\\uD" in data:
        _check_surrogates(value)
    return value


def decode_canonical(data: bytes, *, max_bytes: int = MAX_BYTES, max_depth: int = MAX_CANONICAL_DEPTH) -> Any:  # noqa: ANN401 - any JSON value
    """Return the value of a text that must be its own canonical encoding (RFC 8785, integers only).

    Raises JsonError, with PLG-JSN-008 when the text is JSON but spelt differently.
    """
    value = decode(data, max_bytes=max_bytes, max_depth=max_depth, integers_only=True)
    if encode(value) != data:
        raise JsonError(
            "the JSON text is not in canonical form (RFC 8785: no spaces, sorted keys, shortest escapes)",
            "let `plugsec pack` write it",
            id="PLG-JSN-008",
        )
    return value


def encode(value: Any) -> bytes:  # noqa: ANN401 - any JSON value
    """Return the RFC 8785 form of a value made of dict, list, str, int, bool and None.

    Raises JsonError (PLG-JSN-009) for floats, integers beyond 2^53 - 1, keys that are not strings, lone
    surrogates and nesting beyond MAX_DEPTH (which a value containing itself also exceeds).
    """
    if _check_encodable(value):
        text = json.dumps(_in_utf16_order(value), ensure_ascii=False, separators=(",", ":"))
    else:
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=True)
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as err:
        raise JsonError("a string holds half of a surrogate pair", id="PLG-JSN-009") from err


def _check_depth(data: bytes, max_depth: int) -> None:
    """Count nesting without parsing: each round removes every innermost pair of brackets."""
    brackets = re.sub(_STRING, b"", data).translate(_BRACKETS, _NOT_BRACKETS)
    for _ in range(max_depth):
        if not brackets:
            return
        brackets = brackets.replace(b"[]", b"")
    if brackets:
        raise JsonError(f"the JSON text nests deeper than {max_depth}", id="PLG-JSN-004")


def _check_surrogates(value: Any) -> None:  # noqa: ANN401
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError as err:
        raise JsonError("a string holds half of a surrogate pair", id="PLG-JSN-007") from err


def _check_encodable(value: Any) -> bool:  # noqa: ANN401
    """Refuse what has no canonical form; return whether a key needs UTF-16 order (RFC 8785 §3.2.3).

    Code points and UTF-16 units sort alike unless a key reaches beyond the basic plane.
    """
    beyond_basic_plane = False
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        deeper: list[Any] = []
        for item in level:
            kind = type(item)
            if kind is dict:
                for key in item:
                    if type(key) is not str:
                        raise JsonError(f"the key {excerpt(key)} is not a string", id="PLG-JSN-009")
                    beyond_basic_plane |= not key.isascii() and max(key) > "\uffff"
                deeper.extend(item.values())
            elif kind is list or kind is tuple:
                deeper.extend(item)
            elif kind is int:
                if not -MAX_CANONICAL_INTEGER <= item <= MAX_CANONICAL_INTEGER:
                    raise JsonError(
                        "an integer exceeds 2^53 - 1 and would not survive JSON", id="PLG-JSN-009"
                    )
            elif kind is not str and kind is not bool and item is not None:
                raise JsonError(f"a {kind.__name__} has no canonical form", id="PLG-JSN-009")
        if not deeper:
            return beyond_basic_plane
        level = deeper
    raise JsonError(f"the value nests deeper than {MAX_DEPTH}", id="PLG-JSN-009")


def _in_utf16_order(value: Any) -> Any:  # noqa: ANN401 - recursion is bounded by _check_encodable
    if isinstance(value, dict):
        # Lone surrogates must reach the final encoding, which names them, so they pass here.
        keys = sorted(value, key=lambda key: key.encode("utf-16-be", "surrogatepass"))
        return {key: _in_utf16_order(value[key]) for key in keys}
    if isinstance(value, list | tuple):
        return [_in_utf16_order(item) for item in value]
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise JsonError(f"the key {excerpt(twice)} occurs twice in one object", id="PLG-JSN-005")
    return value


def _integer(token: str) -> int | float:
    if token == "-0":  # noqa: S105 - a number, not a secret
        return -0.0
    number = int(token) if len(token) <= _INTEGER_CHARS else MAX_INTEGER + 1
    if not -MAX_INTEGER <= number <= MAX_INTEGER:
        raise JsonError(f"the integer {excerpt(token)} exceeds 2^63 - 1", id="PLG-JSN-006")
    return number


def _canonical_integer(token: str) -> int:
    number = int(token) if len(token) <= _INTEGER_CHARS else MAX_INTEGER
    if token == "-0" or not -MAX_CANONICAL_INTEGER <= number <= MAX_CANONICAL_INTEGER:  # noqa: S105
        raise JsonError(f"the integer {excerpt(token)} is -0 or exceeds 2^53 - 1", id="PLG-JSN-006")
    return number


def _float(token: str) -> float:
    number = float(token) if len(token) <= _NUMBER_CHARS else float("inf")
    if number in (float("inf"), float("-inf")):
        raise JsonError(f"the number {excerpt(token)} does not fit a double", id="PLG-JSN-006")
    return number


def _no_float(token: str) -> NoReturn:
    raise JsonError(f"the number {excerpt(token)} is not a plain integer", id="PLG-JSN-006")


def _no_constant(token: str) -> NoReturn:
    raise JsonError(f"{token} is not a JSON number", id="PLG-JSN-006")


_ANYTHING = json.JSONDecoder(
    object_pairs_hook=_object, parse_int=_integer, parse_float=_float, parse_constant=_no_constant
)
_INTEGERS = json.JSONDecoder(
    object_pairs_hook=_object,
    parse_int=_canonical_integer,
    parse_float=_no_float,
    parse_constant=_no_constant,
)
