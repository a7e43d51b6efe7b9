"""policy show, policy lint: what a policy means, and what is wrong with it."""

import sys
from typing import Annotated, Any

import typer

from plugsec.cli.common import emit_json, refuse, say
from plugsec.cli.options import examples
from plugsec.errors import REFUSALS
from plugsec_policies.errors import PolicyMalformed

Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]

# Linting stops being read long before.
FILES_MAX = 1000


def register(app: typer.Typer) -> None:
    """Add the commands of this group."""
    group = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Show and check policies.")
    group.command("show", epilog=_EXAMPLES["show"])(show)
    group.command("lint", epilog=_EXAMPLES["lint"])(lint)
    app.add_typer(group, name="policy")


_EXAMPLES = {
    "show": examples(
        "plugsec policy show",
        "plugsec policy show builtin:ci",
        "plugsec policy show company.toml --json",
    ),
    "lint": examples(
        "plugsec policy lint company.toml",
        "plugsec policy lint policies/*.toml --json",
    ),
}


def show(
    policy: Annotated[
        str, typer.Argument(metavar="[POLICY]", help="A file, or builtin:strict, ci, service, dev.")
    ] = "builtin:strict",
    as_json: Json = False,
) -> None:
    """Show what a policy means once all that it extends is merged, each line with where it comes from."""
    from plugsec_policies.policy import Policy, load_policy  # noqa: PLC0415

    try:
        plain = load_policy(policy)
        digest = Policy.from_plain(plain).digest
    except REFUSALS as error:
        refuse(error, as_json=as_json)
    if as_json:
        emit_json({**plain, "digest": digest})
        return
    for line in _lines(plain, digest):
        sys.stdout.write(line + "\n")


def _lines(plain: dict[str, Any], digest: str) -> list[str]:
    """Write a plain form as TOML with comments, so that what is shown could be pasted into a file."""
    from plugsec.exchange.display import escape  # noqa: PLC0415
    from plugsec_policies.limits import Limits, format_limit  # noqa: PLC0415

    lines = [
        f"# {escape(plain['where'])}, digest sha256:{digest}",
        f'schema = "{plain["schema"]}"',
        *(
            [f"require_attestations = {_toml(plain['require_attestations'])}"]
            if plain.get("require_attestations")
            else ()
        ),
        *(["require_current_revocations = true"] if plain.get("require_current_revocations") else ()),
        "",
        "[isolation]",
    ]
    lines += [f"{key} = {_toml(plain['isolation'][key])}" for key in ("required", "allow_degraded")]
    lines += ["", "[limits]"]
    for field in Limits._fields:
        written = format_limit(field, plain["limits"][field])
        lines.append(f"{written:<28}# {escape(plain['limits_where'][field])}")
    for kind, key in (("grants", "grant"), ("denies", "deny")):
        for rule in plain[kind]:
            lines += ["", f"[[{key}]]{'':<20}# {escape(rule['where'])}", f"id = {_toml(rule['id'])}"]
            lines.append(f"plugins = {_toml(rule['plugins'])}")
            if rule["signed_by"]:
                lines.append(f"signed_by = {_toml(rule['signed_by'])}")
            if rule["expires"] is not None:
                lines.append(f"expires = {_day(rule['expires'])}")
            lines += [f"{_key(name)} = {_toml(value)}" for name, value in rule["permissions"].items()]
    for check in plain["checks"]:
        lines += ["", "[[check]]", f"id = {_toml(check['id'])}", f"severity = {_toml(check['severity'])}"]
        if check["parameters"]:
            lines.append(f"parameters = {_toml(check['parameters'])}")
    for waiver in plain["waivers"]:
        lines += [
            "",
            "[[waiver]]",
            *(
                f"{key} = {_toml(waiver[key])}"
                for key in ("check", "plugin", "versions", "approved_by", "reason")
                if waiver[key]
            ),
            f"expires = {_day(waiver['expires'])}",
        ]
    return lines


def _key(name: str) -> str:
    return f'"{name}"' if "." in name else name


def _toml(value: Any) -> str:  # noqa: ANN401
    from plugsec_policies.decision import to_toml  # noqa: PLC0415

    return to_toml(value)


def _day(seconds: int) -> str:
    """Return the last day on which something counts that ends at this moment."""
    from datetime import UTC, datetime  # noqa: PLC0415

    return datetime.fromtimestamp(seconds - 1, UTC).strftime("%Y-%m-%d")


def lint(
    files: Annotated[list[str], typer.Argument(metavar="FILE…", help="Policy files.")],
    as_json: Json = False,
) -> None:
    """Report every mistake as file:line, and lines that have no effect."""
    from plugsec.exchange.display import escape  # noqa: PLC0415

    errors: list[dict[str, str]] = []
    warnings: list[str] = []
    code = 0
    for name in files[:FILES_MAX]:
        try:
            warnings += _load_warnings(name)
        except PolicyMalformed as error:
            code = code or error.code
            errors += [{"id": error.id, **problem._asdict()} for problem in error.problems]
        except REFUSALS as error:
            code = code or error.code
            errors.append({"id": error.id, "where": name, "message": error.message, "hint": error.hint})
    if as_json:
        emit_json({"files": len(files), "errors": errors, "warnings": warnings})
        raise SystemExit(code)
    for problem in errors:
        hint = f" ({escape(problem['hint'])})" if problem["hint"] else ""
        say(f"{escape(problem['where'])}: error: {escape(problem['message'])}{hint}")
    for warning in warnings:
        say(f"{escape(warning)}")
    say(f"{len(files)} file{'s' if len(files) != 1 else ''}, {len(errors)} errors, {len(warnings)} warnings")
    raise SystemExit(code)


def _load_warnings(name: str) -> list[str]:
    from plugsec_policies.policy import load_policy  # noqa: PLC0415

    warnings: list[str] = load_policy(name)["warnings"]
    return [f"{where}: warning: {text}" for where, _, text in (each.partition(": ") for each in warnings)]
