"""The container is byte for byte the one that its manifest describes, or it is refused."""

import hashlib
import io
import os
import subprocess
import tarfile
import tracemalloc

import pytest
import signing_kit as kit
from hostile_containers import ACME, ATTACKS, GOOD, SIGNATURE, joined
from hypothesis import given, settings
from hypothesis import strategies as st

from plugsec_signing import bundle, ustar
from plugsec_signing.errors import BundleError, PathError, SigningError
from plugsec_signing.paths import check_paths
from plugsec_signing.verify import open_bundle, verify_bundle

STORE = kit.store()


@pytest.mark.parametrize("name", ATTACKS)
def test_a_container_that_its_manifest_does_not_describe_is_refused(name, bundle_path):
    data, error_id = ATTACKS[name]
    with pytest.raises(SigningError) as caught:
        verify_bundle(bundle_path(data), STORE, kit.NOW, keep_payload=True)
    assert (caught.value.id, caught.value.code) == (error_id, 4)


def test_a_wrong_checksum_is_refused(bundle_path):
    data = bytearray(GOOD)
    at = GOOD.index(kit.parts()["run"]) + 148
    data[at : at + 6] = b"000000"
    with pytest.raises(BundleError, match="checksum") as caught:
        verify_bundle(bundle_path(bytes(data)), STORE, kit.NOW)
    assert caught.value.id == "PLG-BND-005"


def test_our_writer_makes_the_headers_that_were_packed_by_hand():
    assert kit.pack() == GOOD


def test_a_bundle_truncated_anywhere_is_refused(bundle_path):
    whole = kit.pack()
    path = bundle_path(whole)
    for length in reversed(range(len(whole))):
        os.truncate(path, length)
        with pytest.raises(BundleError) as caught:
            verify_bundle(path, STORE, kit.NOW)
        assert caught.value.id == "PLG-BND-004", length


def test_a_bundle_with_any_byte_changed_is_refused(bundle_path):
    whole = kit.pack()
    path = bundle_path(whole)
    with open(path, "r+b", buffering=0) as file:
        for at, byte in enumerate(whole):
            os.pwrite(file.fileno(), bytes([byte ^ (1 << at % 8)]), at)
            with pytest.raises(SigningError) as caught:
                verify_bundle(path, STORE, kit.NOW)
            assert caught.value.code in (3, 4), at
            os.pwrite(file.fileno(), bytes([byte]), at)
    assert verify_bundle(path, STORE, kit.NOW).signers  # the loop changed nothing for good


def test_a_million_entries_are_refused_at_the_first_one_too_many(bundle_path):
    entry = kit.raw_header(b"z", 0)
    path = bundle_path(GOOD[:-1024])
    with open(path, "ab") as file:
        for _ in range(1000):
            file.write(entry * 1000)
    with pytest.raises(BundleError) as caught:
        verify_bundle(path, STORE, kit.NOW)
    assert caught.value.id == "PLG-BND-013"


def test_ten_thousand_signatures_are_refused_at_the_seventeenth(bundle_path):
    many = b"".join(
        kit.raw_entry(b"PLUGSEC/signatures/%064x.sshsig" % number, b"x") for number in range(10_000)
    )
    with pytest.raises(BundleError) as caught:
        verify_bundle(bundle_path(joined(**{ACME: many})), STORE, kit.NOW)
    assert caught.value.id == "PLG-BND-006"


def test_an_attestation_under_another_name_is_refused(bundle_path):
    entry = kit.raw_entry(b"PLUGSEC/attestations/" + b"0" * 64 + b".dsse.json", b"{}")
    with pytest.raises(BundleError) as caught:
        verify_bundle(bundle_path(joined(**{ACME: SIGNATURE + entry})), STORE, kit.NOW)
    assert caught.value.id == "PLG-BND-008"


@pytest.mark.parametrize("change", [b"", b"short", b"#!/bin/sh\n and more"])
def test_the_writer_refuses_contents_that_changed_under_it(change):
    files = {**kit.FILES, "run": change}
    with pytest.raises(BundleError) as caught:
        bundle.write_bundle(io.BytesIO(), kit.manifest(), {}, {}, lambda entry: io.BytesIO(files[entry.path]))
    assert caught.value.id == "PLG-BND-012"


def test_the_writer_refuses_what_the_reader_would():
    with pytest.raises(BundleError) as caught:
        bundle.write_bundle(
            io.BytesIO(), kit.manifest(), {f"{n:064x}": b"x" for n in range(17)}, {}, lambda _: io.BytesIO()
        )
    assert caught.value.id == "PLG-BND-006"


def test_the_reader_needs_constant_memory(bundle_path):
    size = 48 * 1024 * 1024

    class Zeros(io.RawIOBase):
        left = size

        def read(self, count=-1):
            given = min(count, self.left)
            self.left -= given
            return bytes(given)

    digest = hashlib.sha256(bytes(size)).hexdigest()
    content = kit.manifest(files=[{"path": "big", "size": size, "mode": 420, "sha256": digest}])
    path = bundle_path(b"")
    tracemalloc.start()
    try:
        with open(path, "wb") as out:
            bundle.write_bundle(out, content, kit.signatures(content, kit.ACME), {}, lambda _: Zeros())
        verify_bundle(path, STORE, kit.NOW)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4 * 1024 * 1024


@pytest.mark.parametrize("kind", ["missing", "directory", "fifo", "device", "NUL in the name"])
def test_what_is_no_regular_file_is_refused_without_waiting(kind, tmp_path):
    path = str(tmp_path / "x.plug")
    if kind == "directory":
        os.mkdir(path)
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "device":
        path = "/dev/zero"
    elif kind == "NUL in the name":
        path += "\0"
    with pytest.raises(BundleError) as caught:
        verify_bundle(path, STORE, kit.NOW)
    expected = ("PLG-BND-001", 2) if kind in ("missing", "NUL in the name") else ("PLG-BND-002", 4)
    assert (caught.value.id, caught.value.code) == expected


def test_bytes_that_arrive_after_opening_come_from_the_same_file(bundle_path, tmp_path):
    """Swapping the archive between the steps of a reading changes nothing: one descriptor is read."""
    path = bundle_path(kit.pack())

    class Swapping:
        seen = b""

        def head(self, head):
            os.rename(path, path + ".old")
            bundle_path(b"another file altogether")

        def begin(self, entry):
            """Every step swaps again."""
            os.replace(bundle_path(os.urandom(512), "next"), path)

        def chunk(self, data):
            self.seen += bytes(data)

    fd, sink = open_bundle(path), Swapping()
    bundle.read_bundle(fd, sink)
    os.close(fd)
    assert sink.seen == b"".join(kit.FILES[name] for name in sorted(kit.FILES))


# Interoperability: others read what we write, and write what we read.


def test_python_tarfile_reads_the_bundle():
    with tarfile.open(fileobj=io.BytesIO(kit.pack()), mode="r:") as archive:
        members = archive.getmembers()
        assert [m.name for m in members[2:]] == sorted(kit.FILES)
        assert all(m.isreg() and (m.uid, m.gid, m.mtime, m.uname) == (0, 0, 0, "") for m in members)
        assert archive.extractfile("run").read() == kit.FILES["run"]


def test_gnu_tar_writes_the_same_bytes(tmp_path):
    tar = kit.stock("tar")
    if b"GNU tar" not in subprocess.run([tar, "--version"], capture_output=True, check=True).stdout:
        pytest.skip("tar is not GNU tar")
    long = "p" * 60 + "/" + "q" * 60
    files = {**kit.FILES, long: b"x" * 1000}
    content = kit.manifest(files)
    tree = {
        "PLUGSEC/manifest.json": content,
        f"PLUGSEC/signatures/{ACME}.sshsig": kit.signatures(content, kit.ACME)[ACME],
        **dict(sorted(files.items())),
    }
    for name, data in tree.items():
        target = tmp_path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
        target.chmod(0o755 if name == "run" else 0o644)
    written = subprocess.run(
        [tar, "--format=ustar", "--owner=0", "--group=0", "--numeric-owner", "--mtime=@0",
         "--blocking-factor=1", "-cf", "-", *tree],
        cwd=tmp_path, capture_output=True, check=True,
    ).stdout  # fmt: skip
    assert written == kit.pack(files)


# Properties.

NAMES = st.from_regex(r"[a-c]{1,3}(/[a-c]{1,3}){0,2}", fullmatch=True)


def _allowed(files):
    try:
        check_paths(files)
    except PathError:
        return False
    return True


TREES = st.dictionaries(NAMES, st.binary(max_size=1100), min_size=1, max_size=5).filter(_allowed)


class Collecting:
    def __init__(self):
        self.files = {}

    def head(self, head):
        self.signatures = dict(head.signatures)

    def begin(self, entry):
        self.path = entry.path
        self.files[entry.path] = b""

    def chunk(self, data):
        self.files[self.path] += bytes(data)


def read(data: bytes) -> Collecting:
    sink = Collecting()
    fd = os.memfd_create("bundle")
    try:
        os.write(fd, data)
        bundle.read_bundle(fd, sink)
    finally:
        os.close(fd)
    return sink


@given(TREES)
def test_what_is_written_is_read_back_and_written_the_same(files):
    data = kit.pack(files)
    found = read(data)
    assert found.files == files
    assert kit.pack(dict(reversed(files.items()))) == data


@given(st.binary(max_size=3000))
@settings(max_examples=300)
def test_any_bytes_are_refused_within_our_tree(data):
    for candidate in (data, GOOD[:512] + data, GOOD[:2048] + data):
        with pytest.raises(SigningError):
            read(candidate)


EDITS = st.lists(
    st.tuples(st.integers(0, len(GOOD)), st.integers(0, 1024), st.binary(max_size=600) | st.just(bytes(512))),
    min_size=1,
    max_size=3,
)


@given(EDITS)
@settings(max_examples=500)
def test_an_edited_bundle_is_refused_unless_the_edit_changed_nothing(edits):
    data = GOOD
    for at, removed, inserted in edits:
        data = data[:at] + inserted + data[at + removed :]
    fd = os.memfd_create("bundle")
    try:
        os.write(fd, data)
        verify_bundle(f"/proc/self/fd/{fd}", STORE, kit.NOW)
    except SigningError:
        assert data != GOOD
    else:
        assert data == GOOD
    finally:
        os.close(fd)


@given(st.binary(min_size=512, max_size=512))
def test_any_header_is_matched_or_refused_within_our_tree(block):
    assert ustar.size_field(block) is None or 0 <= ustar.size_field(block) < 8**11
    assert b"\0" not in ustar.name_field(block)
