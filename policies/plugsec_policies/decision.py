"""The decision: what a plugin asks, what the operator's policies allow, what this host can enforce.

    grant = permissions ∩ every policy ∩ host support ∩ command line;   limits = the minimum

A required permission that is not wholly granted is a refusal, before anything starts; an optional one is
narrowed to what is granted, and the narrowing reported. The function does no I/O and does not read the clock:
the same arguments always give the same Grant, in whatever order the policies come.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence

from plugsec_policies.errors import (
    AttestationDemanded,
    PermissionRefused,
    PermissionUnsupported,
    RevocationsDemanded,
)
from plugsec_policies.globs import matches
from plugsec_policies.isolation import Isolation, accept_degradation, stricter
from plugsec_policies.limits import Limits, format_limit, format_size, minimum, word_of
from plugsec_policies.permissions import (
    PERMISSION_NAMES,
    Atom,
    Permission,
    PermissionSet,
    format_atom,
    intersect,
    support_needed,
    to_plain,
    uncovered,
    union,
    without_denied,
)
from plugsec_policies.policy import BUILTIN_PREFIX, Policy, Rule
from plugsec_policies.typed import Any, NamedTuple

# Reasons given in one message; the error's `reasons` has all of them.
REASONS_SHOWN = 4


class Request(NamedTuple):
    """What a verified bundle asks for."""

    bundle_id: str
    name: str
    version: str
    signers: tuple[str, ...]  # ids of the trusted keys whose signatures counted
    permissions: tuple[Permission, ...]
    limits: Mapping[str, int]  # members of Limits; those it does not mention are the policy's
    runtime_kind: str
    attestations: tuple[str, ...] = ()  # predicate types that a trusted key has attested
    revocations: str = "none"  # the list that the bundle was judged by: "none", "stale", "current"


class HostSupport(NamedTuple):
    """What this plugsec can enforce on this host."""

    permissions: frozenset[str] = frozenset({"fs.read", "fs.write", "env", "exec", "process", "jit"})
    missing_layers: frozenset[str] = frozenset()  # judged at launch, against the grant's isolation


class Narrowing(NamedTuple):
    """What the command line takes away (`--limit`), and the degradations it accepts (`--allow-degraded`)."""

    limits: Mapping[str, int] = {}
    allow_degraded: frozenset[str] = frozenset()


class Grant(NamedTuple):
    """What is in force for one run: nothing that is not written here is allowed."""

    bundle_id: str
    name: str
    version: str
    fs_read: tuple[str, ...]
    fs_write: tuple[str, ...]
    fs_read_execute: tuple[str, ...]  # of fs_read, what may also be executed or mapped so (`rox`)
    fs_write_execute: tuple[str, ...]  # of fs_write, the same (`rwx`); reading so does not mean writing so
    env: tuple[str, ...]
    exec: tuple[str, ...]
    processes_allowed: int  # how many more processes the plugin may start; 0: it may not fork
    jit: bool
    limits: Limits
    isolation: Isolation
    narrowed: tuple[str, ...]  # sentences: what was left out of what was asked
    policy_digest: str
    trace: tuple[str, ...]  # sentences: which rule decided what


def decide(
    request: Request, policies: Sequence[Policy], host: HostSupport, narrowing: Narrowing, now: int
) -> Grant:
    """Return what is granted; `now` is in Unix seconds and decides which rules have expired.

    Raises PermissionRefused (or its PermissionUnsupported, DegradationRefused) naming every required
    permission that is not granted, the rule or policy that says so, and the line that would allow it.
    """
    if not policies:
        raise RuntimeError("decide() needs at least one policy")
    # Sorted and without repetition: neither order nor a policy named twice can make a difference.
    ordered = [policy for _, policy in sorted({policy.digest: policy for policy in policies}.items())]
    rulings = [_Ruling(request, permission, ordered, host, now) for permission in request.permissions]
    _refuse_if_any(request, rulings)
    _refuse_unattested(request, ordered)
    _refuse_outdated(request, ordered)
    granted = {
        name: union(name, (r.effective for r in rulings if r.permission.name == name))
        for name in PERMISSION_NAMES
    }
    limits, limits_narrowed, limits_trace = _limits(request, ordered, narrowing)
    return Grant(
        bundle_id=request.bundle_id,
        name=request.name,
        version=request.version,
        fs_read=_texts(granted["fs.read"]),
        fs_write=_texts(granted["fs.write"]),
        fs_read_execute=_executable(granted["fs.read"]),
        fs_write_execute=_executable(granted["fs.write"]),
        env=_texts(granted["env"]),
        exec=_texts(granted["exec"]),
        processes_allowed=max((atom.number for atom in granted["process"].atoms), default=0),
        jit=bool(granted["jit"].atoms),
        limits=limits,
        isolation=_isolation(ordered, narrowing),
        narrowed=(*(line for r in rulings for line in r.narrowed), *limits_narrowed),
        policy_digest=combined_digest(ordered),
        trace=(*(line for r in rulings for line in r.trace), *limits_trace),
    )


def combined_digest(policies: Sequence[Policy]) -> str:
    """Return the digest of several policies together, whatever their order; that of one is its own."""
    digests = sorted({policy.digest for policy in policies})
    if len(digests) == 1:
        return digests[0]
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()


def grant_to_plain(grant: Grant) -> dict[str, Any]:
    """Return the grant as JSON-able data, for the audit log and `--json`."""
    plain = grant._asdict()
    plain["limits"] = grant.limits._asdict()
    plain["isolation"] = {
        "required": sorted(grant.isolation.required),
        "allow_degraded": sorted(grant.isolation.allow_degraded),
    }
    return {key: list(value) if isinstance(value, tuple) else value for key, value in plain.items()}


def _texts(granted: PermissionSet) -> tuple[str, ...]:
    return tuple(dict.fromkeys(atom.text for atom in granted.atoms))


def _executable(granted: PermissionSet) -> tuple[str, ...]:
    return tuple(sorted({atom.text for atom in granted.atoms if atom.word.endswith("x")}))


# Permissions -----------------------------------------------------------------------------------------------


class _Ruling:
    """How one asked permission fares, with the sentence for each of its atoms."""

    __slots__ = (
        "_now",
        "_policies",
        "_request",
        "effective",
        "lines",
        "narrowed",
        "permission",
        "reasons",
        "trace",
        "unsupported",
    )

    def __init__(
        self,
        request: Request,
        permission: Permission,
        policies: Sequence[Policy],
        host: HostSupport,
        now: int,
    ) -> None:
        self._request, self._policies, self._now = request, policies, now
        self.permission = permission
        self.reasons: list[str] = []
        self.lines: list[str] = []
        self.trace: list[str] = []
        self.unsupported = True  # no reason but missing support
        asked = permission.value
        left = self._denied(self._supported(asked, host))
        for policy in policies:
            left = self._allowed(left, policy)
        self.effective = left
        self.narrowed = (
            [f"{line}; it is optional, so the plugin runs without" for line in self.reasons]
            if permission.optional
            else []
        )

    @property
    def refused(self) -> bool:
        return bool(self.reasons) and not self.permission.optional

    def _say(self, atom: Atom, why: str) -> None:
        self.reasons.append(f"{format_atom(self.permission.name, atom)}: {why}")
        self.trace.append(f"{format_atom(self.permission.name, atom)}: not granted, {why}")

    def _supported(self, asked: PermissionSet, host: HostSupport) -> PermissionSet:
        kept = []
        for atom in asked.atoms:
            missing = [word for word in support_needed(asked.name, atom) if word not in host.permissions]
            if missing:
                self._say(atom, f"{missing[0]} is not supported yet by this plugsec")
            else:
                kept.append(atom)
        return PermissionSet(asked.name, tuple(kept))

    def _denied(self, asked: PermissionSet) -> PermissionSet:
        for policy in self._policies:
            for rule in policy.denies:
                if not _speaks_of(rule, self._request.name):
                    continue
                left = without_denied(asked, rule.permissions)
                for atom in asked.atoms:
                    if atom not in left.atoms:
                        self.unsupported = False
                        self._say(
                            atom, f"denied by the rule {rule.id} at {rule.where}, which no grant overrides"
                        )
                asked = left
        return asked

    def _allowed(self, asked: PermissionSet, policy: Policy) -> PermissionSet:
        rules = [rule for rule in policy.grants if asked.name in rule.permissions]
        counted = [rule for rule in rules if not self._why_not(rule)]
        met = union(asked.name, (intersect(asked, rule.permissions[asked.name]) for rule in counted))
        missing = uncovered(asked, met)
        for atom in missing:
            self.unsupported = False
            self._say(atom, self._nearest_miss(atom, policy, rules, met))
            self.lines.append(_line_to_write(self._request, self.permission, atom, policy))
        for atom in asked.atoms:
            if atom not in missing:
                rule = next(
                    r
                    for r in counted
                    if not uncovered(PermissionSet(asked.name, (atom,)), r.permissions[asked.name])
                )
                self.trace.append(
                    f"{format_atom(asked.name, atom)}: granted by the rule {rule.id} at {rule.where}"
                )
        return met

    def _why_not(self, rule: Rule) -> str:
        """Say why a rule does not count for this plugin; nothing when it does."""
        if not _speaks_of(rule, self._request.name):
            return f"is for {', '.join(rule.plugins)}"
        if rule.expires is not None and self._now >= rule.expires:
            return "has expired"
        if rule.signed_by and not set(rule.signed_by) & set(self._request.signers):
            return f"wants a signature by {' or '.join(rule.signed_by)}"
        return ""

    def _nearest_miss(self, atom: Atom, policy: Policy, rules: Sequence[Rule], met: PermissionSet) -> str:
        asked = PermissionSet(self.permission.name, (atom,))
        part = intersect(asked, met).atoms
        if part:
            return f"{policy.where} grants only {', '.join(format_atom(asked.name, each) for each in part)}"
        for rule in rules:
            if not uncovered(asked, rule.permissions[asked.name]):
                return f"the rule {rule.id} at {rule.where} would grant it, but {self._why_not(rule)}"
        return f"no rule of {policy.where} grants it"


def _speaks_of(rule: Rule, name: str) -> bool:
    return any(matches(glob, name) for glob in rule.plugins)


def _line_to_write(request: Request, permission: Permission, atom: Atom, policy: Policy) -> str:
    """Say what to write where for an atom to be granted."""
    value = to_toml(to_plain(PermissionSet(permission.name, (atom,))))
    name = f'"{permission.name}"' if "." in permission.name else permission.name
    if policy.where.startswith(BUILTIN_PREFIX):
        place = f'write a policy file with extends = ["{policy.where}"] and'
    else:
        place = f"add to {policy.where}"
    return f'{place} a [[grant]] with plugins = ["{request.name}"] and {name} = {value}'


def to_toml(value: Any) -> str:  # noqa: ANN401
    """Write a text, number, truth value, or lists and tables of them, as TOML on one line."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {to_toml(item)}" for key, item in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(to_toml(item) for item in value) + "]"
    # JSON's strings are TOML's basic strings, but for DEL, which only TOML wants escaped.
    return json.dumps(value).replace("\x7f", "\\u007f")


def _refuse_if_any(request: Request, rulings: Sequence[_Ruling]) -> None:
    refused = [ruling for ruling in rulings if ruling.refused]
    if not refused:
        return
    reasons = tuple(line for ruling in refused for line in ruling.reasons)
    lines = tuple(dict.fromkeys(line for ruling in refused for line in ruling.lines))
    more = f"; and {len(reasons) - REASONS_SHOWN} more" if len(reasons) > REASONS_SHOWN else ""
    message = (
        f"{request.name} {request.version} asks for what is not granted: "
        + "; ".join(reasons[:REASONS_SHOWN])
        + more
    )
    if all(ruling.unsupported for ruling in refused):
        raise PermissionUnsupported(
            message, "ask the author to mark it optional = true, or upgrade plugsec", reasons, lines
        )
    raise PermissionRefused(
        message, lines[0] if lines else "the rule that denies it must go first, if it may", reasons, lines
    )


def _refuse_unattested(request: Request, policies: Sequence[Policy]) -> None:
    for policy in policies:
        for kind in policy.require_attestations:
            if kind not in request.attestations:
                raise AttestationDemanded(
                    f"{request.name} {request.version} has no attestation of type {kind} by a trusted key, "
                    f"and {policy.where} demands one",
                    f"plugsec attest BUNDLE --predicate FILE --type {kind} --key K, by a trusted key",
                )


def _refuse_outdated(request: Request, policies: Sequence[Policy]) -> None:
    """Refuse where a policy wants to know what was revoked lately, and nobody here can."""
    demanding = next((policy for policy in policies if policy.require_current_revocations), None)
    if demanding is not None and request.revocations != "current":
        what = (
            "there is no revocation list" if request.revocations == "none" else "the revocation list is stale"
        )
        raise RevocationsDemanded(
            f"{what}, and {demanding.where} demands a current one",
            "plugsec trust import revocations.json, or plugsec trust publish --key FILE",
        )


# Limits and isolation --------------------------------------------------------------------------------------


def _limits(
    request: Request, policies: Sequence[Policy], narrowing: Narrowing
) -> tuple[Limits, list[str], list[str]]:
    """Return the minimum of all opinions, what that takes from the plugin, and who decided each limit."""
    limits = policies[0].limits
    for policy in policies[1:]:
        limits = minimum(limits, policy.limits)
    limits = minimum(minimum(limits, request.limits), narrowing.limits)
    narrowed, trace = [], []
    for field, number in limits._asdict().items():
        decided_by = next(_opinions(field, number, request, policies, narrowing))
        trace.append(f"{format_limit(field, number)}: {decided_by}")
        wanted = request.limits.get(field, number)
        if wanted > number:
            narrowed.append(
                f"{word_of(field)} limited to {_amount(field, number)} by {decided_by}; "
                f"the plugin asks for {_amount(field, wanted)}"
            )
    return limits, narrowed, trace


def _opinions(
    field: str, number: int, request: Request, policies: Sequence[Policy], narrowing: Narrowing
) -> Iterator[str]:
    """Yield who says that a limit is `number`; there is always one, since it is their minimum."""
    if request.limits.get(field) == number:
        yield "the plugin's own limit"
    for policy in policies:
        if getattr(policy.limits, field) == number:
            yield policy.limits_where[field]
    yield f"--limit {word_of(field)}={narrowing.limits.get(field)}"


def _amount(field: str, number: int) -> str:
    return format_size(number) if field.endswith("bytes") else str(number)


def _isolation(policies: Sequence[Policy], narrowing: Narrowing) -> Isolation:
    isolation = policies[0].isolation
    for policy in policies[1:]:
        isolation = stricter(isolation, policy.isolation)
    return accept_degradation(
        isolation, narrowing.allow_degraded, ", ".join(policy.where for policy in policies)
    )
