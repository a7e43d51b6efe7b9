"""new, pack: from an idea to a bundle that can be signed."""

import os
import shlex
from typing import Annotated

import typer

from plugsec.cli.common import emit_json, refuse, say
from plugsec.cli.options import examples
from plugsec.errors import REFUSALS

Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this group."""
    app.command("new", epilog=_EXAMPLES["new"])(new)
    app.command("pack", epilog=_EXAMPLES["pack"])(pack)


_EXAMPLES = {
    "new": examples(
        "plugsec new acme/wordfreq",
        "plugsec new acme/measure --runtime exec",
        "plugsec new acme/wordfreq --directory plugins/wordfreq",
    ),
    "pack": examples(
        "plugsec pack wordfreq",
        "plugsec pack wordfreq -o dist/wordfreq.plug",
        "plugsec pack wordfreq -o dist/wordfreq.plug.zst",
        "plugsec pack wordfreq --json",
    ),
}


def new(
    name: Annotated[str, typer.Argument(metavar="NAME", help="publisher/plugin, in lower case.")],
    runtime: Annotated[str, typer.Option("--runtime", metavar="KIND", help="python or exec.")] = "python",
    directory: Annotated[
        str | None, typer.Option("--directory", metavar="DIR", help="Where; by default named as the plugin.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Make a plugin that works at once: plugin.toml, code, an example input, a test."""
    from plugsec_plugins.scaffold import scaffold  # noqa: PLC0415

    try:
        made = scaffold(name, runtime, directory)
    except REFUSALS as error:
        refuse(error, as_json=as_json)
    if as_json:
        emit_json({"directory": made.directory, "files": list(made.files), "next": list(made.next_steps)})
        return
    say(f"made {made.directory}")
    for path in made.files:
        say(f"  {os.path.join(made.directory, path)}")
    say("next:")
    for step in made.next_steps:
        say(f"  {step}")


def pack(
    directory: Annotated[str, typer.Argument(metavar="DIR", help="The directory with plugin.toml.")],
    output: Annotated[
        str | None,
        typer.Option(
            "-o", "--output", metavar="FILE", help="The bundle; by default PLUGIN-VERSION.plug here."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Write the plugin in DIR as a bundle: the same sources always give the same bytes.

    Refused, with what to do: links, sockets and other special files, what looks like a secret, signatures
    that contradict their schemas; `exclude` in plugin.toml leaves files out. A FILE that ends in .zst is
    compressed (plugsec[zstd]); the bundle inside, and its id, are the same.
    """
    from plugsec.exchange.display import escape  # noqa: PLC0415
    from plugsec_plugins.pack import pack as write  # noqa: PLC0415

    try:
        packed = write(directory, output)
    except REFUSALS as error:
        refuse(error, as_json=as_json)
    if as_json:
        emit_json({"path": packed.path, "bundle_id": packed.bundle_id, "warnings": list(packed.warnings)})
        return
    for warning in packed.warnings:
        say(f"warning: {escape(warning)}")
    typer.echo(f"{packed.path} {packed.bundle_id}")
    say(f"  next: plugsec sign {shlex.quote(packed.path)} --key FILE")
