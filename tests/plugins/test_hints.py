"""Signatures and schemas are compared by reading: what is certainly wrong is refused, doubt is a warning."""

import plugins_kit as kit
import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugsec_plugins.errors import HintsDisagree
from plugsec_plugins.hints import Schemas, check_hints
from plugsec_plugins.pack import pack

HEAD = "from plugsec_plugins.guest import plugin\n@plugin.method\n"
TEXT = {
    "type": "object",
    "required": ["text"],
    "properties": {"text": {"type": "string"}},
    "additionalProperties": False,
}


def found(signature: str, given=None, returned=None) -> list[str]:
    source = f"{HEAD}def count({signature}:\n    return 1\n".encode()
    return list(check_hints(source, "main.py", {"count": Schemas(given, returned)}))


def of(kind, **more) -> dict:
    """A schema of an object whose member `x` is of a type."""
    x = {"type": kind} if isinstance(kind, (str, list)) else kind
    return {
        "type": "object",
        "required": ["x"],
        "properties": {"x": x},
        "additionalProperties": False,
        **more,
    }


@pytest.mark.parametrize(
    ("signature", "given", "returned", "words"),
    [
        (")", TEXT, None, "takes no text"),
        ("word: str)", TEXT, None, "takes no text"),
        ("text: str, more: int)", TEXT, None, "needs more"),
        ("*, text: str, more: int)", TEXT, None, "needs more"),
        ("text: int)", TEXT, None, "takes text as int, while its schema says string"),
        ("text: 'int')", TEXT, None, "as int"),
        ("text: int | None)", TEXT, None, "takes text as int | None"),
        ("text: Optional[int])", TEXT, None, "Optional"),
        ("text: Literal[1, 2])", TEXT, None, "Literal"),
        ("text: list[str])", TEXT, None, "list"),
        ("x: list[int])", of({"type": "array", "items": {"type": "string"}}), None, "/items says string"),
        (
            "x: dict[str, int])",
            of({"type": "object", "additionalProperties": {"type": "string"}}),
            None,
            "says string",
        ),
        ("x: int)", of({"enum": ["a", "b"]}), None, "says string"),
        ("x: str)", of({"const": 1}), None, "says integer"),
        ("text: str) -> int", TEXT, {"type": "object"}, "returns int, while its schema says object"),
        ("text: str) -> None", TEXT, {"type": "object"}, "returns None"),
        (")", {"type": "string"}, None, "no positional parameter"),
        ("*, text: str)", {"type": "string"}, None, "no positional parameter"),
        ("value: int)", {"type": "string"}, None, "takes its input as int"),
    ],
)
def test_what_certainly_disagrees_is_refused_with_its_line(signature, given, returned, words):
    with pytest.raises(HintsDisagree) as caught:
        found(signature, given, returned)
    assert words in caught.value.message
    assert caught.value.message.startswith("main.py:3: the method count")
    assert (caught.value.id, caught.value.code) == ("PLG-PCK-004", 4)


@pytest.mark.parametrize(
    ("signature", "given", "returned", "words"),
    [
        ("x: int)", of("number"), None, "takes x as int, while its schema says number"),
        ("x: str)", of(["string", "null"]), None, "says null or string"),
        ("x: int)", of("integer", required=[]), None, "needs x, which its input schema does not require"),
        (") -> dict | None", None, {"type": "object"}, "returns dict | None"),
        (") -> float", None, {"type": "integer"}, "returns float"),
        (")", of("integer", required=[]), None, "takes no x, which its input schema allows"),
    ],
)
def test_what_may_disagree_is_a_warning(signature, given, returned, words):
    (warning,) = found(signature, given, returned)
    assert words in warning


@pytest.mark.parametrize(
    ("signature", "given", "returned"),
    [
        ("text: str)", TEXT, None),
        ("text)", TEXT, None),
        ("text: str, *, ctx: Context) -> dict", TEXT, {"type": "object"}),
        ("text: str = '', top: int = 1)", TEXT, None),
        ("**values)", TEXT, None),
        ("text: Annotated[str, 'a text'])", TEXT, None),
        ("text: Whatever)", TEXT, None),
        ("text: t.Any)", TEXT, None),
        ("text: 'not valid python (')", TEXT, None),
        ("text: f(x))", TEXT, None),
        ("text: Sequence)", TEXT, None),
        ("x: float)", of("integer"), None),
        ("x: bool)", of("boolean"), None),
        ("x: str | None)", of(["string", "null"]), None),
        ("x: Literal['a'])", of({"enum": ["a"]}), None),
        ("x: int)", of({"$ref": "#/$defs/x"}), None),
        ("x: list[int])", of({"type": "array", "items": {"type": "integer"}}), None),
        ("value: str)", {"type": "string"}, None),
        ("*values)", {"type": "array"}, None),
        ("value)", None, None),
        (") -> int", None, {"type": "integer"}),
        (") -> int", None, {"type": "number"}),
        (") -> int", None, {}),
        (") -> int", None, True),
    ],
)
def test_what_agrees_or_cannot_be_told_says_nothing(signature, given, returned):
    assert found(signature, given, returned) == []


def test_methods_on_one_side_only_are_told():
    source = HEAD.encode() + b"def other(): pass\n"
    warnings = list(check_hints(source, "main.py", {"count": Schemas(None, None)}))
    assert warnings == [
        "plugin.toml has the method count, but main.py defines no @plugin.method of that name",
        "main.py:3: nobody can call other, since plugin.toml has no [methods.other]",
    ]


def test_other_ways_to_register_are_not_judged():
    for source in ("x = 1\n", "plugin.methods['count'] = print\n", HEAD + "@cache\ndef count(a, b): pass\n"):
        assert list(check_hints(source.encode(), "m.py", {"count": Schemas(TEXT, None)})) == []


def test_code_that_does_not_parse_is_told_and_nothing_runs(tmp_path):
    directory = kit.project(tmp_path / "p", **{"wordfreq.py": "def f(:\n"})
    assert "wordfreq.py:1 is not Python" in " ".join(pack(str(directory), str(tmp_path / "o.plug")).warnings)
    evil = f"open({str(tmp_path / 'ran')!r}, 'w')\nraise SystemExit\n"
    kit.project(tmp_path / "p", **{"wordfreq.py": evil})
    pack(str(directory), str(tmp_path / "o.plug"))
    assert not (tmp_path / "ran").exists()


def test_a_plugin_whose_hints_disagree_is_not_packed(tmp_path):
    directory = kit.project(tmp_path / "p", **{"wordfreq.py": HEAD + "def count(words: list) -> dict: ...\n"})
    with pytest.raises(HintsDisagree, match="takes no text"):
        pack(str(directory), str(tmp_path / "o.plug"))
    assert not (tmp_path / "o.plug").exists()


@pytest.mark.parametrize(
    "nested", ["[" * 5000, "(" * 200 + ")" * 200, "text: " + "Annotated[" * 60 + "int" + ", 1]" * 60]
)
def test_deep_code_is_passed_over(nested):
    assert all("not Python" in each for each in found(nested + ")", TEXT))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.sampled_from(["object", "string", "array", "x"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["type", "properties", "items", "required", "enum", "const", "text"]),
            inner,
            max_size=4,
        )
    ),
)
HINTS = st.recursive(
    st.sampled_from(["int", "str", "None", "dict", "list", "Any", "a.b", "1", "f()"]),
    lambda inner: (
        st.builds("{}[{}]".format, st.sampled_from(["list", "dict", "Optional", "Union", "Literal"]), inner)
        | st.builds("{} | {}".format, inner, inner)
    ),
    max_leaves=6,
)


@given(HINTS, JSON, JSON)
def test_any_schema_and_hint_are_compared_within_our_tree(hint, given, returned):
    try:
        found(f"text: {hint}) -> {hint}", given, returned)
    except HintsDisagree:
        pass
