"""Everything that the signing room can refuse, as one tree.

    SigningError
    ├── JsonError             4   PLG-JSN-…   bytes that are not JSON within the decoder's rules
    ├── PathError             4   PLG-PTH-…   a path that a bundle cannot carry
    ├── EnvelopeError         4   PLG-ENV-…   a manifest whose identity or file list is malformed
    ├── BundleError           4   PLG-BND-…   a container that is not the one its manifest describes
    │   └── BundleUnreadable  2   PLG-BND-001 a file that cannot be opened
    ├── SignatureRefused      3   PLG-SIG-…   a present signature that does not verify
    │   └── AttestationRefused 3  PLG-ATT-…   a present attestation that does not hold
    ├── KeyRefused            3   PLG-KEY-…   a key that must not be used
    │   └── KeyFileError      4   PLG-KEY-…   a key file that is none, or must not be written
    │       └── KeyFileUnreadable  2  PLG-KEY-008  a key file that cannot be opened
    ├── AgentError            2   PLG-AGT-…   an ssh-agent that is not there, or does not sign
    ├── TrustRefused          3   PLG-TRU-…   a well-formed bundle that no trusted key vouches for
    │   └── AttestationMissing 3  PLG-ATT-005 an attestation that is demanded and not there
    ├── TrustStoreError       4   PLG-TST-…   a trust store that is malformed or that others can write
    │   └── NoSuchKey         2   PLG-TST-008 a key or rule that the store does not have
    ├── TrustMemoryError      4   PLG-MEM-…   a memory of what was accepted that cannot be relied on
    │   ├── TrustMemoryUnwritable 9 PLG-MEM-006 a memory that cannot be written
    │   └── NotRemembered     2   PLG-MEM-008 a plugin that was never accepted here
    ├── RevocationError       4   PLG-REV-…   a revocation list that cannot be read
    │   ├── RevocationRefused 3   PLG-REV-…   a list that nobody may sign like this, or that is older
    │   └── RevocationUsage   2   PLG-REV-…   a change to the list that makes no sense
    ├── InterchangeError      4   PLG-ALS-…, PLG-KRL-…   OpenSSH's files that cannot be taken over exactly
    ├── RootError             4   PLG-ROT-…   a trust root that is malformed
    │   ├── RootRefused       3   PLG-ROT-…   a trust root that too few have signed, or not the next one
    │   └── RootUsage         2   PLG-ROT-…   a trust root that is not there, or is there already
    ├── StoreError            4   PLG-STO-…   installed bundles that are not as they were installed
    │   ├── StoreUnusable     2   PLG-STO-005 a store that cannot be read or written, or not in this way
    │   └── NotInstalled      2   PLG-STO-007 a plugin or version that the store does not have
    ├── DestinationRefused    2   PLG-STO-012 a place where nothing can be put
    └── OciError              4   PLG-OCI-…   a directory that is no OCI image layout with one bundle

A class says what kind of thing was refused, the `id` of each refusal says exactly which rule;
`error_ids.IDS` lists them all, and a test holds list and code equal. The two bottom rooms do not know each
other, so each room has its own root with the same shape; `plugsec.errors` draws them together
(docs/adr/0002-one-error-shape.md).
"""

_EXCERPT_CHARS = 80  # enough of a hostile string to recognise it, too little to fill a terminal


class SigningError(Exception):
    """A refusal in words for people.

    `id` is the stable identifier (`PLG-…`), `code` the exit code of docs/cli, `message` says what was
    attempted and why it was refused, `hint` the next thing to type. Text that came from a plugin must
    be escaped by whoever displays it, not here.
    """

    id: str = "PLG-GEN-000"
    code: int = 70
    next_step: str = ""  # the hint where a refusal has no better one

    def __init__(self, message: str, hint: str = "", *, id: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint or self.next_step
        if id:
            self.id = id


class JsonError(SigningError):
    """Bytes are not JSON within the decoder's rules, or a value has no canonical form (exit 4)."""

    id = "PLG-JSN-003"
    code = 4


class PathError(SigningError):
    """A path cannot be carried by a bundle (exit 4)."""

    id = "PLG-PTH-001"
    code = 4
    next_step = "rename or exclude the file, and pack again"


class EnvelopeError(SigningError):
    """A manifest's identity or file list is malformed (exit 4)."""

    id = "PLG-ENV-001"
    code = 4
    next_step = "`plugsec pack DIR` writes manifests that are well-formed"


class BundleError(SigningError):
    """A container is not, byte for byte, the one that its manifest describes (exit 4)."""

    id = "PLG-BND-002"
    code = 4
    next_step = "get the bundle again from its publisher"


class BundleUnreadable(BundleError):
    """A bundle file cannot be opened at all (exit 2: the command line names the wrong thing)."""

    id = "PLG-BND-001"
    code = 2
    next_step = "give the path of a .plug file that you may read"


class SignatureRefused(SigningError):
    """A signature that is present does not verify, so the bundle is refused (exit 3)."""

    id = "PLG-SIG-001"
    code = 3
    next_step = "get the bundle again from its publisher, or sign it again"


class AttestationRefused(SignatureRefused):
    """An attestation that is present does not hold by itself, so the bundle is refused (exit 3)."""

    id = "PLG-ATT-001"
    next_step = "get the bundle again from its publisher, or without its attestations"


class KeyRefused(SigningError):
    """A key is of a kind, or has a value, that must not be used (exit 3)."""

    id = "PLG-KEY-001"
    code = 3
    next_step = "use an Ed25519 key: plugsec keygen NAME"


class KeyFileError(KeyRefused):
    """A key file cannot be read, or must not be written (exit 4)."""

    id = "PLG-KEY-007"
    code = 4
    next_step = "give the path of an OpenSSH private key that only you can read"


class KeyFileUnreadable(KeyFileError):
    """The command line names a key file that cannot be opened (exit 2)."""

    id = "PLG-KEY-008"
    code = 2


class AgentError(SigningError):
    """The command line asks for an ssh-agent that cannot be reached or does not do it (exit 2)."""

    id = "PLG-AGT-001"
    code = 2
    next_step = "`ssh-add -l` shows whether an agent runs and which keys it has"


class TrustRefused(SigningError):
    """The bundle is well-formed, but no trusted key vouches for it now (exit 3)."""

    id = "PLG-TRU-001"
    code = 3
    next_step = "plugsec trust list shows who is trusted for what"


class AttestationMissing(TrustRefused):
    """The operator demands an attestation that no trusted key has made (exit 3)."""

    id = "PLG-ATT-005"


class TrustStoreError(SigningError):
    """The trust store is malformed, or others than its owner can write it (exit 4)."""

    id = "PLG-TST-001"
    code = 4
    next_step = "correct the file; `plugsec trust list` checks it"


class NoSuchKey(TrustStoreError):
    """The command line names a key or a rule that the trust store does not have (exit 2)."""

    id = "PLG-TST-008"
    code = 2


class TrustMemoryError(SigningError):
    """The memory of what was accepted here is damaged, newer, or others can write it (exit 4)."""

    id = "PLG-MEM-001"
    code = 4
    next_step = "plugsec trust memory shows what is remembered"


class TrustMemoryUnwritable(TrustMemoryError):
    """What was accepted cannot be remembered, so that nothing is run (exit 9)."""

    id = "PLG-MEM-006"
    code = 9
    next_step = "give a writable --home DIR, or free some space"


class NotRemembered(TrustMemoryError):
    """The command line names a plugin that was never accepted here (exit 2)."""

    id = "PLG-MEM-008"
    code = 2


class RevocationError(SigningError):
    """A revocation list is malformed, newer, or lies where others can write (exit 4)."""

    id = "PLG-REV-001"
    code = 4
    next_step = "get the list again: plugsec trust import revocations.json"


class RevocationRefused(RevocationError):
    """A revocation list is signed by nobody who may, or is not the latest that is known here (exit 3)."""

    id = "PLG-REV-003"
    code = 3


class RevocationUsage(RevocationError):
    """The command line asks for a change to the revocation list that makes no sense (exit 2)."""

    id = "PLG-REV-009"
    code = 2
    next_step = "plugsec trust list shows keys, plugsec trust revocations what is revoked"


class InterchangeError(SigningError):
    """A file of OpenSSH says something that cannot be taken over exactly as it is meant (exit 4)."""

    id = "PLG-ALS-001"
    code = 4
    next_step = "docs/formats/revocations.md says what is taken over; remove the rest"


class RootError(SigningError):
    """A trust root is malformed or newer (exit 4)."""

    id = "PLG-ROT-001"
    code = 4
    next_step = "plugsec trust root make ROOT.toml writes one"


class RootRefused(RootError):
    """A trust root is signed by too few, or is not the next version (exit 3)."""

    id = "PLG-ROT-003"
    code = 3
    next_step = "plugsec trust sign ROOT.json --key FILE, by each who must"


class RootUsage(RootError):
    """The command line asks for a trust root that is not there, or is there already (exit 2)."""

    id = "PLG-ROT-006"
    code = 2
    next_step = "plugsec trust root show"


class StoreError(SigningError):
    """The store, or a bundle in it, is not as it was left (exit 4)."""

    id = "PLG-STO-001"
    code = 4
    next_step = "install the bundle again: plugsec install BUNDLE"


class StoreUnusable(StoreError):
    """The store cannot be read or written, or does not do what was asked (exit 2)."""

    id = "PLG-STO-005"
    code = 2
    next_step = "plugsec list shows what is installed"


class NotInstalled(StoreError):
    """The command line names something that the store does not have (exit 2)."""

    id = "PLG-STO-007"
    code = 2
    next_step = "plugsec list shows what is installed; plugsec install BUNDLE adds to it"


class DestinationRefused(SigningError):
    """Nothing can be put where the command line says (exit 2)."""

    id = "PLG-STO-012"
    code = 2
    next_step = "name a directory that does not exist yet, or an empty one"


class OciError(SigningError):
    """A directory is not an OCI image layout that carries one bundle (exit 4)."""

    id = "PLG-OCI-001"
    code = 4
    next_step = "`plugsec oci export BUNDLE DIR` writes such a layout"


def excerpt(text: object) -> str:
    """Return the beginning of hostile text for a message; `repr` makes it one line of ASCII."""
    shown = ascii(text)
    return shown if len(shown) <= _EXCERPT_CHARS else shown[: _EXCERPT_CHARS - 1] + "…"
