"""A bundle inside one Zstandard frame is the same bundle; a frame that would hurt is refused."""

import hashlib
import io
import os
import subprocess
import sys
import tracemalloc

import pytest
import signing_kit as kit
from hypothesis import given, settings
from hypothesis import strategies as st

from plugsec_signing import bundle, rewrite, zstd
from plugsec_signing.errors import BundleError, SigningError
from plugsec_signing.verify import verify_bundle

library = pytest.importorskip("backports.zstd", reason="the extra plugsec[zstd] is not installed")
STORE = kit.store()
PLAIN = kit.pack()
MAGIC = b"\x28\xb5\x2f\xfd"
FRAME = library.compress(PLAIN)
SKIPPABLE = b"\x50\x2a\x4d\x18" + (4).to_bytes(4, "little") + b"junk"


def raw_frame(*blocks: bytes, window: int = 0x50) -> bytes:
    """A frame by hand, without content size or checksum; `window` is RFC 8878's Window_Descriptor."""
    return MAGIC + bytes((0x00, window)) + b"".join(blocks)


def rle(byte: bytes, count: int, *, last: bool = False) -> bytes:
    """A block that says one byte `count` times, in four bytes."""
    return (last | 1 << 1 | count << 3).to_bytes(3, "little") + byte


ATTACKS = {
    "truncated": (FRAME[:-1], "PLG-BND-004"),
    "magic only": (MAGIC, "PLG-BND-004"),
    "without its last block": (FRAME[:20], "PLG-BND-004"),
    "a byte behind the frame": (FRAME + b"x", "PLG-BND-019"),
    "the frame twice": (FRAME * 2, "PLG-BND-019"),
    "a skippable frame behind": (FRAME + SKIPPABLE, "PLG-BND-019"),
    "a skippable frame before": (SKIPPABLE + FRAME, "PLG-BND-003"),
    "an empty frame behind": (FRAME + library.compress(b""), "PLG-BND-019"),
    "split over two frames": (library.compress(PLAIN[:3000]) + library.compress(PLAIN[3000:]), "PLG-BND-019"),
    "an empty frame": (library.compress(b""), "PLG-BND-004"),
    "nonsense inside": (library.compress(b"nonsense" * 200), "PLG-BND-003"),
    "a frame inside a frame": (library.compress(FRAME + bytes(600)), "PLG-BND-003"),
    "bytes behind the bundle inside": (library.compress(PLAIN + b"x"), "PLG-BND-014"),
    "a bundle truncated inside": (library.compress(PLAIN[:-1]), "PLG-BND-004"),
    "a reserved block": (raw_frame(b"\x07\x00\x00"), "PLG-BND-018"),
    "a window of 16 MiB": (raw_frame(rle(b"P", 100_000), window=0x70), "PLG-BND-018"),
    "a window of 3.75 TiB": (raw_frame(rle(b"P", 100_000), window=0xFF), "PLG-BND-018"),
    "a dictionary": (MAGIC + b"\x01\x50\x07" + rle(b"P", 1000, last=True), "PLG-BND-018"),
    "a gibibyte of zeros": (raw_frame(*[rle(b"\0", 0x1FFFF)] * 8192), "PLG-BND-003"),
}  # fmt: skip


@pytest.mark.parametrize("name", ATTACKS)
def test_a_frame_that_is_not_one_bundle_is_refused(name, bundle_path):
    data, error_id = ATTACKS[name]
    with pytest.raises(SigningError) as caught:
        verify_bundle(bundle_path(data), STORE, kit.NOW, keep_payload=True)
    assert (caught.value.id, caught.value.code) == (error_id, 4)


def test_a_wrong_checksum_is_refused(bundle_path):
    framed = library.compress(PLAIN, options={library.CompressionParameter.checksum_flag: 1})
    with pytest.raises(BundleError) as caught:
        verify_bundle(bundle_path(framed[:-1] + bytes([framed[-1] ^ 1])), STORE, kit.NOW)
    assert caught.value.id == "PLG-BND-018"


def test_the_bundle_inside_is_the_same_bundle(bundle_path):
    plain = verify_bundle(bundle_path(PLAIN), STORE, kit.NOW)
    framed = verify_bundle(bundle_path(FRAME, "wordfreq-1.2.3.plug.zst"), STORE, kit.NOW, keep_payload=True)
    assert (framed.bundle_id, framed.signers, framed.warnings) == (plain.bundle_id, plain.signers, ())
    kept = {each.path: os.pread(framed.payload.fd, each.size, each.offset) for each in framed.payload.entries}
    assert kept == kit.FILES
    framed.close()


def test_signing_and_attesting_keep_a_compressed_bundle_compressed(bundle_path):
    path = bundle_path(library.compress(kit.pack(signers=())))
    rewrite.rewrite_signatures(
        path, lambda head: rewrite.with_signature(head, kit.armour(kit.ACME, kit.manifest()))
    )
    with open(path, "rb") as file:
        data = file.read()
    assert data.startswith(MAGIC)
    assert library.decompress(data) == PLAIN


def test_a_bomb_gets_no_further_than_the_caps(bundle_path):
    """A manifest entry that claims 8 MiB and swells: at most the buffer and the caps are ever held."""
    header = kit.raw_header(b"PLUGSEC/manifest.json", 8 * 1024 * 1024)
    first = (len(header) << 3).to_bytes(3, "little") + header
    path = bundle_path(raw_frame(first, *[rle(b"[", 0x1FFFF)] * 4096))  # 16 KiB that say half a gibibyte
    tracemalloc.start()
    try:
        with pytest.raises(SigningError) as caught:
            verify_bundle(path, STORE, kit.NOW)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert caught.value.id == "PLG-JSN-004"
    assert peak < 64 * 1024 * 1024


SCRIPT = """
import sys
from plugsec_signing.trust import TrustStore, parse_trust_toml
from plugsec_signing.verify import verify_bundle
verify_bundle(sys.argv[1], TrustStore.from_plain([parse_trust_toml(sys.argv[2])]), int(sys.argv[3]))
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


@pytest.mark.parametrize("compressed", [False, True])
def test_a_bundle_of_a_gigabyte_is_verified_in_64_mib(compressed, bundle_path):
    size = 1024**3
    digest, block = hashlib.sha256(), bytes(1 << 20)
    for _ in range(size >> 20):
        digest.update(block)

    class Zeros(io.RawIOBase):
        left = size

        def read(self, count=-1):
            given = min(count, self.left)
            self.left -= given
            return block[:given]

    content = kit.manifest(files=[{"path": "big", "size": size, "mode": 420, "sha256": digest.hexdigest()}])
    path = bundle_path(b"")

    with open(path, "wb") as out:
        frame = zstd.FrameWriter(out) if compressed else None
        bundle.write_bundle(frame or out, content, kit.signatures(content, kit.ACME), {}, lambda _: Zeros())
        if frame:
            frame.finish()
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, path, kit.trust_text(), str(kit.NOW)],
        capture_output=True,
        check=True,
        text=True,
        env=environment,
    )
    os.unlink(path)  # pytest keeps the directories of its last runs
    assert int(done.stdout) < 64 * 1024  # KiB of resident memory at the peak


def test_without_the_extra_a_compressed_bundle_is_refused_in_words(bundle_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "backports.zstd", None)
    monkeypatch.delattr("backports.zstd", raising=False)
    with pytest.raises(BundleError, match="without Zstandard") as caught:
        verify_bundle(bundle_path(FRAME), STORE, kit.NOW)
    assert (caught.value.id, caught.value.code) == ("PLG-BND-017", 4)
    assert "plugsec[zstd]" in caught.value.hint
    assert verify_bundle(bundle_path(PLAIN), STORE, kit.NOW).signers


def test_the_stock_program_makes_and_reads_frames(bundle_path, tmp_path):
    program = kit.stock("zstd")
    made = subprocess.run([program, "-19", "-c"], input=PLAIN, capture_output=True, check=True).stdout
    assert verify_bundle(bundle_path(made), STORE, kit.NOW).signers
    out = io.BytesIO()
    writer = zstd.FrameWriter(out)
    writer.write(PLAIN)
    writer.finish()
    assert (
        subprocess.run([program, "-dc"], input=out.getvalue(), capture_output=True, check=True).stdout
        == PLAIN
    )


def test_an_uncompressed_bundle_loads_no_decompressor(bundle_path):
    code = (
        "import sys; sys.modules['backports.zstd'] = None\n"
        "import signing_kit as kit\nfrom plugsec_signing.verify import verify_bundle\n"
        "verify_bundle(sys.argv[1], kit.store(), kit.NOW); print('plugsec_signing.zstd' in sys.modules)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([os.path.dirname(__file__), *sys.path])}
    done = subprocess.run(
        [sys.executable, "-c", code, bundle_path(PLAIN)],
        capture_output=True,
        check=True,
        text=True,
        env=environment,
    )
    assert done.stdout.strip() == "False"


@given(st.binary(max_size=600), st.integers(0, len(FRAME)), st.integers(0, len(FRAME)))
@settings(max_examples=300, deadline=None)
def test_any_bytes_after_the_magic_are_refused_within_our_tree(data, start, end):
    for candidate in (MAGIC + data, FRAME[:start] + data + FRAME[max(start, end) :]):
        fd = os.memfd_create("bundle")
        try:
            os.write(fd, candidate)
            verify_bundle(f"/proc/self/fd/{fd}", STORE, kit.NOW)
        except SigningError as err:
            assert err.code in (2, 3, 4)
        else:
            assert library.decompress(candidate) == PLAIN
        finally:
            os.close(fd)
