"""OpenSSH's key revocation lists (`ssh-keygen -k`), read whole or refused, and written for its `-Q`.

A KRL names keys, by their blob or its hash, and nothing else that a revocation list of ours could hold: no
reason and no time. What it can also hold (certificates, SHA-1 hashes, signatures, extensions) has no
meaning here and is refused, because a revocation that is dropped silently is worse than none.

Source: PROTOCOL.krl of OpenSSH.
"""

import hashlib
from collections.abc import Collection
from typing import NamedTuple

from plugsec_signing import wire
from plugsec_signing.errors import InterchangeError
from plugsec_signing.revocation import MAX_ENTRIES

MAX_BYTES = 8 * 1024 * 1024  # MAX_ENTRIES of RSA keys, which a KRL for everything may well list
MAX_SECTIONS = 64  # ssh-keygen writes one for each kind

_MAGIC = b"SSHKRL\n\0"
_VERSION = (1).to_bytes(4, "big")
_HEADER_BYTES = len(_MAGIC) + 4 + 3 * 8
_CERTIFICATES, _KEYS, _SHA1, _SIGNATURE, _SHA256, _EXTENSION = 1, 2, 3, 4, 5, 255
_UNSUPPORTED = {
    _CERTIFICATES: (
        "certificates",
        "certificates are refused here anyway; revoke the keys that they certify",
    ),
    _SHA1: ("SHA-1 hashes of keys", "make it again with `hash: SHA256:…` or with the public keys"),
    _SIGNATURE: ("a signature of its own", "make it again without; plugsec signs its list itself"),
    _EXTENSION: ("an extension", "make it again with `ssh-keygen -k`, without extensions"),
}


class Krl(NamedTuple):
    """What a KRL revokes: key fingerprints (hex SHA-256), with the number that its maker gave it."""

    version: int
    fingerprints: frozenset[str]


def is_krl(data: bytes) -> bool:
    """Say whether a file claims to be a KRL."""
    return data.startswith(_MAGIC)


def parse(data: bytes) -> Krl:
    """Return what a KRL revokes; raises InterchangeError (exit 4) and nothing else, for any bytes."""
    if len(data) > MAX_BYTES:
        raise InterchangeError(f"the KRL is larger than {MAX_BYTES} bytes", id="PLG-KRL-003")
    if not data.startswith(_MAGIC):
        raise _malformed("it does not begin as one")
    if data[len(_MAGIC) : len(_MAGIC) + 4] != _VERSION:
        raise _malformed("its format is not version 1")
    if len(data) < _HEADER_BYTES or any(data[_HEADER_BYTES - 8 : _HEADER_BYTES]):
        raise _malformed("its header is cut short, or has flags, of which none is defined")
    reader = _Reader(data[_HEADER_BYTES:])
    reader.string()  # reserved; PROTOCOL.krl tells readers to ignore it
    reader.string()  # a comment
    found: set[str] = set()
    for _ in range(MAX_SECTIONS):
        if reader.done:
            return Krl(int.from_bytes(data[12:20], "big"), frozenset(found))
        _section(reader.byte(), _Reader(reader.string()), found)
    raise InterchangeError(f"the KRL has more than {MAX_SECTIONS} sections", id="PLG-KRL-003")


def encode(fingerprints: Collection[str], *, version: int, generated: int, comment: str = "") -> bytes:
    """Return a KRL that revokes keys by their SHA-256; `generated` in unix seconds."""
    header = (version, generated, 0)
    hashes = b"".join(wire.string(bytes.fromhex(each)) for each in sorted(fingerprints))
    section = bytes([_SHA256]) + wire.string(hashes) if hashes else b""
    numbers = b"".join(number.to_bytes(8, "big") for number in header)
    return _MAGIC + _VERSION + numbers + wire.string(b"") + wire.string(comment.encode()) + section


class _Reader:
    """Strings of a blob, one after another; raises InterchangeError where one reaches beyond the end."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def done(self) -> bool:
        return self._at == len(self._data)

    def byte(self) -> int:
        self._at += 1
        return self._data[self._at - 1]

    def string(self) -> bytes:
        start = self._at + 4
        end = start + int.from_bytes(self._data[self._at : start], "big")
        if start > len(self._data) or end > len(self._data):
            raise _malformed("it is cut short")
        self._at = end
        return self._data[start:end]


def _section(kind: int, entries: _Reader, found: set[str]) -> None:
    if kind not in (_KEYS, _SHA256):
        what, hint = _UNSUPPORTED.get(kind, (f"a section of the unknown kind {kind}", ""))
        raise InterchangeError(f"the KRL holds {what}, which would be ignored", hint, id="PLG-KRL-002")
    for _ in range(MAX_ENTRIES + 1):
        if entries.done:
            return
        entry = entries.string()
        if kind == _SHA256 and len(entry) != hashlib.sha256().digest_size:
            raise _malformed("a SHA-256 in it has another length")
        if kind == _KEYS and len(wire.first(entry)[0]) + 4 >= len(entry):
            raise _malformed("a key in it is none")
        found.add(entry.hex() if kind == _SHA256 else hashlib.sha256(entry).hexdigest())
        if len(found) > MAX_ENTRIES:
            break
    raise InterchangeError(f"the KRL revokes more than {MAX_ENTRIES} keys", id="PLG-KRL-003")


def _malformed(how: str) -> InterchangeError:
    return InterchangeError(f"the file is not a KRL: {how}", "ssh-keygen -Q -l -f FILE", id="PLG-KRL-001")
