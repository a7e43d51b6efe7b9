"""What a policy file means together with the files that it extends: the rules of merging, without I/O.

Grants, denials and demanded attestations add up, a limit is the minimum, isolation the stricter. What
neither the file nor a base says is strict's, so an empty file is never an open door.
"""

from typing import Any

from plugsec_policies.errors import PolicyMalformed
from plugsec_policies.isolation import Isolation, stricter
from plugsec_policies.limits import LIMIT_WORDS, format_limit
from plugsec_policies.policy import DEFAULT_POLICY, POLICY_SCHEMA, builtin_plain

# Rules of one policy with all that it extends; the decision looks at each of them.
RULES_MAX = 4096
# All that these rules grant and deny together: ten times the largest policy that was thought of.
ATOMS_MAX = 8192


def merge(where: str, bases: list[dict[str, Any]], own: dict[str, Any]) -> dict[str, Any]:
    """Merge a file with its bases; what none of them says is taken from strict."""
    limits, limits_where, warnings = dict(own["limits"]), dict(own["limits_where"]), list(own["warnings"])
    isolation = own["isolation"]
    for base in bases:
        for field, number in base["limits"].items():
            if field in own["limits"] and number < own["limits"][field]:
                warnings.append(
                    f"{own['limits_where'][field]}: {format_limit(field, own['limits'][field])} has no "
                    f"effect, {base['limits_where'][field]} says {format_limit(field, number)}"
                )
            if field not in limits or number < limits[field]:
                limits[field], limits_where[field] = number, base["limits_where"][field]
        theirs = Isolation(
            frozenset(base["isolation"]["required"]), frozenset(base["isolation"]["allow_degraded"])
        )
        isolation = theirs if isolation is None else stricter(isolation, theirs)
    if isolation is None or len(limits) < len(LIMIT_WORDS):
        strict = builtin_plain(DEFAULT_POLICY)
        limits, limits_where = strict["limits"] | limits, strict["limits_where"] | limits_where
        isolation = isolation or Isolation(
            frozenset(strict["isolation"]["required"]), frozenset(strict["isolation"]["allow_degraded"])
        )
    plain: dict[str, Any] = {
        "schema": POLICY_SCHEMA,
        "where": where,
        "isolation": {
            "required": sorted(isolation.required),
            "allow_degraded": sorted(isolation.allow_degraded),
        },
        "limits": {field: limits[field] for field in sorted(limits)},
        "limits_where": {field: limits_where[field] for field in sorted(limits_where)},
        "warnings": [w for base in bases for w in base["warnings"]] + warnings,
        "sources": [],
    }
    for key, plural in (("grant", "grants"), ("deny", "denies"), ("check", "checks"), ("waiver", "waivers")):
        merged: list[dict[str, Any]] = []
        for rule in [rule for base in bases for rule in base[plural]] + own[key]:
            # Two bases may extend the same file: the same rule twice says nothing more.
            if rule not in merged:
                merged.append(rule)
        plain[plural] = merged
    # Left out where nobody demands any, so that the digest of such a policy is what it always was.
    if demanded := {kind for each in (*bases, own) for kind in each.get("require_attestations", ())}:
        plain["require_attestations"] = sorted(demanded)
    if any(each.get("require_current_revocations") for each in (*bases, own)):
        plain["require_current_revocations"] = True
    if len(plain["grants"]) + len(plain["denies"]) > RULES_MAX:
        raise PolicyMalformed(
            f"{where}: it has more than {RULES_MAX} rules with all that it extends", "split it"
        )
    rules = [*plain["grants"], *plain["denies"]]
    if sum(_size(value) for rule in rules for value in rule["permissions"].values()) > ATOMS_MAX:
        raise PolicyMalformed(
            f"{where}: its rules name more than {ATOMS_MAX} things", "name directories instead"
        )
    return plain


def _size(value: Any) -> int:  # noqa: ANN401
    if isinstance(value, dict):
        return sum(len(each) for each in value.values())
    return len(value) if isinstance(value, list) else 1
