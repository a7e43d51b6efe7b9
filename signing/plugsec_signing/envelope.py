"""The part of a manifest that this room answers for: who, which version, which bytes.

The other fields (runtime, methods, permissions, …) belong to `plugsec_plugins.manifest`, which reads
them from `Envelope.raw` and refuses unknown ones. The bundle id is the SHA-256 of the manifest bytes;
since the manifest lists every file with size, mode and hash, the id covers every payload byte.
"""

import hashlib
import itertools
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from plugsec_signing import canonical, paths
from plugsec_signing.errors import EnvelopeError, excerpt
from plugsec_signing.times import parse_time

MANIFEST_SCHEMA = "plugsec.manifest/1"
MAX_MANIFEST_BYTES = 8 * 1024 * 1024  # 100,000 files with paths of ordinary length
MAX_FILES = 100_000  # a walk, a set and a list of this size stay below a second and 100 MB
MAX_PAYLOAD_BYTES = 4 * 1024**3  # below the 8 GiB that eleven octal digits of a header can say
MAX_VERSION_CHARS = 64  # versions appear in file names
MODES = (0o644, 0o755)

_NAME_PART = r"[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?"
_NAME = re.compile(rf"({_NAME_PART})/({_NAME_PART})")
_SCHEMA = re.compile(r"plugsec\.manifest/([1-9][0-9]{0,8})")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_NUMBER = r"(?:0|[1-9][0-9]{0,17})"
_IDENTIFIER = r"(?:0|[1-9][0-9]*|[0-9]*[A-Za-z-][0-9A-Za-z-]*)"
# https://semver.org §2 to §10; build metadata allows leading zeros.
_SEMVER = re.compile(
    rf"{_NUMBER}\.{_NUMBER}\.{_NUMBER}(?:-{_IDENTIFIER}(?:\.{_IDENTIFIER})*)?(?:\+[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*)?"
)


class FileEntry(NamedTuple):
    """One payload file as the manifest promises it; `size` in bytes, `sha256` in lower-case hex."""

    path: str
    size: int
    mode: int
    sha256: str


class Envelope(NamedTuple):
    """A manifest whose canonical form, identity and file list were checked; `expires` in unix seconds."""

    schema: str
    name: str
    publisher: str
    plugin: str
    version: str
    release: int
    expires: int | None
    files: tuple[FileEntry, ...]
    raw: Mapping[str, Any]
    manifest_bytes: bytes
    bundle_id: str


def parse_envelope(manifest_bytes: bytes) -> Envelope:
    """Check canonical form, identity and the file list of a manifest.

    Raises JsonError, PathError or EnvelopeError (all exit 4). Fields of other rooms are not looked at.
    """
    raw = canonical.decode_canonical(manifest_bytes, max_bytes=MAX_MANIFEST_BYTES)
    if not isinstance(raw, dict):
        raise EnvelopeError("the manifest is not a JSON object", id="PLG-ENV-001")
    schema = _check_schema(raw.get("schema"))
    publisher, plugin = check_name(raw.get("name"))
    return Envelope(
        schema=schema,
        name=f"{publisher}/{plugin}",
        publisher=publisher,
        plugin=plugin,
        version=check_version(raw.get("version")),
        release=_check_release(raw.get("release")),
        expires=_check_expires(raw),
        files=_check_files(raw.get("files")),
        raw=raw,
        manifest_bytes=manifest_bytes,
        bundle_id="sha256:" + hashlib.sha256(manifest_bytes).hexdigest(),
    )


def check_name(name: object) -> tuple[str, str]:
    """Return (publisher, plugin) of `publisher/plugin`; lower-case ASCII, so homoglyphs cannot be spelt."""
    match = _NAME.fullmatch(name) if isinstance(name, str) else None
    if match is None:
        raise EnvelopeError(
            f"the name {excerpt(name)} is not `publisher/plugin` in lower-case letters, digits, `._-`",
            id="PLG-ENV-004",
        )
    return match[1], match[2]


def check_version(version: object) -> str:
    """Return a semantic version (semver.org 2.0.0) of at most MAX_VERSION_CHARS characters."""
    if not isinstance(version, str) or len(version) > MAX_VERSION_CHARS or not _SEMVER.fullmatch(version):
        raise EnvelopeError(
            f"the version {excerpt(version)} is not a semantic version such as 1.2.3", id="PLG-ENV-005"
        )
    return version


def _check_schema(schema: object) -> str:
    match = _SCHEMA.fullmatch(schema) if isinstance(schema, str) else None
    if match is None:
        raise EnvelopeError(
            f"the manifest's schema is {excerpt(schema)}, not {MANIFEST_SCHEMA!r}", id="PLG-ENV-003"
        )
    if match[0] != MANIFEST_SCHEMA:
        raise EnvelopeError(
            f"the bundle was made for a newer plugsec: its manifest is {match[0]}, this version reads "
            f"{MANIFEST_SCHEMA}",
            "upgrade plugsec",
            id="PLG-ENV-002",
        )
    return MANIFEST_SCHEMA


def _check_release(release: object) -> int:
    if type(release) is not int or release < 0:
        raise EnvelopeError(
            f"the release {excerpt(release)} is not a whole number that grows with each release",
            id="PLG-ENV-006",
        )
    return release


def _check_expires(raw: Mapping[str, Any]) -> int | None:
    if "expires" not in raw:
        return None
    expires = raw["expires"]
    seconds = parse_time(expires) if isinstance(expires, str) and expires.endswith("Z") else None
    if seconds is None:
        raise EnvelopeError(
            f"expires is {excerpt(expires)}, not a time such as 2027-01-01T00:00:00Z", id="PLG-ENV-007"
        )
    return seconds


def _check_files(files: object) -> tuple[FileEntry, ...]:
    if not isinstance(files, list) or not files:
        raise EnvelopeError("the manifest has no list of files", id="PLG-ENV-008")
    if len(files) > MAX_FILES:
        raise EnvelopeError(f"the manifest lists {len(files)} files; at most {MAX_FILES}", id="PLG-ENV-009")
    entries = tuple(_check_entry(file) for file in files)
    paths.check_paths(entry.path for entry in entries)
    for before, after in itertools.pairwise(entries):
        if before.path >= after.path:
            raise EnvelopeError(
                f"the file list is not in byte order at {excerpt(after.path)}", id="PLG-ENV-010"
            )
    total = sum(entry.size for entry in entries)
    if total > MAX_PAYLOAD_BYTES:
        raise EnvelopeError(f"the payload is {total} bytes; at most {MAX_PAYLOAD_BYTES}", id="PLG-ENV-009")
    return entries


def _check_entry(file: object) -> FileEntry:
    if not isinstance(file, dict) or file.keys() != _ENTRY_KEYS:
        raise EnvelopeError(
            f"the file {excerpt(file)} does not have exactly path, size, mode and sha256", id="PLG-ENV-008"
        )
    path, size, mode, sha256 = file["path"], file["size"], file["mode"], file["sha256"]
    if not isinstance(path, str):
        raise EnvelopeError(f"the path {excerpt(path)} is not a string", id="PLG-ENV-008")
    if type(size) is not int or size < 0:
        raise EnvelopeError(f"the size of {excerpt(path)} is {excerpt(size)}", id="PLG-ENV-008")
    if type(mode) is not int or mode not in MODES:
        raise EnvelopeError(
            f"the mode of {excerpt(path)} is {excerpt(mode)}, neither 420 (0644) nor 493 (0755)",
            id="PLG-ENV-011",
        )
    if not isinstance(sha256, str) or not _SHA256.fullmatch(sha256):
        raise EnvelopeError(
            f"the sha256 of {excerpt(path)} is not 64 lower-case hex digits", id="PLG-ENV-008"
        )
    return FileEntry(path, size, mode, sha256)


_ENTRY_KEYS = {"path", "size", "mode", "sha256"}
