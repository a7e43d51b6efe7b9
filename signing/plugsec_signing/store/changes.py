"""Installing, removing, rolling back and collecting: what changes is whole or not there.

A bundle is verified *while* it is written to `tmp/RANDOM/`, made durable, and given its place by one
rename under the store's lock; the index changes by one more. A process that dies at any moment leaves a
directory in `tmp/` at worst, which the next change removes. `announce` is called when nothing but
the renames is left to do, so that a change which cannot be recorded does not happen.
"""

import fcntl
import os
from collections.abc import Callable, Container, Iterator
from contextlib import contextmanager, suppress

from plugsec_signing.bundle import BundleHead, Sink
from plugsec_signing.envelope import FileEntry
from plugsec_signing.errors import NotInstalled, SigningError, StoreUnusable
from plugsec_signing.store import index as indexes
from plugsec_signing.store.directories import Directories, opened, try_lock, unusable
from plugsec_signing.store.evidence import SUFFIXES, Evidence, apply, entered, merge
from plugsec_signing.store.stored import (
    ATTESTATIONS,
    MANIFEST,
    SIGNATURES,
    find_index,
    open_tree,
    read_head,
    read_index,
)
from plugsec_signing.store.sweep import PAYLOAD, set_aside, sweep
from plugsec_signing.tree import DIRECTORY, TreeWriter, cannot_write, read_payload, remove_tree, write_small
from plugsec_signing.typed import NamedTuple
from plugsec_signing.verify import VerifiedBundle, check_attestations, check_signatures

LISTED_MAX = 100_000  # plugins, or bundles: what is listed whole stays below some seconds
Sync = Callable[[int], None]  # make everything on this descriptor's file system durable: syncfs(2)


class Installed(NamedTuple):
    """What an install did: `new` unless the very bundle was installed already, `before` was current."""

    version: indexes.Version
    before: str | None
    new: bool


class Changed(NamedTuple):
    """What a removal or a rollback did: `gone` versions, and the one that is current now, if any."""

    name: str
    gone: tuple[indexes.Version, ...]
    current: indexes.Version | None
    before: str

    @property
    def version(self) -> str | None:
        """The version that is current now."""
        return self.current.version if self.current is not None else None


def install(
    path: str,
    verify: Callable[[Sink], VerifiedBundle],
    now: int,
    *,
    sync: Sync,
    announce: Callable[[VerifiedBundle, Installed], object],
    known: Container[str] = frozenset(),
) -> tuple[VerifiedBundle, Installed]:
    """Install a bundle into the store at `path` and make it the current version; `now` in unix seconds.

    1. `verify` judges the bundle and feeds the sink, which writes it to a directory of its own. 2. `sync`.
    3. Under the lock: no other bundle may be installed as that version, and signatures of `known` keys find
    room in an intact tree that is there. 4. `announce`. 5. The tree gets its place, or gives its signatures
    to the one that is there. 6. The index says so. 7. Leftovers go.
    Raises what `verify` and `announce` do, StoreError and StoreUnusable; then nothing is installed.
    """
    with opened(path, create=True) as where:
        if where is None:
            raise StoreUnusable(f"the store {path} vanished while it was opened")
        with _Writing(where) as writing:
            evidence = verify(writing)  # 1
            writing.finish()
            sync(where.root)  # 2
            envelope = evidence.envelope
            version = indexes.Version(envelope.version, evidence.bundle_id, envelope.release, now)
            with where.locked():
                index = find_index(where, envelope.name)
                there = _intact(where, envelope.name, version)
                if there is not None and index is not None:
                    version = next(
                        (old for old in index.versions if old.bundle_id == version.bundle_id), version
                    )
                changed = indexes.with_installed(index, envelope.name, version)  # 3
                lacking = merge(there, writing.evidence(evidence), known) if there is not None else ()
                done = Installed(version, index.current if index is not None else None, there is None)
                announce(evidence, done)  # 4
                if there is not None:
                    apply(where, version.bundle_id.removeprefix("sha256:"), lacking)  # 5
                else:
                    writing.publish(version)
                _write_index(where, changed)  # 6
                _sync_directories(where)
        sweep(where)  # 7
    return evidence, done


def remove(
    path: str,
    name: str,
    choose: Callable[[indexes.Index], tuple[str, ...]],
    *,
    announce: Callable[[Changed], object],
) -> Changed:
    """Remove the versions that `choose` takes; when the current one goes, the one before takes its place.

    A run that has one of them open goes on undisturbed. Raises NotInstalled (exit 2), StoreError.
    """
    with _existing(path, name) as where:
        with where.locked():
            index = read_index(where, name)
            versions = choose(index)
            left: indexes.Index | None = index
            gone = tuple(index.find(version) for version in versions)
            for version in versions:
                left = indexes.without(left, version) if left is not None else None
            current = left.find(None) if left is not None else None
            changed = Changed(name, gone, current, index.current)
            announce(changed)
            _write_index(where, left, name)
            for each in gone:
                _set_aside(where, each.bundle_id)
            _sync_directories(where)
        sweep(where)
    return changed


def roll_back(path: str, name: str, *, announce: Callable[[Changed], object]) -> Changed:
    """Make the version current that was current before; nothing is removed. Raises StoreUnusable, …"""
    with _existing(path, name) as where, where.locked():
        index = read_index(where, name)
        left = indexes.rolled_back(index)
        changed = Changed(name, (), left.find(None), index.current)
        announce(changed)
        _write_index(where, left)
        _sync_directories(where)
    return changed


def collect(path: str, *, announce: Callable[[tuple[str, ...]], object]) -> tuple[tuple[str, ...], int]:
    """Remove trees that no index names, and leftovers; returns bundle ids and the number of leftovers.

    The bundle ids are announced, if there are any; leftovers never were anything.
    """
    with opened(path) as where:
        if where is None:
            return (), 0
        with where.locked():
            named = {each.bundle_id for index in indexes_of(where) for each in index.versions}
            orphans = sorted(f"sha256:{each}" for each in _listed(where, where.objects))
            orphans = [each for each in orphans if each not in named]
            if orphans:
                announce(tuple(orphans))
            for bundle_id in orphans:
                _set_aside(where, bundle_id)
        left = sweep(where)
    return tuple(orphans), max(0, left - len(orphans))


def installed(path: str) -> tuple[indexes.Index, ...]:
    """Return every plugin's index, by name; raises StoreError for a damaged one."""
    with opened(path) as where:
        if where is None:
            return ()
        with where.locked(shared=True):
            return indexes_of(where)


def indexes_of(where: Directories) -> tuple[indexes.Index, ...]:
    """Return every index, under the lock."""
    found = []
    for file in sorted(_listed(where, where.index)):
        name = file.removesuffix(".json").replace("+", "/")
        if file != indexes.file_name(name):
            continue  # the beginning of an index that a crash left; the next change of it is whole again
        index = find_index(where, name)
        if index is not None:
            found.append(index)
    return tuple(found)


class _Writing:
    """A bundle on its way into the store: a sink, and a directory in tmp/ that vanishes unless published."""

    def __init__(self, where: Directories) -> None:
        self._where = where
        self._name = os.urandom(8).hex()
        self._directory = -1
        self._payload = -1
        self._writer: TreeWriter | None = None
        self._published = False
        self._head: BundleHead | None = None

    def __enter__(self) -> "_Writing":
        where = self._where
        try:
            with where.locked():  # a sweep between the two lines would take it for dead
                os.mkdir(self._name, 0o700, dir_fd=where.temporary)
                self._directory = os.open(self._name, DIRECTORY, dir_fd=where.temporary)
                try_lock(self._directory, fcntl.LOCK_EX)
        except OSError as err:
            raise unusable(where.path, err) from err
        return self

    def __exit__(self, *_: object) -> None:
        if self._writer is not None:
            self._writer.close()
        for fd in (self._payload, self._directory):
            if fd >= 0:
                os.close(fd)
        if not self._published:
            with suppress(OSError):  # what cannot be removed now is swept later
                remove_tree(self._where.temporary, self._name)

    def head(self, head: BundleHead) -> None:
        """Write everything but the payload."""
        self._head = head
        try:
            write_small(self._directory, MANIFEST, head.envelope.manifest_bytes, 0o444)
            for kind, contents in ((SIGNATURES, head.signatures), (ATTESTATIONS, head.attestations)):
                os.mkdir(kind, 0o700, dir_fd=self._directory)
                with entered(self._directory, kind) as directory:
                    for name, content in contents.items():
                        write_small(directory, name + SUFFIXES[kind], content, 0o444)
                    os.fchmod(directory, 0o555)
            os.mkdir(PAYLOAD, 0o700, dir_fd=self._directory)
            self._payload = os.open(PAYLOAD, DIRECTORY, dir_fd=self._directory)
        except OSError as err:
            raise cannot_write("the bundle", err) from err
        self._writer = TreeWriter(self._payload, read_only=True)

    def begin(self, entry: FileEntry) -> None:
        """Begin a payload file."""
        self._payload_writer().begin(entry)

    def chunk(self, data: memoryview) -> None:
        """Write payload bytes."""
        self._payload_writer().chunk(data)

    def finish(self) -> None:
        """Give everything its final mode but the tree's own directory, which still has to be renamed."""
        self._payload_writer().finish()

    def publish(self, version: indexes.Version) -> None:
        """Take the place in sha256/, under the lock; whatever is there is damaged and moves out."""
        where, target = self._where, version.bundle_id.removeprefix("sha256:")
        try:
            _set_aside(where, version.bundle_id)
            os.rename(self._name, target, src_dir_fd=where.temporary, dst_dir_fd=where.objects)
            self._published = True
            os.fchmod(self._directory, 0o555)
        except OSError as err:
            raise unusable(where.path, err) from err

    def evidence(self, found: VerifiedBundle) -> Evidence:
        """Return what vouches for the bundle that was written."""
        if self._head is None:
            raise RuntimeError("head() comes first")
        return Evidence(self._head, found.attestations)

    def _payload_writer(self) -> TreeWriter:
        if self._writer is None:
            raise RuntimeError("head() comes first")
        return self._writer


class _Nowhere:
    """A sink that only lets a reading check."""

    def head(self, head: BundleHead) -> None:
        """Nothing is kept."""

    def begin(self, entry: FileEntry) -> None:
        """Nothing is kept."""

    def chunk(self, data: memoryview) -> None:
        """Nothing is kept."""


def _intact(where: Directories, name: str, version: indexes.Version) -> Evidence | None:
    """Return what vouches for a tree that is there as it was installed, whoever is trusted; all is read."""
    try:
        os.stat(version.bundle_id.removeprefix("sha256:"), dir_fd=where.objects, follow_symlinks=False)
        stored = open_tree(where, name, version)
    except (OSError, SigningError):
        return None
    try:
        head = read_head(stored)
        check_signatures(head)
        attestations = check_attestations(head, None, 0)
        read_payload(stored.payload, head.envelope.files, _Nowhere())
    except SigningError:
        return None
    finally:
        os.close(stored.directory)
        os.close(stored.payload)
    return Evidence(head, attestations)


def _set_aside(where: Directories, bundle_id: str) -> None:
    try:
        set_aside(where, bundle_id.removeprefix("sha256:"))
    except FileNotFoundError:
        return
    except OSError as err:
        raise unusable(where.path, err) from err


def _write_index(where: Directories, index: indexes.Index | None, name: str = "") -> None:
    file = indexes.file_name(index.name if index is not None else name)
    try:
        if index is None:
            os.unlink(file, dir_fd=where.index)
            return
        temporary = os.urandom(8).hex()
        write_small(where.temporary, temporary, indexes.encode(index), 0o600)
        with _file(where.temporary, temporary) as fd:
            os.fsync(fd)
        os.rename(temporary, file, src_dir_fd=where.temporary, dst_dir_fd=where.index)
    except OSError as err:
        raise unusable(where.path, err) from err


def _sync_directories(where: Directories) -> None:
    try:
        for fd in (where.objects, where.index):
            os.fsync(fd)
    except OSError as err:
        raise unusable(where.path, err) from err


def _listed(where: Directories, directory: int) -> list[str]:
    try:
        names = os.listdir(directory)
    except OSError as err:
        raise unusable(where.path, err) from err
    if len(names) > LISTED_MAX:
        raise StoreUnusable(f"the store {where.path} holds more than {LISTED_MAX} entries", id="PLG-STO-011")
    return names


@contextmanager
def _existing(path: str, name: str) -> Iterator[Directories]:
    with opened(path) as where:
        if where is None:
            raise NotInstalled(f"{name} is not installed: there is no store at {path}")
        yield where


@contextmanager
def _file(parent: int, name: str) -> Iterator[int]:
    fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    try:
        yield fd
    finally:
        os.close(fd)
