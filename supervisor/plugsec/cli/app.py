"""The Typer application: every command group registers here, and errors become exit codes here."""

import importlib

import typer

app = typer.Typer(
    name="plugsec",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Verify signed plugins, run them jailed, keep evidence that nobody can quietly rewrite.",
)

# Each module has `register(app: typer.Typer) -> None`.
_GROUPS = ("run", "project", "bundles", "trust", "policy", "audit", "doctor")


def build() -> typer.Typer:
    """Return the application with every command registered."""
    for group in _GROUPS:
        importlib.import_module(f"plugsec.cli.{group}").register(app)
    return app
