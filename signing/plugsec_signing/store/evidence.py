"""What an installed tree keeps of two sets of signatures and attestations: its own, and those of the same
bundle that is installed once more.

Anybody can add signatures of keys that nobody knows. They must not use up the room, or whoever passes a
bundle on decides that the signature which counts finds none: what keys of the trust store made goes first.
"""

import os
from collections.abc import Callable, Container, Iterator, Mapping
from contextlib import contextmanager

from plugsec_signing.bundle import MAX_ATTESTATIONS, MAX_SIGNATURES, BundleHead
from plugsec_signing.dsse import Attestation
from plugsec_signing.errors import StoreUnusable
from plugsec_signing.store.directories import Directories, unusable
from plugsec_signing.store.stored import ATTESTATIONS, SIGNATURES
from plugsec_signing.tree import DIRECTORY, write_small
from plugsec_signing.typed import NamedTuple

SUFFIXES = {SIGNATURES: ".sshsig", ATTESTATIONS: ".dsse.json"}


class Evidence(NamedTuple):
    """A head whose signatures verified, and its attestations as they were checked."""

    head: BundleHead
    attestations: tuple[Attestation, ...]


class Change(NamedTuple):
    """What happens in one directory of a tree: names of files that go, files that come."""

    directory: str
    gone: tuple[str, ...]
    added: Mapping[str, bytes]


def merge(there: Evidence, new: Evidence, known: Container[str]) -> tuple[Change, ...]:
    """Return what gives an installed tree the evidence that it lacks; `known` fingerprints are trusted.

    Pure. Nothing goes unless the cap of a bundle would be exceeded. Raises StoreUnusable (exit 2) when
    known keys alone made more than that.
    """
    makers = {each.digest: each.signers for each in (*there.attestations, *new.attestations)}
    return (
        _merge(
            SIGNATURES,
            there.head.signatures,
            new.head.signatures,
            MAX_SIGNATURES,
            lambda name: _rank((name,), known),
        ),
        _merge(
            ATTESTATIONS,
            there.head.attestations,
            new.head.attestations,
            MAX_ATTESTATIONS,
            lambda name: _rank(makers[name], known),
        ),
    )


def apply(where: Directories, tree: str, changes: tuple[Change, ...]) -> None:
    """Make the changes to the installed `tree` (hex), under the lock; raises StoreUnusable."""
    try:
        with entered(where.objects, tree) as directory:
            for change in changes:
                if change.gone or change.added:
                    with entered(directory, change.directory) as there:
                        _apply(where, there, change)
    except OSError as err:
        raise unusable(where.path, err) from err


@contextmanager
def entered(parent: int, name: str) -> Iterator[int]:
    """Open a directory for as long as the block lasts; raises OSError."""
    fd = os.open(name, DIRECTORY, dir_fd=parent)
    try:
        yield fd
    finally:
        os.close(fd)


def _merge(
    directory: str,
    there: Mapping[str, bytes],
    new: Mapping[str, bytes],
    most: int,
    rank: Callable[[str], int],
) -> Change:
    """Keep the best `most`; among equals those of the bundle that was just verified."""
    ranked = sorted((rank(name), name not in new, name) for name in {**there, **new})
    if sum(1 for each, _, _ in ranked if not each) > most:
        raise StoreUnusable(
            f"the installed bundle and this one together have more than {most} {directory} of trusted keys",
            "plugsec remove NAME@VERSION, then install again",
            id="PLG-STO-011",
        )
    kept, suffix = {name for _, _, name in ranked[:most]}, SUFFIXES[directory]
    gone = tuple(name + suffix for name in there if name not in kept)
    return Change(directory, gone, {n + suffix: c for n, c in new.items() if n in kept and n not in there})


def _rank(makers: tuple[str, ...], known: Container[str]) -> int:
    """0 when known keys alone made it. Others can add their names to an attestation of a known key: 1."""
    trusted = [maker in known for maker in makers]
    return 0 if all(trusted) else 1 if any(trusted) else 2


def _apply(where: Directories, there: int, change: Change) -> None:
    """Each file comes whole, by one rename; at no moment there are more of them than may be."""
    os.fchmod(there, 0o755)
    try:
        for name in change.gone:
            os.unlink(name, dir_fd=there)
        for name, content in change.added.items():
            temporary = os.urandom(8).hex()
            write_small(where.temporary, temporary, content, 0o444)
            os.rename(temporary, name, src_dir_fd=where.temporary, dst_dir_fd=there)
    finally:
        os.fchmod(there, 0o555)
    os.fsync(there)
