"""audit show, verify, checkpoint: reading the log, judging it, and taking a point of it elsewhere."""

from typing import Annotated, Any

import typer

from plugsec.cli import receipt
from plugsec.cli.common import emit_json, places, refuse, say
from plugsec.cli.edge import show
from plugsec.cli.options import Audit, Home, Json, examples
from plugsec.errors import REFUSALS, UsageError

MAX_SHOWN = 100_000  # records held in memory to be shown; a person reads a hundred
_DETAIL_CHARS = 160

_SHOW = examples(
    "plugsec audit show",
    "plugsec audit show --event run.end --last 5",
    "plugsec audit show --run 3f2a… --json",
)
_VERIFY = examples(
    "plugsec audit verify",
    "plugsec audit verify --anchor checkpoint-2026-11.note",
    "plugsec audit verify --json",
)
_CHECKPOINT = examples(
    "plugsec audit checkpoint > checkpoint.note     (kept elsewhere, it is an anchor)",
    "plugsec audit checkpoint --json",
)


def register(app: typer.Typer) -> None:
    """Add the groups `audit` and `receipt`."""
    group = typer.Typer(help="The tamper-evident log of what ran and what was decided.", no_args_is_help=True)
    group.command("show", epilog=_SHOW)(show_records)
    group.command("verify", epilog=_VERIFY)(verify)
    group.command("checkpoint", epilog=_CHECKPOINT)(checkpoint)
    app.add_typer(group, name="audit")
    receipt.register(app)


def show_records(
    *,
    last: Annotated[int, typer.Option("--last", metavar="N", help="How many of the newest.")] = 50,
    run: Annotated[
        str | None, typer.Option("--run", metavar="ID", help="Only this run (or a prefix).")
    ] = None,
    event: Annotated[
        str | None, typer.Option("--event", metavar="E", help="Only this event, or a group such as `run`.")
    ] = None,
    bundle: Annotated[
        str | None, typer.Option("--bundle", metavar="ID", help="Only this bundle id (or a prefix).")
    ] = None,
    audit: Audit = None,
    home: Home = None,
    json: Json = False,
) -> None:
    """Show the newest records, oldest first. Nothing is verified here: see `audit verify`."""
    from plugsec.audit.read import Reader, newest  # noqa: PLC0415 - each command loads only what it needs

    def wanted(record: dict[str, Any]) -> bool:
        named = str(record.get("event"))
        return (
            (event is None or named == event or named.startswith(event + "."))
            and (run is None or str(record.get("run")).startswith(run))
            and (bundle is None or str(record.get("bundle_id")).startswith(bundle))
        )

    try:
        if not 1 <= last <= MAX_SHOWN:
            raise UsageError(f"--last takes a number from 1 to {MAX_SHOWN}, not {last}", "--last 50")
        with Reader(places(home, None, audit).audit) as reader:
            records, unreadable = newest(reader, last, wanted)
    except REFUSALS as err:
        refuse(err, as_json=json)
    if json:
        emit_json(
            {
                "outcome": "ok",
                "code": 0,
                "records": records,
                "unreadable_lines": unreadable,
                "verified": False,
            }
        )
        return
    _table(records)
    if unreadable:
        say(f"{unreadable} lines are not records: plugsec audit verify")


def verify(
    anchor: Annotated[
        list[str] | None,
        typer.Option("--anchor", metavar="FILE", help="A checkpoint kept elsewhere; repeatable."),
    ] = None,
    audit: Audit = None,
    home: Home = None,
    json: Json = False,
) -> None:
    """Verify the whole log: every record, the chain, the tree, the head, the signed checkpoints.

    Exit 0: it verifies. Exit 9: it does not; the first bad record is named.
    """
    from plugsec.audit import note  # noqa: PLC0415
    from plugsec.audit.errors import LogTampered, NeedsRecovery  # noqa: PLC0415
    from plugsec.audit.verify import CURRENT_EPOCH  # noqa: PLC0415
    from plugsec.audit.verify import verify as verify_log  # noqa: PLC0415

    try:
        anchors = [receipt.read_small(path, note.MAX_NOTE, "anchor") for path in anchor or ()]
        found = verify_log(places(home, None, audit).audit, anchors=anchors)
    except (LogTampered, NeedsRecovery) as err:
        if not json:
            refuse(err)
        emit_json(
            {
                "outcome": "refused",
                "code": err.code,
                "fault": err.fault._asdict(),
                "error": {"id": err.id, "message": err.message, "hint": err.hint},
            }
        )
        raise SystemExit(err.code) from err
    except REFUSALS as err:
        refuse(err, as_json=json)
    if json:
        emit_json({"outcome": "ok", "code": 0, **found._asdict(), "note": CURRENT_EPOCH})
        return
    show(f"the audit log {found.directory} verifies")
    show(f"  records        {found.size}, in {found.segments} segments, {found.first_ts} to {found.last_ts}")
    show(f"  origin         {found.origin}")
    show(f"  root           {found.root}")
    show(f"  checkpoints    {found.checkpoints}, the newest covers {found.checkpointed} records")
    show(f"  anchored       {found.anchored} records")
    show(f"  sealed         {found.sealed} records, by keys since erased")
    show(f"  current epoch  {found.current_epoch} records under key {found.epoch}")
    show("  beyond head    nothing")
    if found.clock_steps_back:
        show(f"  clock          {found.clock_steps_back} records are older than the one before them")
    if found.current_epoch:
        say(f"note: {CURRENT_EPOCH}")


def checkpoint(audit: Audit = None, home: Home = None, json: Json = False) -> None:
    """Sign the log's present state and print the note (C2SP tlog-checkpoint)."""
    from plugsec.audit import keys, note  # noqa: PLC0415
    from plugsec.audit.log import AuditLog  # noqa: PLC0415
    from plugsec.audit.read import Reader  # noqa: PLC0415

    directory = places(home, None, audit).audit
    try:
        with Reader(directory) as reader:
            if not reader.segments():  # opening for append would begin a log
                reader.snapshot()
        with AuditLog.open(directory) as log:
            signed = log.checkpoint()
            head = log.head
        with Reader(directory) as reader:
            secret = keys.load_secret(reader.dirfd, reader.directory, head.epoch)
    except REFUSALS as err:
        refuse(err, as_json=json)
    public = keys.public_raw(keys.signing_key(secret))
    taken = note.open_checkpoint(signed, public)
    if json:
        emit_json(
            {
                "outcome": "ok",
                "code": 0,
                "checkpoint": signed.decode(),
                "origin": taken.origin,
                "size": taken.size,
                "root": taken.root.hex(),
                "verifier_key": note.verifier_key(taken.origin, public),
            }
        )
        return
    typer.echo(signed.decode(), nl=False)


def _table(records: list[dict[str, Any]]) -> None:
    """Rich for people at a terminal; plain lines, never folded, for pipes."""
    import json as json_text  # noqa: PLC0415 - `json` is the option's name in this module
    import sys  # noqa: PLC0415

    from plugsec.exchange.display import escape  # noqa: PLC0415

    rows = []
    for record in records:
        detail = json_text.dumps(record.get("detail"), ensure_ascii=False, separators=(",", ":"))
        cells = (
            record["seq"],
            record.get("ts"),
            record.get("event"),
            record.get("run") or "-",
            record.get("decision") or "-",
        )
        rows.append((*(escape(str(cell), limit=64) for cell in cells), escape(detail, limit=_DETAIL_CHARS)))
    if not sys.stdout.isatty():
        for row in rows:
            sys.stdout.write("  ".join(row) + "\n")
        return
    from rich.console import Console  # noqa: PLC0415 - for people only
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    table = Table(box=None, pad_edge=False)
    for name, wide in (
        ("seq", True),
        ("time", True),
        ("event", True),
        ("run", False),
        ("decision", False),
        ("detail", False),
    ):
        table.add_column(name, no_wrap=wide, justify="right" if name == "seq" else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    Console(file=sys.stdout).print(table)
