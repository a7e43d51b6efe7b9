"""A store of its own for a test, and bundles to put into it; also a program, to be killed in the middle.

python store_kit.py install STORE BUNDLE...     installs each, over and over until it is killed
"""

import contextlib
import os
import sys
from pathlib import Path

import signing_kit as kit

from plugsec_signing.store import changes
from plugsec_signing.store.names import parse_name
from plugsec_signing.store.stored import opened_bundle, verify_stored
from plugsec_signing.verify import verify_bundle

NAME = "acme/wordfreq"
TRUST = kit.store()


def no_sync(_: int) -> None:
    """A test's disk need not be durable."""


def write_bundle(directory: Path, version: str = "1.2.3", release: int = 7, *, signers=(kit.ACME,), **more):
    """Write a bundle of that version and return its path."""
    files = more.pop("files", kit.FILES)
    manifest = kit.manifest(files, version=version, release=release, **more)
    path = directory / f"wordfreq-{version}.plug"
    path.write_bytes(kit.pack(files, signers=signers, manifest_bytes=manifest))
    return str(path)


def install(store, path, *, trust=TRUST, now=kit.NOW, announce=None, sync=no_sync):
    """Install as the command line does."""
    return changes.install(
        str(store),
        lambda sink: verify_bundle(path, trust, now, also=sink),
        now,
        sync=sync,
        announce=announce or (lambda evidence, done: None),
        known={entry.fingerprint for entry in trust.keys},
    )


def remove(store, *versions, name=NAME):
    return changes.remove(str(store), name, lambda index: versions, announce=lambda changed: None)


def roll_back(store, name=NAME):
    return changes.roll_back(str(store), name, announce=lambda changed: None)


def collect(store, announce=lambda bundles: None):
    return changes.collect(str(store), announce=announce)


def verified(store, name=NAME, *, trust=TRUST, now=kit.NOW):
    """Verify an installed bundle and return {path: content} of the payload that a run would get."""
    evidence = verify_stored(str(store), parse_name(name), trust, now)
    try:
        entries = evidence.payload.entries
        return {entry.path: evidence.payload.read(entry.path, entry.size) for entry in entries}
    finally:
        evidence.close()


def current(store, name=NAME):
    """The current version."""
    with opened_bundle(str(store), parse_name(name)) as stored:
        return stored.version.version


def tree_of(store, name=NAME) -> Path:
    """The directory of an installed bundle."""
    with opened_bundle(str(store), parse_name(name)) as stored:
        return Path(stored.path)


def everything(store) -> list[str]:
    """Every path below the store, but for its lock."""
    found = sorted(str(path.relative_to(store)) for path in Path(store).rglob("*"))
    return [path for path in found if path != "lock"]


@contextlib.contextmanager
def writable(path: Path):
    """For as long as this lasts, the path and the directory that holds it can be changed."""
    modes = [(each, each.stat().st_mode) for each in (path.parent, path) if each.exists()]
    for each, mode in modes:
        each.chmod(mode | 0o200)
    try:
        yield
    finally:
        for each, mode in modes:
            if each.exists() and not each.is_symlink():
                each.chmod(mode)


def main(store: str, bundles: list[str]) -> None:
    """Install without end; one letter on stdout for each."""
    while True:
        for path in bundles:
            install(store, path)
            os.write(1, b".")


if __name__ == "__main__":
    main(sys.argv[2], sys.argv[3:])
