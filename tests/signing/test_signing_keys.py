"""Keys come in one strict form, and private ones from files that only their owner can read."""

import base64
import contextlib
import os
import resource
import subprocess
import sys
import tempfile

import fido_token
import pytest
import signing_kit as kit
from cryptography.hazmat.primitives import serialization as forms
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from hypothesis import given
from hypothesis import strategies as st

from plugsec_signing import keys, sshsig, wire
from plugsec_signing.errors import KeyFileError, KeyRefused

LINE = keys.public_line(kit.ACME.public)
ENCODED = LINE.split()[1]
IDENTITY = base64.b64encode(wire.string(b"ssh-ed25519") + wire.string((1).to_bytes(32, "little"))).decode()

BAD_LINES = {
    "": "PLG-KEY-001",
    "ssh-ed25519": "PLG-KEY-001",
    "ssh-ed25519 !!!!": "PLG-KEY-001",
    "ssh-ed25519 é": "PLG-KEY-001",
    f"ssh-ed25519 {ENCODED[:-4]}": "PLG-KEY-001",
    f"ssh-ed25519 {ENCODED}AAAA": "PLG-KEY-001",
    f"ssh-ed25519 {ENCODED}=": "PLG-KEY-001",
    f"{LINE}\n{LINE}": "PLG-KEY-001",
    "ssh-ed25519 " + "A" * 20_000: "PLG-KEY-001",
    f"ssh-ed25519 {IDENTITY}": "PLG-KEY-002",
    f"ssh-rsa {ENCODED}": "PLG-KEY-003",
    f"ssh-dss {ENCODED}": "PLG-KEY-003",
    f"ecdsa-sha2-nistp256 {ENCODED}": "PLG-KEY-001",
    f"sk-ssh-ed25519@openssh.com {ENCODED}": "PLG-KEY-001",
    f"ecdsa-sha2-nistp384 {ENCODED}": "PLG-KEY-003",
    f"ecdsa-sha2-nistp521 {ENCODED}": "PLG-KEY-003",
    f"sk-ecdsa-sha2-nistp256@openssh.com {ENCODED}": "PLG-KEY-003",
    f"sk-ssh-ed25519-cert-v01@openssh.com {ENCODED}": "PLG-KEY-003",
    f"ecdsa-sha2-nistp256-cert-v01@openssh.com {ENCODED}": "PLG-KEY-003",
    f"ssh-ed448 {ENCODED}": "PLG-KEY-003",
    f"ssh-ed25519-cert-v01@openssh.com {ENCODED}": "PLG-KEY-003",
    f"cert-authority {LINE}": "PLG-KEY-003",
    f'command="/bin/sh" {LINE}': "PLG-KEY-003",
    f'acme namespaces="x" {LINE}': "PLG-KEY-003",
    f"@revoked {LINE}": "PLG-KEY-003",
}


@pytest.mark.parametrize("line", BAD_LINES, ids=lambda line: line[:40])
def test_a_line_that_is_not_one_plain_ed25519_key_is_refused(line):
    with pytest.raises(KeyRefused) as caught:
        keys.parse_public_key(line)
    assert (caught.value.id, caught.value.code) == (BAD_LINES[line], 3)


def test_a_key_whose_inner_type_differs_from_the_outer_one_is_refused():
    inner = wire.string(b"ssh-rsa") + wire.string(kit.ACME.public.raw)
    with pytest.raises(KeyRefused):
        keys.parse_public_key(f"ssh-ed25519 {base64.b64encode(inner).decode()}")


def test_a_public_line_is_read_back_with_its_comment():
    key = keys.parse_public_key(f"  {LINE} release key of acme\r\n")
    assert key.comment == "release key of acme"
    assert keys.parse_public_key(keys.public_line(key)) == key
    assert keys.fingerprint(key) == keys.fingerprint(kit.ACME.public)


@given(st.text(max_size=120) | st.text(max_size=60).map(lambda tail: f"ssh-ed25519 {ENCODED[:40]}{tail}"))
def test_any_text_is_a_key_or_is_refused_within_our_tree(text):
    try:
        keys.parse_public_key(text)
    except KeyRefused as err:
        assert err.message.isprintable()


@given(st.binary(max_size=80))
def test_any_blob_is_a_key_or_is_refused_within_our_tree(blob):
    with pytest.raises(KeyRefused):
        keys.parse_blob(blob)


@pytest.mark.parametrize("passphrase", [None, b"correct horse battery staple"])
def test_a_new_pair_signs_and_is_private_whatever_the_umask(passphrase, tmp_path):
    before = os.umask(0)
    try:
        public = keys.generate_keypair(str(tmp_path), "k", passphrase, "me")
    finally:
        os.umask(before)
    assert os.stat(tmp_path / "k").st_mode & 0o777 == 0o600
    assert os.stat(tmp_path / "k.pub").st_mode & 0o777 == 0o644
    private = keys.load_private_key(str(tmp_path / "k"), lambda: passphrase)
    assert private.public.blob == public.blob
    assert (tmp_path / "k.pub").read_text() == keys.public_line(public) + "\n"
    assert repr(private).count("Ed25519PrivateKey") == 1  # no key bytes in a representation


@pytest.mark.parametrize("passphrase", ["", "correct horse"])
def test_ssh_keygen_reads_our_private_key(passphrase, tmp_path):
    program = kit.stock("ssh-keygen")
    public = keys.generate_keypair(str(tmp_path), "k", passphrase.encode() or None)
    done = subprocess.run(
        [program, "-y", "-P", passphrase, "-f", str(tmp_path / "k")], capture_output=True, check=True
    )
    assert keys.parse_public_key(done.stdout.decode()).blob == public.blob


@pytest.mark.parametrize("existing", ["k", "k.pub"])
def test_an_existing_file_is_never_overwritten_and_no_half_pair_is_left(existing, tmp_path):
    (tmp_path / existing).write_text("precious")
    with pytest.raises(KeyFileError) as caught:
        keys.generate_keypair(str(tmp_path), "k", None)
    assert caught.value.id == "PLG-KEY-006"
    assert os.listdir(tmp_path) == [existing]
    assert (tmp_path / existing).read_text() == "precious"


def test_a_disk_that_is_full_leaves_no_half_pair(tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    for size in (0, 100, 395):  # nothing, half of the private file, all of it
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
        try:
            with pytest.raises(KeyFileError) as caught:
                keys.generate_keypair(str(tmp_path), "k", None, comment="c" * 400)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert caught.value.id == "PLG-KEY-006"
        assert os.listdir(tmp_path) == []


# What `ssh-keygen` encrypts keys with; the last is a choice that only OpenSSH itself reads.
CIPHERS = ["aes256-ctr", "aes256-cbc", "aes256-gcm@openssh.com", "chacha20-poly1305@openssh.com"]


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa"])
@pytest.mark.parametrize("cipher", CIPHERS)
def test_keys_that_ssh_keygen_encrypted_load_with_their_passphrase_alone(cipher, kind, tmp_path):
    path = str(tmp_path / "k")
    subprocess.run(
        [kit.stock("ssh-keygen"), "-q", "-t", kind, "-Z", cipher, "-a", "4", "-N", "two words", "-f", path],
        check=True,
    )
    with open(path + ".pub", encoding="utf-8") as file:
        public = keys.parse_public_key(file.read())
    if cipher.startswith("chacha20"):
        with pytest.raises(KeyFileError, match="encrypted in a way") as caught:
            keys.load_private_key(path, lambda: b"two words")
        assert "ssh-keygen -p -Z aes256-ctr" in caught.value.hint
        return
    assert keys.load_private_key(path, lambda: b"two words").public.blob == public.blob
    with pytest.raises(KeyFileError) as caught:
        keys.load_private_key(path, lambda: b"two Words")
    assert caught.value.id == "PLG-KEY-005"


@pytest.mark.parametrize("form", ["PKCS8", "RFC4716"])
def test_other_forms_that_ssh_keygen_writes_are_read(form, tmp_path):
    path = str(tmp_path / "k")
    subprocess.run(
        [kit.stock("ssh-keygen"), "-q", "-t", "ecdsa", "-m", form, "-N", "two words", "-f", path], check=True
    )
    private = keys.load_private_key(path, lambda: b"two words")
    with open(path + ".pub", encoding="utf-8") as file:
        assert keys.parse_public_key(file.read()).blob == private.public.blob


def test_ssh_keygen_signs_with_our_encrypted_key(tmp_path):
    program = kit.stock("ssh-keygen")
    public = keys.generate_keypair(str(tmp_path), "k", b"two words", "me")
    subprocess.run([program, "-q", "-p", "-P", "two words", "-N", "", "-f", "k"], cwd=tmp_path, check=True)
    done = subprocess.run(
        [program, "-Y", "sign", "-f", "k", "-n", sshsig.NAMESPACE_MANIFEST],
        cwd=tmp_path, input=b"m", capture_output=True, check=True,
    )  # fmt: skip
    assert sshsig.verify(sshsig.parse(done.stdout), b"m", sshsig.NAMESPACE_MANIFEST).blob == public.blob


FIDO = keys.parse_blob(fido_token.key_blob(bytes([1]) * 32))
ECDSA = keys.parse_blob(
    wire.string(b"ecdsa-sha2-nistp256") + wire.string(b"nistp256") + wire.string(kit.P256_POINT)
)


def test_a_line_that_names_another_algorithm_than_its_blob_is_refused():
    lines = {key.algorithm: keys.public_line(key).split()[1] for key in (kit.ACME.public, FIDO, ECDSA)}
    for algorithm in lines:
        for holder, encoded in lines.items():
            if holder == algorithm:
                assert keys.parse_public_key(f"{algorithm} {encoded}").algorithm == algorithm
                continue
            with pytest.raises(KeyRefused) as caught:
                keys.parse_public_key(f"{algorithm} {encoded}")
            assert caught.value.id == "PLG-KEY-001"


def test_meeting_ed25519_alone_loads_no_other_algorithm():
    """A run pays for what its bundle holds, not for what another could hold."""
    program = (
        "import sys; from plugsec_signing import keys, sshsig;"
        f"keys.parse_public_key({LINE!r}); sshsig.parse({kit.armour(kit.ACME, b'm')!r});"
        "print(*[name for name in sys.modules if name.startswith(('plugsec_signing', 'cryptography'))])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    loaded = set(done.stdout.split())
    assert "plugsec_signing.ed25519" in loaded
    assert not loaded & {
        "plugsec_signing.sk_ed25519", "plugsec_signing.ecdsa_p256", "plugsec_signing.keyfile",
        "plugsec_signing.agent", "cryptography",
    }  # fmt: skip


def _write(path, data: bytes, mode: int = 0o600) -> str:
    path.write_bytes(data)
    path.chmod(mode)
    return str(path)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o660, 0o644])
def test_a_private_key_that_others_can_reach_is_refused(mode, tmp_path):
    keys.generate_keypair(str(tmp_path), "k", None)
    os.chmod(tmp_path / "k", mode)
    with pytest.raises(KeyFileError) as caught:
        keys.load_private_key(str(tmp_path / "k"))
    assert caught.value.id == "PLG-KEY-004"
    assert caught.value.hint.startswith("chmod 600")


def test_pkcs8_is_read_with_and_without_passphrase(tmp_path):
    key = ed25519.Ed25519PrivateKey.generate()
    for name, passphrase in (("plain", None), ("locked", b"secret")):
        protection = forms.BestAvailableEncryption(passphrase) if passphrase else forms.NoEncryption()
        data = key.private_bytes(forms.Encoding.PEM, forms.PrivateFormat.PKCS8, protection)
        private = keys.load_private_key(_write(tmp_path / name, data), lambda given=passphrase: given)
        assert private.public.raw == key.public_key().public_bytes_raw()


def test_a_missing_or_wrong_passphrase_is_refused(tmp_path):
    keys.generate_keypair(str(tmp_path), "k", b"right")
    for ask in (None, lambda: b"wrong", lambda: b""):
        with pytest.raises(KeyFileError) as caught:
            keys.load_private_key(str(tmp_path / "k"), ask)
        assert caught.value.id == "PLG-KEY-005"


def test_a_passphrase_is_only_asked_for_where_it_is_needed(tmp_path):
    keys.generate_keypair(str(tmp_path), "k", None)
    keys.load_private_key(str(tmp_path / "k"), lambda: pytest.fail("asked"))


def test_private_keys_of_other_kinds_are_refused(tmp_path):
    for name, key in (
        ("rsa", rsa.generate_private_key(65537, 2048)),
        ("ecdsa", ec.generate_private_key(ec.SECP384R1())),
    ):
        data = key.private_bytes(forms.Encoding.PEM, forms.PrivateFormat.OpenSSH, forms.NoEncryption())
        with pytest.raises(KeyRefused) as caught:
            keys.load_private_key(_write(tmp_path / name, data))
        assert caught.value.id == "PLG-KEY-003"


JUNK = {
    "empty": b"",
    "garbage": os.urandom(100),
    "public key": LINE.encode(),
    "truncated": b"-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEA\n"
    b"-----END OPENSSH PRIVATE KEY-----\n",
    "empty armour": b"-----BEGIN OPENSSH PRIVATE KEY-----\n-----END OPENSSH PRIVATE KEY-----\n",
    "pem garbage": b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
}


@pytest.mark.parametrize("name", JUNK)
def test_a_file_that_is_no_private_key_is_refused(name, tmp_path):
    with pytest.raises(KeyFileError) as caught:
        keys.load_private_key(_write(tmp_path / "k", JUNK[name]))
    assert (caught.value.id, caught.value.code) == ("PLG-KEY-005", 4)


def test_what_is_no_file_is_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "fifo", 0o600)
    for path in (tmp_path / "missing", tmp_path / "fifo", tmp_path):
        with pytest.raises(KeyFileError) as caught:
            keys.load_private_key(str(path))
        assert caught.value.id in {"PLG-KEY-007", "PLG-KEY-008"}


@given(st.integers(0, 10**6), st.binary(min_size=1, max_size=4))
def test_a_damaged_private_key_is_read_or_refused_within_our_tree(at, change):
    with tempfile.TemporaryDirectory() as directory:
        path = os.path.join(directory, "k")
        keys.generate_keypair(directory, "k", None)
        with open(path, "r+b") as file:
            file.seek(at % os.path.getsize(path))
            file.write(change)
        with contextlib.suppress(KeyRefused):
            keys.load_private_key(path)
