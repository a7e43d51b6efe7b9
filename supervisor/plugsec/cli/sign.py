"""sign: signatures added to a bundle and taken from it; its id stays the same."""

from typing import Annotated

import typer

from plugsec.cli.common import emit_json, places, refuse
from plugsec.cli.edge import read_small, show
from plugsec.cli.options import Bundle, Home, Json, PassphraseFd, Trust, examples
from plugsec.cli.passphrase import passphrase
from plugsec.errors import REFUSALS, UsageError

MAX_SIGNATURE_FILE_BYTES = 64 * 1024  # above any signature, below anything that hurts


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("sign", epilog=_EXAMPLES)(sign)


_EXAMPLES = examples(
    "plugsec sign wordfreq-1.2.3.plug --key release",
    "plugsec sign wordfreq-1.2.3.plug --key ~/.ssh/id_ed25519 --publisher acme",
    "plugsec sign wordfreq-1.2.3.plug --signature manifest.json.sig",
)


def sign(
    bundle: Bundle,
    *,
    key: Annotated[str | None, typer.Option("--key", metavar="FILE", help="Private key.")] = None,
    signature: Annotated[
        str | None,
        typer.Option("--signature", metavar="FILE", help="A signature made by `ssh-keygen -Y sign`."),
    ] = None,
    publisher: Annotated[
        str | None, typer.Option("--publisher", metavar="P", help="Refuse to sign for any other publisher.")
    ] = None,
    passphrase_fd: PassphraseFd = None,
    prune: Annotated[
        bool, typer.Option("--prune", help="Also remove signatures of keys that the trust store lacks.")
    ] = False,
    trust: Trust = None,
    home: Home = None,
    json: Json = False,
) -> None:
    """Add a signature to a bundle; its id stays the same. Present signatures must verify.

    Without plugsec's keys at hand: take the manifest out with
    `tar xOf BUNDLE PLUGSEC/manifest.json > m`, sign it with
    `ssh-keygen -Y sign -f KEY -n plugsec-manifest@v1 m`, and import `m.sig` with --signature.
    """
    from plugsec_signing import keys, rewrite, sshsig  # noqa: PLC0415
    from plugsec_signing.bundle import BundleHead  # noqa: PLC0415
    from plugsec_signing.trust import load_trust  # noqa: PLC0415

    added: list[str] = []
    removed: list[str] = []

    def change(head: BundleHead) -> dict[str, bytes]:
        found = head.envelope.publisher
        if publisher is not None and publisher != found:
            raise UsageError(f"the bundle's publisher is {found}, not {publisher}; nothing was signed")
        before = dict(head.signatures)
        if prune:
            removed.extend(name for name in before if name not in known)
        kept = head._replace(signatures={name: before[name] for name in before if name not in removed})
        if private is not None:
            armour = sshsig.sign(private, head.envelope.manifest_bytes, sshsig.NAMESPACE_MANIFEST)
        elif signature is not None:
            armour = read_small(signature, MAX_SIGNATURE_FILE_BYTES)
        else:
            return dict(kept.signatures)
        after = rewrite.with_signature(kept, armour)
        added.append(keys.fingerprint(sshsig.parse(armour).key))
        return after

    try:
        if (key is not None) + (signature is not None) != 1 and not (prune and key is None):
            raise UsageError("give one of --key FILE and --signature FILE", "plugsec sign BUNDLE --key FILE")
        known = (
            {entry.fingerprint for entry in load_trust(places(home, trust).trust).keys} if prune else set()
        )
        private = keys.load_private_key(key, lambda: passphrase(passphrase_fd, key)) if key else None
        envelope = rewrite.rewrite_signatures(bundle, change)
    except REFUSALS as err:
        refuse(err, as_json=json)
    if json:
        emit_json({
            "outcome": "ok", "code": 0, "bundle_id": envelope.bundle_id, "path": bundle,
            "plugin": envelope.name, "version": envelope.version, "added": added, "removed": removed,
        })  # fmt: skip
        return
    show(f"{envelope.name} {envelope.version}  {envelope.bundle_id}")
    for fingerprint in added:
        show(f"  signed by   {fingerprint}")
    for fingerprint in removed:
        show(f"  removed     {fingerprint}")
