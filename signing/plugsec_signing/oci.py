"""A bundle in an OCI image layout directory, so that registries, `oras`, `skopeo` and `cosign` can carry it.

    DIR/oci-layout                    {"imageLayoutVersion":"1.0.0"}
    DIR/index.json                    one manifest: artifactType application/vnd.plugsec.bundle.v1+tar
    DIR/blobs/sha256/<empty config>   {}
    DIR/blobs/sha256/<manifest>       one layer, annotated with file name, version and bundle id
    DIR/blobs/sha256/<layer>          the bundle, byte for byte: its id and signatures are what they were

The layout is only an envelope and is never believed: what comes out of it is a bundle file like any other,
to be verified by whoever uses it. Reading is bounded and follows no link; fields that are not known are
ignored, as the specification demands. Source: OCI image-spec v1.1, "Image Layout", "Artifacts". Cold path.
"""

import hashlib
import os
import stat
from collections.abc import Mapping
from typing import Any, NoReturn

from plugsec_signing import canonical
from plugsec_signing.bundle import BundleHead, is_frame, read_bundle, read_manifest
from plugsec_signing.destination import new_directory, new_file, refused
from plugsec_signing.envelope import Envelope, FileEntry
from plugsec_signing.errors import DestinationRefused, JsonError, OciError, excerpt
from plugsec_signing.tree import DIRECTORY, write_small
from plugsec_signing.typed import NamedTuple
from plugsec_signing.verify import check_attestations, check_signatures, open_bundle

ARTIFACT_TYPE = "application/vnd.plugsec.bundle.v1+tar"
FRAME_TYPE = ARTIFACT_TYPE + "+zstd"  # the layer's media type when the bundle file is compressed
_MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
_INDEX_TYPE = "application/vnd.oci.image.index.v1+json"
_EMPTY_TYPE = "application/vnd.oci.empty.v1+json"
_EMPTY = b"{}"
_LAYOUT = {"imageLayoutVersion": "1.0.0"}
_REF, _TITLE, _VERSION = (f"org.opencontainers.image.{word}" for word in ("ref.name", "title", "version"))
_BUNDLE_ID = "dev.plugsec.bundle.id"

MAX_INDEX_BYTES = 256 * 1024  # 64 descriptors with generous annotations; parsed, some twenty times as much
MAX_MANIFEST_BYTES = 64 * 1024  # one that carries a bundle has under 2 KiB
MAX_LAYOUT_BYTES = 4096
MAX_MANIFESTS = 64  # of one index: a bundle, and what was signed or attested about it
MAX_LAYER_BYTES = 5 * 1024**3  # above the largest bundle: 4 GiB of payload, its headers and the head
_BUFFER_BYTES = 256 * 1024
_USED = ("schemaVersion", "layers", "annotations")  # of a manifest
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_HEX = frozenset("0123456789abcdef")


class Exported(NamedTuple):
    """What was written: the bundle's envelope, and the digest by which a registry knows the manifest."""

    envelope: Envelope
    manifest_digest: str
    layer_digest: str


class Imported(NamedTuple):
    """What was read: the bundle's envelope, where it is now, and the layer's digest."""

    envelope: Envelope
    path: str
    layer_digest: str


class _Descriptor(NamedTuple):
    """A reference to a blob; `size` in bytes."""

    media_type: str
    digest: str
    size: int
    artifact_type: str
    annotations: Mapping[str, str]


def export(bundle: str, directory: str, *, ref: str | None = None) -> Exported:
    """Write a layout that holds the bundle file as its one layer; `ref` names it, by default its version.

    Structure, hashes and present signatures are checked, trust is not asked. The bytes depend on the
    bundle alone. Raises SigningError; DestinationRefused (exit 2) for a directory that is not empty.
    """
    source = open_bundle(bundle)
    try:
        envelope = _check_bundle(source)
        with new_directory(directory) as root:
            try:
                found = _write_layout(source, root, envelope, ref or envelope.version)
            except OSError as err:
                raise refused(directory, err) from err
    finally:
        os.close(source)
    return found


def import_layout(directory: str, out: str | None = None, *, ref: str | None = None) -> Imported:
    """Take the bundle out of a layout and write it to `out`, by default `PLUGIN-VERSION.plug` here.

    1. `oci-layout` and `index.json` are read. 2. Of the manifests that carry a bundle there is one, or `ref`
    (a reference name or a digest) says which. 3. Its blob has the digest and size of the descriptor. 4. So
    has its one layer, which is hashed while it is copied. 5. The copy is a well-formed bundle whose
    signatures verify, and has the bundle id that the manifest is annotated with. 6. It takes its place.
    Raises SigningError, and then nothing was written. Whether anybody trusts it is not asked.
    """
    try:
        root = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except (OSError, ValueError) as err:
        reason = err.strerror if isinstance(err, OSError) else err
        raise DestinationRefused(
            f"{excerpt(directory)} cannot be opened: {reason}", "name an OCI image layout directory"
        ) from err
    try:
        _check_layout(_json(root, "oci-layout", MAX_LAYOUT_BYTES))  # 1
        index = _json(root, "index.json", MAX_INDEX_BYTES)
        manifest = _choose(_candidates(root, _manifests(index)), ref)  # 2, 3
        layer = _layer(manifest)
        return _take_out(root, layer, out, _annotations(manifest).get(_BUNDLE_ID))
    except OSError as err:
        raise OciError(f"{excerpt(directory)} cannot be read: {err.strerror}") from err
    finally:
        os.close(root)


def _take_out(root: int, layer: _Descriptor, out: str | None, bundle_id: str | None) -> Imported:
    blob = _open_blob(root, layer)
    try:
        if out is None:
            out = _own_name(blob, layer)
        with new_file(out) as fd:
            _copy_blob(blob, fd, layer, out)  # 4
            envelope = _check_bundle(fd)  # 5
            if bundle_id not in {None, envelope.bundle_id}:
                _refuse("the manifest is annotated with another bundle id than the bundle has", "PLG-OCI-002")
    finally:
        os.close(blob)
    return Imported(envelope, os.path.abspath(out), f"sha256:{layer.digest}")  # 6


def _own_name(blob: int, layer: _Descriptor) -> str:
    """The name that the bundle gives itself; a title in the layout is never used as a path."""
    envelope = read_manifest(blob).envelope
    suffix = ".plug.zst" if layer.media_type == FRAME_TYPE else ".plug"
    return f"{envelope.plugin}-{envelope.version}{suffix}"


class _Checking:
    """The sink of a reading that keeps nothing: structure and hashes by the reader, signatures here."""

    def head(self, head: BundleHead) -> None:
        """Every signature and attestation must verify; whose they are is not asked."""
        check_signatures(head)
        check_attestations(head, None, 0)

    def begin(self, entry: FileEntry) -> None:
        """The reader compares."""

    def chunk(self, data: memoryview) -> None:
        """The reader hashes."""


def _check_bundle(fd: int) -> Envelope:
    return read_bundle(fd, _Checking()).envelope


# Reading -----------------------------------------------------------------------------------------------


def _check_layout(value: Mapping[str, Any]) -> None:
    version = value.get("imageLayoutVersion")
    if version != _LAYOUT["imageLayoutVersion"]:
        _refuse(f"the layout's version is {excerpt(version)}, not {_LAYOUT['imageLayoutVersion']}")


def _manifests(index: Mapping[str, Any]) -> list[_Descriptor]:
    found = index.get("manifests")
    if index.get("schemaVersion") != 2 or not isinstance(found, list):
        _refuse("index.json is not an image index")
    if len(found) > MAX_MANIFESTS:
        _refuse(f"index.json lists {len(found)} manifests; at most {MAX_MANIFESTS} are read", "PLG-OCI-005")
    return [_descriptor(each) for each in found]


def _candidates(root: int, manifests: list[_Descriptor]) -> list[tuple[_Descriptor, Mapping[str, Any]]]:
    """The manifests that carry a bundle; an index that a registry wrote may not tell the artifact type."""
    found = []
    read: dict[str, Mapping[str, Any]] = {}
    for each in manifests:
        if each.media_type != _MANIFEST_TYPE or each.artifact_type not in {"", ARTIFACT_TYPE}:
            continue
        if each.size > MAX_MANIFEST_BYTES:
            _refuse(f"a manifest is {each.size} bytes; at most {MAX_MANIFEST_BYTES} are read", "PLG-OCI-005")
        if each.digest in read:  # an index may name one manifest under many references
            found.append((each, read[each.digest]))
            continue
        blob = _open_blob(root, each)
        try:
            data = os.pread(blob, each.size + 1, 0)
        finally:
            os.close(blob)
        if len(data) != each.size or hashlib.sha256(data).hexdigest() != each.digest:
            _refuse(f"the blob {each.digest} does not have its digest", "PLG-OCI-002")
        value = _object(data, each.digest)
        if value.get("artifactType") == ARTIFACT_TYPE:
            # Only what is used is kept: the rest is as large as a stranger made it.
            read[each.digest] = {name: value[name] for name in _USED if name in value}
            found.append((each, read[each.digest]))
    return found


def _choose(candidates: list[tuple[_Descriptor, Mapping[str, Any]]], ref: str | None) -> Mapping[str, Any]:
    fitting = candidates
    if ref is not None:
        fitting = [
            (each, value)
            for each, value in candidates
            if ref in {each.annotations.get(_REF), f"sha256:{each.digest}"}
        ]
    distinct = {each.digest: value for each, value in fitting}
    if not distinct:
        what = "no plugsec bundle" if ref is None else f"no plugsec bundle with the reference {excerpt(ref)}"
        _refuse(f"the layout carries {what}", "PLG-OCI-003")
    if len(distinct) > 1:
        names = ", ".join(
            excerpt(each.annotations.get(_REF) or f"sha256:{each.digest}") for each, _ in fitting[:8]
        )
        raise OciError(
            f"the layout carries {len(distinct)} plugsec bundles: {names}",
            "name one with --ref",
            id="PLG-OCI-004",
        )
    return next(iter(distinct.values()))


def _layer(manifest: Mapping[str, Any]) -> _Descriptor:
    layers = manifest.get("layers")
    if manifest.get("schemaVersion") != 2 or not isinstance(layers, list) or len(layers) != 1:
        _refuse("the manifest does not have exactly one layer")
    layer = _descriptor(layers[0])
    if layer.media_type not in {ARTIFACT_TYPE, FRAME_TYPE}:
        _refuse(f"the layer is {excerpt(layer.media_type)}, not {ARTIFACT_TYPE}")
    if layer.size > MAX_LAYER_BYTES:
        _refuse(f"the layer is {layer.size} bytes; at most {MAX_LAYER_BYTES} are read", "PLG-OCI-005")
    return layer


def _descriptor(value: object) -> _Descriptor:
    if not isinstance(value, dict):
        _refuse("a descriptor is not an object")
    media_type, digest, size = value.get("mediaType"), value.get("digest"), value.get("size")
    artifact_type = value.get("artifactType", "")
    if (
        not isinstance(media_type, str)
        or not isinstance(artifact_type, str)
        or type(size) is not int
        or size < 0
    ):
        _refuse("a descriptor has no media type or no size")
    hexadecimal = digest.removeprefix("sha256:") if isinstance(digest, str) else ""
    if digest == hexadecimal or len(hexadecimal) != 64 or not _HEX.issuperset(hexadecimal):
        _refuse(f"the digest {excerpt(digest)} is not sha256: and 64 hex digits")
    return _Descriptor(media_type, hexadecimal, size, artifact_type, _annotations(value))


def _annotations(value: Mapping[str, Any]) -> Mapping[str, str]:
    found = value.get("annotations", {})
    if not isinstance(found, dict) or not all(isinstance(each, str) for each in found.values()):
        _refuse("annotations are not text by name")
    return found


def _json(root: int, name: str, most_bytes: int) -> Mapping[str, Any]:
    try:
        fd = os.open(name, _READ, dir_fd=root)
    except OSError as err:
        raise OciError(f"{name} is missing or cannot be read: {err.strerror}") from err
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            _refuse(f"{name} is not a regular file")
        if status.st_size > most_bytes:
            _refuse(f"{name} is {status.st_size} bytes; at most {most_bytes} are read", "PLG-OCI-005")
        return _object(os.pread(fd, most_bytes, 0), name)
    finally:
        os.close(fd)


def _object(data: bytes, name: str) -> Mapping[str, Any]:
    try:
        value = canonical.decode(data, max_bytes=MAX_INDEX_BYTES)
    except JsonError as err:
        raise OciError(f"{name}: {err.message}") from err
    if not isinstance(value, dict):
        _refuse(f"{name} is not a JSON object")
    return value


def _open_blob(root: int, descriptor: _Descriptor) -> int:
    """Open a blob without following a link anywhere on the way; its size is the descriptor's."""
    fds = [root]
    try:
        for name in ("blobs", "sha256"):
            fds.append(os.open(name, DIRECTORY, dir_fd=fds[-1]))
        blob = os.open(descriptor.digest, _READ, dir_fd=fds[-1])
    except OSError as err:
        raise OciError(f"the blob {descriptor.digest} cannot be opened: {err.strerror}") from err
    finally:
        for fd in fds[1:]:
            os.close(fd)
    status = os.fstat(blob)
    if not stat.S_ISREG(status.st_mode) or status.st_size != descriptor.size:
        os.close(blob)
        _refuse(f"the blob {descriptor.digest} is not a file of {descriptor.size} bytes", "PLG-OCI-002")
    return blob


def _copy_blob(blob: int, fd: int, descriptor: _Descriptor, out: str) -> None:
    digest, offset = hashlib.sha256(), 0
    try:
        while offset < descriptor.size:
            data = os.pread(blob, min(_BUFFER_BYTES, descriptor.size - offset), offset)
            if not data:
                _refuse(f"the blob {descriptor.digest} became shorter while it was read", "PLG-OCI-002")
            digest.update(data)
            _write(fd, data)
            offset += len(data)
    except OSError as err:
        raise refused(out, err) from err
    if digest.hexdigest() != descriptor.digest:
        _refuse(f"the blob {descriptor.digest} does not have its digest", "PLG-OCI-002")


# Writing -----------------------------------------------------------------------------------------------


def _write_layout(source: int, root: int, envelope: Envelope, ref: str) -> Exported:
    """Write the five files; raises OSError."""
    os.mkdir("blobs", 0o755, dir_fd=root)
    os.mkdir("blobs/sha256", 0o755, dir_fd=root)
    blobs = os.open("blobs/sha256", DIRECTORY, dir_fd=root)
    try:
        for directory in ("blobs", "blobs/sha256"):
            os.chmod(directory, 0o755, dir_fd=root)  # noqa: S103 - past the umask, as a layout is shared
        digest, size = _copy_layer(source, blobs)
        media_type, suffix = (FRAME_TYPE, ".plug.zst") if is_frame(source) else (ARTIFACT_TYPE, ".plug")
        title = {_TITLE: f"{envelope.plugin}-{envelope.version}{suffix}"}
        manifest = canonical.encode({
            "schemaVersion": 2,
            "mediaType": _MANIFEST_TYPE,
            "artifactType": ARTIFACT_TYPE,
            "config": _written(blobs, _EMPTY_TYPE, _EMPTY),
            "layers": [{"mediaType": media_type, "digest": digest, "size": size, "annotations": title}],
            "annotations": {_VERSION: envelope.version, _BUNDLE_ID: envelope.bundle_id},
        })  # fmt: skip
        reference = _written(blobs, _MANIFEST_TYPE, manifest)
    finally:
        os.close(blobs)
    named = {**reference, "artifactType": ARTIFACT_TYPE, "annotations": {_REF: ref}}
    index = {"schemaVersion": 2, "mediaType": _INDEX_TYPE, "manifests": [named]}
    write_small(root, "index.json", canonical.encode(index), 0o644)
    write_small(root, "oci-layout", canonical.encode(_LAYOUT), 0o644)
    return Exported(envelope, str(reference["digest"]), digest)


def _copy_layer(source: int, blobs: int) -> tuple[str, int]:
    """Copy the bundle file, hashing what is written, and name the copy by its digest. Raises OSError."""
    fd = os.open("layer", _CREATE, 0o600, dir_fd=blobs)
    digest, size = hashlib.sha256(), 0
    try:
        while data := os.pread(source, _BUFFER_BYTES, size):
            digest.update(data)
            _write(fd, data)
            size += len(data)
        os.fchmod(fd, 0o644)
    finally:
        os.close(fd)
    os.rename("layer", digest.hexdigest(), src_dir_fd=blobs, dst_dir_fd=blobs)
    return f"sha256:{digest.hexdigest()}", size


def _written(blobs: int, media_type: str, content: bytes) -> dict[str, Any]:
    """Write a small blob; return its descriptor. Raises OSError."""
    digest = hashlib.sha256(content).hexdigest()
    write_small(blobs, digest, content, 0o644)
    return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(content)}


def _write(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _refuse(message: str, id: str = "PLG-OCI-001") -> NoReturn:
    raise OciError(message, id=id)
