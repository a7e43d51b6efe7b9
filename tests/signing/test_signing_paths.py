"""A path in a bundle means the same file on every system, or it cannot be in a bundle."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plugsec_signing import paths
from plugsec_signing.errors import PathError

BAD = {
    "..": "PLG-PTH-002",
    "../x": "PLG-PTH-002",
    "a/../x": "PLG-PTH-002",
    "a/..": "PLG-PTH-002",
    "/etc/passwd": "PLG-PTH-002",
    "//x": "PLG-PTH-002",
    "./x": "PLG-PTH-002",
    ".": "PLG-PTH-002",
    "a/./x": "PLG-PTH-002",
    "a//x": "PLG-PTH-002",
    "a/": "PLG-PTH-002",
    "": "PLG-PTH-002",
    ".env": "PLG-PTH-002",
    "a/.git/config": "PLG-PTH-002",
    "a.": "PLG-PTH-002",
    "a /x": "PLG-PTH-002",
    " a": "PLG-PTH-002",
    "...": "PLG-PTH-002",
    "a\\b": "PLG-PTH-001",
    "C:x": "PLG-PTH-001",
    "a\0b": "PLG-PTH-001",
    "a\nb": "PLG-PTH-001",
    "a\x1b[31m": "PLG-PTH-001",
    "a\x7f": "PLG-PTH-001",
    "caf\u00e9": "PLG-PTH-001",
    "cafe\u0301": "PLG-PTH-001",
    "\u0430cme": "PLG-PTH-001",
    "\u212a": "PLG-PTH-001",
    "a\u202eb": "PLG-PTH-001",
    "\ud800": "PLG-PTH-001",
    "a*": "PLG-PTH-001",
    "a?": "PLG-PTH-001",
    'a"': "PLG-PTH-001",
    "a<b": "PLG-PTH-001",
    "a>b": "PLG-PTH-001",
    "a|b": "PLG-PTH-001",
    "x" * 241: "PLG-PTH-003",
    "x" * 101: "PLG-PTH-003",
    "x" * 156 + "/y": "PLG-PTH-003",
    "x/" + "y" * 101: "PLG-PTH-003",
    "/".join("d" * 33): "PLG-PTH-004",
    "PLUGSEC/manifest.json": "PLG-PTH-007",
    "plugsec/x": "PLG-PTH-007",
    "PlugSec": "PLG-PTH-007",
}


@pytest.mark.parametrize("path", BAD)
def test_a_path_with_a_second_meaning_is_refused(path):
    with pytest.raises(PathError) as caught:
        paths.check_path(path)
    assert (caught.value.id, caught.value.code) == (BAD[path], 4)
    assert caught.value.message.isprintable()


@pytest.mark.parametrize(
    "path",
    ["a", "a b/c.d", "x" * 100, "x" * 155 + "/" + "y" * 84, "/".join("d" * 32), "plugsec.py", "lib/PLUGSEC/x",
     "!#$%&'()+,-;=@[]^_`{}~"],
)  # fmt: skip
def test_an_ordinary_path_is_accepted(path):
    assert paths.check_path(path) == path


@pytest.mark.parametrize(
    ("group", "error_id"),
    [
        (["a", "a"], "PLG-PTH-005"),
        (["README", "readme"], "PLG-PTH-005"),
        (["a/B/c", "A/b/C"], "PLG-PTH-005"),
        (["a", "a/b"], "PLG-PTH-006"),
        (["a/b/c/d", "a/b"], "PLG-PTH-006"),
        (["A", "a/b"], "PLG-PTH-006"),
        (["lib", "Lib/x"], "PLG-PTH-006"),
    ],
)
def test_files_that_collide_somewhere_are_refused_together(group, error_id):
    with pytest.raises(PathError) as caught:
        paths.check_paths(group)
    assert caught.value.id == error_id


def test_files_of_neighbouring_names_do_not_collide():
    paths.check_paths(["a", "a b/x", "a-b", "a.b", "ab", "b/a", "b/ab"])


def test_a_long_path_is_split_at_the_leftmost_slash_that_leaves_100_bytes():
    assert paths.split_path("a/" + "b" * 98) == ("", "a/" + "b" * 98)
    assert paths.split_path("a/" + "b" * 99) == ("a", "b" * 99)
    assert paths.split_path("a/b/" + "c" * 98) == ("a", "b/" + "c" * 98)
    assert paths.split_path("x" * 155 + "/y") == ("x" * 155, "y")


@given(st.text(max_size=260))
@settings(max_examples=500)
def test_any_text_is_a_path_or_is_refused_within_our_tree(text):
    try:
        paths.check_path(text)
    except PathError:
        return
    assert text.isascii()
    assert not text.startswith("/")
    assert ".." not in text.split("/")


COMPONENT = st.text(st.sampled_from("ab.- Z"), min_size=1, max_size=40).filter(lambda c: c.strip(" .") == c)


@given(st.lists(COMPONENT, min_size=1, max_size=8).map("/".join))
def test_a_split_path_joins_to_itself(path):
    try:
        paths.check_path(path)
    except PathError:
        return
    prefix, name = paths.split_path(path)
    assert (f"{prefix}/{name}" if prefix else name) == path
    assert len(prefix) <= 155
    assert 0 < len(name) <= 100
