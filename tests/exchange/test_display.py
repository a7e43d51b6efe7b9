"""What a stranger's text may do to the screen of a person: nothing."""

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plugsec.exchange.display import escape, escape_lines

TABLE = [
    ("plain words stay", "a b/c_d-é漢字 ✓", "a b/c_d-é漢字 ✓"),
    ("colours are shown, not obeyed", "\x1b[31mred\x1b[0m", "\\x1b[31mred\\x1b[0m"),
    ("the clipboard is not written (OSC 52)", "\x1b]52;c;ZXZpbA==\x07", "\\x1b]52;c;ZXZpbA==\\x07"),
    ("a C1 sequence introducer is shown", "\x9b2J", "\\u009b2J"),
    ("a carriage return hides nothing", "good\rbad", "good\\rbad"),
    ("a newline starts no second line", "ok\nseq 9 run.end ok", "ok\\nseq 9 run.end ok"),
    (
        "other line separators start none either",
        "a\u2028b\u2029c\x0bd\x0ce\x85f",
        "a\\u2028b\\u2029c\\x0bd\\x0ce\\u0085f",
    ),
    ("a bidirectional override reverses nothing", "a\u202egpj.exe", "a\\u202egpj.exe"),
    ("isolates too", "\u2066\u2069\u061c", "\\u2066\\u2069\\u061c"),
    ("zero-width characters are seen", "ad\u200bmin\ufeff", "ad\\u200bmin\\ufeff"),
    ("tag characters are seen", "\U000e0041", "\\U000e0041"),
    ("fillers are seen", "\u3164\u2800", "\\u3164\\u2800"),
    ("NUL and DEL are seen", "\0\x7f", "\\x00\\x7f"),
    ("a lone surrogate is seen", "\ud800", "\\ud800"),
    ("an undecodable byte of a file name is seen", "a\udcff", "a\\xff"),
    ("bytes are read as UTF-8", "é".encode(), "é"),
    ("bytes that are not UTF-8 are seen", b"a\xffb\xc3", "a\\xffb\\xc3"),
    ("an overlong encoding is not a slash", b"\xc0\xaf", "\\xc0\\xaf"),
    ("no-break space is ordinary text", "1\u00a0000", "1\u00a0000"),
    ("empty stays empty", "", ""),
]


@pytest.mark.parametrize(("text", "shown"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
def test_display(text, shown):
    assert escape(text) == shown


TEXTS = st.one_of(st.text(st.characters(), max_size=300), st.binary(max_size=300))


@settings(deadline=None)
@given(TEXTS, st.integers(64, 400))
def test_whatever_comes_in_one_bounded_printable_line_comes_out(text, limit):
    shown = escape(text, limit=limit)
    assert len(shown) <= limit
    assert len(shown.splitlines()) <= 1
    for character in shown:
        assert unicodedata.category(character) not in {"Cc", "Cf", "Cs", "Zl", "Zp", "Cn", "Co"}
    shown.encode("utf-8")


@settings(deadline=None)
@given(TEXTS, st.integers(64, 400))
def test_escaping_twice_changes_nothing(text, limit):
    once = escape(text, limit=limit)
    assert escape(once, limit=limit) == once


@settings(deadline=None)
@given(st.text(st.characters(codec="utf-8"), max_size=300))
def test_bytes_and_text_of_the_same_content_look_the_same(text):
    assert escape(text.encode(), limit=4096) == escape(text, limit=4096)


def test_what_was_left_out_is_counted():
    assert escape("a" * 100, limit=64) == "a" * 32 + "...[68 more]"
    assert escape("é".encode() * 100, limit=64) == "é" * 32 + "...[136 more]"
    assert escape("\x1b" * 100, limit=64) == "\\x1b" * 8 + "...[92 more]"
    assert escape(b"\xff" * 100, limit=64) == "\\xff" * 8 + "...[92 more]"


def test_text_of_exactly_the_limit_is_whole():
    assert escape("a" * 64, limit=64) == "a" * 64


def test_a_gigantic_text_costs_only_its_beginning():
    assert escape(b"x" * (64 << 20), limit=64).endswith("...[67108832 more]")


def test_a_limit_too_small_to_say_anything_is_our_own_mistake():
    with pytest.raises(RuntimeError):
        escape("x", limit=10)


def test_captured_output_becomes_bounded_lines():
    assert escape_lines(b"one\r\ntwo\x1b[0m\nthree", max_lines=9) == ["one", "two\\x1b[0m", "three"]
    assert escape_lines(b"", max_lines=3) == []
    assert escape_lines(b"\n\na", max_lines=9) == ["", "", "a"]
    assert escape_lines(b"a\nb\nc\nd\n", max_lines=2) == ["a", "b", "...[2 more lines]"]
    assert escape_lines(b"a\nb\n", max_lines=2) == ["a", "b"]
