"""What a writer finds when it takes the lock, and what it does about a predecessor that died.

    nothing beyond the head        the normal case: three stat calls
    bytes beyond the head          a writer died between its write() and its commit. Nobody was told that
                                   these records exist. They move to torn/, whole ones too
    less than the head says        tampered, and refused: exit 9. One exception, an unsynced head of an
                                   earlier boot: a power cut loses what nobody asked to be durable

A *live* writer never shows any of this: it holds the lock from before its write() until its head is
written. So no waiting, no process ids, no guessing is needed to tell a crash from work in progress.

The repair can itself die at any point: (1) copy to torn/, sync; (2) write a head that names what was
moved (`torn`); (3) cut it off; (4) record `log.recovered`, with a head without `torn`. Whoever comes next
finds the bytes still there (and repeats from 1, to the same name), or the `torn` entry (and does 4).
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from hashlib import sha256

from plugsec.audit import files, merkle
from plugsec.audit.errors import Fault, LogTampered
from plugsec.audit.head import Head
from plugsec_signing.canonical import decode
from plugsec_signing.errors import SigningError
from plugsec_signing.typed import Any, NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    from plugsec.audit.writer import Writer

    class OpenLog(Protocol):
        """What judging a log needs: its files, opened for reading or for appending."""

        dirfd: int
        directory: str
        boot: str

        def open_segment(self, number: int) -> int: ...
        def open_checkpoints(self) -> int: ...


_CHUNK = 1 << 20
_MAX_UNSYNCED = 8 << 20
"""Bytes between two synced heads: 64 records of 64 KiB (the next checkpoint syncs), with room."""


class Tail(NamedTuple):
    """Bytes of a file beyond what the head covers."""

    file: str
    offset: int
    size: int
    whole_file: bool = False  # a segment that no head has named yet


def settle(writer: "Writer") -> Head:
    """Return the head that counts, after repairing what a crashed writer left. The lock is held.

    Raises LogTampered when something that the head covers is gone.
    """
    heads = writer.heads.read()
    head, tails = judge(writer, heads)
    writer.heads.current = head
    lost = heads[0].size - head.size
    if tails or lost or head.torn:
        return _recover(writer, head, tails, lost)
    return head


def judge(log: "OpenLog", heads: Sequence[Head]) -> tuple[Head, tuple[Tail, ...]]:
    """Return which of the valid heads (newest first) counts, and what lies beyond it.

    Raises LogTampered. The caller holds the lock, shared at least.
    """
    head = heads[0]
    missing = _missing(log, head, heads[1:])
    if missing:
        unsynced = not head.durable and head.boot_id != log.boot
        if not (unsynced and len(heads) > 1 and _missing(log, heads[1], ()) is None):
            raise LogTampered(missing, log.directory)
        head = heads[1]
    return head, tuple(_beyond(log, head))


def _missing(log: "OpenLog", head: Head, older: Sequence[Head]) -> Fault | None:
    """The fault if the files hold less than `head` says."""
    name = files.segment_name(head.segment)
    try:
        size = _size(log.open_segment(head.segment))
        checkpoints = _size(log.open_checkpoints())
    except FileNotFoundError as err:
        return Fault("missing file", str(err.filename), None, None, None, f"{err.filename} is missing")
    if size < head.offset:
        return Fault(
            "truncated",
            name,
            None,
            None,
            head.size - 1,
            f"{name} holds {size} bytes where the head counts {head.offset}",
        )
    if checkpoints < head.checkpoint_offset:
        return Fault(
            "truncated",
            files.CHECKPOINTS,
            None,
            None,
            None,
            f"{files.CHECKPOINTS} holds {checkpoints} bytes where the head counts {head.checkpoint_offset}",
        )
    if not head.durable and head.boot_id != log.boot and older and not _arrived(log, older[0], head):
        return Fault(
            "truncated",
            name,
            None,
            older[0].size,
            head.size - 1,
            f"{name} does not hold the records that the head counts",
        )
    return None


def _size(fd: int) -> int:
    """The file's length; 0 when it was unlinked under us, so that appending to nowhere is noticed."""
    status = os.fstat(fd)
    return status.st_size if status.st_nlink else 0


def _arrived(log: "OpenLog", older: Head, newer: Head) -> bool:
    """Whether the unsynced records between two heads reached the disk, and not just their length."""
    start = older.offset if older.segment == newer.segment else 0
    if not 0 <= newer.offset - start <= _MAX_UNSYNCED:
        return False
    data = os.pread(log.open_segment(newer.segment), newer.offset - start, start)
    last = older.last
    for line in data.split(b"\n")[:-1]:
        try:
            record = decode(line, max_bytes=_MAX_UNSYNCED)
        except SigningError:
            return False
        if not isinstance(record, dict) or record.get("prev") != last.hex():
            return False
        last = merkle.leaf_hash(line)
    return last == newer.last


def _beyond(log: "OpenLog", head: Head) -> Iterator[Tail]:
    """What lies beyond the head: the ends of two files, and a segment begun but never entered."""
    size = os.fstat(log.open_segment(head.segment)).st_size
    if size > head.offset:
        yield Tail(files.segment_name(head.segment), head.offset, size - head.offset)
    size = os.fstat(log.open_checkpoints()).st_size
    if size > head.checkpoint_offset:
        yield Tail(files.CHECKPOINTS, head.checkpoint_offset, size - head.checkpoint_offset)
    following = files.segment_name(head.segment + 1)
    with suppress(FileNotFoundError):
        size = os.stat(following, dir_fd=log.dirfd, follow_symlinks=False).st_size
        yield Tail(following, 0, size, whole_file=True)


def _recover(writer: "Writer", head: Head, tails: Sequence[Tail], lost: int) -> Head:
    entries = list(head.torn)
    for tail in tails:
        if tail.size:  # an empty segment that was never entered holds nothing to keep
            entry = _keep(writer, tail)
            entries += [entry] if entry not in entries else []
    if lost:
        entries.append({"lost_unsynced_records": lost})
    if entries:
        head = writer.commit(head._replace(torn=tuple(entries)), durable=True)
    for tail in tails:
        if tail.whole_file:
            os.unlink(tail.file, dir_fd=writer.dirfd)
            files.sync_directory(writer.dirfd, ".")
        else:
            fd = writer.open_checkpoints() if tail.file == files.CHECKPOINTS else writer.segment_fd
            os.ftruncate(fd, tail.offset)
            os.fdatasync(fd)
    if entries:
        detail = {"torn": entries}
        head, _ = writer.append(head._replace(torn=()), "log.recovered", detail, {}, durable=True)
    return head


def _keep(writer: "Writer", tail: Tail) -> dict[str, Any]:
    """Copy a torn tail into torn/, durably, under a name made from its place and its hash."""
    source = files.open_file(writer.dirfd, tail.file, os.O_RDONLY)
    part = f"{files.TORN}/incoming"
    try:
        with suppress(FileNotFoundError):
            os.unlink(part, dir_fd=writer.dirfd)
        target = files.open_file(writer.dirfd, part, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        try:
            digest, newlines = sha256(), 0
            position, end = tail.offset, tail.offset + tail.size
            while position < end:
                chunk = os.pread(source, min(_CHUNK, end - position), position)
                if not chunk:
                    break
                digest.update(chunk)
                newlines += chunk.count(b"\n")
                files.write_whole(target, chunk, position - tail.offset)
                position += len(chunk)
            os.fsync(target)
        finally:
            os.close(target)
    finally:
        os.close(source)
    kept = f"{files.TORN}/{tail.file}.{tail.offset}.{digest.hexdigest()[:16]}"
    os.rename(part, kept, src_dir_fd=writer.dirfd, dst_dir_fd=writer.dirfd)
    files.sync_directory(writer.dirfd, files.TORN)
    return {
        "kept": kept,
        "file": tail.file,
        "offset": tail.offset,
        "bytes": tail.size,
        "sha256": digest.hexdigest(),
        "whole_lines": newlines,
    }
