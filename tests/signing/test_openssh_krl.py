"""OpenSSH's KRLs: those of a real ssh-keygen are read, ours it accepts, and nothing in one is passed over."""

import subprocess

import pytest
import signing_kit as kit
from hypothesis import given
from hypothesis import strategies as st

from plugsec_signing import keys, krl, sshsig
from plugsec_signing.errors import InterchangeError, SigningError

HASHES = st.frozensets(st.binary(min_size=32, max_size=32).map(bytes.hex), max_size=5)
KEYS = (kit.ACME.public, kit.REVIEW.public)
PRINTS = frozenset(map(keys.fingerprint, KEYS))


def string(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data


def raw(*sections, version=1, flags=0, comment=b"", magic=b"SSHKRL\n\0") -> bytes:
    """A KRL packed by hand from (type, content)."""
    numbers = version.to_bytes(4, "big") + (9).to_bytes(8, "big") + bytes(8) + flags.to_bytes(8, "big")
    body = b"".join(bytes([kind]) + string(content) for kind, content in sections)
    return magic + numbers + string(b"") + string(comment) + body


HASH = (5, b"".join(string(bytes.fromhex(each)) for each in sorted(PRINTS)))
BLOBS = (2, b"".join(string(key.blob) for key in KEYS))


class Openssh:
    """A directory for a real ssh-keygen."""

    def __init__(self, directory):
        self.directory = directory
        for name, key in zip(
            ("acme.pub", "review.pub", "stranger.pub"), (*KEYS, kit.STRANGER.public), strict=True
        ):
            (directory / name).write_text(keys.public_line(key) + "\n")

    def run(self, *arguments, check=True):
        command = [kit.stock("ssh-keygen"), *arguments]
        return subprocess.run(command, cwd=self.directory, capture_output=True, text=True, check=check)

    def krl(self, *arguments) -> bytes:
        self.run("-k", "-f", "out.krl", *arguments)
        return (self.directory / "out.krl").read_bytes()

    def revoked(self, data: bytes, public: str) -> bool:
        """Ask ssh-keygen -Q: 0 not revoked, 1 revoked, 255 not a KRL."""
        (self.directory / "asked.krl").write_bytes(data)
        return self.run("-Q", "-f", "asked.krl", public, check=False).returncode == 1


@pytest.fixture
def openssh(tmp_path):
    kit.stock("ssh-keygen")
    return Openssh(tmp_path)


def test_a_krl_of_public_keys_made_by_ssh_keygen_is_read(openssh):
    assert krl.parse(openssh.krl("-z", "12", "acme.pub", "review.pub")) == krl.Krl(12, PRINTS)


def test_a_krl_of_hashes_made_by_ssh_keygen_is_read(openssh):
    spec = "".join(f"hash: {keys.ssh_fingerprint(key)}\n" for key in KEYS)
    (openssh.directory / "spec").write_text(spec)
    assert krl.parse(openssh.krl("spec")).fingerprints == PRINTS


def test_a_krl_of_a_key_that_is_not_used_here_is_read_all_the_same(openssh):
    openssh.run("-q", "-t", "rsa", "-b", "2048", "-N", "", "-f", "rsa")
    assert len(krl.parse(openssh.krl("rsa.pub", "acme.pub")).fingerprints) == 2


@pytest.mark.parametrize("line", ["sha1: {}", "serial: 5", "id: somebody"])
def test_what_only_means_something_elsewhere_is_refused_and_not_passed_over(openssh, line):
    openssh.run("-q", "-t", "ed25519", "-N", "", "-f", "ca")
    (openssh.directory / "spec").write_text(line.format(keys.public_line(KEYS[0])) + "\n")
    with pytest.raises(InterchangeError) as caught:
        krl.parse(openssh.krl("-s", "ca.pub", "spec", "review.pub"))
    assert (caught.value.id, caught.value.code) == ("PLG-KRL-002", 4)


def test_ssh_keygen_asks_our_krl_and_finds_exactly_what_is_revoked(openssh):
    data = krl.encode(PRINTS, version=7, generated=kit.NOW, comment="plugsec revocation list 7")
    assert openssh.revoked(data, "acme.pub")
    assert openssh.revoked(data, "review.pub")
    assert not openssh.revoked(data, "stranger.pub")
    listed = openssh.run("-Q", "-l", "-f", "asked.krl").stdout
    assert "# KRL version 7" in listed
    assert all(each in listed for each in PRINTS)


def test_ssh_keygen_refuses_a_signature_by_a_key_that_our_krl_revokes(openssh):
    line = keys.public_line(KEYS[0])
    (openssh.directory / "allowed").write_text(f'acme namespaces="{sshsig.NAMESPACE_MANIFEST}" {line}\n')
    (openssh.directory / "sig").write_bytes(kit.armour(kit.ACME, b"hello"))
    (openssh.directory / "our.krl").write_bytes(krl.encode(PRINTS, version=1, generated=1))
    (openssh.directory / "none.krl").write_bytes(krl.encode((), version=1, generated=1))
    command = [
        kit.stock("ssh-keygen"), "-Y", "verify", "-f", "allowed", "-I", "acme",
        "-n", sshsig.NAMESPACE_MANIFEST, "-s", "sig", "-r",
    ]  # fmt: skip
    codes = [
        subprocess.run([*command, name], cwd=openssh.directory, input=b"hello", capture_output=True, check=False)
        for name in ("none.krl", "our.krl")
    ]  # fmt: skip
    assert [each.returncode for each in codes] == [0, 255]


@given(HASHES, st.integers(0, 2**63 - 1), st.integers(0, 2**40))
def test_a_krl_survives_being_written_and_read(fingerprints, version, generated):
    assert krl.parse(krl.encode(fingerprints, version=version, generated=generated)) == (
        version,
        fingerprints,
    )


MANY = (5, b"".join(string(n.to_bytes(32, "big")) for n in range(10_001)))
REFUSED = {
    "empty": (b"", "PLG-KRL-001"),
    "text": (b"ssh-ed25519 AAAA", "PLG-KRL-001"),
    "another magic": (raw(HASH, magic=b"SSHKRL\n\1"), "PLG-KRL-001"),
    "a later format": (raw(HASH, version=2), "PLG-KRL-001"),
    "flags": (raw(HASH, flags=1), "PLG-KRL-001"),
    "only a magic": (b"SSHKRL\n\0", "PLG-KRL-001"),
    "cut in its header": (raw()[:30], "PLG-KRL-001"),
    "cut in its comment": (raw()[:-1], "PLG-KRL-001"),
    "cut in a section": (raw(HASH)[:-1], "PLG-KRL-001"),
    "a section type without content": (raw() + b"\5", "PLG-KRL-001"),
    "a length of 4 GiB": (raw() + b"\5\xff\xff\xff\xff" + bytes(64), "PLG-KRL-001"),
    "a hash of 31 bytes": (raw((5, string(bytes(31)))), "PLG-KRL-001"),
    "a key that is only a name": (raw((2, string(string(b"ssh-ed25519")))), "PLG-KRL-001"),
    "an empty key": (raw((2, string(b""))), "PLG-KRL-001"),
    "certificates": (raw(HASH, (1, b"")), "PLG-KRL-002"),
    "SHA-1": (raw(HASH, (3, string(bytes(20)))), "PLG-KRL-002"),
    "a signature": (raw(HASH, (4, b"x")), "PLG-KRL-002"),
    "an extension": (raw((255, b"x"), HASH), "PLG-KRL-002"),
    "an unknown section": (raw((77, b""), HASH), "PLG-KRL-002"),
    "too many keys": (raw(MANY), "PLG-KRL-003"),
    "too many sections": (raw(*[(5, b"")] * 65), "PLG-KRL-003"),
    "too large": (raw(comment=bytes(krl.MAX_BYTES)), "PLG-KRL-003"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_krl_that_would_be_misunderstood_is_refused(case):
    data, error_id = REFUSED[case]
    with pytest.raises(InterchangeError) as caught:
        krl.parse(data)
    assert (caught.value.id, caught.value.code) == (error_id, 4)


def test_a_krl_cut_at_any_byte_is_refused_or_ends_at_a_section():
    whole = raw(HASH, BLOBS)
    ends = {len(raw()), len(raw(HASH)), len(whole)}
    for length in range(len(whole) + 1):
        try:
            krl.parse(whole[:length])
        except InterchangeError:
            assert length not in ends
        else:
            assert length in ends


@given(st.data())
def test_a_changed_krl_raises_nothing_but_our_errors(data):
    whole = bytearray(raw(HASH, BLOBS))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(8, len(whole) - 1))] = data.draw(st.integers(0, 255))
    try:
        krl.parse(bytes(whole))
    except SigningError as err:
        assert err.id.startswith("PLG-KRL-")


@given(st.binary(max_size=200))
def test_arbitrary_bytes_after_the_magic_raise_nothing_but_our_errors(data):
    for head in (b"", b"SSHKRL\n\0", raw()):
        try:
            krl.parse(head + data)
        except SigningError as err:
            assert err.id.startswith("PLG-KRL-")


def test_what_ssh_keygen_reads_in_a_mutated_krl_of_hashes_is_what_is_read_here(openssh):
    """Wherever both read it, they agree on whether a key is revoked."""
    whole = raw(HASH)
    for at in range(len(raw()), len(whole), 7):
        spoilt = bytearray(whole)
        spoilt[at] ^= 0xFF
        try:
            found = krl.parse(bytes(spoilt)).fingerprints
        except InterchangeError:
            continue
        for name, key in zip(("acme.pub", "review.pub"), KEYS, strict=True):
            assert openssh.revoked(bytes(spoilt), name) == (keys.fingerprint(key) in found)
