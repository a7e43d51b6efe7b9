"""Checkpoints, read by a verifier written here from the C2SP specifications alone."""

import base64
import hashlib
import os

import logs
import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from hypothesis import given, settings
from hypothesis import strategies as st

from plugsec.audit import note
from plugsec.audit.errors import NoteRefused
from plugsec.audit.log import AuditLog

KEY = Ed25519PrivateKey.from_private_bytes(b"k" * 32)
PUBLIC = KEY.public_key().public_bytes_raw()
CHECKPOINT = note.Checkpoint("plugsec.audit/host/0123", 64, bytes(range(32)))
SIGNED = note.sign_checkpoint(CHECKPOINT, KEY)


def specification_verifies(signed, vkey):
    """c2sp.org/signed-note and c2sp.org/tlog-checkpoint, read literally; returns origin, size, root."""
    name, key_hash, encoded = vkey.split("+", 2)
    key = base64.b64decode(encoded, validate=True)
    assert key[0] == 1
    assert hashlib.sha256(name.encode() + b"\n" + key).digest()[:4].hex() == key_hash
    text, _, signatures = signed.decode("utf-8").rpartition("\n\n")
    text += "\n"
    verified = False
    for line in signatures.removesuffix("\n").split("\n"):
        assert line.startswith("\u2014 ")
        signer, raw = line[2:].split(" ")
        raw = base64.b64decode(raw, validate=True)
        if signer == name and raw[:4].hex() == key_hash:
            Ed25519PublicKey.from_public_bytes(key[1:]).verify(raw[4:], text.encode())
            verified = True
    assert verified
    origin, size, root, *extensions = text.removesuffix("\n").split("\n")
    assert all(extensions)
    assert size == str(int(size))
    return origin, int(size), base64.b64decode(root, validate=True)


def test_a_note_is_read_as_the_specification_says():
    assert specification_verifies(SIGNED, note.verifier_key(CHECKPOINT.origin, PUBLIC)) == CHECKPOINT


def test_a_logs_checkpoint_is_read_as_the_specification_says(tmp_path):
    directory = logs.write(tmp_path / "log", 10)
    with AuditLog.open(directory) as log:
        signed, state = log.checkpoint(), log.head
    with open(os.path.join(directory, "keys/epoch-000001.pub")) as file:
        public = base64.b64decode(file.read().split()[1])[-32:]
    read = specification_verifies(signed, note.verifier_key(state.origin, public))
    assert read == (state.origin, 10, state.root)


def test_the_specifications_own_example_is_read():
    """The example of c2sp.org/tlog-checkpoint: its shape, under a key that is not ours."""
    example = (
        "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\n"
        "\u2014 example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGz"
        "Gku9nTo+zyWE+xeMcTOAYQ8=\n"
    ).encode()
    with pytest.raises(NoteRefused, match="not signed by this log"):
        note.open_checkpoint(example, PUBLIC)


def test_a_witness_may_add_its_line():
    witness = "\u2014 witness.example/w " + base64.b64encode(b"1234" + b"s" * 64).decode() + "\n"
    assert note.open_checkpoint(SIGNED + witness.encode(), PUBLIC) == CHECKPOINT


def test_extension_lines_are_carried():
    text = "origin\n1\n" + base64.b64encode(b"r" * 32).decode() + "\nextension\n"
    signature = note.key_id("origin", PUBLIC) + KEY.sign(text.encode())
    signed = f"{text}\n\u2014 origin {base64.b64encode(signature).decode()}\n".encode()
    assert note.open_checkpoint(signed, PUBLIC).size == 1


BAD = {
    "empty": b"",
    "no signature": SIGNED.split(b"\n\n")[0] + b"\n\n",
    "no blank line": SIGNED.replace(b"\n\n", b"\n"),
    "cut": SIGNED[:-1],
    "trailing garbage": SIGNED + b"x",
    "carriage returns": SIGNED.replace(b"\n", b"\r\n"),
    "a control character": SIGNED.replace(b"host", b"ho\x1bt"),
    "not UTF-8": b"\xff" + SIGNED,
    "too long": SIGNED + b"\n" * note.MAX_NOTE,
    "another size": SIGNED.replace(b"\n64\n", b"\n65\n"),
    "a size with a zero in front": SIGNED.replace(b"\n64\n", b"\n064\n"),
    "a size with digits of another script": SIGNED.replace(b"\n64\n", "\n٦٤\n".encode()),
    "a size of 5,000 digits": SIGNED.replace(b"\n64\n", b"\n" + b"9" * 5000 + b"\n"),
    "a negative size": SIGNED.replace(b"\n64\n", b"\n-64\n"),
    "a short root": SIGNED.replace(b"Hh8=", b"Hg=="),
    "a hyphen for a dash": SIGNED.replace("\u2014".encode(), b"-"),
    "another signer's name": SIGNED.replace("\u2014 plugsec".encode(), "\u2014 plugsex".encode()),
    "base64 with a second spelling": SIGNED[:-2] + b" =\n",
    "seventy signatures": SIGNED + SIGNED.split(b"\n\n")[1] * 70,
}


@pytest.mark.parametrize("signed", BAD.values(), ids=BAD)
def test_refused(signed):
    with pytest.raises(NoteRefused) as refused:
        note.open_checkpoint(signed, PUBLIC)
    assert refused.value.code == 9


def test_another_key_is_refused():
    other = Ed25519PrivateKey.from_private_bytes(b"o" * 32)
    forged = note.sign_checkpoint(CHECKPOINT, other)
    with pytest.raises(NoteRefused, match="not signed by this log's key"):
        note.open_checkpoint(forged, PUBLIC)
    with pytest.raises((AssertionError, InvalidSignature)):
        specification_verifies(forged, note.verifier_key(CHECKPOINT.origin, PUBLIC))


@settings(deadline=None)
@given(st.integers(0, len(SIGNED) - 1), st.integers(0, 7))
def test_no_flipped_bit_is_accepted(position, bit):
    changed = bytearray(SIGNED)
    changed[position] ^= 1 << bit
    with pytest.raises(NoteRefused):
        note.open_checkpoint(bytes(changed), PUBLIC)


@settings(deadline=None)
@given(st.binary(max_size=400))
def test_nonsense_is_refused_not_crashed_on(data):
    with pytest.raises(NoteRefused):
        note.open_checkpoint(data, PUBLIC)
