"""trust memory, trust forget: what was accepted here before, and how it is forgotten."""

from typing import Annotated, Any

import typer

from plugsec.cli.common import Places, emit_json, places, refuse, say
from plugsec.cli.edge import record, show
from plugsec.cli.options import Audit, Home, Json, examples
from plugsec.errors import REFUSALS, UsageError

_MEMORY = examples("plugsec trust memory", "plugsec trust memory acme/wordfreq --json")
_FORGET = examples("plugsec trust forget acme/wordfreq", "plugsec trust forget --all")


def extend(group: typer.Typer) -> None:
    """Add `memory` and `forget` to `trust`."""
    group.command("memory", epilog=_MEMORY)(remembered)
    group.command("forget", epilog=_FORGET)(forget)


def remembered(
    name: Annotated[
        str | None, typer.Argument(metavar="PLUGIN", help="publisher/name; all otherwise.")
    ] = None,
    home: Home = None,
    json: Json = False,
) -> None:
    """Show which bundles were accepted here, since when, and each plugin's highest release.

    It is why a bundle of an expired key still runs, and why an older release does not.
    """
    from plugsec_signing import memory, memory_edit  # noqa: PLC0415 - each command loads only what it needs
    from plugsec_signing.times import format_time  # noqa: PLC0415

    try:
        where = places(home)
        found = memory_edit.load(memory.path_in(where.state))
    except REFUSALS as err:
        refuse(err, as_json=json)
    plugins = [
        _described(plugin, bundles)
        for plugin, bundles in sorted(found.plugins.items())
        if name in (None, plugin)
    ]
    if json:
        emit_json({
            "outcome": "ok", "code": 0, "newest": format_time(found.newest) if found.newest else None,
            "revocation_sequence": found.revocations.get(memory.origin(where.trust), (0, ""))[0],
            "plugins": plugins,
        })  # fmt: skip
        return
    for plugin in plugins:
        show(f"{plugin['plugin']}  highest release {plugin['highest_release']}")
        for bundle in plugin["bundles"]:
            show(f"  release {bundle['release']}  since {bundle['first_accepted']}  {bundle['bundle_id']}")
    if not plugins:
        say(f"nothing {f'of {name} ' if name else ''}was accepted here")


def forget(
    name: Annotated[str | None, typer.Argument(metavar="PLUGIN", help="publisher/name.")] = None,
    *,
    everything: Annotated[
        bool, typer.Option("--all", help="Set the whole memory aside, also a damaged one.")
    ] = False,
    audit: Audit = None,
    home: Home = None,
    json: Json = False,
) -> None:
    """Forget what was accepted of a plugin: an older release, or another of the same, is then as new.

    Recorded in the audit log before it happens. Bundles whose keys have expired are refused afterwards.
    """
    from plugsec_signing import memory, memory_edit  # noqa: PLC0415

    try:
        if (name is None) != everything:
            raise UsageError("give one of PLUGIN and --all", "plugsec trust memory shows what there is")
        where = places(home, None, audit)
        path = memory.path_in(where.state)
        seqs: list[int] = []
        if name is None:
            aside = memory_edit.set_aside(
                path,
                announce=lambda to: seqs.append(_record(where, {"forgotten": "everything", "set_aside": to})),
            )
            told = {"set_aside": aside}
            line = f"the memory begins anew; the old one is {aside}"
        else:
            bundles = memory_edit.forget(
                path,
                name,
                announce=lambda known: seqs.append(
                    _record(where, {"forgotten": name, "bundles": len(known)})
                ),
            )
            told = {"forgotten": name}
            line = f"{name} is forgotten: {len(bundles)} bundle{'s'[: len(bundles) != 1]}"
    except REFUSALS as err:
        refuse(err, as_json=json)
    if json:
        emit_json({"outcome": "ok", "code": 0, **told, "audit": {"seq": seqs[0]}})
        return
    show(line)


def _record(where: Places, detail: dict[str, Any]) -> int:
    return record(where, "trust.changed", "forgotten", detail)


def _described(plugin: str, bundles: Any) -> dict[str, Any]:  # noqa: ANN401 - a mapping of Seen
    from plugsec_signing.times import format_time  # noqa: PLC0415

    ordered = sorted(bundles.items(), key=lambda item: (item[1].release, item[1].first))
    return {
        "plugin": plugin,
        "highest_release": max(seen.release for seen in bundles.values()),
        "bundles": [
            {
                "bundle_id": bundle_id,
                "release": seen.release,
                "first_accepted": format_time(seen.first),
                "signers": {fingerprint: format_time(when) for fingerprint, when in seen.signers.items()},
            }
            for bundle_id, seen in ordered
        ],
    }
