"""Given the first line that does not follow from what came before: what was done, and to which record?

Each record repeats the hash of the line before. Where two neighbours disagree, one of them is not what
was written; `_edits` finds out which by believing the successors, up to the next point whose root is
signed: if the root comes out right, exactly the records whose successors contradict them were changed.
"""

from binascii import Error as HexError
from binascii import unhexlify
from collections.abc import Iterator
from itertools import chain
from typing import Any

from plugsec.audit import merkle
from plugsec.audit.errors import Fault
from plugsec.audit.head import NO_HASH, Head
from plugsec.audit.read import Line, parse
from plugsec_signing.typed import NamedTuple


def place(line: Line) -> str:
    """Where a line stands, in words."""
    return f"{line.file} line {line.number}"


def malformed(line: Line, expected: int) -> Fault:
    """A line that is no record: overwritten, cut, or put there."""
    what = "is not a record" if line.whole else "is cut off, or longer than any record"
    return Fault(
        "malformed",
        line.file,
        line.number,
        expected,
        expected,
        f"{place(line)}, where record {expected} should stand, {what}",
    )


class Context(NamedTuple):
    """Where the walk stood when a line did not fit: the next record is number `expected`."""

    expected: int
    previous: Line | None
    before: bytes  # hash of the line before `previous`
    shorter: tuple[bytes, ...]  # frontier without `previous`
    size: int  # the next point with a known root: a checkpoint, an anchor or the head
    root: bytes
    head: Head


def disagreement(line: Line, record: dict[str, Any], rest: Iterator[Line], at: Context) -> Fault:
    """The fault at `line`, which is a record but not the expected one, or does not follow the one before.

    Reads on in `rest`, as far as it must.
    """
    seq, expected = record["seq"], at.expected
    if seq == expected:
        if at.previous and (first := _edits(at.previous, line, record, rest, at)):
            return first
        return edited(line, expected)
    following = next(rest, None)
    after = parse(following) if following else None
    alone = after["seq"] == expected + 1 if after else following is None and at.head.size == expected + 1
    if alone:  # only the number is wrong: the next record is where it belongs
        return edited(line, expected)
    if seq < expected:
        # Two lines claim one place. The one that the next record names is the genuine one.
        genuine = after is not None and after["prev"] == merkle.leaf_hash(line.raw).hex()
        twice = at.previous and seq == expected - 1 and record["prev"] == at.before.hex() and genuine
        return _inserted(at.previous if twice and at.previous else line, seq)
    for other in chain([following] if following else [], rest):
        found = parse(other)
        if found and found["seq"] == expected:
            return Fault(
                "reordered",
                line.file,
                line.number,
                expected,
                expected,
                f"record {expected} stands at {place(other)} instead of {place(line)}",
            )
    return Fault(
        "removed",
        line.file,
        line.number,
        expected,
        seq - 1,
        f"{_records(expected, seq - 1)} removed before {place(line)}",
    )


def _edits(
    previous: Line, line: Line, record: dict[str, Any], rest: Iterator[Line], at: Context
) -> Fault | None:
    """The fault at `previous`, if it was changed where it stands; None if `line` begins something foreign.

    Takes each record's hash from its successor. When the way to the next known root cannot be walked
    to its end (more was done than changing records in place), `previous` is named: it may be the first.
    """
    frontier = merkle.push(at.shorter, at.expected - 1, _claimed(record))
    last = at.expected - 1
    for number in range(at.expected, at.size):
        following = next(rest, None)
        after = parse(following) if following else None
        actual = merkle.leaf_hash(line.raw)
        if after is not None and following is not None and after["seq"] == number + 1:
            named, line = _claimed(after), following
        elif following is None and number + 1 == at.head.size:
            named = at.head.last
        else:
            return edited(previous, at.expected - 1)
        if named != actual:
            last = number
        frontier = merkle.push(frontier, number, named)
    if merkle.root_of(frontier) != at.root:
        return None
    first = edited(previous, at.expected - 1)
    if last == at.expected - 1:
        return first
    return first._replace(last_seq=last, message=f"{first.message}, and others up to record {last}")


def _claimed(record: dict[str, Any]) -> bytes:
    """The hash that a record names as its predecessor's; zeros when it names none."""
    try:
        named = unhexlify(record["prev"])
    except (HexError, ValueError):
        return NO_HASH
    return named if len(named) == merkle.HASH_BYTES else NO_HASH


def edited(line: Line, seq: int) -> Fault:
    """A record whose successor, or the head, names another hash."""
    return Fault("edited", line.file, line.number, seq, seq, f"record {seq} at {place(line)} was changed")


def _inserted(line: Line, seq: int) -> Fault:
    return Fault(
        "inserted",
        line.file,
        line.number,
        seq,
        seq,
        f"{place(line)} was inserted: it claims to be record {seq}, which stands elsewhere",
    )


def _records(first: int, last: int) -> str:
    return f"record {first} was" if first == last else f"records {first} to {last} were"


def truncated(line: Line | None, count: int, head: Head) -> Fault:
    """The log ends before its head."""
    where = f"after {place(line)}" if line else "from the beginning"
    return Fault(
        "truncated",
        line.file if line else "",
        line.number if line else None,
        count,
        head.size - 1,
        f"{_records(count, head.size - 1)} cut off {where}",
    )


def rewritten(first: int, last: int, what: str, file: str, number: int | None) -> Fault:
    """A chain that holds, but not the one that was signed: edited, and re-hashed from there on."""
    return Fault(
        "rewritten",
        file,
        number,
        first,
        last,
        f"among records {first} to {last} at least one was"
        f" changed and what follows re-hashed: they are not those of {what}",
    )
