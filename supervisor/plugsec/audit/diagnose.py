"""Given the first line that does not follow from what came before: what was done, and to which record?

Each record repeats the hash of the line before, so a line is *vouched for* by its successor (the last one
by the head). Between two lines that disagree, the one that is vouched for is the genuine one.
"""

from collections.abc import Iterator
from typing import Any

from plugsec.audit import merkle
from plugsec.audit.errors import Fault
from plugsec.audit.head import Head
from plugsec.audit.read import Line, parse


def place(line: Line) -> str:
    """Where a line stands, in words."""
    return f"{line.file} line {line.number}"


def malformed(line: Line, expected: int) -> Fault:
    """A line that is no record: overwritten, cut, or put there."""
    what = "is not a record" if line.whole else "is cut off, or longer than any record"
    return Fault("malformed", line.file, line.number, expected, expected,
                 f"{place(line)}, where record {expected} should stand, {what}")


def disagreement(
    line: Line, record: dict[str, Any], *, expected: int, previous: Line | None, before: bytes,
    rest: Iterator[Line], head: Head,
) -> Fault:
    """The fault at `line`, which is a record but not the expected one, or does not follow `previous`.

    `before` is the hash of the line before `previous`; `rest` is what follows, and is read on.
    """
    seq = record["seq"]
    following = next(rest, None)
    after = parse(following) if following else None
    leaf = merkle.leaf_hash(line.raw)
    vouched = after["prev"] == leaf.hex() if after else following is None and head.last == leaf
    if seq == expected:
        if previous and vouched:
            return edited(previous, expected - 1)
        return edited(line, expected)
    alone = after["seq"] == expected + 1 if after else following is None and head.size == expected + 1
    if alone:  # only the number is wrong: the next record is where it belongs
        return edited(line, expected)
    if seq < expected:
        twice = previous and seq == expected - 1 and record["prev"] == before.hex() and vouched
        return _inserted(previous if twice and previous else line, seq)
    for later in ([following] if following else []), rest:
        for other in later:
            found = parse(other)
            if found and found["seq"] == expected:
                return Fault("reordered", line.file, line.number, expected, expected,
                             f"record {expected} stands at {place(other)} instead of {place(line)}")
    return Fault("removed", line.file, line.number, expected, seq - 1,
                 f"{_records(expected, seq - 1)} removed before {place(line)}")


def edited(line: Line, seq: int) -> Fault:
    """A record whose successor, or the head, names another hash."""
    return Fault("edited", line.file, line.number, seq, seq, f"record {seq} at {place(line)} was changed")


def _inserted(line: Line, seq: int) -> Fault:
    return Fault("inserted", line.file, line.number, seq, seq,
                 f"{place(line)} was inserted: it claims to be record {seq}, which stands elsewhere")


def _records(first: int, last: int) -> str:
    return f"record {first} was" if first == last else f"records {first} to {last} were"


def truncated(line: Line | None, count: int, head: Head) -> Fault:
    """The log ends before its head."""
    where = f"after {place(line)}" if line else "from the beginning"
    return Fault("truncated", line.file if line else "", line.number if line else None, count, head.size - 1,
                 f"{_records(count, head.size - 1)} cut off {where}")


def rewritten(first: int, last: int, what: str, file: str, number: int | None) -> Fault:
    """A chain that holds, but not the one that was signed: edited, and re-hashed from there on."""
    return Fault("rewritten", file, number, first, last, f"among records {first} to {last} at least one was"
                 f" changed and what follows re-hashed: they are not those of {what}")
