"""The Merkle tree over the log's lines, exactly that of RFC 6962 section 2.1 (SHA-256).

Only the *frontier* is kept: the roots of the perfect subtrees that make up a tree of `size` leaves,
largest first, one for each set bit of `size`. It is at most 32 hashes long, and appending a leaf touches
as many of them as `size` has trailing one bits, so the cost of an append does not grow with the log.

    size 6 = 0b110   frontier = (root of leaves 0..3, root of leaves 4..5)
"""

from collections.abc import Sequence
from hashlib import sha256

from plugsec.audit.errors import ProofRefused

EMPTY_ROOT = sha256(b"").digest()
"""The root of the tree without leaves (RFC 6962 section 2.1)."""

MAX_LEAVES = 2**32
"""A head has to fit its slot with the longest frontier; at 1,000 records a second this lasts 50 days
of nothing else, and far longer in life."""

HASH_BYTES = 32
_MAX_PROOF = 64  # hashes; a tree of 2^63 leaves needs 63


def leaf_hash(line: bytes) -> bytes:
    """The hash of a line without its newline: a leaf, and what the next record's `prev` repeats."""
    return sha256(b"\x00" + line).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """The hash of an inner node."""
    return sha256(b"\x01" + left + right).digest()


def push(frontier: Sequence[bytes], size: int, leaf: bytes) -> tuple[bytes, ...]:
    """The frontier after appending `leaf` to a tree of `size` leaves."""
    peaks = list(frontier)
    while size & 1:  # bounded by the bits of `size`
        leaf = node_hash(peaks.pop(), leaf)
        size >>= 1
    peaks.append(leaf)
    return tuple(peaks)


def root_of(frontier: Sequence[bytes]) -> bytes:
    """The root of the tree with this frontier."""
    if not frontier:
        return EMPTY_ROOT
    root = frontier[-1]
    for peak in reversed(frontier[:-1]):
        root = node_hash(peak, root)
    return root


def last_leaf_path(frontier_before: Sequence[bytes]) -> tuple[bytes, ...]:
    """The inclusion proof of the newest leaf in the tree that it completes.

    Every sibling on its way up is a perfect subtree to the left: the frontier from before, smallest
    first (RFC 6962 section 2.1.1 with m = n - 1).
    """
    return tuple(reversed(frontier_before))


def verify_inclusion(leaf: bytes, index: int, size: int, path: Sequence[bytes], root: bytes) -> None:
    """Check that `leaf` is number `index` in the tree of `size` leaves under `root`.

    RFC 9162 section 2.1.3.2. Raises ProofRefused.
    """
    if not 0 <= index < size or len(path) > _MAX_PROOF or len(leaf) != HASH_BYTES:
        raise ProofRefused("the inclusion proof is for no place in this tree")
    here, last, node = index, size - 1, leaf
    for sibling in path:
        if last == 0:
            raise ProofRefused("the inclusion proof is too long")
        if here & 1 or here == last:
            node = node_hash(sibling, node)
            here, last = _skip_lonely(here, last)
        else:
            node = node_hash(node, sibling)
        here >>= 1
        last >>= 1
    if last != 0 or node != root:
        raise ProofRefused("the inclusion proof does not lead to the tree's root")


def verify_consistency(
    old_size: int, new_size: int, old_root: bytes, new_root: bytes, path: Sequence[bytes]
) -> None:
    """Check that the tree under `new_root` begins with the whole tree under `old_root`.

    RFC 9162 section 2.1.4.2; an empty old tree is refused, because it proves nothing.
    Raises ProofRefused.
    """
    if not 0 < old_size <= new_size or len(path) > _MAX_PROOF:
        raise ProofRefused("the consistency proof is for an empty tree, or for sizes in no order")
    if old_size == new_size:
        if path or old_root != new_root:
            raise ProofRefused("two trees of one size differ")
        return
    if not path:
        raise ProofRefused("the consistency proof is too short")
    # A tree that is a power of two is itself the first node of the way up.
    nodes = [old_root, *path] if old_size & (old_size - 1) == 0 else list(path)
    here, last = old_size - 1, new_size - 1
    while here & 1:
        here >>= 1
        last >>= 1
    old = new = nodes[0]
    for node in nodes[1:]:
        if last == 0:
            raise ProofRefused("the consistency proof is too long")
        if here & 1 or here == last:
            old, new = node_hash(node, old), node_hash(node, new)
            here, last = _skip_lonely(here, last)
        else:
            new = node_hash(new, node)
        here >>= 1
        last >>= 1
    if last != 0 or old != old_root or new != new_root:
        raise ProofRefused("the consistency proof does not lead to both roots")


def _skip_lonely(here: int, last: int) -> tuple[int, int]:
    """Climb the levels on which this subtree has no sibling."""
    while here and not here & 1:
        here >>= 1
        last >>= 1
    return here, last
