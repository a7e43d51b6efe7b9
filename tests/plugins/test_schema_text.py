"""Red team, second pass, 12: what a schema's patterns may cost is bounded before the library begins.

The library cannot be interrupted, so the bound is counted in bytes of text times compiled size, never in time.
"""

import contextlib

import jsonschema_rs
import pytest

from plugsec_plugins.errors import SchemaRefused, SchemaViolation
from plugsec_plugins.schema import check_schema, compile_schema, full, patterns
from plugsec_plugins.schema.check import PATTERN_OWN, PATTERNS_TEXT_MAX, UNEVALUATED_FACTOR, scan

THRASHING = "[ab]*a[ab]{%d}[^ab]"
EMAIL = (
    r"^[a-zA-Z0-9.!#$%&'*+/=?^_`{|}~-]+@[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?"
    r"(?:\.[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?)*$"
)
SEMVER = (
    r"^(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(?:-((?:0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*)"
    r"(?:\.(?:0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*))*))?(?:\+([0-9a-zA-Z-]+(?:\.[0-9a-zA-Z-]+)*))?$"
)


def weight(schema):
    """KiB of compiled patterns that a byte may meet."""
    check_schema(schema)
    return scan(schema, patterns.weigh).weight


def many(count, states=300):
    """As the red team wrote it: each pattern follows all its states for each letter of a text."""
    return [{"not": {"pattern": THRASHING % (states + n)}} for n in range(count)]


HOSTILE = {
    "a pattern": ({"not": {"pattern": THRASHING % 1000}}, "ab" * 500_000),
    "patterns that add up": ({"type": "string", "allOf": many(8)}, "ab" * 100_000),
    "letters of two bytes": ({"allOf": many(8)}, "é" * 60_000),
    "many short texts": ({"items": {"allOf": many(8)}}, ["ab" * 10] * 10_000),
    "names of members": ({"propertyNames": {"allOf": many(8)}}, {"ab" * 100_000: 1}),
    "names that patterns choose": (
        {"patternProperties": {THRASHING % (300 + n): {} for n in range(8)}},
        {"ab" * 100_000: 1},
    ),
    "by reference": (
        {"allOf": [{"$ref": "#/$defs/p"}] * 200, "$defs": {"p": {"not": {"pattern": THRASHING % 300}}}},
        "ab" * 5_000,
    ),
    "looked at again and again": (
        {"allOf": [{"allOf": many(2), "unevaluatedProperties": {}}], "unevaluatedItems": {}},
        "ab" * 50_000,
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_text_that_would_hold_the_supervisor_is_refused_before_the_library_sees_it(name, monkeypatch):
    schema, value = HOSTILE[name]
    built = jsonschema_rs.Draft202012Validator
    asked = []

    class Watched:
        def __init__(self, *args, **named):
            self._real = built(*args, **named)

        def is_valid(self, given):
            asked.append(given)
            return self._real.is_valid(given)

        def iter_errors(self, given):
            asked.append(given)
            return iter(())

    monkeypatch.setattr(jsonschema_rs, "Draft202012Validator", Watched)
    with pytest.raises(SchemaViolation, match="too much text for the patterns") as refused:
        compile_schema(schema).check(value)
    assert refused.value.code == 5
    assert asked == []
    with contextlib.suppress(SchemaViolation):
        compile_schema(schema).check({} if isinstance(value, dict) else [])
    assert asked != []


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        (EMAIL, "somebody@example.org"),
        (SEMVER, "1.20.3-rc.1+build.7"),
        (r"^[^@\s]+@[^@\s]+\.[^@\s]+$", "jemand@beispiel.example"),
        (r"^sha256:[0-9a-f]{64}$", "sha256:" + "0f" * 32),
        (r"^\w+$", "word_1"),
    ],
)
def test_a_megabyte_of_honest_texts_is_checked(pattern, text):
    count = 1_000_000 // len(text)
    texts = compile_schema({"items": {"type": "string", "pattern": pattern}})
    texts.check([text] * count)
    with pytest.raises(SchemaViolation, match="does not match"):
        texts.check([text] * (count // 5) + ["\n"])


def test_a_large_pattern_still_checks_what_is_as_short_as_it_says():
    arn = compile_schema({"items": {"pattern": r"^arn:aws:[a-z]+:[a-z0-9-]*:\d{12}:[\w+=,.@/-]{1,512}$"}})
    arn.check(["arn:aws:iam::123456789012:role/reader"] * 1000)


def test_every_weight_is_at_least_the_compiled_size():
    for pattern in (EMAIL, SEMVER, THRASHING % 500, r"\pL", "a"):
        size = patterns.weigh([pattern])[pattern]
        jsonschema_rs.Draft202012Validator(
            {"pattern": pattern}, pattern_options=patterns.options(size * 1024)
        )
        assert weight({"pattern": pattern}) == size


def test_weights_add_up_where_one_text_meets_several_patterns_and_not_elsewhere():
    one = weight({"pattern": SEMVER})
    assert weight({"properties": {"a": {"pattern": SEMVER}, "b": {"pattern": SEMVER}}}) == one
    assert weight({"anyOf": [{"pattern": SEMVER}, {"pattern": SEMVER}]}) == 2 * one
    assert weight({"allOf": [{"items": {"pattern": SEMVER}}], "items": {"pattern": SEMVER}}) == 2 * one
    assert weight({"patternProperties": {SEMVER: {"pattern": SEMVER}}}) == 2 * one
    assert weight({"format": "email", "pattern": SEMVER}) == one + 1
    assert weight({"pattern": SEMVER, "unevaluatedItems": False}) == UNEVALUATED_FACTOR * one


def test_alternatives_that_are_gone_through_again_to_find_a_fault_are_only_where_that_is_cheap():
    schema = {"pattern": SEMVER}
    for _ in range(20):
        schema = {"anyOf": [schema]}
    nested = compile_schema({"items": schema})
    with pytest.raises(SchemaViolation, match="not valid under") as refused:
        nested.check(["1.0.0"] * 10 + ["x"])
    assert refused.value.pointer == "/10"
    with pytest.raises(SchemaViolation, match="too large to find out where"):
        nested.check(["1.0.0"] * 40_000 + ["x" * 100_000])


def test_unevaluated_members_inside_one_another_multiply_and_are_refused():
    schema = {"properties": {"a": {}}}
    for _ in range(30):
        schema = {"allOf": [schema], "unevaluatedProperties": False}
    with pytest.raises(SchemaRefused, match="cost too much"):
        compile_schema(schema)
    two = {"allOf": [{"allOf": [{"properties": {"a": {}}}], "unevaluatedProperties": False}]}
    compile_schema({**two, "unevaluatedProperties": False}).check({"a": 1})


def test_more_patterns_than_can_be_parsed_soon_are_refused():
    count = PATTERNS_TEXT_MAX // (4 + PATTERN_OWN)
    check_schema({"anyOf": [{"pattern": f"{n:04}"} for n in range(count)]})
    for schema in (
        {"anyOf": [{"pattern": f"{n:04}"} for n in range(count + 1)]},
        {"patternProperties": {f"{n:04}": {} for n in range(count + 1)}},
        {"items": {"anyOf": [{"pattern": r"(?i)\pL" * 140}] * 20}},
    ):
        with pytest.raises(SchemaRefused, match="more than 8192 characters"):
            compile_schema(schema)


def test_patterns_that_are_large_together_are_refused():
    with pytest.raises(SchemaRefused, match="1024 KiB when compiled"):
        compile_schema({"anyOf": [{"pattern": "[^a-c]{30}"} for _ in range(100)]})


def test_the_bounds_leave_about_five_seconds():
    """270 ns for each KiB and byte is the worst that was measured; whoever raises a bound measures again."""
    assert full.SCAN_MAX * 270e-9 <= 5
    assert patterns.REGEX_BYTES_MAX <= 128 * 1024
