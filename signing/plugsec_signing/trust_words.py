"""What a verdict says to people: one sentence for each thing weighed, and the next thing to type.

Only refusals and explanations need words, so nothing of this is loaded by a run that goes well.
"""

from collections.abc import Callable

from plugsec_signing.errors import TrustRefused
from plugsec_signing.times import format_time
from plugsec_signing.trust import (
    COMPROMISED,
    COUNTED,
    COUNTS,
    EXPIRED,
    GLOB,
    MISSES,
    NOT_YET,
    RELEASE,
    REMEMBERED,
    SUPERSEDED,
    Considered,
    Count,
    Verdict,
    rival,
)


def refusal(verdict: Verdict) -> TrustRefused:
    """Return the refusal of a verdict that does not accept."""
    for reason, error_id in MISSES.items():
        if verdict.refused == error_id:
            found = _closest(verdict, reason)
            return TrustRefused(*of_entry(verdict, found), id=error_id)
    return TrustRefused(*_OF_BUNDLE[verdict.refused](verdict), id=verdict.refused)


def of_entry(verdict: Verdict, found: Considered) -> tuple[str, str]:
    """Return (why a signature counts or not under one entry of its key, the next thing to type or "")."""
    return _OF_ENTRY[found.reason](verdict, found)


def of_rule(verdict: Verdict, count: Count) -> tuple[str, str]:
    """Return (whether a rule holds and by whom, the next thing to type or "")."""
    rule = count.rule
    who = ", ".join(entry.id for entry in count.entries) or "none"
    name = f"the rule {rule.id}" if rule.id else f"the rule for {', '.join(rule.plugins)}"
    said = f"{name} wants {rule.threshold} distinct {'key' if rule.threshold == 1 else 'keys'}"
    said += f" with the role {' or '.join(rule.roles)}; {count.keys} of those that signed count: {who}"
    if count.holds:
        return said, ""
    waiting = [found for found in verdict.considered if found.entry.role in rule.roles]
    near = next((found for found in waiting if found.reason not in COUNTS), None)
    if near is not None:
        return f"{said}; {of_entry(verdict, near)[0]}", of_entry(verdict, near)[1]
    return said, f"plugsec sign BUNDLE --key FILE, by {rule.threshold - count.keys} more of them"


def of_clock(verdict: Verdict) -> str:
    """Return what a clock that is behind what was remembered means for this verdict."""
    return (
        f"the clock says {format_time(verdict.now)}, but a bundle was accepted here at "
        f"{format_time(verdict.remembered.newest)}: expiry is judged by that later time"
    )


def of_stale(verdict: Verdict) -> str:
    """Return that the revocation list is overdue."""
    assert verdict.revocations is not None  # noqa: S101 - only a list can be stale
    return (
        f"the revocation list {verdict.revocations.sequence} is stale: the next one was due at "
        f"{format_time(verdict.revocations.next_update)}, so what was revoked since is not known here"
    )


def _closest(verdict: Verdict, reason: str) -> Considered:
    found = [each for each in verdict.considered if each.reason == reason]
    return next((each for each in found if each.entry.role == RELEASE), found[0])


# Of a signature under one entry.


def _counted(verdict: Verdict, found: Considered) -> tuple[str, str]:
    until = found.entry.valid_before
    limit = "" if until is None else f" until {format_time(until)}"
    return f"the key {found.entry.id} is trusted for {verdict.candidate.name}{limit}", ""


def _remembered(verdict: Verdict, found: Considered) -> tuple[str, str]:
    seen = verdict.remembered.bundles[verdict.candidate.bundle_id].signers[found.entry.fingerprint]
    return (
        f"the key {found.entry.id} is not valid now, but was when this signature first counted here, at "
        f"{format_time(seen)}",
        "",
    )


def _other_plugins(verdict: Verdict, found: Considered) -> tuple[str, str]:
    entry, name = found.entry, verdict.candidate.name
    return (
        f"the key {entry.id} signed {name}, but is trusted for {', '.join(entry.plugins)} only",
        f"plugsec trust add PUBKEY --publisher {entry.publisher} --plugins '{name}', if it may",
    )


def _not_yet(verdict: Verdict, found: Considered) -> tuple[str, str]:
    return (
        f"the key {found.entry.id} that signed {verdict.candidate.name} is not valid yet: it counts from "
        f"{format_time(found.entry.valid_after or 0)}, and now is {format_time(verdict.now)}",
        "is the clock right? plugsec trust list shows each key's time",
    )


def _expired(verdict: Verdict, found: Considered) -> tuple[str, str]:
    entry = found.entry
    when = format_time(entry.valid_before or 0)
    said = f"the key {entry.id} that signed {verdict.candidate.name} has expired at {when}"
    if entry.valid_before is not None and verdict.now < entry.valid_before:
        return (
            f"{said}: {of_clock(verdict)}",
            "set the clock; if it was wrong then, plugsec trust memory shows which plugin to forget",
        )
    return (
        f"{said}, and this signature never counted here before that",
        "ask for a release by its successor",
    )


def _superseded(verdict: Verdict, found: Considered) -> tuple[str, str]:
    return (
        f"the key {found.entry.id} that signed {verdict.candidate.name} was superseded "
        f"{_since(verdict, found)}, and this signature never counted here before",
        "ask for a release by its successor",
    )


def _compromised(verdict: Verdict, found: Considered) -> tuple[str, str]:
    said = f"the key {found.entry.id} that signed {verdict.candidate.name} is compromised"
    assert verdict.revocations is not None  # noqa: S101 - the reason says so
    if verdict.revocations.keys[found.entry.fingerprint].since:
        said += f" {_since(verdict, found)}, and this signature did not count here before that"
    return said, "do not run it; ask its publisher for a release by another key"


def _since(verdict: Verdict, found: Considered) -> str:
    assert verdict.revocations is not None  # noqa: S101 - the reason says so
    return f"since {format_time(verdict.revocations.keys[found.entry.fingerprint].since)}"


_OF_ENTRY: dict[str, Callable[[Verdict, Considered], tuple[str, str]]] = {
    COUNTED: _counted, REMEMBERED: _remembered, GLOB: _other_plugins, NOT_YET: _not_yet, EXPIRED: _expired,
    SUPERSEDED: _superseded, COMPROMISED: _compromised,
}  # fmt: skip

# Of the bundle.


def _unsigned(verdict: Verdict) -> tuple[str, str]:
    return (
        f"{verdict.candidate.name} is not signed",
        "plugsec sign BUNDLE --key FILE; see `plugsec sign --help`",
    )


def _unknown(verdict: Verdict) -> tuple[str, str]:
    present = ", ".join(sorted(verdict.present))
    return (
        f"{verdict.candidate.name} is signed, but by no key of the trust store (fingerprints: {present})",
        "plugsec trust add PUBKEY --publisher NAME, if you trust the signer",
    )


def _no_release(verdict: Verdict) -> tuple[str, str]:
    who = ", ".join(f"{signer.key_id} ({signer.role})" for signer in verdict.signers)
    return (
        f"{verdict.candidate.name} is signed by {who}, but by no key with the role {RELEASE}",
        "a key that may release must sign it too",
    )


def _rule_fails(verdict: Verdict) -> tuple[str, str]:
    failing = next(count for count in verdict.rules if not count.holds)
    said, hint = of_rule(verdict, failing)
    return f"too few have signed {verdict.candidate.name}: {said}", hint


def _bundle_expired(verdict: Verdict) -> tuple[str, str]:
    candidate = verdict.candidate
    return (
        f"{candidate.name} {candidate.version} expired at {format_time(candidate.expires or 0)}",
        "ask its publisher for a newer release",
    )


def _bundle_revoked(verdict: Verdict) -> tuple[str, str]:
    candidate = verdict.candidate
    return (
        f"{candidate.name} {candidate.version} is revoked ({candidate.bundle_id})",
        "do not run it; ask its publisher for a newer release",
    )


def _below_least(verdict: Verdict) -> tuple[str, str]:
    candidate = verdict.candidate
    least = verdict.revocations.min_release[candidate.name] if verdict.revocations is not None else 0
    return (
        f"{candidate.name} {candidate.version} is release {candidate.release}; "
        f"all before release {least} are revoked",
        "ask its publisher for a newer release",
    )


def _downgrade(verdict: Verdict) -> tuple[str, str]:
    candidate = verdict.candidate
    return (
        f"{candidate.name} {candidate.version} is release {candidate.release}, but release "
        f"{verdict.remembered.highest} was accepted here before: a downgrade",
        "plugsec run BUNDLE --allow-downgrade, if you mean it; that is recorded",
    )


def _same_release(verdict: Verdict) -> tuple[str, str]:
    candidate = verdict.candidate
    return (
        f"{candidate.name} release {candidate.release} was accepted here before as another bundle, "
        f"{rival(candidate, verdict.remembered)}: two bundles with one release",
        "its publisher must raise `release` in plugin.toml; "
        f"plugsec trust forget {candidate.name} forgets all that was accepted of it",
    )


_OF_BUNDLE: dict[str, Callable[[Verdict], tuple[str, str]]] = {
    "PLG-TRU-001": _unsigned, "PLG-TRU-002": _unknown, "PLG-TRU-006": _no_release,
    "PLG-TRU-007": _bundle_expired, "PLG-TRU-010": _bundle_revoked, "PLG-TRU-011": _below_least,
    "PLG-TRU-012": _rule_fails, "PLG-TRU-013": _downgrade, "PLG-TRU-014": _same_release,
}  # fmt: skip
