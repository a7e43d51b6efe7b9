"""Which versions are installed and which one is current: laws of a small pure type, and a strict file."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plugsec_signing.envelope import check_name, check_version
from plugsec_signing.errors import NotInstalled, SigningError, StoreError, StoreUnusable
from plugsec_signing.store import index as indexes
from plugsec_signing.store.names import is_stored_name, parse_name

NAME = "acme/wordfreq"


def version(number: int, other: bool = False) -> indexes.Version:
    return indexes.Version(
        f"1.0.{number}", f"sha256:{(number * 2 + other):064x}", number, 1_800_000_000 + number
    )


def installed(*numbers: int) -> indexes.Index:
    index = None
    for number in numbers:
        index = indexes.with_installed(index, NAME, version(number))
    assert index is not None
    return index


steps = st.lists(
    st.one_of(
        st.tuples(st.just("install"), st.integers(0, 6)),
        st.tuples(st.just("remove"), st.integers(0, 6)),
        st.tuples(st.just("roll back"), st.just(0)),
    ),
    max_size=30,
)


@given(steps)
def test_whatever_is_done_the_index_stays_well_formed_and_reads_back_as_written(actions):
    index: indexes.Index | None = None
    for action, number in actions:
        try:
            if action == "install":
                index = indexes.with_installed(index, NAME, version(number))
            elif index is not None and action == "remove":
                index = indexes.without(index, f"1.0.{number}")
            elif index is not None:
                index = indexes.rolled_back(index)
        except StoreError as refused:
            assert refused.code == 2
        if index is not None:
            known = {each.version for each in index.versions}
            assert index.current in known
            assert known.issuperset(index.history)
            assert index.current not in index.history
            assert len(set(index.history)) == len(index.history)
            assert indexes.decode(indexes.encode(index), NAME) == index


def test_the_version_installed_last_is_current_and_rolling_back_goes_the_same_way_back():
    index = installed(1, 2, 3)
    assert index.current == "1.0.3"
    assert indexes.rolled_back(index).current == "1.0.2"
    assert indexes.rolled_back(indexes.rolled_back(index)).current == "1.0.1"
    with pytest.raises(StoreUnusable) as refused:
        indexes.rolled_back(installed(1))
    assert (refused.value.id, refused.value.code) == ("PLG-STO-010", 2)


def test_a_rollback_does_not_swing_between_two_versions():
    once = indexes.rolled_back(installed(1, 2))
    with pytest.raises(StoreUnusable):
        indexes.rolled_back(once)


def test_removing_the_current_version_brings_back_the_one_before_or_the_highest_release():
    assert indexes.without(installed(3, 1, 2), "1.0.2").current == "1.0.1"
    forgotten = installed(3, 1, 2)._replace(history=())
    assert indexes.without(forgotten, "1.0.2").current == "1.0.3"
    assert indexes.without(installed(1), "1.0.1") is None


def test_the_same_version_with_other_bytes_is_refused():
    with pytest.raises(StoreUnusable) as refused:
        indexes.with_installed(installed(1), NAME, version(1, other=True))
    assert (refused.value.id, refused.value.code) == ("PLG-STO-009", 2)


def test_the_history_is_bounded_and_so_are_the_versions():
    index = installed(*range(indexes.MAX_HISTORY + 10))
    assert len(index.history) == indexes.MAX_HISTORY
    full = installed(*range(indexes.MAX_VERSIONS))
    assert len(indexes.encode(full)) < indexes.MAX_BYTES
    with pytest.raises(StoreUnusable) as refused:
        indexes.with_installed(full, NAME, version(indexes.MAX_VERSIONS))
    assert refused.value.id == "PLG-STO-011"


def changed(**members) -> bytes:
    value = json.loads(indexes.encode(installed(1, 2)))
    value.update(members)
    kept = {name: member for name, member in value.items() if member is not None}
    return json.dumps(kept, sort_keys=True, separators=(",", ":")).encode() + b"\n"


DAMAGED = {
    "empty": b"",
    "not JSON": b"{",
    "a list": b"[]\n",
    "without newline": indexes.encode(installed(1))[:-1],
    "spaces": indexes.encode(installed(1)).replace(b":", b": "),
    "an unknown member": changed(extra=1),
    "a missing member": changed(history=None),
    "another plugin": changed(name="acme/other"),
    "a current version that is not installed": changed(current="1.0.9"),
    "a history of what is not installed": changed(history=["1.0.9"]),
    "a history that holds the current version": changed(history=["1.0.2"]),
    "a history that is no list": changed(history={}),
    "versions that are no object": changed(versions=[]),
    "a version that is none": changed(versions={"../../x": {}}),
    "an entry without id": changed(versions={"1.0.2": {"release": 1, "installed": 1}}),
    "an id that is a path": changed(
        versions={"1.0.2": {"bundle_id": "sha256:../../../etc", "release": 1, "installed": 1}}
    ),
    "a release that is true": changed(
        versions={"1.0.2": {"bundle_id": "sha256:" + "0" * 64, "release": True, "installed": 1}}
    ),
    "too long": b" " * (indexes.MAX_BYTES + 1),
    "no format": changed(format="x"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_index_is_refused(name):
    with pytest.raises(StoreError) as refused:
        indexes.decode(DAMAGED[name], NAME)
    assert (refused.value.id, refused.value.code) == ("PLG-STO-002", 4)


def test_the_index_of_a_newer_plugsec_is_refused_as_such():
    with pytest.raises(StoreError) as refused:
        indexes.decode(changed(format="plugsec.store.index/2"), NAME)
    assert refused.value.id == "PLG-STO-004"


@given(st.binary(max_size=300))
@settings(max_examples=300)
def test_arbitrary_bytes_are_refused_in_our_own_words(data):
    with pytest.raises(StoreError):
        indexes.decode(data, NAME)


@given(
    st.recursive(
        st.none() | st.integers() | st.text(max_size=5),
        lambda v: (
            st.lists(v) | st.dictionaries(st.sampled_from(["versions", "history", "1.0.1", "bundle_id"]), v)
        ),
        max_leaves=8,
    )
)
def test_arbitrary_members_are_refused_in_our_own_words(value):
    try:
        data = changed(versions=value, history=value)
    except UnicodeEncodeError:
        return
    with pytest.raises(StoreError):
        indexes.decode(data, NAME)


WORDS = {
    "acme/wordfreq": True,
    "acme/wordfreq@1.2.3": True,
    "acme/wordfreq@1.2.3-rc.1+b": True,
    "a/b": True,
    "dist/wordfreq-1.2.3.plug": False,
    "dist/wordfreq-1.2.3.plug.zst": False,
    "./acme/wordfreq": False,
    "/acme/wordfreq": False,
    "acme/word/freq": False,
    "wordfreq": False,
    "wordfreq.plug": False,
    "acme/Wordfreq": False,
    "acme/wordfreq@": False,
    "acme/wordfreq@latest": False,
    "acme/wordfreq@1.2.3@1": False,
    "../wordfreq": False,
    "acme/..": False,
    "": False,
    "acme/word\u0000freq": False,
    "acme/wordfr\u0435q": False,
}


@pytest.mark.parametrize("word", WORDS, ids=ascii)
def test_a_word_means_the_store_by_its_form_alone(word, tmp_path, monkeypatch):
    from plugsec import places

    monkeypatch.chdir(tmp_path)
    (tmp_path / "acme").mkdir()
    (tmp_path / "acme" / "wordfreq").write_bytes(b"a file of that name changes nothing")
    assert is_stored_name(word) is WORDS[word]
    assert places.names_installed(word) is WORDS[word]


@given(st.text(max_size=30))
def test_no_word_breaks_the_reader_of_names(word):
    try:
        assert str(parse_name(word)) == word
    except SigningError as refused:
        assert isinstance(refused, NotInstalled)
        assert (refused.id, refused.code) == ("PLG-STO-008", 2)


_ENDS = st.sampled_from(["", ".plug", ".plug.zst", ".plug.z", "plug"])


@given(st.from_regex(r"[a-z0-9][a-z0-9._-]{0,5}/[a-z0-9][a-z0-9._-]{0,5}", fullmatch=True), _ENDS, _ENDS)
def test_whatever_can_be_installed_is_called_by_a_word_that_means_the_store(name, end, version_end):
    """Red team, second pass, 1: `acme/good.plug` could be installed, and the word meant a file."""
    from plugsec import places

    name, version = name + end, f"1.0.0-x{version_end}"
    try:
        check_name(name)
        check_version(version)
    except SigningError:
        return
    for word in (name, f"{name}@{version}"):
        assert is_stored_name(word)
        assert places.names_installed(word)
