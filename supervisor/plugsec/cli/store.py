"""install, list, remove, rollback, gc: bundles that are kept and run by name."""

import os
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, Any

import typer

from plugsec import private
from plugsec.cli.common import Places, emit_json, places, refuse, say
from plugsec.cli.edge import circumstances, record, show
from plugsec.cli.options import Audit, Bundle, Home, Json, Trust, examples
from plugsec.errors import REFUSALS, UsageError
from plugsec.places import STORE

if TYPE_CHECKING:
    from plugsec_signing.store.changes import Changed, Installed
    from plugsec_signing.store.index import Index, Version
    from plugsec_signing.verify import VerifiedBundle

_INSTALL = examples("plugsec install wordfreq-1.2.3.plug", "plugsec install wordfreq-1.2.3.plug --json")
_LIST = examples("plugsec list", "plugsec list --check", "plugsec list --json")
_REMOVE = examples(
    "plugsec remove acme/wordfreq",
    "plugsec remove acme/wordfreq@1.2.2",
    "plugsec remove acme/wordfreq --all-versions",
)
_ROLLBACK = examples("plugsec rollback acme/wordfreq")
_GC = examples("plugsec gc")

_Name = Annotated[str, typer.Argument(metavar="NAME", help="publisher/name, as `plugsec list` shows it.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("install", epilog=_INSTALL)(install)
    app.command("list", epilog=_LIST)(list_installed)
    app.command("remove", epilog=_REMOVE)(remove)
    app.command("rollback", epilog=_ROLLBACK)(rollback)
    app.command("gc", epilog=_GC)(gc)


def install(
    bundle: Bundle,
    *,
    allow_downgrade: Annotated[
        bool, typer.Option("--allow-downgrade", help="Accept an older release than one accepted here.")
    ] = False,
    trust: Trust = None,
    audit: Audit = None,
    home: Home = None,
    json: Json = False,
) -> None:
    """Verify a bundle and keep it: `plugsec run publisher/name` then runs it, verified anew each time.

    The version becomes the current one; others stay installed beside it. Installing it again repairs it
    and adds signatures. Exit codes: 0 done, 2 store, 3 trust, 4 malformed, 9 audit.
    """
    from plugsec.sandbox.linux import syncfs  # noqa: PLC0415 - each command loads only what it needs
    from plugsec_signing import memory  # noqa: PLC0415
    from plugsec_signing.store import changes  # noqa: PLC0415
    from plugsec_signing.trust import load_trust  # noqa: PLC0415
    from plugsec_signing.verify import verify_bundle  # noqa: PLC0415

    seqs: list[int] = []
    now = int(time.time())
    try:
        where = places(home, trust, audit)
        store = load_trust(where.trust)
        under = circumstances(where, store, now, allow_downgrade=allow_downgrade)
        with suppress(OSError):  # what cannot be made is reported by the store in its own words
            private.make_directories(where.data)

        def announce(evidence: "VerifiedBundle", done: "Installed") -> None:
            if evidence.verdict is not None and evidence.verdict.downgrade:
                override = {"override": "allow-downgrade", "path": os.path.abspath(bundle)}
                record(where, "override.used", "used", override, bundle_id=evidence.bundle_id)
            detail = {
                "path": os.path.abspath(bundle),
                "plugin": evidence.envelope.name,
                "version": done.version.version,
                "release": done.version.release,
                "signers": [signer.key_id for signer in evidence.signers],
                "trust_digest": evidence.trust_digest,
                "before": done.before,
                "new": done.new,
            }
            seqs.append(record(where, "bundle.installed", "installed", detail, bundle_id=evidence.bundle_id))
            if evidence.verdict is not None:  # last: what is not in the log was not accepted
                memory.remember(memory.path_in(where.state), evidence.verdict)

        try:
            evidence, done = changes.install(
                _store(where),
                lambda sink: verify_bundle(bundle, store, now, also=sink, under=under),
                now,
                sync=syncfs,
                announce=announce,
                known={entry.fingerprint for entry in store.keys},
            )
        except REFUSALS as err:
            if err.code in {3, 4} or seqs:  # what was recorded as installed and is not, is refused after all
                detail = {"path": os.path.abspath(bundle), "error": err.id, "message": err.message}
                record(where, "bundle.refused", "refused", detail)
            raise
    except REFUSALS as err:
        refuse(err, as_json=json)
    _tell_installed(evidence, done, seqs[0], as_json=json)


def _tell_installed(evidence: "VerifiedBundle", done: "Installed", seq: int, *, as_json: bool) -> None:
    name, version = evidence.envelope.name, done.version
    if as_json:
        emit_json({
            "outcome": "ok", "code": 0, "plugin": name, **_described(version), "new": done.new,
            "before": done.before, "warnings": list(evidence.warnings), "audit": {"seq": seq},
        })  # fmt: skip
        return
    state = "installed" if done.new else "was installed already"
    show(f"{name} {version.version} (release {version.release}): {state}, and is the current version")
    show(f"  bundle id   {version.bundle_id}")
    if done.before not in {None, version.version}:
        show(f"  before      {done.before}; back to it: plugsec rollback {name}")
    show(f"  run it      plugsec run {name}")
    for warning in evidence.warnings:
        say(f"warning: {warning}")


def list_installed(
    check: Annotated[
        bool, typer.Option("--check", help="Hash every payload byte too; otherwise only what was signed.")
    ] = False,
    trust: Trust = None,
    home: Home = None,
    json: Json = False,
) -> None:
    """List what is installed, and what of it verifies no longer: a key that expired, a file that changed.

    The current version of a plugin is marked with *. Exit 0 also when something does not verify.
    """
    from plugsec_signing.store.changes import installed  # noqa: PLC0415
    from plugsec_signing.trust import load_trust  # noqa: PLC0415

    rows: list[dict[str, Any]] = []
    try:
        where = places(home, trust)
        store = load_trust(where.trust)
        for index in installed(_store(where)):
            for version in index.versions:
                state = _state(where, index, version, store, payload=check)
                current = version.version == index.current
                rows.append({"plugin": index.name, **_described(version), "current": current, **state})
    except REFUSALS as err:
        refuse(err, as_json=json)
    if json:
        emit_json({"outcome": "ok", "code": 0, "installed": rows})
        return
    for row in rows:
        verdict = (
            "verifies" if row["verifies"] else f"REFUSED {row['error']['id']}: {row['error']['message']}"
        )
        mark = "*" if row["current"] else " "
        show(f"{mark} {row['plugin']} {row['version']} (release {row['release']})  {verdict}")
    if not rows:
        say("nothing is installed; next: plugsec install BUNDLE")


def remove(
    name: Annotated[str, typer.Argument(metavar="NAME[@VERSION]", help="As `plugsec list` shows it.")],
    all_versions: Annotated[bool, typer.Option("--all-versions", help="Every version of it.")] = False,
    audit: Audit = None,
    home: Home = None,
    json: Json = False,
) -> None:
    """Remove an installed version; a run that is using it goes on undisturbed.

    When the current version goes, the one that was current before takes its place.
    """
    from plugsec_signing.store import changes  # noqa: PLC0415
    from plugsec_signing.store.names import parse_name  # noqa: PLC0415

    seqs: list[int] = []
    try:
        where = places(home, None, audit)
        wanted = parse_name(name)
        changed = changes.remove(
            _store(where),
            wanted.name,
            lambda index: _versions_to_remove(index, wanted.version, all_versions=all_versions),
            announce=lambda changed: seqs.extend(_record_removal(where, changed)),
        )
    except REFUSALS as err:
        refuse(err, as_json=json)
    _report(changed, seqs, as_json=json)


def rollback(name: _Name, audit: Audit = None, home: Home = None, json: Json = False) -> None:
    """Make the version current that was current before; nothing is removed, and the step is recorded."""
    from plugsec_signing.store import changes  # noqa: PLC0415
    from plugsec_signing.store.names import parse_name  # noqa: PLC0415

    seqs: list[int] = []
    try:
        where = places(home, None, audit)
        wanted = parse_name(name)
        if wanted.version is not None:
            raise UsageError(
                "rollback goes one step back, to no version of your choice",
                f"plugsec run {name} runs that version; plugsec rollback {wanted.name}",
            )

        def announce(changed: "changes.Changed") -> None:
            current = changed.current
            detail = {"plugin": changed.name, "before": changed.before, "version": changed.version}
            bundle_id = current.bundle_id if current is not None else None
            seqs.append(record(where, "bundle.reverted", "reverted", detail, bundle_id=bundle_id))

        changed = changes.roll_back(_store(where), wanted.name, announce=announce)
    except REFUSALS as err:
        refuse(err, as_json=json)
    _report(changed, seqs, as_json=json)


def gc(audit: Audit = None, home: Home = None, json: Json = False) -> None:
    """Remove what nothing names any more: leftovers of interrupted installs and removals.

    Installs and removals do so in passing; this is for a store that nobody has changed since.
    """
    from plugsec_signing.store.changes import collect  # noqa: PLC0415

    seqs: list[int] = []
    try:
        where = places(home, None, audit)

        def announce(bundles: tuple[str, ...]) -> None:
            seqs.append(record(where, "store.collected", "removed", {"bundles": list(bundles)}))

        bundles, leftovers = collect(_store(where), announce=announce)
    except REFUSALS as err:
        refuse(err, as_json=json)
    if json:
        emit_json({
            "outcome": "ok", "code": 0, "bundles": list(bundles), "leftovers": leftovers,
            "audit": {"seq": seqs[0]} if seqs else None,
        })  # fmt: skip
        return
    for bundle_id in bundles:
        show(f"removed {bundle_id}, which no index names")
    show(f"{leftovers} leftover{'s'[: leftovers != 1]} of interrupted changes removed")


def _store(where: Places) -> str:
    return os.path.join(where.data, STORE)


def _described(version: "Version") -> dict[str, Any]:
    from plugsec_signing.times import format_time  # noqa: PLC0415

    return {
        "version": version.version,
        "release": version.release,
        "bundle_id": version.bundle_id,
        "installed": format_time(version.installed),
    }


def _state(where: Places, index: "Index", version: "Version", trust: Any, *, payload: bool) -> dict[str, Any]:  # noqa: ANN401
    """Whether an installed version would be accepted now, or why not."""
    from plugsec_signing.errors import SigningError  # noqa: PLC0415
    from plugsec_signing.store.names import StoredName  # noqa: PLC0415
    from plugsec_signing.store.stored import opened_bundle, reading  # noqa: PLC0415
    from plugsec_signing.verify import verify_reading  # noqa: PLC0415

    now = int(time.time())
    try:
        with opened_bundle(_store(where), StoredName(index.name, version.version)) as stored:
            # As a run of it does: an older version is there on purpose.
            under = circumstances(where, trust, now, allow_downgrade=True)
            verify_reading(reading(stored, payload=payload), stored.path, trust, now, under=under)
    except SigningError as err:
        return {"verifies": False, "error": {"id": err.id, "message": err.message, "hint": err.hint}}
    return {"verifies": True}


def _versions_to_remove(index: "Index", version: str | None, *, all_versions: bool) -> tuple[str, ...]:
    known = tuple(each.version for each in index.versions)
    if all_versions and version is not None:
        raise UsageError("give either a version or --all-versions", f"plugsec remove {index.name}@{version}")
    if version is not None:
        return (version,)
    if len(known) > 1 and not all_versions:
        raise UsageError(
            f"{index.name} has {len(known)} versions installed: {', '.join(known)}",
            f"plugsec remove {index.name}@{known[0]}, or --all-versions",
        )
    return known


def _record_removal(where: Places, changed: "Changed") -> list[int]:
    current = changed.current.version if changed.current is not None else None
    seqs = []
    for gone in changed.gone:
        detail = {
            "plugin": changed.name,
            "version": gone.version,
            "release": gone.release,
            "current": current,
        }
        seqs.append(record(where, "bundle.removed", "removed", detail, bundle_id=gone.bundle_id))
    return seqs


def _report(changed: "Changed", seqs: list[int], *, as_json: bool) -> None:
    if as_json:
        emit_json({
            "outcome": "ok", "code": 0, "plugin": changed.name,
            "removed": [_described(each) for each in changed.gone],
            "before": changed.before, "current": changed.version, "audit": {"seq": seqs[-1]},
        })  # fmt: skip
        return
    for gone in changed.gone:
        show(f"{changed.name} {gone.version} is removed")
    if changed.version is None:
        show(f"nothing of {changed.name} is installed any more")
    elif changed.version != changed.before:
        show(f"{changed.name} {changed.version} is the current version now")
