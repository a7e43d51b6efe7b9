"""docs/formats/bundle.md is enough to write a reader, and what it says about the golden file is so."""

import hashlib
import os
import re
import subprocess

import independent_reader
import pytest
import signing_kit as kit
from hypothesis import given, settings
from hypothesis import strategies as st

from plugsec_signing import canonical, keys, sshsig
from plugsec_signing.errors import SigningError
from plugsec_signing.verify import verify_bundle

HERE = os.path.dirname(os.path.abspath(__file__))
GOLDEN = os.path.join(HERE, "golden", "wordfreq-1.2.3.plug")
PAGE = os.path.join(HERE, "..", "..", "docs", "formats", "bundle.md")
REFUSALS = (AssertionError, LookupError, ValueError, StopIteration, TypeError, AttributeError)


def golden() -> bytes:
    with open(GOLDEN, "rb") as file:
        return file.read()


def page() -> str:
    with open(PAGE, encoding="utf-8") as file:
        return file.read()


def test_the_golden_file_is_verified():
    evidence = verify_bundle(GOLDEN, kit.store(), kit.NOW)
    assert evidence.signers[0].fingerprint == keys.fingerprint(kit.ACME.public)
    assert evidence.untrusted == (keys.fingerprint(kit.REVIEW.public),)


def test_the_writer_makes_the_golden_file_from_its_contents():
    manifest, _, payload = independent_reader.read(golden())
    again = kit.pack(payload, signers=(kit.ACME, kit.REVIEW), manifest_bytes=canonical.encode(manifest))
    assert again == golden()


def test_a_reader_written_from_the_page_accepts_the_golden_file():
    manifest, signatures, payload = independent_reader.read(golden())
    assert manifest["name"] == "acme/wordfreq"
    assert len(signatures) == 2
    assert [len(data) for data in payload.values()] == [512, 0, 9, 10, 2, 17]


def test_what_the_page_says_of_the_golden_file_is_so():
    data, text = golden(), page()
    evidence = verify_bundle(GOLDEN, kit.store(), kit.NOW)
    assert f"| size | {len(data)} bytes |" in text
    assert f"`{hashlib.sha256(data).hexdigest()}`" in text
    assert f"`{evidence.bundle_id}`" in text
    table = re.findall(r"^\| (\d+) \| (\d*) ?\| (.*) \|$", text.partition("## 6.")[2], re.MULTILINE)
    assert len(table) == 10
    for at, size, path in table[:-1]:
        block = data[int(at) : int(at) + 512]
        prefix, name = (block[start:end].rstrip(b"\0") for start, end in ((345, 500), (0, 100)))
        stored = (prefix + b"/" if prefix else b"") + name
        assert (int(block[124:135], 8), f"`{stored.decode()}`") == (int(size), path)
    assert data[int(table[-1][0]) :] == bytes(1024)
    shown = bytearray(512)
    for offset, octets in re.findall(
        r"^([0-9a-f]{8})  ((?:[0-9a-f]{2} ){15}[0-9a-f]{2})", text, re.MULTILINE
    ):
        shown[int(offset, 16) : int(offset, 16) + 16] = bytes.fromhex(octets)
    assert bytes(shown) == data[:512]


def test_the_shell_check_of_the_page_verifies_the_golden_file(tmp_path):
    kit.stock("ssh-keygen")
    kit.stock("tar")
    commands = re.search(r"```console\n(.*?)```", page(), re.DOTALL)[1]
    script = "set -e\n" + "".join(line[2:] + "\n" for line in commands.splitlines() if line.startswith("$ "))
    for name in ("wordfreq-1.2.3.plug", "acme.pub"):
        os.symlink(os.path.join(HERE, "golden", name), tmp_path / name)
    done = subprocess.run(["sh", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert 'Good "plugsec-manifest@v1" signature for acme' in done.stdout


def attested() -> bytes:
    with open(os.path.join(HERE, "golden", "attested-1.2.3.plug"), "rb") as file:
        return file.read()


def test_the_attested_golden_file_is_what_the_page_says():
    data = attested()
    assert f"{len(data)} bytes, SHA-256 `{hashlib.sha256(data).hexdigest()}`" in page()
    found = verify_bundle(os.path.join(HERE, "golden", "attested-1.2.3.plug"), kit.store(), kit.NOW)
    assert found.bundle_id == verify_bundle(GOLDEN, kit.store(), kit.NOW).bundle_id
    assert [each.predicate_type for each in found.attestations] == ["https://example.org/review/v1"]
    assert _both(data) == (True, True)


def test_the_shell_check_of_an_attestation_verifies_the_golden_file(tmp_path):
    kit.stock("ssh-keygen")
    kit.stock("tar")
    commands = re.findall(r"```console\n(.*?)```", page(), re.DOTALL)[1]
    script = "set -e\n" + "".join(line[2:] + "\n" for line in commands.splitlines() if line.startswith("$ "))
    for name in ("attested-1.2.3.plug", "review.pub"):
        os.symlink(os.path.join(HERE, "golden", name), tmp_path / name)
    done = subprocess.run(["sh", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert 'Good "plugsec-attestation@v1" signature for review' in done.stdout


@given(st.integers(0, 11775), st.integers(1, 255))
@settings(max_examples=300)
def test_both_readers_refuse_any_changed_byte_of_an_attested_bundle(at, change):
    data = bytearray(attested())
    data[at] ^= change
    ours, theirs = _both(bytes(data))
    assert not ours
    assert not theirs or 512 <= at < 1488 or 2048 <= at < 2362 or 3072 <= at < 3386


def _both(data: bytes) -> tuple[bool, bool]:
    try:
        independent_reader.read(data)
        theirs = True
    except REFUSALS:
        theirs = False
    fd = os.memfd_create("bundle")
    try:
        os.write(fd, data)
        verify_bundle(f"/proc/self/fd/{fd}", kit.store(), kit.NOW)
        ours = True
    except SigningError:
        ours = False
    finally:
        os.close(fd)
    return ours, theirs


@given(st.integers(0, 10239), st.integers(1, 255))
@settings(max_examples=300)
def test_both_readers_refuse_any_changed_byte_outside_the_signatures_mathematics(at, change):
    data = bytearray(golden())
    data[at] ^= change
    ours, theirs = _both(bytes(data))
    assert not ours
    signed = 512 <= at < 1488  # the manifest, and the two signatures over it
    signature = 2048 <= at < 2362 or 3072 <= at < 3386
    assert not theirs or signed or signature


@pytest.mark.parametrize("cut", range(0, 10240, 512))
def test_both_readers_refuse_a_missing_block(cut):
    data = golden()
    assert _both(data[:cut] + data[cut + 512 :]) == (False, False)


def test_both_readers_accept_the_bundle_with_one_signature_less():
    data = golden()
    without = data[:2560] + data[3584:]
    assert _both(without) == (True, True)


OTHERS = re.findall(
    r"^\| `tests/signing/golden/(\w+\.sshsig)` \| `([^`]+)`.* \| `([0-9a-f]{64})` \|$", page(), re.MULTILINE
)


@pytest.mark.parametrize(("file_name", "algorithm", "name"), OTHERS)
def test_the_golden_signatures_of_the_other_algorithms_are_as_the_page_says(
    file_name, algorithm, name, tmp_path
):
    with open(os.path.join(HERE, "golden", file_name), "rb") as file:
        armour = file.read()
    manifest = canonical.encode(independent_reader.read(golden())[0])
    key = sshsig.verify(sshsig.parse(armour), manifest, sshsig.NAMESPACE_MANIFEST)
    assert (key.algorithm, keys.fingerprint(key)) == (algorithm, name)
    independent_reader.check_signature(name, armour, b"plugsec-manifest@v1")
    (tmp_path / "s").write_bytes(armour)
    (tmp_path / "allowed").write_text(f"acme {keys.public_line(key)}\n")
    command = [kit.stock("ssh-keygen"), "-Y", "verify", "-f", "allowed", "-I", "acme", "-s", "s"]
    done = subprocess.run(
        [*command, "-n", "plugsec-manifest@v1"],
        cwd=tmp_path,
        input=manifest,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_the_page_shows_a_signature_of_each_other_algorithm():
    assert [algorithm for _, algorithm, _ in OTHERS] == ["sk-ssh-ed25519@openssh.com", "ecdsa-sha2-nistp256"]


@given(st.sampled_from(OTHERS), st.integers(0, 10**6), st.integers(1, 255))
def test_both_readers_refuse_any_changed_byte_of_them_outside_the_mathematics(other, at, change):
    with open(os.path.join(HERE, "golden", other[0]), "rb") as file:
        armour = bytearray(file.read())
    armour[at % len(armour)] ^= change
    manifest = canonical.encode(independent_reader.read(golden())[0])
    with pytest.raises(SigningError):
        sshsig.verify(sshsig.parse(bytes(armour)), manifest, sshsig.NAMESPACE_MANIFEST)
    try:
        independent_reader.check_signature(other[2], bytes(armour), b"plugsec-manifest@v1")
    except REFUSALS:
        return
    # What is left to the mathematics is the signature itself: the end of the text before the armour's.
    assert at % len(armour) > len(armour) // 2
