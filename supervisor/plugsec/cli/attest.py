"""attest: a statement about a bundle (a review, a CI verdict, provenance), signed and carried inside it."""

from typing import Annotated, Any

import typer

from plugsec.cli.common import emit_json, refuse
from plugsec.cli.edge import read_small, show
from plugsec.cli.options import Bundle, Json, PassphraseFd, examples
from plugsec.cli.signing_key import signing_key
from plugsec.errors import REFUSALS, UsageError

# A bundle carries 256 KiB for each attestation, in base64: what of it a predicate can use.
MAX_PREDICATE_BYTES = 180 * 1024


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("attest", epilog=_EXAMPLES)(attest)


_EXAMPLES = examples(
    "plugsec attest b.plug --predicate review.json --type https://example.org/review/v1 --key reviewer",
    "plugsec attest b.plug --predicate slsa.json --type https://slsa.dev/provenance/v1 --key ci",
    "plugsec verify b.plug --require-attestation https://example.org/review/v1",
)


def attest(
    bundle: Bundle,
    *,
    predicate: Annotated[
        str, typer.Option("--predicate", metavar="FILE", help="What you vouch for: a JSON object.")
    ],
    kind: Annotated[str, typer.Option("--type", metavar="URI", help="What kind of predicate it is.")],
    key: Annotated[
        str | None, typer.Option("--key", metavar="FILE", help="Private key; with --agent its .pub file.")
    ] = None,
    agent: Annotated[bool, typer.Option("--agent", help="Let ssh-agent sign (SSH_AUTH_SOCK).")] = False,
    passphrase_fd: PassphraseFd = None,
    json: Json = False,
) -> None:
    """Add an attestation to a bundle: an in-toto statement in DSSE. The bundle's id stays the same.

    Signatures and attestations that are already there must hold. Whether yours counts is decided where the
    bundle is verified, by the trust store: give the key there a role, such as `review`.
    """
    from plugsec_signing import dsse, rewrite  # noqa: PLC0415
    from plugsec_signing.bundle import BundleHead  # noqa: PLC0415

    made: list[dsse.Attestation] = []

    def change(head: BundleHead) -> dict[str, bytes]:
        content = dsse.attest(dsse.statement(head.envelope, kind, said), [private])
        made.append(dsse.check(content, head.envelope.bundle_id))
        return rewrite.with_attestation(head, content)

    try:
        said = _predicate(predicate)
        _check_type(kind)
        private = signing_key(key, agent=agent, passphrase_fd=passphrase_fd)
        envelope = rewrite.rewrite_attestations(bundle, change)
    except REFUSALS as err:
        refuse(err, as_json=json)
    attestation = made[0]
    if json:
        emit_json({
            "outcome": "ok", "code": 0, "bundle_id": envelope.bundle_id, "path": bundle,
            "plugin": envelope.name, "version": envelope.version,
            "attestation": {
                "type": attestation.predicate_type, "sha256": attestation.digest,
                "signers": list(attestation.signers),
            },
        })  # fmt: skip
        return
    show(f"{envelope.name} {envelope.version}  {envelope.bundle_id}")
    show(f"  attested    {attestation.predicate_type}  {attestation.digest}")
    show(f"  by          {attestation.signers[0]}")


def _predicate(path: str) -> dict[str, Any]:
    from plugsec.errors import InputMalformed  # noqa: PLC0415
    from plugsec_signing import canonical  # noqa: PLC0415

    value = canonical.decode(read_small(path, MAX_PREDICATE_BYTES))
    if not isinstance(value, dict):
        raise InputMalformed(f"the predicate in {path!r} is not a JSON object", 'such as {"verdict": "good"}')
    return value


def _check_type(kind: str) -> None:
    from plugsec_signing import dsse  # noqa: PLC0415
    from plugsec_signing.errors import AttestationRefused  # noqa: PLC0415

    try:
        dsse.check_type(kind)
    except AttestationRefused as err:  # here it is the command line that is wrong, not a bundle
        raise UsageError(err.message, err.hint) from err
