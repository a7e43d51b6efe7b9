"""A bundle as a directory: what `tar xf` would make of it, all of it or nothing, and only if it verifies."""

import os
import stat
import subprocess
from pathlib import Path

import pytest
import signing_kit as kit
import store_kit as shop

from plugsec_signing.errors import BundleError, DestinationRefused, TrustRefused
from plugsec_signing.unpack import unpack
from plugsec_signing.verify import verify_bundle, verify_unsafe_unsigned


def verified(path):
    return lambda sink: verify_bundle(path, shop.TRUST, kit.NOW, also=sink)


def tree(root: Path):
    return {
        str(path.relative_to(root)): (stat.S_IMODE(path.stat().st_mode), path.is_file() and path.read_bytes())
        for path in sorted(root.rglob("*"))
    }


@pytest.fixture
def bundle(tmp_path):
    return shop.write_bundle(tmp_path, signers=(kit.ACME, kit.REVIEW))


@pytest.mark.parametrize("umask", [0o022, 0o077, 0])
def test_the_directory_is_the_one_that_tar_makes_whatever_the_umask(umask, tmp_path, bundle):
    tar = kit.stock("tar")
    (tmp_path / "tar").mkdir()
    subprocess.run([tar, "xpf", bundle, "-C", str(tmp_path / "tar")], check=True)
    old = os.umask(umask)
    try:
        evidence = unpack(str(tmp_path / "ours"), verified(bundle))
    finally:
        os.umask(old)
    ours, theirs = tree(tmp_path / "ours"), tree(tmp_path / "tar")
    assert {name: content for name, (_, content) in ours.items()} == {
        name: content for name, (_, content) in theirs.items()
    }
    files = [name for name in ours if ours[name][1] is not False]
    assert {name: ours[name][0] for name in files} == {name: theirs[name][0] for name in files}
    assert {mode for mode, content in ours.values() if content is False} == {0o755}
    assert evidence.envelope.name == "acme/wordfreq"


def test_the_check_with_stock_tools_holds_for_what_was_unpacked(tmp_path, bundle):
    jq, sha256sum = kit.stock("jq"), kit.stock("sha256sum")
    unpack(str(tmp_path / "ours"), verified(bundle))
    script = f"""{jq} -r '.files[]|"\\(.sha256)  \\(.path)"' PLUGSEC/manifest.json | {sha256sum} -c --quiet"""
    subprocess.run(script, shell=True, cwd=tmp_path / "ours", check=True)


def test_an_empty_directory_is_filled_and_a_full_one_refused(tmp_path, bundle):
    (tmp_path / "empty").mkdir()
    unpack(str(tmp_path / "empty"), verified(bundle))
    assert (tmp_path / "empty" / "run").read_bytes() == kit.FILES["run"]
    before = tree(tmp_path / "empty")
    with pytest.raises(DestinationRefused) as refused:
        unpack(str(tmp_path / "empty"), verified(bundle))
    assert (refused.value.id, refused.value.code) == ("PLG-STO-012", 2)
    assert tree(tmp_path / "empty") == before


def _file(path):
    path.write_text("mine")


def _link(path):
    path.symlink_to(path.parent)


def _dangling(path):
    path.symlink_to(path.parent / "nowhere")


@pytest.mark.parametrize("make", [_file, _link, _dangling])
def test_a_destination_that_is_something_else_is_refused_and_left_alone(make, tmp_path, bundle):
    make(tmp_path / "there")
    before = sorted(path.name for path in tmp_path.iterdir())
    with pytest.raises(DestinationRefused):
        unpack(str(tmp_path / "there"), verified(bundle))
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_a_destination_in_no_directory_is_refused(tmp_path, bundle):
    with pytest.raises(DestinationRefused):
        unpack(str(tmp_path / "missing" / "out"), verified(bundle))


def test_a_refused_bundle_leaves_nothing(tmp_path):
    unsigned = shop.write_bundle(tmp_path, signers=())
    cut = shop.write_bundle(tmp_path, "1.2.4")
    with open(cut, "r+b") as file:
        file.truncate(os.path.getsize(cut) - 1500)
    before = sorted(path.name for path in tmp_path.iterdir())
    with pytest.raises(TrustRefused):
        unpack(str(tmp_path / "out"), verified(unsigned))
    with pytest.raises(BundleError):
        unpack(str(tmp_path / "out"), verified(cut))
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_by_its_ugly_name_an_unsigned_bundle_is_unpacked_too(tmp_path):
    unsigned = shop.write_bundle(tmp_path, signers=())
    unpack(str(tmp_path / "out"), lambda sink: verify_unsafe_unsigned(unsigned, also=sink))
    assert not (tmp_path / "out" / "PLUGSEC" / "signatures").exists()
    assert (tmp_path / "out" / "run").read_bytes() == kit.FILES["run"]
