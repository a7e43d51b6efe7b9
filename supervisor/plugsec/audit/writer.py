"""The files of a log, opened for appending: every change happens here, under the writers' lock.

One append, in the order that makes a crash at any point harmless:

    1. lock; read the head; what lies beyond it was left by a writer that died (recovery.py)
    2. write() the line with O_APPEND
    3. durable: fdatasync the segment
    4. write the new head over the spare slot; durable: fdatasync it
    5. unlock

A crash before 4 leaves bytes beyond the head: nobody was told that they were recorded. A short write
that we live to see is taken back on the spot.
"""

import os
from collections.abc import Mapping

from plugsec.audit import checkpoints, files, keys, merkle, record, recovery
from plugsec.audit.errors import LogUnwritable
from plugsec.audit.head import Head, HeadFile
from plugsec_signing.typed import Any

_LOCK_TRIES = 3  # a lock file replaced under us more often than this is an attack, not an accident


class Writer:
    """Open descriptors of one log in one process; everything but `begin` needs the lock."""

    __slots__ = (
        "_checkpoints_fd",
        "boot",
        "directory",
        "dirfd",
        "head_fd",
        "heads",
        "last_proof",
        "lock_fd",
        "redact",
        "segment_fd",
        "segment_number",
        "session",
    )

    def __init__(self, directory: str, redact: record.Redaction) -> None:
        self.directory, self.redact = directory, redact
        self.lock_fd = self.head_fd = self.segment_fd = self._checkpoints_fd = -1
        self.segment_number = 0
        self.session = os.urandom(8).hex()
        self.boot = files.boot_id()
        self.last_proof: tuple[bytes, ...] = ()
        self.heads: HeadFile
        self.dirfd = files.open_directory(directory, create=True)

    def close(self) -> None:
        """Close every descriptor; the lock, if held by this object alone, ends with them."""
        for name in ("lock_fd", "head_fd", "segment_fd", "_checkpoints_fd", "dirfd"):
            fd = getattr(self, name)
            if fd >= 0:
                os.close(fd)
                setattr(self, name, -1)

    def begin(self) -> Head:
        """Take the lock; return the head that counts, after recovery where a writer died.

        Raises LogBusy, LogTampered, LogUnsafe, LogUnwritable, OSError; the lock is then free again.
        """
        self._take_lock()
        try:
            if self.head_fd < 0:
                self._open_head()
            return recovery.settle(self)
        except BaseException:
            self.end()
            raise

    def end(self) -> None:
        """Release the lock."""
        if self.lock_fd >= 0:
            files.unlock(self.lock_fd)

    def _take_lock(self) -> None:
        for _ in range(_LOCK_TRIES):
            if self.lock_fd < 0:
                self.lock_fd = files.open_file(self.dirfd, files.LOCK, os.O_RDWR | os.O_CREAT)
            files.lock(self.lock_fd)
            if os.fstat(self.lock_fd).st_nlink:
                return
            os.close(self.lock_fd)  # removed while we waited: others lock another file
            self.lock_fd = -1
        raise LogUnwritable(f"the lock of the audit log {self.directory} keeps being replaced")

    def _open_head(self) -> None:
        try:
            self.head_fd = files.open_file(self.dirfd, files.HEAD, os.O_RDWR)
        except FileNotFoundError:
            from plugsec.audit.create import create  # noqa: PLC0415 - once in a log's life

            create(self.dirfd, self.directory, self.session, self.boot, self.redact)
            self.head_fd = files.open_file(self.dirfd, files.HEAD, os.O_RDWR)
        mac_keys = keys.MacKeys(self.dirfd, self.directory)
        self.heads = HeadFile(self.directory, self.head_fd, self.lock_fd, mac_keys)

    def open_segment(self, number: int) -> int:
        """The descriptor of segment `number`, for appending. Raises FileNotFoundError."""
        if self.segment_number != number:
            if self.segment_fd >= 0:
                os.close(self.segment_fd)
                self.segment_fd, self.segment_number = -1, 0
            name = files.segment_name(number)
            self.segment_fd = files.open_file(self.dirfd, name, os.O_RDWR | os.O_APPEND)
            self.segment_number = number
        return self.segment_fd

    def open_checkpoints(self) -> int:
        """The descriptor of the checkpoints, for appending. Raises FileNotFoundError."""
        if self._checkpoints_fd < 0:
            self._checkpoints_fd = files.open_file(self.dirfd, files.CHECKPOINTS, os.O_RDWR | os.O_APPEND)
        return self._checkpoints_fd

    def append(
        self,
        head: Head,
        event: str,
        detail: Mapping[str, Any],
        optional: Mapping[str, str | None],
        *,
        durable: bool,
    ) -> tuple[Head, bytes]:
        """Append one record to the current segment; return the new head and the line.

        Raises OSError as the system reports it; nothing has been acknowledged then.
        """
        if head.size >= merkle.MAX_LEAVES:
            raise LogUnwritable(
                f"the audit log {self.directory} has reached {head.size} records",
                "move it away; the next run starts a new log",
            )
        line = record.build(
            seq=head.size,
            prev=head.last,
            event=event,
            session=self.session,
            boot_id=self.boot,
            optional=optional,
            detail=detail,
            redact=self.redact,
        )
        files.write_whole(self.segment_fd, line + b"\n", head.offset)
        leaf = merkle.leaf_hash(line)
        self.last_proof = merkle.last_leaf_path(head.frontier)
        new = head._replace(
            size=head.size + 1,
            frontier=merkle.push(head.frontier, head.size, leaf),
            last=leaf,
            offset=head.offset + len(line) + 1,
        )
        return self.commit(new, durable=durable), line

    def commit(self, new: Head, *, durable: bool) -> Head:
        """Make `new` the head. Durable: what it covers, and then itself, is on the disk on return."""
        if durable:
            os.fdatasync(self.segment_fd)
        return self.heads.write(new._replace(durable=durable, boot_id=self.boot), self.segment_fd)

    def rotate(self, head: Head) -> Head:
        """Close the current segment: a checkpoint, a new file, and `log.rotated` as its first record.

        Until the head names the new file it lies beyond the head, and recovery takes it away.
        """
        if head.segment >= files.MAX_SEGMENTS:
            raise LogUnwritable(
                f"the audit log {self.directory} has no segment numbers left",
                "move it away; the next run starts a new log",
            )
        head, _ = checkpoints.write(self, head)
        closed, root = files.segment_name(head.segment), head.root.hex()
        files.write_new(self.dirfd, files.segment_name(head.segment + 1), b"")
        files.sync_directory(self.dirfd, ".")
        self.open_segment(head.segment + 1)
        head, _ = self.append(
            head._replace(segment=head.segment + 1, offset=0),
            "log.rotated",
            {"closed": closed, "root": root, "size": head.size},
            {},
            durable=True,
        )
        return head
