"""Signed checkpoints, one JSON line each in `checkpoints.jsonl`: `{"epoch":1,"note":"…","size":64}`.

A checkpoint is signed only for what the head covers already, so a crash cannot leave a signature over a
history that did not happen. The head then covers the checkpoint in turn (length and running hash of
the file), so one that is removed or exchanged is missed.

`cryptography` (21 ms) is imported here only when one is due.
"""

import os
from hashlib import sha256

from plugsec.audit import files, keys
from plugsec.audit.head import Head
from plugsec_signing.canonical import encode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from plugsec.audit.writer import Writer

EVERY = 64
"""Records between checkpoints: what a re-hashed forgery can hide in, against 1/64 of a signature each."""


def sign(dirfd: int, directory: str, head: Head) -> bytes:
    """The signed note for the state that `head` describes."""
    from plugsec.audit import note  # noqa: PLC0415 - once in EVERY records

    private = keys.signing_key(keys.load_secret(dirfd, directory, head.epoch))
    return note.sign_checkpoint(note.Checkpoint(head.origin, head.size, head.root), private)


def write(writer: "Writer", head: Head) -> tuple[Head, bytes]:
    """Sign and store a checkpoint of the current state, durably; return the new head and the note.

    The state that the newest checkpoint covers already is not written twice. Raises OSError.
    """
    signed = sign(writer.dirfd, writer.directory, head)
    if head.size == head.checkpoint_size:
        return head, signed
    line = encode({"epoch": head.epoch, "note": signed.decode(), "size": head.size}) + b"\n"
    fd = writer.open_checkpoints()
    files.write_whole(fd, line, head.checkpoint_offset)
    os.fdatasync(fd)
    new = head._replace(
        checkpoint_size=head.size,
        checkpoint_offset=head.checkpoint_offset + len(line),
        checkpoint_chain=chained(head.checkpoint_chain, line),
    )
    return writer.commit(new, durable=True), signed


def chained(chain: bytes, line: bytes) -> bytes:
    """The running hash over the lines of the file."""
    return sha256(chain + line).digest()
