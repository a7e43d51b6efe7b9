"""sign: signatures added to a bundle and taken from it; its id stays the same."""

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from plugsec.cli.common import emit_json, places, refuse, say
from plugsec.cli.edge import read_small, show
from plugsec.cli.options import Bundle, Home, Json, PassphraseFd, Trust, examples
from plugsec.cli.signing_key import public_key, signing_key
from plugsec.errors import REFUSALS, UsageError
from plugsec_signing.typed import NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

    from plugsec_signing.bundle import BundleHead
    from plugsec_signing.envelope import Envelope

MAX_SIGNATURE_FILE_BYTES = 64 * 1024  # above any signature, below anything that hurts


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("sign", epilog=_EXAMPLES)(sign)


_EXAMPLES = examples(
    "plugsec sign wordfreq-1.2.3.plug --key release",
    "plugsec sign wordfreq-1.2.3.plug --key ~/.ssh/id_ed25519 --publisher acme",
    "plugsec sign wordfreq-1.2.3.plug --agent --key ~/.ssh/id_ed25519_sk.pub",
    "plugsec sign wordfreq-1.2.3.plug --print-payload > m",
    "plugsec sign wordfreq-1.2.3.plug --signature m.sig",
)


class _Request(NamedTuple):
    """What the command line asks for, found to make sense."""

    bundle: str
    key: str | None
    agent: bool
    signature: str | None
    raw: bool
    publisher: str | None
    passphrase_fd: int | None
    prune: bool


def sign(
    bundle: Bundle,
    *,
    key: Annotated[
        str | None,
        typer.Option("--key", metavar="FILE", help="Private key; with --agent or --raw its .pub file."),
    ] = None,
    agent: Annotated[bool, typer.Option("--agent", help="Let ssh-agent sign (SSH_AUTH_SOCK).")] = False,
    signature: Annotated[
        str | None,
        typer.Option("--signature", metavar="FILE", help="A signature made by `ssh-keygen -Y sign`."),
    ] = None,
    print_payload: Annotated[
        bool, typer.Option("--print-payload", help="Write what is to be signed to stdout; sign nothing.")
    ] = False,
    raw: Annotated[
        bool, typer.Option("--raw", help="Payload and signature as bare bytes, for signers without SSH.")
    ] = False,
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

    On another machine, or with a signer of your own: write what is to be signed with --print-payload, sign
    it there with `ssh-keygen -Y sign -f KEY -n plugsec-manifest@v1 FILE`, import the result with --signature.

    For hardware and key services that know nothing of SSH, --print-payload --raw writes the bytes that an
    Ed25519 or ECDSA P-256 (SHA-256) key signs, and --signature FILE --raw --key FILE.pub imports the
    signature they return: 64 bytes, or DER.
    """
    request = _Request(bundle, key, agent, signature, raw, publisher, passphrase_fd, prune)
    try:
        _check(request, print_payload)
        if print_payload:
            _print_payload(request, as_json=json)
            return
        known = _known(home, trust) if prune else None
        envelope, added, removed, algorithm = _sign(request, known)
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
    if algorithm not in (None, "ssh-ed25519"):
        say(f'note: this signature counts only where the trust entry says algorithm = "{algorithm}"')


def _check(request: _Request, print_payload: bool) -> None:
    """Refuse options that contradict each other (exit 2)."""
    by_key = request.agent or (request.key is not None and request.signature is None)
    if print_payload:
        if by_key or request.signature is not None or request.prune:
            raise UsageError(
                "--print-payload signs nothing and changes nothing", "plugsec sign BUNDLE --print-payload > m"
            )
        return
    if by_key + (request.signature is not None) != 1 and not (request.prune and not by_key):
        raise UsageError(
            "give one of --key FILE, --agent and --signature FILE", "plugsec sign BUNDLE --key FILE"
        )
    if request.raw != (request.signature is not None and request.key is not None):
        raise UsageError(
            "--raw goes with --print-payload, or with --signature and the public key that made it",
            "plugsec sign BUNDLE --signature FILE --raw --key FILE.pub",
        )


def _print_payload(request: _Request, *, as_json: bool) -> None:
    from plugsec_signing import outside  # noqa: PLC0415

    if not as_json and sys.stdout.isatty():
        raise UsageError(
            "the payload is not written to a terminal: it is for a signer, and holds a stranger's text",
            "plugsec sign BUNDLE --print-payload > m",
        )
    envelope = outside.envelope_to_sign(request.bundle)
    _check_publisher(request, envelope)
    payload = outside.signed_bytes(envelope) if request.raw else envelope.manifest_bytes
    if as_json:
        from base64 import b64encode  # noqa: PLC0415

        emit_json({
            "outcome": "ok", "code": 0, "bundle_id": envelope.bundle_id, "path": request.bundle,
            "plugin": envelope.name, "version": envelope.version,
            "payload_base64": b64encode(payload).decode("ascii"),
        })  # fmt: skip
        return
    sys.stdout.buffer.write(payload)
    sys.stdout.flush()
    say(f"{envelope.name} {envelope.version}  {envelope.bundle_id}")


def _sign(request: _Request, known: set[str] | None) -> "tuple[Envelope, list[str], list[str], str | None]":
    """Rewrite the bundle; return what was signed, fingerprints added and removed, the new one's algorithm."""
    from plugsec_signing import keys, rewrite, sshsig  # noqa: PLC0415

    added: list[str] = []
    removed: list[str] = []
    algorithms: list[str] = []
    make = _maker(request)

    def change(head: "BundleHead") -> dict[str, bytes]:
        _check_publisher(request, head.envelope)
        if known is not None:
            removed.extend(name for name in head.signatures if name not in known)
        left = {name: armour for name, armour in head.signatures.items() if name not in removed}
        if make is None:
            return left
        armour = make(head.envelope)
        after = rewrite.with_signature(head._replace(signatures=left), armour)
        made = sshsig.parse(armour).key
        added.append(keys.fingerprint(made))
        algorithms.append(made.algorithm)
        return after

    envelope = rewrite.rewrite_signatures(request.bundle, change)
    return envelope, added, removed, algorithms[0] if algorithms else None


def _maker(request: _Request) -> "Callable[[Envelope], bytes] | None":
    """Return what makes the new signature's armour; None if none is wanted, only pruning."""
    from plugsec_signing import sshsig  # noqa: PLC0415

    if request.signature is not None:
        content = read_small(request.signature, MAX_SIGNATURE_FILE_BYTES)
        if request.raw and request.key is not None:
            armour = sshsig.from_bare(public_key(request.key), content, sshsig.NAMESPACE_MANIFEST)
        else:
            armour = sshsig.one_spelling(content)
        return lambda _: armour
    if request.key is None and not request.agent:
        return None
    private = signing_key(request.key, agent=request.agent, passphrase_fd=request.passphrase_fd)
    return lambda envelope: sshsig.sign(private, envelope.manifest_bytes, sshsig.NAMESPACE_MANIFEST)


def _check_publisher(request: _Request, envelope: "Envelope") -> None:
    found = envelope.publisher
    if request.publisher is not None and request.publisher != found:
        raise UsageError(f"the bundle's publisher is {found}, not {request.publisher}; nothing was signed")


def _known(home: str | None, trust: str | None) -> set[str]:
    """Return the fingerprints of the trust store; raises TrustStoreError (exit 4)."""
    from plugsec_signing.trust import load_trust  # noqa: PLC0415

    return {entry.fingerprint for entry in load_trust(places(home, trust).trust).keys}
