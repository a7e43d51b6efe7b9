"""trust add, list, remove (and what `PARTS` add): whose signatures count, for which plugins, and when."""

import importlib
import os
import time
from contextlib import suppress
from typing import Annotated, Any

import typer

from plugsec import private
from plugsec.cli.common import emit_json, places, refuse, say
from plugsec.cli.edge import read_small, record, show
from plugsec.cli.options import Audit, Home, Json, Trust, examples
from plugsec.cli.trust_rule import described
from plugsec.errors import REFUSALS, UsageError

# Each module has `extend(group: typer.Typer) -> None`.
PARTS = ("trust_rule", "trust_memory", "revoke", "interchange", "trust_root")
MAX_PUBLIC_FILE_BYTES = 64 * 1024  # four times the longest line that is accepted

_ADD = examples(
    "plugsec trust add acme.pub --publisher acme",
    "plugsec trust add acme.pub --publisher acme --plugins acme/wordfreq --valid-before 2027-01-01",
    "plugsec trust add review.pub --publisher acme --role review --id acme-review",
)
_LIST = examples("plugsec trust list", "plugsec trust list --json")
_REMOVE = examples("plugsec trust remove acme-release-2026")


def register(app: typer.Typer) -> None:
    """Add the `trust` group."""
    group = typer.Typer(help="Whose signatures count, for which plugins, and when.", no_args_is_help=True)
    group.command("add", epilog=_ADD)(add)
    group.command("list", epilog=_LIST)(list_keys)
    group.command("remove", epilog=_REMOVE)(remove)
    for part in PARTS:
        importlib.import_module(f"plugsec.cli.{part}").extend(group)
    app.add_typer(group, name="trust")


def add(
    pubkey: Annotated[str, typer.Argument(metavar="PUBKEY", help="A .pub file, or its one line.")],
    *,
    publisher: Annotated[str, typer.Option("--publisher", metavar="P", help="Whose key it is.")],
    plugins: Annotated[
        list[str] | None,
        typer.Option("--plugins", metavar="GLOB", help="What it may sign; repeatable. Default: P/*"),
    ] = None,
    role: Annotated[
        str, typer.Option("--role", metavar="R", help="`release`, or a role that adds evidence only.")
    ] = "release",
    key_id: Annotated[str | None, typer.Option("--id", metavar="ID", help="A name for people.")] = None,
    valid_after: Annotated[
        str | None, typer.Option("--valid-after", metavar="DATE", help="Counts from then on (UTC).")
    ] = None,
    valid_before: Annotated[
        str | None, typer.Option("--valid-before", metavar="DATE", help="Counts until just before (UTC).")
    ] = None,
    algorithm: Annotated[
        str | None, typer.Option("--algorithm", metavar="A", help="Allows a key that is not ssh-ed25519.")
    ] = None,
    trust: Trust = None,
    audit: Audit = None,
    home: Home = None,
    json: Json = False,
) -> None:
    """Trust a public key for a publisher's plugins; the change is recorded in the audit log."""
    from plugsec_signing import keys, trust_edit  # noqa: PLC0415 - each command loads only what it needs

    try:
        where = places(home, trust, audit)
        key = keys.parse_public_key(_line(pubkey))
        entry: dict[str, Any] = {
            "id": key_id or f"{publisher}-{role}-{keys.fingerprint(key)[:8]}",
            "ssh": keys.public_line(key),
            "publisher": publisher,
            "role": role,
        }
        optional = {
            "plugins": plugins, "valid_after": valid_after, "valid_before": valid_before,
            "algorithm": algorithm,
        }  # fmt: skip
        entry.update({field: value for field, value in optional.items() if value})
        seqs: list[int] = []
        with suppress(OSError):  # what cannot be made is reported by add_key in its own words
            private.make_directories(where.trust)
        added = trust_edit.add_key(
            where.trust,
            entry,
            announce=lambda key: seqs.append(record(where, "trust.changed", "added", _described(key))),
        )
    except REFUSALS as err:
        refuse(err, as_json=json)
    if json:
        emit_json({"outcome": "ok", "code": 0, "key": _described(added), "audit": {"seq": seqs[0]}})
        return
    show(f"{added.id} may sign {', '.join(added.plugins)}  {keys.ssh_fingerprint(added.key)}")


def list_keys(trust: Trust = None, home: Home = None, json: Json = False) -> None:
    """List the keys of the trust store and whether each is valid now, or revoked."""
    from plugsec_signing import keys, memory, revocation_edit  # noqa: PLC0415
    from plugsec_signing.trust import load_trust  # noqa: PLC0415

    try:
        where = places(home, trust)
        store = load_trust(where.trust)
    except REFUSALS as err:
        refuse(err, as_json=json)
    try:
        listed = revocation_edit.in_force(where.trust, store, int(time.time()), memory.path_in(where.state))
        revoked = {fingerprint: each.kind for fingerprint, each in listed.keys.items()}
    except REFUSALS as err:  # every run is refused for it; whoever mends it needs this list
        say(f"warning: {err.message} [{err.id}]")
        revoked = {}
    if json:
        emit_json({
            "outcome": "ok", "code": 0, "trust_digest": store.digest,
            "keys": [{**_described(key), "revoked": revoked.get(key.fingerprint)} for key in store.keys],
            "rules": [described(rule) for rule in store.rules],
        })  # fmt: skip
        return
    for key in store.keys:
        validity = revoked.get(key.fingerprint, "").upper() or _validity(key)
        show(f"{key.id}  {key.publisher} ({key.role})  {', '.join(key.plugins)}  {validity}")
        show(f"  {keys.ssh_fingerprint(key.key)}  {key.fingerprint}")
    if store.rules:
        show(f"and {len(store.rules)} rule{'s'[: len(store.rules) != 1]}: plugsec trust rule list")
    if not store.keys:
        say(f"no keys in {where.trust}; next: plugsec trust add PUBKEY --publisher NAME")


def remove(
    key_id: Annotated[str, typer.Argument(metavar="ID", help="As `plugsec trust list` shows it.")],
    trust: Trust = None,
    audit: Audit = None,
    home: Home = None,
    json: Json = False,
) -> None:
    """Stop trusting a key; the change is recorded in the audit log."""
    from plugsec_signing import trust_edit  # noqa: PLC0415

    try:
        where = places(home, trust, audit)
        seqs: list[int] = []
        removed = trust_edit.remove_key(
            where.trust,
            key_id,
            announce=lambda key: seqs.append(record(where, "trust.changed", "removed", _described(key))),
        )
    except REFUSALS as err:
        refuse(err, as_json=json)
    if json:
        emit_json({"outcome": "ok", "code": 0, "key": _described(removed), "audit": {"seq": seqs[0]}})
        return
    show(f"{key_id} is no longer trusted")


def _line(pubkey: str) -> str:
    """Return the line of a public key file, or the argument itself when it is one."""
    if " " in pubkey and not os.path.lexists(pubkey):
        return pubkey
    data = read_small(pubkey, MAX_PUBLIC_FILE_BYTES)
    if b"PRIVATE KEY-----" in data:
        raise UsageError(f"{pubkey!r} is a private key", f"plugsec trust add {pubkey}.pub …")
    return data.decode("utf-8", "replace")


def _described(key: Any) -> dict[str, Any]:  # noqa: ANN401 - a TrustedKey, imported lazily
    from plugsec_signing.times import format_time  # noqa: PLC0415

    def shown(seconds: int | None) -> str | None:
        return None if seconds is None else format_time(seconds)

    return {
        "id": key.id,
        "publisher": key.publisher,
        "plugins": list(key.plugins),
        "role": key.role,
        "algorithm": key.key.algorithm,
        "fingerprint": key.fingerprint,
        "valid_after": shown(key.valid_after),
        "valid_before": shown(key.valid_before),
    }


def _validity(key: Any) -> str:  # noqa: ANN401 - a TrustedKey, imported lazily
    now = int(time.time())
    described = _described(key)
    if key.valid_before is not None and now >= key.valid_before:
        return f"EXPIRED at {described['valid_before']}"
    if key.valid_after is not None and now < key.valid_after:
        return f"not valid before {described['valid_after']}"
    return "valid" if key.valid_before is None else f"valid until {described['valid_before']}"
