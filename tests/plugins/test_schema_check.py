"""A stranger's schema: what is accepted, what is refused, and that refusing is always cheap."""

import contextlib
import json
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugsec_plugins.errors import SchemaRefused, SchemaViolation
from plugsec_plugins.schema import check_schema, compile_schema, is_simple
from plugsec_plugins.schema.check import DEPTH_MAX, EXPANDED_MAX, KEYWORDS, VALUES_MAX

GOOD_SIMPLE = [
    True,
    False,
    {},
    {"type": "string"},
    {"type": ["string", "null"]},
    {"enum": [1, "a", None, [1], {"a": 1}]},
    {"const": {"a": [1.5]}},
    {"properties": {"a": {"items": {"minimum": 1}}}, "required": ["a"]},
    {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "t",
        "description": "d",
        "default": 1,
    },
    {"additionalProperties": {"type": "integer"}},
    {"$defs": {"a": {"pattern": "x"}}},
    {"minLength": 0, "maxLength": 5},
    {"examples": [], "deprecated": True, "readOnly": False, "writeOnly": False, "$comment": ""},
]
GOOD_OTHERS = [
    {"pattern": "^[a-z]+$"},
    {"format": "date-time"},
    {"uniqueItems": True},
    {"multipleOf": 0.01},
    {"$ref": "#/$defs/a", "$defs": {"a": {"type": "string"}}},
    {"allOf": [{"minimum": 1}, {"maximum": 2}]},
    {"oneOf": [{"type": "string"}, {"type": "null"}]},
    {"not": {"type": "null"}},
    {"prefixItems": [{}, {}]},
    {"if": {"type": "string"}, "then": {"minLength": 1}, "else": False},
    {"contains": {"const": 1}, "minContains": 2},
    {"patternProperties": {"^x-": {"type": "string"}}},
    {"propertyNames": {"maxLength": 3}},
    {"dependentRequired": {"a": ["b"]}},
    {"dependentSchemas": {"a": {"required": ["b"]}}},
    {"allOf": [{"properties": {"a": {}}}], "unevaluatedProperties": False},
    {"unevaluatedItems": False},
    {"properties": {"a": {"$ref": "#/$defs/x~1y"}}, "$defs": {"x/y": {"type": "string"}}},
    {"items": {"$ref": "#/properties/a"}, "properties": {"a": {"type": "string"}}},
]


@pytest.mark.parametrize("schema", GOOD_SIMPLE, ids=lambda each: json.dumps(each)[:40])
def test_the_closed_set_is_accepted_and_needs_no_library(schema):
    assert check_schema(schema) == 1
    assert is_simple(schema)
    compile_schema(schema)


@pytest.mark.parametrize("schema", GOOD_OTHERS, ids=lambda each: json.dumps(each)[:40])
def test_the_rest_of_the_vocabulary_is_accepted(schema):
    assert check_schema(schema) >= 1
    assert not is_simple(schema)
    compile_schema(schema)


BAD = [
    (1, "", "an object, true or false"),
    (None, "", "an object"),
    ([], "", "an object"),
    ("string", "", "an object"),
    ({"typ": "string"}, "/typ", "did you mean type?"),
    ({"maxlength": 3}, "/maxlength", "did you mean maxLength?"),
    ({"type": "strin"}, "/type", "one or several of"),
    ({"type": []}, "/type", "one or several of"),
    ({"type": ["string", "string"]}, "/type", "one or several of"),
    ({"type": None}, "/type", "one or several of"),
    ({"required": "a"}, "/required", "different names"),
    ({"required": ["a", "a"]}, "/required", "different names"),
    ({"required": [1]}, "/required", "different names"),
    ({"enum": []}, "/enum", "at least one"),
    ({"enum": 1}, "/enum", "at least one"),
    ({"minimum": "1"}, "/minimum", "a number"),
    ({"minimum": True}, "/minimum", "a number"),
    ({"minLength": -1}, "/minLength", "whole number"),
    ({"minLength": 1.5}, "/minLength", "whole number"),
    ({"minItems": 2**63}, "/minItems", "whole number"),
    ({"multipleOf": 0}, "/multipleOf", "above 0"),
    ({"uniqueItems": 1}, "/uniqueItems", "true or false"),
    ({"pattern": 1}, "/pattern", "regular expression"),
    ({"pattern": "x" * 1025}, "/pattern", "1024"),
    ({"properties": []}, "/properties", "schemas by name"),
    ({"properties": {"a": 1}}, "/properties/a", "an object"),
    ({"properties": {"a/b~c": 1}}, "/properties/a~1b~0c", "an object"),
    ({"items": [{}]}, "/items", "an object"),
    ({"allOf": []}, "/allOf", "at least one schema"),
    ({"allOf": {}}, "/allOf", "at least one schema"),
    ({"anyOf": [{}, 5]}, "/anyOf/1", "an object"),
    ({"not": 1}, "/not", "an object"),
    ({"dependentRequired": {"a": "b"}}, "/dependentRequired", "names by name"),
    ({"$schema": "http://json-schema.org/draft-07/schema#"}, "/$schema", "2020-12"),
    ({"title": 1}, "/title", "text"),
    ({"patternProperties": {"x" * 1025: {}}}, "/patternProperties", "longer than"),
    *[
        ({keyword: {}}, f"/{keyword}", "not accepted")
        for keyword in (
            "$id",
            "$anchor",
            "$dynamicRef",
            "$dynamicAnchor",
            "$vocabulary",
            "definitions",
            "dependencies",
        )
    ],
    *[
        ({"$ref": target}, "/$ref", "place in this schema")
        for target in (
            "http://example.org/s.json",
            "https://example.org/s.json#/a",
            "other.json",
            "file:///etc/passwd",
            "//host/x",
            "",
            "#anchor",
            "urn:x",
            1,
            None,
        )
    ],
    *[
        (
            {"$ref": target, "default": {"$ref": "http://x"}, "enum": [{}], "properties": {"a": {}}},
            "/$ref",
            "not a schema",
        )
        for target in (
            "#/$defs/none",
            "#/default",
            "#/enum/0",
            "#/properties",
            "#/",
            "#/properties/%61",
            "#/type",
        )
    ],
]


@pytest.mark.parametrize(
    ("schema", "pointer", "words"), BAD, ids=[f"{json.dumps(b[0])[:35]}-{i}" for i, b in enumerate(BAD)]
)
def test_a_bad_schema_is_refused_with_its_pointer(schema, pointer, words):
    with pytest.raises(SchemaRefused) as refused:
        check_schema(schema)
    assert f"the schema at {pointer or 'its root'}: " in refused.value.message
    assert words in f"{refused.value.message} {refused.value.hint}"
    assert refused.value.code == 4


@pytest.mark.parametrize(
    "schema",
    [
        {"pattern": "("},
        {"pattern": "(?=a)b"},
        {"pattern": "(a)\\1"},
        {"pattern": "(a{1000}){1000}"},
        {"patternProperties": {"(?!x)": {}}},
        {"format": "no-such-format"},
        {"properties": {"a": {"pattern": "["}}},
    ],
)
def test_what_only_the_library_finds_is_refused_too(schema):
    with pytest.raises(SchemaRefused, match="cannot be compiled"):
        compile_schema(schema)


# Hostile schemas -----------------------------------------------------------------------------------------------------------


def _nested(depth):
    schema = {}
    for _ in range(depth):
        schema = {"items": schema}
    return schema


def _doubling(count):
    """Thirty lines that mean a billion schemas."""
    return {
        "$ref": "#/$defs/a0",
        "$defs": {
            **{f"a{n}": {"anyOf": [{"$ref": f"#/$defs/a{n + 1}"}] * 2} for n in range(count)},
            f"a{count}": {},
        },
    }


def _chain(count):
    return {
        "$ref": "#/$defs/a0",
        "$defs": {**{f"a{n}": {"$ref": f"#/$defs/a{n + 1}"} for n in range(count)}, f"a{count}": {}},
    }


HOSTILE = {
    "itself": {"$ref": "#"},
    "itself by way of a member": {"properties": {"a": {"$ref": "#"}}},
    "itself by way of another": {
        "$ref": "#/$defs/a",
        "$defs": {"a": {"anyOf": [{"$ref": "#/$defs/b"}]}, "b": {"not": {"$ref": "#/$defs/a"}}},
    },
    "a tree of itself": {
        "$ref": "#/$defs/a",
        "$defs": {"a": {"properties": {"left": {"$ref": "#/$defs/a"}, "right": {"$ref": "#/$defs/a"}}}},
    },
    "doubling": _doubling(30),
    "a long chain": _chain(5000),
    "a million branches": {"anyOf": [{} for _ in range(1_000_000)]},
    "a million names": {"required": [str(n) for n in range(1_000_000)]},
    "a million values": {"enum": list(range(1_000_000))},
    "deep": _nested(DEPTH_MAX + 1),
    "very deep": _nested(5_000),
    "deep in a literal": {"const": _nested(900)},
    "not a number": {"minimum": float("nan")},
    "infinite": {"maximum": float("inf")},
    "not JSON": {"const": object()},
    "names that are numbers": {"properties": {1: {}}},
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_schema_is_refused_soon(name):
    sys.setrecursionlimit(1000)
    with pytest.raises(SchemaRefused):
        compile_schema(HOSTILE[name])


def test_schemas_up_to_the_bounds_are_accepted():
    check_schema(_nested(DEPTH_MAX))
    check_schema(_doubling(10))
    check_schema({"enum": list(range(VALUES_MAX - 10))})
    assert 2**10 <= check_schema(_doubling(10)) <= EXPANDED_MAX


def test_alternatives_for_one_value_add_up_and_different_members_do_not():
    assert check_schema({"properties": {str(n): {"pattern": "x"} for n in range(100)}}) <= 3
    assert check_schema({"anyOf": [{"pattern": "x"} for _ in range(100)]}) >= 100
    assert check_schema({"allOf": [{"items": {"pattern": "x"}} for _ in range(100)]}) >= 100


_LITERAL = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)
_SCHEMAS = st.recursive(
    st.booleans() | st.just({}) | _LITERAL,
    lambda inner: st.dictionaries(
        st.sampled_from(sorted(KEYWORDS)) | st.text(max_size=4),
        inner
        | st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=3), inner, max_size=3)
        | st.sampled_from(["#", "#/$defs/a", "string", "^a", "date"])
        | st.integers(-1, 5),
        max_size=4,
    ),
    max_leaves=12,
)


@given(_SCHEMAS, _LITERAL)
def test_whatever_is_given_as_a_schema_is_refused_or_usable(schema, value):
    with contextlib.suppress(SchemaRefused, SchemaViolation):
        compile_schema(schema).check(value)


def test_refusing_does_not_import_the_library():
    code = (
        "import sys; from plugsec_plugins.schema import compile_schema as c; v = c({'type': 'object', 'properties':"
        " {'a': {'type': 'string', 'maxLength': 3}}}); v.check({'a': 'b'}); print('jsonschema_rs' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        env={"PYTHONPATH": ":".join(sys.path)},
    )
    assert done.stdout.strip() == "False"
