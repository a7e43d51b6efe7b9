"""`verify_bundle` returns evidence or refuses, and what it kept nobody can change."""

import contextlib
import fcntl
import hashlib
import io
import os
import resource
import subprocess
import sys

import pytest
import signing_kit as kit

from plugsec_signing import bundle, keys, payload, rewrite
from plugsec_signing.errors import BundleError, SignatureRefused, SigningError, TrustRefused
from plugsec_signing.verify import (
    UnsafeUnsignedBundle,
    VerifiedBundle,
    verify_bundle,
    verify_unsafe_unsigned,
)

STORE = kit.store()
MANIFEST = kit.manifest()
ACME, REVIEW, STRANGER = (keys.fingerprint(each.public) for each in (kit.ACME, kit.REVIEW, kit.STRANGER))


def signed(signatures: dict[str, bytes], manifest: bytes = MANIFEST) -> bytes:
    out = io.BytesIO()
    bundle.write_bundle(out, manifest, signatures, {}, lambda entry: io.BytesIO(kit.FILES[entry.path]))
    return out.getvalue()


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_a_good_bundle_yields_all_the_evidence(good):
    evidence = verify_bundle(good, STORE, kit.NOW)
    assert type(evidence) is VerifiedBundle
    assert evidence.envelope.name == "acme/wordfreq"
    assert evidence.bundle_id == "sha256:" + hashlib.sha256(MANIFEST).hexdigest()
    assert evidence.signers == (("acme-release", "acme", "release", ACME),)
    assert evidence.untrusted == ()
    assert evidence.trust_digest == STORE.digest
    assert (evidence.path, evidence.warnings, evidence.payload) == (good, (), None)


def test_evidence_is_frozen(good):
    evidence = verify_bundle(good, STORE, kit.NOW)
    for name in ("signers", "bundle_id", "payload", "new"):
        with pytest.raises(AttributeError):
            setattr(evidence, name, ())
    with pytest.raises(AttributeError):
        del evidence.signers


def test_an_untrusted_but_valid_extra_signature_is_accepted_and_reported(bundle_path):
    path = bundle_path(kit.pack(signers=(kit.ACME, kit.STRANGER)))
    evidence = verify_bundle(path, STORE, kit.NOW)
    assert [signer.fingerprint for signer in evidence.signers] == [ACME]
    assert evidence.untrusted == (STRANGER,)


def test_adding_a_signature_keeps_the_bundle_id(bundle_path):
    one = verify_bundle(bundle_path(kit.pack(), "a.plug"), STORE, kit.NOW)
    two = verify_bundle(bundle_path(kit.pack(signers=(kit.ACME, kit.REVIEW)), "b.plug"), STORE, kit.NOW)
    assert one.bundle_id == two.bundle_id


BAD_SIGNATURES = {
    "over another manifest": ({ACME: kit.armour(kit.ACME, kit.manifest(release=8))}, "PLG-SIG-005"),
    "for another purpose": ({ACME: kit.armour(kit.ACME, MANIFEST, "git")}, "PLG-SIG-004"),
    "named for another key": ({REVIEW: kit.armour(kit.ACME, MANIFEST)}, "PLG-SIG-007"),
    "empty": ({ACME: b""}, "PLG-SIG-001"),
    "one bad among enough good": (
        {ACME: kit.armour(kit.ACME, MANIFEST), STRANGER: kit.armour(kit.STRANGER, MANIFEST + b" ")},
        "PLG-SIG-005",
    ),
    "garbage among enough good": ({ACME: kit.armour(kit.ACME, MANIFEST), "0" * 64: b"x"}, "PLG-SIG-001"),
}


@pytest.mark.parametrize("name", BAD_SIGNATURES)
def test_one_signature_that_does_not_verify_refuses_the_bundle(name, bundle_path):
    signatures, error_id = BAD_SIGNATURES[name]
    path = bundle_path(signed(signatures))
    with pytest.raises(SignatureRefused) as caught:
        verify_bundle(path, STORE, kit.NOW)
    assert (caught.value.id, caught.value.code) == (error_id, 3)
    with pytest.raises(SignatureRefused):  # the bypass does not bypass this
        verify_unsafe_unsigned(path)


UNTRUSTED = {
    "unsigned": ((), {}, kit.NOW, "PLG-TRU-001"),
    "unknown key": ((kit.STRANGER,), {}, kit.NOW, "PLG-TRU-002"),
    "trusted for another plugin": ((kit.ACME,), {"plugins": ["acme/other*"]}, kit.NOW, "PLG-TRU-003"),
    "not yet valid": ((kit.ACME,), {"valid_after": "2030-01-01"}, kit.NOW, "PLG-TRU-004"),
    "clock moved back": ((kit.ACME,), {"valid_after": "2026-01-01"}, 0, "PLG-TRU-004"),
    "expired": ((kit.ACME,), {"valid_before": "2027-01-01"}, kit.NOW, "PLG-TRU-005"),
    "reviewed but not released": ((kit.ACME,), {"role": "review"}, kit.NOW, "PLG-TRU-006"),
}


@pytest.mark.parametrize("name", UNTRUSTED)
def test_a_bundle_that_nobody_trusted_released_is_refused(name, bundle_path):
    signers, fields, now, error_id = UNTRUSTED[name]
    path = bundle_path(kit.pack(signers=signers))
    with pytest.raises(TrustRefused) as caught:
        verify_bundle(path, kit.store(kit.trust_text(**fields)), now)
    assert (caught.value.id, caught.value.code) == (error_id, 3)
    assert caught.value.hint


def test_a_bundle_is_refused_from_the_second_it_expires(bundle_path):
    manifest = kit.manifest(expires="2027-01-01T00:00:00Z")
    path = bundle_path(kit.pack(manifest_bytes=manifest))
    verify_bundle(path, STORE, 1798761599)
    with pytest.raises(TrustRefused) as caught:
        verify_bundle(path, STORE, 1798761600)
    assert caught.value.id == "PLG-TRU-007"


@pytest.mark.parametrize(
    ("text", "error_id"),
    [
        (MANIFEST + b"\n", "PLG-JSN-008"),
        (MANIFEST.replace(b',"name"', b', "name"'), "PLG-JSN-008"),
        (MANIFEST.replace(b'"release":7', b'"release":7,"release":7'), "PLG-JSN-005"),
        (MANIFEST.replace(b'"release":7', b'"release":7.0'), "PLG-JSN-006"),
        (MANIFEST.replace(b'"release":7', b'"release":' + b"9" * 5000), "PLG-JSN-006"),
        (b"\xef\xbb\xbf" + MANIFEST, "PLG-JSN-002"),
        (b"[" * 100_000 + b"]" * 100_000, "PLG-JSN-004"),
        (b"", "PLG-JSN-003"),
    ],
)
def test_a_signed_manifest_in_another_spelling_is_refused(text, error_id, bundle_path):
    pieces = kit.parts()
    pieces["manifest"] = kit.raw_entry(b"PLUGSEC/manifest.json", text)
    pieces[ACME] = kit.raw_entry(f"PLUGSEC/signatures/{ACME}.sshsig".encode(), kit.armour(kit.ACME, text))
    with pytest.raises(SigningError) as caught:
        verify_bundle(bundle_path(b"".join(pieces.values())), STORE, kit.NOW)
    assert (caught.value.id, caught.value.code) == (error_id, 4)


def test_a_file_name_that_disagrees_is_a_warning(bundle_path):
    evidence = verify_bundle(bundle_path(kit.pack(), "other-9.9.9.plug"), STORE, kit.NOW)
    assert evidence.warnings == (
        "the file is called 'other-9.9.9.plug', its manifest says wordfreq-1.2.3.plug",
    )


def test_the_bypass_gives_a_type_of_its_own(bundle_path):
    evidence = verify_unsafe_unsigned(bundle_path(kit.pack(signers=())))
    assert type(evidence) is UnsafeUnsignedBundle
    assert not isinstance(evidence, VerifiedBundle)
    assert (evidence.signers, evidence.trust_digest) == ((), "")
    changed = bytearray(kit.pack(signers=()))
    changed[-1024 - 512] ^= 1
    with pytest.raises(BundleError):
        verify_unsafe_unsigned(bundle_path(bytes(changed)))


# The payload that is kept.


def test_the_kept_payload_is_exactly_what_was_verified(good):
    evidence = verify_bundle(good, STORE, kit.NOW, keep_payload=True)
    try:
        kept = {
            entry.path: (os.pread(evidence.payload.fd, entry.size, entry.offset), entry.mode)
            for entry in evidence.payload.entries
        }
        assert kept == {path: (data, 0o755 if path == "run" else 0o644) for path, data in kit.FILES.items()}
        assert os.fstat(evidence.payload.fd).st_size == sum(map(len, kit.FILES.values()))
        assert not os.get_inheritable(evidence.payload.fd)
    finally:
        evidence.close()
    assert evidence.payload is None
    evidence.close()  # a second time is no mistake


def test_the_kept_payload_cannot_be_changed_by_anybody(good):
    evidence = verify_bundle(good, STORE, kit.NOW, keep_payload=True)
    fd = evidence.payload.fd
    seals = fcntl.fcntl(fd, fcntl.F_GET_SEALS)
    wanted = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
    assert seals & wanted == wanted
    for attempt in (
        lambda: os.pwrite(fd, b"x", 0),
        lambda: os.truncate(fd, 0),
        lambda: os.truncate(fd, 1 << 20),
        lambda: os.pwrite(os.open(f"/proc/self/fd/{fd}", os.O_RDWR), b"x", 0),
    ):
        with pytest.raises(PermissionError):
            attempt()
    evidence.close()


def test_swapping_the_file_after_verification_changes_nothing(good, bundle_path):
    evidence = verify_bundle(good, STORE, kit.NOW, keep_payload=True)
    bundle_path(kit.pack({"run": b"evil"}))
    entry = next(each for each in evidence.payload.entries if each.path == "run")
    assert os.pread(evidence.payload.fd, entry.size, entry.offset) == kit.FILES["run"]
    evidence.close()


def test_a_payload_too_large_for_memory_is_refused_before_it_is_read(bundle_path):
    size = payload.PAYLOAD_IN_MEMORY_MAX + 1
    content = kit.manifest(files=[{"path": "big", "size": size, "mode": 420, "sha256": "0" * 64}])
    pieces = {
        "manifest": kit.raw_entry(b"PLUGSEC/manifest.json", content),
        "signature": kit.raw_entry(
            f"PLUGSEC/signatures/{ACME}.sshsig".encode(), kit.armour(kit.ACME, content)
        ),
        "header": kit.raw_header(b"big", size),
    }
    path = bundle_path(b"".join(pieces.values()))
    with pytest.raises(BundleError) as caught:
        verify_bundle(path, STORE, kit.NOW, keep_payload=True)
    assert caught.value.id == "PLG-BND-015"
    with pytest.raises(BundleError) as caught:  # without keeping it, only the missing bytes are wrong
        verify_bundle(path, STORE, kit.NOW)
    assert caught.value.id == "PLG-BND-004"


def test_no_descriptor_is_left_open_whatever_happens(bundle_path):
    whole = kit.pack()
    before = descriptors()
    for data in (whole, whole[:-1], whole[:2000], b"", whole[:-600] + b"x" + whole[-599:]):
        with contextlib.suppress(SigningError):
            verify_bundle(bundle_path(data), STORE, kit.NOW, keep_payload=True).close()
    for path in ("/nonexistent", "/"):
        with pytest.raises(SigningError):
            verify_bundle(path, STORE, kit.NOW)
    assert descriptors() == before


# Adding signatures.


def test_a_signature_is_added_in_place_and_nothing_else_changes(bundle_path):
    path = bundle_path(kit.pack(signers=()))
    os.chmod(path, 0o640)
    for private in (kit.STRANGER, kit.ACME, kit.ACME):  # the same key twice is one signature
        rewrite.rewrite_signatures(
            path,
            lambda head, by=private: rewrite.with_signature(
                head, kit.armour(by, head.envelope.manifest_bytes)
            ),
        )
    with open(path, "rb") as file:
        assert file.read() == kit.pack(signers=(kit.ACME, kit.STRANGER))
    assert os.stat(path).st_mode & 0o777 == 0o640
    assert os.listdir(os.path.dirname(path)) == [os.path.basename(path)]


def test_a_link_to_a_bundle_stays_a_link(bundle_path, tmp_path):
    path = bundle_path(kit.pack(signers=()))
    link = str(tmp_path / "link.plug")
    os.symlink(path, link)
    rewrite.rewrite_signatures(
        link, lambda head: rewrite.with_signature(head, kit.armour(kit.ACME, MANIFEST))
    )
    assert os.readlink(link) == path
    assert verify_bundle(path, STORE, kit.NOW).signers


@pytest.mark.parametrize(
    "data",
    [
        kit.pack()[:-1],
        kit.pack(signers=())[:-1024] + b"x" * 1024,
        signed({ACME: kit.armour(kit.ACME, MANIFEST + b" ")}),
        b"not a bundle",
    ],
)
def test_a_bundle_that_does_not_hold_is_not_signed_and_stays_as_it_was(data, bundle_path, tmp_path):
    path = bundle_path(data)
    with pytest.raises(SigningError):
        rewrite.rewrite_signatures(
            path, lambda head: rewrite.with_signature(head, kit.armour(kit.STRANGER, MANIFEST))
        )
    with open(path, "rb") as file:
        assert file.read() == data
    assert os.listdir(tmp_path) == [os.path.basename(path)]


def test_a_disk_that_fills_up_while_signing_leaves_the_old_file_and_no_other(good, tmp_path):
    with open(good, "rb") as file:
        before = file.read()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))
    try:
        with pytest.raises(BundleError, match="cannot be replaced"):
            rewrite.rewrite_signatures(
                good, lambda head: rewrite.with_signature(head, kit.armour(kit.REVIEW, MANIFEST))
            )
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    with open(good, "rb") as file:
        assert file.read() == before
    assert os.listdir(tmp_path) == [os.path.basename(good)]


def test_a_signature_over_something_else_is_not_added(good):
    with open(good, "rb") as file:
        before = file.read()
    for armour in (kit.armour(kit.STRANGER, b"else"), kit.armour(kit.STRANGER, MANIFEST, "git"), b"junk"):
        with pytest.raises(SignatureRefused):
            rewrite.rewrite_signatures(good, lambda head, a=armour: rewrite.with_signature(head, a))
    with open(good, "rb") as file:
        assert file.read() == before


# What a run pays for.

FORBIDDEN = [
    "dataclasses",
    "pathlib",
    "tomllib",
    "logging",
    "subprocess",
    "asyncio",
    "tempfile",
    "typer",
    "rich",
    "psutil",
    "pyseccomp",
    "jsonschema_rs",
    "pydantic",
    "inspect",
    "urllib",
    "cryptography",
    "datetime",
    "plugsec_signing.trust_toml",
    "plugsec_signing.trust_edit",
    "plugsec_signing.rewrite",
    "plugsec_signing.error_ids",
]


def test_importing_what_a_run_needs_loads_nothing_heavy():
    code = (
        "import sys, plugsec_signing.verify, plugsec_signing.trust;"
        f"print([name for name in {FORBIDDEN!r} if name in sys.modules])"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-S", "-c", code], capture_output=True, check=True, text=True, env=environment
    )
    assert done.stdout.strip() == "[]"
