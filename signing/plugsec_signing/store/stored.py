"""An installed bundle as evidence: opened by descriptor, read from it alone, judged by today's trust.

1. under the store's shared lock: the index says which bundle a name means; its tree is opened and
   locked, so that a removal leaves it alone until we are done
2. the manifest's SHA-256 is the bundle id, and its name and version are those asked for
3. signatures, trust and expiry are judged as for a bundle file
4. every payload byte is hashed as it is copied into memory; what is too large for that is hashed where it
   lies, and the directory that was read is the one that a run mounts
"""

import fcntl
import hashlib
import itertools
import os
from collections.abc import Iterator
from contextlib import contextmanager

from plugsec_signing.bundle import (
    MAX_ATTESTATION_BYTES,
    MAX_ATTESTATIONS,
    MAX_SIGNATURES,
    BundleHead,
    Sink,
)
from plugsec_signing.envelope import MAX_MANIFEST_BYTES, parse_envelope
from plugsec_signing.errors import NotInstalled, StoreError
from plugsec_signing.sshsig import MAX_ARMOUR_BYTES
from plugsec_signing.store import index as indexes
from plugsec_signing.store.directories import OBJECTS, Directories, opened, try_lock, unusable
from plugsec_signing.store.names import StoredName
from plugsec_signing.store.sweep import PAYLOAD
from plugsec_signing.tree import damaged, open_directory, read_payload, read_small
from plugsec_signing.trust import TrustStore
from plugsec_signing.typed import NamedTuple
from plugsec_signing.verify import PLAIN, Circumstances, VerifiedBundle, verify_reading

MANIFEST, SIGNATURES, ATTESTATIONS = "manifest.json", "signatures", "attestations"
_TREE = {MANIFEST, SIGNATURES, ATTESTATIONS, PAYLOAD}
_HEX = frozenset("0123456789abcdef")


class Stored(NamedTuple):
    """An installed version whose tree is open and locked; `directory` is its descriptor."""

    name: str
    version: indexes.Version
    directory: int
    payload: int
    path: str


@contextmanager
def opened_bundle(path: str, name: StoredName) -> Iterator[Stored]:
    """Open an installed bundle (step 1) for as long as the block lasts.

    Raises NotInstalled (exit 2), StoreError (exit 4), StoreUnusable (exit 2).
    """
    with opened(path) as where:
        if where is None:
            raise NotInstalled(f"{name} is not installed: there is no store at {path}")
        with where.locked(shared=True):
            version = read_index(where, name.name).find(name.version)
            found = open_tree(where, name.name, version)
    try:
        yield found
    finally:
        os.close(found.directory)
        os.close(found.payload)


def verify_stored(
    path: str, name: StoredName, trust: TrustStore, now: int, under: Circumstances = PLAIN
) -> VerifiedBundle:
    """Verify an installed bundle and keep its payload for a run; `now` in unix seconds.

    Raises what `verify_bundle` does, and the StoreErrors.
    """
    with opened_bundle(path, name) as stored:
        return verify_reading(
            reading(stored), stored.path, trust, now, keep_payload=True, tree=stored.payload, under=under
        )


class _Reading:
    """Steps 2 and 4, in the shape of `verify.Reading`."""

    def __init__(self, stored: Stored, *, payload: bool) -> None:
        self._stored, self._payload = stored, payload

    def __call__(self, sink: Sink) -> BundleHead:
        head = read_head(self._stored)  # 2
        sink.head(head)  # 3
        if self._payload:
            read_payload(self._stored.payload, head.envelope.files, sink)  # 4
        return head


def reading(stored: Stored, *, payload: bool = True) -> _Reading:
    """Return what reads an installed bundle into a sink; without `payload` its head only."""
    return _Reading(stored, payload=payload)


def read_head(stored: Stored) -> BundleHead:
    """Return manifest, signatures and attestations of an installed bundle; the signatures are unverified.

    Raises StoreError (exit 4) when the manifest is not the one that was installed.
    """
    manifest = read_small(stored.directory, MANIFEST, MAX_MANIFEST_BYTES)
    if f"sha256:{hashlib.sha256(manifest).hexdigest()}" != stored.version.bundle_id:
        raise damaged("its manifest has another hash")
    envelope = parse_envelope(manifest)
    if (envelope.name, envelope.version) != (stored.name, stored.version.version):
        raise damaged(f"it is {envelope.name} {envelope.version}")
    signatures = _read_kind(stored.directory, SIGNATURES, ".sshsig", MAX_SIGNATURES, MAX_ARMOUR_BYTES)
    attestations = _read_kind(
        stored.directory, ATTESTATIONS, ".dsse.json", MAX_ATTESTATIONS, MAX_ATTESTATION_BYTES
    )
    for digest, content in attestations.items():
        if hashlib.sha256(content).hexdigest() != digest:
            raise damaged("an attestation is not named by the hash of its content")
    return BundleHead(envelope, signatures, attestations)


def read_index(where: Directories, name: str) -> indexes.Index:
    """Return the index of a plugin, under the lock; raises NotInstalled, StoreError."""
    found = find_index(where, name)
    if found is None:
        raise NotInstalled(f"{name} is not installed", f"to run a file of that name: ./{name}")
    return found


def find_index(where: Directories, name: str) -> indexes.Index | None:
    """Return the index of a plugin, or None when it is not installed; raises StoreError."""
    file = indexes.file_name(name)
    try:
        os.stat(file, dir_fd=where.index, follow_symlinks=False)
    except FileNotFoundError:
        return None
    except OSError as err:
        raise unusable(where.path, err) from err
    return indexes.decode(read_small(where.index, file, indexes.MAX_BYTES), name)


def open_tree(where: Directories, name: str, version: indexes.Version) -> Stored:
    """Open and lock an installed tree, under the store's lock; raises StoreError.

    A payload may be mounted where it lies, so what is around it is as much ours alone as what is in it.
    """
    bundle_hex = version.bundle_id.removeprefix("sha256:")
    held: list[int] = []
    try:
        held.append(open_directory(where.objects, bundle_hex))
        held.append(open_directory(held[0], PAYLOAD))
        with os.scandir(held[0]) as entries:
            if {entry.name for entry in itertools.islice(entries, len(_TREE) + 1)} != _TREE:
                raise damaged(f"the directory of {name} {version.version} holds something else")
        # Nobody holds these exclusively but a sweep of what was removed, which is not under this name.
        if not all(try_lock(fd, fcntl.LOCK_SH) for fd in held):
            raise damaged(f"{name} {version.version} is being removed")
    except (OSError, StoreError) as err:
        for fd in held:
            os.close(fd)
        if isinstance(err, OSError):
            raise damaged(f"{name} {version.version} cannot be opened ({err.strerror})") from err
        raise
    return Stored(name, version, held[0], held[1], os.path.join(where.path, OBJECTS, bundle_hex))


def _read_kind(tree: int, name: str, suffix: str, most: int, most_bytes: int) -> dict[str, bytes]:
    try:
        directory = open_directory(tree, name)
    except OSError as err:
        raise damaged(f"{name}/ is missing ({err.strerror})") from err
    try:
        with os.scandir(directory) as entries:
            names = sorted(entry.name for entry in itertools.islice(entries, most + 1))
        digests = [each.removesuffix(suffix) for each in names]
        if len(names) > most or any(len(each) != 64 or not _HEX.issuperset(each) for each in digests):
            raise damaged(f"{name}/ holds something else")
        return {digest: read_small(directory, digest + suffix, most_bytes) for digest in digests}
    except OSError as err:
        raise damaged(f"{name}/ cannot be read ({err.strerror})") from err
    finally:
        os.close(directory)
