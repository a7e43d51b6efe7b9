"""Whether a Python plugin's signatures and the schemas of its plugin.toml agree: read, never run.

The author's machine is not a jail, so the module is parsed, not imported: what a signature promises is
read off its syntax. Only what is certain is refused: a call that the schema lets through and the function
cannot take, or a type that the schema excludes. What may be right (a name that is not known here, an
annotation that computes something) is passed over in silence; what is suspicious is a warning.
"""

import ast
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, NoReturn

from plugsec_plugins.errors import HintsDisagree

SOURCE_BYTES_MAX = 1024 * 1024  # a module larger than this is generated
DEPTH_MAX = 16  # of a hint or a schema: deeper ones are not compared further
_ALL = frozenset({"null", "boolean", "integer", "number", "string", "array", "object"})
_NUMBERS = frozenset({"integer", "number"})
# What JSON values a hint accepts or gives; an int passes for a float (PEP 484, "numeric tower").
_HINTS: Mapping[str, frozenset[str]] = {
    "str": frozenset({"string"}),
    "int": frozenset({"integer"}),
    "float": _NUMBERS,
    "bool": frozenset({"boolean"}),
    "None": frozenset({"null"}),
    "dict": frozenset({"object"}),
    "Mapping": frozenset({"object"}),
    "list": frozenset({"array"}),
    "List": frozenset({"array"}),
    "Dict": frozenset({"object"}),
    "tuple": frozenset({"array"}),
}
_CONTAINERS = frozenset({"list", "List", "dict", "Dict", "Mapping"})
_CONTEXT = "ctx"  # the guest SDK hands it over by this name


class Schemas(NamedTuple):
    """What plugin.toml says of a method; None where it gives no schema."""

    input: Any
    output: Any


def check_hints(source: bytes, path: str, methods: Mapping[str, Schemas]) -> Iterator[str]:
    """Yield a warning for each doubt about the entry module; raises HintsDisagree for what is certain."""
    if len(source) > SOURCE_BYTES_MAX:
        return
    try:
        tree = ast.parse(source, path)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as err:
        line = f":{err.lineno}" if isinstance(err, SyntaxError) and err.lineno else ""
        yield f"{path}{line} is not Python that {_version()} reads: {getattr(err, 'msg', err)}"
        return
    functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef) and _offers(node)}
    if not functions:  # registered in another way, or in another module: nothing to compare
        return
    for name, schemas in methods.items():
        if name not in functions:
            yield f"plugin.toml has the method {name}, but {path} defines no @plugin.method of that name"
            continue
        if len(functions[name].decorator_list) == 1:  # another decorator may change the signature
            yield from _Method(path, functions[name], schemas).check()
    for name in sorted(functions.keys() - methods.keys()):
        where = f"{path}:{functions[name].lineno}"
        yield f"{where}: nobody can call {name}, since plugin.toml has no [methods.{name}]"


def _version() -> str:
    import sys  # noqa: PLC0415 - only for the message

    return f"Python {sys.version_info.major}.{sys.version_info.minor}"


def _offers(node: ast.FunctionDef) -> bool:
    return any(isinstance(each, ast.Attribute) and each.attr == "method" for each in node.decorator_list)


class _Method:
    """One method: its function on the one side, its schemas on the other."""

    def __init__(self, path: str, function: ast.FunctionDef, schemas: Schemas) -> None:
        self._where = f"{path}:{function.lineno}: the method {function.name}"
        self._schemas = schemas
        self._function = function
        arguments = function.args
        self._open = arguments.kwarg is not None
        positional = [*arguments.posonlyargs, *arguments.args]
        defaults = len(arguments.defaults)
        required = positional[: len(positional) - defaults]
        required += [
            each
            for each, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
            if default is None
        ]
        self._positional = [each for each in positional if each.arg != _CONTEXT]
        self._named = {
            each.arg: each for each in (*arguments.args, *arguments.kwonlyargs) if each.arg != _CONTEXT
        }
        self._required = {each.arg for each in required if each.arg != _CONTEXT}

    def check(self) -> Iterator[str]:
        given = self._schemas.input
        if isinstance(given, dict):
            if _types(given) == {"object"}:
                yield from self._keywords(given)
            elif "object" not in _types(given):
                yield from self._one_value(given)
        yield from self._result()

    def _refuse(self, what: str, hint: str) -> NoReturn:
        raise HintsDisagree(f"{self._where} {what}", hint)

    def _keywords(self, schema: Mapping[str, Any]) -> Iterator[str]:
        """An object's members become keyword arguments."""
        properties = schema.get("properties")
        properties = properties if isinstance(properties, dict) else {}
        wanted = schema.get("required")
        wanted = {each for each in wanted if isinstance(each, str)} if isinstance(wanted, list) else set()
        unknown = (
            {} if self._open else {name: each for name, each in properties.items() if name not in self._named}
        )
        for name in sorted(unknown):
            if name in wanted:
                self._refuse(
                    f"takes no {name}, which its input schema requires",
                    f"add the parameter {name}, or remove it from the schema",
                )
            if unknown[name] is not False:
                yield f"{self._where} takes no {name}, which its input schema allows"
        closed = schema.get("additionalProperties") is False and "patternProperties" not in schema
        for name in sorted(self._required - wanted):
            if closed and name not in properties:
                self._refuse(
                    f"needs {name}, which its input schema does not allow",
                    f"add {name} to properties and required, or give the parameter a default",
                )
            yield f"{self._where} needs {name}, which its input schema does not require"
        for name, parameter in self._named.items():
            if isinstance(properties.get(name), dict):
                yield from self._compare(
                    parameter.annotation, properties[name], f"takes {name} as", "accepts"
                )

    def _one_value(self, schema: Mapping[str, Any]) -> Iterator[str]:
        """Any other input is the one argument."""
        if not self._positional and self._function.args.vararg is None:
            self._refuse(
                "has no positional parameter, and its input schema is of no object",
                "give it one parameter, or make the input an object",
            )
        if self._positional:
            yield from self._compare(self._positional[0].annotation, schema, "takes its input as", "accepts")

    def _result(self) -> Iterator[str]:
        if isinstance(self._schemas.output, dict):
            yield from self._compare(self._function.returns, self._schemas.output, "returns", "gives")

    def _compare(
        self, hint: ast.expr | None, schema: Mapping[str, Any], says: str, verb: str
    ) -> Iterator[str]:
        """Compare a hint with a schema: apart is refused, partly apart is a warning."""
        worst = _Difference(accepts=verb == "accepts")
        _differ(_resolve(hint), schema, "", 0, worst)
        if worst.apart:
            self._refuse(
                f"{says} {worst.hint}, while its schema{worst.at} says {worst.schema}",
                "correct the hint in the code or the schema in plugin.toml",
            )
        if worst.partly:
            yield f"{self._where} {says} {worst.hint}, while its schema{worst.at} says {worst.schema}"


class _Difference:
    """The gravest difference found so far."""

    __slots__ = ("accepts", "apart", "at", "hint", "partly", "schema")

    def __init__(self, *, accepts: bool) -> None:
        self.accepts = accepts  # a parameter, which must take all that its schema lets in; else a result
        self.apart = self.partly = False
        self.hint = self.schema = self.at = ""

    def note(self, hint: ast.expr, schema: frozenset[str], at: str, *, apart: bool) -> None:
        if self.apart or (self.partly and not apart):
            return
        self.apart, self.partly = apart, not apart
        self.hint, self.schema, self.at = ast.unparse(hint)[:80], " or ".join(sorted(schema)), at


def _differ(
    hint: ast.expr | None, schema: Mapping[str, Any], at: str, depth: int, worst: _Difference
) -> None:
    """Note where the JSON types of a hint and of a schema differ, here and in what they contain."""
    hinted = _hinted(hint, 0)
    allowed = _types(schema)
    if hint is None or hinted is None or allowed == _ALL or depth > DEPTH_MAX:
        return
    if not _overlap(hinted, allowed):
        worst.note(hint, allowed, at, apart=True)
        return
    narrow, wide = (allowed, hinted) if worst.accepts else (hinted, allowed)
    if any(not _overlap(frozenset({kind}), wide, exact=True) for kind in narrow):
        worst.note(hint, allowed, at, apart=False)
    inner = _inner(hint)
    if inner is None:
        return
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict) and (key == "items") == (hinted == {"array"}):
            _differ(inner, schema[key], f"{at}/{key}", depth + 1, worst)


def _overlap(some: frozenset[str], others: frozenset[str], *, exact: bool = False) -> bool:
    """Tell whether a value can be of both kinds; an integer is a number, and some numbers are integers."""
    if some & others or ("integer" in some and "number" in others):
        return True
    return not exact and "number" in some and "integer" in others


def _types(schema: Mapping[str, Any]) -> frozenset[str]:
    """Return the JSON types that a schema lets through, as far as `type`, `const` and `enum` say."""
    kind = schema.get("type")
    allowed = _ALL
    if isinstance(kind, str):
        allowed = frozenset({kind}) & _ALL
    elif isinstance(kind, list):
        allowed = frozenset(each for each in kind if isinstance(each, str)) & _ALL
    values = schema.get("enum") if isinstance(schema.get("enum"), list) else None
    if "const" in schema:
        values = [schema["const"]]
    if values is not None:
        allowed = frozenset(kind for kind in map(_type_of, values) if _overlap(frozenset({kind}), allowed))
    return allowed or _ALL


def _type_of(value: object) -> str:
    names = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array", dict: "object"}
    return names.get(type(value), "null")


def _resolve(hint: ast.expr | None) -> ast.expr | None:
    """Return the expression inside a hint that is written as a string."""
    if isinstance(hint, ast.Constant) and isinstance(hint.value, str):
        try:
            return ast.parse(hint.value, mode="eval").body
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return None
    return hint


def _hinted(hint: ast.expr | None, depth: int) -> frozenset[str] | None:
    """Return the JSON types that a hint stands for; None where that cannot be told."""
    hint = _resolve(hint)
    kinds: frozenset[str] | None = None
    if hint is None or depth > DEPTH_MAX:
        pass
    elif isinstance(hint, ast.Constant):
        kinds = _HINTS["None"] if hint.value is None else None
    elif isinstance(hint, ast.Name | ast.Attribute):
        kinds = _HINTS.get(_name(hint))
    elif isinstance(hint, ast.BinOp) and isinstance(hint.op, ast.BitOr):
        kinds = _either([hint.left, hint.right], depth)
    elif isinstance(hint, ast.Subscript):
        kinds = _subscripted(hint, depth)
    return kinds


def _subscripted(hint: ast.Subscript, depth: int) -> frozenset[str] | None:
    name = _name(hint.value)
    inner = hint.slice.elts if isinstance(hint.slice, ast.Tuple) else [hint.slice]
    kinds = _HINTS.get(name)
    if name == "Optional":
        kinds = _either([*inner, ast.Constant(None)], depth)
    elif name == "Union":
        kinds = _either(inner, depth)
    elif name == "Annotated" and inner:
        kinds = _hinted(inner[0], depth + 1)
    elif name == "Literal" and all(isinstance(each, ast.Constant) for each in inner):
        kinds = frozenset(_type_of(each.value) for each in inner if isinstance(each, ast.Constant))
    return kinds


def _either(hints: list[ast.expr], depth: int) -> frozenset[str] | None:
    kinds = [_hinted(each, depth + 1) for each in hints]
    if any(kind is None for kind in kinds):
        return None
    return frozenset().union(*(kind for kind in kinds if kind is not None))


def _inner(hint: ast.expr) -> ast.expr | None:
    """Return the hint of a container's elements: of `list[X]` X, of `dict[str, X]` also."""
    hint = _resolve(hint) or hint
    if not isinstance(hint, ast.Subscript) or _name(hint.value) not in _CONTAINERS:
        return None
    return _resolve(
        hint.slice.elts[-1] if isinstance(hint.slice, ast.Tuple) and hint.slice.elts else hint.slice
    )


def _name(hint: ast.expr) -> str:
    return hint.id if isinstance(hint, ast.Name) else hint.attr if isinstance(hint, ast.Attribute) else ""
