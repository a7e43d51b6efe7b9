"""The line of every key is found, whatever surrounds it."""

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugsec_policies.errors import PolicyMalformed
from plugsec_policies.toml import parse_toml

TEXT = '''\
# a comment with [brackets] = and "quotes"
top = 1
"quoted key" = "a # no comment"
dotted.key.here = 2
multi = """
not = "a key"
[not.a.header]
\\""" still inside """
literal = \'\'\'
x = 1\'\'\'\'\'
list = [ # comment ]
  "a", "b",
  { inner = 3, other = [4,
    5] },
]
[table]  # header
when = 2027-01-01 10:00:00
[[array]]
id = 1
[[array]]
id = 2
[array.sub]
deep = 3
[[array.more]]
id = 4
'''


@pytest.mark.parametrize(
    ("path", "line"),
    [
        (("top",), 2),
        (("quoted key",), 3),
        (("dotted",), 4),
        (("dotted", "key", "here"), 4),
        (("multi",), 5),
        (("literal",), 9),
        (("list",), 11),
        (("list", 0), 12),
        (("list", 1), 12),
        (("list", 2), 13),
        (("list", 2, "inner"), 13),
        (("list", 2, "other", 0), 13),
        (("list", 2, "other", 1), 14),
        (("table",), 16),
        (("table", "when"), 17),
        (("array", 0), 18),
        (("array", 0, "id"), 19),
        (("array", 1), 20),
        (("array", 1, "id"), 21),
        (("array", 1, "sub"), 22),
        (("array", 1, "sub", "deep"), 23),
        (("array", 1, "more", 0, "id"), 25),
        (("table", "missing"), 16),
        (("array", 0, "missing"), 18),
    ],
)
def test_the_line_of_a_key_is_found(path, line):
    document = parse_toml(TEXT, "f.toml")
    assert document.at(path) == f"f.toml:{line}"
    assert parse_toml(TEXT.replace("\n", "\r\n"), "f.toml").at(path) == f"f.toml:{line}"


def test_a_path_that_no_line_begins_is_the_file():
    assert parse_toml(TEXT, "f.toml").at(("nothing",)) == "f.toml"


_KEYS = st.text(alphabet="ab-_1", min_size=1, max_size=4) | st.sampled_from(['"a.b"', "'#'", '"\\""', '" "'])
_SCALARS = st.sampled_from(
    [
        "1",
        "true",
        "1.5e3",
        '"a"',
        "'b'",
        '"#[]{}"',
        "'\"'",
        '"\\\\"',
        '"\\""',
        '""',
        "''",
        '""""""',
        "''''''",
        '"""a\nb"""',
        "'''a\nb'''",
        '"""a"b""c"""',
        '"""x"""""',
        "2027-01-01",
        "2027-01-01 00:00:00",
        "+inf",
    ]
)
_VALUES = st.recursive(
    _SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda items: "[ # c\n" + ",\n".join(items) + "\n]")
        | st.dictionaries(st.sampled_from(["x", "y"]), inner, max_size=2).map(
            lambda items: "{ " + ", ".join(f"{key} = {item}" for key, item in items.items()) + " }"
        )
    ),
    max_leaves=6,
)


@given(
    st.lists(st.tuples(_KEYS, _VALUES), max_size=5), st.lists(st.sampled_from(["", "# c", "  "]), max_size=5)
)
def test_every_key_of_a_random_document_is_on_its_line(pairs, fillers):
    lines, expected = [], {}
    for number, (key, value) in enumerate(pairs):
        lines += fillers
        (name,) = tomllib.loads(f"{key} = 0")
        expected.setdefault(name, len(lines) + 1)
        lines += f"{key} = {value}".split("\n")
        lines += [f"[[t{number}]]"]
        expected.pop(name, None) if number else None
        expected[f"t{number}"] = len(lines)
    text = "\n".join(lines)
    try:
        document = parse_toml(text, "f")
    except PolicyMalformed:
        return
    for name, line in expected.items():
        if name in document.data:
            assert document.at((name,)) == f"f:{line}"


def test_a_long_dotted_key_does_not_take_for_ever():
    for key in ("a = {}", "[{}]", "[[{}]]", "{} = 1", "a = {{ {} = 1 }}", "a . {}  = 1"):
        with pytest.raises(PolicyMalformed):
            parse_toml(key.format(".".join(["a"] * 120_000)), "f")
        with pytest.raises(PolicyMalformed):
            parse_toml(key.format(" . ".join(['"a"'] * 40_000)), "f")


@pytest.mark.parametrize(
    "text",
    [
        "#" + "." * 200,
        'a = "' + "." * 200 + '"',
        "# " + "e.g. one. " * 20,
        'a = ["' + '", "'.join(["10.0.0.1"] * 500) + '"]',
    ],
)
def test_dots_in_texts_and_comments_are_not_keys(text):
    parse_toml(text, "f")
