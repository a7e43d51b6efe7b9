"""What goes in: the input value, decoded and checked, and the input files, opened once."""

import hashlib
import os
import re
import stat
from collections.abc import Mapping

from plugsec.errors import ExchangeError, HostUnsupported, InputMalformed, UsageError
from plugsec_signing.canonical import decode
from plugsec_signing.errors import SigningError
from plugsec_signing.typed import Any, NamedTuple

INPUT_BYTES_MAX = 8 * 1024 * 1024
# Copied into the jail's memory, so that nobody can change them under the plugin.
INPUT_FILES_BYTES_MAX = 256 * 1024 * 1024
INPUT_FILES_MAX = 64
_NAME = r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}"
_READ_BYTES = 1024 * 1024


class InputFile(NamedTuple):
    """A file for $INPUT: its name there, an open descriptor, bytes and SHA-256 (hex)."""

    name: str
    fd: int
    size: int
    sha256: str


def decode_input(data: bytes) -> Any:  # noqa: ANN401
    """Decode the caller's JSON; raises InputMalformed (exit 4)."""
    try:
        return decode(data, max_bytes=INPUT_BYTES_MAX)
    except SigningError as error:
        raise InputMalformed(f"the input is not usable JSON: {error.message}", error.hint) from error


def merge_parameters(value: Any, parameters: Mapping[str, str]) -> Any:  # noqa: ANN401
    """The input object with `--param K=V` added; V is JSON if it reads as such, otherwise text."""
    if not parameters:
        return value
    merged = {} if value is None else value
    if not isinstance(merged, dict):
        raise UsageError("--param needs an input that is an object", "leave out --input, or --param")
    merged = dict(merged)
    for name, text in parameters.items():
        try:
            merged[name] = decode(text.encode("utf-8", "surrogateescape"), max_bytes=INPUT_BYTES_MAX)
        except SigningError:
            merged[name] = text
    return merged


def open_input_files(paths: Mapping[str, str]) -> tuple[InputFile, ...]:
    """Open every `--input-file`; raises UsageError, ExchangeError, HostUnsupported and leaves none open."""
    if len(paths) > INPUT_FILES_MAX:
        raise UsageError(f"more than {INPUT_FILES_MAX} input files")
    opened: list[InputFile] = []
    try:
        total = 0
        for name, path in paths.items():
            opened.append(_open(name, path))
            total += opened[-1].size
            if total > INPUT_FILES_BYTES_MAX:
                raise ExchangeError(
                    f"the input files are more than {INPUT_FILES_BYTES_MAX} bytes together",
                    "grant the plugin fs.read on their directory instead",
                    id="PLG-IO-004",
                )
    except BaseException:
        for file in opened:
            os.close(file.fd)
        raise
    return tuple(opened)


def _open(name: str, path: str) -> InputFile:
    if not re.fullmatch(_NAME, name):
        raise UsageError(
            f"{name!r} cannot be an input file's name", "use letters, digits, dot, dash and underscore"
        )
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UsageError(f"the input file {path} cannot be opened: {reason}") from error
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode):
        os.close(fd)
        raise UsageError(f"the input file {path} is not a regular file")
    return _digested(name, path, fd, status.st_size)


def _digested(name: str, path: str, fd: int, size: int) -> InputFile:
    """Copy into sealed memory while hashing: the digest in the record is of what the plugin reads."""
    from plugsec.sandbox.launch import sealed_memory  # noqa: PLC0415 - only for runs with files

    if size > INPUT_FILES_BYTES_MAX:
        os.close(fd)
        raise ExchangeError(
            f"the input file {path} is more than {INPUT_FILES_BYTES_MAX} bytes",
            "grant the plugin fs.read on its directory instead",
            id="PLG-IO-004",
        )
    data = bytearray()
    try:
        while len(data) <= size:  # a file that grows meanwhile is cut at the size that was checked
            chunk = os.read(fd, _READ_BYTES)
            if not chunk:
                break
            data += chunk
    except OSError as error:
        raise UsageError(f"the input file {path} cannot be read: {error.strerror}") from error
    finally:
        os.close(fd)
    del data[size:]
    content = bytes(data)
    try:
        sealed = sealed_memory(name, content)
    except OSError as error:
        raise HostUnsupported(f"the input file {path} cannot be kept in memory: {error.strerror}") from error
    return InputFile(name, sealed, len(content), hashlib.sha256(content).hexdigest())
