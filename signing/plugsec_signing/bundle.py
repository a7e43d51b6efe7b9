"""The container: read in one pass and in constant memory, every header regenerated and compared.

A bundle is what `BundleWriter` writes and nothing else. After the manifest is read, each further byte
of the file is known in advance or covered by a hash, so reading is comparing: there is no second
archive, no overlap and no gap to reason about. docs/formats/bundle.md describes every byte.
"""

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping

from plugsec_signing import ustar
from plugsec_signing.envelope import MAX_MANIFEST_BYTES, Envelope, FileEntry, parse_envelope
from plugsec_signing.errors import BundleError, excerpt
from plugsec_signing.sshsig import MAX_ARMOUR_BYTES
from plugsec_signing.typed import BinaryIO, NamedTuple, Protocol

MANIFEST_PATH = "PLUGSEC/manifest.json"
MAX_SIGNATURES = 16  # more signers than any release has, few enough to verify all of them at once
MAX_ATTESTATIONS = 16
MAX_ATTESTATION_BYTES = 256 * 1024
_HEAD_MODE = 0o644
_FRAME_MAGIC = b"\x28\xb5\x2f\xfd"  # Zstandard's (RFC 8878 §3.1.1); no bundle begins so
_BUFFER_BYTES = 256 * 1024  # measured: larger reads are not faster, and this stays in the L2 cache


class _Kind:
    """One kind of entry between manifest and payload: `prefix`, 64 lower-case hex digits, `suffix`."""

    __slots__ = ("most", "most_bytes", "prefix", "suffix")

    def __init__(self, prefix: str, suffix: str, most: int, most_bytes: int) -> None:
        self.prefix, self.suffix, self.most, self.most_bytes = prefix, suffix, most, most_bytes


_SIGNATURES = _Kind("PLUGSEC/signatures/", ".sshsig", MAX_SIGNATURES, MAX_ARMOUR_BYTES)
_ATTESTATIONS = _Kind("PLUGSEC/attestations/", ".dsse.json", MAX_ATTESTATIONS, MAX_ATTESTATION_BYTES)
_HEX = frozenset("0123456789abcdef")


class BundleHead(NamedTuple):
    """Everything before the payload; signatures are keyed by the fingerprint that names them, unverified."""

    envelope: Envelope
    signatures: Mapping[str, bytes]
    attestations: Mapping[str, bytes]


class Source(Protocol):
    """Where a reading comes from: the bundle's bytes in order, each once."""

    def readinto(self, view: memoryview) -> int:
        """Fill the beginning of `view` and return how many bytes; 0 at the end. Raises BundleError."""
        ...


class Sink(Protocol):
    """Where a reading goes. Payload handed over is *not yet* verified until `read_bundle` returns."""

    def head(self, head: BundleHead) -> None:
        """Take manifest and signatures; raising here refuses before any payload is read."""

    def begin(self, entry: FileEntry) -> None:
        """Take note that the next chunks belong to `entry`."""

    def chunk(self, data: memoryview) -> None:
        """Take payload bytes; the view is only valid during the call."""


class Writable(Protocol):
    """Where a bundle is written to, all of what it is given."""

    def write(self, data: bytes | memoryview, /) -> int:
        """Write a part."""
        ...


class BundleWriter:
    """Writes a bundle in order: `head` once, then for each file of the manifest `begin` and `chunk`s,
    then `finish`. Contents that are not what the manifest promises are refused (BundleError)."""

    def __init__(self, out: Writable) -> None:
        self._out = out
        self._entries: Iterator[FileEntry] = iter(())
        self._entry: FileEntry | None = None
        self._missing = 0
        self._hash = hashlib.sha256()

    def head(
        self, envelope: Envelope, signatures: Mapping[str, bytes], attestations: Mapping[str, bytes]
    ) -> None:
        """Write the manifest and everything signed over it, sorted by name."""
        self._small(MANIFEST_PATH, envelope.manifest_bytes)
        for kind, contents in ((_SIGNATURES, signatures), (_ATTESTATIONS, attestations)):
            if len(contents) > kind.most or any(len(each) > kind.most_bytes for each in contents.values()):
                raise BundleError(
                    f"a bundle carries at most {kind.most} {kind.prefix[8:-1]} of {kind.most_bytes} bytes",
                    id="PLG-BND-006",
                )
            for name in sorted(contents):
                if len(name) != 64 or not _HEX.issuperset(name):
                    raise RuntimeError(f"{name!r} is not a SHA-256 in lower-case hex")
                self._small(kind.prefix + name + kind.suffix, contents[name])
        self._entries = iter(envelope.files)

    def begin(self, entry: FileEntry) -> None:
        """Write the header of the next file of the manifest."""
        self._close_entry()
        if next(self._entries, None) != entry:
            raise RuntimeError("files are written in the order of the manifest")
        self._out.write(ustar.header(entry.path, entry.size, entry.mode))
        self._entry, self._missing, self._hash = entry, entry.size, hashlib.sha256()

    def chunk(self, data: bytes | memoryview) -> None:
        """Write a part of the file begun last."""
        self._missing -= len(data)
        if self._missing >= 0:
            self._hash.update(data)
            self._out.write(data)

    def finish(self) -> None:
        """Write the end; raises RuntimeError if files of the manifest are still to come."""
        self._close_entry()
        if next(self._entries, None) is not None:
            raise RuntimeError("not every file of the manifest was written")
        self._out.write(ustar.END)

    def _close_entry(self) -> None:
        if self._entry is None:
            return
        if self._missing or self._hash.hexdigest() != self._entry.sha256:
            raise BundleError(
                f"the content of {excerpt(self._entry.path)} is not what its manifest says",
                "pack again while nothing changes the directory",
                id="PLG-BND-012",
            )
        self._out.write(bytes(ustar.padding(self._entry.size)))
        self._entry = None

    def _small(self, path: str, content: bytes) -> None:
        self._out.write(ustar.header(path, len(content), _HEAD_MODE))
        self._out.write(content)
        self._out.write(bytes(ustar.padding(len(content))))


def write_bundle(
    out: Writable,
    manifest_bytes: bytes,
    signatures: Mapping[str, bytes],
    attestations: Mapping[str, bytes],
    open_payload: Callable[[FileEntry], BinaryIO],
) -> Envelope:
    """Write a whole bundle in constant memory; `open_payload` gives each file in turn and is closed here.

    Raises JsonError, PathError, EnvelopeError for a manifest, BundleError for contents that differ from
    it (all exit 4). The bytes depend on nothing but the arguments.
    """
    envelope = parse_envelope(manifest_bytes)
    writer = BundleWriter(out)
    writer.head(envelope, signatures, attestations)
    for entry in envelope.files:
        writer.begin(entry)
        with open_payload(entry) as source:
            remaining = entry.size + 1  # one byte more shows that the source has grown
            while remaining and (data := source.read(min(remaining, _BUFFER_BYTES))):
                writer.chunk(data)
                remaining -= len(data)
    writer.finish()
    return envelope


def read_manifest(fd: int) -> BundleHead:
    """Return manifest, signatures and attestations without looking at the payload (for `inspect`)."""
    return _read_head(_Stream(_source(fd)))


def read_bundle(fd: int, sink: Sink) -> BundleHead:
    """Read a regular file from its beginning to its very end, handing over what it holds.

    A file that is one Zstandard frame (`zstd.py`) is decompressed on the way; the rules are the same.

    1. The manifest entry is first; its envelope is parsed. 2. Signatures, then attestations, each sorted.
    3. `sink.head`. 4. Every payload header equals the one regenerated from the manifest, every content
    has its size and SHA-256, every padding is zero. 5. Two zero blocks, then end of file.
    Raises BundleError, EnvelopeError, PathError, JsonError (exit 4) and whatever the sink raises.
    Signatures are not verified here: that is the sink's part (`verify.py`).
    """
    stream = _Stream(_source(fd))
    head = _read_head(stream)  # 1, 2
    sink.head(head)  # 3
    for number, entry in enumerate(head.envelope.files):  # 4
        if number:  # the first header ended the head and was compared there
            _match(stream.take(ustar.BLOCK), entry.path, entry.size, entry.mode)
        sink.begin(entry)
        digest = hashlib.sha256()
        for data in stream.chunks(entry.size):
            digest.update(data)
            sink.chunk(data)
        stream.skip_padding(entry.size)
        if digest.hexdigest() != entry.sha256:
            raise BundleError(
                f"the content of {excerpt(entry.path)} does not have the hash that the manifest promises",
                id="PLG-BND-012",
            )
    if stream.take(len(ustar.END)) != ustar.END:  # 5
        raise BundleError("the bundle goes on after the last file of its manifest", id="PLG-BND-013")
    if stream.take_at_most(1):
        raise BundleError("bytes follow the end of the bundle", id="PLG-BND-014")
    return head


def _read_head(stream: "_Stream") -> BundleHead:
    """Return the head; the stream then stands at the content of the first payload file.

    Its header is compared here, so that a signature in the wrong place is a malformed bundle and not an
    unsigned one.
    """
    block = stream.take(ustar.BLOCK)
    if ustar.name_field(block) != MANIFEST_PATH.encode():
        raise BundleError(
            f"the file is not a plugsec bundle: it does not begin with {MANIFEST_PATH}",
            "plugsec pack DIR makes a bundle",
            id="PLG-BND-003",
        )
    envelope = parse_envelope(_content(stream, block, MANIFEST_PATH, MAX_MANIFEST_BYTES))
    block = stream.take(ustar.BLOCK)
    signatures, block = _read_kind(stream, block, _SIGNATURES)
    attestations, block = _read_kind(stream, block, _ATTESTATIONS)
    for digest, content in attestations.items():
        if hashlib.sha256(content).hexdigest() != digest:
            raise BundleError("an attestation is not named by the hash of its content", id="PLG-BND-008")
    first = envelope.files[0]
    _match(block, first.path, first.size, first.mode)
    return BundleHead(envelope, signatures, attestations)


def _read_kind(stream: "_Stream", block: bytes, kind: _Kind) -> tuple[dict[str, bytes], bytes]:
    """Read the run of entries of one kind; return them and the first header that is not of it."""
    found: dict[str, bytes] = {}
    last = ""
    while name := _name_of_kind(block, kind):  # ends at the first other header, or by kind.most
        if name <= last:
            raise BundleError(
                "the entries under PLUGSEC/ are not in order, or one is doubled", id="PLG-BND-007"
            )
        if len(found) == kind.most:
            raise BundleError(f"the bundle has more than {kind.most} {kind.prefix[8:-1]}", id="PLG-BND-006")
        found[name] = _content(stream, block, kind.prefix + name + kind.suffix, kind.most_bytes)
        last = name
        block = stream.take(ustar.BLOCK)
    return found, block


def _name_of_kind(block: bytes, kind: _Kind) -> str:
    """Return the 64 hex digits if the header's name is exactly of the kind's form, else nothing."""
    path = ustar.name_field(block).decode("latin-1")
    name = path.removeprefix(kind.prefix).removesuffix(kind.suffix)
    exact = path == kind.prefix + name + kind.suffix and len(name) == 64 and _HEX.issuperset(name)
    return name if exact else ""


def _content(stream: "_Stream", block: bytes, path: str, most_bytes: int) -> bytes:
    """Return the content of an entry under PLUGSEC/, whose size only its header knows."""
    size = ustar.size_field(block)
    if size is None:
        raise BundleError(f"the size of {path} is not written in eleven octal digits", id="PLG-BND-005")
    if size > most_bytes:
        raise BundleError(f"{path} is {size} bytes; at most {most_bytes} are read", id="PLG-BND-006")
    _match(block, path, size, _HEAD_MODE)
    content = b"".join(bytes(data) for data in stream.chunks(size))
    stream.skip_padding(size)
    return content


def _match(block: bytes, path: str, size: int, mode: int) -> None:
    """Compare a header with the only one allowed here."""
    expected = ustar.header(path, size, mode)
    if block == expected:
        return
    if block == ustar.END[: ustar.BLOCK]:
        raise BundleError(
            f"the bundle ends before {excerpt(path)}, which its manifest lists", id="PLG-BND-010"
        )
    if ustar.name_field(block) != ustar.name_field(expected):
        raise BundleError(
            f"the bundle holds {excerpt(ustar.name_field(block))} where {excerpt(path)} must be",
            id="PLG-BND-011",
        )
    field = ustar.first_difference(block, expected)
    raise BundleError(
        f"the header of {excerpt(path)} has another {field} than it must have", id="PLG-BND-005"
    )


def is_frame(fd: int) -> bool:
    """Tell whether a file begins as a Zstandard frame; what cannot be read is for the reader to report."""
    try:
        return os.pread(fd, len(_FRAME_MAGIC), 0) == _FRAME_MAGIC
    except OSError:
        return False


def _source(fd: int) -> Source:
    if not is_frame(fd):
        return _File(fd)
    from plugsec_signing.zstd import Frame  # noqa: PLC0415 - an extra, and few bundles are compressed

    return Frame(fd)


class _File:
    """A regular file from offset 0, independent of the descriptor's position."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._offset = 0

    def readinto(self, view: memoryview) -> int:
        try:
            count = os.preadv(self._fd, [view], self._offset)
        except OSError as err:
            raise BundleError(f"the bundle cannot be read: {err.strerror}", id="PLG-BND-002") from err
        self._offset += count
        return count


class _Stream:
    """Bounded reads of a source, through one buffer."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._view = memoryview(bytearray(_BUFFER_BYTES))
        self._start = self._end = 0

    def take(self, size: int) -> bytes:
        """Return exactly `size` bytes, at most one buffer; raises BundleError if the file ends first."""
        data = self.take_at_most(size)
        if len(data) < size:
            raise _truncated()
        return data

    def take_at_most(self, size: int) -> bytes:
        """Return `size` bytes, or what is left of the file."""
        if self._end - self._start < size:
            left = self._end - self._start
            self._view[:left] = self._view[self._start : self._end]
            self._start, self._end = 0, left
            while self._end < size and self._fill():
                pass
        data = bytes(self._view[self._start : min(self._start + size, self._end)])
        self._start += len(data)
        return data

    def chunks(self, size: int) -> Iterator[memoryview]:
        """Yield exactly `size` bytes in views that are valid until the next one."""
        while size:
            if self._start == self._end:
                self._start = self._end = 0
                if not self._fill():
                    raise _truncated()
            end = min(self._end, self._start + size)
            data = self._view[self._start : end]
            self._start = end
            size -= len(data)
            yield data

    def skip_padding(self, size: int) -> None:
        """Pass over the padding after a content of `size` bytes, which must be zero."""
        length = ustar.padding(size)
        if self.take(length) != bytes(length):
            raise BundleError("the padding after a file is not zero", id="PLG-BND-009")

    def _fill(self) -> int:
        count = self._source.readinto(self._view[self._end :])
        self._end += count
        return count


def _truncated() -> BundleError:
    return BundleError("the bundle ends early", "get it again: the file is incomplete", id="PLG-BND-004")
