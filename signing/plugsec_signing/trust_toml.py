"""Trust files as people write them: TOML in, validated plain form out. Not for the hot path.

The plain form is JSON-able, so that it can be cached:
`{"key": [{"id", "ssh", "publisher", "plugins": [glob], "role", "valid_after", "valid_before"}]}`
with times in unix seconds, or null.
"""

import re
import tomllib
from datetime import UTC, date, datetime
from typing import Any

from plugsec_signing import keys
from plugsec_signing.errors import KeyRefused, TrustStoreError, excerpt
from plugsec_signing.times import parse_time

_KEY_ID = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,62}[A-Za-z0-9])?")
_PUBLISHER = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?")
_GLOB = re.compile(r"[a-z0-9._*-]{1,64}/[a-z0-9._*-]{1,64}")
_ROLE = re.compile(r"[a-z](?:[a-z0-9-]{0,30}[a-z0-9])?")
_FIELDS = frozenset(("id", "ssh", "publisher", "plugins", "valid_after", "valid_before", "role"))
_REQUIRED = ("id", "ssh", "publisher")
_LATER = {"rule": "threshold rules", "revocation": "revocation"}


def parse(text: str) -> dict[str, Any]:
    """Return the plain form of one trust file; raises TrustStoreError (exit 4) for anything unknown."""
    try:
        document = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as err:
        raise TrustStoreError(f"not TOML: {err}", id="PLG-TST-001") from err
    for table in document:
        if table in _LATER:
            raise TrustStoreError(
                f"[[{table}]] is not supported yet: {_LATER[table]} would not be enforced",
                f"remove [[{table}]], or wait for a version that enforces it",
                id="PLG-TST-007",
            )
        if table != "key":
            raise TrustStoreError(
                f"unknown table {excerpt(table)}; a trust file has [[key]]", id="PLG-TST-002"
            )
    entries = document.get("key", [])
    if not isinstance(entries, list):
        raise TrustStoreError("keys are written as [[key]], with two brackets", id="PLG-TST-002")
    return {"key": [check_entry(entry) for entry in entries]}


def check_entry(entry: object) -> dict[str, Any]:
    """Return the plain form of one `[[key]]`; raises TrustStoreError."""
    if not isinstance(entry, dict):
        raise TrustStoreError("a [[key]] is not a table", id="PLG-TST-002")
    unknown = sorted(set(entry) - _FIELDS)
    missing = [field for field in _REQUIRED if field not in entry]
    if unknown or missing:
        fault = f"has the unknown field {excerpt(unknown[0])}" if unknown else f"lacks {missing[0]}"
        raise TrustStoreError(f"the key {excerpt(entry.get('id'))} {fault}", id="PLG-TST-002")
    publisher = _text(entry, "publisher", _PUBLISHER)
    after, before = _time(entry, "valid_after"), _time(entry, "valid_before")
    if after is not None and before is not None and after >= before:
        raise TrustStoreError(
            f"the key {excerpt(entry['id'])} is never valid: valid_after >= valid_before", id="PLG-TST-002"
        )
    return {
        "id": _text(entry, "id", _KEY_ID),
        "ssh": _ssh(entry),
        "publisher": publisher,
        "plugins": _globs(entry, publisher),
        "role": _text(entry, "role", _ROLE) if "role" in entry else "release",
        "valid_after": after,
        "valid_before": before,
    }


def _text(entry: dict[str, Any], field: str, form: re.Pattern[str]) -> str:
    value = entry[field]
    if not isinstance(value, str) or not form.fullmatch(value):
        raise TrustStoreError(
            f"the key {excerpt(entry.get('id'))} has the {field} {excerpt(value)}, which is not a plain name",
            id="PLG-TST-002",
        )
    return value


def _ssh(entry: dict[str, Any]) -> str:
    if not isinstance(entry["ssh"], str):
        raise TrustStoreError(f"the key {excerpt(entry['id'])} has an ssh that is not text", id="PLG-TST-002")
    try:
        return keys.public_line(keys.parse_public_key(entry["ssh"]))
    except KeyRefused as err:
        raise TrustStoreError(
            f"the key {excerpt(entry['id'])} is refused: {err.message}", err.hint, id="PLG-TST-006"
        ) from err


def _globs(entry: dict[str, Any], publisher: str) -> list[str]:
    globs = entry.get("plugins", [f"{publisher}/*"])
    if not isinstance(globs, list) or not globs:
        raise TrustStoreError(f"the key {excerpt(entry['id'])} has no list of plugins", id="PLG-TST-002")
    for glob in globs:
        if not isinstance(glob, str) or not _GLOB.fullmatch(glob):
            raise TrustStoreError(
                f"the key {excerpt(entry['id'])} has the glob {excerpt(glob)}; globs look like acme/*",
                id="PLG-TST-002",
            )
    return globs


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
