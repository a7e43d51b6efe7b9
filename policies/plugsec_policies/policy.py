"""A policy as the decision uses it, made from its plain form.

The plain form is what a policy file says once it has been read, checked and merged with what it extends:
JSON-able, so that it can be cached by the digests of its `sources`. Reading TOML is the business of
`policy_file` and costs 20 ms of imports; a run with the built-in or a cached policy never pays them.
"""

import hashlib
import json
from collections.abc import Callable, Mapping

from plugsec_policies.errors import PermissionInvalid, PolicyError, PolicyMalformed, PolicyUnreadable
from plugsec_policies.globs import parse_glob
from plugsec_policies.isolation import FLOOR, LAYERS, Isolation, stricter
from plugsec_policies.limits import Limits, parse_limits
from plugsec_policies.permissions import PermissionSet, parse_value
from plugsec_policies.typed import Any, NamedTuple

POLICY_SCHEMA = "plugsec.policy/1"
BUILTINS: tuple[str, ...] = ("strict", "ci", "service", "dev")
DEFAULT_POLICY = "strict"
BUILTIN_PREFIX = "builtin:"


class Rule(NamedTuple):
    """One `[[grant]]` or `[[deny]]`: what it says of which plugins, and where it stands."""

    id: str
    where: str  # file:line
    plugins: tuple[str, ...]  # globs; any may match
    signed_by: tuple[str, ...]  # key ids, one of which must have signed; empty: does not matter
    expires: int | None  # Unix seconds from which the rule no longer counts
    permissions: Mapping[str, PermissionSet]


class CheckRule(NamedTuple):
    """One `[[check]]`: how severe the gate takes a finding."""

    id: str
    severity: str
    parameters: Mapping[str, Any]
    where: str


class Waiver(NamedTuple):
    """One `[[waiver]]`: silences a check for a plugin until it expires; it never grants."""

    check: str
    plugin: str
    versions: str
    approved_by: str
    reason: str
    expires: int  # Unix seconds from which it no longer counts
    where: str


class Policy(NamedTuple):
    """One operator's policy, complete: whatever its file left out has been filled in from strict."""

    where: str
    grants: tuple[Rule, ...]
    denies: tuple[Rule, ...]
    isolation: Isolation
    limits: Limits
    limits_where: Mapping[str, str]  # member of Limits -> file:line of the ceiling
    checks: tuple[CheckRule, ...]
    waivers: tuple[Waiver, ...]
    digest: str  # hex SHA-256 of what the policy means: file names and line numbers do not count

    require_attestations: tuple[str, ...] = ()  # predicate types that a trusted key must have attested
    require_current_revocations: bool = False  # a revocation list that is there, and not stale

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> "Policy":
        """Make a policy from its plain form. Raises PolicyMalformed when that is damaged."""
        try:
            return cls(
                where=str(plain["where"]),
                grants=tuple(_rule(rule, deny=False) for rule in plain["grants"]),
                denies=tuple(_rule(rule, deny=True) for rule in plain["denies"]),
                isolation=_isolation(plain["isolation"]),
                limits=Limits(**parse_limits(plain["limits"], partial=False)),
                limits_where={field: str(plain["limits_where"][field]) for field in Limits._fields},
                checks=tuple(CheckRule(**check) for check in plain["checks"]),
                waivers=tuple(Waiver(**{k: w[k] for k in Waiver._fields}) for w in plain["waivers"]),
                digest=digest_of(plain),
                require_attestations=tuple(map(str, plain.get("require_attestations", ()))),
                # Whatever a damaged form holds there is a demand: only its absence is none.
                require_current_revocations="require_current_revocations" in plain,
            )
        except PolicyError as err:
            raise PolicyMalformed(
                f"the stored form of a policy is damaged: {err.message}", _CACHE_HINT
            ) from err
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as err:
            raise PolicyMalformed("the stored form of a policy is damaged", _CACHE_HINT) from err


_CACHE_HINT = "remove plugsec's cache directory and run again"


def _rule(plain: Mapping[str, Any], *, deny: bool) -> Rule:
    expires = plain["expires"]
    if expires is not None and not isinstance(expires, int):
        raise PermissionInvalid("a rule's expiry is not a number of seconds", _CACHE_HINT)
    return Rule(
        id=str(plain["id"]),
        where=str(plain["where"]),
        plugins=tuple(parse_glob(glob) for glob in plain["plugins"]),
        signed_by=tuple(str(key) for key in plain["signed_by"]),
        expires=expires,
        permissions={name: parse_value(name, raw, deny=deny) for name, raw in plain["permissions"].items()},
    )


def _isolation(plain: Mapping[str, Any]) -> Isolation:
    required, allowed = frozenset(plain["required"]), frozenset(plain["allow_degraded"])
    if not (required | allowed) <= frozenset(LAYERS):
        raise PermissionInvalid("a layer is unknown", _CACHE_HINT)
    # The floor is put back here too: a cache is never authority.
    return stricter(Isolation(required, allowed), Isolation(FLOOR, frozenset()))


def digest_of(plain: Mapping[str, Any]) -> str:
    """Return the hex SHA-256 of what a plain form means, whatever its files are called."""
    meaning = {
        key: _without_where(value)
        for key, value in plain.items()
        if key not in ("where", "limits_where", "sources", "warnings")
    }
    return hashlib.sha256(json.dumps(meaning, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _without_where(value: Any) -> Any:  # noqa: ANN401
    if isinstance(value, list):
        return [_without_where(item) for item in value]
    if isinstance(value, dict):
        return {key: item for key, item in value.items() if key != "where"}
    return value


def builtin(name: str) -> Policy:
    """Return a built-in policy (`strict`, `ci`, `service`, `dev`) without reading TOML.

    Raises PolicyUnreadable for another name.
    """
    return Policy.from_plain(builtin_plain(name))


def builtin_plain(name: str) -> dict[str, Any]:
    """Return the plain form of a built-in policy, generated from `builtin/NAME.toml`."""
    from plugsec_policies.builtin_plain import PLAIN  # noqa: PLC0415

    if name not in PLAIN:
        raise PolicyUnreadable(
            f"there is no built-in policy called {name}",
            "the built-in policies are " + ", ".join(BUILTIN_PREFIX + each for each in BUILTINS),
        )
    return PLAIN[name]


# Reads a file that another names under `extends`: (as written) -> (how messages name it, its text).
Reader = Callable[[str], tuple[str, str]]


def parse_policy_toml(text: str, *, where: str, read: Reader | None = None) -> dict[str, Any]:
    """Parse, check and merge a policy file's text into its plain form.

    `read` fetches the files it extends; without it only `builtin:…` can be extended. Raises PolicyMalformed
    (with every fault found, `file:line`), PolicyNewer and PolicyUnreadable.
    """
    from plugsec_policies.policy_file import parse  # noqa: PLC0415

    return parse(text, where, read)


def load_policy(reference: str) -> dict[str, Any]:
    """Read `builtin:NAME` or a file with all that it extends into the plain form.

    The plain form's `sources` lists path and SHA-256 of each file that was read, so that a cache can tell
    whether it still holds. Raises as `parse_policy_toml`.
    """
    if reference.startswith(BUILTIN_PREFIX):
        return builtin_plain(reference[len(BUILTIN_PREFIX) :])
    from plugsec_policies.policy_file import load  # noqa: PLC0415

    return load(reference)
