"""Parsed forms of what the operator wrote, kept by the digest of its text.

Reading TOML costs a run some 20 ms of imports. An entry is used only if its name is the digest of the
very text (and of the parser's version), and only from a directory that nobody else can write. It is
never an authority: whoever builds on it validates it again, and a damaged entry is parsed anew.
"""

import hashlib
import json
import os
import stat
from collections.abc import Callable, Mapping

import plugsec
from plugsec import private
from plugsec_signing.typed import Any

_ENTRY_BYTES_MAX = 16 * 1024 * 1024


def by_text(directory: str, kind: str, parse: Callable[[str], Mapping[str, Any]]) -> Callable[[str], Any]:
    """`parse` with a memory: the same text gives the stored plain form."""

    def cached(text: str) -> Any:  # noqa: ANN401
        path = _path(directory, kind, text)
        found = load(path)
        if found is None:
            found = dict(parse(text))
            store(path, found)
        return found

    return cached


def policy(directory: str, reference: str, parse: Callable[[str], dict[str, Any]]) -> dict[str, Any]:
    """A policy file's plain form, while every file that went into it is unchanged."""
    path = _path(directory, "policy", os.path.abspath(reference) + "\0" + reference)
    found = load(path)
    if isinstance(found, dict) and _still_holds(found.get("sources")):
        return found
    found = parse(reference)
    store(path, found)
    return found


def load(path: str) -> Any:  # noqa: ANN401
    """The entry, or None if there is none that can be used."""
    if not private.is_private_directory(os.path.dirname(path)):
        return None
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return None
    with open(fd, "rb") as file:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o022:
            return None
        try:
            entry = json.loads(file.read(_ENTRY_BYTES_MAX))
        except (ValueError, RecursionError):
            return None
    # Bound to its name: another entry renamed to this one is not this one.
    whole = isinstance(entry, dict) and entry.get("for") == os.path.basename(path)
    return entry.get("value") if whole else None


def store(path: str, value: Any) -> None:  # noqa: ANN401
    """Best effort and atomic: a cache that cannot be written only costs time."""
    try:
        private.make_directories(os.path.dirname(path))
        entry = {"for": os.path.basename(path), "value": value}
        private.replace(path, json.dumps(entry, separators=(",", ":")).encode())
    except OSError:
        return


def _path(directory: str, kind: str, text: str) -> str:
    digest = hashlib.sha256(f"{plugsec.__version__}\0{kind}\0".encode())
    digest.update(text.encode("utf-8", "surrogatepass"))
    return os.path.join(directory, kind, f"{digest.hexdigest()}.json")


def _still_holds(sources: Any) -> bool:  # noqa: ANN401 - a predicate about a cache entry, not a check of trust
    if not isinstance(sources, list) or not sources:
        return False
    for source in sources:
        try:
            with open(source["path"], "rb") as file:
                data = file.read(_ENTRY_BYTES_MAX)
        except (OSError, KeyError, TypeError):
            return False
        if hashlib.sha256(data).hexdigest() != source.get("sha256"):
            return False
    return True
