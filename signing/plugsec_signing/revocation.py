"""Keys and bundles that their publisher has withdrawn: the signed list, read and judged.

`revocations.json` lies in the trust directory with its signatures in `revocations.json.sshsig`
(docs/formats/revocations.md). It replaces the one before it, and its sequence grows: an older one than was
accepted here, another one with the same sequence, or none where there was one is a rollback and refused.
Who may sign it are the trust store's keys with the role `revocation`; one is enough, unless the trust
root demands more. A `[[rule]]` is about bundles and does not apply.
"""

import hashlib
import os
import re
from collections.abc import Callable, Mapping

from plugsec_signing import canonical, detached, memory
from plugsec_signing.errors import JsonError, RevocationError, RevocationRefused, SigningError, excerpt
from plugsec_signing.typed import Any, NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from plugsec_signing.memory import Remembered
    from plugsec_signing.trust import TrustedKey, TrustStore
    from plugsec_signing.verify import Settled

SCHEMA = "plugsec.revocations/1"
NAMESPACE = "plugsec-revocation@v1"
ROLE = "revocation"
FILE = "revocations.json"
MAX_BYTES = 4 * 1024 * 1024  # every entry that MAX_ENTRIES allows, with room
MAX_ENTRIES = 10_000  # of keys, of bundles and of plugins: more is a reason for a new key
COMPROMISED, SUPERSEDED = "compromised", "superseded"

_FIELDS = frozenset(("schema", "sequence", "next_update", "keys", "bundles", "min_release"))
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}/[a-z0-9][a-z0-9._-]{0,63}")
_HASH = re.compile(r"[0-9a-f]{64}")
_SCHEMA_PREFIX = SCHEMA.rpartition("/")[0] + "/"


class Revoked(NamedTuple):
    """A revoked key: `kind` is "compromised" or "superseded", `since` in unix seconds.

    A compromised key's signature counts only where it was accepted here before `since`; a superseded
    one's wherever it was accepted here at all.
    """

    kind: str
    since: int


class RevocationList(NamedTuple):
    """What is revoked: keys by fingerprint, bundles by id; the least release allowed of each plugin.

    `sequence` grows with each list, `next_update` (unix seconds) is when the next one is due, `digest`
    names the bytes that were signed, `origin` the trust store that it lies in (`memory.origin`).
    """

    sequence: int
    next_update: int
    keys: Mapping[str, Revoked]
    bundles: frozenset[str]
    min_release: Mapping[str, int]
    digest: str
    origin: str = ""


EMPTY = RevocationList(0, 0, {}, frozenset(), {}, "")


def parse(data: bytes) -> RevocationList:
    """Return the list that canonical JSON holds; raises RevocationError (exit 4) and nothing else."""
    try:
        value = canonical.decode_canonical(data, max_bytes=MAX_BYTES)
    except JsonError as err:
        raise RevocationError(f"the revocation list is malformed: {err.message}", id="PLG-REV-001") from err
    _check_schema(value)
    keys, bundles, least = value["keys"], value["bundles"], value["min_release"]
    if not isinstance(keys, dict) or not isinstance(bundles, list) or not isinstance(least, dict):
        raise _malformed("keys and min_release are objects, bundles is an array")
    if max(len(keys), len(bundles), len(least)) > MAX_ENTRIES:
        raise RevocationError(
            f"the revocation list has more than {MAX_ENTRIES} entries of one kind", id="PLG-REV-010"
        )
    if [_bundle_id(each) for each in bundles] != sorted(set(bundles)):
        raise _malformed("its bundles are not in order, or one is doubled")
    return RevocationList(
        sequence=_count(value["sequence"], "sequence", 1),
        next_update=_count(value["next_update"], "next_update", 1),
        keys={_fingerprint(name): _revoked(entry) for name, entry in keys.items()},
        bundles=frozenset(bundles),
        min_release={_name(name): _count(release, "min_release", 1) for name, release in least.items()},
        digest=hashlib.sha256(data).hexdigest(),
    )


def encode(listed: RevocationList) -> bytes:
    """Return the canonical JSON of a list, which is what is signed."""
    return canonical.encode({
        "schema": SCHEMA,
        "sequence": listed.sequence,
        "next_update": listed.next_update,
        "keys": {name: {"kind": each.kind, "since": each.since} for name, each in listed.keys.items()},
        "bundles": sorted(listed.bundles),
        "min_release": dict(listed.min_release),
    })  # fmt: skip


def load(
    directory: str,
    store: "TrustStore",
    now: int,
    *,
    accepted: Callable[[], str] = str,
    settled: "Settled | None" = None,
) -> RevocationList | None:
    """Return the list of a trust directory, its signatures verified; None if there is none.

    `accepted` gives the digest of the list that was accepted here last (see `check`). Whether it is older
    than what is remembered is asked when a bundle is judged (`check_continues`). Raises RevocationError
    (exit 4; 3 where the signatures do not do) and SignatureRefused (exit 3).
    """
    path = os.path.join(directory, FILE)
    data = detached.read_private(path, MAX_BYTES, _exposed)
    if data is None:
        return None
    armours = detached.read_private(path + detached.SUFFIX, detached.MAX_SIGNATURES_BYTES, _exposed)
    listed = check(data, armours or b"", store, now, accepted=accepted, settled=settled)
    return listed._replace(origin=memory.origin(directory))


def check(
    data: bytes,
    armours: bytes,
    store: "TrustStore",
    now: int,
    *,
    accepted: Callable[[], str] = str,
    settled: "Settled | None" = None,
    current: RevocationList = EMPTY,
) -> RevocationList:
    """Return a list after judging who signed it. Raises RevocationError and SignatureRefused.

    1. It must be a well-formed list (exit 4).
    2. Every signature present must verify over exactly these bytes, for this purpose (exit 3).
    3. Enough distinct keys of the store with the role `revocation` must be among the signers, not revoked
       by `current`, the list in force, and valid now; valid once is enough for the very list that was
       accepted here before, since a key's expiry must not undo what it has revoked (exit 3).
    """
    listed = parse(data)  # 1
    if not armours:
        raise RevocationRefused(
            f"the revocation list {listed.sequence} is not signed",
            f"its signatures belong beside it, in {FILE}{detached.SUFFIX}: plugsec trust sign FILE --key KEY",
            id="PLG-REV-003",
        )
    found = detached.signers(data, armours, NAMESPACE, settled)  # 2
    may = [entry for entry in store.keys if entry.role == ROLE and entry.fingerprint not in current.keys]
    valid = [entry for entry in may if _valid(entry, now)]
    count = detached.distinct(found, (entry.key for entry in valid))  # 3
    if count < store.revocation_threshold:
        ever = detached.distinct(found, (entry.key for entry in may))
        if ever < store.revocation_threshold or accepted() != listed.digest:
            raise _too_few(listed, store, count, ever)
    return listed


def check_continues(listed: RevocationList | None, remembered: "Remembered") -> None:
    """Refuse a list that takes back what was accepted here; raises RevocationRefused (exit 3)."""
    known = remembered.revocation_sequence
    if listed is None:
        if known:
            raise RevocationRefused(
                f"the revocation list {known} was accepted here, and now there is none", id="PLG-REV-007"
            )
        return
    if listed.sequence < known:
        raise RevocationRefused(
            f"the revocation list has the sequence {listed.sequence}, but {known} was accepted here before",
            id="PLG-REV-005",
        )
    if listed.sequence == known and listed.digest != remembered.revocation_digest:
        raise RevocationRefused(
            f"two revocation lists have the sequence {known}: another one was accepted here before",
            "ask who signs the list; the next one needs a higher sequence",
            id="PLG-REV-006",
        )


def newer_schema(value: object) -> bool:
    """Say whether a decoded document is a revocation list of a later version of the format."""
    found = value.get("schema") if isinstance(value, dict) else None
    return (
        isinstance(found, str)
        and found != SCHEMA
        and found.startswith(_SCHEMA_PREFIX)
        and found[len(_SCHEMA_PREFIX) :].isdecimal()
    )


def _check_schema(value: Any) -> None:  # noqa: ANN401 - any JSON value
    if newer_schema(value):  # before anything else: all but the schema may have changed
        raise RevocationError(
            f"the revocation list is of {excerpt(value['schema'])}, made for a newer plugsec",
            "update plugsec: an older one does not know what else is revoked",
            id="PLG-REV-002",
        )
    if not isinstance(value, dict) or value.get("schema") != SCHEMA:
        raise _malformed(f"it does not say that its schema is {SCHEMA!r}")
    if value.keys() != _FIELDS:
        wrong = sorted(value.keys() ^ _FIELDS)[0]
        raise _malformed(f"{excerpt(wrong)} is {'unknown' if wrong in value else 'missing'}")


def _too_few(listed: RevocationList, store: "TrustStore", count: int, ever: int) -> RevocationRefused:
    wanted = store.revocation_threshold
    said = f"the revocation list {listed.sequence} is signed by {count} key{'s'[: count != 1]} with the role "
    said += f"{ROLE} that count{'s'[: count == 1]}; {wanted} must"
    if ever > count:
        return RevocationRefused(
            f"{said}; others that signed are not valid now",
            "plugsec trust list shows each key's time; a valid key must sign the next list",
            id="PLG-REV-004",
        )
    return RevocationRefused(
        said,
        f"plugsec trust add PUBKEY --publisher NAME --role {ROLE}, for a key that may sign it",
        id="PLG-REV-004",
    )


def _valid(entry: "TrustedKey", now: int) -> bool:
    after, before = entry.valid_after, entry.valid_before
    return (after is None or after <= now) and (before is None or now < before)


def _revoked(entry: object) -> Revoked:
    if not isinstance(entry, dict) or entry.keys() != {"kind", "since"}:
        raise _malformed(f"{excerpt(entry)} does not have exactly kind and since")
    if entry["kind"] not in (COMPROMISED, SUPERSEDED):
        raise _malformed(f"{excerpt(entry['kind'])} is neither compromised nor superseded")
    return Revoked(entry["kind"], _count(entry["since"], "since", 0))


def _count(value: object, what: str, least: int) -> int:
    if type(value) is not int or value < least:
        raise _malformed(f"{excerpt(value)} is no {what}, a whole number from {least}")
    return value


def _fingerprint(text: str) -> str:
    if not _HASH.fullmatch(text):
        raise _malformed(f"{excerpt(text)} is not a key's fingerprint, 64 hex digits")
    return text


def _bundle_id(text: object) -> str:
    if not isinstance(text, str) or text[:7] != "sha256:" or not _HASH.fullmatch(text[7:]):
        raise _malformed(f"{excerpt(text)} is not a bundle id")
    return text


def _name(text: str) -> str:
    if not _NAME.fullmatch(text):
        raise _malformed(f"{excerpt(text)} is not publisher/plugin")
    return text


def _malformed(how: str) -> RevocationError:
    return RevocationError(f"the revocation list is malformed: {how}", id="PLG-REV-001")


def _exposed(how: str) -> SigningError:
    return RevocationError(how, id="PLG-REV-008")
