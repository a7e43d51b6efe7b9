"""From a file of unknown origin to evidence: one descriptor, one pass, every step or none.

`VerifiedBundle` is the only type that the rest of plugsec accepts as a bundle, and `verify_bundle` the
only way to get one. The bypass has a name to blush at and a type of its own.
"""

import hashlib
import os
import stat
from collections.abc import Callable

from plugsec_signing import keys, sshsig
from plugsec_signing.bundle import BundleHead, Sink, read_bundle
from plugsec_signing.envelope import Envelope, FileEntry
from plugsec_signing.errors import BundleError, BundleUnreadable, SignatureRefused, excerpt
from plugsec_signing.memory import NOTHING, Remembered
from plugsec_signing.payload import Payload, PayloadWriter
from plugsec_signing.trust import Candidate, Signer, TrustStore, Verdict, examine, require
from plugsec_signing.typed import Any, NamedTuple, NoReturn, Protocol

TYPE_CHECKING = False
if TYPE_CHECKING:
    from plugsec_signing.dsse import Attestation
    from plugsec_signing.revocation import RevocationList


class _Evidence:
    """What was found about a bundle; frozen. `close` gives back the payload's memory."""

    __slots__ = (
        "attestations", "bundle_id", "envelope", "path", "payload", "signers", "trust_digest", "untrusted",
        "verdict", "warnings",
    )  # fmt: skip
    envelope: Envelope
    bundle_id: str
    signers: tuple[Signer, ...]
    untrusted: tuple[str, ...]
    trust_digest: str
    path: str
    warnings: tuple[str, ...]
    payload: Payload | None
    attestations: "tuple[Attestation, ...]"
    verdict: Verdict | None

    def __init__(self, **found: Any) -> None:  # noqa: ANN401
        for name in _Evidence.__slots__:
            object.__setattr__(self, name, found[name])

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"evidence is frozen: {name} cannot be set")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"evidence is frozen: {name} cannot be removed")

    def close(self) -> None:
        """Close the payload's descriptor, once; evidence without payload has nothing to close."""
        if self.payload is not None:
            os.close(self.payload.fd)
            object.__setattr__(self, "payload", None)


class VerifiedBundle(_Evidence):
    """Every signature verifies, a trusted key releases it, every byte is the one that was signed."""

    __slots__ = ()


class UnsafeUnsignedBundle(_Evidence):
    """The structure and hashes hold, but **nobody** vouches for it; no signers, no trust digest."""

    __slots__ = ()


Reading = Callable[[Sink], BundleHead]  # hands over what `read_bundle` would, checked as it does


def _nothing(_: str) -> Remembered:
    return NOTHING


class Settled(Protocol):
    """Facts of arithmetic that were established before, each named by a digest (64 hex digits)."""

    def knows(self, fact: str) -> bool:
        """Whether it was."""
        ...

    def learn(self, fact: str) -> None:
        """Keep one that was established just now."""


class Circumstances(NamedTuple):
    """Under what a bundle is judged, besides the trust store and the clock.

    `recall` gives what is remembered here of a plugin (`memory.recall` of some path), `observe` is handed
    the verdict before it is acted upon, accepting or not: for whoever wants to explain it. With `settled`
    a signature that verified before is not verified again; whether it counts is asked every time.
    """

    revocations: "RevocationList | None" = None
    recall: Callable[[str], Remembered] = _nothing
    allow_downgrade: bool = False
    observe: Callable[[Verdict], object] | None = None
    settled: Settled | None = None


PLAIN = Circumstances()  # a machine without memory, and no list of revocations


def verify_bundle(
    path: str,
    trust: TrustStore,
    now: int,
    *,
    keep_payload: bool = False,
    also: Sink | None = None,
    under: Circumstances = PLAIN,
) -> VerifiedBundle:
    """Verify a bundle file completely; `now` in unix seconds.

    1. Open it once, without waiting and only if it is a regular file; all reading uses that descriptor.
    2. Read the manifest: canonical form, identity, paths, file list (exit 4).
    3. Verify *every* signature present, under its own key, which must be the one that names it, and
       check every attestation present in the same spirit (exit 3).
    4. Ask the trust store which of them count for this plugin now: one with role release must, and every
       rule must hold; revoked keys do not count, unless they are remembered from before (exit 3).
    5. Refuse a bundle that is revoked, whose own `expires` has passed, or that is older than one
       accepted here before; and a revocation list that is older (exit 3).
    6. Compare every header and hash every payload byte, to the very end of the file (exit 4).
    7. With `keep_payload`, seal the copy that was made while hashing.

    `also` is handed everything after it was judged (head) or compared (payload); what it makes of that
    counts only when this returns. Nothing is written anywhere. Raises SigningError only (and what `also`
    raises), and then leaves no descriptor open.
    """
    sink = _Verification(trust, now, keep_payload, also, under=under)
    return VerifiedBundle(**_read(path, sink), trust_digest=trust.digest)


def verify_reading(
    read: Reading,
    path: str,
    trust: TrustStore,
    now: int,
    *,
    keep_payload: bool = False,
    tree: int = -1,
    under: Circumstances = PLAIN,
) -> VerifiedBundle:
    """Do steps 2 to 7 of `verify_bundle` for a bundle that is not read from a file, such as a stored one.

    `tree` is the directory that the payload is read from, for one that is too large to be kept in memory.
    """
    sink = _Verification(trust, now, keep_payload, None, tree=tree, under=under)
    return VerifiedBundle(**_evidence(read, path, sink), trust_digest=trust.digest)


def verify_unsafe_unsigned(
    path: str, *, keep_payload: bool = False, also: Sink | None = None
) -> UnsafeUnsignedBundle:
    """Do steps 1, 2, 3, 6 and 7 of `verify_bundle` and demand no signature. Its use must be recorded."""
    sink = _Verification(None, 0, keep_payload, also)
    return UnsafeUnsignedBundle(**_read(path, sink), trust_digest="")


def open_bundle(path: str) -> int:
    """Open a bundle file for reading; raises BundleUnreadable (exit 2) or BundleError (exit 4)."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except (OSError, ValueError) as err:
        reason = err.strerror if isinstance(err, OSError) else err
        raise BundleUnreadable(f"the bundle {excerpt(path)} cannot be opened: {reason}") from err
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise BundleError(f"{excerpt(path)} is not a regular file", id="PLG-BND-002")
    return fd


def check_signatures(head: BundleHead, settled: Settled | None = None) -> tuple[str, ...]:
    """Verify every signature of a bundle; return the fingerprints, sorted. Raises SigningError (exit 3)."""
    for name, armour in head.signatures.items():
        fact = _fact(head, name, armour)
        if settled is not None and settled.knows(fact):
            continue
        signature = sshsig.parse(armour)
        key = sshsig.verify(signature, head.envelope.manifest_bytes, sshsig.NAMESPACE_MANIFEST)
        if keys.fingerprint(key) != name:
            raise SignatureRefused(
                "a signature is named for another key than the one that made it", id="PLG-SIG-007"
            )
        if settled is not None:
            settled.learn(fact)
    return tuple(head.signatures)


def _fact(head: BundleHead, name: str, armour: bytes) -> str:
    """Name the fact that this armour, filed under `name`, signs exactly this manifest."""
    words = f"{sshsig.NAMESPACE_MANIFEST} {head.envelope.bundle_id} {name}\n"
    return hashlib.sha256(words.encode() + armour).hexdigest()


def check_attestations(
    head: BundleHead,
    trust: TrustStore | None,
    now: int,
    revocations: "RevocationList | None" = None,
    *,
    newest: int = 0,
) -> "tuple[Attestation, ...]":
    """Check every attestation of a bundle, and whose count. Raises SigningError (exit 3)."""
    if not head.attestations:
        return ()
    from plugsec_signing import dsse  # noqa: PLC0415 - few bundles have any

    return dsse.check_all(head.attestations.values(), head.envelope, trust, now, revocations, newest=newest)


class _Verification:
    """The sink that verifies while `read_bundle` reads; without a trust store nobody needs to vouch."""

    def __init__(
        self,
        trust: TrustStore | None,
        now: int,
        keep_payload: bool,
        also: Sink | None,
        *,
        tree: int = -1,
        under: Circumstances = PLAIN,
    ) -> None:
        self._tree = tree
        self._under = under
        self._trust = trust
        self._now = now
        self._keep = keep_payload
        self._also = also
        self.writer: PayloadWriter | None = None
        self.fingerprints: tuple[str, ...] = ()
        self.attestations: tuple[Attestation, ...] = ()  # of those, `counted` are in the trust store
        self.verdict: Verdict | None = None

    def head(self, head: BundleHead) -> None:
        self.fingerprints = check_signatures(head, self._under.settled)  # 3
        trust, under = self._trust, self._under
        remembered = under.recall(head.envelope.name) if trust is not None else NOTHING
        self.attestations = check_attestations(
            head, trust, self._now, under.revocations, newest=remembered.newest
        )
        if trust is not None:
            self.verdict = self._judge(head.envelope, trust, remembered)  # 4, 5
        if self._keep:
            self.writer = PayloadWriter(head.envelope, self._tree)
        if self._also is not None:
            self._also.head(head)

    def _judge(self, envelope: Envelope, trust: TrustStore, remembered: Remembered) -> Verdict:
        under = self._under
        if under.revocations is not None or remembered.revocation_sequence:
            from plugsec_signing.revocation import check_continues  # noqa: PLC0415 - only with a list

            check_continues(under.revocations, remembered)
        verdict = examine(
            trust,
            Candidate(
                envelope.name, envelope.version, envelope.release, envelope.expires, envelope.bundle_id
            ),
            self.fingerprints,
            self._now,
            revocations=under.revocations,
            remembered=remembered,
            allow_downgrade=under.allow_downgrade,
        )
        if under.observe is not None:
            under.observe(verdict)
        return require(verdict)

    def begin(self, entry: FileEntry) -> None:
        if self.writer is not None:
            self.writer.begin(entry)
        if self._also is not None:
            self._also.begin(entry)

    def chunk(self, data: memoryview) -> None:
        if self.writer is not None:
            self.writer.chunk(data)
        if self._also is not None:
            self._also.chunk(data)


def _read(path: str, sink: _Verification) -> dict[str, Any]:
    fd = open_bundle(path)  # 1
    try:
        found = _evidence(lambda sink: read_bundle(fd, sink), path, sink)
    finally:
        os.close(fd)
    return {**found, "warnings": (*_warnings(path, found["envelope"]), *found["warnings"])}


def _evidence(read: Reading, path: str, sink: _Verification) -> dict[str, Any]:
    try:
        envelope = read(sink).envelope  # 2, 6
        payload = sink.writer.seal() if sink.writer is not None else None  # 7
    except BaseException:
        if sink.writer is not None:
            sink.writer.abandon()
        raise
    verdict = sink.verdict
    signers = verdict.signers if verdict is not None else ()
    counted = {signer.fingerprint for signer in signers}
    return {
        "envelope": envelope,
        "bundle_id": envelope.bundle_id,
        "signers": signers,
        "untrusted": tuple(name for name in sink.fingerprints if name not in counted),
        "path": path,
        "payload": payload,
        "attestations": sink.attestations,
        "verdict": verdict,
        "warnings": _of_time(verdict) if verdict is not None else (),
    }


def _of_time(verdict: Verdict) -> tuple[str, ...]:
    if not verdict.clock_is_behind and not verdict.revocations_stale:
        return ()
    from plugsec_signing.trust_words import of_clock, of_stale  # noqa: PLC0415 - seldom amiss

    clock = (of_clock(verdict),) if verdict.clock_is_behind else ()
    return (*clock, of_stale(verdict)) if verdict.revocations_stale else clock


def _warnings(path: str, envelope: Envelope) -> tuple[str, ...]:
    expected = f"{envelope.plugin}-{envelope.version}.plug"
    if os.path.basename(path) in (expected, f"{expected}.zst"):
        return ()
    return (f"the file is called {excerpt(os.path.basename(path))}, its manifest says {expected}",)
