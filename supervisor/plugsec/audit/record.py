"""One record: what a log line holds, made from whatever the caller has at hand.

A record is never refused for its contents: evidence that is too long, too deep or not text is kept as
far as it goes, with a marker that says what is missing. Redaction comes first, so neither the line nor
any hash over it ever depended on a secret; then every string becomes printable text on one line
(`exchange.display.escape`), so neither JSON nor a terminal showing the raw log can be led astray.

Integers beyond 2^53 - 1 become decimal strings, because canonical JSON cannot hold them; `mono_ns` is
always one, since 2^53 ns are 104 days of uptime.
"""

import os
import time
from collections.abc import Callable, Iterable, Mapping

from plugsec.exchange.display import escape
from plugsec_signing.canonical import MAX_CANONICAL_INTEGER, encode
from plugsec_signing.typed import Any

VERSION = 1
MAX_LINE = 64 * 1024
"""Bytes of a line, its newline included: what one write() appends and one read has to hold."""

_FIELD_CHARS = 256  # run ids, digests, host names and decisions are far shorter
_KEY_CHARS = 128
_CAPS = ((4096, 256), (512, 64), (128, 16))
"""(characters of a string, members of a container), tried in turn until the line fits."""
_DEPTH = 8
_NODES = 4096  # values in one detail: bounds the work whatever the nesting

_CUT = "[truncated]"

Redaction = Callable[[str], str]


def redaction_of(secrets: Iterable[str | bytes]) -> Redaction:
    """A function that replaces every given value, raw or as `escape` shows it, by `[redacted]`.

    Longer values first, so that one secret containing another leaves nothing of either.
    """
    values: set[str] = set()
    for secret in secrets:
        text = _text(secret)
        values |= {text, escape(text, limit=max(64, 12 * len(text)))}
    values.discard("")
    ordered = sorted(values, key=len, reverse=True)

    def redact(text: str) -> str:
        for value in ordered:
            text = text.replace(value, "[redacted]")
        return text

    return redact


def build(
    *,
    seq: int,
    prev: bytes,
    event: str,
    session: str,
    boot_id: str,
    optional: Mapping[str, str | None],
    detail: Mapping[str, Any],
    redact: Redaction,
) -> bytes:
    """The canonical line (without newline) of one record; always shorter than MAX_LINE.

    `optional` holds run, bundle_id, policy_digest and decision; absent ones leave no field.
    """
    record: dict[str, Any] = {
        "v": VERSION,
        "seq": seq,
        "prev": prev.hex(),
        "ts": _now(),
        "mono_ns": str(time.monotonic_ns()),
        "boot_id": boot_id,
        "host": escape(redact(os.uname().nodename), limit=_FIELD_CHARS),
        "uid": os.getuid(),
        "pid": os.getpid(),
        "session": session,
        "event": event,
    }
    for name, value in optional.items():
        if value is not None:
            record[name] = escape(redact(_text(value)), limit=_FIELD_CHARS)
    for chars, members in _CAPS:
        record["detail"] = _Shaper(redact, chars, members).shape(detail)
        line = encode(record)
        if len(line) < MAX_LINE:
            return line
    record["detail"] = {_CUT: f"a detail of more than {MAX_LINE} bytes"}
    return encode(record)  # at most 5 KiB: every other field is capped


def shaped(detail: Mapping[str, Any], redact: Redaction) -> dict[str, Any]:
    """A detail as a record would hold it: redacted, printable, bounded, canonical."""
    for chars, members in _CAPS:
        value = _Shaper(redact, chars, members).shape(detail)
        if isinstance(value, dict) and len(encode(value)) < MAX_LINE:
            return value
    return {_CUT: f"a detail of more than {MAX_LINE} bytes"}


class _Shaper:
    """Turns any value into bounded, printable, canonical JSON."""

    __slots__ = ("chars", "left", "members", "redact")

    def __init__(self, redact: Redaction, chars: int, members: int) -> None:
        self.redact, self.chars, self.members, self.left = redact, chars, members, _NODES

    def shape(self, value: Any, depth: int = 0) -> Any:  # noqa: ANN401
        self.left -= 1
        if isinstance(value, str | bytes):
            return self.text(value, self.chars)
        if value is None or isinstance(value, bool | int | float):
            return self._number(value)
        if depth >= _DEPTH:
            return f"{_CUT} nested deeper than {_DEPTH}"
        if isinstance(value, Mapping):
            return self._mapping(value, depth)
        if isinstance(value, list | tuple | set | frozenset):
            return self._list(value, depth)
        raise RuntimeError(f"an audit detail cannot hold a {type(value).__name__}")

    def text(self, value: str | bytes, chars: int) -> str:
        return escape(self.redact(_text(value)), limit=chars)

    def _number(self, value: float | None) -> int | str | None:
        if isinstance(value, float):
            return repr(value)
        if value is None or abs(value) <= MAX_CANONICAL_INTEGER:
            return value
        # str() of an integer is quadratic and refuses 4,300 digits; hexadecimal is neither.
        return self.text(str(value) if value.bit_length() <= 256 else hex(value), self.chars)

    def _mapping(self, value: Mapping[Any, Any], depth: int) -> dict[str, Any]:
        shaped: dict[str, Any] = {}
        for key, item in value.items():
            if len(shaped) >= self.members or self.left <= 0:
                shaped[_CUT] = f"{len(value) - len(shaped)} more members"
                break
            name = self.text(key if isinstance(key, str | bytes) else repr(key), _KEY_CHARS)
            if name in shaped:  # two keys that differ only in what was cut or redacted
                name = f"{name}~{len(shaped)}"
            shaped[name] = self.shape(item, depth + 1)
        return shaped

    def _list(self, value: Iterable[Any], depth: int) -> list[Any]:
        items = sorted(value, key=repr) if isinstance(value, set | frozenset) else list(value)
        shaped: list[Any] = []
        for item in items:
            if len(shaped) >= self.members or self.left <= 0:
                shaped.append(f"{_CUT} {len(items) - len(shaped)} more items")
                break
            shaped.append(self.shape(item, depth + 1))
        return shaped


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode("utf-8", "surrogateescape")


def _now() -> str:
    """UTC as RFC 3339 with microseconds; fixed width, so that text order is time order."""
    seconds, rest = divmod(time.time_ns(), 1_000_000_000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{rest // 1000:06d}Z"
