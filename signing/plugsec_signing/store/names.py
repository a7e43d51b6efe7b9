"""How an installed plugin is called on a command line, and how a file differs from it.

What a word means must not depend on what lies in the working directory, or whoever can create a file
`acme/wordfreq` there decides what runs. So the word alone decides: `publisher/name[@version]` is the
store's; everything else is a path. `./acme/wordfreq` is a file, and so is `dist/wordfreq-1.2.3.plug`, since
no name and no version ends like a bundle file.
"""

from plugsec_signing.envelope import check_name, check_version
from plugsec_signing.errors import EnvelopeError, NotInstalled, excerpt
from plugsec_signing.typed import NamedTuple


class StoredName(NamedTuple):
    """`publisher/plugin`, and a version or None for the current one."""

    name: str
    version: str | None

    def __str__(self) -> str:
        return self.name if self.version is None else f"{self.name}@{self.version}"


def is_stored_name(text: str) -> bool:
    """Say whether a command line's word means the store; a question of form, nothing is looked up."""
    try:
        parse_name(text)
    except NotInstalled:
        return False
    return True


def parse_name(text: str) -> StoredName:
    """Return the name; raises NotInstalled (exit 2) when it is not one."""
    name, at, version = text.partition("@")
    try:
        publisher, plugin = check_name(name)
        return StoredName(f"{publisher}/{plugin}", check_version(version) if at else None)
    except EnvelopeError as err:
        raise NotInstalled(
            f"{excerpt(text)} is not publisher/name or publisher/name@version",
            "plugsec list shows what is installed",
            id="PLG-STO-008",
        ) from err
