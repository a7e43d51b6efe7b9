"""The audit log as the rest of plugsec uses it: open, append, checkpoint.

    with AuditLog.open(directory) as log:
        log.append("run.start", run=run_id, bundle_id=..., detail={...}, durable=True)

An `append` that returns has happened: every other process sees the record, and a durable one is on the
disk. An `append` that raises must be taken as not recorded. Objects may be shared by threads and
survive fork(): the child opens its own descriptors, because a lock taken through an inherited one would
be its parent's.
"""

import _thread
import errno
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager

from plugsec.audit import checkpoints, events, files, record, recovery
from plugsec.audit.errors import LogFull, LogUnwritable
from plugsec.audit.head import Head
from plugsec.audit.writer import Writer
from plugsec_signing.typed import Any, NamedTuple, Self

SEGMENT_BYTES = 16 * 1024 * 1024
"""A segment is closed at this length: about 30,000 records, a size that editors and e-mail still take."""

_NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT})


class Position(NamedTuple):
    """Where a record stands: its number from 0, and the hash of its line (hexadecimal)."""

    seq: int
    line_hash: str


class Evidence(NamedTuple):
    """What proves one record's place: for a receipt."""

    line: bytes
    position: Position
    path: tuple[bytes, ...]  # inclusion proof in the tree that this record completed
    root: bytes  # of that tree
    head: Head


class AuditLog:
    """One process's way to the log in `directory`; creates the log where there is none.

    `redact` is a function from text to text, or the secret values themselves; it is applied before
    anything is hashed or written. Raises AuditError (exit 9) only.
    """

    def __init__(
        self,
        directory: str,
        *,
        redact: Callable[[str], str] | Iterable[str | bytes] = (),
        segment_bytes: int = SEGMENT_BYTES,
    ) -> None:
        self.directory = os.path.abspath(directory)
        self.redact = redact if callable(redact) else record.redaction_of(redact)
        self._segment_bytes = segment_bytes
        self._evidence: Evidence | None = None
        self._connect()
        with self._locked():
            pass  # creates or recovers now, so that a broken log is known before anything starts

    @classmethod
    def open(
        cls,
        directory: str,
        *,
        redact: Callable[[str], str] | Iterable[str | bytes] = (),
        segment_bytes: int = SEGMENT_BYTES,
    ) -> Self:
        """Open for appending; the same as calling the class."""
        return cls(directory, redact=redact, segment_bytes=segment_bytes)

    def append(
        self,
        event: str,
        *,
        run: str | None = None,
        bundle_id: str | None = None,
        policy_digest: str | None = None,
        decision: str | None = None,
        detail: Mapping[str, Any] | None = None,
        durable: bool = False,
    ) -> Position:
        """Append one record; the event's kind may make it durable although the caller did not ask.

        Raises LogFull when the disk is (what is running can still be recorded, nothing can start),
        LogTampered when the log is shorter than its head, and the other AuditErrors.
        """
        if event not in events.EVENTS:
            raise RuntimeError(f"{event!r} is not an audit event; see plugsec.audit.events")
        durable = durable or event in events.DURABLE
        optional = {"run": run, "bundle_id": bundle_id, "policy_digest": policy_digest, "decision": decision}
        with self._locked() as before:
            if event in events.STARTS:
                self._ensure_reserve()
            try:
                head, line = self._append(before, event, detail or {}, optional, durable=durable)
            except OSError as err:
                if err.errno not in _NO_SPACE:
                    raise
                head, line = self._append_from_reserve(event, detail or {}, optional, err, durable=durable)
            position = Position(head.size - 1, head.last.hex())
            if event == "run.end":
                self._evidence = Evidence(line, position, self._writer.last_proof, head.root, head)
            if head.size - head.checkpoint_size >= checkpoints.EVERY:
                self._checkpoint_if_possible(head)
            return position

    def checkpoint(self) -> bytes:
        """Sign the log's present state, durably, and return the C2SP note."""
        with self._locked() as head:
            return checkpoints.write(self._writer, head)[1]

    @property
    def evidence(self) -> Evidence | None:
        """The newest `run.end` that this object recorded."""
        return self._evidence

    @property
    def head(self) -> Head:
        """The present state of the log."""
        with self._locked() as head:
            return head

    def close(self) -> None:
        """Close the descriptors. Nothing is pending: every append finished before it returned."""
        self._writer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _connect(self) -> None:
        self._pid = os.getpid()
        self._threads = _thread.allocate_lock()
        self._writer = Writer(self.directory, self.redact)

    @contextmanager
    def _locked(self) -> Iterator[Head]:
        """Hold the lock, with the head that counts. Whatever the system refuses becomes an AuditError."""
        if os.getpid() != self._pid:
            self._writer.close()
            self._connect()
        with self._threads:
            try:
                head = self._writer.begin()
                try:
                    yield head
                finally:
                    self._writer.end()
            except OSError as err:
                raise _refusal(err, self.directory) from err

    def _append(
        self,
        head: Head,
        event: str,
        detail: Mapping[str, Any],
        optional: Mapping[str, str | None],
        *,
        durable: bool,
    ) -> tuple[Head, bytes]:
        if head.offset >= self._segment_bytes:
            head = self._writer.rotate(head)
        return self._writer.append(head, event, detail, optional, durable=durable)

    def _append_from_reserve(
        self,
        event: str,
        detail: Mapping[str, Any],
        optional: Mapping[str, str | None],
        cause: OSError,
        *,
        durable: bool,
    ) -> tuple[Head, bytes]:
        """The disk is full: spend the reserve on saying so, then on what is already running."""
        from plugsec.audit.create import release_reserve  # noqa: PLC0415 - a rare path

        if not release_reserve(self._writer.dirfd):
            raise cause
        head = recovery.settle(self._writer)
        about = {"event": event, "run": optional["run"], "error": cause.strerror}
        head, _ = self._writer.append(head, "log.full", about, {}, durable=True)
        if event in events.STARTS:
            raise cause
        return self._append(head, event, detail, optional, durable=durable)

    def _ensure_reserve(self) -> None:
        """Nothing new starts while the disk's last space is spoken for."""
        try:
            os.stat(files.RESERVE, dir_fd=self._writer.dirfd, follow_symlinks=False)
        except FileNotFoundError:
            from plugsec.audit.create import fill_reserve  # noqa: PLC0415 - a rare path

            fill_reserve(self._writer.dirfd)

    def _checkpoint_if_possible(self, head: Head) -> None:
        """Without space the checkpoint stays due: the record itself is safe, and was promised."""
        try:
            checkpoints.write(self._writer, head)
        except OSError as err:
            if err.errno not in _NO_SPACE:
                raise


def _refusal(err: OSError, directory: str) -> LogFull | LogUnwritable:
    if err.errno in _NO_SPACE:
        return LogFull(
            f"the audit log {directory} has no space left, so no run may start",
            "free space on that file system, or name another directory with --audit",
        )
    return LogUnwritable(
        f"cannot write the audit log {directory}: {err.strerror}",
        "name a directory that can be written with --audit",
    )
