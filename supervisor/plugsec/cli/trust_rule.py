"""trust rule add, list, remove: how many distinct keys must sign, for which plugins."""

from contextlib import suppress
from typing import Annotated, Any

import typer

from plugsec import private
from plugsec.cli.common import emit_json, places, refuse, say
from plugsec.cli.edge import record, show
from plugsec.cli.options import Audit, Home, Json, Trust, examples
from plugsec.errors import REFUSALS

_ADD = examples(
    "plugsec trust rule add --plugins 'acme/payments-*' --threshold 2 --role release --role security",
    "plugsec trust rule add --plugins 'acme/*' --threshold 1 --role review --id acme-reviewed",
)
_LIST = examples("plugsec trust rule list", "plugsec trust rule list --json")
_REMOVE = examples("plugsec trust rule remove acme-reviewed")


def extend(group: typer.Typer) -> None:
    """Add the `rule` group to `trust`."""
    rules = typer.Typer(help="How many distinct keys must sign which plugins.", no_args_is_help=True)
    rules.command("add", epilog=_ADD)(add)
    rules.command("list", epilog=_LIST)(list_rules)
    rules.command("remove", epilog=_REMOVE)(remove)
    group.add_typer(rules, name="rule")


def add(
    *,
    plugins: Annotated[
        list[str], typer.Option("--plugins", metavar="GLOB", help="For which plugins; repeatable.")
    ],
    threshold: Annotated[int, typer.Option("--threshold", metavar="N", help="How many distinct keys.")],
    role: Annotated[
        list[str] | None, typer.Option("--role", metavar="R", help="Which keys; repeatable. Default: release")
    ] = None,
    rule_id: Annotated[str | None, typer.Option("--id", metavar="ID", help="A name for people.")] = None,
    trust: Trust = None,
    audit: Audit = None,
    home: Home = None,
    json: Json = False,
) -> None:
    """Demand more than one release key's signature; every rule that matches a plugin must hold.

    Distinct means by the bytes of the key: one key under two ids counts once.
    """
    from plugsec_signing import trust_edit  # noqa: PLC0415 - each command loads only what it needs
    from plugsec_signing.trust import load_trust  # noqa: PLC0415

    roles = role or ["release"]
    rule: dict[str, Any] = {
        "id": rule_id
        or f"rule-{plugins[0].replace('*', 'any').replace('/', '.').strip('.-_')}-{threshold}"[:64],
        "plugins": plugins,
        "threshold": threshold,
        "roles": roles,
    }
    try:
        where = places(home, trust, audit)
        seqs: list[int] = []
        with suppress(OSError):  # what cannot be made is reported by add_rule in its own words
            private.make_directories(where.trust)
        added = trust_edit.add_rule(
            where.trust,
            rule,
            announce=lambda rule: seqs.append(record(where, "trust.changed", "added", described(rule))),
        )
        there = {key.key.raw for key in load_trust(where.trust).keys if key.role in added.roles}
    except REFUSALS as err:
        refuse(err, as_json=json)
    if json:
        emit_json({
            "outcome": "ok", "code": 0, "rule": described(added), "keys_there": len(there),
            "audit": {"seq": seqs[0]},
        })  # fmt: skip
        return
    show(f"{added.id}: {_sentence(added)}")
    if len(there) < added.threshold:
        say(f"warning: the trust store has {len(there)} such keys, so nothing can satisfy this rule yet")


def list_rules(trust: Trust = None, home: Home = None, json: Json = False) -> None:
    """List the rules of the trust store."""
    from plugsec_signing.trust import load_trust  # noqa: PLC0415

    try:
        where = places(home, trust)
        store = load_trust(where.trust)
    except REFUSALS as err:
        refuse(err, as_json=json)
    if json:
        emit_json({
            "outcome": "ok", "code": 0, "trust_digest": store.digest,
            "rules": [described(rule) for rule in store.rules],
        })  # fmt: skip
        return
    for rule in store.rules:
        show(f"{rule.id or '(without an id)'}: {_sentence(rule)}")
    if not store.rules:
        say(f"no rules in {where.trust}: one release key is enough for the plugins it is trusted for")


def remove(
    rule_id: Annotated[str, typer.Argument(metavar="ID", help="As `plugsec trust rule list` shows it.")],
    trust: Trust = None,
    audit: Audit = None,
    home: Home = None,
    json: Json = False,
) -> None:
    """Remove a rule, which widens what is accepted; recorded in the audit log."""
    from plugsec_signing import trust_edit  # noqa: PLC0415

    try:
        where = places(home, trust, audit)
        seqs: list[int] = []
        removed = trust_edit.remove_rule(
            where.trust,
            rule_id,
            announce=lambda rule: seqs.append(record(where, "trust.changed", "removed", described(rule))),
        )
    except REFUSALS as err:
        refuse(err, as_json=json)
    if json:
        emit_json({"outcome": "ok", "code": 0, "rule": described(removed), "audit": {"seq": seqs[0]}})
        return
    show(f"{rule_id} is no longer demanded")


def described(rule: Any) -> dict[str, Any]:  # noqa: ANN401 - a Rule, imported lazily
    """Return a rule as plain data."""
    return {
        "rule": rule.id or None,
        "plugins": list(rule.plugins),
        "threshold": rule.threshold,
        "roles": list(rule.roles),
    }


def _sentence(rule: Any) -> str:  # noqa: ANN401 - as above
    keys = "key" if rule.threshold == 1 else "keys"
    return f"{', '.join(rule.plugins)}  {rule.threshold} distinct {keys} of {' or '.join(rule.roles)}"
