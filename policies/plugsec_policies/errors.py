"""Everything that the policies room can refuse, as one tree.

    PolicyError
    ├── PolicyMalformed          4   PLG-POL-001   the TOML, a word or a value is wrong
    │   └── PolicyNewer          4   PLG-POL-002   written for a newer plugsec
    ├── PolicyUnreadable         2   PLG-POL-003   the file is missing, too large, or extends itself
    ├── LimitInvalid             4   PLG-POL-004   a limit is not a whole number within its range
    │   └── LimitArgumentInvalid 2   PLG-POL-005   the same, written on the command line
    ├── PermissionInvalid        4   PLG-POL-006   a permission's value does not parse
    │   └── NeverGrantable       4   PLG-POL-007   a value that no policy can grant (LD_PRELOAD, /proc, …)
    ├── VersionInvalid           4   PLG-POL-008   a version or a version range does not parse
    └── PermissionRefused        1   PLG-POL-010   the policy does not grant a required permission
        ├── PermissionUnsupported 1  PLG-POL-011   this plugsec cannot grant it yet, whatever the policy
        ├── DegradationRefused   1   PLG-POL-012   --allow-degraded for a layer that the policy does not list
        ├── AttestationDemanded  1   PLG-POL-013   the policy demands an attestation that the bundle lacks
        └── RevocationsDemanded  1   PLG-POL-014   the policy demands a current revocation list

The two bottom rooms do not know each other, so each room has its own root with the same shape;
`plugsec.errors` draws them together (docs/adr/0002-one-error-shape.md).
"""

from plugsec_policies.typed import NamedTuple

# A name in a manifest may be megabytes long; what people read, and the audit log keeps, may not.
TEXT_MAX = 2000


def _bounded(text: str) -> str:
    return text if len(text) <= TEXT_MAX else text[:TEXT_MAX] + "…"


class PolicyError(Exception):
    """A refusal in words for people.

    `id` is the stable identifier (`PLG-…`), `code` the exit code of docs/cli, `message` says what was
    attempted and why it was refused, `hint` the next thing to type. Text that came from a plugin must
    be escaped by whoever displays it, not here.
    """

    id: str = "PLG-GEN-000"
    code: int = 70

    def __init__(self, message: str, hint: str = "") -> None:
        message, hint = _bounded(message), _bounded(hint)
        super().__init__(message)
        self.message = message
        self.hint = hint


class Problem(NamedTuple):
    """One fault of a policy file; `where` is `file:line`, or the file alone where no line is known."""

    where: str
    message: str
    hint: str


class PolicyMalformed(PolicyError):
    """The policy file says nothing valid (exit 4); `problems` lists all faults found, at least one."""

    id = "PLG-POL-001"
    code = 4

    def __init__(self, message: str, hint: str = "", problems: tuple[Problem, ...] = ()) -> None:
        super().__init__(message, hint)
        self.problems = problems or (Problem("", message, hint),)


class PolicyNewer(PolicyMalformed):
    """The policy's `schema` is one that a later plugsec introduced (exit 4)."""

    id = "PLG-POL-002"


class PolicyUnreadable(PolicyError):
    """The named policy could not be read at all (exit 2)."""

    id = "PLG-POL-003"
    code = 2


class LimitInvalid(PolicyError):
    """A limit is unknown, not a whole number, or out of its range (exit 4)."""

    id = "PLG-POL-004"
    code = 4


class LimitArgumentInvalid(LimitInvalid):
    """`--limit K=V` does not parse (exit 2)."""

    id = "PLG-POL-005"
    code = 2


class PermissionInvalid(PolicyError):
    """A permission or its value does not parse (exit 4)."""

    id = "PLG-POL-006"
    code = 4


class NeverGrantable(PermissionInvalid):
    """The value parses, but granting it would undo the jail, so no policy can (exit 4)."""

    id = "PLG-POL-007"


class VersionInvalid(PolicyError):
    """A version or a version range does not parse (exit 4)."""

    id = "PLG-POL-008"
    code = 4


class PermissionRefused(PolicyError):
    """A required permission is not wholly granted; nothing was started (exit 1).

    `reasons` holds one sentence for each refused permission, `lines` what to write to allow it.
    """

    id = "PLG-POL-010"
    code = 1

    def __init__(
        self, message: str, hint: str = "", reasons: tuple[str, ...] = (), lines: tuple[str, ...] = ()
    ) -> None:
        super().__init__(message, hint)
        self.reasons = reasons or (message,)
        self.lines = lines


class PermissionUnsupported(PermissionRefused):
    """This plugsec has no way to enforce the permission yet, so it cannot be granted (exit 1)."""

    id = "PLG-POL-011"


class DegradationRefused(PermissionRefused):
    """`--allow-degraded` names a layer that the policy does not list as degradable (exit 1)."""

    id = "PLG-POL-012"


class AttestationDemanded(PermissionRefused):
    """The policy demands an attestation that no trusted key has made of the bundle (exit 1)."""

    id = "PLG-POL-013"


class RevocationsDemanded(PermissionRefused):
    """The policy demands a current revocation list, and there is none, or a stale one (exit 1)."""

    id = "PLG-POL-014"
