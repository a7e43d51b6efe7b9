"""Is a stranger's schema well-formed, closed in itself, and cheap?

Everything is refused that could make validation expensive or reach outside: references to other documents,
recursion, keywords that we do not know (a misspelt `maxLength` would accept anything), more branches than
a bound. Checking walks the schema once; it never evaluates it.
"""

from collections.abc import Callable, Mapping, Sequence

from plugsec_plugins.errors import SchemaRefused
from plugsec_policies.suggest import did_you_mean
from plugsec_signing.typed import Any, NamedTuple, NoReturn

# As canonical bytes; the largest published schemas of real services are below 200 KB.
SCHEMA_BYTES_MAX = 256 * 1024
# Schemas inside one another; also the recursion depth of our validator.
DEPTH_MAX = 32
# Lists and objects inside a literal (`enum`, `const`, `default`), and all values in the whole schema.
VALUES_MAX = 20_000
# Schemas that apply after every `$ref` is followed: 30 lines of doubling references mean a billion.
EXPANDED_MAX = 20_000
# A regular expression is compiled under a size limit too; this bounds the parsing.
PATTERN_MAX = 1024
# All patterns of a schema, each as often as it is written and with a little for itself: parsing costs up to
# 40 µs a character (case folding), and each is compiled about six times to learn its size. Two seconds.
PATTERNS_TEXT_MAX = 8 * 1024
PATTERN_OWN = 16
# `unevaluated…` looks again at all that applies to the same place, to learn what is evaluated; nested ones
# multiply. Measured: up to 2.9 for each level.
UNEVALUATED_FACTOR = 3

DIALECT = "https://json-schema.org/draft/2020-12/schema"

Pointer = tuple[str | int, ...]

_TYPES = ("array", "boolean", "integer", "null", "number", "object", "string")


# What each keyword's value must be -------------------------------------------------------------------------


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_bool(value: object) -> bool:
    return isinstance(value, bool)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_positive(value: object) -> bool:
    return _is_number(value) and value > 0  # type: ignore[operator]  # a number, as was just asked


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


def _is_anything(_value: object) -> bool:
    return True


def _is_types(value: object) -> bool:
    if isinstance(value, str):
        return value in _TYPES
    return (
        isinstance(value, list)
        and 0 < len(value) == len({str(v) for v in value})
        and all(isinstance(each, str) and each in _TYPES for each in value)
    )


def _is_names(value: object) -> bool:
    return (
        isinstance(value, list)
        and all(isinstance(each, str) for each in value)
        and len(value) == len(set(value))
    )


def _is_names_map(value: object) -> bool:
    return isinstance(value, Mapping) and all(_is_names(each) for each in value.values())


def _is_filled_list(value: object) -> bool:
    return isinstance(value, list) and len(value) > 0


def _is_list(value: object) -> bool:
    return isinstance(value, list)


def _is_pattern(value: object) -> bool:
    return isinstance(value, str) and len(value) <= PATTERN_MAX


def _is_local_reference(value: object) -> bool:
    return isinstance(value, str) and (value == "#" or value.startswith("#/"))


def _is_dialect(value: object) -> bool:
    return value == DIALECT


_Check = Callable[[object], bool]

_ANNOTATIONS: dict[str, tuple[_Check, str]] = {
    "$schema": (_is_dialect, DIALECT),
    "$comment": (_is_text, "a text"),
    "title": (_is_text, "a text"),
    "description": (_is_text, "a text"),
    "default": (_is_anything, ""),
    "examples": (_is_list, "a list"),
    "deprecated": (_is_bool, "true or false"),
    "readOnly": (_is_bool, "true or false"),
    "writeOnly": (_is_bool, "true or false"),
}
_ASSERTIONS: dict[str, tuple[_Check, str]] = {
    "type": (_is_types, "one or several of " + ", ".join(_TYPES)),
    "required": (_is_names, "a list of different names"),
    "enum": (_is_filled_list, "a list with at least one value"),
    "const": (_is_anything, ""),
    "minimum": (_is_number, "a number"),
    "maximum": (_is_number, "a number"),
    "exclusiveMinimum": (_is_number, "a number"),
    "exclusiveMaximum": (_is_number, "a number"),
    "minLength": (_is_count, "a whole number from 0"),
    "maxLength": (_is_count, "a whole number from 0"),
    "minItems": (_is_count, "a whole number from 0"),
    "maxItems": (_is_count, "a whole number from 0"),
    "minProperties": (_is_count, "a whole number from 0"),
    "maxProperties": (_is_count, "a whole number from 0"),
}
_MORE_ASSERTIONS: dict[str, tuple[_Check, str]] = {
    "multipleOf": (_is_positive, "a number above 0"),
    "pattern": (_is_pattern, f"a regular expression of at most {PATTERN_MAX} characters"),
    "format": (_is_text, "the name of a format"),
    "uniqueItems": (_is_bool, "true or false"),
    "minContains": (_is_count, "a whole number from 0"),
    "maxContains": (_is_count, "a whole number from 0"),
    "dependentRequired": (_is_names_map, "lists of names by name"),
    "$ref": (_is_local_reference, 'a place in this schema, such as "#/$defs/item"'),
}
# Keywords that hold schemas. What they apply to decides how costs add up (see `_Walk.cost`).
_SAME_PLACE = ("not", "if", "then", "else")  # the same value as the schema they are in
_SAME_PLACE_LISTS = ("allOf", "anyOf", "oneOf")
_SAME_PLACE_MAPS = ("dependentSchemas",)
_BELOW = (
    "additionalProperties",
    "propertyNames",
    "unevaluatedProperties",
    "items",
    "contains",
    "unevaluatedItems",
)
_BELOW_LISTS = ("prefixItems",)
_BELOW_MAPS = ("properties", "patternProperties")
_ONE = frozenset({*_SAME_PLACE, *_BELOW})
_LISTS = frozenset({*_SAME_PLACE_LISTS, *_BELOW_LISTS})
_MAPS = frozenset({*_SAME_PLACE_MAPS, *_BELOW_MAPS, "$defs"})

# The closed set of which our own validator makes sense; `$defs` without `$ref` does nothing.
SIMPLE = frozenset({*_ANNOTATIONS, *_ASSERTIONS, "properties", "additionalProperties", "items", "$defs"})
_VALUES = {**_ANNOTATIONS, **_ASSERTIONS, **_MORE_ASSERTIONS}
KEYWORDS = frozenset({*_VALUES, *_ONE, *_LISTS, *_MAPS})
# Known, but never accepted: each lets a schema be reached by another name, or is of an older dialect.
_REFUSED = frozenset(
    {
        "$id",
        "$anchor",
        "$dynamicRef",
        "$dynamicAnchor",
        "$recursiveRef",
        "$recursiveAnchor",
        "$vocabulary",
        "definitions",
        "dependencies",
        "additionalItems",
        "contentEncoding",
        "contentMediaType",
        "contentSchema",
    }
)


def check_schema(schema: object) -> int:
    """Return how many schemas may apply to one place of a value, at most: 1 for the closed set.

    Raises SchemaRefused with the JSON pointer of the fault.
    """
    walk = _Walk()
    walk.literal(schema, (), 0)
    walk.schema(schema, (), 0)
    if not walk.has_references_or_branches:
        return 1
    return walk.cost(schema, (), frozenset())


class Scan(NamedTuple):
    """What a byte of text costs at most, as `weigh` counts; and how many lists of alternatives there are."""

    weight: int
    branches: int


def scan(schema: object, weigh: Callable[[Sequence[str]], Mapping[str, int]]) -> Scan:
    """Return what a byte of text meets, at most, in a schema that `check_schema` accepted.

    `weigh` is given every pattern, as often as it is written, and returns what each costs per byte.
    A format counts as 1.
    """
    walk = _Walk()
    walk.schema(schema, (), 0)
    weights = weigh(walk.patterns)
    walk.price = lambda each: _text_price(each, weights)
    walk.name_price = weights.__getitem__
    return Scan(walk.cost(schema, (), frozenset()), walk.branches)


def is_simple(schema: object) -> bool:
    """Tell whether a checked schema uses the closed keyword set only."""
    if not isinstance(schema, Mapping):
        return True
    if not schema.keys() <= SIMPLE:
        return False
    properties: Mapping[str, object] = schema.get("properties", {})
    inner = [*properties.values(), schema.get("additionalProperties"), schema.get("items")]
    return all(is_simple(each) for each in inner)


def format_pointer(path: Pointer) -> str:
    """Write a path as a JSON Pointer (RFC 6901); the whole document is the empty text."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in path)


def _refuse(path: Pointer, message: str, hint: str) -> NoReturn:
    raise SchemaRefused(f"the schema at {format_pointer(path) or 'its root'}: {message}", hint)


def _evaluation_price(schema: object) -> int:
    if not isinstance(schema, Mapping):
        return 1
    enum, required = schema.get("enum", ()), schema.get("required", ())
    dependent = sum(len(names) for names in schema.get("dependentRequired", {}).values())
    return 1 + len(enum) + len(required) + dependent


def _text_price(schema: object, weights: Mapping[str, int]) -> int:
    if not isinstance(schema, Mapping):
        return 0
    pattern = schema.get("pattern")
    return (0 if pattern is None else weights[pattern]) + ("format" in schema)


class _Walk:
    """One pass over one schema, counting what it meets."""

    def __init__(self) -> None:
        self._values = 0
        self._expanded = 0
        # By pointer: what a `$ref` may name. Literals are not in it, so nothing unchecked is ever applied.
        self._schemas: dict[str, object] = {}
        self.has_references_or_branches = False
        # Every pattern, as often as it is written; and how many lists of alternatives there are.
        self.patterns: list[str] = []
        self.branches = 0
        self._patterns_text = 0
        # What a schema by itself costs, and a pattern that a member's name must match.
        self.price: Callable[[object], int] = _evaluation_price
        self.name_price: Callable[[str], int] = lambda _pattern: 1

    def literal(self, value: object, path: Pointer, depth: int) -> None:
        """Refuse what is not JSON at all (TOML has dates and NaN), or too much of it."""
        self._values += 1
        if self._values > VALUES_MAX:
            _refuse((), f"it holds more than {VALUES_MAX} values", "describe less in detail")
        if depth > 2 * DEPTH_MAX:
            _refuse(path, f"it is nested more than {2 * DEPTH_MAX} deep", "flatten it")
        if isinstance(value, Mapping):
            for key, item in value.items():
                if not isinstance(key, str):
                    _refuse(path, "a name is not a text", "write it as JSON")
                self.literal(item, (*path, key), depth + 1)
        elif isinstance(value, list):
            for index, item in enumerate(value):
                self.literal(item, (*path, index), depth + 1)
        elif isinstance(value, float) and value - value != 0:
            # NaN and the infinities, without importing math for it
            _refuse(path, "it holds a number that JSON does not have", "remove nan and inf")
        elif value is not None and not isinstance(value, str | int | float):
            _refuse(path, "it holds a value that JSON does not have", "write dates as text")

    def schema(self, schema: object, path: Pointer, depth: int) -> None:
        """Check the keywords of a schema and of those inside it."""
        self._schemas[format_pointer(path)] = schema
        if isinstance(schema, bool):
            return
        if not isinstance(schema, Mapping):
            _refuse(path, "a schema is an object, true or false", 'write for instance { "type": "string" }')
        if depth > DEPTH_MAX:
            _refuse(path, f"schemas are nested more than {DEPTH_MAX} deep", "flatten it, or use $defs")
        for keyword, value in schema.items():
            self._keyword(keyword, value, (*path, keyword), depth)
        if not schema.keys() <= SIMPLE:
            self.has_references_or_branches = True

    def _keyword(self, keyword: str, value: object, path: Pointer, depth: int) -> None:
        if keyword in _VALUES:
            check, wanted = _VALUES[keyword]
            if not check(value):
                _refuse(path, f"{keyword} is not {wanted}", f"write {keyword} as {wanted}")
            if keyword == "pattern" and isinstance(value, str):
                self._pattern(value, path)
        elif keyword in _ONE:
            self.schema(value, path, depth + 1)
        elif keyword in _LISTS:
            if not isinstance(value, list) or not value:
                _refuse(
                    path, f"{keyword} is not a list with at least one schema", f"write {keyword} as [ … ]"
                )
            self.branches += keyword in {"anyOf", "oneOf"}
            for index, each in enumerate(value):
                self.schema(each, (*path, index), depth + 1)
        elif keyword in _MAPS:
            self._map(keyword, value, path, depth)
        elif keyword in _REFUSED:
            _refuse(
                path,
                f"{keyword} is not accepted",
                "name parts of the schema under $defs and refer by #/$defs/…",
            )
        else:
            _refuse(path, f"there is no keyword {keyword}", did_you_mean(keyword, KEYWORDS))

    def _map(self, keyword: str, value: object, path: Pointer, depth: int) -> None:
        if not isinstance(value, Mapping):
            _refuse(path, f"{keyword} does not hold schemas by name", f"write {keyword} as {{ … }}")
        for name, each in value.items():
            if keyword == "patternProperties":
                if not _is_pattern(name):
                    _refuse(path, f"a pattern is longer than {PATTERN_MAX} characters", "shorten it")
                self._pattern(name, path)
            self.schema(each, (*path, name), depth + 1)

    def _pattern(self, pattern: str, path: Pointer) -> None:
        self.patterns.append(pattern)
        self._patterns_text += len(pattern) + PATTERN_OWN
        if self._patterns_text > PATTERNS_TEXT_MAX:
            _refuse(
                path,
                f"the patterns up to here have more than {PATTERNS_TEXT_MAX} characters "
                f"({PATTERN_OWN} are added for each)",
                "write a pattern that is used often once, under $defs",
            )

    def cost(self, schema: object, path: Pointer, open_references: frozenset[str]) -> int:
        """Return the most evaluations that any one place of a value can cause; refuse recursion.

        Schemas that apply to the same value add up, also with what each of them says of its members;
        different members are different places, of which the most expensive counts.
        """
        self._expanded += 1
        if self._expanded > EXPANDED_MAX:
            _refuse((), f"more than {EXPANDED_MAX} schemas apply once every $ref is followed", "branch less")
        here, below = self.price(schema), 0
        if not isinstance(schema, Mapping):
            return here
        for each, where in self._same_place(schema, path):
            inner = self.cost(each, where, open_references)
            here, below = here + inner, below + inner
        reference = schema.get("$ref")
        if isinstance(reference, str):
            if reference in open_references or reference == "#":
                _refuse((*path, "$ref"), f"{reference} contains itself", "recursive schemas are not accepted")
            if len(open_references) >= DEPTH_MAX:
                _refuse(
                    (*path, "$ref"), f"more than {DEPTH_MAX} references lead to one another", "flatten it"
                )
            if reference[1:] not in self._schemas:
                _refuse(
                    (*path, "$ref"), f"{reference} is not a schema of this document", "refer to #/$defs/NAME"
                )
            inner = self.cost(self._schemas[reference[1:]], (*path, "$ref"), open_references | {reference})
            here, below = here + inner, below + inner
        once = max(here, below + self._members_cost(schema, path, open_references))
        looks_again = "unevaluatedProperties" in schema or "unevaluatedItems" in schema
        return once * UNEVALUATED_FACTOR if looks_again else once

    def _same_place(self, schema: Mapping[str, Any], path: Pointer) -> list[tuple[object, Pointer]]:
        found: list[tuple[object, Pointer]] = [
            (schema[key], (*path, key)) for key in _SAME_PLACE if key in schema
        ]
        for key in _SAME_PLACE_LISTS:
            found.extend((each, (*path, key, i)) for i, each in enumerate(schema.get(key, ())))
        for key in _SAME_PLACE_MAPS:
            found.extend((each, (*path, key, name)) for name, each in schema.get(key, {}).items())
        return found

    def _members_cost(self, schema: Mapping[str, Any], path: Pointer, open_references: frozenset[str]) -> int:
        def cost_of(each: object, *where: str | int) -> int:
            return self.cost(each, (*path, *where), open_references)

        total = 0
        for key in _BELOW:
            if key in schema:
                total += cost_of(schema[key], key)
        for key in ("properties", "prefixItems"):
            # Each member meets one of these only.
            items = schema.get(key, {})
            pairs = items.items() if isinstance(items, Mapping) else enumerate(items)
            total += max((cost_of(each, key, name) for name, each in pairs), default=0)
        for name, each in schema.get("patternProperties", {}).items():
            total += self.name_price(name) + cost_of(each, "patternProperties", name)
        return total
