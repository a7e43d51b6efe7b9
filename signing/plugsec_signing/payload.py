"""The verified bytes themselves, held in memory that nobody can change any more.

A run executes what was hashed, not what lies under the same path a moment later: the payload is copied,
as it is hashed, into a memfd which is then sealed (memfd_create(2), fcntl(2) F_ADD_SEALS).
"""

import errno
import os

from plugsec_signing.envelope import Envelope, FileEntry
from plugsec_signing.errors import BundleError
from plugsec_signing.typed import NamedTuple

PAYLOAD_IN_MEMORY_MAX = 64 * 1024 * 1024  # beyond this a run would double its memory; the store maps files
_MFD_NOEXEC_SEAL = 0x0008  # Linux 6.3; required where sysctl vm.memfd_noexec is 2
# By number (linux/fcntl.h), since other systems have no such names and verify bundles all the same.
_F_ADD_SEALS = 1033
_SEALS = 0x1 | 0x2 | 0x4 | 0x8  # SEAL, SHRINK, GROW, WRITE


class PayloadEntry(NamedTuple):
    """Where a file's `size` bytes begin in the payload."""

    path: str
    mode: int
    offset: int
    size: int


class Payload(NamedTuple):
    """A sealed memfd and what it holds; whoever owns the evidence closes `fd`.

    `bound`: too large for memory, `fd` is instead the installed directory whose files were hashed.
    """

    fd: int
    entries: tuple[PayloadEntry, ...]
    bound: bool = False

    def read(self, path: str, most: int) -> bytes:
        """Return the beginning of a file, at most `most` bytes; nothing for a file that is not there."""
        for entry in self.entries:
            if entry.path == path:
                return self._read(entry, min(entry.size, most))
        return b""

    def _read(self, entry: PayloadEntry, size: int) -> bytes:
        if not self.bound:
            return os.pread(self.fd, size, entry.offset)
        fd = os.open(entry.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self.fd)
        try:
            return os.read(fd, size)
        finally:
            os.close(fd)


class PayloadWriter:
    """Collects a payload while it is being verified; `seal` ends the writing, `abandon` the attempt.

    `tree` is the directory that an installed payload is read from: what is too large stays there.
    """

    def __init__(self, envelope: Envelope, tree: int = -1) -> None:
        total = sum(entry.size for entry in envelope.files)
        self._bound = total > PAYLOAD_IN_MEMORY_MAX and tree >= 0
        if total > PAYLOAD_IN_MEMORY_MAX and not self._bound:
            raise BundleError(
                f"the payload is {total} bytes; at most {PAYLOAD_IN_MEMORY_MAX} are run from a bundle file",
                f"plugsec install BUNDLE, then plugsec run {envelope.name}",
                id="PLG-BND-015",
            )
        self._fd = os.dup(tree) if self._bound else _memfd("plugsec-payload")
        self._entries: list[PayloadEntry] = []
        self._offset = 0

    def begin(self, entry: FileEntry) -> None:
        """Note where the next file begins."""
        self._entries.append(PayloadEntry(entry.path, entry.mode, self._offset, entry.size))
        self._offset += entry.size

    def chunk(self, data: memoryview) -> None:
        """Append bytes."""
        while data and not self._bound:  # each round writes at least one byte
            try:
                written = os.write(self._fd, data)
            except OSError as err:
                raise BundleError(
                    f"the payload does not fit in memory: {err.strerror}", id="PLG-BND-016"
                ) from err
            data = data[written:]

    def seal(self) -> Payload:
        """Return the payload, which from here on nobody can change; a bound one nobody but this user."""
        if self._bound:
            return Payload(self._fd, tuple(self._entries), bound=True)
        import fcntl  # noqa: PLC0415 - not everywhere; only a run keeps the payload

        fcntl.fcntl(self._fd, _F_ADD_SEALS, _SEALS)
        return Payload(self._fd, tuple(self._entries))

    def abandon(self) -> None:
        """Close the memory of a bundle that was refused."""
        os.close(self._fd)


def _memfd(name: str) -> int:
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    try:
        return os.memfd_create(name, flags | _MFD_NOEXEC_SEAL)
    except OSError as err:
        if err.errno != errno.EINVAL:
            raise BundleError(f"no memory for the payload: {err.strerror}", id="PLG-BND-016") from err
    try:
        return os.memfd_create(name, flags)
    except OSError as err:
        raise BundleError(f"no memory for the payload: {err.strerror}", id="PLG-BND-016") from err
