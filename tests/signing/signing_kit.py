"""What the tests of this room share: fixed keys, a small bundle, and ways to spoil it.

Nothing here uses the code under test to judge it: headers for attacks are packed by hand.
"""

import hashlib
import io
import os
import pwd
import shutil

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from plugsec_signing import bundle, canonical, keys, sshsig, wire
from plugsec_signing.trust import Candidate, TrustStore, parse_trust_toml

NOW = 1_800_000_000  # 2027-01-15T08:00:00Z
FILES = {"lib/count.py": b"print(1)\n", "run": b"#!/bin/sh\n", "schemas/count.json": b"{}"}


def signer(seed: int) -> keys.PrivateKey:
    """A key that is the same in every run."""
    private = Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32)
    blob = wire.string(b"ssh-ed25519") + wire.string(private.public_key().public_bytes_raw())
    return keys.PrivateKey(keys.parse_blob(blob), private.sign)


ACME, REVIEW, STRANGER = signer(1), signer(2), signer(3)

# The generator of P-256 (SEC 2 §2.4.2): the public key of the secret 1.
P256_POINT = bytes.fromhex(
    "04"
    "6b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296"
    "4fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5"
)


CANDIDATE = Candidate("acme/wordfreq", "1.2.3", 7, None, "sha256:" + "a" * 64)


def manifest_value(contents=FILES, /, **fields):
    """A manifest as plain data; `fields` replace or add, None removes."""
    value = {
        "schema": "plugsec.manifest/1",
        "name": "acme/wordfreq",
        "version": "1.2.3",
        "release": 7,
        "files": [
            {
                "path": path,
                "size": len(content),
                "mode": 0o755 if path == "run" else 0o644,
                "sha256": hashlib.sha256(content).hexdigest(),
            }
            for path, content in sorted(contents.items())
        ],
    }
    value.update(fields)
    return {key: field for key, field in value.items() if field is not None}


def manifest(contents=FILES, /, **fields) -> bytes:
    return canonical.encode(manifest_value(contents, **fields))


def armour(private: keys.PrivateKey, message: bytes, namespace: str = sshsig.NAMESPACE_MANIFEST) -> bytes:
    return sshsig.sign(private, message, namespace)


def signatures(manifest_bytes: bytes, *privates: keys.PrivateKey) -> dict[str, bytes]:
    return {keys.fingerprint(each.public): armour(each, manifest_bytes) for each in privates}


def pack(files=FILES, *, signers=(ACME,), manifest_bytes: bytes | None = None) -> bytes:
    """A whole bundle, by the writer under test."""
    content = manifest_bytes or manifest(files)
    out = io.BytesIO()
    bundle.write_bundle(
        out, content, signatures(content, *signers), {}, lambda entry: io.BytesIO(files[entry.path])
    )
    return out.getvalue()


def raw_header(name: bytes, size: int, *, mode=0o644, kind=b"0", link=b"", **other: bytes) -> bytes:
    """One ustar header, packed by hand, with a right checksum whatever it says.

    `other` gives raw bytes for the fields size_field, mode_field, uid, mtime, magic, uname, prefix.
    """
    block = b"".join((
        name.ljust(100, b"\0"),
        other.get("mode_field", b"%07o\0" % mode),
        other.get("uid", b"0000000\0"),
        b"0000000\0",
        other.get("size_field", b"%011o\0" % max(size, 0)),
        other.get("mtime", b"00000000000\0"),
        b" " * 8,
        kind,
        link.ljust(100, b"\0"),
        other.get("magic", b"ustar\x0000"),
        other.get("uname", b"").ljust(32, b"\0"),
        b"\0" * 32,
        other.get("devices", b"0000000\x000000000\0"),
        other.get("prefix", b"").ljust(155, b"\0"),
        other.get("tail", b"\0" * 12),
    ))  # fmt: skip
    assert len(block) == 512
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


def raw_entry(name: bytes, content: bytes = b"", **fields) -> bytes:
    return raw_header(name, len(content), **fields) + content + bytes(-len(content) % 512)


def parts(files=FILES, *, signers=(ACME,), manifest_bytes: bytes | None = None) -> dict[str, bytes]:
    """A bundle as its entries in order, each with header and padding; `end` is the two zero blocks."""
    content = manifest_bytes or manifest(files)
    pieces = {"manifest": raw_entry(b"PLUGSEC/manifest.json", content)}
    for name, armoured in sorted(signatures(content, *signers).items()):
        pieces[name] = raw_entry(f"PLUGSEC/signatures/{name}.sshsig".encode(), armoured)
    for path, data in sorted(files.items()):
        pieces[path] = raw_entry(path.encode(), data, mode=0o755 if path == "run" else 0o644)
    pieces["end"] = bytes(1024)
    return pieces


def trust_text(private=ACME, **fields) -> str:
    """One `[[key]]`; values are written as TOML by repr of what JSON and TOML share."""
    entry = {"id": "acme-release", "ssh": keys.public_line(private.public), "publisher": "acme", **fields}
    lines = [f"{name} = {_toml(value)}" for name, value in entry.items() if value is not None]
    return "\n".join(["[[key]]", *lines, ""])


def _toml(value) -> str:
    if isinstance(value, list):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    return '"' + value + '"' if isinstance(value, str) else str(value)


def store(*texts: str) -> TrustStore:
    return TrustStore.from_plain([parse_trust_toml(text) for text in texts or (trust_text(),)])


def vectors(folder: str) -> str:
    """The directory of published vectors, or a skip that says what the suite went without."""
    root = os.environ.get("PLUGSEC_VECTORS")
    if not root:
        import pytest  # the attacks of this kit run where there is none

        pytest.skip(f"PLUGSEC_VECTORS is not set: the published {folder} vectors were not run")
    return os.path.join(root, folder)


def stock(program: str) -> str:
    """The path of a stock program, or a skip that names it."""
    path = shutil.which(program)
    if path is None:
        import pytest

        pytest.skip(f"{program} is not installed")
    if program.startswith("ssh"):
        try:
            pwd.getpwuid(os.geteuid())
        except KeyError:  # a container's arbitrary uid
            import pytest

            pytest.skip(f"{program} refuses users who are not in the password file")
    return path
