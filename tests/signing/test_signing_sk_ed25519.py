"""A FIDO key counts when its token was touched, for SSH, and says so under its own signature."""

import subprocess

import fido_token
import pytest
import signing_kit as kit
from hypothesis import given
from hypothesis import strategies as st

from plugsec_signing import ed25519, keys, sk_ed25519, sshsig, wire
from plugsec_signing.errors import KeyRefused, SignatureRefused, SigningError
from plugsec_signing.verify import verify_bundle

SEED = bytes([9]) * 32
MESSAGE = kit.manifest()
NAMESPACE = sshsig.NAMESPACE_MANIFEST
L = 2**252 + 27742317777372353535851937790883648493
s = wire.string


def token(seed: bytes = SEED, application: bytes = b"ssh:", **said: int) -> keys.PrivateKey:
    key = keys.parse_blob(fido_token.key_blob(seed, application))
    return keys.PrivateKey(key, lambda data: fido_token.sign(seed, data, application=application, **said))


TOKEN = token()
BLOB = TOKEN.public.blob
GOOD = sshsig.sign(TOKEN, MESSAGE, NAMESPACE)


def test_a_key_is_named_by_its_blob_and_counted_by_its_raw_bytes():
    assert TOKEN.public.algorithm == "sk-ssh-ed25519@openssh.com"
    assert TOKEN.public.raw == BLOB[-40:-8]
    assert keys.parse_public_key(keys.public_line(TOKEN.public)) == TOKEN.public
    other = token(application=b"ssh:work").public
    assert other.raw == TOKEN.public.raw and keys.fingerprint(other) != keys.fingerprint(TOKEN.public)


@pytest.mark.parametrize("flags", [0x01, 0x05, 0x41, 0xFF])
@pytest.mark.parametrize("counter", [0, 1, 2**31, 2**32 - 1])
def test_a_touched_token_is_believed_whatever_its_counter_and_other_flags(flags, counter):
    armour = sshsig.sign(token(flags=flags, counter=counter), MESSAGE, NAMESPACE)
    assert sshsig.verify(sshsig.parse(armour), MESSAGE, NAMESPACE) == TOKEN.public
    assert sshsig.one_spelling(armour) == armour


@pytest.mark.parametrize("flags", [0x00, 0x04, 0x40, 0xFE])
def test_a_signature_without_a_touch_is_refused(flags):
    armour = sshsig.sign(token(flags=flags), MESSAGE, NAMESPACE)
    with pytest.raises(SignatureRefused) as caught:
        sshsig.verify(sshsig.parse(armour), MESSAGE, NAMESPACE)
    assert (caught.value.id, caught.value.code) == ("PLG-SIG-009", 3)


def changed(signature: bytes, at: int, value: int) -> bytes:
    return signature[:at] + bytes([value]) + signature[at + 1 :]


UNTOUCHED = fido_token.sign(SEED, b"m", flags=0)
TOUCHED = fido_token.sign(SEED, b"m")
LATER = int.from_bytes(TOUCHED[32:64], "little") + L
UNPROVEN = {
    "a lie about the touch": (changed(UNTOUCHED, 64, 1), "PLG-SIG-005"),
    "a lie about the finger": (changed(TOUCHED, 64, 5), "PLG-SIG-005"),
    "a lie about the counter": (changed(TOUCHED, 68, 8), "PLG-SIG-005"),
    "another application's": (fido_token.sign(SEED, b"m", application=b"ssh:other"), "PLG-SIG-005"),
    "a website's": (fido_token.sign(SEED, b"m", application=b"https://example.org"), "PLG-SIG-005"),
    "another message's": (fido_token.sign(SEED, b"n"), "PLG-SIG-005"),
    "another key's": (fido_token.sign(bytes([8]) * 32, b"m"), "PLG-SIG-005"),
    "a plain Ed25519 signature": (
        kit.signer(9).sign(b"m") + b"\1\0\0\0\7",
        "PLG-SIG-005",
    ),
    "S + L": (TOUCHED[:32] + LATER.to_bytes(32, "little") + TOUCHED[64:], "PLG-SIG-006"),
    "R of small order": (bytes([1]) + bytes(31) + TOUCHED[32:], "PLG-SIG-006"),
    "R not canonical": (b"\xff" * 32 + TOUCHED[32:], "PLG-SIG-006"),
    "64 bytes": (TOUCHED[:64], "PLG-SIG-006"),
    "68 bytes": (TOUCHED[:68], "PLG-SIG-006"),
    "70 bytes": (TOUCHED + b"\0", "PLG-SIG-006"),
    "nothing": (b"", "PLG-SIG-006"),
}


@pytest.mark.parametrize("name", UNPROVEN)
def test_a_signature_that_proves_nothing_is_refused(name):
    signature, error_id = UNPROVEN[name]
    with pytest.raises(SignatureRefused) as caught:
        sk_ed25519.verify_blob(BLOB, signature, b"m")
    assert (caught.value.id, caught.value.code) == (error_id, 3)


def blob(key: bytes = TOKEN.public.raw, application: bytes = b"ssh:") -> bytes:
    return s(b"sk-ssh-ed25519@openssh.com") + s(key) + s(application)


KEYS = {
    "a website's key": (blob(application=b"https://example.org"), "PLG-KEY-009"),
    "no application": (blob(application=b""), "PLG-KEY-009"),
    "SSH in capitals": (blob(application=b"SSH:"), "PLG-KEY-009"),
    "ssh without colon": (blob(application=b"ssh"), "PLG-KEY-009"),
    "a NUL before": (blob(application=b"\0ssh:"), "PLG-KEY-009"),
    "a NUL after": (blob(application=b"ssh:\0"), "PLG-KEY-009"),
    "an escape": (blob(application=b"ssh:\x1b[31m"), "PLG-KEY-009"),
    "not ASCII": (blob(application="ssh:é".encode()), "PLG-KEY-009"),
    "not UTF-8": (blob(application=b"ssh:\xff"), "PLG-KEY-009"),
    "too long": (blob(application=b"ssh:" + b"x" * 252), "PLG-KEY-009"),
    "of small order": (blob(key=bytes([1]) + bytes(31)), "PLG-KEY-002"),
    "not canonical": (blob(key=b"\xff" * 32), "PLG-KEY-002"),
    "31 bytes": (blob(key=bytes(31)), "PLG-KEY-001"),
    "a byte after": (blob() + b"\0", "PLG-KEY-001"),
    "no application field": (s(b"sk-ssh-ed25519@openssh.com") + s(TOKEN.public.raw), "PLG-KEY-001"),
}


@pytest.mark.parametrize("name", KEYS)
def test_a_key_of_another_form_or_purpose_is_refused(name):
    data, error_id = KEYS[name]
    with pytest.raises(KeyRefused) as caught:
        keys.parse_blob(data)
    assert (caught.value.id, caught.value.code) == (error_id, 3)


def test_the_longest_application_is_a_key():
    assert keys.parse_blob(blob(application=b"ssh:" + b"x" * 251)).raw == TOKEN.public.raw


def test_a_bare_signature_is_not_imported():
    with pytest.raises(SignatureRefused) as caught:
        sshsig.from_bare(TOKEN.public, TOUCHED[:64], NAMESPACE)
    assert caught.value.id == "PLG-SIG-006"


def inner(fields: bytes, kind: bytes = b"sk-ssh-ed25519@openssh.com") -> bytes:
    """A whole armour around these inner fields."""
    body = b"SSHSIG\0\0\0\1" + s(BLOB) + s(NAMESPACE.encode()) + s(b"") + s(b"sha512") + s(s(kind) + fields)
    import base64

    text = base64.b64encode(body)
    lines = [text[at : at + 70] for at in range(0, len(text), 70)]
    return b"\n".join((b"-----BEGIN SSH SIGNATURE-----", *lines, b"-----END SSH SIGNATURE-----", b""))


SIGNED = sshsig.parse(GOOD).signature
MALFORMED = {
    "no flags and counter": (inner(s(SIGNED[:64])), "PLG-SIG-001"),
    "no counter": (inner(s(SIGNED[:64]) + b"\1"), "PLG-SIG-001"),
    "a byte after the counter": (inner(s(SIGNED[:64]) + SIGNED[64:] + b"\0"), "PLG-SIG-001"),
    "flags and counter inside the string": (inner(s(SIGNED)), "PLG-SIG-001"),
    "an extension string": (inner(s(SIGNED[:64]) + SIGNED[64:] + s(b"x")), "PLG-SIG-001"),
    "a length beyond the end": (inner(b"\xff\xff\xff\xff" + SIGNED), "PLG-SIG-001"),
    "type of a plain key": (inner(s(SIGNED[:64]) + SIGNED[64:], b"ssh-ed25519"), "PLG-SIG-003"),
    "type of a WebAuthn signature": (
        inner(s(SIGNED[:64]) + SIGNED[64:], b"webauthn-sk-ecdsa-sha2-nistp256@openssh.com"),
        "PLG-SIG-003",
    ),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_signature_is_refused(name):
    armour, error_id = MALFORMED[name]
    with pytest.raises(SignatureRefused) as caught:
        sshsig.parse(armour)
    assert caught.value.id == error_id


def test_the_armour_packed_by_hand_is_the_one_we_write():
    assert inner(s(SIGNED[:64]) + SIGNED[64:]) == GOOD


@given(st.integers(0, len(GOOD) - 1), st.integers(1, 255))
def test_no_changed_byte_of_a_signature_is_accepted(at, change):
    with pytest.raises(SigningError):
        sshsig.verify(sshsig.parse(changed(GOOD, at, GOOD[at] ^ change)), MESSAGE, NAMESPACE)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_key_or_are_refused_within_our_tree(data):
    for candidate in (
        data,
        s(b"sk-ssh-ed25519@openssh.com") + data,
        blob(key=data[:32], application=data[32:]),
    ):
        try:
            assert keys.parse_blob(candidate).blob == candidate
        except KeyRefused as err:
            assert err.message.isprintable()


def test_a_token_and_a_plain_key_with_the_same_bytes_do_not_sign_for_each_other():
    plain = kit.signer(9)
    assert plain.public.raw == TOKEN.public.raw
    with pytest.raises(SignatureRefused):
        ed25519.verify(plain.public.raw, TOUCHED[:64], b"m")
    with pytest.raises(SignatureRefused):
        sk_ed25519.verify_blob(BLOB, plain.sign(b"m") + b"\1\0\0\0\0", b"m")


def test_a_bundle_signed_by_a_token_is_verified_and_one_bad_signature_refuses_it(bundle_path):
    path = bundle_path(kit.pack(signers=(kit.ACME, TOKEN)))
    evidence = verify_bundle(path, kit.store(), kit.NOW)
    assert evidence.untrusted == (keys.fingerprint(TOKEN.public),)
    path = bundle_path(kit.pack(signers=(kit.ACME, token(flags=0))))
    with pytest.raises(SignatureRefused) as caught:
        verify_bundle(path, kit.store(), kit.NOW)
    assert caught.value.id == "PLG-SIG-009"


# Both ways with the stock programs: a provider library, as a real token's, stands for the hardware.


def _stock_sign(directory, provider, name):
    (directory / "m").write_bytes(MESSAGE)
    (directory / "m.sig").unlink(missing_ok=True)
    subprocess.run(
        ["ssh-keygen", "-q", "-Y", "sign", "-w", provider, "-f", name, "-n", NAMESPACE, "m"],
        cwd=directory, check=True, capture_output=True, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    return (directory / "m.sig").read_bytes()


def test_a_signature_by_ssh_keygen_with_a_token_is_accepted(provider, tmp_path):
    assert fido_token.keygen(tmp_path, provider, "k").returncode == 0
    armour = _stock_sign(tmp_path, provider, "k")
    key = sshsig.verify(sshsig.parse(armour), MESSAGE, NAMESPACE)
    assert key.blob == keys.parse_public_key((tmp_path / "k.pub").read_text()).blob
    assert sshsig.one_spelling(armour) == armour


def test_a_key_for_another_ssh_application_is_accepted(provider, tmp_path):
    assert fido_token.keygen(tmp_path, provider, "k", "-O", "application=ssh:releases").returncode == 0
    sshsig.verify(sshsig.parse(_stock_sign(tmp_path, provider, "k")), MESSAGE, NAMESPACE)


def test_ssh_keygen_signs_without_a_touch_and_accepts_it_and_we_do_not(provider, tmp_path):
    assert fido_token.keygen(tmp_path, provider, "k", "-O", "no-touch-required").returncode == 0
    armour = _stock_sign(tmp_path, provider, "k")
    novalidate = ["ssh-keygen", "-Y", "check-novalidate", "-n", NAMESPACE, "-s", "m.sig"]
    subprocess.run(novalidate, cwd=tmp_path, input=MESSAGE, check=True, capture_output=True)
    with pytest.raises(SignatureRefused) as caught:
        sshsig.verify(sshsig.parse(armour), MESSAGE, NAMESPACE)
    assert caught.value.id == "PLG-SIG-009"


def test_ssh_keygen_verifies_what_our_token_signs(tmp_path):
    program = kit.stock("ssh-keygen")
    (tmp_path / "allowed").write_text(f"acme {keys.public_line(TOKEN.public)}\n")
    (tmp_path / "s").write_bytes(GOOD)
    command = [program, "-Y", "verify", "-f", "allowed", "-I", "acme", "-n", NAMESPACE, "-s", "s"]
    for message, code in ((MESSAGE, 0), (MESSAGE + b" ", 255)):
        done = subprocess.run(command, cwd=tmp_path, input=message, capture_output=True, check=False)
        assert done.returncode == code, done.stderr


def test_the_file_of_a_token_s_key_is_refused_with_the_way_out(provider, tmp_path):
    for name, options in (("plain", ()), ("locked", ("-N", "correct horse"))):
        assert fido_token.keygen(tmp_path, provider, name, *options).returncode == 0
        with pytest.raises(KeyRefused) as caught:
            keys.load_private_key(str(tmp_path / name), lambda: pytest.fail("asked"))
        assert caught.value.id == "PLG-KEY-003"
        assert "--agent" in caught.value.hint and "--signature" in caught.value.hint
