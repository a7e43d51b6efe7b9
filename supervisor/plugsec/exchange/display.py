"""Text from strangers, made safe to show on a terminal, in a log line or in a message.

A plugin that controls a terminal can rewrite the lines above it, set the window's title, fill the
clipboard (OSC 52) or make a path read backwards (CVE-2021-42574). So whatever came from a bundle, a
plugin or a file name passes through `escape` before a person sees it. What is *stored* or handed to a
caller is never altered here: sanitising is for display only (docs: "validate and reject").

The result holds no newline, so one piece of hostile text cannot become two log lines.
"""

DEFAULT_LIMIT = 2048
"""Characters shown of one piece of text: a screenful. More would push what *we* say out of view."""

_MARKER_ROOM = 32
"""Room kept for the note that says how much was left out: `...[N more]` with N of up to 20 digits."""

# `str.isprintable` refuses every control, format, surrogate, private, unassigned and separator
# character. These separators are ordinary in French and in East Asian text and occupy visible space.
_ORDINARY_SPACES = frozenset("\u00a0\u202f\u3000")

# Printable to Unicode, invisible or blank to people: a place to hide text. U+FE0E/FE0F (which only
# choose between text and emoji forms) stay.
_INVISIBLE = (
    frozenset("\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u2800\u3164\uffa0")
    | frozenset(map(chr, range(0xFE00, 0xFE0E)))
    | frozenset(map(chr, range(0xE0100, 0xE01F0)))
)

_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def _visible(character: str) -> str:
    code = ord(character)
    if character in _SHORT:
        return _SHORT[character]
    if 0xDC80 <= code <= 0xDCFF:  # an undecodable byte, by Python's own convention for file names
        code -= 0xDC00
        return f"\\x{code:02x}"
    if code < 0x80:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _safe(character: str) -> bool:
    return (character.isprintable() and character not in _INVISIBLE) or character in _ORDINARY_SPACES


def escape(text: str | bytes, *, limit: int = DEFAULT_LIMIT) -> str:
    r"""Return `text` as one printable line of at most `limit` characters.

    Controls (C0, DEL, C1, so every ANSI and OSC sequence), newlines, bidirectional and other format
    characters, invisible fillers and lone surrogates become visible escapes (`\x1b`, `\n`, `\u202e`);
    bytes that are not UTF-8 become `\xNN`. What exceeds `limit` is replaced by `...[N more]`, N being
    the characters (or, for bytes, the bytes) not shown; an escape is never cut in two.

    A backslash stays as it is, so that escaping twice changes nothing: text passes several hands on its
    way to a person, and `\\n` would help nobody. Work is bounded by `limit`, not by the text's length.
    """
    if limit < 2 * _MARKER_ROOM:
        raise RuntimeError(f"escape() needs a limit of at least {2 * _MARKER_ROOM} characters")
    if isinstance(text, bytes):
        # Four bytes are the most that one character takes, so this slice holds more than `limit`
        # characters or the whole text; a character that it cuts in two is never reached below.
        head = text[: 4 * limit + 4].decode("utf-8", "surrogateescape")
    else:
        head = text[: limit + 1]
    if len(head) <= limit and head.isascii() and head.isprintable():
        return head
    shown: list[str] = []
    length = 0
    kept = 0  # pieces that still fit when the marker has to be added
    for character in head:
        piece = character if _safe(character) else _visible(character)
        length += len(piece)
        if length > limit:
            left = len(text) - _size(head[:kept], text)
            return "".join(shown[:kept]) + f"...[{left} more]"
        shown.append(piece)
        if length <= limit - _MARKER_ROOM:
            kept = len(shown)
    return "".join(shown)


def _size(shown: str, text: str | bytes) -> int:
    """How much of `text` the decoded prefix `shown` stands for: characters of a str, bytes of bytes."""
    return len(shown) if isinstance(text, str) else len(shown.encode("utf-8", "surrogateescape"))


def escape_lines(data: bytes, *, max_lines: int, limit: int = DEFAULT_LIMIT) -> list[str]:
    """Return captured output as escaped lines, at most `max_lines` of them, the rest counted.

    Only `\\n` (with a preceding `\\r`, as programs for Windows write it) ends a line; every other
    "line separator" is an attempt to confuse and is escaped.
    """
    pieces = data.split(b"\n", max_lines)
    rest = pieces.pop() if len(pieces) > max_lines else b""
    if pieces and not pieces[-1]:
        pieces.pop()
    lines = [escape(piece.removesuffix(b"\r"), limit=limit) for piece in pieces]
    if rest:
        more = rest.count(b"\n") + (not rest.endswith(b"\n"))
        lines.append(f"...[{more} more lines]")
    return lines
