"""keygen, sign, verify, inspect: a bundle from its author's key to the evidence that it verifies."""

import os
import sys
import time
from typing import Annotated, Any

import typer

from plugsec.cli.common import Places, emit_json, places, refuse, say
from plugsec.errors import REFUSALS, UsageError

MAX_PASSPHRASE_BYTES = 1024  # what ssh-keygen itself reads; nobody types more
MAX_SIGNATURE_FILE_BYTES = 64 * 1024  # above any signature, below anything that hurts

Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]
Home = Annotated[str | None, typer.Option("--home", metavar="DIR", help="Where plugsec keeps everything.")]
Trust = Annotated[str | None, typer.Option("--trust", metavar="DIR", help="The trust store.")]
Audit = Annotated[str | None, typer.Option("--audit", metavar="DIR", help="The audit log.")]
Bundle = Annotated[str, typer.Argument(metavar="BUNDLE", help="A .plug file.")]
PassphraseFd = Annotated[
    int | None,
    typer.Option("--passphrase-fd", metavar="N", help="Read the passphrase from descriptor N, first line."),
]


def register(app: typer.Typer) -> None:
    """Add the commands of this group."""
    app.command("keygen", epilog=_EXAMPLES["keygen"])(keygen)
    app.command("sign", epilog=_EXAMPLES["sign"])(sign)
    app.command("verify", epilog=_EXAMPLES["verify"])(verify)
    app.command("inspect", epilog=_EXAMPLES["inspect"])(inspect)


def examples(*lines: str) -> str:
    """Return the examples below a command's help; paragraphs, so that each keeps its own line."""
    return "\n\n".join(("Examples:", *lines))


_EXAMPLES = {
    "keygen": examples(
        "plugsec keygen release",
        "plugsec keygen ci --out keys --no-passphrase",
        "plugsec keygen release --passphrase-fd 3 3< passphrase.txt",
    ),
    "sign": examples(
        "plugsec sign wordfreq-1.2.3.plug --key release",
        "plugsec sign wordfreq-1.2.3.plug --key ~/.ssh/id_ed25519 --publisher acme",
        "plugsec sign wordfreq-1.2.3.plug --signature manifest.json.sig",
    ),
    "verify": examples(
        "plugsec verify wordfreq-1.2.3.plug",
        "plugsec verify wordfreq-1.2.3.plug --json",
        "plugsec verify wordfreq-1.2.3.plug --trust ./trust.d",
    ),
    "inspect": examples(
        "plugsec inspect wordfreq-1.2.3.plug",
        "plugsec inspect wordfreq-1.2.3.plug --json",
    ),
}


def keygen(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Name of the private file; NAME.pub beside it.")
    ],
    out: Annotated[str, typer.Option("--out", metavar="DIR", help="Directory for the pair.")] = ".",
    no_passphrase: Annotated[
        bool, typer.Option("--no-passphrase", help="Leave the private key unprotected.")
    ] = False,
    passphrase_fd: PassphraseFd = None,
    json: Json = False,
) -> None:
    """Make an Ed25519 key pair in OpenSSH form; existing files are never overwritten."""
    from plugsec_signing import keys  # noqa: PLC0415 - each command loads only what it needs

    try:
        if os.path.basename(name) != name or name in ("", ".", ".."):
            raise UsageError(f"{name!r} is not a plain file name", "plugsec keygen NAME --out DIR")
        if no_passphrase and passphrase_fd is not None:
            raise UsageError("--no-passphrase and --passphrase-fd exclude each other")
        passphrase = None if no_passphrase else _new_passphrase(passphrase_fd)
        key = keys.generate_keypair(out, name, passphrase, comment=name)
    except REFUSALS as err:
        refuse(err, as_json=json)
    path = os.path.normpath(os.path.join(out, name))
    if json:
        emit_json({
            "outcome": "ok", "code": 0, "private": path, "public": path + ".pub",
            "fingerprint": keys.fingerprint(key), "ssh_fingerprint": keys.ssh_fingerprint(key),
            "protected": passphrase is not None,
        })  # fmt: skip
        return
    show(f"{path}.pub  {keys.ssh_fingerprint(key)}")
    if passphrase is None:
        say(f"note: {path} is not protected by a passphrase; whoever reads it can sign as you")
    say(f"next: plugsec sign BUNDLE --key {path}; plugsec trust add {path}.pub --publisher NAME")


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
        private = keys.load_private_key(key, lambda: _passphrase(passphrase_fd, key)) if key else None
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


def verify(
    bundle: Bundle,
    trust: Trust = None,
    audit: Audit = None,
    home: Home = None,
    json: Json = False,
) -> None:
    """Check every signature, the trust store's opinion of them, and every byte of the payload.

    Exit 0: a trusted key vouches for exactly these bytes. 3: unsigned, unknown, expired, … 4: malformed.
    The verdict, either way, is recorded in the audit log.
    """
    from plugsec_signing.trust import load_trust  # noqa: PLC0415
    from plugsec_signing.verify import verify_bundle  # noqa: PLC0415

    try:
        where = places(home, trust, audit)
        try:
            evidence = verify_bundle(bundle, load_trust(where.trust), int(time.time()))
        except REFUSALS as err:
            detail = {"path": os.path.abspath(bundle), "error": err.id, "message": err.message}
            record(where, "bundle.refused", "refused", detail)
            raise
        found: dict[str, Any] = {
            "plugin": evidence.envelope.name,
            "version": evidence.envelope.version,
            "release": evidence.envelope.release,
            "signers": [signer._asdict() for signer in evidence.signers],
            "untrusted": list(evidence.untrusted),
            "trust_digest": evidence.trust_digest,
        }
        detail = {"path": os.path.abspath(bundle), **found}
        seq = record(where, "bundle.verified", "verified", detail, bundle_id=evidence.bundle_id)
    except REFUSALS as err:
        refuse(err, as_json=json)
    files = evidence.envelope.files
    payload_bytes = sum(entry.size for entry in files)
    if json:
        emit_json({
            "outcome": "ok", "code": 0, "bundle_id": evidence.bundle_id, **found,
            "files": len(files), "payload_bytes": payload_bytes,
            "warnings": list(evidence.warnings), "audit": {"seq": seq},
        })  # fmt: skip
        return
    envelope = evidence.envelope
    show(f"{envelope.name} {envelope.version} (release {envelope.release}): verified")
    show(f"  bundle id   {evidence.bundle_id}")
    for signer in evidence.signers:
        show(f"  signed by   {signer.key_id} ({signer.publisher}, {signer.role})  {signer.fingerprint}")
    for fingerprint in evidence.untrusted:
        show(f"  not counted {fingerprint}")
    show(f"  payload     {payload_bytes} bytes in {len(files)} file{'s'[: len(files) != 1]}, all as signed")
    for warning in evidence.warnings:
        say(f"warning: {warning}")


def inspect(bundle: Bundle, json: Json = False) -> None:
    """Show what a bundle says of itself, without trusting it: manifest, files, permissions, signatures.

    Structure and hashes are checked (exit 4); whether a signature verifies is shown, not enforced.
    """
    from plugsec_signing import verify as verifying  # noqa: PLC0415
    from plugsec_signing.bundle import BundleHead, read_bundle  # noqa: PLC0415
    from plugsec_signing.envelope import FileEntry  # noqa: PLC0415

    class Nowhere:
        """A reading that only checks."""

        def head(self, head: BundleHead) -> None:
            """Nothing is enforced here."""

        def begin(self, entry: FileEntry) -> None:
            """The reader hashes."""

        def chunk(self, data: memoryview) -> None:
            """Nothing is kept."""

    try:
        fd = verifying.open_bundle(bundle)
        try:
            head = read_bundle(fd, Nowhere())
        finally:
            os.close(fd)
        signatures = [_signature_state(head, name) for name in head.signatures]
    except REFUSALS as err:
        refuse(err, as_json=json)
    if json:
        emit_json({
            "outcome": "ok", "code": 0, "bundle_id": head.envelope.bundle_id, "path": bundle,
            "manifest": head.envelope.raw, "signatures": signatures,
            "attestations": list(head.attestations),
        })  # fmt: skip
        return
    _show_manifest(head.envelope.raw, head.envelope.bundle_id)
    for state in signatures:
        verdict = "verifies (trust not asked)" if state["verifies"] else f"REFUSED {state['error']['id']}"
        show(f"  signature   {state['fingerprint']}  {verdict}")
    if not signatures:
        show("  signature   none: plugsec sign BUNDLE --key FILE")


def record(
    where: Places, event: str, decision: str, detail: dict[str, Any], *, bundle_id: str | None = None
) -> int:
    """Append a durable audit record and return its sequence number; raises AuditError (exit 9)."""
    from plugsec.audit.log import AuditLog  # noqa: PLC0415
    from plugsec.places import prepare_state  # noqa: PLC0415

    prepare_state(where.state)
    with AuditLog.open(where.audit) as log:
        return log.append(event, bundle_id=bundle_id, decision=decision, detail=detail, durable=True).seq


def _signature_state(head: Any, name: str) -> dict[str, Any]:  # noqa: ANN401 - a BundleHead, imported lazily
    from plugsec_signing.errors import SigningError  # noqa: PLC0415
    from plugsec_signing.verify import check_signatures  # noqa: PLC0415

    state: dict[str, Any] = {"fingerprint": name, "verifies": True}
    try:
        check_signatures(head._replace(signatures={name: head.signatures[name]}, attestations={}))
    except SigningError as err:
        state.update(verifies=False, error={"id": err.id, "message": err.message, "hint": err.hint})
    return state


def show(line: str) -> None:
    """Write one line of a result for people; whatever came from a bundle is escaped on the way."""
    from plugsec.exchange.display import escape  # noqa: PLC0415

    sys.stdout.write(escape(line) + "\n")


def _show_manifest(raw: Any, bundle_id: str) -> None:  # noqa: ANN401 - any JSON object
    """Show the manifest's own words, one field a line; nested values as JSON."""
    import json as json_text  # noqa: PLC0415 - `json` is the option's name in this module

    show(f"{raw['name']} {raw['version']} (release {raw['release']})")
    show(f"  bundle id   {bundle_id}")
    for field in sorted(raw.keys() - {"name", "version", "release", "files", "permissions", "methods"}):
        value = raw[field]
        show(f"  {field:<11} {value if isinstance(value, str) else json_text.dumps(value)}")
    for kind in ("methods", "permissions"):
        entries = raw.get(kind) or ()
        items = entries.items() if isinstance(entries, dict) else enumerate(entries)
        for name, entry in items:
            label = f"{name} " if isinstance(name, str) else ""
            show(f"  {kind[:-1]:<11} {label}{json_text.dumps(entry)}")
    for file in raw["files"]:
        show(f"  file        {file['mode']:04o} {file['size']:>10} {file['path']}")


def _passphrase(passphrase_fd: int | None, path: str | None) -> bytes:
    if passphrase_fd is not None:
        return _passphrase_from(passphrase_fd)
    return _prompt(f"Passphrase for {path}: ")


def _new_passphrase(passphrase_fd: int | None) -> bytes:
    if passphrase_fd is not None:
        return _passphrase_from(passphrase_fd)
    first = _prompt("Passphrase for the new key: ")
    if first != _prompt("The same again: "):
        raise UsageError("the two passphrases differ; no key was made")
    return first


def _prompt(text: str) -> bytes:
    """Ask on the terminal; never on stdin, where a script's data would be taken for a passphrase."""
    import getpass  # noqa: PLC0415

    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
        answer = getpass.getpass(text)
    except (OSError, EOFError) as err:
        raise UsageError(
            "a passphrase is needed and there is no terminal to ask on", "give --passphrase-fd N"
        ) from err
    return _not_empty(answer.encode("utf-8", "surrogateescape"))


def _passphrase_from(fd: int) -> bytes:
    """Read the first line of a descriptor; raises UsageError (exit 2)."""
    data = b""
    try:
        while b"\n" not in data and len(data) <= MAX_PASSPHRASE_BYTES:
            more = os.read(fd, MAX_PASSPHRASE_BYTES)
            if not more:
                break
            data += more
    except (OSError, OverflowError) as err:
        raise UsageError(
            f"descriptor {fd} cannot be read for a passphrase: {err}", "--passphrase-fd 3 3< FILE"
        ) from err
    line = data.partition(b"\n")[0].removesuffix(b"\r")
    if len(line) > MAX_PASSPHRASE_BYTES:
        raise UsageError(f"the passphrase is longer than {MAX_PASSPHRASE_BYTES} bytes")
    return _not_empty(line)


def _not_empty(passphrase: bytes) -> bytes:
    if not passphrase:
        raise UsageError("the passphrase is empty", "for a key without passphrase: --no-passphrase")
    return passphrase


def read_small(path: str, most: int) -> bytes:
    """Read a small file that the command line names; raises UsageError (exit 2)."""
    try:
        with open(path, "rb") as file:
            data = file.read(most + 1)
    except (OSError, ValueError) as err:
        raise UsageError(f"{path!r} cannot be read: {err}") from err
    if len(data) > most:
        raise UsageError(f"{path!r} is larger than {most} bytes")
    return data
