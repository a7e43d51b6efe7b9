"""Our own validator for the closed keyword set: closures built once, linear in the size of the value.

It needs no bound on its work beyond the decoder's: no keyword of the closed set looks at a value twice, and
the first fault ends everything. Numbers compare as JSON Schema says: 1 and 1.0 are equal, true is not 1.
"""

from collections.abc import Callable, Mapping, Sized

from plugsec_plugins.schema.check import Pointer
from plugsec_signing.typed import Any

Check = Callable[[Any], None]

# Values shown in a message are cut here; the rest of the sentence matters more.
SHOWN_MAX = 60


class Fault(Exception):  # internal: becomes SchemaViolation with its whole path
    """What is wrong with a value; `path` grows from the inside while the exception passes upwards."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message
        self.path: list[str | int] = []


def build(schema: Any) -> Check:  # noqa: ANN401
    """Turn a checked schema of the closed set into a function that raises Fault for a bad value."""
    if schema is True:
        return _accept
    if schema is False:
        return _reject
    checks = [make(schema) for keyword, make in _MAKERS if keyword in schema]
    for kind, make_for_kind in ((list, _make_items), (dict, _make_members)):
        inner = make_for_kind(schema)
        if inner is not None:
            checks.append(_only_for(kind, inner))
    if len(checks) == 1:
        return checks[0]

    def check_all(value: Any) -> None:  # noqa: ANN401
        for check in checks:
            check(value)

    return check_all


def _accept(_value: object) -> None:
    """Accept every value: the schema `true` or `{}`."""


def _reject(_value: object) -> None:
    raise Fault("nothing is allowed here")


def _only_for(kind: type, check: Check) -> Check:
    def guarded(value: Any) -> None:  # noqa: ANN401
        if isinstance(value, kind):
            check(value)

    return guarded


# Types and literal values ----------------------------------------------------------------------------------


def _is_type(value: Any, name: str) -> bool:  # noqa: ANN401, PLR0911
    if name == "string":
        return isinstance(value, str)
    if name == "object":
        return isinstance(value, dict)
    if name == "array":
        return isinstance(value, list)
    if name == "boolean":
        return isinstance(value, bool)
    if name == "null":
        return value is None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return name == "number" or isinstance(value, int) or value.is_integer()


def _make_type(schema: Mapping[str, Any]) -> Check:
    wanted = schema["type"]
    names = (wanted,) if isinstance(wanted, str) else tuple(wanted)

    def check(value: Any) -> None:  # noqa: ANN401
        if not any(_is_type(value, name) for name in names):
            raise Fault(f"{_shown(value)} is not of type {' or '.join(names)}")

    return check


def _identity(value: Any) -> object:  # noqa: ANN401
    """Return something hashable that is equal exactly for values that JSON Schema calls equal."""
    if isinstance(value, bool) or value is None:
        return ("constant", value)
    if isinstance(value, list):
        return ("array", tuple(_identity(item) for item in value))
    if isinstance(value, dict):
        return ("object", frozenset((key, _identity(item)) for key, item in value.items()))
    return value  # texts and numbers are never equal to one another, nor to the pairs above


def _make_const(schema: Mapping[str, Any]) -> Check:
    return _one_of([schema["const"]])


def _make_enum(schema: Mapping[str, Any]) -> Check:
    return _one_of(schema["enum"])


def _one_of(values: list[Any]) -> Check:
    allowed = frozenset(_identity(value) for value in values)
    listed = ", ".join(_shown(value) for value in values[:10]) + (", …" if len(values) > 10 else "")

    def check(value: Any) -> None:  # noqa: ANN401
        if _identity(value) not in allowed:
            raise Fault(f"{_shown(value)} is not {'one of ' if len(values) > 1 else ''}{listed}")

    return check


def _shown(value: Any) -> str:  # noqa: ANN401
    if isinstance(value, str):
        return '"' + (value if len(value) <= SHOWN_MAX else value[:SHOWN_MAX] + "…") + '"'
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "an array"
    return (
        {None: "null", True: "true", False: "false"}[value]
        if value is None or isinstance(value, bool)
        else str(value)
    )


# Numbers and counts ----------------------------------------------------------------------------------------


def _make_bound(
    keyword: str, broken: Callable[[Any, Any], bool], words: str
) -> Callable[[Mapping[str, Any]], Check]:
    def make(schema: Mapping[str, Any]) -> Check:
        bound = schema[keyword]

        def check(value: Any) -> None:  # noqa: ANN401
            if isinstance(value, int | float) and not isinstance(value, bool) and broken(value, bound):
                raise Fault(f"{value} is {words} {bound}")

        return check

    return make


def _make_count(keyword: str, kind: type[Sized], unit: str) -> Callable[[Mapping[str, Any]], Check]:
    at_least = keyword.startswith("min")
    words = "at least" if at_least else "at most"

    def make(schema: Mapping[str, Any]) -> Check:
        bound = schema[keyword]

        def check(value: Any) -> None:  # noqa: ANN401
            if isinstance(value, kind) and (len(value) < bound if at_least else len(value) > bound):
                raise Fault(f"it has {len(value)} {unit}, {words} {bound} are allowed")

        return check

    return make


# Members ---------------------------------------------------------------------------------------------------


def _make_items(schema: Mapping[str, Any]) -> Check | None:
    if "items" not in schema:
        return None
    check_item = build(schema["items"])

    def check(value: list[Any]) -> None:
        index = 0
        try:
            for index, item in enumerate(value):  # noqa: B007  (its last value says where the fault is)
                check_item(item)
        except Fault as fault:
            fault.path.append(index)
            raise

    return check


def _make_members(schema: Mapping[str, Any]) -> Check | None:
    if not schema.keys() & {"properties", "additionalProperties"}:
        return None
    known = {name: build(inner) for name, inner in schema.get("properties", {}).items()}
    others = schema.get("additionalProperties", True)
    check_other = build(others)

    def check(value: dict[str, Any]) -> None:
        name = ""
        try:
            for name, item in value.items():
                if name in known:
                    known[name](item)
                elif others is False:
                    raise Fault("there is no such field")
                else:
                    check_other(item)
        except Fault as fault:
            fault.path.append(name)
            raise

    return check


def _make_required(schema: Mapping[str, Any]) -> Check:
    required = schema["required"]

    def check(value: Any) -> None:  # noqa: ANN401
        if isinstance(value, dict):
            for name in required:
                if name not in value:
                    raise Fault(f"the field {name} is missing")

    return check


_MAKERS: tuple[tuple[str, Callable[[Mapping[str, Any]], Check]], ...] = (
    ("type", _make_type),
    ("const", _make_const),
    ("enum", _make_enum),
    ("minimum", _make_bound("minimum", lambda value, bound: value < bound, "less than")),
    ("maximum", _make_bound("maximum", lambda value, bound: value > bound, "more than")),
    (
        "exclusiveMinimum",
        _make_bound("exclusiveMinimum", lambda value, bound: value <= bound, "not more than"),
    ),
    (
        "exclusiveMaximum",
        _make_bound("exclusiveMaximum", lambda value, bound: value >= bound, "not less than"),
    ),
    ("minLength", _make_count("minLength", str, "characters")),
    ("maxLength", _make_count("maxLength", str, "characters")),
    ("minItems", _make_count("minItems", list, "items")),
    ("maxItems", _make_count("maxItems", list, "items")),
    ("minProperties", _make_count("minProperties", dict, "fields")),
    ("maxProperties", _make_count("maxProperties", dict, "fields")),
    ("required", _make_required),
)


def path_of(fault: Fault) -> Pointer:
    """Return where the fault is, from the outside in."""
    return tuple(reversed(fault.path))
