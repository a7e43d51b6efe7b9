"""Signers outside plugsec (an air-gapped machine, a token, a key service): what they are given to sign.

They sign one of two things. `ssh-keygen -Y sign` takes the manifest itself, which people can read before
they sign. Hardware that knows nothing of SSH takes the few bytes that a key's algorithm signs in the end;
its bare signature is put into the SSH form afterwards (`sshsig.from_bare`). Cold path.
"""

import os

from plugsec_signing import sshsig
from plugsec_signing.bundle import BundleHead, read_bundle
from plugsec_signing.envelope import Envelope, FileEntry
from plugsec_signing.verify import check_attestations, check_signatures, open_bundle


def envelope_to_sign(path: str) -> Envelope:
    """Return what a signature on the bundle at `path` would vouch for, after checking everything but trust.

    Present signatures must verify and every payload byte must be the manifest's: nobody is asked to sign
    for a bundle that would be refused anyway. Raises SigningError.
    """
    source = open_bundle(path)
    try:
        return read_bundle(source, _Checking()).envelope
    finally:
        os.close(source)


def signed_bytes(envelope: Envelope) -> bytes:
    """Return what the algorithm of any key signs for this bundle: 111 bytes, the same for all keys."""
    return sshsig.signed_data(envelope.manifest_bytes, sshsig.NAMESPACE_MANIFEST)


class _Checking:
    """The sink of a reading that keeps nothing; `read_bundle` itself compares and hashes."""

    def head(self, head: BundleHead) -> None:
        check_signatures(head)
        check_attestations(head, None, 0)

    def begin(self, entry: FileEntry) -> None:
        """Nothing is kept."""

    def chunk(self, data: memoryview) -> None:
        """Nothing is kept."""
