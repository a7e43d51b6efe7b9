"""Limits: sizes and numbers as people write them, bad ones refused, the minimum of several."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugsec_policies.errors import LimitArgumentInvalid, LimitInvalid, PolicyError
from plugsec_policies.limits import (
    LIMIT_WORDS,
    Limits,
    format_limit,
    minimum,
    parse_limit,
    parse_limit_argument,
    parse_limits,
    word_of,
)

_ALL = st.builds(Limits, *[st.integers(1, 20)] * len(Limits._fields))
_SOME = st.dictionaries(st.sampled_from(Limits._fields), st.integers(1, 20))


@pytest.mark.parametrize(
    ("text", "number"),
    [("1", 1), ("1K", 1024), ("128M", 134217728), ("2G", 2147483648), ("1T", 1099511627776)],
)
def test_a_size_is_read_in_powers_of_1024(text, number):
    assert parse_limits({"memory": text}) == {"memory_bytes": number}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[
            (name, value)
            for name in LIMIT_WORDS
            for value in (
                0,
                -1,
                2**63,
                2**64,
                math.nan,
                math.inf,
                1.5,
                True,
                None,
                [],
                {},
                "",
                "-1",
                "1.5",
                "nan",
            )
        ],
        ("memory", "128MB"),
        ("memory", "128m"),
        ("memory", "128 M"),
        ("memory", "M"),
        ("memory", "0"),
        ("memory", "0M"),
        ("memory", "9007199254740992"),
        ("memory", "99999999T"),
        ("memory", "1" * 5000),
        ("memory", "１"),
        ("wall_ms", "5000"),
        ("wall_ms", 2**31),
        ("processes", "4"),
        ("processes", 4_194_305),
        ("open_files", 2**21),
        ("memry", 1),
        ("", 1),
        (None, 1),
        (("memory",), 1),
        ("MEMORY", 1),
    ],
    ids=lambda each: str(each)[:20],
)
def test_a_bad_limit_is_refused(name, value):
    with pytest.raises(LimitInvalid) as refused:
        parse_limit(name, value)
    assert refused.value.hint


def test_one_limit_under_both_of_its_names_is_refused():
    with pytest.raises(LimitInvalid, match="twice"):
        parse_limits({"memory": 1, "memory_bytes": 2})


def test_a_missing_limit_is_named_when_all_are_wanted():
    with pytest.raises(LimitInvalid, match="cpu_ms is missing"):
        parse_limits({"wall_ms": 1}, partial=False)


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("wall_ms=5000", ("wall_ms", 5000)),
        ("memory=128M", ("memory_bytes", 134217728)),
        ("memory=4096", ("memory_bytes", 4096)),
    ],
)
def test_the_command_line_gives_a_limit_as_name_and_value(text, limit):
    assert parse_limit_argument(text) == limit


@pytest.mark.parametrize(
    "text",
    [
        "",
        "wall_ms",
        "wall_ms=",
        "wall_ms=fast",
        "wall=5",
        "=5",
        "wall_ms=-5",
        "wall_ms=5=6",
        "memory=1e9",
        "wall_ms=٥",
        "wall_ms=" + "9" * 5000,
    ],
)
def test_a_bad_limit_on_the_command_line_is_a_usage_error(text):
    with pytest.raises(LimitArgumentInvalid) as refused:
        parse_limit_argument(text)
    assert refused.value.code == 2


@given(_ALL, _ALL)
def test_the_minimum_is_commutative_and_below_both(a, b):
    assert minimum(a, b) == minimum(b, a)
    assert all(low <= x and low <= y for low, x, y in zip(minimum(a, b), a, b, strict=True))


@given(_ALL, _SOME, _SOME)
def test_the_minimum_is_idempotent_and_does_not_mind_the_order(a, some, more):
    assert minimum(minimum(a, some), some) == minimum(a, some)
    assert minimum(minimum(a, some), more) == minimum(minimum(a, more), some)


@given(_SOME)
def test_limits_read_what_they_have_become(some):
    assert parse_limits(some) == some


@given(st.sampled_from(Limits._fields), st.integers(1, 2**20))
def test_a_limit_written_as_a_line_reads_back(field, number):
    import tomllib

    assert parse_limits(tomllib.loads(format_limit(field, number))) == {field: number}
    assert word_of(field) in LIMIT_WORDS


@given(
    st.dictionaries(
        st.sampled_from([*LIMIT_WORDS, "x"]) | st.text(max_size=5),
        st.integers() | st.floats() | st.text() | st.none() | st.booleans(),
    )
)
def test_whatever_is_written_is_read_or_refused(mapping):
    try:
        assert all(number > 0 for number in parse_limits(mapping).values())
    except PolicyError:
        pass
