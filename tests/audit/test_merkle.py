"""The tree is that of RFC 6962: checked against published vectors and against its definition."""

import base64
import hashlib
import json
import os
import pathlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plugsec.audit import merkle
from plugsec.audit.errors import ProofRefused

VECTORS = os.environ.get("PLUGSEC_VECTORS")
needs_vectors = pytest.mark.skipif(
    not VECTORS, reason="PLUGSEC_VECTORS is unset: published Merkle vectors not checked"
)


def cases(kind):
    folder = pathlib.Path(VECTORS or "/nonexistent", "merkle", "testdata", kind)
    return sorted(folder.rglob("*.json"))


def raw(text):
    return base64.b64decode(text) if text else b""


def check_inclusion(case):
    merkle.verify_inclusion(
        raw(case["leafHash"]),
        case["leafIdx"],
        case["treeSize"],
        [raw(node) for node in case["proof"] or ()],
        raw(case["root"]),
    )


def check_consistency(case):
    merkle.verify_consistency(
        case["size1"],
        case["size2"],
        raw(case["root1"]),
        raw(case["root2"]),
        [raw(node) for node in case["proof"] or ()],
    )


@needs_vectors
@pytest.mark.parametrize(
    ("kind", "check"), [("inclusion", check_inclusion), ("consistency", check_consistency)]
)
def test_published_proofs_are_judged_as_published(kind, check):
    files = cases(kind)
    assert len(files) > 50
    for file in files:
        case = json.loads(file.read_text())
        try:
            check(case)
            refused = False
        except ProofRefused:
            refused = True
        assert refused == case["wantErr"], file


def defined_root(leaves):
    """MTH of RFC 6962 section 2.1, by its recursive definition."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    split = 1 << ((len(leaves) - 1).bit_length() - 1)
    return merkle.node_hash(defined_root(leaves[:split]), defined_root(leaves[split:]))


def defined_consistency(m, leaves, whole=True):
    """PROOF of RFC 6962 section 2.1.2, by its recursive definition."""
    if m == len(leaves):
        return [] if whole else [defined_root(leaves)]
    split = 1 << ((len(leaves) - 1).bit_length() - 1)
    if m <= split:
        return [*defined_consistency(m, leaves[:split], whole), defined_root(leaves[split:])]
    return [*defined_consistency(m - split, leaves[split:], False), defined_root(leaves[:split])]


LEAVES = [merkle.leaf_hash(b"%d" % number) for number in range(130)]


def test_the_frontier_gives_the_defined_root_at_every_size():
    frontier = ()
    for size in range(len(LEAVES)):
        assert merkle.root_of(frontier) == defined_root(LEAVES[:size])
        assert len(frontier) == bin(size).count("1")
        frontier = merkle.push(frontier, size, LEAVES[size])


def test_the_newest_leaf_is_proven_at_every_size():
    frontier = ()
    for size in range(len(LEAVES)):
        path = merkle.last_leaf_path(frontier)
        frontier = merkle.push(frontier, size, LEAVES[size])
        merkle.verify_inclusion(LEAVES[size], size, size + 1, path, merkle.root_of(frontier))


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_a_consistency_proof_holds_and_no_altered_one_does(data):
    new = data.draw(st.integers(1, len(LEAVES)))
    old = data.draw(st.integers(1, new))
    path = defined_consistency(old, LEAVES[:new])
    roots = defined_root(LEAVES[:old]), defined_root(LEAVES[:new])
    merkle.verify_consistency(old, new, *roots, path)
    for position in range(len(path)):
        start, end = path[:position], path[position + 1 :]
        for changed in (start + end, [*start, b"x" * 32, *end]):
            with pytest.raises(ProofRefused):
                merkle.verify_consistency(old, new, *roots, changed)


HASHES = st.binary(min_size=32, max_size=32)


@settings(deadline=None)
@given(st.integers(-3, 2**70), st.integers(-3, 2**70), st.lists(HASHES, max_size=80))
def test_a_proof_of_nonsense_is_refused_not_crashed_on(index, size, path):
    with pytest.raises(ProofRefused):
        merkle.verify_inclusion(b"l" * 32, index, size, path, b"r" * 32)
    with pytest.raises(ProofRefused):
        merkle.verify_consistency(index, size, b"o" * 32, b"r" * 32, path)
