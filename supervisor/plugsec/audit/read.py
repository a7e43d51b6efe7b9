"""The log's lines, streamed: for verification and for showing. Memory does not grow with the log."""

import os
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from plugsec.audit import files, keys
from plugsec.audit.errors import LogTampered, LogUnwritable
from plugsec.audit.head import Head, HeadFile
from plugsec.audit.record import MAX_LINE
from plugsec.audit.recovery import Tail, judge
from plugsec_signing.canonical import decode
from plugsec_signing.errors import SigningError
from plugsec_signing.typed import NamedTuple

_CHUNK = 1 << 18


class Line(NamedTuple):
    """One line of a segment, without its newline; `number` counts from 1.

    `whole` is False when the newline is missing (the file was cut) or the line is longer than any record.
    """

    file: str
    number: int
    raw: bytes
    whole: bool


class Snapshot(NamedTuple):
    """The log as it stood under the lock: what counts, and what is wrong at first sight."""

    head: Head
    newest: Head  # differs from `head` only when a power cut lost unsynced records
    tails: tuple[Tail, ...]
    damaged_slot: int | None
    tampered: LogTampered | None  # less is there than the head counts; the walk may find out where


class Reader:
    """A log opened for reading only. Raises LogMissing, LogUnsafe, LogUnwritable (cannot be read)."""

    __slots__ = ("_fds", "boot", "directory", "dirfd")

    def __init__(self, directory: str) -> None:
        self.directory = os.path.abspath(directory)
        self.dirfd = files.open_directory(self.directory)
        self.boot = files.boot_id()
        self._fds: dict[str, int] = {}

    def __enter__(self) -> "Reader":
        return self

    def __exit__(self, *_: object) -> None:
        for fd in (*self._fds.values(), self.dirfd):
            os.close(fd)
        self._fds.clear()

    def open(self, name: str) -> int:
        """A descriptor of one of the log's files, opened once. Raises FileNotFoundError, LogUnsafe."""
        if name not in self._fds:
            try:
                self._fds[name] = files.open_file(self.dirfd, name, os.O_RDONLY)
            except PermissionError as err:
                raise LogUnwritable(f"cannot read {self.directory}/{name}: {err.strerror}") from err
        return self._fds[name]

    def open_segment(self, number: int) -> int:
        """A descriptor of segment `number`. Raises FileNotFoundError."""
        return self.open(files.segment_name(number))

    def open_checkpoints(self) -> int:
        """A descriptor of the checkpoints. Raises FileNotFoundError."""
        return self.open(files.CHECKPOINTS)

    def snapshot(self) -> Snapshot:
        """Read the head under the lock, so that no writer is half-way. Raises LogTampered, LogBusy."""
        lock_fd = -1
        try:
            lock_fd = self.open(files.LOCK)
            files.lock(lock_fd, shared=True)
        except FileNotFoundError:
            pass  # a copy without its lock has no writers either
        try:
            return self._snapshot(lock_fd)
        finally:
            if lock_fd >= 0:
                files.unlock(lock_fd)

    def _snapshot(self, lock_fd: int) -> Snapshot:
        try:
            head_fd = self.open(files.HEAD)
        except FileNotFoundError as err:
            if not self.segments():
                raise files.missing(self.directory) from err
            raise files.headless(self.directory) from err
        slots = HeadFile(self.directory, head_fd, lock_fd, keys.MacKeys(self.dirfd, self.directory))
        heads = slots.read()
        try:
            head, tails = judge(self, heads)
        except LogTampered as tampered:
            return Snapshot(heads[0], heads[0], (), slots.damaged(), tampered)
        return Snapshot(head, heads[0], tails, slots.damaged(), None)

    def segments(self) -> list[int]:
        """The numbers of the segments that are there, in order."""
        return sorted(
            files.segment_number(name) for name in os.listdir(self.dirfd) if files.segment_number(name)
        )

    def lines(self, head: Head) -> Iterator[Line]:
        """Every line that the head covers, from the first. Raises FileNotFoundError for a segment."""
        for number in range(1, head.segment + 1):
            limit = head.offset if number == head.segment else None
            yield from self.segment_lines(number, limit)

    def segment_lines(self, number: int, limit: int | None = None) -> Iterator[Line]:
        """The lines of one segment, of its first `limit` bytes when given."""
        name = files.segment_name(number)
        fd = self.open(name)
        try:
            yield from split_lines(fd, name, limit)
        finally:
            fd = self._fds.pop(name, -1)  # gone already when the reader was left in the middle
            if fd >= 0:
                os.close(fd)


def split_lines(fd: int, name: str, limit: int | None) -> Iterator[Line]:
    """The lines of a file, holding at most one line and one chunk in memory."""
    pending, number, offset, overlong = b"", 0, 0, False
    while limit is None or offset < limit:
        chunk = os.pread(fd, _CHUNK if limit is None else min(_CHUNK, limit - offset), offset)
        if not chunk:
            break
        offset += len(chunk)
        parts = (pending + chunk).split(b"\n")
        pending = parts.pop()
        for part in parts:
            number += 1
            yield Line(name, number, part[:MAX_LINE], len(part) < MAX_LINE and not overlong)
            overlong = False
        if len(pending) >= MAX_LINE:
            pending, overlong = pending[:MAX_LINE], True
    if pending:
        yield Line(name, number + 1, pending, False)


def parse(line: Line) -> dict[str, Any] | None:
    """The record of a line, or None when the line is not one."""
    if not line.whole:
        return None
    try:
        value = decode(line.raw, max_bytes=MAX_LINE, integers_only=True)
    except SigningError:
        return None
    if not isinstance(value, dict) or type(value.get("seq")) is not int or type(value.get("prev")) is not str:
        return None
    return value


def newest(
    reader: Reader, count: int, wanted: Callable[[dict[str, Any]], bool]
) -> tuple[list[dict[str, Any]], int]:
    """The newest `count` records that are `wanted`, oldest first, and how many lines were no records.

    Reads segments from the last one back and only as many as it needs; needs no head, so that a log
    that does not verify can still be looked at. Nothing is verified. Raises LogMissing, LogUnwritable.
    """
    found: deque[dict[str, Any]] = deque()
    unreadable = 0
    numbers = reader.segments()
    if not numbers:
        raise files.missing(reader.directory)
    for number in reversed(numbers):
        here: deque[dict[str, Any]] = deque(maxlen=count - len(found))
        try:
            for line in reader.segment_lines(number):
                record = parse(line)
                if record is None:
                    unreadable += 1
                elif wanted(record):
                    here.append(record)
        except OSError as err:
            raise LogUnwritable(f"cannot read the audit log {reader.directory}: {err.strerror}") from err
        found.extendleft(reversed(here))
        if len(found) >= count:
            break
    return list(found), unreadable
