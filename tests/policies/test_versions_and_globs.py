"""Ranges of versions, and which plugins a rule speaks about."""

import fnmatch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugsec_policies.errors import PermissionInvalid, VersionInvalid
from plugsec_policies.globs import matches, parse_glob
from plugsec_policies.versions import contains, parse_range, parse_version

# From the examples of semver.org 2.0.0, section 11, lowest first.
ORDER = [
    "1.0.0-alpha",
    "1.0.0-alpha.1",
    "1.0.0-alpha.beta",
    "1.0.0-beta",
    "1.0.0-beta.2",
    "1.0.0-beta.11",
    "1.0.0-rc.1",
    "1.0.0",
    "1.0.1",
    "1.2.0",
    "1.10.0",
    "2.0.0",
    "2.1.0",
    "2.1.1",
]


def test_versions_have_the_published_order():
    assert [parse_version(text) for text in ORDER] == sorted(parse_version(text) for text in ORDER)


def test_build_metadata_does_not_count():
    assert parse_version("1.0.0+a") == parse_version("1.0.0+b.001") == parse_version("1.0.0")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1",
        "1.2",
        "1.2.3.4",
        "01.2.3",
        "1.2.03",
        "1.2.3-",
        "1.2.3+",
        "1.2.3-01",
        "1.2.3-a..b",
        "v1.2.3",
        " 1.2.3",
        "1.2.3 ",
        "1.2.x",
        "1.2.-3",
        "1.2.3-ä",
        "1.2.٣",
        "1" * 20 + ".0.0",
        "1.0.0-" + "a" * 200,
        None,
        1.2,
        ["1.2.3"],
    ],
)
def test_what_is_not_a_version_is_refused(text):
    with pytest.raises(VersionInvalid):
        parse_version(text)


@pytest.mark.parametrize(
    ("text", "inside", "outside"),
    [
        (">=0.1,<1", ["0.1.0", "0.9.9", "1.0.0-alpha"], ["0.0.9", "1.0.0"]),
        ("<2", ["1.9.9"], ["2.0.0"]),
        (">1", ["1.0.1"], ["1.0.0"]),
        ("==1.2.3", ["1.2.3", "1.2.3+x"], ["1.2.4"]),
        ("!=1.2.3", ["1.2.4"], ["1.2.3"]),
        (" >= 1.2 , <= 1.3 ", ["1.2.0", "1.3.0"], ["1.3.1", "1.1.9"]),
        (">=1.0.0-rc.1", ["1.0.0-rc.1", "1.0.0"], ["1.0.0-beta"]),
    ],
)
def test_a_range_holds_what_satisfies_all_of_it(text, inside, outside):
    comparisons = parse_range(text)
    assert all(contains(comparisons, parse_version(each)) for each in inside)
    assert not any(contains(comparisons, parse_version(each)) for each in outside)


@pytest.mark.parametrize(
    "text",
    [
        "",
        ",",
        "1",
        ">=",
        ">=1,",
        "=>1",
        "~1",
        "^1",
        ">=1.2.3.4",
        ">=1-rc",
        ">=1 <2",
        "=1",
        ",".join([">=1"] * 9),
        None,
        1,
        ">=a",
        ">==1",
    ],
)
def test_what_is_not_a_range_is_refused(text):
    with pytest.raises(VersionInvalid):
        parse_range(text)


@given(st.text(alphabet="0123456789.-+abx<>=,! ", max_size=30))
def test_whatever_is_written_is_a_version_and_a_range_or_refused(text):
    for read in (parse_version, parse_range):
        try:
            read(text)
        except VersionInvalid:
            pass


_PART = st.text(alphabet="ab-.", min_size=1, max_size=4).filter(lambda text: text[0] in "ab")
_GLOB_PART = st.text(alphabet="ab*", min_size=1, max_size=4).filter(lambda text: "**" not in text)


@given(_GLOB_PART, _GLOB_PART, _PART, _PART)
def test_a_glob_matches_part_by_part(publisher_glob, plugin_glob, publisher, plugin):
    glob = parse_glob(f"{publisher_glob}/{plugin_glob}")
    expected = fnmatch.fnmatchcase(publisher, publisher_glob) and fnmatch.fnmatchcase(plugin, plugin_glob)
    assert matches(glob, f"{publisher}/{plugin}") == expected


def test_a_star_alone_is_everything_and_does_not_cross_the_slash_elsewhere():
    assert matches("*", "acme/wordfreq")
    assert matches("*/*", "acme/wordfreq")
    assert not matches("acme*/x", "acme/y/x")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "acme",
        "acme/",
        "/x",
        "a/b/c",
        "**",
        "acme/**",
        "Acme/x",
        "acme/X",
        "acme/x y",
        "acme/?",
        "acme/[a]",
        "ä/b",
        "a/" + "b" * 200,
        None,
        1,
        "acme/.x",
        "-a/b",
    ],
)
def test_what_names_no_plugins_is_refused(text):
    with pytest.raises(PermissionInvalid):
        parse_glob(text)
