"""Keys and bundles that their publisher has withdrawn: the list as the decision needs it."""

from collections.abc import Mapping

from plugsec_signing.record import NamedTuple


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
