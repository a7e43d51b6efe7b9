"""Trust files as people write them: TOML in, validated plain form out. Not for the hot path.

The plain form is JSON-able, so that it can be cached:
`{"key": [{"id", "ssh", "algorithm", "publisher", "plugins": [glob], "role", "valid_after",
"valid_before"}], "rule": [{"id", "plugins": [glob], "threshold", "roles": [role]}]}`
with times in unix seconds, or null. A rule without a name has the id "".
"""

import re
import tomllib
from datetime import UTC, date, datetime
from typing import Any, NamedTuple

from plugsec_signing import ed25519, keys
from plugsec_signing.errors import KeyRefused, TrustStoreError, excerpt
from plugsec_signing.times import parse_time
from plugsec_signing.trust import MAX_THRESHOLD, RELEASE

DEFAULT_ALGORITHM = ed25519.NAME

_ID = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,62}[A-Za-z0-9])?")
_PUBLISHER = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?")
_GLOB = re.compile(r"[a-z0-9._*-]{1,64}/[a-z0-9._*-]{1,64}")
_ROLE = re.compile(r"[a-z](?:[a-z0-9-]{0,30}[a-z0-9])?")
_KEY_FIELDS = frozenset(
    ("id", "ssh", "algorithm", "publisher", "plugins", "valid_after", "valid_before", "role")
)
_KEY_REQUIRED = ("id", "ssh", "publisher")
_RULE_FIELDS = frozenset(("id", "plugins", "threshold", "roles"))
_RULE_REQUIRED = ("plugins", "threshold")
_MAX_LIST = 100  # globs or roles of one entry; more are a mistake


def parse(text: str) -> dict[str, Any]:
    """Return the plain form of one trust file; raises TrustStoreError (exit 4) for anything unknown.

    The trust root, which is JSON and so cannot be TOML, gives the part of it that is a trust file's.
    """
    if text.startswith("{"):
        from plugsec_signing import root  # noqa: PLC0415 - few trust stores have one

        return root.trust_part(text)
    try:
        document = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as err:
        raise TrustStoreError(f"not TOML: {err}", id="PLG-TST-001") from err
    for table in document:
        if table == "revocation":
            raise TrustStoreError(
                "[revocation] in a trust file would not be enforced: revocations are a signed list",
                "remove [revocation] from the file",
                id="PLG-TST-007",
            )
        if table not in ("key", "rule"):
            raise TrustStoreError(
                f"unknown table {excerpt(table)}; a trust file has [[key]] and [[rule]]", id="PLG-TST-002"
            )
    entries, rules = document.get("key", []), document.get("rule", [])
    if not isinstance(entries, list) or not isinstance(rules, list):
        raise TrustStoreError(
            "keys and rules are written as [[key]] and [[rule]], with two brackets", id="PLG-TST-002"
        )
    return {"key": [check_entry(entry) for entry in entries], "rule": [check_rule(rule) for rule in rules]}


def check_entry(entry: object) -> dict[str, Any]:
    """Return the plain form of one `[[key]]`; raises TrustStoreError."""
    entry = _table("key", entry, _KEY_FIELDS, _KEY_REQUIRED)
    publisher = _text(entry, "publisher", _PUBLISHER)
    after, before = _time(entry, "valid_after"), _time(entry, "valid_before")
    if after is not None and before is not None and after >= before:
        raise TrustStoreError(
            f"the key {excerpt(entry['id'])} is never valid: valid_after >= valid_before", id="PLG-TST-002"
        )
    ssh, algorithm = _ssh(entry)
    return {
        "id": _text(entry, "id", _ID),
        "ssh": ssh,
        "algorithm": algorithm,
        "publisher": publisher,
        "plugins": _list(f"the key {excerpt(entry['id'])}", entry.get("plugins", [f"{publisher}/*"]), _GLOBS),
        "role": _text(entry, "role", _ROLE) if "role" in entry else RELEASE,
        "valid_after": after,
        "valid_before": before,
    }


def check_rule(rule: object) -> dict[str, Any]:
    """Return the plain form of one `[[rule]]`; raises TrustStoreError."""
    rule = _table("rule", rule, _RULE_FIELDS, _RULE_REQUIRED)
    name = f"the rule {excerpt(rule.get('id', rule['plugins']))}"
    threshold = rule["threshold"]
    if type(threshold) is not int or not 1 <= threshold <= MAX_THRESHOLD:
        raise TrustStoreError(
            f"{name} has the threshold {excerpt(threshold)}; it is a number of keys, 1 to {MAX_THRESHOLD}",
            id="PLG-TST-002",
        )
    return {
        "id": _text(rule, "id", _ID) if "id" in rule else "",
        "plugins": _list(name, rule["plugins"], _GLOBS),
        "threshold": threshold,
        "roles": _list(name, rule.get("roles", [RELEASE]), _ROLES),
    }


def _table(kind: str, entry: object, fields: frozenset[str], required: tuple[str, ...]) -> dict[str, Any]:
    """Return a table that has what it must and nothing unknown."""
    if not isinstance(entry, dict):
        raise TrustStoreError(f"a [[{kind}]] is not a table", id="PLG-TST-002")
    unknown = sorted(set(entry) - fields)
    missing = [field for field in required if field not in entry]
    if unknown or missing:
        fault = f"has the unknown field {excerpt(unknown[0])}" if unknown else f"lacks {missing[0]}"
        raise TrustStoreError(f"the {kind} {excerpt(entry.get('id'))} {fault}", id="PLG-TST-002")
    return entry


def _text(entry: dict[str, Any], field: str, form: re.Pattern[str]) -> str:
    value = entry[field]
    if not isinstance(value, str) or not form.fullmatch(value):
        raise TrustStoreError(
            f"the {field} {excerpt(value)} of {excerpt(entry.get('id'))} is not a plain name",
            id="PLG-TST-002",
        )
    return value


def _ssh(entry: dict[str, Any]) -> tuple[str, str]:
    """Return (public key line, algorithm): any other than Ed25519 only where the entry says so."""
    name = excerpt(entry["id"])
    if not isinstance(entry["ssh"], str):
        raise TrustStoreError(f"the key {name} has an ssh that is not text", id="PLG-TST-002")
    try:
        key = keys.parse_public_key(entry["ssh"])
    except KeyRefused as err:
        raise TrustStoreError(
            f"the key {name} is refused: {err.message}", err.hint, id="PLG-TST-006"
        ) from err
    wanted = entry.get("algorithm", DEFAULT_ALGORITHM)
    if wanted != key.algorithm:
        raise TrustStoreError(
            f"the key {name} is of the algorithm {key.algorithm}, and its entry allows {excerpt(wanted)}",
            f'algorithm = "{key.algorithm}" allows it, if that is meant',
            id="PLG-TST-010",
        )
    return keys.public_line(key), key.algorithm


class _Form(NamedTuple):
    """What the members of a list look like, and how to say so."""

    pattern: re.Pattern[str]
    what: str
    example: str


_GLOBS = _Form(_GLOB, "plugins", "globs look like acme/*")
_ROLES = _Form(_ROLE, "roles", 'roles look like "release"')


def _list(name: str, values: object, form: _Form) -> list[str]:
    if not isinstance(values, list) or not 0 < len(values) <= _MAX_LIST:
        raise TrustStoreError(f"{name} has no list of {form.what}; {form.example}", id="PLG-TST-002")
    for value in values:
        if not isinstance(value, str) or not form.pattern.fullmatch(value):
            raise TrustStoreError(
                f"{name} has {excerpt(value)} among its {form.what}; {form.example}", id="PLG-TST-002"
            )
    return values


def _time(entry: dict[str, Any], field: str) -> int | None:
    """Accept a TOML date, a TOML date-time with an offset, or the same as a string; UTC throughout."""
    value = entry.get(field)
    if field not in entry:
        return None
    seconds: int | None = None
    if isinstance(value, str):
        seconds = parse_time(value)
    elif isinstance(value, datetime):
        seconds = int(value.timestamp()) if value.tzinfo is not None and not value.microsecond else None
    elif isinstance(value, date):
        seconds = int(datetime(value.year, value.month, value.day, tzinfo=UTC).timestamp())
    if seconds is None:
        raise TrustStoreError(
            f"the key {excerpt(entry['id'])} has the {field} {excerpt(str(value))}",
            "write a date such as 2027-01-01, or 2027-01-01T00:00:00Z (UTC)",
            id="PLG-TST-002",
        )
    return seconds
