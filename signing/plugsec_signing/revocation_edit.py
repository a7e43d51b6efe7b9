"""Changing the revocation list: the next one from the one in force, and putting a signed one in place.

The changes are pure; whoever may sign makes the next sequence of them. Nothing is put in place that a run
would then refuse. Cold path.
"""

import os
from collections.abc import Callable, Mapping
from typing import NamedTuple, TypeVar

from plugsec_signing import detached, memory, memory_edit, revocation
from plugsec_signing.errors import RevocationError, RevocationUsage, SignatureRefused, excerpt
from plugsec_signing.revocation import EMPTY, SUPERSEDED, RevocationList, Revoked
from plugsec_signing.trust import TrustStore, load_trust
from plugsec_signing.trust_edit import locked

DAY_S = 86_400
NEXT_UPDATE_DAYS = 30  # how long a list is current unless its signer says otherwise
MAX_NEXT_UPDATE_DAYS = 366  # a list that is never due again is none that one would notice missing

Announce = Callable[[RevocationList, RevocationList], object]
_Value = TypeVar("_Value")


def in_force(directory: str, store: TrustStore, now: int, memory_path: str) -> RevocationList:
    """Return the list in force, or EMPTY; raises what a run would (RevocationError, exit 3 or 4)."""
    remembered = memory.recall(memory_path, "", directory)
    listed = revocation.load(directory, store, now, accepted=lambda: remembered.revocation_digest)
    revocation.check_continues(listed, remembered)
    return listed or EMPTY


def following(listed: RevocationList, now: int, days: int = NEXT_UPDATE_DAYS) -> RevocationList:
    """Return the next list, with the same entries; raises RevocationUsage (exit 2) for such a time."""
    if not 1 <= days <= MAX_NEXT_UPDATE_DAYS:
        raise RevocationUsage(
            f"a list is due again after 1 to {MAX_NEXT_UPDATE_DAYS} days, not {excerpt(days)}"
        )
    return listed._replace(sequence=listed.sequence + 1, next_update=now + days * DAY_S, digest="")


def with_key(listed: RevocationList, fingerprint: str, kind: str, since: int) -> RevocationList:
    """Revoke a key, or a revoked one more gravely; raises RevocationUsage (exit 2) for what is weaker."""
    known = listed.keys.get(fingerprint)
    if known is not None and (kind == SUPERSEDED if known.kind != kind else since > known.since):
        raise RevocationUsage(
            f"{fingerprint} is {known.kind} already, and this would take some of it back",
            "plugsec trust revoke KEY --undo --key FILE, first, if you mean it",
        )
    return listed._replace(keys={**listed.keys, fingerprint: Revoked(kind, since)})


def with_bundle(listed: RevocationList, bundle_id: str) -> RevocationList:
    """Revoke one bundle."""
    return listed._replace(bundles=listed.bundles | {bundle_id})


def with_min_release(listed: RevocationList, name: str, release: int) -> RevocationList:
    """Refuse all releases of a plugin before one; raises RevocationUsage (exit 2) for a lower one."""
    if release < listed.min_release.get(name, 1):
        raise RevocationUsage(
            f"all before release {listed.min_release.get(name, 1)} of {name} are revoked already"
        )
    return listed._replace(min_release={**listed.min_release, name: release})


def without(listed: RevocationList, what: str) -> RevocationList:
    """Take back what is revoked by that name (fingerprint, bundle id, plugin); raises RevocationUsage."""
    if what not in listed.keys and what not in listed.bundles and what not in listed.min_release:
        raise RevocationUsage(f"{excerpt(what)} is not revoked")
    return listed._replace(
        keys=_less(listed.keys, what),
        bundles=listed.bundles - {what},
        min_release=_less(listed.min_release, what),
    )


class Placed(NamedTuple):
    """What was put in place, and what was in force before."""

    listed: RevocationList
    before: RevocationList


def place(
    directory: str, memory_path: str, data: bytes, armours: bytes, now: int, *, announce: Announce
) -> Placed:
    """Put a signed list in place of an earlier one, and remember it.

    1. Find the list in force. One that does not hold is no obstacle, since this is how it is mended.
    2. The new one must be signed by enough keys, of which the one in force revokes none.
    3. It must be later than the one in force and than what is remembered, or be that very list.

    `announce` is called when nothing but the change is left to do. Raises RevocationError (exit 4),
    RevocationRefused and SignatureRefused (exit 3), TrustStoreError, TrustMemoryError.
    """
    with locked(directory):
        store = load_trust(directory)
        remembered = memory.recall(memory_path, "", directory)
        before = _before(directory, store, now, remembered)  # 1
        current = before or EMPTY
        listed = revocation.check(
            data, armours, store, now, accepted=lambda: remembered.revocation_digest, current=current
        )  # 2
        revocation.check_continues(listed, remembered)  # 3
        revocation.check_continues(
            listed,
            remembered._replace(revocation_sequence=current.sequence, revocation_digest=current.digest),
        )
        listed = listed._replace(origin=memory.origin(directory))
        announce(listed, current)
        detached.replace(os.path.join(directory, revocation.FILE), data, armours)
        memory_edit.note_list(memory_path, listed)
    return Placed(listed, current)


def _before(
    directory: str, store: TrustStore, now: int, remembered: memory.Remembered
) -> RevocationList | None:
    """Return the list in force; None for one that is damaged, or whose signer the store has not any more.

    The memory still knows its sequence, and the one that takes its place is signed. A newer plugsec's, or
    one where others can write, is not passed over: raises RevocationError (exit 4).
    """
    try:
        return revocation.load(directory, store, now, accepted=lambda: remembered.revocation_digest)
    except (RevocationError, SignatureRefused) as err:
        if err.id in ("PLG-REV-002", "PLG-REV-008"):
            raise
        return None


def _less(entries: Mapping[str, _Value], name: str) -> dict[str, _Value]:
    return {key: value for key, value in entries.items() if key != name}
