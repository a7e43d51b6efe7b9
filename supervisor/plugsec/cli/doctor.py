"""`plugsec doctor`: which layers this host can enforce, tried by doing, and what to do about the rest."""

import os
import platform
import sys
from typing import Annotated, Any

import typer

from plugsec.cli.common import emit_json, say


def register(app: typer.Typer) -> None:
    """Add `doctor`."""
    app.command("doctor", epilog="Examples:\n\nplugsec doctor\n\nplugsec doctor --json")(doctor)


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Try every layer on this host and say what is missing and how to get it.

    Exit 0: builtin:strict can run here. 8: a layer that it requires is missing.
    """
    from plugsec.sandbox import layers  # noqa: PLC0415 - only where there is a Linux kernel
    from plugsec_policies.policy import builtin  # noqa: PLC0415

    required = builtin("strict").isolation.required
    rows: list[dict[str, Any]] = []
    for info in layers.LAYERS:
        probe = layers.probe(info.name)
        rows.append({
            "layer": info.name, "active": probe.active, "detail": probe.detail, "stops": info.stops,
            "required_by_strict": info.name in required, "advice": "" if probe.active else info.advice,
        })  # fmt: skip
    library = _libseccomp()
    missing = [row["layer"] for row in rows if not row["active"] and row["required_by_strict"]]
    if library["advice"]:
        missing.append("libseccomp")
    facts = {"kernel": platform.release(), "machine": platform.machine(), "python": platform.python_version(),
             "user": "root" if os.geteuid() == 0 else "ordinary user"}  # fmt: skip
    code = 8 if missing else 0
    if as_json:
        emit_json({"outcome": "refused" if missing else "ok", "code": code, "host": facts, "layers": rows,
                   "libseccomp": library, "missing": missing})  # fmt: skip
    else:
        _show(facts, rows, library, missing)
    raise SystemExit(code)


def _libseccomp() -> dict[str, str]:
    from plugsec.sandbox import seccomp  # noqa: PLC0415
    from plugsec.sandbox.seccomp import compile as compiling  # noqa: PLC0415

    try:
        version = compiling.library_version()
    except seccomp.LibseccompMissing as error:
        return {"version": "", "detail": str(error), "advice": seccomp.LIBSECCOMP_ADVICE}
    return {"version": version, "detail": "", "advice": ""}


def _show(
    facts: dict[str, str], rows: list[dict[str, Any]], library: dict[str, str], missing: list[str]
) -> None:
    from rich.console import Console  # noqa: PLC0415 - for people only
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    table = Table(
        title=f"Linux {facts['kernel']} {facts['machine']}, Python {facts['python']}, {facts['user']}"
    )
    table.add_column("layer", no_wrap=True)
    table.add_column("here", no_wrap=True)
    table.add_column("stops")
    table.add_column("detail")
    for row in rows:
        mark = Text("yes", "green") if row["active"] else Text("no", "bold red")
        table.add_row(row["layer"], mark, row["stops"], Text(row["detail"]))
    mark = Text("yes", "green") if library["version"] else Text("no", "bold red")
    table.add_row("(libseccomp)", mark, "compiles the filters", Text(library["version"] or library["detail"]))
    Console(file=sys.stdout).print(table)
    for row in rows:
        if not row["active"]:
            kind = "required by builtin:strict" if row["required_by_strict"] else "may be missing"
            say(f"{row['layer']} ({kind}): {row['advice']}")
    if library["advice"]:
        say(f"libseccomp (required): {library['advice']}")
    if missing:
        say(
            f"plugsec: this host cannot run plugins under builtin:strict: {', '.join(missing)} [PLG-HOST-001]"
        )
