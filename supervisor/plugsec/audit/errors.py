"""What the audit log can refuse, as one branch of `plugsec.errors`.

AuditError (exit 9)
├── LogUnwritable    PLG-AUD-002   the system would not let us write
├── LogTampered      PLG-AUD-003   what is there is not what was written; carries the `Fault`
├── NeedsRecovery    PLG-AUD-004   a writer died half-way; the next append repairs and records it
├── LogFull          PLG-AUD-005   no space: the reserve is spent, no run may start
├── LogUnsafe        PLG-AUD-006   a symbolic link, another owner, or a mode that lets others in
├── LogBusy          PLG-AUD-007   another process holds the writers' lock for too long
├── LogFormat        PLG-AUD-008   written by a newer plugsec
├── ReceiptRefused   PLG-AUD-009   a receipt whose parts do not belong together
├── LogMissing       PLG-AUD-010   there is no log to read
├── ReceiptMalformed PLG-AUD-011   exit 4: not a receipt at all
├── ProofRefused     PLG-AUD-012   a Merkle proof that does not lead to the root
├── NoteRefused      PLG-AUD-013   a checkpoint that cannot be read or that this log did not sign
└── ReceiptSigner    PLG-AUD-014   exit 3: a receipt by another key than expected
"""

from plugsec.errors import AuditError
from plugsec_signing.typed import NamedTuple


class Fault(NamedTuple):
    """Where a log departs from what was written. Line numbers count from 1; `seq` from 0.

    `first_seq` and `last_seq` (inclusive) bound the records concerned: a rewriting that re-hashed all
    that follows can be narrowed down only to the stretch between two signed points.
    """

    kind: str
    file: str
    line: int | None
    first_seq: int | None
    last_seq: int | None
    message: str


class LogUnwritable(AuditError):
    """The log cannot be opened or written: permissions, a read-only or failing disk (exit 9)."""

    id = "PLG-AUD-002"


class LogTampered(AuditError):
    """The log is not what was written: edited, removed, reordered, cut, or under another key (exit 9)."""

    id = "PLG-AUD-003"

    def __init__(self, fault: Fault, directory: str) -> None:
        super().__init__(
            f"the audit log {directory} does not verify: {fault.message}",
            f"keep it as evidence (mv {directory} {directory}.evidence); the next run starts a new log",
        )
        self.fault = fault


class NeedsRecovery(AuditError):
    """Bytes lie beyond the head: a writer died between writing and committing (exit 9)."""

    id = "PLG-AUD-004"

    def __init__(self, fault: Fault, directory: str) -> None:
        super().__init__(
            f"the audit log {directory} needs recovery: {fault.message}",
            "any run recovers it (`plugsec audit checkpoint` does only that) and records what it found",
        )
        self.fault = fault


class LogFull(AuditError):
    """The disk is full; what was already running is still recorded from the reserve (exit 9)."""

    id = "PLG-AUD-005"


class LogUnsafe(AuditError):
    """A part of the log is a link, or belongs to or is open to somebody else (exit 9)."""

    id = "PLG-AUD-006"


class LogBusy(AuditError):
    """The writers' lock was not released in time (exit 9)."""

    id = "PLG-AUD-007"


class LogFormat(AuditError):
    """The log was written by a newer plugsec, which must be used to read it (exit 9)."""

    id = "PLG-AUD-008"


class ReceiptRefused(AuditError):
    """A receipt's signature is good, but its record, proof and tree do not belong together (exit 9)."""

    id = "PLG-AUD-009"


class LogMissing(AuditError):
    """There is no audit log in this place (exit 9)."""

    id = "PLG-AUD-010"


class ReceiptMalformed(AuditError):
    """The file is not a receipt (exit 4)."""

    id = "PLG-AUD-011"
    code = 4


class ProofRefused(AuditError):
    """A Merkle proof does not lead to the root (exit 9)."""

    id = "PLG-AUD-012"


class NoteRefused(AuditError):
    """A checkpoint (a signed note) cannot be read, or is not signed by this log (exit 9)."""

    id = "PLG-AUD-013"


class ReceiptSigner(AuditError):
    """A receipt is properly signed, but by another key than the one that was expected (exit 3)."""

    id = "PLG-AUD-014"
    code = 3
