"""trust revoke, publish, revocations: the signed list of what is withdrawn, changed in one step."""

import os
import re
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from plugsec.cli.common import Places, emit_json, places, refuse, say
from plugsec.cli.edge import record, show
from plugsec.cli.options import Audit, Home, Json, PassphraseFd, Trust, examples
from plugsec.cli.signing_key import public_key, signing_key
from plugsec.errors import REFUSALS, UsageError
from plugsec_signing.typed import NamedTuple

if TYPE_CHECKING:
    from plugsec_signing.keys import PrivateKey
    from plugsec_signing.revocation import RevocationList

_REVOKE = examples(
    "plugsec trust revoke acme-release-2026 --compromised --key revocation",
    "plugsec trust revoke acme-release-2026 --compromised --since 2026-11-01 --key revocation",
    "plugsec trust revoke acme-release-2025 --superseded --key revocation",
    "plugsec trust revoke sha256:4b1f… --key revocation      # one bundle",
    "plugsec trust revoke acme/wordfreq --min-release 8 --key revocation",
    "plugsec trust revoke acme-release-2026 --undo --key revocation",
)
_PUBLISH = examples("plugsec trust publish --key revocation", "plugsec trust publish --agent --next-update 7")
_REVOCATIONS = examples("plugsec trust revocations", "plugsec trust revocations --json")

Key = Annotated[
    str | None,
    typer.Option("--key", metavar="FILE", help="Private key that signs; with --agent its .pub file."),
]
Agent = Annotated[bool, typer.Option("--agent", help="Let ssh-agent sign (SSH_AUTH_SOCK).")]
NextUpdate = Annotated[
    int, typer.Option("--next-update", metavar="DAYS", help="When the next list is due, at the latest.")
]
Out = Annotated[
    str | None,
    typer.Option(
        "--out", metavar="FILE", help="Write the list there, for others to sign; change nothing here."
    ),
]


class Signing(NamedTuple):
    """Who signs the next list, until when it is current, and whether it is only written to a file."""

    key: str | None
    agent: bool
    passphrase_fd: int | None
    days: int
    out: str | None


class _Asked(NamedTuple):
    """What is to be revoked, and how."""

    what: str
    kind: str
    since: str | None
    least: int | None


class Done(NamedTuple):
    """The list that was made, and the number of its audit record; None if it was only written to a file."""

    listed: "RevocationList"
    seq: int | None


def extend(group: typer.Typer) -> None:
    """Add the commands to `trust`."""
    group.command("revoke", epilog=_REVOKE)(revoke)
    group.command("publish", epilog=_PUBLISH)(publish)
    group.command("revocations", epilog=_REVOCATIONS)(revocations)


def revoke(
    what: Annotated[
        str,
        typer.Argument(
            metavar="WHAT", help="A key's ID, fingerprint or .pub file; a bundle id; a plugin's name."
        ),
    ],
    *,
    compromised: Annotated[
        bool,
        typer.Option("--compromised", help="Somebody else may have the key: what it signed counts no more."),
    ] = False,
    superseded: Annotated[
        bool,
        typer.Option("--superseded", help="The key was replaced: what was accepted here before stays good."),
    ] = False,
    since: Annotated[
        str | None,
        typer.Option(
            "--since", metavar="DATE", help="UTC. With --compromised: spares what was accepted before."
        ),
    ] = None,
    min_release: Annotated[
        int | None, typer.Option("--min-release", metavar="N", help="Of a plugin: all before N are refused.")
    ] = None,
    undo: Annotated[bool, typer.Option("--undo", help="Take back what is revoked by that name.")] = False,
    key: Key = None,
    agent: Agent = False,
    passphrase_fd: PassphraseFd = None,
    next_update: NextUpdate = 30,
    out: Out = None,
    trust: Trust = None,
    audit: Audit = None,
    home: Home = None,
    json: Json = False,
) -> None:
    """Withdraw a key, a bundle, or a plugin's old releases: the next list is made, signed and put in place.

    The key that signs needs the role `revocation` in the trust store. It takes effect with the next run,
    and is recorded in the audit log before. Exit codes: 0 done, 2 usage, 3 may not sign, 4 malformed, 9.
    """
    signing = Signing(key, agent, passphrase_fd, next_update, out)
    try:
        where = places(home, trust, audit)
        now = int(time.time())
        kind = _kind(what, compromised=compromised, superseded=superseded, least=min_release, undo=undo)
        change, said = _change(where, _Asked(what, kind, since, min_release), now)
        done = issue(where, signing, now, change, {"revoked": what, "how": kind})
    except REFUSALS as err:
        refuse(err, as_json=json)
    tell(done, signing, said, as_json=json)


def publish(
    *,
    key: Key = None,
    agent: Agent = False,
    passphrase_fd: PassphraseFd = None,
    next_update: NextUpdate = 30,
    out: Out = None,
    trust: Trust = None,
    audit: Audit = None,
    home: Home = None,
    json: Json = False,
) -> None:
    """Publish the list again, with the same entries and a new date: it says that nothing else is revoked."""
    signing = Signing(key, agent, passphrase_fd, next_update, out)
    try:
        where = places(home, trust, audit)
        done = issue(where, signing, int(time.time()), lambda listed: listed, {"how": "renewed"})
    except REFUSALS as err:
        refuse(err, as_json=json)
    tell(done, signing, "the same entries, published again", as_json=json)


def revocations(trust: Trust = None, home: Home = None, json: Json = False) -> None:
    """Show what is revoked, and when the next list is due."""
    from plugsec_signing import memory, revocation_edit  # noqa: PLC0415 - each command loads only what it needs
    from plugsec_signing.times import format_time  # noqa: PLC0415
    from plugsec_signing.trust import load_trust  # noqa: PLC0415

    now = int(time.time())
    try:
        where = places(home, trust)
        store = load_trust(where.trust)
        listed = revocation_edit.in_force(where.trust, store, now, memory.path_in(where.state))
    except REFUSALS as err:
        refuse(err, as_json=json)
    names = {entry.fingerprint: entry.id for entry in store.keys}
    stale = bool(listed.sequence) and now >= listed.next_update
    if json:
        there = described(listed, names) if listed.sequence else None
        emit_json({"outcome": "ok", "code": 0, "revocations": there, "stale": stale})
        return
    if not listed.sequence:
        say("there is no revocation list; plugsec trust revoke makes one")
        return
    due = format_time(listed.next_update)
    show(f"revocation list {listed.sequence}, next due {due}{': STALE' if stale else ''}")
    for fingerprint, each in sorted(listed.keys.items()):
        name = names.get(fingerprint, "a key that the trust store does not have")
        when = f"since {format_time(each.since)}" if each.since else "from the start"
        show(f"  {each.kind:<11} {when}  {name}  {fingerprint}")
    for bundle_id in sorted(listed.bundles):
        show(f"  bundle      {bundle_id}")
    for plugin, release in sorted(listed.min_release.items()):
        show(f"  plugin      {plugin}: all before release {release}")


def issue(
    where: Places,
    signing: Signing,
    now: int,
    change: "Callable[[RevocationList], RevocationList]",
    detail: dict[str, Any],
) -> Done:
    """Make the next list, sign it, and put it in place or, with `out`, into a file; raises Refusals."""
    from plugsec_signing import detached, memory, revocation, revocation_edit, sshsig, trust_edit  # noqa: PLC0415
    from plugsec_signing.trust import load_trust  # noqa: PLC0415

    path = memory.path_in(where.state)
    private = _signer(signing)
    listed = revocation_edit.in_force(where.trust, load_trust(where.trust), now, path)
    data = revocation.encode(revocation_edit.following(change(listed), now, signing.days))
    made = revocation.parse(data)
    armour = sshsig.sign(private, data, revocation.NAMESPACE)
    if signing.out is not None:
        try:
            trust_edit.replace_file(signing.out, data)
            trust_edit.replace_file(signing.out + detached.SUFFIX, armour)
        except OSError as err:
            raise UsageError(f"{signing.out!r} cannot be written: {err.strerror}") from err
        return Done(made, None)
    return put(where, data, armour, now, detail)


def put(where: Places, data: bytes, armours: bytes, now: int, detail: dict[str, Any]) -> Done:
    """Put a signed list in place, recorded before it happens; raises Refusals."""
    from plugsec_signing import memory, revocation_edit  # noqa: PLC0415

    seqs: list[int] = []

    def announce(listed: "RevocationList", before: "RevocationList") -> None:
        counts = {
            "sequence": listed.sequence, "previous": before.sequence, "digest": listed.digest,
            "next_update": listed.next_update, "keys": len(listed.keys), "bundles": len(listed.bundles),
            "plugins": len(listed.min_release),
        }  # fmt: skip
        seqs.append(record(where, "revocation.changed", "published", {**detail, **counts}))

    placed = revocation_edit.place(
        where.trust, memory.path_in(where.state), data, armours, now, announce=announce
    )
    return Done(placed.listed, seqs[0])


def tell(done: Done, signing: Signing, said: str, *, as_json: bool) -> None:
    """Say what became of it."""
    from plugsec_signing.times import format_time  # noqa: PLC0415

    listed = done.listed
    if as_json:
        emit_json({
            "outcome": "ok", "code": 0, "revocations": described(listed, {}), "path": signing.out,
            "audit": {"seq": done.seq} if done.seq is not None else None,
        })  # fmt: skip
        return
    show(said)
    show(f"  revocation list {listed.sequence}, next due {format_time(listed.next_update)}")
    if signing.out is not None:
        say(f"written to {signing.out} and {signing.out}.sshsig; nothing is changed here yet")
        say(f"  next: plugsec trust sign {signing.out} --key FILE, by each who must")
        say(f"  then: plugsec trust import {signing.out}, here and everywhere")


def described(listed: "RevocationList", names: dict[str, str]) -> dict[str, Any]:
    """Return a list as plain data, times in words."""
    from plugsec_signing.times import format_time  # noqa: PLC0415

    return {
        "sequence": listed.sequence,
        "next_update": format_time(listed.next_update),
        "digest": listed.digest,
        "keys": [
            {
                "fingerprint": name,
                "key_id": names.get(name),
                "kind": each.kind,
                "since": format_time(each.since),
            }
            for name, each in sorted(listed.keys.items())
        ],
        "bundles": sorted(listed.bundles),
        "min_release": dict(sorted(listed.min_release.items())),
    }


def _signer(signing: Signing) -> "PrivateKey":
    return signing_key(signing.key, agent=signing.agent, passphrase_fd=signing.passphrase_fd)


def _kind(what: str, *, compromised: bool, superseded: bool, least: int | None, undo: bool) -> str:
    """Return the one way in which something is revoked; raises UsageError (exit 2)."""
    options = {
        "compromised": compromised, "superseded": superseded, "min-release": least is not None, "undo": undo,
    }  # fmt: skip
    given = [name for name, there in options.items() if there]
    if what.startswith("sha256:"):
        noun, ways = "bundle", [""]
    elif what.startswith("SHA256:") or what.endswith(".pub") or "/" not in what:
        noun, ways = "key", ["compromised", "superseded"]
    else:
        noun, ways = "plugin", ["min-release"]
    way = given[0] if given else ""
    if len(given) > 1 or way not in (*ways, "undo"):
        wanted = " or ".join(f"--{name}" for name in ways) if ways != [""] else "nothing but --key"
        raise UsageError(
            f"{what!r} is taken for a {noun}, which is revoked with {wanted}",
            "plugsec trust revoke --help shows an example of each",
        )
    return way or noun


def _change(
    where: Places, asked: _Asked, now: int
) -> "tuple[Callable[[RevocationList], RevocationList], str]":
    """Return what makes the next list of one, and a sentence about it; raises Refusals."""
    from plugsec_signing import revocation_edit as edit  # noqa: PLC0415
    from plugsec_signing.times import format_time  # noqa: PLC0415

    what, kind, since, least = asked
    name = _target(where, what)
    if since is not None and kind not in ("compromised", "superseded"):
        raise UsageError("--since goes with --compromised or --superseded")
    if kind == "undo":
        return lambda listed: edit.without(listed, name), f"{what} is not revoked any more"
    if kind == "bundle":
        return lambda listed: edit.with_bundle(listed, name), f"the bundle {what} is revoked"
    if kind == "min-release":
        release = _release(least)
        said = f"all releases of {what} before {release} are revoked"
        return lambda listed: edit.with_min_release(listed, name, release), said
    if kind == "superseded":
        moment = _since(since, now)
        said = f"{what} is superseded since {format_time(moment)}: what was accepted here before stays good"
    else:
        moment = _since(since, 0)
        spared = (
            f"but where a bundle was accepted before {format_time(moment)}"
            if moment
            else "not even of old bundles"
        )
        said = f"{what} is compromised: no signature of it counts, {spared}"
    return lambda listed: edit.with_key(listed, name, kind, moment), said


def _target(where: Places, what: str) -> str:
    """Return the name in the list: a key's fingerprint, a bundle id, a plugin; raises Refusals."""
    from plugsec_signing import keys  # noqa: PLC0415
    from plugsec_signing.errors import RevocationUsage  # noqa: PLC0415
    from plugsec_signing.trust import load_trust  # noqa: PLC0415

    if what.endswith(".pub") and os.path.lexists(what):
        return keys.fingerprint(public_key(what))
    if re.fullmatch(r"(sha256:)?[0-9a-f]{64}|[a-z0-9][a-z0-9._-]{0,63}/[a-z0-9][a-z0-9._-]{0,63}", what):
        return what
    if re.fullmatch(r"SHA256:[A-Za-z0-9+/]{43}", what):
        from base64 import b64decode  # noqa: PLC0415

        return b64decode(what[len("SHA256:") :] + "=").hex()
    store = load_trust(where.trust)
    found = next((entry for entry in store.keys if entry.id == what), None)
    if found is None:
        known = ", ".join(entry.id for entry in store.keys) or "none"
        raise RevocationUsage(
            f"{what!r} is no key of the trust store, no fingerprint, no bundle id and no plugin's name",
            f"the trust store has: {known}",
        )
    return found.fingerprint


def _since(since: str | None, otherwise: int) -> int:
    from plugsec_signing.times import parse_time  # noqa: PLC0415

    moment = otherwise if since is None else parse_time(since)
    if moment is None or moment < 0:
        raise UsageError(
            f"--since {since!r} is no time", "write a date such as 2026-11-01, or 2026-11-01T00:00:00Z (UTC)"
        )
    return moment


def _release(least: int | None) -> int:
    from plugsec_signing.canonical import MAX_CANONICAL_INTEGER  # noqa: PLC0415

    if least is None or not 1 <= least <= MAX_CANONICAL_INTEGER:
        raise UsageError(f"--min-release {least} is not a release number from 1")
    return least
