"""Whatever a caller puts into a record, one canonical, printable, bounded line comes of it."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plugsec.audit.record import MAX_LINE, build, redaction_of
from plugsec_signing.canonical import decode_canonical

ANY_TEXT = st.text(st.characters())
DETAILS = st.dictionaries(
    ANY_TEXT,
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | ANY_TEXT | st.binary(),
        lambda inner: (
            st.lists(inner)
            | st.dictionaries(ANY_TEXT, inner)
            | st.tuples(inner, inner)
            | st.frozensets(st.integers() | ANY_TEXT)
        ),
        max_leaves=30,
    ),
)


def line_of(detail, *, redact=str, **optional):
    return build(
        seq=3,
        prev=b"p" * 32,
        event="denial",
        session="s",
        boot_id="b",
        optional=optional,
        detail=detail,
        redact=redact,
    )


def record_of(detail, **more):
    line = line_of(detail, **more)
    assert len(line) < MAX_LINE
    assert b"\n" not in line
    assert line.decode().isprintable() or any(space in line.decode() for space in "\u00a0\u202f\u3000")
    return decode_canonical(line)


@settings(max_examples=300, deadline=None)
@given(DETAILS, ANY_TEXT, ANY_TEXT)
def test_any_detail_makes_a_line(detail, run, decision):
    record = record_of(detail, run=run, decision=decision)
    assert (record["seq"], record["event"]) == (3, "denial")


@settings(deadline=None)
@given(
    DETAILS,
    st.lists(st.text(min_size=1, max_size=8) | st.binary(min_size=1, max_size=8), min_size=1, max_size=4),
)
def test_no_secret_survives_in_any_position(detail, secrets):
    redact = redaction_of(secrets)
    text = "".join(
        secret if isinstance(secret, str) else secret.decode("utf-8", "surrogateescape") for secret in secrets
    )
    assert not any(
        secret in redact(text).replace("[redacted]", "\0")
        for secret in secrets
        if isinstance(secret, str) and "\0" not in secret
    )
    record_of({**detail, "secret": text}, redact=redact)


TABLE = [
    ("an integer that canonical JSON holds stays one", 2**53 - 1, 2**53 - 1),
    ("a larger one becomes its decimal text", 2**53, "9007199254740992"),
    ("a negative one too", -(2**63), "-9223372036854775808"),
    ("a fraction becomes text", 0.1, "0.1"),
    ("not-a-number becomes text", float("nan"), "nan"),
    ("infinity becomes text", float("-inf"), "-inf"),
    ("truth stays truth", True, True),
    ("nothing stays nothing", None, None),
    ("a lone surrogate is shown", "a\ud800b", "a\\ud800b"),
    ("bytes are shown as text", b"\x00\xff", "\\x00\\xff"),
    ("a tuple is a list", (1, "a"), [1, "a"]),
    ("a set is a sorted list", {"b", "a"}, ["a", "b"]),
    ("keys become text", {1: 2, b"k": 3}, {"1": 2, "k": 3}),
]


@pytest.mark.parametrize(("value", "stored"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
def test_values(value, stored):
    assert record_of({"v": value})["detail"]["v"] == stored


def test_an_integer_of_five_thousand_digits_costs_nothing():
    assert record_of({"v": 10**5000})["detail"]["v"].startswith("0x")


def test_long_text_is_cut_with_a_note_of_how_much():
    assert record_of({"v": "x" * 10_000})["detail"]["v"].endswith("...[5936 more]")


def test_many_members_are_cut_with_a_note_of_how_many():
    detail = record_of({"list": list(range(1000)), "map": {str(n): n for n in range(1000)}})["detail"]
    assert detail["list"][-1] == "[truncated] 744 more items"
    assert detail["map"]["[truncated]"] == "744 more members"


def test_deep_nesting_is_cut():
    value = "bottom"
    for _ in range(10_000):
        value = [value]
    assert "[truncated] nested deeper than 8" in str(record_of({"v": value})["detail"])


def test_a_detail_beyond_64_kib_is_cut_until_it_fits():
    record = record_of({f"k{n}": "\U0001f600" * 4000 for n in range(200)})
    assert "more" in str(record["detail"])


def test_a_detail_that_never_fits_is_named():
    wide = {str(a): {str(b): {str(c): "x" * 128 for c in range(16)} for b in range(16)} for a in range(16)}
    assert record_of(wide)["detail"]
    assert record_of({"\U0001f600" * 60 + str(n): wide for n in range(16)})["detail"]


def test_keys_that_become_equal_do_not_swallow_each_other():
    detail = record_of({"k" * 300 + "a": 1, "k" * 300 + "b": 2})["detail"]
    assert sorted(detail.values()) == [1, 2]


def test_a_secret_within_a_secret_leaves_nothing_of_either():
    redact = redaction_of(["pass", "password1", "1pass"])
    assert redact("password1 1pass pass") == "[redacted] [redacted] [redacted]"


def test_a_secret_is_gone_before_text_is_cut():
    detail = record_of({"v": "x" * 4060 + "topsecret" + "y" * 100}, redact=redaction_of(["topsecret"]))[
        "detail"
    ]
    assert "top" not in detail["v"]


def test_what_json_cannot_say_is_our_own_mistake():
    with pytest.raises(RuntimeError, match="cannot hold"):
        line_of({"v": object()})
