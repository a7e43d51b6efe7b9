"""receipt verify: a run's signed summary, checked offline."""

import os
from typing import Annotated

import typer

from plugsec.cli.common import emit_json, places, refuse
from plugsec.cli.edge import show
from plugsec.cli.options import Audit, Home, Json, examples
from plugsec.errors import REFUSALS, UsageError

_MAX_KEY_FILE = 16 * 1024  # a public key's line is 100 bytes

_VERIFY = examples(
    "plugsec receipt verify run.receipt",
    "plugsec receipt verify run.receipt --key epoch-000001.pub     (on a machine without the log)",
    "plugsec receipt verify run.receipt --json",
)


def register(app: typer.Typer) -> None:
    """Add the `receipt` group."""
    group = typer.Typer(help="Signed summaries of runs.", no_args_is_help=True)
    group.callback()(_group)
    group.command("verify", epilog=_VERIFY)(verify)
    app.add_typer(group, name="receipt")


def _group() -> None:
    """Signed summaries of runs."""


def verify(
    file: Annotated[str, typer.Argument(metavar="FILE", help="What `plugsec run --receipt` wrote.")],
    key: Annotated[
        str | None,
        typer.Option("--key", metavar="PUB", help="The log's public key. Default: this user's log."),
    ] = None,
    audit: Audit = None,
    home: Home = None,
    json: Json = False,
) -> None:
    """Verify a receipt: its signature, and the proof that its record is in the log's tree.

    Exit 3: the signature does not verify, or is another key's. Exit 9: record and proof disagree.
    """
    from plugsec.audit.receipt import MAX_RECEIPT, claimed_epoch, verify_receipt  # noqa: PLC0415
    from plugsec_signing.keys import parse_public_key  # noqa: PLC0415

    try:
        data = read_small(file, MAX_RECEIPT, "receipt")
        if key is not None:
            source, line = key, read_small(key, _MAX_KEY_FILE, "public key")
        else:
            source, line = _key_of_log(places(home, None, audit).audit, claimed_epoch(data))
        found = verify_receipt(data, parse_public_key(line.decode("utf-8", "replace")))
    except REFUSALS as err:
        refuse(err, as_json=json)
    if json:
        emit_json({"outcome": "ok", "code": 0, "key": source, **found._asdict()})
        return
    show(f"the receipt {file} verifies")
    show(
        f"  run            {found.record.get('run')}, ended as {found.record.get('decision')}"
        f" at {found.record.get('ts')}"
    )
    show(f"  bundle         {found.record.get('bundle_id')}")
    show(f"  record         {found.seq} of the log {found.origin}")
    show(f"  tree           {found.tree_size} records, root {found.tree_root}")
    show(f"  key            {source}")


def _key_of_log(directory: str, epoch: int) -> tuple[str, bytes]:
    from plugsec.audit import files, keys  # noqa: PLC0415
    from plugsec.audit.read import Reader  # noqa: PLC0415

    name = keys.public_name(epoch)
    with Reader(directory) as reader:
        try:
            return f"{reader.directory}/{name}", files.read_all(reader.open(name), _MAX_KEY_FILE)
        except FileNotFoundError as err:
            raise UsageError(
                f"this user's log has no key for epoch {epoch}",
                "give the public key of the log that wrote the receipt: --key PUB",
            ) from err


def read_small(path: str, limit: int, what: str) -> bytes:
    """Read a file named on the command line; raises UsageError (2) when it cannot be, or is too long."""
    try:
        with open(path, "rb", opener=_opener) as file:
            data = file.read(limit + 1)
    except OSError as err:
        raise UsageError(f"cannot read the {what} {path}: {err.strerror}", "check the path") from err
    if len(data) > limit:
        raise UsageError(f"the {what} {path} is longer than {limit} bytes", "is it the right file?")
    return data


def _opener(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC)
