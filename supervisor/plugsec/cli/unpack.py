"""unpack: a bundle's files in a directory, for reading them and for checks with other tools."""

import os
import time
from typing import TYPE_CHECKING, Annotated

import typer

from plugsec.cli.common import emit_json, places, refuse, say
from plugsec.cli.edge import circumstances, record, show
from plugsec.cli.options import Audit, Bundle, Home, Json, Trust, examples
from plugsec.errors import REFUSALS

if TYPE_CHECKING:
    from plugsec_signing.verify import UnsafeUnsignedBundle, VerifiedBundle

_EXAMPLES = examples(
    "plugsec unpack wordfreq-1.2.3.plug ./wordfreq",
    "plugsec unpack unknown.plug ./unknown --unsafe-unsigned",
)


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("unpack", epilog=_EXAMPLES)(unpack)


def unpack(
    bundle: Bundle,
    directory: Annotated[str, typer.Argument(metavar="DIR", help="A new or an empty directory.")],
    *,
    unsafe_unsigned: Annotated[
        bool,
        typer.Option(
            "--unsafe-unsigned", help="Also a bundle that nobody vouches for. Recorded as an override."
        ),
    ] = False,
    trust: Trust = None,
    audit: Audit = None,
    home: Home = None,
    json: Json = False,
) -> None:
    """Verify a bundle and write its files into a directory: what `tar xf` would make of it.

    All files appear at once, or none. What is unpacked is for reading: a run takes the bundle.
    Exit codes: 0 done, 2 directory, 3 trust, 4 malformed, 9 audit.
    """
    from plugsec_signing import unpack as unpacking  # noqa: PLC0415 - each command loads only what it needs
    from plugsec_signing import verify  # noqa: PLC0415
    from plugsec_signing.bundle import Sink  # noqa: PLC0415
    from plugsec_signing.trust import load_trust  # noqa: PLC0415

    path = os.path.abspath(bundle)
    seqs: list[int] = []
    try:
        where = places(home, trust, audit)
        if unsafe_unsigned:
            record(where, "override.used", "used", {"override": "unsafe-unsigned", "path": path})
        store = load_trust(where.trust)

        def judge(sink: Sink) -> verify.VerifiedBundle | verify.UnsafeUnsignedBundle:
            evidence: verify.VerifiedBundle | verify.UnsafeUnsignedBundle
            if unsafe_unsigned:
                evidence = verify.verify_unsafe_unsigned(bundle, also=sink)
            else:
                # Unpacked is not accepted: an older release may be looked at, and nothing is remembered.
                now = int(time.time())
                under = circumstances(where, store, now, allow_downgrade=True)
                evidence = verify.verify_bundle(bundle, store, now, also=sink, under=under)
            detail = {
                "path": path,
                "plugin": evidence.envelope.name,
                "version": evidence.envelope.version,
                "signers": [signer.key_id for signer in evidence.signers],
                "unpacked": os.path.abspath(directory),
            }
            decision = "unsafe-unsigned" if unsafe_unsigned else "verified"
            seqs.append(record(where, "bundle.verified", decision, detail, bundle_id=evidence.bundle_id))
            return evidence

        try:
            evidence = unpacking.unpack(directory, judge)
        except REFUSALS as err:
            if err.code in {3, 4}:
                record(
                    where,
                    "bundle.refused",
                    "refused",
                    {"path": path, "error": err.id, "message": err.message},
                )
            raise
    except REFUSALS as err:
        refuse(err, as_json=json)
    _tell(evidence, directory, seqs[0], as_json=json)


def _tell(
    evidence: "VerifiedBundle | UnsafeUnsignedBundle", directory: str, seq: int, *, as_json: bool
) -> None:
    envelope = evidence.envelope
    if as_json:
        emit_json({
            "outcome": "ok", "code": 0, "bundle_id": evidence.bundle_id, "plugin": envelope.name,
            "version": envelope.version, "directory": directory, "files": len(envelope.files),
            "signers": [signer._asdict() for signer in evidence.signers],
            "warnings": list(evidence.warnings), "audit": {"seq": seq},
        })  # fmt: skip
        return
    verdict = "verified" if evidence.signers else "NOBODY VOUCHES FOR IT"
    show(f"{envelope.name} {envelope.version}: {verdict}, {len(envelope.files)} files in {directory}")
    show(f"  bundle id   {evidence.bundle_id}")
    for warning in evidence.warnings:
        say(f"warning: {warning}")
