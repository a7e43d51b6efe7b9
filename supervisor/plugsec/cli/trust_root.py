"""trust root make, init, show; trust rotate: the part of the trust store that its signers change."""

from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, Any

import typer

from plugsec import private
from plugsec.cli.common import Places, emit_json, places, refuse, say
from plugsec.cli.edge import read_small, record, show
from plugsec.cli.options import Audit, Home, Json, Trust, examples
from plugsec.errors import REFUSALS, UsageError

if TYPE_CHECKING:
    from plugsec_signing.root import Root

_MAKE = examples("plugsec trust root make ROOT.toml --out root.json")
_INIT = examples("plugsec trust root init root.json --digest 3f5a…")
_SHOW = examples("plugsec trust root show", "plugsec trust root show --json")
_ROTATE = examples("plugsec trust rotate root.2.json", "plugsec trust rotate root.2.json root.3.json")


def extend(group: typer.Typer) -> None:
    """Add `rotate` and the `root` group to `trust`."""
    roots = typer.Typer(help="The trust root: keys that come signed, by a threshold.", no_args_is_help=True)
    roots.command("make", epilog=_MAKE)(make)
    roots.command("init", epilog=_INIT)(init)
    roots.command("show", epilog=_SHOW)(show_root)
    group.add_typer(roots, name="root")
    group.command("rotate", epilog=_ROTATE)(rotate)


def make(
    draft: Annotated[
        str, typer.Argument(metavar="TOML", help="version, [thresholds], [[key]] and [[rule]].")
    ],
    *,
    out: Annotated[str, typer.Option("--out", metavar="FILE", help="Where to write it, to be signed.")],
    json: Json = False,
) -> None:
    """Make a version of a trust root from a draft, in the one form that is signed. Nothing is trusted yet."""
    from plugsec_signing import root, trust_edit  # noqa: PLC0415 - each command loads only what it needs
    from plugsec_signing.trust import MAX_FILE_BYTES  # noqa: PLC0415

    try:
        data = root.from_toml(read_small(draft, MAX_FILE_BYTES).decode("utf-8", "replace"))
        made = root.parse(data)
        try:
            trust_edit.replace_file(out, data)
        except OSError as err:
            raise UsageError(f"{out!r} cannot be written: {err.strerror}") from err
    except REFUSALS as err:
        refuse(err, as_json=json)
    if json:
        emit_json({"outcome": "ok", "code": 0, "path": out, "root": _described(made)})
        return
    _show(made)
    say(f"  next: plugsec trust sign {out} --key FILE, by each who must")


def init(
    file: Annotated[str, typer.Argument(metavar="FILE", help="The first root, with FILE.sshsig beside it.")],
    *,
    digest: Annotated[
        str,
        typer.Option(
            "--digest", metavar="HEX", help="Its SHA-256, as its publisher told you by other means."
        ),
    ],
    trust: Trust = None,
    audit: Audit = None,
    home: Home = None,
    json: Json = False,
) -> None:
    """Trust a first root. Every later one must then be signed by it and by itself.

    Nothing vouches for a first root but what you know: compare its digest, and say it.
    """
    from plugsec_signing.errors import RootRefused  # noqa: PLC0415

    try:
        data, armours = _read(file)
        from plugsec_signing import root  # noqa: PLC0415

        found = root.parse(data)
        if digest.lower() != found.digest:
            raise RootRefused(
                f"the digest of {file!r} is {found.digest}, not {digest!r}",
                "ask its publisher, by other means than those by which the file came",
                id="PLG-ROT-004",
            )
        installed, seq = _install(places(home, trust, audit), data, armours, first=True)
    except REFUSALS as err:
        refuse(err, as_json=json)
    _tell(installed, [seq], as_json=json)


def rotate(
    files: Annotated[list[str], typer.Argument(metavar="FILE…", help="The next versions, in order.")],
    *,
    trust: Trust = None,
    audit: Audit = None,
    home: Home = None,
    json: Json = False,
) -> None:
    """Replace the trust root by the next version, which the thresholds of both must have signed.

    Several files are taken one after another; each that is refused ends it there.
    """
    try:
        where = places(home, trust, audit)
        done = [_install(where, *_read(file), first=False) for file in files]
    except REFUSALS as err:
        refuse(err, as_json=json)
    _tell(done[-1][0], [seq for _, seq in done], as_json=json)


def show_root(trust: Trust = None, home: Home = None, json: Json = False) -> None:
    """Show the trust root in force: its version, who may replace it, and the keys that it hands out."""
    from plugsec_signing import root  # noqa: PLC0415
    from plugsec_signing.errors import RootUsage  # noqa: PLC0415

    try:
        where = places(home, trust)
        found = root.read(where.trust)
        if found is None:
            raise RootUsage(
                f"there is no trust root in {where.trust}", "plugsec trust root init FILE", id="PLG-ROT-006"
            )
    except REFUSALS as err:
        refuse(err, as_json=json)
    if json:
        emit_json({"outcome": "ok", "code": 0, "root": _described(found)})
        return
    _show(found)


def _read(file: str) -> tuple[bytes, bytes]:
    from plugsec_signing import detached  # noqa: PLC0415
    from plugsec_signing.trust import MAX_FILE_BYTES  # noqa: PLC0415

    return (
        read_small(file, MAX_FILE_BYTES),
        read_small(file + detached.SUFFIX, detached.MAX_SIGNATURES_BYTES),
    )


def _install(where: Places, data: bytes, armours: bytes, *, first: bool) -> tuple["Root", int]:
    from plugsec_signing import root  # noqa: PLC0415

    seqs: list[int] = []

    def announce(new: "Root", before: "Root | None") -> None:
        detail = {
            "root": new.version, "digest": new.digest, "previous": before.version if before else None,
            "keys": [entry["id"] for entry in new.plain["key"]],
        }  # fmt: skip
        seqs.append(record(where, "trust.changed", "root", detail))

    with suppress(OSError):  # what cannot be made is reported by install in its own words
        private.make_directories(where.trust)
    return root.install(where.trust, data, armours, first=first, announce=announce), seqs[0]


def _tell(installed: "Root", seqs: list[int], *, as_json: bool) -> None:
    if as_json:
        emit_json({"outcome": "ok", "code": 0, "root": _described(installed), "audit": {"seq": seqs[-1]}})
        return
    _show(installed)


def _show(found: "Root") -> None:
    show(f"trust root version {found.version}  sha256 {found.digest}")
    for role, wanted in sorted(found.thresholds.items()):
        what = "the next version" if role == "root" else "a revocation list"
        show(f"  {wanted} of the keys with the role {role} must sign {what}")
    for entry in found.plain["key"]:
        show(f"  {entry['id']}  {entry['publisher']} ({entry['role']})  {', '.join(entry['plugins'])}")
    for rule in found.plain["rule"]:
        show(f"  rule {rule['id'] or '(without an id)'}: {rule['threshold']} of {', '.join(rule['roles'])}")


def _described(found: "Root") -> dict[str, Any]:
    return {
        "version": found.version,
        "digest": found.digest,
        "thresholds": dict(found.thresholds),
        "keys": [
            {field: entry[field] for field in ("id", "publisher", "role", "plugins")}
            for entry in found.plain["key"]
        ],
        "rules": [rule["id"] or None for rule in found.plain["rule"]],
    }
