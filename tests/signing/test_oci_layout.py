"""A bundle in an OCI image layout: out comes what went in, and a hostile layout is refused in our words."""

import hashlib
import json
import os
import shutil
from pathlib import Path

import pytest
import signing_kit as kit
import store_kit as shop
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from plugsec_signing import oci
from plugsec_signing.errors import BundleError, DestinationRefused, OciError, SigningError
from plugsec_signing.verify import verify_bundle


@pytest.fixture
def bundle(tmp_path):
    return shop.write_bundle(tmp_path, signers=(kit.ACME, kit.REVIEW))


@pytest.fixture
def layout(tmp_path, bundle):
    oci.export(bundle, str(tmp_path / "layout"))
    return tmp_path / "layout"


def load(layout: Path):
    """The layout's index and manifest as plain values."""
    index = json.loads((layout / "index.json").read_text())
    digest = index["manifests"][0]["digest"].removeprefix("sha256:")
    return index, json.loads((layout / "blobs" / "sha256" / digest).read_text())


def blob(layout: Path, content: bytes) -> dict:
    digest = hashlib.sha256(content).hexdigest()
    (layout / "blobs" / "sha256" / digest).write_bytes(content)
    return {"digest": f"sha256:{digest}", "size": len(content)}


def save(layout: Path, index, manifest=None) -> None:
    """Write both back, with the manifest's new digest in its descriptor."""
    if manifest is not None:
        index["manifests"][0] |= blob(layout, json.dumps(manifest).encode())
    (layout / "index.json").write_text(json.dumps(index))


def test_what_comes_out_is_the_very_file_that_went_in(tmp_path, bundle, layout):
    imported = oci.import_layout(str(layout), str(tmp_path / "out.plug"))
    assert Path(imported.path).read_bytes() == Path(bundle).read_bytes()
    evidence = verify_bundle(imported.path, shop.TRUST, kit.NOW)
    assert evidence.bundle_id == imported.envelope.bundle_id


def test_the_layout_is_the_one_that_the_specification_describes(layout, bundle):
    index, manifest = load(layout)
    assert json.loads((layout / "oci-layout").read_text()) == {"imageLayoutVersion": "1.0.0"}
    assert (index["schemaVersion"], index["mediaType"]) == (2, "application/vnd.oci.image.index.v1+json")
    (reference,) = index["manifests"]
    assert reference["mediaType"] == "application/vnd.oci.image.manifest.v1+json"
    assert reference["annotations"] == {"org.opencontainers.image.ref.name": "1.2.3"}
    assert manifest["artifactType"] == reference["artifactType"] == oci.ARTIFACT_TYPE
    assert manifest["config"]["mediaType"] == "application/vnd.oci.empty.v1+json"
    (layer,) = manifest["layers"]
    assert layer["mediaType"] == oci.ARTIFACT_TYPE
    assert layer["annotations"] == {"org.opencontainers.image.title": "wordfreq-1.2.3.plug"}
    assert (
        manifest["annotations"]["dev.plugsec.bundle.id"]
        == verify_bundle(bundle, shop.TRUST, kit.NOW).bundle_id
    )
    for descriptor in (reference, manifest["config"], layer):
        content = (layout / "blobs" / "sha256" / descriptor["digest"].removeprefix("sha256:")).read_bytes()
        assert (len(content), f"sha256:{hashlib.sha256(content).hexdigest()}") == (
            descriptor["size"],
            descriptor["digest"],
        )


def test_the_same_bundle_gives_the_same_layout_whatever_the_umask(tmp_path, bundle, layout):
    old = os.umask(0o077)
    try:
        oci.export(bundle, str(tmp_path / "again"))
    finally:
        os.umask(old)

    def told(root: Path):
        return {
            str(path.relative_to(root)): (path.stat().st_mode, path.read_bytes() if path.is_file() else b"")
            for path in sorted(root.rglob("*"))
        }

    assert told(tmp_path / "again") == told(layout)


def test_without_a_name_the_file_is_called_as_the_bundle_says_and_never_as_the_layout_does(
    tmp_path, layout, monkeypatch
):
    index, manifest = load(layout)
    manifest["layers"][0]["annotations"] = {"org.opencontainers.image.title": "../../evil.plug"}
    save(layout, index, manifest)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert oci.import_layout(str(layout)).path == str(tmp_path / "here" / "wordfreq-1.2.3.plug")


def test_a_compressed_bundle_stays_the_file_that_it_is(tmp_path, bundle, monkeypatch):
    zstd = pytest.importorskip("backports.zstd", reason="the extra plugsec[zstd] is not installed")
    frame = tmp_path / "wordfreq-1.2.3.plug.zst"
    frame.write_bytes(zstd.compress(Path(bundle).read_bytes()))
    oci.export(str(frame), str(tmp_path / "compressed"))
    (layer,) = load(tmp_path / "compressed")[1]["layers"]
    assert layer["mediaType"] == oci.FRAME_TYPE
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    out = Path(oci.import_layout(str(tmp_path / "compressed")).path)
    assert (out.name, out.read_bytes()) == (frame.name, frame.read_bytes())
    shop.install(tmp_path / "store", str(out))
    assert shop.verified(tmp_path / "store") == kit.FILES


def test_an_existing_file_and_a_directory_that_is_not_empty_are_refused(tmp_path, bundle, layout):
    (tmp_path / "out.plug").write_text("mine")
    with pytest.raises(DestinationRefused):
        oci.import_layout(str(layout), str(tmp_path / "out.plug"))
    assert (tmp_path / "out.plug").read_text() == "mine"
    before = sorted(path.name for path in layout.rglob("*"))
    with pytest.raises(DestinationRefused) as refused:
        oci.export(bundle, str(layout))
    assert (refused.value.id, refused.value.code) == ("PLG-STO-012", 2)
    assert sorted(path.name for path in layout.rglob("*")) == before


def test_a_file_that_is_no_bundle_is_not_exported(tmp_path):
    (tmp_path / "x.plug").write_bytes(b"x" * 5000)
    with pytest.raises(BundleError):
        oci.export(str(tmp_path / "x.plug"), str(tmp_path / "layout"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.plug"]


def test_other_artifacts_beside_the_bundle_are_passed_over(tmp_path, layout):
    """Signatures by cosign are manifests of their own; a copying registry drops the index's artifact types."""
    index, _ = load(layout)
    del index["manifests"][0]["artifactType"]
    other = {
        "schemaVersion": 2,
        "artifactType": "application/vnd.dev.cosign.artifact.sig.v1+json",
        "layers": [],
    }
    described = {"mediaType": "application/vnd.oci.image.manifest.v1+json"}
    index["manifests"].append({**described, **blob(layout, json.dumps(other).encode())})
    index["manifests"].append({"mediaType": "application/vnd.oci.image.index.v1+json", **blob(layout, b"{}")})
    index["unknown"] = {"field": 1}
    save(layout, index)
    assert oci.import_layout(str(layout), str(tmp_path / "out.plug")).envelope.version == "1.2.3"


def two(tmp_path: Path, layout: Path) -> None:
    oci.export(shop.write_bundle(tmp_path, "2.0.0", 8), str(tmp_path / "second"))
    shutil.copytree(tmp_path / "second" / "blobs", layout / "blobs", dirs_exist_ok=True)
    index, _ = load(layout)
    index["manifests"] += load(tmp_path / "second")[0]["manifests"]
    save(layout, index)


def test_of_several_bundles_one_must_be_named(tmp_path, layout):
    two(tmp_path, layout)
    with pytest.raises(OciError) as refused:
        oci.import_layout(str(layout), str(tmp_path / "out.plug"))
    assert refused.value.id == "PLG-OCI-004"
    assert "1.2.3" in refused.value.message
    digest = load(tmp_path / "second")[0]["manifests"][0]["digest"]
    for number, (ref, version) in enumerate((("1.2.3", "1.2.3"), ("2.0.0", "2.0.0"), (digest, "2.0.0"))):
        imported = oci.import_layout(str(layout), str(tmp_path / f"{number}.plug"), ref=ref)
        assert imported.envelope.version == version
    with pytest.raises(OciError) as refused:
        oci.import_layout(str(layout), str(tmp_path / "out.plug"), ref="3.0.0")
    assert refused.value.id == "PLG-OCI-003"


# Hostile layouts: each changes a good one.


def _set(path, value):
    """Set a member of index or manifest, by a path such as `manifest.layers.0.size`."""

    def change(layout):
        index, manifest = load(layout)
        whole = {"index": index, "manifest": manifest}
        *parents, last = path.split(".")
        at = whole
        for name in parents:
            at = at[int(name) if name.isdigit() else name]
        at[int(last) if last.isdigit() else last] = value
        save(layout, index, manifest if path.startswith("manifest") else None)

    return change


def _layer_path(layout):
    digest = load(layout)[1]["layers"][0]["digest"].removeprefix("sha256:")
    return layout / "blobs" / "sha256" / digest


def _flip(layout):
    path = _layer_path(layout)
    data = bytearray(path.read_bytes())
    data[-2000] ^= 1
    path.write_bytes(data)


def _link_blob(layout):
    path = _layer_path(layout)
    path.rename(layout.parent / "outside")
    path.symlink_to(layout.parent / "outside")


def _link_blobs(layout):
    (layout / "blobs").rename(layout.parent / "outside")
    (layout / "blobs").symlink_to(layout.parent / "outside")


def _fifo(layout):
    path = _layer_path(layout)
    path.unlink()
    os.mkfifo(path)


def _edited_manifest(layout):
    digest = load(layout)[0]["manifests"][0]["digest"].removeprefix("sha256:")
    path = layout / "blobs" / "sha256" / digest
    path.write_bytes(path.read_bytes().replace(b"1.2.3", b"9.9.9"))


def _another_bundle(layout):
    index, manifest = load(layout)
    manifest["layers"][0] |= blob(layout, kit.pack(manifest_bytes=kit.manifest(release=8)))
    save(layout, index, manifest)


def _no_bundle(layout):
    index, manifest = load(layout)
    manifest["layers"][0] |= blob(layout, b"x" * 4096)
    save(layout, index, manifest)


def _spoilt_signature(layout):
    index, manifest = load(layout)
    pieces = kit.parts()
    name = next(name for name in pieces if len(name) == 64)
    pieces[name] = kit.raw_entry(
        f"PLUGSEC/signatures/{name}.sshsig".encode(), kit.armour(kit.ACME, kit.manifest(release=8))
    )
    manifest["layers"][0] |= blob(layout, b"".join(pieces.values()))
    del manifest["annotations"]
    save(layout, index, manifest)


def _write(name, content):
    return lambda layout: (layout / name).write_bytes(content)


def _many(layout):
    index, _ = load(layout)
    index["manifests"] *= oci.MAX_MANIFESTS + 1
    save(layout, index)


def _large_file(name, size):
    def change(layout):
        with (layout / name).open("r+b") as file:
            file.truncate(size)

    return change


def _remove(name):
    return lambda layout: (layout / name).unlink()


def _named_pipe(name):
    def change(layout):
        (layout / name).unlink()
        os.mkfifo(layout / name)

    return change


def _link(name):
    def change(layout):
        (layout / name).rename(layout.parent / "outside")
        (layout / name).symlink_to(layout.parent / "outside")

    return change


HEX = "sha256:" + "0" * 64
HOSTILE = {
    "no oci-layout": (_remove("oci-layout"), "PLG-OCI-001"),
    "no index": (_remove("index.json"), "PLG-OCI-001"),
    "another layout version": (_write("oci-layout", b'{"imageLayoutVersion":"2.0.0"}'), "PLG-OCI-001"),
    "an oci-layout that is a list": (_write("oci-layout", b"[]"), "PLG-OCI-001"),
    "an oci-layout without end": (_large_file("oci-layout", 1 << 30), "PLG-OCI-005"),
    "an index without end": (_large_file("index.json", 1 << 40), "PLG-OCI-005"),
    "an index that is not JSON": (_write("index.json", b"{"), "PLG-OCI-001"),
    "an index that nests": (_write("index.json", b"[" * 100_000), "PLG-OCI-001"),
    "an index with a key twice": (_write("index.json", b'{"manifests":[],"manifests":[]}'), "PLG-OCI-001"),
    "an index that is a pipe": (_named_pipe("index.json"), "PLG-OCI-001"),
    "an index that is a link": (_link("index.json"), "PLG-OCI-001"),
    "an index of another schema": (_set("index.schemaVersion", 1), "PLG-OCI-001"),
    "no list of manifests": (_set("index.manifests", {}), "PLG-OCI-001"),
    "no manifests": (_set("index.manifests", []), "PLG-OCI-003"),
    "too many manifests": (_many, "PLG-OCI-005"),
    "a descriptor that is text": (_set("index.manifests", ["x"]), "PLG-OCI-001"),
    "a digest that is a path": (
        _set("index.manifests.0.digest", "sha256:../../../index.json"),
        "PLG-OCI-001",
    ),
    "a digest in capitals": (_set("index.manifests.0.digest", "sha256:" + "A" * 64), "PLG-OCI-001"),
    "a digest of another kind": (_set("index.manifests.0.digest", "sha512:" + "0" * 128), "PLG-OCI-001"),
    "a digest without kind": (_set("index.manifests.0.digest", "0" * 64), "PLG-OCI-001"),
    "a digest of nothing there": (_set("index.manifests.0.digest", HEX), "PLG-OCI-001"),
    "a size below zero": (_set("index.manifests.0.size", -1), "PLG-OCI-001"),
    "a size that is true": (_set("index.manifests.0.size", True), "PLG-OCI-001"),
    "another size": (_set("index.manifests.0.size", 5), "PLG-OCI-002"),
    "a manifest too large to read": (_set("index.manifests.0.size", 1 << 40), "PLG-OCI-005"),
    "annotations that are a list": (_set("index.manifests.0.annotations", []), "PLG-OCI-001"),
    "annotations that are numbers": (_set("index.manifests.0.annotations", {"a": 1}), "PLG-OCI-001"),
    "a manifest that was edited": (_edited_manifest, "PLG-OCI-002"),
    "a manifest of another artifact": (_set("manifest.artifactType", "application/x"), "PLG-OCI-003"),
    "a manifest of another schema": (_set("manifest.schemaVersion", 1), "PLG-OCI-001"),
    "no layers": (_set("manifest.layers", []), "PLG-OCI-001"),
    "a layer of another type": (_set("manifest.layers.0.mediaType", "application/x"), "PLG-OCI-001"),
    "a layer of another size": (_set("manifest.layers.0.size", 5), "PLG-OCI-002"),
    "a layer too large to read": (_set("manifest.layers.0.size", 1 << 50), "PLG-OCI-005"),
    "a layer with another digest": (_flip, "PLG-OCI-002"),
    "a layer that is a link": (_link_blob, "PLG-OCI-001"),
    "blobs that are a link": (_link_blobs, "PLG-OCI-001"),
    "a layer that is a pipe": (_fifo, "PLG-OCI-002"),
    "a layer that is another bundle": (_another_bundle, "PLG-OCI-002"),
    "a layer that is no bundle": (_no_bundle, "PLG-BND-003"),
    "a bundle with a spoilt signature": (_spoilt_signature, "PLG-SIG-005"),
}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("named", [True, False], ids=["to a file", "to its own name"])
def test_a_hostile_layout_is_refused_and_nothing_is_written(name, named, tmp_path, layout, monkeypatch):
    change, error_id = HOSTILE[name]
    change(layout)
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(SigningError) as refused:
        oci.import_layout(str(layout), str(here / "out.plug") if named else None)
    assert refused.value.id == error_id
    assert list(here.iterdir()) == []
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("name", ["missing", "a file", "nul\0"])
def test_what_is_no_directory_is_exit_2(name, tmp_path):
    (tmp_path / "a file").write_text("")
    with pytest.raises(DestinationRefused) as refused:
        oci.import_layout(str(tmp_path / name))
    assert refused.value.code == 2


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150, deadline=None)
@given(
    name=st.sampled_from(["index.json", "oci-layout", "manifest"]),
    value=st.recursive(
        st.none() | st.booleans() | st.integers(-9, 9) | st.sampled_from(["", HEX, oci.ARTIFACT_TYPE]),
        lambda each: (
            st.lists(each, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    [
                        "schemaVersion",
                        "manifests",
                        "layers",
                        "digest",
                        "size",
                        "mediaType",
                        "annotations",
                        "artifactType",
                    ]
                ),
                each,
                max_size=5,
            )
        ),
        max_leaves=12,
    ),
)
def test_a_layout_of_any_shape_is_refused_in_our_words(tmp_path, layout, name, value):
    original = (layout / "index.json").read_bytes()
    try:
        if name == "manifest":
            index, manifest = load(layout)
            save(layout, index, {**manifest, **value} if isinstance(value, dict) else value)
        else:
            (layout / name).write_text(json.dumps(value))
        try:
            oci.import_layout(str(layout), str(tmp_path / "out.plug"))
        except SigningError:
            assert not (tmp_path / "out.plug").exists()
        (tmp_path / "out.plug").unlink(missing_ok=True)
    finally:
        (layout / "index.json").write_bytes(original)
        (layout / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')


def test_one_manifest_under_many_references_is_read_once(tmp_path, layout, monkeypatch):
    """Red team, second pass, 7: what is kept of a stranger's layout does not grow with what it repeats."""
    index, manifest = load(layout)
    manifest["ballast"] = [[] for _ in range(15_000)]
    save(layout, index, manifest)
    index, _ = load(layout)
    index["manifests"] *= oci.MAX_MANIFESTS
    (layout / "index.json").write_text(json.dumps(index))
    read = []
    real = oci._object
    monkeypatch.setattr(oci, "_object", lambda data, name: read.append(name) or real(data, name))
    oci.import_layout(str(layout), str(tmp_path / "out.plug"))
    assert len(read) == 3, "oci-layout, index.json, one manifest"


def test_a_manifest_larger_than_any_of_ours_is_not_parsed(tmp_path, layout):
    index, manifest = load(layout)
    manifest["ballast"] = "x" * oci.MAX_MANIFEST_BYTES
    save(layout, index, manifest)
    with pytest.raises(SigningError) as refused:
        oci.import_layout(str(layout), str(tmp_path / "out.plug"))
    assert refused.value.id == "PLG-OCI-005"
    assert not (tmp_path / "out.plug").exists()
