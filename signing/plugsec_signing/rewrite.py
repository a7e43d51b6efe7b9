"""Changing who signed a bundle without changing what was signed; the bundle id stays the same.

The new file is written beside the old one while the old one is read and checked, and takes its place
only when everything held: a failed attempt leaves the old file as it was and nothing else. Cold path.
"""

import os
import tempfile
from collections.abc import Callable, Mapping
from typing import BinaryIO

from plugsec_signing import keys, sshsig
from plugsec_signing.bundle import BundleHead, BundleWriter, read_bundle
from plugsec_signing.envelope import Envelope, FileEntry
from plugsec_signing.errors import BundleUnreadable, excerpt
from plugsec_signing.verify import check_signatures, open_bundle


def with_signature(head: BundleHead, armoured: bytes) -> dict[str, bytes]:
    """Return the bundle's signatures with one more, after verifying it over this very manifest.

    A signature by the same key takes the place of the older one. Raises SignatureRefused, KeyRefused.
    """
    signature = sshsig.parse(armoured)
    key = sshsig.verify(signature, head.envelope.manifest_bytes, sshsig.NAMESPACE_MANIFEST)
    return {**head.signatures, keys.fingerprint(key): armoured}


def rewrite_signatures(path: str, change: Callable[[BundleHead], Mapping[str, bytes]]) -> Envelope:
    """Replace the signatures of the bundle at `path` by what `change` makes of its head.

    `change` is called once, before anything is replaced, and may refuse by raising. Signatures already
    present must verify. Raises SigningError; the old file then stays untouched.
    """
    path = os.path.realpath(path)  # a link keeps pointing at the bundle instead of becoming it
    source = open_bundle(path)
    try:
        with _replacing(path, os.fstat(source).st_mode & 0o777) as out:
            sink = _Rewriting(out, change)
            envelope = read_bundle(source, sink).envelope
            sink.writer.finish()
    finally:
        os.close(source)
    return envelope


class _Rewriting:
    """The sink that writes what is read, with other signatures."""

    def __init__(self, out: BinaryIO, change: Callable[[BundleHead], Mapping[str, bytes]]) -> None:
        self.writer = BundleWriter(out)
        self._change = change

    def head(self, head: BundleHead) -> None:
        check_signatures(head)
        self.writer.head(head.envelope, self._change(head), head.attestations)

    def begin(self, entry: FileEntry) -> None:
        self.writer.begin(entry)

    def chunk(self, data: memoryview) -> None:
        self.writer.chunk(data)


class _replacing:  # noqa: N801 - reads as a verb in `with _replacing(path)`
    """A file that takes the place of `path` when the block succeeds, and vanishes when it does not."""

    def __init__(self, path: str, mode: int) -> None:
        self._path, self._mode = path, mode

    def __enter__(self) -> BinaryIO:
        directory, name = os.path.split(self._path)
        try:
            fd, self._new = tempfile.mkstemp(prefix=f".{name}.", dir=directory)
        except OSError as err:
            raise BundleUnreadable(
                f"no new file can be written beside {excerpt(self._path)}: {err.strerror}"
            ) from err
        self._file = os.fdopen(fd, "wb")
        return self._file

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        try:
            if kind is None:
                self._file.flush()
                os.fchmod(self._file.fileno(), self._mode)
                os.fsync(self._file.fileno())
                os.replace(self._new, self._path)
            elif isinstance(error, OSError):  # a full disk shows while writing
                raise error
        except OSError as err:
            raise BundleUnreadable(f"{excerpt(self._path)} cannot be replaced: {err.strerror}") from err
        finally:
            self._close()

    def _close(self) -> None:
        try:
            self._file.close()
        except OSError:  # a full disk shows again at close; the first error is the one to report
            pass
        finally:
            if os.path.lexists(self._new):
                os.unlink(self._new)
