"""The trust root: the part of a trust store that changes only when its own signers say so.

`root.json` in the trust directory lists keys and rules like a trust file does, and they count beside the
operator's own `*.toml`. It also says who may replace it: version N + 1 is accepted only when signed by
enough keys of version N *and* by enough of its own (the rule of The Update Framework, specification 5.3).
So an organisation hands out new keys without anybody editing files, and a thief of fewer keys than the
threshold hands out nothing. The first version is the operator's decision. docs/formats/revocations.md.

The signatures are checked when a root is put in place, not by each run: whoever can write the directory
could as well write a trust file.
"""

import hashlib
import os
import tomllib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from plugsec_signing import canonical, detached, keys, trust_toml
from plugsec_signing.errors import JsonError, RootError, RootRefused, RootUsage, TrustStoreError, excerpt
from plugsec_signing.revocation import ROLE as REVOCATION
from plugsec_signing.times import format_time
from plugsec_signing.trust import (
    MAX_FILE_BYTES,
    MAX_THRESHOLD,
    ROOT_FILE,
    TrustStore,
    load_trust,
    read_trust_files,
)
from plugsec_signing.trust_edit import locked

SCHEMA = "plugsec.root/1"
NAMESPACE = "plugsec-root@v1"
ROLE = "root"

_FIELDS = frozenset(("schema", "version", "thresholds", "key", "rule"))
_SCHEMA_PREFIX = SCHEMA.rpartition("/")[0] + "/"


class Root(NamedTuple):
    """A well-formed trust root: `keys` may replace it; `digest` (hex SHA-256) names its bytes."""

    version: int
    thresholds: Mapping[str, int]
    keys: tuple[keys.PublicKey, ...]
    plain: dict[str, Any]
    digest: str


def parse(data: bytes) -> Root:
    """Return the trust root that canonical JSON holds; raises RootError (exit 4) and nothing else."""
    try:
        value = canonical.decode_canonical(data, max_bytes=MAX_FILE_BYTES)
    except JsonError as err:
        raise RootError(f"the trust root is malformed: {err.message}", id="PLG-ROT-001") from err
    return _checked(value, hashlib.sha256(data).hexdigest())


def trust_part(text: str) -> dict[str, Any]:
    """Return the plain form of the trust file that a root also is; raises TrustStoreError (exit 4)."""
    try:
        return parse(text.encode("utf-8", "surrogatepass")).plain
    except RootError as err:
        raise TrustStoreError(err.message, err.hint, id=err.id) from err


def from_toml(text: str) -> bytes:
    """Return the canonical JSON of a root that people wrote in TOML; raises RootError (exit 4)."""
    try:
        value = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as err:
        raise RootError(f"the draft of a trust root is not TOML: {err}", id="PLG-ROT-001") from err
    plain = _checked({"key": [], "rule": [], "schema": SCHEMA, **value}, "").plain
    entries = [_written(entry, trust_toml.check_entry) for entry in plain["key"]]
    rules = [_written(rule, trust_toml.check_rule) for rule in plain["rule"]]
    data = canonical.encode({
        "schema": SCHEMA, "version": value["version"], "thresholds": value["thresholds"],
        "key": entries, "rule": rules,
    })  # fmt: skip
    parse(data)
    return data


def check_first(data: bytes, armours: bytes) -> Root:
    """Return a root that enough of its own keys have signed. Raises RootError, RootRefused (exit 3)."""
    root = parse(data)
    _check_signed(root, root, data, armours)
    return root


def check_next(current: Root, data: bytes, armours: bytes) -> Root:
    """Return the root that may replace `current`. Raises RootError (exit 4) and RootRefused (exit 3).

    1. It must be a well-formed root (exit 4).
    2. Its version must be the next one: a step that was left out could have removed a signer.
    3. Enough distinct keys of the current root must have signed it.
    4. Enough distinct keys of its own must have.
    """
    root = parse(data)  # 1
    if root.version != current.version + 1:  # 2
        raise RootRefused(
            f"the trust root in force is version {current.version}; version {root.version} is not the next",
            f"get version {current.version + 1} and those after it, and rotate through each",
            id="PLG-ROT-005",
        )
    _check_signed(current, root, data, armours)  # 3
    _check_signed(root, root, data, armours)  # 4
    return root


def read(directory: str) -> Root | None:
    """Return the root of a trust directory; None if there is none. Raises RootError (exit 4)."""
    data = detached.read_private(os.path.join(directory, ROOT_FILE), MAX_FILE_BYTES, RootError)
    return None if data is None else parse(data)


def install(
    directory: str,
    data: bytes,
    armours: bytes,
    *,
    first: bool,
    announce: Callable[[Root, Root | None], object],
) -> Root:
    """Put a root in place: the `first` one, or the next. The directory is created 0700.

    `announce` is called when nothing but the change is left to do. Raises RootError (exit 4), RootRefused
    (exit 3), RootUsage (exit 2) and TrustStoreError, also when the store would not load with it.
    """
    with locked(directory):
        current = read(directory)
        if first != (current is None):
            raise RootUsage(
                f"there is no trust root in {directory}"
                if current is None
                else "there is a trust root already",
                "plugsec trust root init ROOT.json" if current is None else "plugsec trust rotate ROOT.json",
                id="PLG-ROT-006",
            )
        root = check_first(data, armours) if current is None else check_next(current, data, armours)
        _check_store(directory, root)
        announce(root, current)
        detached.replace(os.path.join(directory, ROOT_FILE), data, armours)
    return root


def _check_store(directory: str, root: Root) -> None:
    """Refuse a root with which the store would not load: an id that one of the operator's files has taken."""
    load_trust(directory)  # what is amiss already is not the new root's fault
    own = [
        trust_toml.parse(content.decode("utf-8"))
        for name, content in read_trust_files(directory)
        if name != ROOT_FILE
    ]
    try:
        TrustStore.from_plain([*own, root.plain])
    except TrustStoreError as err:
        raise TrustStoreError(
            f"with this trust root, {err.message}",
            "plugsec trust remove, or trust rule remove, for what is yours; then again",
            id=err.id,
        ) from err


def _checked(value: Any, digest: str) -> Root:  # noqa: ANN401 - any JSON or TOML value
    schema = value.get("schema") if isinstance(value, dict) else None
    if isinstance(schema, str) and schema != SCHEMA and schema.startswith(_SCHEMA_PREFIX):
        raise RootError(
            f"the trust root is of {excerpt(schema)}, made for a newer plugsec",
            "update plugsec, then rotate",
            id="PLG-ROT-002",
        )
    if schema != SCHEMA:
        raise _malformed(f"it does not say that its schema is {SCHEMA!r}")
    if value.keys() != _FIELDS:
        wrong = sorted(value.keys() ^ _FIELDS)[0]
        raise _malformed(f"{excerpt(wrong)} is {'unknown' if wrong in value else 'missing'}")
    if type(value["version"]) is not int or value["version"] < 1:
        raise _malformed(f"its version {excerpt(value['version'])} is not a whole number from 1")
    if not isinstance(value["key"], list) or not isinstance(value["rule"], list):
        raise _malformed("key and rule are lists of tables")
    try:
        plain: dict[str, Any] = {
            "key": [trust_toml.check_entry(entry) for entry in value["key"]],
            "rule": [trust_toml.check_rule(rule) for rule in value["rule"]],
        }
        store = TrustStore.from_plain([plain])
    except TrustStoreError as err:
        raise RootError(f"the trust root is malformed: {err.message}", err.hint, id="PLG-ROT-001") from err
    thresholds = _thresholds(value["thresholds"], store)
    plain["revocation_threshold"] = thresholds.get(REVOCATION, 1)
    mine = [entry for entry in store.keys if entry.role == ROLE]
    if any(entry.valid_after is not None or entry.valid_before is not None for entry in mine):
        raise _malformed("a key with the role root has no validity: it is replaced by the next version")
    return Root(value["version"], thresholds, tuple(entry.key for entry in mine), plain, digest)


def _thresholds(value: object, store: TrustStore) -> dict[str, int]:
    if not isinstance(value, dict) or not {ROLE} <= value.keys() <= {ROLE, REVOCATION}:
        raise _malformed(f"thresholds say how many keys of {ROLE} (and of {REVOCATION}) must sign")
    for role, wanted in value.items():
        there = len({entry.key.raw for entry in store.keys if entry.role == role})
        if type(wanted) is not int or not 1 <= wanted <= MAX_THRESHOLD:
            raise _malformed(f"the threshold {excerpt(wanted)} of {role} is not 1 to {MAX_THRESHOLD}")
        if wanted > there:
            raise _malformed(f"{wanted} keys of {role} must sign, and it lists {there}")
    return dict(value)


def _check_signed(by: Root, root: Root, data: bytes, armours: bytes) -> None:
    found = detached.signers(data, armours, NAMESPACE) if armours else ()
    count, wanted = detached.distinct(found, by.keys), by.thresholds[ROLE]
    if count < wanted:
        whose = f"its own {len(by.keys)}" if by is root else f"version {by.version}'s {len(by.keys)}"
        raise RootRefused(
            f"version {root.version} of the trust root is signed by {count} of {whose} keys with the role "
            f"{ROLE}; {wanted} must",
            id="PLG-ROT-004" if by is root else "PLG-ROT-003",
        )


def _written(plain: dict[str, Any], check: Callable[[object], dict[str, Any]]) -> dict[str, Any]:
    """Return a plain entry as it is written: times in words, nothing that is not said."""
    said = {
        field: format_time(value) if field.startswith("valid_") else value
        for field, value in plain.items()
        if value not in (None, "")
    }
    check(said)
    return said


def _malformed(how: str) -> RootError:
    return RootError(f"the trust root is malformed: {how}", id="PLG-ROT-001")
