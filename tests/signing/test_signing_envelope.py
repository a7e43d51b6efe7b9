"""A manifest says who, which version and which bytes, in one form only."""

import hashlib

import pytest
import signing_kit as kit
from hypothesis import given
from hypothesis import strategies as st

from plugsec_signing import canonical
from plugsec_signing.envelope import check_name, check_version, parse_envelope
from plugsec_signing.errors import EnvelopeError, SigningError

ENTRY = kit.manifest_value()["files"][0]
HASH = "0" * 64


def entry(**fields):
    return [{**ENTRY, **fields}]


BAD = {
    "future schema": ({"schema": "plugsec.manifest/2"}, "PLG-ENV-002"),
    "far future schema": ({"schema": "plugsec.manifest/123"}, "PLG-ENV-002"),
    "another schema": ({"schema": "plugsec.plugin/1"}, "PLG-ENV-003"),
    "padded schema": ({"schema": "plugsec.manifest/01"}, "PLG-ENV-003"),
    "schema zero": ({"schema": "plugsec.manifest/0"}, "PLG-ENV-003"),
    "no schema": ({"schema": None}, "PLG-ENV-003"),
    "schema is a number": ({"schema": 1}, "PLG-ENV-003"),
    "no name": ({"name": None}, "PLG-ENV-004"),
    "name without publisher": ({"name": "wordfreq"}, "PLG-ENV-004"),
    "name with two slashes": ({"name": "acme/a/b"}, "PLG-ENV-004"),
    "upper-case name": ({"name": "Acme/wordfreq"}, "PLG-ENV-004"),
    "homoglyph publisher": ({"name": "\u0430cme/wordfreq"}, "PLG-ENV-004"),
    "parent as publisher": ({"name": "../wordfreq"}, "PLG-ENV-004"),
    "publisher ending in a dash": ({"name": "acme-/wordfreq"}, "PLG-ENV-004"),
    "plugin ending in a dot": ({"name": "acme/wordfreq."}, "PLG-ENV-004"),
    "plugin beginning with a dot": ({"name": "acme/.wordfreq"}, "PLG-ENV-004"),
    "name with newline": ({"name": "acme/wordfreq\n"}, "PLG-ENV-004"),
    "65 character publisher": ({"name": "a" * 65 + "/x"}, "PLG-ENV-004"),
    # Red team, second pass, 1: a plugin so called would be installed under a word that means a file.
    "name of a bundle file": ({"name": "acme/good.plug"}, "PLG-ENV-004"),
    "name of a compressed bundle file": ({"name": "acme/good.plug.zst"}, "PLG-ENV-004"),
    "version like a bundle file": ({"version": "1.0.0-x.plug"}, "PLG-ENV-005"),
    "version like a compressed bundle file": ({"version": "1.0.0+x.plug.zst"}, "PLG-ENV-005"),
    "no version": ({"version": None}, "PLG-ENV-005"),
    "two-part version": ({"version": "1.2"}, "PLG-ENV-005"),
    "version with leading zero": ({"version": "1.02.3"}, "PLG-ENV-005"),
    "version with slash": ({"version": "1.2.3-../x"}, "PLG-ENV-005"),
    "version with newline": ({"version": "1.2.3\n"}, "PLG-ENV-005"),
    "long version": ({"version": "1.2.3-" + "a" * 60}, "PLG-ENV-005"),
    "no release": ({"release": None}, "PLG-ENV-006"),
    "negative release": ({"release": -1}, "PLG-ENV-006"),
    "release is true": ({"release": True}, "PLG-ENV-006"),
    "release is text": ({"release": "7"}, "PLG-ENV-006"),
    "expires is a date": ({"expires": "2027-01-01"}, "PLG-ENV-007"),
    "expires in local time": ({"expires": "2027-01-01T00:00:00"}, "PLG-ENV-007"),
    "expires on no day": ({"expires": "2027-02-30T00:00:00Z"}, "PLG-ENV-007"),
    "expires is a number": ({"expires": 1}, "PLG-ENV-007"),
    "no files": ({"files": None}, "PLG-ENV-008"),
    "empty files": ({"files": []}, "PLG-ENV-008"),
    "files is an object": ({"files": {}}, "PLG-ENV-008"),
    "file is text": ({"files": ["a"]}, "PLG-ENV-008"),
    "file with a further field": ({"files": entry(link="x")}, "PLG-ENV-008"),
    "file without mode": ({"files": [{k: v for k, v in ENTRY.items() if k != "mode"}]}, "PLG-ENV-008"),
    "path is a number": ({"files": entry(path=1)}, "PLG-ENV-008"),
    "negative size": ({"files": entry(size=-1)}, "PLG-ENV-008"),
    "size is true": ({"files": entry(size=True)}, "PLG-ENV-008"),
    "upper-case hash": ({"files": entry(sha256="A" * 64)}, "PLG-ENV-008"),
    "short hash": ({"files": entry(sha256="0" * 63)}, "PLG-ENV-008"),
    "setuid": ({"files": entry(mode=0o4755)}, "PLG-ENV-011"),
    "world-writable": ({"files": entry(mode=0o666)}, "PLG-ENV-011"),
    "mode as text": ({"files": entry(mode="0644")}, "PLG-ENV-011"),
    "payload over 4 GiB": ({"files": entry(size=4 * 1024**3 + 1)}, "PLG-ENV-009"),
    "unsorted files": ({"files": [{**ENTRY, "path": "b"}, {**ENTRY, "path": "a"}]}, "PLG-ENV-010"),
    "climbing path": ({"files": entry(path="../x")}, "PLG-PTH-002"),
    "absolute path": ({"files": entry(path="/x")}, "PLG-PTH-002"),
    "path under PLUGSEC": ({"files": entry(path="PLUGSEC/x")}, "PLG-PTH-007"),
    "doubled path": ({"files": [ENTRY, ENTRY]}, "PLG-PTH-005"),
    "case collision": ({"files": [{**ENTRY, "path": "A"}, {**ENTRY, "path": "a"}]}, "PLG-PTH-005"),
    "file and directory": ({"files": [{**ENTRY, "path": "a"}, {**ENTRY, "path": "a/b"}]}, "PLG-PTH-006"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_malformed_manifest_is_refused(name):
    fields, error_id = BAD[name]
    with pytest.raises(SigningError) as caught:
        parse_envelope(kit.manifest(**fields))
    assert (caught.value.id, caught.value.code) == (error_id, 4)


def test_a_manifest_for_a_newer_plugsec_is_told_apart_from_nonsense():
    with pytest.raises(EnvelopeError, match="newer plugsec") as caught:
        parse_envelope(kit.manifest(schema="plugsec.manifest/2"))
    assert caught.value.hint == "upgrade plugsec"


def test_a_million_files_are_refused_before_they_are_parsed():
    text = kit.manifest().replace(b'"files":[', b'"files":[' + b'{"path":"a"},' * 1_000_000)
    with pytest.raises(SigningError) as caught:
        parse_envelope(text)
    assert caught.value.id == "PLG-JSN-001"


def test_more_files_than_the_cap_are_refused(monkeypatch):
    """The cap of 100,000 with paths that would fit 8 MiB is lowered here; the check is the same."""
    monkeypatch.setattr("plugsec_signing.envelope.MAX_FILES", 2)
    with pytest.raises(EnvelopeError) as caught:
        parse_envelope(kit.manifest())
    assert caught.value.id == "PLG-ENV-009"


@pytest.mark.parametrize("text", [b"[]", b'"x"', b"1", b"null"])
def test_a_manifest_that_is_no_object_is_refused(text):
    with pytest.raises(EnvelopeError) as caught:
        parse_envelope(text)
    assert caught.value.id == "PLG-ENV-001"


def test_the_envelope_says_what_the_manifest_says():
    data = kit.manifest(expires="2027-01-01T00:00:00Z", summary="kept for the next room")
    envelope = parse_envelope(data)
    assert (envelope.publisher, envelope.plugin, envelope.name) == ("acme", "wordfreq", "acme/wordfreq")
    assert (envelope.version, envelope.release, envelope.expires) == ("1.2.3", 7, 1798761600)
    assert [file.path for file in envelope.files] == sorted(kit.FILES)
    assert envelope.raw["summary"] == "kept for the next room"
    assert envelope.bundle_id == "sha256:" + hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize(
    "version",
    ["0.0.0", "1.2.3", "1.0.0-alpha", "1.0.0-alpha.1", "1.0.0-0.3.7", "1.0.0-x-y-z.--", "1.0.0+001",
     "1.0.0-beta+exp.sha.5114f85", "1.0.0+21AF26D3---117B344092BD", "2.0.0-rc.1+build.123",
     "1.0.0-0A.is.legal"],
)  # fmt: skip
def test_semantic_versions_are_accepted(version):
    assert check_version(version) == version


@pytest.mark.parametrize(
    "version",
    ["1", "1.2", "1.2.3-0123", "1.2.3-0123.0123", "1.1.2+.123", "+invalid", "-invalid", "1.0.0-alpha_beta",
     "alpha", "01.1.1", "1.01.1", "1.2.3.DEV", "1.2-SNAPSHOT", "1.0.0-", "1.0.0+", "1.0.0-a..b", "1.0.0+a+b",
     "v1.0.0", " 1.0.0", "1.0.0-\u0661", "\u0661.0.0", "-1.0.3-gamma", "1.0.0-alpha..1"],
)  # fmt: skip
def test_other_versions_are_refused(version):
    with pytest.raises(EnvelopeError):
        check_version(version)


@given(st.none() | st.integers() | st.text(max_size=80) | st.lists(st.integers(), max_size=2))
def test_any_value_is_a_name_or_a_version_or_is_refused(value):
    for check in (check_name, check_version):
        try:
            check(value)
        except EnvelopeError as err:
            assert err.message.isprintable()


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.sampled_from(["", "a", "acme/x", "1.0.0", HASH]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["path", "size", "mode", "sha256", "x"]), inner, max_size=5)
    ),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from([*sorted(kit.manifest_value()), "expires"]), JUNK))
def test_any_manifest_of_the_right_fields_is_read_or_refused_within_our_tree(fields):
    try:
        parse_envelope(canonical.encode({**kit.manifest_value(), **fields}))
    except SigningError as err:
        assert err.code == 4
