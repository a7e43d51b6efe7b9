"""inspect: what a bundle says of itself, trusted by nobody yet."""

import os
from typing import Any

import typer

from plugsec.cli.common import emit_json, places, refuse
from plugsec.cli.edge import show
from plugsec.cli.options import BundleOrName, Home, Json, examples
from plugsec.errors import REFUSALS
from plugsec.places import STORE


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("inspect", epilog=_EXAMPLES)(inspect)


_EXAMPLES = examples(
    "plugsec inspect wordfreq-1.2.3.plug",
    "plugsec inspect wordfreq-1.2.3.plug --json",
    "plugsec inspect acme/wordfreq@1.2.3",
)


def inspect(bundle: BundleOrName, home: Home = None, json: Json = False) -> None:
    """Show what a bundle says of itself, without trusting it: manifest, files, permissions, signatures.

    Structure and hashes are checked (exit 4); whether a signature verifies is shown, not enforced.
    """
    try:
        head = _read(bundle, home)
        signatures = [_signature_state(head, name) for name in head.signatures]
        attestations = [_attestation_state(head, name) for name in head.attestations]
    except REFUSALS as err:
        refuse(err, as_json=json)
    if json:
        emit_json({
            "outcome": "ok", "code": 0, "bundle_id": head.envelope.bundle_id, "path": bundle,
            "manifest": head.envelope.raw, "signatures": signatures,
            "attestations": attestations,
        })  # fmt: skip
        return
    _show_manifest(head.envelope.raw, head.envelope.bundle_id)
    for state in signatures:
        verdict = "verifies (trust not asked)" if state["verifies"] else f"REFUSED {state['error']['id']}"
        show(f"  signature   {state['fingerprint']}  {verdict}")
    for state in attestations:
        verdict = "holds (trust not asked)" if state["verifies"] else f"REFUSED {state['error']['id']}"
        show(f"  attestation {state.get('type', state['sha256'])}  {verdict}")
    if not signatures:
        show("  signature   none: plugsec sign BUNDLE --key FILE")


def _read(bundle: str, home: str | None) -> Any:  # noqa: ANN401 - a BundleHead, imported lazily
    """Read a bundle file, or an installed bundle when the word is a name of the store."""
    from plugsec_signing import verify as verifying  # noqa: PLC0415
    from plugsec_signing.bundle import BundleHead, read_bundle  # noqa: PLC0415
    from plugsec_signing.envelope import FileEntry  # noqa: PLC0415
    from plugsec_signing.store.names import is_stored_name, parse_name  # noqa: PLC0415

    class Nowhere:
        """A reading that only checks."""

        def head(self, head: BundleHead) -> None:
            """Nothing is enforced here."""

        def begin(self, entry: FileEntry) -> None:
            """The reader hashes."""

        def chunk(self, data: memoryview) -> None:
            """Nothing is kept."""

    if is_stored_name(bundle):
        from plugsec_signing.store import stored  # noqa: PLC0415 - of Linux, other than reading a file

        store = os.path.join(places(home).data, STORE)
        with stored.opened_bundle(store, parse_name(bundle)) as found:
            return stored.reading(found)(Nowhere())
    fd = verifying.open_bundle(bundle)
    try:
        return read_bundle(fd, Nowhere())
    finally:
        os.close(fd)


def _signature_state(head: Any, name: str) -> dict[str, Any]:  # noqa: ANN401 - a BundleHead, imported lazily
    from plugsec_signing.errors import SigningError  # noqa: PLC0415
    from plugsec_signing.verify import check_signatures  # noqa: PLC0415

    state: dict[str, Any] = {"fingerprint": name, "verifies": True}
    try:
        check_signatures(head._replace(signatures={name: head.signatures[name]}, attestations={}))
    except SigningError as err:
        state.update(verifies=False, error={"id": err.id, "message": err.message, "hint": err.hint})
    return state


def _attestation_state(head: Any, name: str) -> dict[str, Any]:  # noqa: ANN401 - as above
    from plugsec_signing import dsse  # noqa: PLC0415
    from plugsec_signing.errors import SigningError  # noqa: PLC0415

    state: dict[str, Any] = {"sha256": name, "verifies": True}
    try:
        found = dsse.check(head.attestations[name], head.envelope.bundle_id)
        predicate = dsse.read_statement(head.attestations[name]).get("predicate", {})
        state.update(type=found.predicate_type, signers=list(found.signers), predicate=predicate)
    except SigningError as err:
        state.update(verifies=False, error={"id": err.id, "message": err.message, "hint": err.hint})
    return state


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
