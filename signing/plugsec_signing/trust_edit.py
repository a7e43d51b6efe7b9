"""Changing the trust store: one file per entry that is added here, other people's files edited gently.

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
from plugsec_signing.errors import NoSuchKey, RootRefused, TrustStoreError, excerpt
from plugsec_signing.private import make_directories
from plugsec_signing.times import format_time
from plugsec_signing.trust import (
    ROOT_FILE,
    Rule,
    TrustedKey,
    TrustStore,
    load_trust,
    open_directory,
    read_trust_files,
)

_HEADER = re.compile(r"^[ \t]*\[\[[ \t]*(key|rule)[ \t]*\]\]", re.MULTILINE)
_KEY_FIELDS = ("id", "ssh", "algorithm", "publisher", "plugins", "valid_after", "valid_before", "role")
_RULE_FIELDS = ("id", "plugins", "threshold", "roles")

Plain = dict[str, Any]
Announce = Callable[[TrustedKey], object]
AnnounceRule = Callable[[Rule], object]


def _silently(_: object) -> None:
    """Announce nothing: for callers without an audit log."""


def add_key(directory: str, entry: dict[str, Any], *, announce: Announce = _silently) -> TrustedKey:
    """Add one `[[key]]` (fields as in the file) as `ID.toml`, 0600; the directory is created 0700.

    `announce` is called when nothing but the rename is left to do, so that a change which cannot be
    recorded does not happen. Raises TrustStoreError (exit 4), also when the id is taken.
    """
    plain = trust_toml.check_entry(entry)
    added = TrustStore.from_plain([{"key": [plain], "rule": []}]).keys[0]
    with locked(directory):
        if any(key.id == added.id for key in load_trust(directory).keys):
            raise TrustStoreError(
                f"the trust store already has a key called {added.id}",
                f"plugsec trust remove {added.id}, or choose another --id",
                id="PLG-TST-004",
            )
        path = _new_file(directory, added.id)
        announce(added)
        _replace(path, render("key", plain))
    return added


def add_rule(directory: str, rule: dict[str, Any], *, announce: AnnounceRule = _silently) -> Rule:
    """Add one `[[rule]]` (fields as in the file, `id` included) as `ID.toml`; see `add_key`."""
    plain = trust_toml.check_rule(rule)
    added = TrustStore.from_plain([{"key": [], "rule": [plain]}]).rules[0]
    with locked(directory):
        if any(each.id == added.id for each in load_trust(directory).rules):
            raise TrustStoreError(
                f"the trust store already has a rule called {added.id}",
                f"plugsec trust rule remove {added.id}, or choose another --id",
                id="PLG-TST-004",
            )
        path = _new_file(directory, added.id)
        announce(added)
        _replace(path, render("rule", plain))
    return added


def remove_key(directory: str, key_id: str, *, announce: Announce = _silently) -> TrustedKey:
    """Remove the key called `key_id`; a file that holds nothing else is deleted.

    Comments and other entries of a hand-written file stay as they are; where cutting out the key's lines
    would change anything else, the file is left alone and the error says to edit it. `announce` as in
    `add_key`. Raises TrustStoreError.
    """
    with locked(directory):
        store = load_trust(directory)
        removed = next((key for key in store.keys if key.id == key_id), None)
        if removed is None:
            known = ", ".join(key.id for key in store.keys) or "none"
            raise NoSuchKey(f"the trust store has no key called {excerpt(key_id)}", f"it has: {known}")
        found = removed
        _cut_out(directory, "key", key_id, lambda: announce(found))
        return removed


def remove_rule(directory: str, rule_id: str, *, announce: AnnounceRule = _silently) -> Rule:
    """Remove the rule called `rule_id`, which **widens** what is accepted; see `remove_key`."""
    with locked(directory):
        store = load_trust(directory)
        removed = next((rule for rule in store.rules if rule.id and rule.id == rule_id), None)
        if removed is None:
            known = ", ".join(rule.id or "one without an id" for rule in store.rules) or "none"
            raise NoSuchKey(
                f"the trust store has no rule called {excerpt(rule_id)}", f"it has: {known}", id="PLG-TST-011"
            )
        found = removed
        _cut_out(directory, "rule", rule_id, lambda: announce(found))
        return removed


def render(kind: str, plain: Plain) -> str:
    """Return one plain entry as a TOML table, in the field order of the documentation."""
    lines = [f"[[{kind}]]"]
    for field in _KEY_FIELDS if kind == "key" else _RULE_FIELDS:
        value = plain[field]
        if value is None or (field == "algorithm" and value == trust_toml.DEFAULT_ALGORITHM):
            continue
        if field.startswith("valid_"):
            value = format_time(value)
        # JSON's escapes are TOML's, but TOML also wants DEL escaped (toml.io v1.0.0, "String").
        lines.append(f"{field} = {json.dumps(value, ensure_ascii=False)}".replace("\x7f", "\\u007f"))
    return "\n".join(lines) + "\n"


def _new_file(directory: str, name: str) -> str:
    path = os.path.join(directory, f"{name}.toml")
    if os.path.lexists(path):
        raise TrustStoreError(
            f"{path} exists and holds other entries", "choose another --id", id="PLG-TST-004"
        )
    return path


def _cut_out(directory: str, kind: str, name: str, announce: Callable[[], object]) -> None:
    """Remove an entry from the file that holds it, or the file when it holds nothing else."""
    for file, content in read_trust_files(directory):
        text = content.decode("utf-8")
        plain = trust_toml.parse(text)
        if not any(entry["id"] == name for entry in plain[kind]):
            continue
        path = os.path.join(directory, file)
        if file == ROOT_FILE:
            raise RootRefused(
                f"{name} comes from the trust root, and only its signers change that",
                "a new version without it: plugsec trust rotate ROOT.json",
                id="PLG-ROT-007",
            )
        alone = len(plain["key"]) + len(plain["rule"]) == 1
        shorter = None if alone else _without(text, kind, name, path)
        announce()
        if shorter is None:
            os.unlink(path)
        else:
            _replace(path, shorter)
        _sync(directory)
        return


def _without(text: str, kind: str, name: str, path: str) -> str:
    """Cut one entry out of a file, proving by parsing that nothing else changed."""
    before = trust_toml.parse(text)
    position = next(at for at, entry in enumerate(before[kind]) if entry["id"] == name)
    headers = list(_HEADER.finditer(text))
    mine = [at for at, header in enumerate(headers) if header[1] == kind]
    if len(mine) == len(before[kind]):
        at = mine[position]
        end = headers[at + 1].start() if at + 1 < len(headers) else len(text)
        shorter = text[: headers[at].start()] + text[end:]
        wanted = {**before, kind: [entry for entry in before[kind] if entry["id"] != name]}
        try:
            if trust_toml.parse(shorter) == wanted:
                return shorter
        except TrustStoreError:
            pass  # the cut went through something that only looked like a header
    raise TrustStoreError(
        f"{name} cannot be cut out of {path} without touching other lines",
        f"edit {path} by hand",
        id="PLG-TST-009",
    )


@contextmanager
def locked(directory: str) -> Iterator[None]:
    """Keep two editors of one trust store apart; flock(2) on the directory itself."""
    try:
        make_directories(directory)
        fd = open_directory(directory)
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
    replace_file(path, text.encode("utf-8"))


def replace_file(path: str, data: bytes) -> None:
    """Put a whole file (0600) in place of another by one rename, durably; raises OSError."""
    directory = os.path.dirname(path) or "."
    fd, new = tempfile.mkstemp(prefix=".trust-", dir=directory)
    try:
        with os.fdopen(fd, "wb") as file:
            os.fchmod(fd, 0o600)  # mkstemp's, even under a umask that takes it away
            file.write(data)
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
