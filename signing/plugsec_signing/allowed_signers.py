"""OpenSSH's `allowed_signers` files: what they say of plugins taken over exactly, or refused.

A line names principals, options and a key (ssh-keygen(1), "ALLOWED SIGNERS"). Its options are honoured
(`namespaces`, `valid-after`, `valid-before`) or the file is refused (`cert-authority` and whatever is not
known); its principals stand for a publisher, for globs of plugins, or for whom the operator says.

Two differences of meaning are bridged here. OpenSSH reads a time without `Z` as local standard time, which is
converted when a file is read and never written. And its `valid-before` is the last second at which a key
counts, ours the first at which it does not.
"""

import re
import time
from calendar import timegm
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from plugsec_signing import keys, revocation, trust_toml
from plugsec_signing.errors import InterchangeError, KeyRefused, TrustStoreError, excerpt
from plugsec_signing.revocation import ROLE as REVOCATION
from plugsec_signing.sshsig import NAMESPACE_MANIFEST
from plugsec_signing.times import format_time
from plugsec_signing.trust import RELEASE, TrustedKey, TrustStore

MAX_BYTES = 4 * 1024 * 1024
MAX_LINES = 10_000  # as many keys as a trust store holds

_NAMESPACES = {NAMESPACE_MANIFEST: RELEASE, revocation.NAMESPACE: REVOCATION}
_OPTION = re.compile(r'([A-Za-z-]+)(?:="((?:[^"\\]|\\.)*)")?(?:,|$)')
_TIME = re.compile(r"(?a)(\d{4})(\d\d)(\d\d)(?:(\d\d)(\d\d)(\d\d)?)?(Z?)")
_PUBLISHER = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?")
_PLUGINS = re.compile(r"([a-z0-9][a-z0-9._-]{0,63})/[a-z0-9._*-]{1,64}")
_ID = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,62}[A-Za-z0-9])?")
_ID_PUBLISHER_CHARS = 40  # of the longest id, 64, less role and fingerprint
_LATEST = timegm((9999, 12, 31, 23, 59, 59))


class Imported(NamedTuple):
    """What a file comes to: trust entries as `[[key]]` fields, and sentences about what is not in them."""

    entries: tuple[dict[str, Any], ...]
    notes: tuple[str, ...]


class Exported(NamedTuple):
    """An allowed_signers file, and sentences about what it cannot say."""

    text: str
    notes: tuple[str, ...]


class _Line(NamedTuple):
    """One line, split and not judged yet; `number` from 1."""

    number: int
    principals: tuple[str, ...]
    options: Mapping[str, str | None]
    key: keys.PublicKey


def parse(data: bytes, *, publisher: str | None = None, algorithms: Iterable[str] = ()) -> Imported:
    """Return the trust entries that an allowed_signers file means. Raises InterchangeError (exit 4).

    With `publisher`, principals such as mail addresses are taken for that publisher. `algorithms` other
    than Ed25519 are accepted only when they are named.
    """
    if len(data) > MAX_BYTES or data.count(b"\n") > MAX_LINES:
        raise InterchangeError(
            f"the allowed_signers file has more than {MAX_BYTES} bytes or {MAX_LINES} lines", id="PLG-ALS-005"
        )
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as err:
        raise InterchangeError("the allowed_signers file is not UTF-8", id="PLG-ALS-001") from err
    entries: list[dict[str, Any]] = []
    notes: list[str] = []
    allowed = frozenset((trust_toml.DEFAULT_ALGORITHM, *algorithms))
    for number, line in enumerate(text.split("\n"), 1):
        stripped = line.strip(" \t\r")
        if stripped and not stripped.startswith("#"):
            entries += _entries(_split(number, stripped), publisher, allowed, notes)
    if not entries:
        raise InterchangeError(
            f"no line of the allowed_signers file is for {NAMESPACE_MANIFEST} or {revocation.NAMESPACE}",
            f'add namespaces="{NAMESPACE_MANIFEST}" to the lines of keys that may release plugins',
            id="PLG-ALS-004",
        )
    return Imported(tuple(_named(entries)), tuple(notes))


def export(store: TrustStore, revoked: frozenset[str] = frozenset()) -> Exported:
    """Return what `ssh-keygen -Y verify -f` can know of a trust store; keys in `revoked` are left out.

    Only keys that may release, or sign revocations, are in it: it has no roles, and a reviewer's key would
    be taken for a releaser's.
    """
    lines: list[str] = []
    notes: list[str] = []
    for entry in store.keys:
        namespace = {role: name for name, role in _NAMESPACES.items()}.get(entry.role)
        if entry.fingerprint in revoked:
            notes.append(f"{entry.id} is left out: it is revoked")
        elif namespace is None:
            notes.append(f"{entry.id} is left out: allowed_signers cannot say that its role is {entry.role}")
        elif entry.valid_before is not None and entry.valid_before <= 0:
            notes.append(f"{entry.id} is left out: it was never valid")
        else:
            lines.append(_line(entry, namespace))
    if store.rules:
        notes.append(f"{len(store.rules)} rules are left out: ssh-keygen accepts one signature")
    return Exported("".join(lines), tuple(notes))


def _line(entry: TrustedKey, namespace: str) -> str:
    own = f"{entry.publisher}/*"
    # A key for some plugins only must not pass for its publisher's key for all.
    principals = (entry.publisher, *entry.plugins) if own in entry.plugins else entry.plugins
    options = [f'namespaces="{namespace}"']
    if entry.valid_after is not None and entry.valid_after > 0:
        options.append(f'valid-after="{_compact(entry.valid_after)}"')
    if entry.valid_before is not None:
        options.append(f'valid-before="{_compact(entry.valid_before - 1)}"')
    line = keys.public_line(entry.key._replace(comment=entry.id))
    return f"{','.join(principals)} {','.join(options)} {line}\n"


def _compact(seconds: int) -> str:
    return re.sub("[-:T]", "", format_time(seconds))


def _split(number: int, line: str) -> _Line:
    principals, rest = _word(number, line)
    first = rest.split(None, 1)[0] if rest else ""
    options: dict[str, str | None] = {}
    if first and not _is_key_type(first):
        written, rest = _word(number, rest)
        options = _options(number, written)
    try:
        key = keys.parse_public_key(rest)
    except KeyRefused as err:
        raise InterchangeError(f"line {number}: {err.message}", err.hint, id="PLG-ALS-001") from err
    unquoted = principals.strip('"').split(",")
    if '"' in principals.strip('"') or not all(unquoted):
        raise _malformed(number, f"its principals {excerpt(principals)} are not a list")
    return _Line(number, tuple(unquoted), options, key)


def _is_key_type(word: str) -> bool:
    return word.startswith(("ssh-", "sk-", "ecdsa-", "rsa-")) and "=" not in word


def _word(number: int, text: str) -> tuple[str, str]:
    """Return the first word, within which blanks may be quoted, and what follows it."""
    match = re.match(r'((?:"(?:[^"\\]|\\.)*"|[^\s"])+)[ \t]+(.*)', text, re.DOTALL)
    if match is None:
        raise _malformed(number, "it has no principals, options and key, or a quote has no end")
    return match[1], match[2]


def _options(number: int, written: str) -> dict[str, str | None]:
    options: dict[str, str | None] = {}
    at = 0
    while at < len(written):  # each match takes at least one character
        match = _OPTION.match(written, at)
        if match is None:
            raise _malformed(number, f"its options {excerpt(written)} are malformed")
        name, at = match[1].lower(), match.end()
        if name == "cert-authority":
            raise InterchangeError(
                f"line {number} has cert-authority: certificates are refused",
                "list the keys themselves, each on a line of its own",
                id="PLG-ALS-002",
            )
        if name not in ("namespaces", "valid-after", "valid-before") or match[2] is None:
            raise InterchangeError(
                f"line {number} has the option {excerpt(match[0].rstrip(','))}, which would be ignored here",
                id="PLG-ALS-002",
            )
        if name in options:
            raise _malformed(number, f"it has {name} twice")
        options[name] = re.sub(r"\\(.)", r"\1", match[2])
    return options


def _entries(
    line: _Line, publisher: str | None, allowed: frozenset[str], notes: list[str]
) -> list[dict[str, Any]]:
    """Return the entries that one line comes to: one for each role and publisher."""
    patterns = line.options.get("namespaces")
    # Without namespaces a line is for all of them, but nobody meant it to be a list of revocations.
    roles = [RELEASE] if patterns is None else [
        role for name, role in _NAMESPACES.items() if _matches(line.number, patterns, name)
    ]  # fmt: skip
    if not roles:
        notes.append(
            f"line {line.number} is left out: it is for {excerpt(patterns)} only, and not for plugins"
        )
        return []
    if line.key.algorithm not in allowed:
        raise InterchangeError(
            f"line {line.number} has a key of the algorithm {line.key.algorithm}",
            f"--algorithm {line.key.algorithm} allows it, if that is meant",
            id="PLG-ALS-002",
        )
    after, before = (_moment(line, name, notes) for name in ("valid-after", "valid-before"))
    common: dict[str, Any] = {"ssh": keys.public_line(line.key), "algorithm": line.key.algorithm}
    if after is not None:
        common["valid_after"] = format_time(after)
    if before is not None:
        common["valid_before"] = format_time(before + 1)
    entries = [
        {**common, "id": "", "publisher": whose, "plugins": plugins, "role": role}
        for role in roles
        for whose, plugins in _plugins(line, publisher).items()
    ]
    for entry in entries:
        try:
            trust_toml.check_entry({**entry, "id": "imported"})
        except TrustStoreError as err:
            raise InterchangeError(f"line {line.number}: {err.message}", err.hint, id="PLG-ALS-001") from err
    return entries


def _plugins(line: _Line, publisher: str | None) -> dict[str, list[str]]:
    """Return the globs of each publisher that the principals stand for."""
    found: dict[str, list[str]] = {}
    for principal in line.principals:
        glob = _PLUGINS.fullmatch(principal)
        if glob is not None:
            whose, plugins = glob[1], principal
        elif publisher is not None and not set("*?!").intersection(principal):
            whose, plugins = publisher, f"{publisher}/*"
        elif _PUBLISHER.fullmatch(principal):
            whose, plugins = principal, f"{principal}/*"
        else:
            raise InterchangeError(
                f"line {line.number} has the principal {excerpt(principal)}, which is no publisher and no "
                "glob of plugins such as acme/*",
                "patterns with ? or ! cannot be taken over"
                if set("*?!").intersection(principal)
                else "plugsec trust import FILE --publisher NAME says whose these keys are",
                id="PLG-ALS-003",
            )
        if plugins not in found.setdefault(whose, []):
            found[whose].append(plugins)
    return found


def _matches(number: int, patterns: str, name: str) -> bool:
    """Say whether a pattern-list of ssh_config(5), with * ? and !, matches; one negation decides."""
    matched = False
    for pattern in patterns.split(","):
        wanted = pattern.removeprefix("!")
        if not wanted:
            raise _malformed(number, f"its namespaces {excerpt(patterns)} are not a list")
        first, *pieces = (re.escape(piece).replace(r"\?", ".") for piece in wanted.split("*"))
        # The leftmost place for each piece is as good as any, so no way is tried twice.
        expression = first + "".join(f"(?>.*?{piece})" for piece in pieces[:-1])
        if re.fullmatch(expression + (f".*{pieces[-1]}" if pieces else ""), name):
            if pattern.startswith("!"):
                return False
            matched = True
    return matched


def _moment(line: _Line, option: str, notes: list[str]) -> int | None:
    """Return the unix seconds of a time, converting local time and saying so."""
    text = line.options.get(option)
    if text is None:
        return None
    match = _TIME.fullmatch(text)
    try:
        if match is None:
            raise ValueError("not YYYYMMDD or YYYYMMDDHHMM[SS], with or without Z")
        year, month, day, hour, minute, second = (int(part or 0) for part in match.groups()[:6])
        # `timegm` does arithmetic with whatever it is given; this refuses the 31st of February.
        time.strptime(f"{year:04}{month:02}{day:02}{hour:02}{minute:02}{second:02}", "%Y%m%d%H%M%S")
        parts = (year, month, day, hour, minute, second)
        # As ssh-keygen does it: local standard time, in summer too (misc.c, parse_absolute_time).
        seconds = timegm(parts) if match[7] else int(time.mktime((*parts, 0, 0, 0)))
        if not 0 <= seconds < _LATEST:
            raise ValueError("out of range")
    except (ValueError, OverflowError) as err:
        raise _malformed(line.number, f"its {option} {excerpt(text)} is no time: {err}") from err
    if not match[7]:
        notes.append(
            f"line {line.number}: {option} {text} has no Z, so it is local standard time ({time.tzname[0]}) "
            f"and was taken for {format_time(seconds)}"
        )
    return seconds


def _named(entries: list[dict[str, Any]]) -> Iterable[dict[str, Any]]:
    """Give each entry an id: the comment of its key where that is one, otherwise publisher-role-hash."""
    taken: set[str] = set()
    for entry in entries:
        key = keys.parse_public_key(entry["ssh"])
        made = f"{entry['publisher'][:_ID_PUBLISHER_CHARS]}-{entry['role']}-{keys.fingerprint(key)[:8]}"
        name = key.comment if _ID.fullmatch(key.comment) and key.comment not in taken else made
        number = 2
        while name in taken:  # ends: only finitely many are taken
            name, number = f"{made}-{number}", number + 1
        taken.add(name)
        yield {**entry, "id": name}


def _malformed(number: int, how: str) -> InterchangeError:
    return InterchangeError(
        f"line {number} of the allowed_signers file is malformed: {how}", id="PLG-ALS-001"
    )
