"""Signatures are those of `ssh-keygen -Y`, and one signature has one spelling."""

import base64
import os
import subprocess

import pytest
import signing_kit as kit
from hypothesis import given, settings
from hypothesis import strategies as st

from plugsec_signing import keys, sshsig, wire
from plugsec_signing.errors import KeyRefused, SignatureRefused, SigningError

MESSAGE = kit.manifest()
NAMESPACE = sshsig.NAMESPACE_MANIFEST
GOOD = kit.armour(kit.ACME, MESSAGE)
KEY = kit.ACME.public
RAW = sshsig.parse(GOOD).signature


def armoured(blob: bytes, width: int = 70, newline: bytes = b"\n") -> bytes:
    text = base64.b64encode(blob)
    lines = [text[at : at + width] for at in range(0, len(text), width)]
    return newline.join((b"-----BEGIN SSH SIGNATURE-----", *lines, b"-----END SSH SIGNATURE-----", b""))


def blob(**fields: bytes) -> bytes:
    """An SSHSIG blob by hand; each field may be replaced by raw bytes."""
    s = wire.string
    return b"".join((
        fields.get("magic", b"SSHSIG"),
        fields.get("version", b"\0\0\0\1"),
        fields.get("key", s(KEY.blob)),
        fields.get("namespace", s(NAMESPACE.encode())),
        fields.get("reserved", s(b"")),
        fields.get("hash", s(b"sha512")),
        fields.get("signature", s(s(b"ssh-ed25519") + s(RAW))),
        fields.get("rest", b""),
    ))  # fmt: skip


s = wire.string
RSA_KEY = s(s(b"ssh-rsa") + s(b"\1\0\1") + s(b"\0" + b"\xff" * 256))
P256_KEY = s(s(b"ecdsa-sha2-nistp256") + s(b"nistp256") + s(kit.P256_POINT))
SK_KEY = s(s(b"sk-ssh-ed25519@openssh.com") + s(KEY.raw) + s(b"ssh:"))
CERTIFICATE = s(s(b"ssh-ed25519-cert-v01@openssh.com") + s(bytes(32)) + s(KEY.raw))
IDENTITY = (1).to_bytes(32, "little")

MALFORMED = {
    "empty": (b"", "PLG-SIG-001"),
    "garbage": (b"garbage", "PLG-SIG-001"),
    "armour only": (armoured(b""), "PLG-SIG-001"),
    "CRLF": (armoured(blob(), newline=b"\r\n"), "PLG-SIG-001"),
    "leading newline": (b"\n" + GOOD, "PLG-SIG-001"),
    "junk before": (b"x\n" + GOOD, "PLG-SIG-001"),
    "junk after": (GOOD + b"junk\n", "PLG-SIG-001"),
    "newline after": (GOOD + b"\n", "PLG-SIG-001"),
    "no newline at the end": (GOOD[:-1], "PLG-SIG-001"),
    "two signatures": (GOOD + GOOD, "PLG-SIG-001"),
    "not base64": (GOOD.replace(b"U1NIU0lH", b"U1N*U0lH"), "PLG-SIG-001"),
    "spaces in the armour": (GOOD.replace(b"U1NIU0lH", b"U1NI U0lH"), "PLG-SIG-001"),
    "NUL in the armour": (GOOD.replace(b"U1NIU0lH", b"U1NI\0U0lH"), "PLG-SIG-001"),
    "other line width": (armoured(blob(), width=76), "PLG-SIG-002"),
    "one long line": (armoured(blob(), width=10_000), "PLG-SIG-002"),
    "empty line inside": (GOOD.replace(b"\nU1NIU0lH", b"\n\nU1NIU0lH"), "PLG-SIG-002"),
    "17 KiB": (armoured(blob(rest=bytes(13_000))), "PLG-SIG-001"),
    "wrong magic": (armoured(blob(magic=b"SSHSIH")), "PLG-SIG-001"),
    "version 2": (armoured(blob(version=b"\0\0\0\2")), "PLG-SIG-001"),
    "bytes after the last field": (armoured(blob(rest=b"\0")), "PLG-SIG-001"),
    "length beyond the end": (armoured(blob(signature=b"\xff\xff\xff\xff")), "PLG-SIG-001"),
    "no signature field": (armoured(blob(signature=b"")), "PLG-SIG-001"),
    "inner field cut": (armoured(blob(signature=s(s(b"ssh-ed25519")))), "PLG-SIG-001"),
    "inner field with rest": (armoured(blob(signature=s(s(b"ssh-ed25519") + s(RAW) + b"x"))), "PLG-SIG-001"),
    "reserved field in use": (armoured(blob(reserved=s(b"x"))), "PLG-SIG-002"),
    "sha256": (armoured(blob(hash=s(b"sha256"))), "PLG-SIG-003"),
    "hash with NUL": (armoured(blob(hash=s(b"sha512\0"))), "PLG-SIG-003"),
    "RSA signature by an Ed25519 key": (
        armoured(blob(signature=s(s(b"rsa-sha2-512") + s(RAW)))),
        "PLG-SIG-003",
    ),
    "FIDO signature by a plain key": (
        armoured(blob(signature=s(s(b"sk-ssh-ed25519@openssh.com") + s(RAW)))),
        "PLG-SIG-003",
    ),
    "RSA key": (armoured(blob(key=RSA_KEY)), "PLG-KEY-003"),
    "Ed25519 signature by an ECDSA key": (armoured(blob(key=P256_KEY)), "PLG-SIG-003"),
    "Ed25519 signature by a FIDO key": (armoured(blob(key=SK_KEY)), "PLG-SIG-003"),
    "certificate": (armoured(blob(key=CERTIFICATE)), "PLG-KEY-003"),
    "key with rest": (armoured(blob(key=s(KEY.blob + b"x"))), "PLG-KEY-001"),
    "31-byte key": (armoured(blob(key=s(s(b"ssh-ed25519") + s(KEY.raw[:31])))), "PLG-KEY-001"),
    "empty key": (armoured(blob(key=s(b""))), "PLG-KEY-003"),
    "identity as key": (armoured(blob(key=s(s(b"ssh-ed25519") + s(IDENTITY)))), "PLG-KEY-002"),
    "non-canonical key": (armoured(blob(key=s(s(b"ssh-ed25519") + s(b"\xff" * 32)))), "PLG-KEY-002"),
    "namespace not UTF-8": (armoured(blob(namespace=s(b"\xff"))), "PLG-SIG-002"),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_signature_is_refused(name):
    data, error_id = MALFORMED[name]
    with pytest.raises((SignatureRefused, KeyRefused)) as caught:
        sshsig.parse(data)
    assert (caught.value.id, caught.value.code) == (error_id, 3)


def test_a_reserved_field_in_use_is_named():
    with pytest.raises(SignatureRefused, match="reserved"):
        sshsig.parse(MALFORMED["reserved field in use"][0])


def test_the_signature_packed_by_hand_is_the_one_we_write():
    assert armoured(blob()) == GOOD


def test_a_truncated_signature_is_refused_at_every_length():
    for length in range(len(GOOD)):
        with pytest.raises(SignatureRefused):
            sshsig.parse(GOOD[:length])


UNVERIFIED = {
    "empty signature": (blob(signature=s(s(b"ssh-ed25519") + s(b""))), "PLG-SIG-006"),
    "63 bytes": (blob(signature=s(s(b"ssh-ed25519") + s(RAW[:63]))), "PLG-SIG-006"),
    "65 bytes": (blob(signature=s(s(b"ssh-ed25519") + s(RAW + b"\0"))), "PLG-SIG-006"),
    "zeros": (blob(signature=s(s(b"ssh-ed25519") + s(bytes(64)))), "PLG-SIG-006"),
    "another key": (blob(key=s(kit.STRANGER.public.blob)), "PLG-SIG-005"),
    "git namespace": (blob(namespace=s(b"git")), "PLG-SIG-004"),
    "file namespace": (blob(namespace=s(b"file")), "PLG-SIG-004"),
    "receipt namespace": (blob(namespace=s(b"plugsec-receipt@v1")), "PLG-SIG-004"),
    "empty namespace": (blob(namespace=s(b"")), "PLG-SIG-004"),
    "namespace with NUL": (blob(namespace=s(b"plugsec-manifest@v1\0")), "PLG-SIG-004"),
}


@pytest.mark.parametrize("name", UNVERIFIED)
def test_a_well_formed_signature_that_proves_nothing_is_refused(name):
    data, error_id = UNVERIFIED[name]
    signature = sshsig.parse(armoured(data))
    with pytest.raises(SignatureRefused) as caught:
        sshsig.verify(signature, MESSAGE, NAMESPACE)
    assert (caught.value.id, caught.value.code) == (error_id, 3)


@pytest.mark.parametrize("namespace", ["git", "file", "plugsec-receipt@v1", "plugsec-manifest@v2"])
def test_a_signature_made_for_another_purpose_is_not_replayed(namespace):
    signature = sshsig.parse(kit.armour(kit.ACME, MESSAGE, namespace))
    sshsig.verify(signature, MESSAGE, namespace)
    with pytest.raises(SignatureRefused) as caught:
        sshsig.verify(signature, MESSAGE, NAMESPACE)
    assert caught.value.id == "PLG-SIG-004"
    with pytest.raises(SignatureRefused) as caught:  # nor by renaming it
        sshsig.verify(signature._replace(namespace=NAMESPACE), MESSAGE, NAMESPACE)
    assert caught.value.id == "PLG-SIG-005"


def test_verification_returns_the_key_as_evidence():
    assert sshsig.verify(sshsig.parse(GOOD), MESSAGE, NAMESPACE) == KEY


@given(st.binary(max_size=400))
@settings(max_examples=300)
def test_any_bytes_are_a_signature_or_are_refused_within_our_tree(data):
    for candidate in (data, armoured(data), armoured(b"SSHSIG\0\0\0\1" + data)):
        with pytest.raises(SigningError):
            sshsig.verify(sshsig.parse(candidate), MESSAGE, NAMESPACE)


@given(st.integers(0, len(GOOD) - 1), st.integers(1, 255))
@settings(max_examples=300)
def test_no_changed_byte_of_a_signature_is_accepted(at, change):
    data = GOOD[:at] + bytes([GOOD[at] ^ change]) + GOOD[at + 1 :]
    with pytest.raises(SigningError):
        sshsig.verify(sshsig.parse(data), MESSAGE, NAMESPACE)


@given(st.binary(max_size=300), st.sampled_from([NAMESPACE, "git", "x"]))
def test_what_we_sign_we_verify(message, namespace):
    data = kit.armour(kit.REVIEW, message, namespace)
    signature = sshsig.parse(data)
    assert sshsig.encode(signature) == data
    assert sshsig.verify(signature, message, namespace) == kit.REVIEW.public


# Both ways with the stock program.


@pytest.fixture(params=["made here", "made by ssh-keygen", "made by ssh-keygen with a passphrase"])
def pair(request, tmp_path):
    """A key file, its passphrase and the stock program."""
    program = kit.stock("ssh-keygen")
    path = str(tmp_path / "key")
    passphrase = b"correct horse" if "passphrase" in request.param else b""
    if request.param == "made here":
        keys.generate_keypair(str(tmp_path), "key", None, "me")
    else:
        subprocess.run(
            [program, "-q", "-t", "ed25519", "-N", passphrase.decode(), "-C", "me@here", "-f", path],
            check=True,
        )
    return path, passphrase, program


def _stock_sign(program, path, passphrase, message_path):
    """Sign with ssh-keygen, giving a passphrase the only way it takes one without a terminal."""
    environment = dict(os.environ)
    if passphrase:
        helper = path + ".askpass"
        with open(helper, "w") as file:
            file.write(f"#!/bin/sh\necho '{passphrase.decode()}'\n")
        os.chmod(helper, 0o700)
        environment.update(SSH_ASKPASS=helper, SSH_ASKPASS_REQUIRE="force", DISPLAY=":0")
    subprocess.run(
        [program, "-q", "-Y", "sign", "-f", path, "-n", NAMESPACE, message_path],
        check=True, env=environment, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    with open(message_path + ".sig", "rb") as file:
        return file.read()


def test_our_signature_is_byte_for_byte_that_of_ssh_keygen(pair, tmp_path):
    path, passphrase, program = pair
    message = tmp_path / "m"
    message.write_bytes(MESSAGE)
    theirs = _stock_sign(program, path, passphrase, str(message))
    ours = sshsig.sign(keys.load_private_key(path, lambda: passphrase), MESSAGE, NAMESPACE)
    assert ours == theirs
    key = sshsig.verify(sshsig.parse(theirs), MESSAGE, NAMESPACE)
    with open(path + ".pub") as file:
        assert keys.parse_public_key(file.read()).blob == key.blob


def test_ssh_keygen_verifies_our_signature_and_refuses_it_for_other_bytes(pair, tmp_path):
    path, passphrase, program = pair
    private = keys.load_private_key(path, lambda: passphrase)
    (tmp_path / "allowed").write_text(f'acme namespaces="{NAMESPACE}" {keys.public_line(private.public)}\n')
    (tmp_path / "s").write_bytes(sshsig.sign(private, MESSAGE, NAMESPACE))
    command = [program, "-Y", "verify", "-f", "allowed", "-I", "acme", "-n", NAMESPACE, "-s", "s"]
    for message, verdict in ((MESSAGE, 0), (MESSAGE + b" ", 255)):
        done = subprocess.run(command, input=message, cwd=tmp_path, capture_output=True, check=False)
        assert done.returncode == verdict, done.stderr
    found = subprocess.run(
        [program, "-Y", "find-principals", "-f", "allowed", "-s", "s"],
        cwd=tmp_path,
        capture_output=True,
        check=True,
    )
    assert found.stdout == b"acme\n"
    shown = subprocess.run(
        [program, "-Y", "check-novalidate", "-n", NAMESPACE, "-s", "s"],
        cwd=tmp_path, input=MESSAGE, capture_output=True, check=True,
    ).stdout.decode()  # fmt: skip
    assert keys.ssh_fingerprint(private.public) in shown


def test_fingerprints_are_those_that_ssh_keygen_prints(pair):
    path, passphrase, program = pair
    shown = subprocess.run([program, "-l", "-f", path + ".pub"], capture_output=True, check=True).stdout
    key = keys.load_private_key(path, lambda: passphrase).public
    assert keys.ssh_fingerprint(key).encode() == shown.split()[1]


def test_a_signature_by_ssh_keygen_over_sha256_is_refused_with_the_way_out(tmp_path):
    program = kit.stock("ssh-keygen")
    keys.generate_keypair(str(tmp_path), "key", None)
    done = subprocess.run(
        [program, "-Y", "sign", "-f", "key", "-n", NAMESPACE, "-O", "hashalg=sha256"],
        cwd=tmp_path, input=MESSAGE, capture_output=True, check=True,
    )  # fmt: skip
    with pytest.raises(SignatureRefused) as caught:
        sshsig.parse(done.stdout)
    assert "hashalg=sha512" in caught.value.hint
