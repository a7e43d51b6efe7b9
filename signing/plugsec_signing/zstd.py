"""A bundle in one Zstandard frame, `.plug.zst`: a way to carry it, which says nothing and proves nothing.

The bundle inside is read exactly as if it lay there uncompressed: id, signatures and every rule are those
of the inner bytes. The frame is decompressed as the one-pass reader asks for more, into its buffer, so a
frame that would swell to terabytes gets no further than the first byte that does not belong there. One frame
and nothing else: a second frame, a skippable one, or bytes behind it are refused, and so are windows beyond
8 MiB and dictionaries.

Needs the extra `plugsec[zstd]` (backports.zstd: the standard library's `compression.zstd` for Python before
3.14, whose decompressor returns at most as many bytes as it is asked for). Not on the hot path.

Source: RFC 8878, §3.1.1 (frames), §3.1.1.1.2 (windows: 8 MiB is what every decoder should support).
"""

import os
from typing import Any, BinaryIO

from plugsec_signing.errors import BundleError

MAX_WINDOW_LOG = 23  # 8 MiB of history: what a frame can make us keep, whatever it claims
LEVEL = 12  # half a second for 10 MB; higher levels gain a percent
_INPUT_BYTES = 128 * 1024
_NAME = ".zst"


class Frame:
    """The bytes inside the only frame of a regular file, in order; a `Source` for the bundle reader."""

    def __init__(self, fd: int) -> None:
        library = _library()
        self._fd, self._offset = fd, 0
        self._error = library.ZstdError
        self._frame = library.ZstdDecompressor(
            options={library.DecompressionParameter.window_log_max: MAX_WINDOW_LOG}
        )

    def readinto(self, view: memoryview) -> int:
        """Fill the beginning of `view`; return how many bytes, 0 at the end. Raises BundleError (exit 4)."""
        while not self._frame.eof:  # each round takes input, gives output, or ends
            data = self._input() if self._frame.needs_input else b""
            if self._frame.needs_input and not data:
                raise BundleError(
                    "the compressed bundle ends early",
                    "get it again: the file is incomplete",
                    id="PLG-BND-004",
                )
            try:
                found = self._frame.decompress(data, len(view))
            except (self._error, MemoryError) as err:
                raise BundleError(
                    f"the bundle cannot be decompressed: {err}",
                    f"it must be one Zstandard frame with a window of at most {1 << MAX_WINDOW_LOG} bytes",
                    id="PLG-BND-018",
                ) from err
            if found:
                view[: len(found)] = found
                return len(found)
        if self._frame.unused_data or self._input():
            raise BundleError("bytes follow the compressed bundle's only frame", id="PLG-BND-019")
        return 0

    def _input(self) -> bytes:
        try:
            data = os.pread(self._fd, _INPUT_BYTES, self._offset)
        except OSError as err:
            raise BundleError(f"the bundle cannot be read: {err.strerror}", id="PLG-BND-002") from err
        self._offset += len(data)
        return data


class FrameWriter:
    """Compresses what is written into `out`; `finish` ends the frame, and `out` stays open.

    The frame's bytes depend on the library's version, unlike those of the bundle inside.
    """

    def __init__(self, out: BinaryIO) -> None:
        library = _library()
        parameter = library.CompressionParameter
        self._out = out
        self._flush = library.ZstdCompressor.FLUSH_FRAME
        self._frame = library.ZstdCompressor(
            options={
                parameter.compression_level: LEVEL,
                parameter.window_log: MAX_WINDOW_LOG,
                parameter.checksum_flag: 1,
            }
        )

    def write(self, data: bytes | memoryview) -> int:
        """Compress a part; returns how much was taken, which is all of it."""
        self._out.write(self._frame.compress(data))
        return len(data)

    def finish(self) -> None:
        """Write the end of the frame."""
        self._out.write(self._frame.flush(self._flush))


def is_frame_name(path: str) -> bool:
    """Tell whether somebody who names a file so wants it compressed."""
    return path.endswith(_NAME)


def _library() -> Any:  # noqa: ANN401 - a module, which is typed where it is used
    try:
        from backports import zstd  # noqa: PLC0415 - an extra
    except ImportError as err:
        raise BundleError(
            "the bundle is compressed, and this plugsec was installed without Zstandard",
            "pip install 'plugsec[zstd]', or decompress it first: zstd -d BUNDLE",
            id="PLG-BND-017",
        ) from err
    return zstd
