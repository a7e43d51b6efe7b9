"""Everything that plugsec can refuse, drawn as one tree.

    Refusal (any of the four roots below; `REFUSALS` is what the command line catches)
    ├── plugsec_signing.errors.SigningError     malformed bundle 4 · signature or trust 3
    ├── plugsec_policies.errors.PolicyError     malformed policy 4 · permission refused 1
    ├── plugsec_plugins.errors.PluginError      malformed manifest or project 4 · schema 5
    └── PlugsecError
        ├── UsageError              2   PLG-USE-…
        ├── ExchangeError           5   PLG-IO-…     input or output breaks the exchange rules
        ├── InputMalformed          4   PLG-IO-…     input that is not JSON
        ├── PluginFailed            6   PLG-RUN-…    exception, non-zero exit, crash, protocol error
        ├── LimitReached            7   PLG-LIM-…    a limit ended the run
        ├── HostUnsupported         8   PLG-HOST-…   a required layer is missing
        ├── AuditError              9   PLG-AUD-…    the log cannot be written, or does not verify
        ├── Interrupted           130   PLG-INT-001
        └── Defect                 70   PLG-BUG-001  ours

Each class carries the exit `code`; each raise or subclass a stable `id`.
"""

from plugsec_plugins.errors import PluginError
from plugsec_policies.errors import PolicyError
from plugsec_signing.errors import SigningError


class PlugsecError(Exception):
    """A refusal of the supervisor's own; the shape is that of the other rooms (docs/adr/0002)."""

    id: str = "PLG-GEN-000"
    code: int = 70

    def __init__(self, message: str, hint: str = "", *, id: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        if id:
            self.id = id


class UsageError(PlugsecError):
    """The command line does not make sense (exit 2)."""

    id = "PLG-USE-001"
    code = 2


class InputMalformed(PlugsecError):
    """The input is not JSON within the decoder's rules (exit 4)."""

    id = "PLG-IO-001"
    code = 4


class ExchangeError(PlugsecError):
    """Input or output breaks the plugin's schema or the exchange rules (exit 5)."""

    id = "PLG-IO-002"
    code = 5


class PluginFailed(PlugsecError):
    """The plugin raised, exited non-zero, crashed or broke the protocol (exit 6)."""

    id = "PLG-RUN-001"
    code = 6


class LimitReached(PlugsecError):
    """A limit ended the run (exit 7)."""

    id = "PLG-LIM-001"
    code = 7


class HostUnsupported(PlugsecError):
    """This host cannot enforce a required layer; nothing was started (exit 8)."""

    id = "PLG-HOST-001"
    code = 8


class AuditError(PlugsecError):
    """The audit log cannot be written or does not verify (exit 9)."""

    id = "PLG-AUD-001"
    code = 9


class Interrupted(PlugsecError):
    """The operator ended the run; the plugin is dead and the run is recorded (exit 130)."""

    id = "PLG-INT-001"
    code = 130


class Defect(PlugsecError):
    """A defect of ours (exit 70)."""

    id = "PLG-BUG-001"
    code = 70


Refusal = PlugsecError | SigningError | PolicyError | PluginError
REFUSALS = (PlugsecError, SigningError, PolicyError, PluginError)
