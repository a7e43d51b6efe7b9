"""Files of a log that hold anything at all: an AuditError or a verdict, never another exception."""

import hmac
import os
import tracemalloc

import logs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plugsec.audit import head, keys
from plugsec.audit.errors import AuditError
from plugsec.audit.log import AuditLog
from plugsec.audit.read import Reader, newest
from plugsec.audit.verify import verify
from plugsec.errors import REFUSALS
from plugsec_signing.canonical import encode

FILES = [
    "segment-000001.jsonl",
    "checkpoints.jsonl",
    "head",
    "lock",
    "keys/epoch-000001.key",
    "keys/epoch-000001.pub",
]


class Content(dict):
    """File name to content; too long to be printed with a failing example."""

    def __repr__(self):
        return "Content(…)"


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    """A log with checkpoints, and the content of its files, to be put back."""
    directory = logs.write(tmp_path_factory.mktemp("hostile") / "log", 66)
    return directory, Content({name: read(directory, name) for name in FILES})


def read(directory, name):
    with open(os.path.join(directory, name), "rb") as file:
        return file.read()


def put(directory, contents):
    for name, content in contents.items():
        with open(os.path.join(directory, name), "wb") as file:
            file.write(content)


def judge(directory):
    """Every way of reading; whatever is there, refusals are the only exceptions."""
    for act in (verify, show, append):
        try:
            act(directory)
        except REFUSALS as refused:
            assert refused.code in (4, 9)
            assert "\n" not in refused.message


def show(directory):
    with Reader(directory) as reader:
        newest(reader, 1000, lambda record: True)


def append(directory):
    with AuditLog.open(directory) as log:
        log.append("denial")


@settings(max_examples=60, deadline=None)
@given(name=st.sampled_from(FILES), content=st.binary(max_size=9000))
def test_any_bytes_in_any_file(log, name, content):
    directory, whole = log
    put(directory, {name: content})
    judge(directory)
    put(directory, whole)


@settings(max_examples=60, deadline=None)
@given(
    name=st.sampled_from(FILES), at=st.floats(0, 1), cut=st.integers(0, 600), put_in=st.binary(max_size=600)
)
def test_any_piece_replaced_in_any_file(log, name, at, cut, put_in):
    directory, whole = log
    content = whole[name]
    start = int(at * len(content))
    put(directory, {name: content[:start] + put_in + content[start + cut :]})
    judge(directory)
    put(directory, whole)


ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**53) + 1, 2**53 - 1),
    st.text(max_size=20),
    st.lists(st.text(max_size=5), max_size=3),
    st.just("00" * 32),
    st.just([]),
    st.just({}),
)
HEAD_FIELDS = [*head.Head._fields, "root", "format", "extra"]


@settings(max_examples=300, deadline=None)
@given(changes=st.dictionaries(st.sampled_from(HEAD_FIELDS), ODD, min_size=1, max_size=3))
def test_any_head_signed_with_the_right_key(log, changes):
    """Even the holder of the key gets a verdict and no traceback."""
    directory, whole = log
    mac_key = keys.mac_key(whole["keys/epoch-000001.key"])
    slot = whole["head"][:4096]
    good = head.from_slot(slot, directory, lambda _: mac_key)
    fields = {
        **good._asdict(),
        "last": good.last.hex(),
        "checkpoint_chain": good.checkpoint_chain.hex(),
        "frontier": [peak.hex() for peak in good.frontier],
        "torn": [],
        "root": good.root.hex(),
        "format": head.FORMAT,
        **changes,
    }
    body = encode(fields)
    mac = hmac.digest(mac_key, body, "sha256").hex()
    put(directory, {"head": (body + f' "{mac}"'.encode()).ljust(4095)[:4095] + b"\n" + whole["head"][4096:]})
    judge(directory)
    put(directory, whole)


def test_after_all_that_the_log_still_verifies(log):
    directory, whole = log
    put(directory, whole)
    with pytest.raises(AuditError):
        put(directory, {"head": b""})
        verify(directory)
    put(directory, whole)
    assert verify(directory).size == 66


def peak_of(directory):
    tracemalloc.start()
    try:
        verify(directory)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_does_not_grow_with_the_log(memory_path):
    small = peak_of(logs.write(memory_path / "small", 1000))
    large = peak_of(logs.write(memory_path / "large", 8000))
    assert large < 1.3 * small + 100_000
