"""Two validators, one meaning: ours and jsonschema-rs agree on the closed keyword set, on every value."""

import jsonschema_rs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from plugsec_plugins.errors import SchemaViolation
from plugsec_plugins.schema import compile_schema, full, is_simple, small
from plugsec_plugins.schema.check import check_schema, format_pointer

_NUMBERS = st.integers(-5, 5) | st.sampled_from(
    [
        0.0,
        -0.0,
        1.0,
        1.5,
        -2.5,
        2**53,
        2**53 + 1,
        float(2**53),
        2**63 - 1,
        -(2**63) + 1,
        1e300,
        -1e300,
        1e-300,
        0.1,
        1e16,
    ]
)
_TEXTS = st.text(alphabet="aé😀\x00", max_size=4)
_SCALARS = st.none() | st.booleans() | _NUMBERS | _TEXTS
VALUES = st.recursive(
    _SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["a", "b", "c", "a/b", "~"]), inner, max_size=3)
    ),
    max_leaves=8,
)

_TYPE = st.sampled_from(["array", "boolean", "integer", "null", "number", "object", "string"])
_COUNT = st.integers(0, 3)
_KEYWORDS = {
    "type": _TYPE | st.lists(_TYPE, min_size=1, max_size=3, unique=True),
    "required": st.lists(st.sampled_from(["a", "b", "a/b"]), max_size=2, unique=True),
    "enum": st.lists(VALUES, min_size=1, max_size=3),
    "const": VALUES,
    "minimum": _NUMBERS,
    "maximum": _NUMBERS,
    "exclusiveMinimum": _NUMBERS,
    "exclusiveMaximum": _NUMBERS,
    "minLength": _COUNT,
    "maxLength": _COUNT,
    "minItems": _COUNT,
    "maxItems": _COUNT,
    "minProperties": _COUNT,
    "maxProperties": _COUNT,
    "title": _TEXTS,
}


def _with_members(inner):
    return st.fixed_dictionaries(
        {},
        optional={
            **_KEYWORDS,
            "properties": st.dictionaries(st.sampled_from(["a", "b", "a/b"]), inner, max_size=3),
            "additionalProperties": inner,
            "items": inner,
        },
    )


SCHEMAS = st.recursive(
    st.booleans() | st.fixed_dictionaries({}, optional=_KEYWORDS), _with_members, max_leaves=6
)


def verdict(check, value):
    try:
        check(value)
    except small.Fault as fault:
        return format_pointer(small.path_of(fault))
    return None


@settings(max_examples=1000, suppress_health_check=[HealthCheck.too_slow])
@given(SCHEMAS, VALUES)
def test_both_validators_agree_on_the_closed_set(schema, value):
    cost = check_schema(schema)
    assert is_simple(schema)
    ours, theirs = verdict(small.build(schema), value), verdict(full.build(schema, cost), value)
    assert (ours is None) == (theirs is None)


@settings(max_examples=500, suppress_health_check=[HealthCheck.too_slow])
@given(SCHEMAS, VALUES)
def test_where_we_find_a_fault_the_library_finds_one_too(schema, value):
    ours = verdict(small.build(schema), value)
    if ours is None:
        return
    library = jsonschema_rs.Draft202012Validator(schema)
    theirs = {format_pointer(tuple(error.instance_path)) for error in library.iter_errors(value)}
    # A field that must not be there is told at the field by us, and at its object by the library.
    assert ours in theirs or ours.rpartition("/")[0] in theirs


TRAPS = [
    ({"type": "integer"}, 1.0, True),
    ({"type": "integer"}, 1.5, False),
    ({"type": "integer"}, True, False),
    ({"type": "number"}, False, False),
    ({"const": 1}, 1.0, True),
    ({"const": 1}, True, False),
    ({"const": 0}, False, False),
    ({"const": False}, 0, False),
    ({"const": "1"}, 1, False),
    ({"const": None}, None, True),
    ({"const": None}, False, False),
    ({"enum": [[1, {"a": 2}]]}, [1.0, {"a": 2.0}], True),
    ({"enum": [{"a": 1, "b": 2}]}, {"b": 2, "a": 1}, True),
    ({"enum": [[]]}, {}, False),
    ({"const": 2**53 + 1}, float(2**53), False),
    ({"minimum": 2**53 + 1}, 2**53, False),
    ({"maxLength": 1}, "😀", True),
    ({"minLength": 2}, "é", False),
    ({"maxLength": 1}, "e\u0301", False),
    ({"maxLength": 0}, [1], True),
    ({"required": ["a"]}, [], True),
    ({"required": ["a"]}, {"a": None}, True),
    ({"properties": {"a": False}}, {"a": 1}, False),
    ({"properties": {"a": False}}, {}, True),
    ({"additionalProperties": False}, {"a": 1}, False),
    ({"items": False}, [], True),
    ({"items": False}, [1], False),
    ({"items": {"type": "string"}}, {"0": 1}, True),
    ({"minimum": 5}, "a", True),
    ({"exclusiveMaximum": 5}, 5.0, False),
    (False, None, False),
    (True, None, True),
]


@pytest.mark.parametrize(("schema", "value", "ok"), TRAPS)
def test_the_traps_of_the_specification(schema, value, ok):
    for check in (small.build(schema), full.build(schema, 1)):
        assert (verdict(check, value) is None) == ok


POINTERS = [
    ({"required": ["a"]}, {}, ""),
    ({"properties": {"a": {"items": {"type": "string"}}}}, {"a": ["x", 1]}, "/a/1"),
    ({"properties": {"a/b": {"properties": {"~": {"maxLength": 1}}}}}, {"a/b": {"~": "xx"}}, "/a~1b/~0"),
    ({"additionalProperties": {"items": {"minimum": 3}}}, {"x": [5, 4, 2]}, "/x/2"),
    ({"properties": {"a": {"pattern": "^x"}}}, {"a": "y"}, "/a"),
    ({"items": {"anyOf": [{"type": "string"}, {"type": "null"}]}}, ["a", None, 5], "/2"),
]


@pytest.mark.parametrize(("schema", "value", "pointer"), POINTERS)
def test_a_fault_is_told_with_its_pointer(schema, value, pointer):
    with pytest.raises(SchemaViolation) as refused:
        compile_schema(schema).check(value, "the input")
    assert refused.value.pointer == pointer
    assert refused.value.message.startswith(
        f"the input breaks the plugin's schema at {pointer or 'its root'}: "
    )
    assert refused.value.code == 5


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "integer"},
        {"const": 1},
        {"enum": ["a"]},
        {"maxLength": 1},
        {"pattern": "^b"},
        {"maxProperties": 0},
        {"minimum": 5},
    ],
)
def test_a_message_stays_short_whatever_the_value(schema):
    for value in ("a" * 100_000, {"k" * 50_000: 1}, ["x" * 50_000], -(10**300), "\x1b[2J"):
        try:
            compile_schema(schema).check(value)
        except SchemaViolation as refused:
            assert len(refused.message) < 800


def test_a_value_too_large_for_many_branches_is_refused_and_not_tried():
    many = compile_schema({"items": {"anyOf": [{"const": str(n)} for n in range(1000)]}})
    many.check(["1"] * 100)
    with pytest.raises(SchemaViolation, match="so many branches"):
        many.check(["1"] * 1_000_000)


def test_a_pattern_that_would_backtrack_for_ever_elsewhere_ends():
    with pytest.raises(SchemaViolation):
        compile_schema({"pattern": "^(a+)+$"}).check("a" * 1_000_000 + "b")


def test_a_value_nested_beyond_all_depth_is_refused():
    deep: list = []
    for _ in range(100_000):
        deep = [deep]
    for schema in ({"const": 1}, {"enum": [[[]]]}):
        with pytest.raises(SchemaViolation):
            compile_schema(schema).check(deep)
    while deep:  # or freeing it would exhaust the stack of this interpreter
        deep = deep.pop()


def test_formats_are_asserted():
    schema = compile_schema({"format": "date-time"})
    schema.check("2026-01-01T00:00:00Z")
    with pytest.raises(SchemaViolation):
        schema.check("yesterday")


def test_one_validator_serves_many_values():
    validator = compile_schema({"properties": {"n": {"enum": list(range(5000))}}})
    for number in range(5000):
        validator.check({"n": number})
