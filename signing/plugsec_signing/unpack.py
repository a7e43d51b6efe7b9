"""A bundle as a directory: what `tar xf` would make of it, but only if it verifies. Cold path.

`PLUGSEC/manifest.json`, signatures and attestations lie beside the payload as in the container, so that
the check with stock tools in docs/formats/bundle.md works on the result.
"""

import os
from collections.abc import Callable, Mapping

from plugsec_signing.bundle import MANIFEST_PATH, BundleHead, Sink
from plugsec_signing.destination import new_directory, refused
from plugsec_signing.envelope import FileEntry
from plugsec_signing.tree import DIRECTORY, TreeWriter, write_small
from plugsec_signing.verify import UnsafeUnsignedBundle, VerifiedBundle

Verify = Callable[[Sink], VerifiedBundle | UnsafeUnsignedBundle]


def unpack(directory: str, verify: Verify) -> VerifiedBundle | UnsafeUnsignedBundle:
    """Write a bundle's files into `directory`, which must not exist or be empty; all of them or nothing.

    `verify` judges the bundle and feeds the sink. Raises what it does, and DestinationRefused (exit 2).
    """
    with new_directory(directory) as fd:
        sink = _Unpacking(fd, directory)
        try:
            evidence = verify(sink)
            sink.writer.finish()
        finally:
            sink.writer.close()
    return evidence


class _Unpacking:
    """The sink that writes the files of a container into a directory."""

    def __init__(self, directory: int, path: str) -> None:
        self._directory, self._path = directory, path
        self.writer = TreeWriter(directory, read_only=False)

    def head(self, head: BundleHead) -> None:
        """Write the container's own entries."""
        own, manifest = MANIFEST_PATH.split("/")
        try:
            os.mkdir(own, 0o755, dir_fd=self._directory)
            fd = os.open(own, DIRECTORY, dir_fd=self._directory)
            try:
                write_small(fd, manifest, head.envelope.manifest_bytes, 0o644)
                _write_all(fd, "signatures", ".sshsig", head.signatures)
                _write_all(fd, "attestations", ".dsse.json", head.attestations)
                os.fchmod(fd, 0o755)
            finally:
                os.close(fd)
        except OSError as err:
            raise refused(self._path, err) from err

    def begin(self, entry: FileEntry) -> None:
        """Begin a payload file."""
        self.writer.begin(entry)

    def chunk(self, data: memoryview) -> None:
        """Write payload bytes."""
        self.writer.chunk(data)


def _write_all(parent: int, kind: str, suffix: str, contents: Mapping[str, bytes]) -> None:
    if not contents:
        return
    os.mkdir(kind, 0o755, dir_fd=parent)
    fd = os.open(kind, DIRECTORY, dir_fd=parent)
    try:
        for name, content in contents.items():
            write_small(fd, name + suffix, content, 0o644)
        os.fchmod(fd, 0o755)
    finally:
        os.close(fd)
