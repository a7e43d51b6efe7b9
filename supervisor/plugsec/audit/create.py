"""The beginning of a log: its key, its first record, and last of all its head.

A directory without a head is no log yet. So a creation that dies leaves nothing that counts, and the next
one starts over; but a directory that holds *more* than a creation leaves is a log whose head was
removed, or no log at all, and is refused.

The first record, `log.created`, names the log (its origin) and the public key of epoch 1, so a verifier
that trusts any later point of the log knows which key signed its checkpoints.
"""

import os
from contextlib import suppress

from plugsec.audit import files, head, keys, merkle, record
from plugsec.audit.errors import LogUnsafe

RESERVE_BYTES = 256 * 1024
"""Four records of the greatest length, or hundreds of usual ones, after the disk is full."""

_FIRST_SEGMENT = files.segment_name(1)
_NEW_HEAD = "head.new"
_LEFTOVERS = (
    _NEW_HEAD,
    files.RESERVE,
    files.CHECKPOINTS,
    _FIRST_SEGMENT,
    keys.secret_name(1),
    keys.public_name(1),
)
_HOST_CHARS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_")


def create(dirfd: int, directory: str, session: str, boot: str, redact: record.Redaction) -> None:
    """Make an empty directory a log with one record. The lock is held. Raises AuditError, OSError."""
    _clear(dirfd, directory)
    for name in (files.KEYS, files.TORN):
        with suppress(FileExistsError):
            os.mkdir(name, 0o700, dir_fd=dirfd)
            os.chmod(name, 0o700, dir_fd=dirfd)  # whatever the umask is
    secret = os.urandom(keys.SECRET_BYTES)
    public = keys.public_raw(keys.signing_key(secret))
    origin = f"plugsec.audit/{_host()}/{os.urandom(8).hex()}"
    public_line = keys.openssh_line(public, origin)
    files.write_new(dirfd, keys.secret_name(1), secret)
    files.write_new(dirfd, keys.public_name(1), public_line.encode() + b"\n")
    line = record.build(
        seq=0,
        prev=head.NO_HASH,
        event="log.created",
        session=session,
        boot_id=boot,
        optional={},
        detail={"origin": origin, "epoch": 1, "public_key": public_line},
        redact=redact,
    )
    files.write_new(dirfd, _FIRST_SEGMENT, line + b"\n")
    files.write_new(dirfd, files.CHECKPOINTS, b"")
    fill_reserve(dirfd)
    leaf = merkle.leaf_hash(line)
    first = head.Head(
        origin=origin,
        epoch=1,
        generation=1,
        size=1,
        frontier=(leaf,),
        last=leaf,
        segment=1,
        offset=len(line) + 1,
        durable=True,
        boot_id=boot,
        checkpoint_size=0,
        checkpoint_offset=0,
        checkpoint_chain=head.NO_HASH,
        torn=(),
    )
    files.write_new(dirfd, _NEW_HEAD, head.to_slot(first, keys.mac_key(secret)) * head.SLOTS)
    for name in (files.KEYS, "."):
        files.sync_directory(dirfd, name)
    os.rename(_NEW_HEAD, files.HEAD, src_dir_fd=dirfd, dst_dir_fd=dirfd)
    files.sync_directory(dirfd, ".")
    files.sync_directory(dirfd, "..")


def fill_reserve(dirfd: int) -> None:
    """Set RESERVE_BYTES of the disk aside. Raises OSError (ENOSPC) and leaves nothing then."""
    fd = files.open_file(dirfd, files.RESERVE, os.O_WRONLY | os.O_CREAT)
    try:
        os.posix_fallocate(fd, 0, RESERVE_BYTES)
        os.fsync(fd)
    except OSError:
        release_reserve(dirfd)
        raise
    finally:
        os.close(fd)


def release_reserve(dirfd: int) -> bool:
    """Give the reserve back to the file system; return whether there was one."""
    try:
        os.unlink(files.RESERVE, dir_fd=dirfd)
    except FileNotFoundError:
        return False
    files.sync_directory(dirfd, ".")  # some file systems hand blocks out again only after a commit
    return True


def _clear(dirfd: int, directory: str) -> None:
    """Remove what an unfinished creation left; refuse everything else."""
    for name in sorted(os.listdir(dirfd)):
        if name not in (files.LOCK, files.KEYS, files.TORN, *_LEFTOVERS):
            if name.startswith("segment-"):
                raise files.headless(directory)
            raise LogUnsafe(
                f"{directory} holds other things than an audit log ({name})",
                "name an empty or new directory with --audit",
            )
    with suppress(FileNotFoundError):
        fd = files.open_file(dirfd, _FIRST_SEGMENT, os.O_RDONLY)
        try:
            begun = files.read_all(fd, record.MAX_LINE)
        finally:
            os.close(fd)
        if begun.count(b"\n") > 1:
            raise files.headless(directory)
    for name in _LEFTOVERS:
        with suppress(FileNotFoundError):
            os.unlink(name, dir_fd=dirfd)


def _host() -> str:
    """The host's name, as far as a note's key name can carry it (no spaces, no `+`)."""
    name = os.uname().nodename[:64]
    return "".join(character if character in _HOST_CHARS else "-" for character in name) or "host"
