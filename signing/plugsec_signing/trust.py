"""Whose signatures count, for which plugins, and when: the operator's `trust.d/*.toml`.

This module holds the plain form and the questions asked of it; reading TOML is left to `trust_toml`,
because a run takes the plain form from a cache and must not load a TOML parser. A signature counts when
a key entry has its fingerprint, a glob that matches the plugin's name, and now lies in
[valid_after, valid_before). A bundle is accepted when at least one that counts has the role "release":
a reviewer's key adds evidence but cannot release.
"""

import hashlib
import os
import stat
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from plugsec_signing import keys
from plugsec_signing.errors import KeyRefused, TrustRefused, TrustStoreError, excerpt
from plugsec_signing.record import NamedTuple

RELEASE = "release"
MAX_FILES = 1000  # one file per key, for more publishers than an operator can know
MAX_FILE_BYTES = 1024 * 1024
MAX_KEYS = 10_000

Plain = Mapping[str, Any]


class TrustedKey(NamedTuple):
    """One key entry; times in unix seconds, None meaning unbounded."""

    id: str
    key: keys.PublicKey
    fingerprint: str
    publisher: str
    plugins: tuple[str, ...]
    role: str
    valid_after: int | None
    valid_before: int | None


class Signer(NamedTuple):
    """A key entry whose signature counted, for the evidence."""

    key_id: str
    publisher: str
    role: str
    fingerprint: str


class TrustStore(NamedTuple):
    """All key entries; `digest` (hex SHA-256) names exactly the source they were read from."""

    keys: tuple[TrustedKey, ...]
    digest: str

    @classmethod
    def from_plain(cls, plains: Sequence[Plain], *, digest: str | None = None) -> "TrustStore":
        """Build the store from the plain forms of its files; raises TrustStoreError (exit 4).

        Keys are parsed (and weak ones refused) again here, so a cached plain form is never authority.
        Without `digest` the store is named by its plain form.
        """
        try:
            entries = tuple(_trusted_key(entry) for plain in plains for entry in plain["key"])
        except (KeyError, TypeError, ValueError, AttributeError) as err:
            raise TrustStoreError("the plain form of the trust store is malformed", id="PLG-TST-002") from err
        except KeyRefused as err:
            raise TrustStoreError(
                f"the trust store holds a key that is refused: {err}", id="PLG-TST-006"
            ) from err
        if len(entries) > MAX_KEYS:
            raise TrustStoreError(f"the trust store has more than {MAX_KEYS} keys", id="PLG-TST-005")
        names = [entry.id for entry in entries]
        if len(set(names)) != len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise TrustStoreError(
                f"two keys in the trust store are called {excerpt(twice)}", id="PLG-TST-004"
            )
        if digest is None:
            from plugsec_signing.canonical import encode  # noqa: PLC0415 - only without a source

            digest = hashlib.sha256(encode(list(plains))).hexdigest()
        return cls(entries, digest)


def parse_trust_toml(text: str) -> dict[str, Any]:
    """Return the validated plain form of one trust file; raises TrustStoreError (exit 4)."""
    from plugsec_signing.trust_toml import parse  # noqa: PLC0415 - loads a TOML parser, 20 ms

    return parse(text)


def load_trust(directory: str, *, parse: Callable[[str], Plain] = parse_trust_toml) -> TrustStore:
    """Read every `*.toml` of a trust directory, in byte order of the names.

    `parse` lets a caller keep plain forms by the digest of the text. A directory that does not exist is
    a store without keys. Raises TrustStoreError (exit 4), also when anybody but the user or root owns or
    can write the directory or a file: such a store says nothing about whom the operator trusts.
    """
    digest = hashlib.sha256()
    plains: list[Plain] = []
    for name, content in read_trust_files(directory):
        digest.update(b"%d %s %d\n" % (len(name), os.fsencode(name), len(content)) + content)
        try:
            plains.append(parse(content.decode("utf-8")))
        except UnicodeDecodeError as err:
            raise TrustStoreError(
                f"{excerpt(name)} in the trust store is not UTF-8", id="PLG-TST-001"
            ) from err
        except TrustStoreError as err:
            where = f"{os.path.join(directory, name)}: {err.message}"
            raise TrustStoreError(where, err.hint, id=err.id) from err
    return TrustStore.from_plain(plains, digest=digest.hexdigest())


def read_trust_files(directory: str) -> list[tuple[str, bytes]]:
    """Return (name, content) of the trust files, each checked through the descriptor that is read."""
    try:
        dir_fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as err:
        raise TrustStoreError(
            f"the trust store {directory} cannot be opened: {err}", id="PLG-TST-001"
        ) from err
    try:
        check_private(os.fstat(dir_fd), directory)
        names = sorted(name for name in os.listdir(dir_fd) if name.endswith(".toml"))
        if len(names) > MAX_FILES:
            raise TrustStoreError(f"the trust store has more than {MAX_FILES} files", id="PLG-TST-005")
        return [(name, _read_file(dir_fd, name, os.path.join(directory, name))) for name in names]
    except OSError as err:
        raise TrustStoreError(f"the trust store {directory} cannot be read: {err}", id="PLG-TST-001") from err
    finally:
        os.close(dir_fd)


def check_private(status: os.stat_result, path: str) -> None:
    """Refuse what somebody else owns or may write; raises TrustStoreError."""
    if status.st_uid not in (os.geteuid(), 0):
        raise TrustStoreError(
            f"{path} belongs to another user", f"chown it to yourself: {path}", id="PLG-TST-003"
        )
    if status.st_mode & 0o022:
        raise TrustStoreError(f"others may write {path}", f"chmod go-w {path}", id="PLG-TST-003")


def judge(store: TrustStore, name: str, fingerprints: Iterable[str], now: int) -> tuple[Signer, ...]:
    """Return the signers that count for a plugin at `now` (unix seconds), releasing one included.

    `fingerprints` must be those of signatures that *were verified*. Pure. Raises TrustRefused (exit 3)
    with the reason of the key that came closest.
    """
    present = set(fingerprints)
    if not present:
        raise TrustRefused(
            f"{name} is not signed",
            "plugsec sign BUNDLE --key FILE; see `plugsec sign --help`",
            id="PLG-TRU-001",
        )
    counted: list[Signer] = []
    refusals: list[TrustRefused] = []
    for entry in store.keys:
        if entry.fingerprint not in present:
            continue
        refusal = _refusal(entry, name, now)
        if refusal is None:
            counted.append(Signer(entry.id, entry.publisher, entry.role, entry.fingerprint))
        else:
            refusals.append(refusal)
    if any(signer.role == RELEASE for signer in counted):
        return tuple(counted)
    if counted:
        raise TrustRefused(
            f"{name} is signed by {', '.join(signer.key_id for signer in counted)}, "
            f"but by no key with the role {RELEASE}",
            "a key that may release must sign it too",
            id="PLG-TRU-006",
        )
    if refusals:
        raise max(refusals, key=lambda refusal: refusal.id)
    raise TrustRefused(
        f"{name} is signed, but by no key of the trust store (fingerprints: {', '.join(sorted(present))})",
        "plugsec trust add PUBKEY --publisher NAME, if you trust the signer",
        id="PLG-TRU-002",
    )


def counting(store: TrustStore, name: str, fingerprints: Iterable[str], now: int) -> tuple[Signer, ...]:
    """Return the entries of keys that count for a plugin at `now`, whatever their role: for attestations."""
    present = set(fingerprints)
    return tuple(
        Signer(entry.id, entry.publisher, entry.role, entry.fingerprint)
        for entry in store.keys
        if entry.fingerprint in present and _refusal(entry, name, now) is None
    )


def matches(glob: str, name: str) -> bool:
    """Say whether `publisher/plugin` matches a glob, where `*` stands for anything but `/`."""
    glob_parts, name_parts = glob.split("/"), name.split("/")
    return len(glob_parts) == len(name_parts) and all(map(_part_matches, glob_parts, name_parts))


def _part_matches(glob: str, text: str) -> bool:
    first, *rest = glob.split("*")
    if not rest:
        return text == glob
    last = rest.pop()
    if len(text) < len(first) + len(last) or not (text.startswith(first) and text.endswith(last)):
        return False
    middle = text[len(first) : len(text) - len(last)]
    for piece in rest:  # the leftmost place for each piece leaves most room for the next
        at = middle.find(piece)
        if at < 0:
            return False
        middle = middle[at + len(piece) :]
    return True


def _refusal(entry: TrustedKey, name: str, now: int) -> TrustRefused | None:
    """Say why a key's signature does not count; ids are ordered by how close it came."""
    if not any(matches(glob, name) for glob in entry.plugins):
        return TrustRefused(
            f"the key {entry.id} signed {name}, but is trusted for {', '.join(entry.plugins)} only",
            "plugsec trust add PUBKEY --publisher NAME --plugins GLOB, if it may",
            id="PLG-TRU-003",
        )
    if entry.valid_after is not None and now < entry.valid_after:
        return TrustRefused(f"the key {entry.id} that signed {name} is not valid yet", id="PLG-TRU-004")
    if entry.valid_before is not None and now >= entry.valid_before:
        return TrustRefused(
            f"the key {entry.id} that signed {name} has expired",
            "ask for a release by its successor",
            id="PLG-TRU-005",
        )
    return None


def _trusted_key(entry: Plain) -> TrustedKey:
    key = keys.parse_public_key(entry["ssh"])
    return TrustedKey(
        id=str(entry["id"]),
        key=key,
        fingerprint=keys.fingerprint(key),
        publisher=str(entry["publisher"]),
        plugins=tuple(str(glob) for glob in entry["plugins"]),
        role=str(entry["role"]),
        valid_after=_seconds(entry["valid_after"]),
        valid_before=_seconds(entry["valid_before"]),
    )


def _seconds(value: object) -> int | None:
    if value is None or type(value) is int:
        return value
    raise ValueError("a time in the plain form is an integer or null")


def _read_file(dir_fd: int, name: str, path: str) -> bytes:
    # A link could lead to a place that others can swap; trust is worth a real file.
    fd = os.open(
        name, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY, dir_fd=dir_fd
    )
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise TrustStoreError(f"{path} is not a regular file", id="PLG-TST-003")
        check_private(status, path)
        content = os.read(fd, MAX_FILE_BYTES + 1)
        if len(content) > MAX_FILE_BYTES:
            raise TrustStoreError(f"{path} is larger than {MAX_FILE_BYTES} bytes", id="PLG-TST-005")
        return content
    finally:
        os.close(fd)
