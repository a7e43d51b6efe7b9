"""Everything that the plugins room can refuse, as one tree.

    PluginError
    ├── ManifestMalformed        4   PLG-MAN-001   a field is missing, unknown, or not what it must be
    │   ├── RuntimeUnsupported   4   PLG-MAN-002   a runtime kind, dialect or architecture that we cannot run
    │   └── NeedsOtherPlugsec    4   PLG-MAN-003   requires.plugsec excludes this version
    ├── ProjectMalformed         4   PLG-PRJ-001   plugin.toml: file:line, did-you-mean
    ├── ProjectUnreadable        2   PLG-PRJ-002   no such directory, no plugin.toml
    ├── PackRefused              4   PLG-PCK-001   a file that cannot be in a bundle: link, device, size
    │   ├── SecretFound          4   PLG-PCK-002   a private key or a password file
    │   └── HintsDisagree        4   PLG-PCK-004   a signature and its schemas in plugin.toml
    ├── PackFailed               2   PLG-PCK-003   the bundle could not be written
    ├── SchemaRefused            4   PLG-SCH-001   a JSON Schema that is wrong, too large, recursive or remote
    ├── SchemaViolation          5   PLG-SCH-002   a value breaks its schema; carries a JSON pointer
    ├── ElfMalformed             4   PLG-ELF-001   a program that is not a well-formed 64-bit ELF file
    └── ScaffoldRefused          2   PLG-NEW-001   `new` with a bad name, or over an existing directory

The two bottom rooms do not know each other, so each room has its own root with the same shape;
`plugsec.errors` draws them together (docs/adr/0002-one-error-shape.md).
"""

# A name in a manifest may be megabytes long; what people read, and the audit log keeps, may not.
TEXT_MAX = 2000


def _bounded(text: str) -> str:
    return text if len(text) <= TEXT_MAX else text[:TEXT_MAX] + "…"


class PluginError(Exception):
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


class ManifestMalformed(PluginError):
    """A field of the manifest is missing, unknown, or not what it must be (exit 4)."""

    id = "PLG-MAN-001"
    code = 4


class RuntimeUnsupported(ManifestMalformed):
    """The manifest is well-formed, but names a runtime, dialect or machine that cannot run here (exit 4)."""

    id = "PLG-MAN-002"


class NeedsOtherPlugsec(ManifestMalformed):
    """The plugin's `requires.plugsec` excludes this version (exit 4)."""

    id = "PLG-MAN-003"


class ProjectMalformed(PluginError):
    """plugin.toml, or a file it names, is wrong (exit 4)."""

    id = "PLG-PRJ-001"
    code = 4


class ProjectUnreadable(PluginError):
    """There is no plugin to read (exit 2)."""

    id = "PLG-PRJ-002"
    code = 2


class PackRefused(PluginError):
    """A file of the plugin's directory cannot be in a bundle (exit 4)."""

    id = "PLG-PCK-001"
    code = 4


class SecretFound(PackRefused):
    """A file looks like a secret that must not be published (exit 4)."""

    id = "PLG-PCK-002"


class HintsDisagree(PackRefused):
    """A method's signature and its schemas in plugin.toml cannot both be right (exit 4)."""

    id = "PLG-PCK-004"


class PackFailed(PluginError):
    """The bundle could not be written; nothing was left behind (exit 2)."""

    id = "PLG-PCK-003"
    code = 2


class SchemaRefused(PluginError):
    """A JSON Schema is wrong, or could cost more than we are ready to spend on it (exit 4)."""

    id = "PLG-SCH-001"
    code = 4


class SchemaViolation(PluginError):
    """A value breaks its schema (exit 5); `pointer` is the JSON Pointer (RFC 6901) of the fault."""

    id = "PLG-SCH-002"
    code = 5

    def __init__(self, message: str, hint: str = "", pointer: str = "") -> None:
        super().__init__(message, hint)
        self.pointer = pointer


class ElfMalformed(PluginError):
    """A program is not a well-formed 64-bit little-endian ELF file (exit 4)."""

    id = "PLG-ELF-001"
    code = 4


class ScaffoldRefused(PluginError):
    """A new plugin cannot be made under this name or at this place (exit 2)."""

    id = "PLG-NEW-001"
    code = 2
