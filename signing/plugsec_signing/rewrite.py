"""Changing who signed or attested a bundle without changing what was signed; the bundle id stays the same.

The new file is written beside the old one while the old one is read and checked, and takes its place
only when everything held: a failed attempt leaves the old file as it was and nothing else. Cold path.
"""

import os
import tempfile
from collections.abc import Callable, Mapping
from typing import BinaryIO

from plugsec_signing import dsse, keys, sshsig, zstd
from plugsec_signing.bundle import BundleHead, BundleWriter, Writable, is_frame, read_bundle
from plugsec_signing.envelope import Envelope, FileEntry
from plugsec_signing.errors import BundleUnreadable, excerpt
from plugsec_signing.verify import check_attestations, check_signatures, open_bundle


def with_signature(head: BundleHead, armoured: bytes) -> dict[str, bytes]:
    """Return the bundle's signatures with one more, after verifying it over this very manifest.

    A signature by the same key takes the place of the older one. Raises SignatureRefused, KeyRefused.
    """
    signature = sshsig.parse(armoured)
    key = sshsig.verify(signature, head.envelope.manifest_bytes, sshsig.NAMESPACE_MANIFEST)
    return {**head.signatures, keys.fingerprint(key): armoured}


def with_attestation(head: BundleHead, content: bytes) -> dict[str, bytes]:
    """Return the bundle's attestations with one more, after checking that it holds for this very bundle.

    Raises AttestationRefused, SignatureRefused, KeyRefused.
    """
    return {**head.attestations, dsse.check(content, head.envelope.bundle_id).digest: content}


def rewrite_signatures(path: str, change: Callable[[BundleHead], Mapping[str, bytes]]) -> Envelope:
    """Replace the signatures of the bundle at `path` by what `change` makes of its head.

    `change` is called once, before anything is replaced, and may refuse by raising. Signatures and
    attestations already present must hold. Raises SigningError; the old file then stays untouched.
    """
    return _rewrite(path, lambda head: head._replace(signatures=change(head)))


def rewrite_attestations(path: str, change: Callable[[BundleHead], Mapping[str, bytes]]) -> Envelope:
    """Do the same for the attestations of a bundle."""
    return _rewrite(path, lambda head: head._replace(attestations=change(head)))


def _rewrite(path: str, change: Callable[[BundleHead], BundleHead]) -> Envelope:
    path = os.path.realpath(path)  # a link keeps pointing at the bundle instead of becoming it
    source = open_bundle(path)
    try:
        with _replacing(path, os.fstat(source).st_mode & 0o777) as out:
            frame = zstd.FrameWriter(out) if is_frame(source) else None  # what was compressed stays so
            sink = _Rewriting(frame or out, change)
            envelope = read_bundle(source, sink).envelope
            sink.writer.finish()
            if frame is not None:
                frame.finish()
    finally:
        os.close(source)
    return envelope


class _Rewriting:
    """The sink that writes what is read, with other signatures or attestations."""

    def __init__(self, out: Writable, change: Callable[[BundleHead], BundleHead]) -> None:
        self.writer = BundleWriter(out)
        self._change = change

    def head(self, head: BundleHead) -> None:
        check_signatures(head)
        check_attestations(head, None, 0)
        changed = self._change(head)
        self.writer.head(head.envelope, changed.signatures, changed.attestations)

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
