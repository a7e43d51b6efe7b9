"""Changing the trust store: one file per key that is added here, other people's files edited gently.

Every change is checked by parsing the outcome before it takes effect, and takes effect by one rename.
Cold path.
"""

import fcntl
import json
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from plugsec_signing import trust_toml
from plugsec_signing.errors import NoSuchKey, TrustStoreError, excerpt
from plugsec_signing.times import format_time
from plugsec_signing.trust import TrustedKey, TrustStore, load_trust, read_trust_files

_KEY_HEADER = re.compile(r"^[ \t]*\[\[[ \t]*key[ \t]*\]\]", re.MULTILINE)


Announce = Callable[[TrustedKey], object]


def _silently(_: TrustedKey) -> None:
    """Announce nothing: for callers without an audit log."""


def add_key(directory: str, entry: dict[str, Any], *, announce: Announce = _silently) -> TrustedKey:
    """Add one `[[key]]` (fields as in the file) as `ID.toml`, 0600; the directory is created 0700.

    `announce` is called when nothing but the rename is left to do, so that a change which cannot be
    recorded does not happen. Raises TrustStoreError (exit 4), also when the id is taken.
    """
    plain = trust_toml.check_entry(entry)
    added = TrustStore.from_plain([{"key": [plain]}]).keys[0]
    with _locked(directory):
        if any(key.id == added.id for key in load_trust(directory).keys):
            raise TrustStoreError(
                f"the trust store already has a key called {added.id}",
                f"plugsec trust remove {added.id}, or choose another --id",
                id="PLG-TST-004",
            )
        path = os.path.join(directory, f"{added.id}.toml")
        if os.path.lexists(path):
            raise TrustStoreError(
                f"{path} exists and holds other keys", "choose another --id", id="PLG-TST-004"
            )
        announce(added)
        _replace(path, render(plain))
    return added


def remove_key(directory: str, key_id: str, *, announce: Announce = _silently) -> TrustedKey:
    """Remove the key called `key_id`; a file that holds nothing else is deleted.

    Comments and other keys of a hand-written file stay as they are; where cutting out the key's lines
    would change anything else, the file is left alone and the error says to edit it. `announce` as in
    `add_key`. Raises TrustStoreError.
    """
    with _locked(directory):
        store = load_trust(directory)
        for name, content in read_trust_files(directory):
            text = content.decode("utf-8")
            entries = trust_toml.parse(text)["key"]
            if not any(entry["id"] == key_id for entry in entries):
                continue
            removed = next(key for key in store.keys if key.id == key_id)
            path = os.path.join(directory, name)
            shorter = _without(text, key_id, path) if len(entries) > 1 else None
            announce(removed)
            if shorter is None:
                os.unlink(path)
            else:
                _replace(path, shorter)
            _sync(directory)
            return removed
    known = ", ".join(key.id for key in store.keys) or "none"
    raise NoSuchKey(f"the trust store has no key called {excerpt(key_id)}", f"it has: {known}")


def render(plain: dict[str, Any]) -> str:
    """Return one plain entry as a TOML table, in the field order of the documentation."""
    lines = ["[[key]]"]
    for field in ("id", "ssh", "publisher", "plugins", "valid_after", "valid_before", "role"):
        value = plain[field]
        if value is None:
            continue
        if field.startswith("valid_"):
            value = format_time(value)
        # JSON's escapes are TOML's, but TOML also wants DEL escaped (toml.io v1.0.0, "String").
        lines.append(f"{field} = {json.dumps(value, ensure_ascii=False)}".replace("\x7f", "\\u007f"))
    return "\n".join(lines) + "\n"


def _without(text: str, key_id: str, path: str) -> str:
    """Cut one `[[key]]` out of a file, proving by parsing that nothing else changed."""
    before = trust_toml.parse(text)["key"]
    position = next(at for at, entry in enumerate(before) if entry["id"] == key_id)
    starts = [match.start() for match in _KEY_HEADER.finditer(text)]
    if len(starts) == len(before):
        end = starts[position + 1] if position + 1 < len(starts) else len(text)
        shorter = text[: starts[position]] + text[end:]
        try:
            if trust_toml.parse(shorter)["key"] == [entry for entry in before if entry["id"] != key_id]:
                return shorter
        except TrustStoreError:
            pass  # the cut went through something that only looked like a header
    raise TrustStoreError(
        f"{key_id} cannot be cut out of {path} without touching other lines",
        f"edit {path} by hand",
        id="PLG-TST-009",
    )


@contextmanager
def _locked(directory: str) -> Iterator[None]:
    """Keep two editors of one trust store apart; flock(2) on the directory itself."""
    try:
        os.makedirs(directory, mode=0o700, exist_ok=True)
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except (OSError, ValueError) as err:
        raise TrustStoreError(
            f"the trust store {directory} cannot be opened: {err}", id="PLG-TST-001"
        ) from err
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    except OSError as err:
        raise TrustStoreError(
            f"the trust store {directory} cannot be changed: {err}", id="PLG-TST-001"
        ) from err
    finally:
        os.close(fd)


def _replace(path: str, text: str) -> None:
    trust_toml.parse(text)
    directory = os.path.dirname(path)
    fd, new = tempfile.mkstemp(prefix=".trust-", dir=directory)
    try:
        with os.fdopen(fd, "wb") as file:
            os.fchmod(fd, 0o600)  # mkstemp's, even under a umask that takes it away
            file.write(text.encode("utf-8"))
            file.flush()
            os.fsync(fd)
        os.replace(new, path)
    except BaseException:
        os.unlink(new)
        raise
    _sync(directory)


def _sync(directory: str) -> None:
    """Make a rename or removal durable: trust that was withdrawn must not return after a power cut."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
