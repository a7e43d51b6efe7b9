"""seccomp: a default-deny allow-list of system calls, one filter for each kind of plugin.

`program` returns the compiled filter for a kind and what its grant adds, from a cache keyed by the
digest of the profiles' own bytes. The cache is never an authority: a file that does not match its own
digest, or that others could have written, is compiled again.
"""

import hashlib
import os
import stat

from plugsec import private
from plugsec.sandbox.seccomp.tables import PROFILES

LIBSECCOMP_ADVICE = (
    "install libseccomp: apt install libseccomp2 (Debian, Ubuntu), dnf install libseccomp (Fedora),"
    " apk add libseccomp (Alpine)"
)
_FORMAT = b"plugsec.seccomp/1"
_DIGEST_BYTES = 32
_PROGRAM_BYTES_MAX = 4096 * 8


class LibseccompMissing(Exception):
    """A filter must be compiled and the C library cannot be found."""


def profile_names(kind: str, *, write: bool, process: bool, execute: bool, jit: bool) -> tuple[str, ...]:
    """The profiles that make up one filter."""
    if kind == "init":
        return ("init",)
    wanted = (("write", write), ("process", process), ("execve", execute), ("jit", jit))
    return ("base", kind, *(name for name, asked in wanted if asked))


def program(
    names: tuple[str, ...], architecture: str, *, notify: bool, cache_directory: str
) -> tuple[bytes, str]:
    """The program for the combined profiles and the digest (hex) of their source.

    Raises LibseccompMissing when it must be compiled and cannot.
    """
    sources = [_read(f"{name}.profile") for name in names]
    table = _read(f"{architecture}.calls")
    digest = hashlib.sha256(b"\0".join([_FORMAT, architecture.encode(), b"%d" % notify, table, *sources]))
    key = digest.hexdigest()
    path = os.path.join(cache_directory, f"{key}.bpf")
    cached = _load(path, key)
    if cached is not None:
        return cached, key
    from plugsec.sandbox.seccomp.compile import compile_program  # noqa: PLC0415 - cold only
    from plugsec.sandbox.seccomp.profile import parse  # noqa: PLC0415

    rules = tuple(
        rule for name, source in zip(names, sources, strict=True) for rule in parse(source.decode(), name)
    )
    compiled = compile_program(rules, architecture, notify=notify)
    _store(path, key, compiled)
    return compiled, key


def _read(name: str) -> bytes:
    with open(os.path.join(PROFILES, name), "rb") as file:
        return file.read()


def _load(path: str, key: str) -> bytes | None:
    if not private.is_private_directory(os.path.dirname(path)):
        return None
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o022:
            return None
        data = os.read(fd, _DIGEST_BYTES + _PROGRAM_BYTES_MAX)
    finally:
        os.close(fd)
    body = data[_DIGEST_BYTES:]
    return body if body and _seal(key, body) == data[:_DIGEST_BYTES] else None


def _seal(key: str, body: bytes) -> bytes:
    """Binds a program to its key: another key's program under this name is not this key's."""
    return hashlib.sha256(key.encode() + b"\0" + body).digest()


def _store(path: str, key: str, compiled: bytes) -> None:
    """Best effort: without a cache every run compiles, which is slower and just as safe."""
    try:
        private.make_directories(os.path.dirname(path))
        private.replace(path, _seal(key, compiled) + compiled)
    except OSError:
        return
