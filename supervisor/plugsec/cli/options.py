"""The options that several commands have, each declared once, and how examples are set below a help."""

from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]
Home = Annotated[str | None, typer.Option("--home", metavar="DIR", help="Where plugsec keeps everything.")]
Trust = Annotated[str | None, typer.Option("--trust", metavar="DIR", help="The trust store.")]
Audit = Annotated[str | None, typer.Option("--audit", metavar="DIR", help="The audit log.")]
Bundle = Annotated[str, typer.Argument(metavar="BUNDLE", help="A .plug file.")]
BundleOrName = Annotated[
    str, typer.Argument(metavar="BUNDLE|NAME", help="A .plug file, or publisher/name[@version] as installed.")
]
PassphraseFd = Annotated[
    int | None,
    typer.Option("--passphrase-fd", metavar="N", help="Read the passphrase from descriptor N, first line."),
]


def examples(*lines: str) -> str:
    """Return the examples below a command's help; paragraphs, so that each keeps its own line."""
    return "\n\n".join(("Examples:", *lines))
