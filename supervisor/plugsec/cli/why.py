"""Why a bundle is trusted, or not: a verdict as people read it, and as one JSON object.

The verdict is made elsewhere (`plugsec_signing.trust`), with everything that was weighed; nothing here
decides. Where a line could be written to change it, the line is complete: the bundle carries its
signers' public keys.
"""

import os
import shlex
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from plugsec_signing.errors import SigningError
from plugsec_signing.times import format_time
from plugsec_signing.trust import COUNTS, RELEASE, Verdict
from plugsec_signing.trust_words import of_clock, of_entry, of_rule, refusal

if TYPE_CHECKING:
    from plugsec_signing.bundle import BundleHead

_UNKNOWN = "no entry of the trust store has this key"


def explanation(verdict: Verdict, lines: Mapping[str, str]) -> dict[str, Any]:
    """Return the whole verdict as plain data; `lines` are public keys, by fingerprint."""
    candidate, remembered = verdict.candidate, verdict.remembered
    seen = remembered.bundles.get(candidate.bundle_id)
    refused = refusal(verdict) if verdict.refused else None
    return {
        "plugin": candidate.name,
        "version": candidate.version,
        "release": candidate.release,
        "bundle_id": candidate.bundle_id,
        "now": format_time(verdict.now),
        "accepted": refused is None,
        "refusal": _problem(refused) if refused is not None else None,
        "signatures": [_signature(verdict, name, lines.get(name, "")) for name in sorted(verdict.present)],
        "released_by": [signer.key_id for signer in verdict.signers if signer.role == RELEASE],
        "rules": [_rule(verdict, index) for index in range(len(verdict.rules))],
        "revocation": _revocation(verdict),
        "memory": {
            "first_accepted": format_time(seen.first) if seen is not None else None,
            "highest_release": remembered.highest,
            "downgrade": verdict.downgrade,
            "downgrade_allowed": verdict.downgrade_allowed,
            "clock": of_clock(verdict) if verdict.clock_is_behind else None,
        },
    }


def told(why: Mapping[str, Any]) -> Iterator[str]:
    """Yield the explanation's lines for people: + counts or holds, - does not."""
    yield f"{why['plugin']} {why['version']} (release {why['release']})  {why['bundle_id']}"
    for signature in why["signatures"]:
        yield f"  signature {signature['fingerprint']}: {'counts' if signature['counted'] else 'not counted'}"
        for entry in signature["entries"]:
            yield f"    {_sign(entry['counted'])} {entry['key_id']} ({entry['role']}): {entry['why']}"
            yield from _next(entry)
        if not signature["entries"]:
            yield f"    - {_UNKNOWN}"
            yield from _next(signature)
    if not why["signatures"]:
        yield "  signature: none"
    yield f"  {_sign(why['released_by'])} released by {', '.join(why['released_by']) or 'nobody'}"
    for rule in why["rules"]:
        yield f"  {_sign(rule['holds'])} {rule['why']}"
        yield from _next(rule)
    yield from _told_state(why["revocation"], why["memory"])
    refused = why["refusal"]
    result = "accepted" if refused is None else f"REFUSED [{refused['id']}] {refused['message']}"
    yield f"  trust: {result}"


def _told_state(revocation: Mapping[str, Any] | None, memory: Mapping[str, Any]) -> Iterator[str]:
    if revocation is None:
        yield "  revocation: there is no list"
    else:
        free = not revocation["bundle_revoked"]
        yield (
            f"  {_sign(free)} revocation list {revocation['sequence']}, due {revocation['next_update']}: "
            f"this bundle {'is not' if free else 'IS'} on it"
        )
    first = memory["first_accepted"]
    yield f"  memory: {'this bundle was first accepted here at ' + first if first else 'never accepted here'}"
    if memory["highest_release"] is not None:
        yield f"  {_sign(not memory['downgrade'])} highest release accepted here: {memory['highest_release']}"
    if memory["clock"]:
        yield f"  - {memory['clock']}"


def public_lines(path: str) -> dict[str, str]:
    """Return the public keys of a bundle file's signatures, each as one line, by fingerprint.

    For display only: what does not parse, or is not named for its key, is left out.
    """
    from plugsec_signing import keys, sshsig  # noqa: PLC0415 - only to explain
    from plugsec_signing.bundle import read_manifest  # noqa: PLC0415
    from plugsec_signing.verify import open_bundle  # noqa: PLC0415

    found: dict[str, str] = {}
    try:
        fd = open_bundle(path)
        try:
            head: BundleHead = read_manifest(fd)
        finally:
            os.close(fd)
        for name, armour in head.signatures.items():
            key = sshsig.parse(armour).key
            if keys.fingerprint(key) == name:
                found[name] = keys.public_line(key)
    except SigningError:
        return found
    return found


def _signature(verdict: Verdict, fingerprint: str, line: str) -> dict[str, Any]:
    entries = []
    for found in verdict.considered:
        if found.entry.fingerprint != fingerprint:
            continue
        said, hint = of_entry(verdict, found)
        entries.append({
            "key_id": found.entry.id, "publisher": found.entry.publisher, "role": found.entry.role,
            "counted": found.reason in COUNTS, "reason": found.reason, "why": said,
            "next": _with_key(hint, line),
        })  # fmt: skip
    publisher = verdict.candidate.name.partition("/")[0]
    trust = f"plugsec trust add PUBKEY --publisher {publisher}   # only if {publisher} gave you this key"
    return {
        "fingerprint": fingerprint,
        "public_key": line or None,
        "counted": any(entry["counted"] for entry in entries),
        "entries": entries,
        "next": "" if entries else _with_key(trust, line),
    }


def _with_key(hint: str, line: str) -> str:
    return hint.replace("PUBKEY", shlex.quote(line), 1) if line else hint


def _rule(verdict: Verdict, index: int) -> dict[str, Any]:
    count = verdict.rules[index]
    said, hint = of_rule(verdict, count)
    return {
        "id": count.rule.id or None, "plugins": list(count.rule.plugins), "threshold": count.rule.threshold,
        "roles": list(count.rule.roles), "keys": count.keys,
        "counted": [entry.id for entry in count.entries], "holds": count.holds, "why": said, "next": hint,
    }  # fmt: skip


def _revocation(verdict: Verdict) -> dict[str, Any] | None:
    listed, candidate = verdict.revocations, verdict.candidate
    if listed is None:
        return None
    return {
        "sequence": listed.sequence,
        "next_update": format_time(listed.next_update),
        "digest": listed.digest,
        "bundle_revoked": candidate.bundle_id in listed.bundles,
        "min_release": listed.min_release.get(candidate.name),
    }


def _problem(error: SigningError) -> dict[str, str]:
    return {"id": error.id, "message": error.message, "hint": error.hint}


def _sign(good: object) -> str:
    return "+" if good else "-"


def _next(found: Mapping[str, Any]) -> Iterator[str]:
    if found["next"]:
        yield f"      next: {found['next']}"
