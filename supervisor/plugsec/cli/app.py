"""The Typer application: every command group registers here."""

import importlib
import os
import sys

import typer

from plugsec.cli.common import say

# Each module has `register(app: typer.Typer) -> None`.
GROUPS = (
    "run", "project", "keygen", "sign", "attest", "verify", "inspect", "explain", "store", "unpack", "oci",
    "trust", "policy", "audit", "doctor", "demo",
)  # fmt: skip
# What works without a Linux kernel: reading, signing and judging bundles.
_PORTABLE = ("verify", "inspect", "sign", "explain", "check", "diff", "version")


def build() -> typer.Typer:
    """The application with every command registered."""
    app = typer.Typer(
        name="plugsec",
        no_args_is_help=True,
        add_completion=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
        help="Verify signed plugins, run them jailed, keep evidence that nobody can quietly rewrite.",
    )
    for group in GROUPS:
        importlib.import_module(f"plugsec.cli.{group}").register(app)
    app.command("version")(version)
    return app


def version() -> None:
    """Print plugsec's version."""
    import plugsec  # noqa: PLC0415

    sys.stdout.write(f"plugsec {plugsec.__version__}\n")


def main() -> None:
    """Run the command line; leaves with an exit code."""
    arguments = [argument for argument in sys.argv[1:] if argument != "--no-color"]
    if len(arguments) != len(sys.argv) - 1:
        os.environ["NO_COLOR"] = "1"
    command = next((argument for argument in arguments if not argument.startswith("-")), None)
    if sys.platform != "linux" and command is not None and command not in _PORTABLE:
        say(f"plugsec: `{command}` needs Linux 5.13 or later: the jail is made of its kernel's layers"
            " [PLG-HOST-003]")  # fmt: skip
        say(f"  next: here you can use {', '.join(_PORTABLE)}")
        raise SystemExit(8)
    build()(args=arguments, prog_name="plugsec")
