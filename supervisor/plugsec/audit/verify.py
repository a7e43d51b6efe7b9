"""Verify a whole log, in one pass and in bounded memory.

    1. open the directory and its files safely; read the head under the lock
    2. the head's MAC, under the key of its epoch
    3. the public key: derived from the epoch's secret, named by the first record and by its file
    4. every line: a record, numbered in order, naming the hash of the line before
    5. the Merkle root at each checkpoint's size is the one it signed; each signature verifies; no
       checkpoint is missing or exchanged
    6. the root at each anchor's size is the anchor's
    7. the end: as many records as the head counts, its root, its last hash
    8. nothing lies beyond the head, and both slots of the head are whole

What a pass means is said in `Verified`: within the current epoch whoever has this user's rights holds the
key and could have rewritten everything that no anchor covers.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from plugsec.audit import checkpoints, diagnose, files, keys, merkle, note
from plugsec.audit.errors import Fault, LogTampered, LogUnwritable, NeedsRecovery, NoteRefused
from plugsec.audit.head import NO_HASH
from plugsec.audit.read import Line, Reader, Snapshot, parse, split_lines
from plugsec_signing.canonical import decode
from plugsec_signing.errors import SigningError
from plugsec_signing.typed import NamedTuple

MAX_ANCHORS = 1000  # kept in memory; a person compares one

CURRENT_EPOCH = (
    "whoever has this user's rights holds the key of the current epoch and could have rewritten these"
    " records; only a checkpoint kept elsewhere (plugsec audit checkpoint, then verify --anchor) excludes it"
)


class Verified(NamedTuple):
    """A log that verified. The record counts say how far each kind of proof reaches, from record 0."""

    directory: str
    origin: str
    epoch: int
    epoch_key: str  # OpenSSH form
    size: int
    root: str
    segments: int
    checkpoints: int
    checkpointed: int  # records under a signed checkpoint
    anchored: int  # records under an anchor that the caller kept elsewhere
    sealed: int  # records of epochs whose key was erased
    current_epoch: int  # records that only the current key protects: size - max(anchored, sealed)
    beyond_head: int  # bytes; a log with any does not verify
    clock_steps_back: int  # records whose time lies before that of the record before
    first_ts: str
    last_ts: str


class _Mark(NamedTuple):
    """A point at which the root is known: a checkpoint of the log, or an anchor."""

    size: int
    root: bytes
    what: str
    file: str
    line: int | None


def verify(directory: str, *, anchors: Sequence[bytes] = ()) -> Verified:
    """Verify the log in `directory`; `anchors` are checkpoints (signed notes) kept elsewhere.

    Raises LogTampered (with the first bad record), NeedsRecovery, LogMissing, LogUnsafe, LogBusy,
    NoteRefused (an anchor that is not a checkpoint), all exit 9.
    """
    with Reader(directory) as reader:
        try:
            return _Pass(reader, reader.snapshot(), anchors).run()
        except OSError as err:
            raise LogUnwritable(f"cannot read the audit log {directory}: {err.strerror}") from err


class _Pass:
    """The state of one verification."""

    def __init__(self, reader: Reader, snapshot: Snapshot, anchors: Sequence[bytes]) -> None:
        self.reader, self.snapshot, self.head = reader, snapshot, snapshot.head
        secret = keys.load_secret(reader.dirfd, reader.directory, self.head.epoch)
        self.public = keys.public_raw(keys.signing_key(secret))
        self.public_line = keys.openssh_line(self.public, self.head.origin)
        self.anchors = self._read_anchors(anchors)
        self.checkpoints = 0
        self.chain = NO_HASH
        self.good = self.anchored = 0  # records up to the last point, the last anchor, that agreed
        self.steps_back = 0
        self.times = ["", ""]

    def run(self) -> Verified:
        self._check_public_key()
        self._check_identity()
        self._check_end(*self._walk())
        head = self.head
        if self.chain != head.checkpoint_chain:
            raise self._tampered(
                Fault(
                    "checkpoint",
                    files.CHECKPOINTS,
                    None,
                    None,
                    None,
                    f"{files.CHECKPOINTS} is not the one that the head covers",
                )
            )
        self._check_beyond()
        return Verified(
            directory=self.reader.directory,
            origin=head.origin,
            epoch=head.epoch,
            epoch_key=self.public_line,
            size=head.size,
            root=head.root.hex(),
            segments=head.segment,
            checkpoints=self.checkpoints,
            checkpointed=head.checkpoint_size,
            anchored=self.anchored,
            sealed=0,
            current_epoch=head.size - self.anchored,
            beyond_head=0,
            clock_steps_back=self.steps_back,
            first_ts=self.times[0],
            last_ts=self.times[1],
        )

    def _tampered(self, fault: Fault) -> LogTampered:
        return LogTampered(fault, self.reader.directory)

    def _walk(self) -> tuple[int, Line | None, tuple[bytes, ...], tuple[bytes, ...]]:
        """Steps 4 to 6: returns the number of records, the last line, the frontier with and without it."""
        frontier: tuple[bytes, ...] = ()
        shorter = frontier
        count, last, before, previous = 0, NO_HASH, NO_HASH, None
        marks = self._marks()
        mark = next(marks, None)
        lines = self._lines()
        for line in lines:
            record = parse(line)
            if record is None:
                raise self._tampered(diagnose.malformed(line, count))
            if record["seq"] != count or record["prev"] != last.hex():
                known = (mark.size, mark.root) if mark else (self.head.size, self.head.root)
                raise self._tampered(
                    diagnose.disagreement(
                        line,
                        record,
                        lines,
                        diagnose.Context(count, previous, before, shorter, *known, self.head),
                    )
                )
            self._note_time(record)
            before, last = last, merkle.leaf_hash(line.raw)
            shorter, frontier = frontier, merkle.push(frontier, count, last)
            count, previous = count + 1, line
            while mark and mark.size == count:
                if merkle.root_of(frontier) != mark.root and count == self.head.size:
                    self._check_end(count, line, frontier, shorter)  # the head may know more exactly
                self._check_mark(mark, frontier)
                mark = next(marks, None)
        if mark and mark.size > self.head.size:  # in order of size, so the others are too
            raise self._tampered(
                Fault(
                    "rolled back",
                    mark.file,
                    mark.line,
                    self.head.size,
                    mark.size - 1,
                    f"{mark.what} covers {mark.size} records, the log holds {count}",
                )
            )
        return count, previous, frontier, shorter

    def _check_end(
        self, count: int, line: Line | None, frontier: tuple[bytes, ...], shorter: tuple[bytes, ...]
    ) -> None:
        """Step 7."""
        head = self.head
        if count < head.size:
            raise self._tampered(diagnose.truncated(line, count, head))
        if self.snapshot.tampered:
            raise self.snapshot.tampered
        if count == head.size and frontier == head.frontier:
            return
        if line and count == head.size and merkle.push(shorter, count - 1, head.last) == head.frontier:
            raise self._tampered(diagnose.edited(line, count - 1))
        raise self._tampered(diagnose.rewritten(self.good, head.size - 1, "the head", files.HEAD, None))

    def _lines(self) -> Iterator[Line]:
        try:
            yield from self.reader.lines(self.head)
        except FileNotFoundError as err:
            raise self._tampered(
                Fault(
                    "segment missing",
                    str(err.filename),
                    None,
                    None,
                    None,
                    f"the segment {err.filename} is missing",
                )
            ) from err

    def _note_time(self, record: dict[str, Any]) -> None:
        """A clock may be set back; that is worth knowing, and no fault of the log."""
        time = record.get("ts")
        if isinstance(time, str):
            self.steps_back += time < self.times[1]
            self.times[1] = time
            self.times[0] = self.times[0] or time

    def _check_identity(self) -> None:
        """Step 3, before checkpoints of another log would be the first thing noticed."""
        line = next(self._lines(), None)
        record = parse(line) if line else None
        if line and record and record["seq"] == 0 and not self._names_us(record):
            raise self._tampered(self._foreign(line))

    def _names_us(self, record: dict[str, Any]) -> bool:
        detail = record.get("detail")
        named = detail if record.get("event") == "log.created" and isinstance(detail, dict) else {}
        return named.get("origin") == self.head.origin and named.get("public_key") == self.public_line

    def _foreign(self, line: Line) -> Fault:
        return Fault(
            "foreign",
            line.file,
            line.number,
            0,
            0,
            f"the first record ({diagnose.place(line)})"
            " does not name the origin in the head and the key in the key file",
        )

    def _check_mark(self, mark: _Mark, frontier: tuple[bytes, ...]) -> None:
        # The log's own checkpoints do not vouch against an anchor: one key may have re-signed them all.
        known = self.anchored if mark.line is None else self.good
        if merkle.root_of(frontier) != mark.root:
            raise self._tampered(diagnose.rewritten(known, mark.size - 1, mark.what, mark.file, mark.line))
        self.good = mark.size
        if mark.line is None:
            self.anchored = mark.size

    # Steps 5 and 6: the points at which the root is known, in order of size

    def _marks(self) -> Iterator[_Mark]:
        anchors = iter(self.anchors)
        anchor = next(anchors, None)
        for checkpoint in self._checkpoints():
            while anchor and anchor.size < checkpoint.size:
                yield anchor
                anchor = next(anchors, None)
            yield checkpoint
        while anchor:
            yield anchor
            anchor = next(anchors, None)

    def _checkpoints(self) -> Iterator[_Mark]:
        try:
            fd = self.reader.open_checkpoints()
        except FileNotFoundError as err:
            raise self._tampered(
                Fault("missing file", files.CHECKPOINTS, None, None, None, f"{files.CHECKPOINTS} is missing")
            ) from err
        size = 0
        for line in split_lines(fd, files.CHECKPOINTS, self.head.checkpoint_offset):
            try:
                found = self._open(line)
                if not size < found.size <= self.head.size or found.origin != self.head.origin:
                    raise NoteRefused("it is out of order, or of another log")
            except NoteRefused as err:
                raise self._tampered(
                    Fault(
                        "checkpoint",
                        line.file,
                        line.number,
                        None,
                        None,
                        f"the checkpoint at {diagnose.place(line)} is not what was written: {err.message}",
                    )
                ) from err
            size = found.size
            self.checkpoints += 1
            self.chain = checkpoints.chained(self.chain, line.raw + b"\n")
            yield _Mark(size, found.root, f"the checkpoint at {diagnose.place(line)}", line.file, line.number)

    def _open(self, line: Line) -> note.Checkpoint:
        try:
            entry = decode(line.raw, max_bytes=note.MAX_NOTE, integers_only=True) if line.whole else None
        except SigningError as err:
            raise NoteRefused(err.message) from err
        if not isinstance(entry, dict) or not isinstance(entry.get("note"), str):
            raise NoteRefused("the line is not a checkpoint")
        found = note.open_checkpoint(entry["note"].encode(), self.public)
        if entry.get("size") != found.size or entry.get("epoch") != self.head.epoch:
            raise NoteRefused("the line and its note disagree")
        return found

    def _read_anchors(self, anchors: Sequence[bytes]) -> list[_Mark]:
        if len(anchors) > MAX_ANCHORS:
            raise NoteRefused(f"more than {MAX_ANCHORS} anchors were given")
        marks = []
        for number, text in enumerate(anchors, 1):
            found = note.open_checkpoint(text, self.public)
            if not found.size:
                raise NoteRefused(f"anchor {number} covers no records")
            if found.origin != self.head.origin:
                raise self._tampered(
                    Fault(
                        "foreign",
                        f"anchor {number}",
                        None,
                        None,
                        None,
                        f"anchor {number} is of another log ({found.origin})",
                    )
                )
            marks.append(_Mark(found.size, found.root, f"anchor {number}", f"anchor {number}", None))
        return sorted(marks, key=lambda mark: mark.size)

    # Steps 3 and 8

    def _check_public_key(self) -> None:
        name = keys.public_name(self.head.epoch)
        try:
            stored = files.read_all(self.reader.open(name), 4096)
        except FileNotFoundError:
            stored = b""
        if stored != self.public_line.encode() + b"\n":
            secret = keys.secret_name(self.head.epoch)
            raise self._tampered(
                Fault("key", name, None, None, None, f"{name} is not the public half of {secret}")
            )

    def _check_beyond(self) -> None:
        snapshot, head = self.snapshot, self.head
        for tail in snapshot.tails:
            if not tail.size:
                continue  # a segment begun, with nothing in it
            raise self._recovery(
                tail.file, head.size, f"{tail.size} bytes of {tail.file} lie beyond the head"
            )
        if snapshot.newest.size != head.size:
            raise self._recovery(
                files.segment_name(head.segment),
                head.size,
                f"{snapshot.newest.size - head.size} unsynced records were lost when the machine stopped",
            )
        if head.torn:
            raise self._recovery(files.HEAD, head.size, "a recovery was not finished")
        if snapshot.damaged_slot:
            raise self._recovery(files.HEAD, None, f"slot {snapshot.damaged_slot} of the head is damaged")

    def _recovery(self, file: str, seq: int | None, message: str) -> NeedsRecovery:
        return NeedsRecovery(Fault("beyond head", file, None, seq, None, message), self.reader.directory)
