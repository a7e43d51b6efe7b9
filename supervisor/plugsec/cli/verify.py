"""verify: the evidence that a bundle may be trusted, or the reason why not."""

import os
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from plugsec.cli.common import Places, emit_json, places, refuse, say
from plugsec.cli.edge import circumstances, record, show
from plugsec.cli.options import Audit, BundleOrName, Home, Json, Trust, examples
from plugsec.errors import REFUSALS, Refusal
from plugsec.places import STORE, names_installed

if TYPE_CHECKING:
    from plugsec_signing.trust import TrustStore, Verdict
    from plugsec_signing.verify import Circumstances, VerifiedBundle


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("verify", epilog=_EXAMPLES)(verify)


_EXAMPLES = examples(
    "plugsec verify wordfreq-1.2.3.plug",
    "plugsec verify wordfreq-1.2.3.plug --json",
    "plugsec verify wordfreq-1.2.3.plug --explain",
    "plugsec verify acme/wordfreq@1.2.3",
    "plugsec verify wordfreq-1.2.3.plug --trust ./trust.d",
    "plugsec verify wordfreq-1.2.3.plug --require-attestation https://example.org/review/v1",
)


RequireAttestation = Annotated[
    list[str] | None,
    typer.Option(
        "--require-attestation", metavar="TYPE", help="A trusted key must attest this predicate type."
    ),
]


def verify(
    bundle: BundleOrName,
    *,
    explain: Annotated[
        bool, typer.Option("--explain", help="Say why: each signature, entry, rule, and what is remembered.")
    ] = False,
    allow_downgrade: Annotated[
        bool, typer.Option("--allow-downgrade", help="Accept an older release than one accepted here.")
    ] = False,
    require_attestation: RequireAttestation = None,
    trust: Trust = None,
    audit: Audit = None,
    home: Home = None,
    json: Json = False,
) -> None:
    """Check every signature, the trust store's opinion of them, and every byte of the payload.

    Exit 0: a trusted key vouches for exactly these bytes. 3: unsigned, unknown, expired, … 4: malformed.
    The verdict, either way, is recorded in the audit log. What was accepted here before counts as in a
    run, but nothing new is remembered.
    """
    from plugsec_signing.trust import load_trust  # noqa: PLC0415
    from plugsec_signing.verify import verify_bundle  # noqa: PLC0415

    weighed: list[Verdict] = []  # the verdict, accepting or not
    try:
        where = places(home, trust, audit)
        try:
            store, now = load_trust(where.trust), int(time.time())
            under = circumstances(where, store, now, allow_downgrade=allow_downgrade)
            under = under._replace(observe=weighed.append)
            if names_installed(bundle):
                evidence = _verify_installed(where, bundle, store, now, under)
            else:
                evidence = verify_bundle(bundle, store, now, under=under)
            _require(evidence, require_attestation or ())
        except REFUSALS as err:
            detail = {"path": _path(bundle), "error": err.id, "message": err.message}
            record(where, "bundle.refused", "refused", detail)
            raise
        found: dict[str, Any] = {
            "plugin": evidence.envelope.name,
            "version": evidence.envelope.version,
            "release": evidence.envelope.release,
            "signers": [signer._asdict() for signer in evidence.signers],
            "untrusted": list(evidence.untrusted),
            "attestations": [_plain(each) for each in evidence.attestations],
            "trust_digest": evidence.trust_digest,
            "downgrade": evidence.verdict is not None and evidence.verdict.downgrade,
        }
        detail = {"path": _path(bundle), **found}
        seq = record(where, "bundle.verified", "verified", detail, bundle_id=evidence.bundle_id)
    except REFUSALS as err:
        _refuse(err, _why(bundle, weighed) if explain else None, as_json=json)
    why = _why(bundle, weighed) if explain else None
    files = evidence.envelope.files
    payload_bytes = sum(entry.size for entry in files)
    if json:
        emit_json({
            "outcome": "ok", "code": 0, "bundle_id": evidence.bundle_id, **found,
            "files": len(files), "payload_bytes": payload_bytes,
            "warnings": list(evidence.warnings), "audit": {"seq": seq}, **({"explain": why} if why else {}),
        })  # fmt: skip
        return
    envelope = evidence.envelope
    show(f"{envelope.name} {envelope.version} (release {envelope.release}): verified")
    show(f"  bundle id   {evidence.bundle_id}")
    for signer in evidence.signers:
        show(f"  signed by   {signer.key_id} ({signer.publisher}, {signer.role})  {signer.fingerprint}")
    for fingerprint in evidence.untrusted:
        show(f"  not counted {fingerprint}")
    for each in evidence.attestations:
        names = ", ".join(f"{signer.key_id} ({signer.role})" for signer in each.counted)
        show(f"  attested    {each.predicate_type}  by {names or 'no key that is trusted'}")
    show(f"  payload     {payload_bytes} bytes in {len(files)} file{'s'[: len(files) != 1]}, all as signed")
    _tell(why)
    for warning in evidence.warnings:
        say(f"warning: {warning}")


def _why(bundle: str, weighed: "Sequence[Verdict]") -> dict[str, Any] | None:
    """Return what was weighed before the end, however it ended; None if it never came to that."""
    if not weighed:
        return None
    from plugsec.cli.why import explanation, public_lines  # noqa: PLC0415 - only with --explain

    return explanation(weighed[-1], {} if names_installed(bundle) else public_lines(bundle))


def _verify_installed(
    where: Places, name: str, store: "TrustStore", now: int, under: "Circumstances"
) -> "VerifiedBundle":
    """Judge an installed bundle as a run of it does: an older version is there on purpose."""
    from plugsec_signing.store.names import parse_name  # noqa: PLC0415
    from plugsec_signing.store.stored import opened_bundle, reading  # noqa: PLC0415 - of Linux
    from plugsec_signing.verify import verify_reading  # noqa: PLC0415

    with opened_bundle(os.path.join(where.data, STORE), parse_name(name)) as stored:
        under = under._replace(allow_downgrade=True)
        return verify_reading(reading(stored), stored.path, store, now, under=under)


def _path(bundle: str) -> str:
    return bundle if names_installed(bundle) else os.path.abspath(bundle)


def _tell(why: dict[str, Any] | None) -> None:
    if why is not None:
        from plugsec.cli.why import told  # noqa: PLC0415

        for line in told(why):
            show(line)


def _refuse(error: Refusal, why: dict[str, Any] | None, *, as_json: bool) -> NoReturn:
    """Report a refusal; with `why`, all that was weighed goes to stdout first."""
    if why is None or not as_json:
        _tell(why)
        refuse(error, as_json=as_json)
    problem = {"id": error.id, "message": error.message, "hint": error.hint}
    emit_json({"outcome": "refused", "code": error.code, "error": problem, "explain": why})
    raise SystemExit(error.code)


def _require(evidence: Any, wanted: Sequence[str]) -> None:  # noqa: ANN401 - evidence, imported lazily
    if wanted:
        from plugsec_signing import dsse  # noqa: PLC0415 - few demand any

        dsse.require(evidence.envelope.name, wanted, evidence.attestations)


def _plain(attestation: Any) -> dict[str, Any]:  # noqa: ANN401 - an Attestation, imported lazily
    return {
        "type": attestation.predicate_type,
        "sha256": attestation.digest,
        "signers": list(attestation.signers),
        "counted": [signer._asdict() for signer in attestation.counted],
    }
