"""The decoder refuses what parsers disagree about; one document has one canonical spelling."""

import contextlib
import json
import os

import pytest
import rfc8785
import signing_kit as kit
from hypothesis import given, settings
from hypothesis import strategies as st

from plugsec_signing import canonical
from plugsec_signing.errors import JsonError, SigningError

BAD_TEXTS = {
    "empty": (b"", "PLG-JSN-003"),
    "two values": (b"1 2", "PLG-JSN-003"),
    "trailing comma": (b"[1,]", "PLG-JSN-003"),
    "single quotes": (b"{'a':1}", "PLG-JSN-003"),
    "comment": (b"[1/*x*/]", "PLG-JSN-003"),
    "leading zero": (b"[01]", "PLG-JSN-003"),
    "raw newline in a string": (b'["\n"]', "PLG-JSN-003"),
    "raw NUL in a string": (b'["\x00"]', "PLG-JSN-003"),
    "unclosed string": (b'["[[[[', "PLG-JSN-003"),
    "BOM": (b"\xef\xbb\xbf{}", "PLG-JSN-002"),
    "UTF-16": ("{}".encode("utf-16"), "PLG-JSN-002"),
    "latin-1": (b'["\xe9"]', "PLG-JSN-002"),
    "overlong UTF-8": (b'["\xc0\xaf"]', "PLG-JSN-002"),
    "surrogate as UTF-8": (b'["\xed\xa0\x80"]', "PLG-JSN-002"),
    "duplicate key": (b'{"a":1,"a":2}', "PLG-JSN-005"),
    "duplicate key, spelt differently": (b'{"a":1,"\\u0061":2}', "PLG-JSN-005"),
    "duplicate key deep inside": (b'[{"x":{"b":1,"b":1}}]', "PLG-JSN-005"),
    "NaN": (b"[NaN]", "PLG-JSN-006"),
    "Infinity": (b"[Infinity]", "PLG-JSN-006"),
    "-Infinity": (b"[-Infinity]", "PLG-JSN-006"),
    "1e400": (b"[1e400]", "PLG-JSN-006"),
    "-1e400": (b"[-1e400]", "PLG-JSN-006"),
    "2^63": (b"[9223372036854775808]", "PLG-JSN-006"),
    "-2^63": (b"[-9223372036854775808]", "PLG-JSN-006"),
    "5,000-digit integer": (b"[" + b"9" * 5000 + b"]", "PLG-JSN-006"),
    "5,000-digit fraction": (b"[0." + b"1" * 5000 + b"]", "PLG-JSN-006"),
    "lone high surrogate": (b'["\\ud800"]', "PLG-JSN-007"),
    "lone low surrogate, upper case": (b'["\\uDC00"]', "PLG-JSN-007"),
    "surrogates in the wrong order": (b'["\\udc00\\ud800"]', "PLG-JSN-007"),
    "lone surrogate as key": (b'{"\\ud800":1}', "PLG-JSN-007"),
    "65 deep": (b"[" * 65 + b"]" * 65, "PLG-JSN-004"),
    "65 deep, mixed": (b'{"a":[' * 32 + b"[1]" + b"]}" * 32, "PLG-JSN-004"),
    "nesting bomb": (b"[" * 1_000_000 + b"]" * 1_000_000, "PLG-JSN-004"),
    "unclosed nesting bomb": (b"[" * 1_000_000, "PLG-JSN-004"),
    "unclosed object bomb": (b'{"a":' * 100_000, "PLG-JSN-004"),
}


@pytest.mark.parametrize("name", BAD_TEXTS)
def test_text_that_parsers_disagree_about_is_refused(name):
    data, error_id = BAD_TEXTS[name]
    with pytest.raises(JsonError) as caught:
        canonical.decode(data)
    assert (caught.value.id, caught.value.code) == (error_id, 4)


@pytest.mark.parametrize(
    ("data", "value"),
    [
        (b' {\t"a" : [ 1 , null ]\r\n} ', {"a": [1, None]}),
        (b"[9223372036854775807,-9223372036854775807]", [2**63 - 1, -(2**63) + 1]),
        (b"[1.5e3]", [1500.0]),
        (b'"\\ud83d\\ude00"', "\U0001f600"),
        (b'"\\\\ud800"', "\\ud800"),
        (b"[" * 64 + b"]" * 64, None),
        (b'"' + b"[" * 5000 + b'\\"]{"', "[" * 5000 + '"]{'),
        (b"[[],[]," * 20 + b"[]" + b"]" * 20, None),
    ],
)
def test_honest_json_is_read(data, value):
    decoded = canonical.decode(data)
    assert value is None or decoded == value


def test_minus_zero_stays_what_it_is_or_is_refused():
    assert str(canonical.decode(b"-0")) == "-0.0"
    for text in (b"-0", b"-0.0", b"0e0", b"1.0"):
        with pytest.raises(JsonError, match="integer") as caught:
            canonical.decode(text, integers_only=True)
        assert caught.value.id == "PLG-JSN-006"


def test_the_cap_is_checked_before_anything_is_parsed():
    with pytest.raises(JsonError) as caught:
        canonical.decode(b"[" * 11, max_bytes=10)
    assert caught.value.id == "PLG-JSN-001"


@pytest.mark.parametrize(
    "data",
    [
        b'{"a": 1}',
        b'{"b":1,"a":2}',
        b'{"a":1}\n',
        b' {"a":1}',
        b'{"a":"\\u0062"}',
        b'{"a":"\\/"}',
        b'{"a":"\\u000A"}',
        b'{"a":"\\u000a"}',
        b'{"\\u20ac":1}',
        '{"\ue000":1,"\U0001f600":2}'.encode(),
    ],
)
def test_a_second_spelling_is_not_canonical(data):
    with pytest.raises(JsonError) as caught:
        canonical.decode_canonical(data)
    assert caught.value.id == "PLG-JSN-008"


def test_a_caller_that_allows_more_depth_than_the_interpreter_has_gets_a_refusal():
    with pytest.raises(JsonError) as caught:
        canonical.decode(b"[" * 200_000 + b"]" * 200_000, max_depth=1_000_000)
    assert caught.value.id == "PLG-JSN-004"


def test_canonical_documents_nest_at_most_32_deep():
    canonical.decode_canonical(b"[" * 32 + b"]" * 32)
    with pytest.raises(JsonError) as caught:
        canonical.decode_canonical(b"[" * 33 + b"]" * 33)
    assert caught.value.id == "PLG-JSN-004"


def test_canonical_integers_end_where_doubles_lose_them():
    assert canonical.decode_canonical(b"[9007199254740991]") == [2**53 - 1]
    with pytest.raises(JsonError) as caught:
        canonical.decode_canonical(b"[9007199254740992]")
    assert caught.value.id == "PLG-JSN-006"


@pytest.mark.parametrize("value", [1.0, 2**53, -(2**53), "\ud800", {"\udfff": 1}, {1: 2}, b"x", {"a": {1}}])
def test_values_without_canonical_form_are_refused(value):
    with pytest.raises(JsonError) as caught:
        canonical.encode(value)
    assert caught.value.id == "PLG-JSN-009"


def test_a_value_that_contains_itself_is_refused():
    value = []
    value.append(value)
    with pytest.raises(JsonError) as caught:
        canonical.encode(value)
    assert caught.value.id == "PLG-JSN-009"


def test_keys_are_sorted_by_utf16_units_as_rfc_8785_demands():
    keys = ["\ufb33", "\U0001f600", "\u20ac", "\r", "1", "\x80", "ö"]  # RFC 8785 §3.2.3
    encoded = canonical.encode(dict.fromkeys(keys, 0))
    assert list(json.loads(encoded)) == ["\r", "1", "\x80", "ö", "\u20ac", "\U0001f600", "\ufb33"]


TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=12)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=20,
)


@given(VALUES)
def test_our_encoding_is_that_of_an_independent_rfc_8785_library(value):
    encoded = canonical.encode(value)
    assert encoded == rfc8785.dumps(value)
    assert canonical.decode_canonical(encoded) == value


@given(st.binary(max_size=200) | st.text(max_size=100).map(lambda text: text.encode("utf-8", "replace")))
@settings(max_examples=500)
def test_any_bytes_are_decoded_or_refused_within_our_tree(data):
    for decode in (canonical.decode, canonical.decode_canonical):
        with contextlib.suppress(JsonError):
            decode(data)


@given(st.text(alphabet='{}[]",:\\u0dD8 truefalsn-1eE.9+', max_size=60))
@settings(max_examples=1000)
def test_what_we_accept_the_standard_library_reads_alike(text):
    try:
        value = canonical.decode(text.encode())
    except SigningError:
        return
    assert json.loads(text) == value


@given(VALUES, st.data())
def test_changing_one_byte_of_canonical_text_never_keeps_the_value(value, data):
    encoded = canonical.encode(value)
    at = data.draw(st.integers(0, len(encoded) - 1))
    changed = encoded[:at] + bytes([encoded[at] ^ data.draw(st.integers(1, 255))]) + encoded[at + 1 :]
    with contextlib.suppress(JsonError):
        assert canonical.decode_canonical(changed) != value or repr(
            canonical.decode_canonical(changed)
        ) != repr(value)


# The published suite: `y_` must be accepted unless a rule of ours is stricter, `n_` must be refused.
STRICTER = {
    "y_object_duplicated_key.json": "PLG-JSN-005",
    "y_object_duplicated_key_and_value.json": "PLG-JSN-005",
}
IMPLEMENTATION_DEFINED_ACCEPTED = {
    "i_number_double_huge_neg_exp.json",
    "i_number_real_underflow.json",
}


def test_the_published_json_suite_is_read_as_it_demands():
    folder = os.path.join(kit.vectors("json"), "test_parsing")
    wrong = []
    names = sorted(name for name in os.listdir(folder) if name.endswith(".json"))
    assert len(names) >= 300
    for name in names:
        with open(os.path.join(folder, name), "rb") as file:
            data = file.read()
        try:
            canonical.decode(data)
            verdict = "accepted"
        except JsonError as err:
            verdict = err.id
        expected_accepted = (
            name in IMPLEMENTATION_DEFINED_ACCEPTED
            if name[0] == "i"
            else name[0] == "y" and name not in STRICTER
        )
        if (verdict == "accepted") != expected_accepted or (name in STRICTER and verdict != STRICTER[name]):
            wrong.append((name, verdict))
    assert wrong == []
