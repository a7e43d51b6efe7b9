"""Signatures that prove nothing, keys that nobody trusts for this, and a trust store that others can write."""

import base64
import hashlib
import os
from collections.abc import Callable, Mapping

import signing_kit as kit

from catalogue.bundles import Verifier, bundle_of
from catalogue.interface import TRUST, Attack, Batch, Scene
from kit.home import Home
from plugsec_signing import keys, sshsig, wire
from plugsec_signing.verify import verify_bundle

_MANIFEST = kit.manifest()
_ACME, _REVIEW, _STRANGER = (keys.fingerprint(k.public) for k in (kit.ACME, kit.REVIEW, kit.STRANGER))
_GOOD = kit.armour(kit.ACME, _MANIFEST)
_ORDER = 2**252 + 27742317777372353535851937790883648493  # of the group, RFC 8032
_IDENTITY = wire.string(b"ssh-ed25519") + wire.string(bytes([1]) + bytes(31))  # a key that signs everything


def _with(signatures: Mapping[str, bytes]) -> bytes:
    """The kit's bundle with these entries under PLUGSEC/signatures."""
    pieces = kit.parts(signers=())
    head = {"manifest": pieces.pop("manifest")}
    for name, armour in sorted(signatures.items()):
        head[name] = kit.raw_entry(f"PLUGSEC/signatures/{name}.sshsig".encode(), armour)
    return b"".join({**head, **pieces}.values())


def _only(armour: bytes) -> bytes:
    return _with({_ACME: armour})


def _blob(armour: bytes) -> bytes:
    return base64.b64decode(b"".join(armour.split(b"\n")[1:-2]))


def _armoured(blob: bytes) -> bytes:
    text = base64.b64encode(blob)
    lines = [text[at : at + 70] for at in range(0, len(text), 70)]
    return b"\n".join((b"-----BEGIN SSH SIGNATURE-----", *lines, b"-----END SSH SIGNATURE-----", b""))


def _malleated() -> bytes:
    """S + L: another spelling of the same signature, which lax libraries accept."""
    blob = _blob(_GOOD)
    s = int.from_bytes(blob[-32:], "little") + _ORDER
    return _armoured(blob[:-32] + s.to_bytes(32, "little"))


def _by_the_identity() -> bytes:
    """A key of small order, under which zeros sign every message for lax libraries."""
    blob = _blob(_GOOD)
    key = wire.string(kit.ACME.public.blob)
    forged = blob.replace(key, wire.string(_IDENTITY))
    name = hashlib.sha256(_IDENTITY).hexdigest()
    return _with({name: _armoured(forged[:-64] + bytes([1]) + bytes(63))})


SIGNATURES = {
    "unsigned": (_with({}), "PLG-TRU-001"),
    "a key that nobody knows": (kit.pack(signers=(kit.STRANGER,)), "PLG-TRU-002"),
    "a signature over another manifest": (_only(kit.armour(kit.ACME, _MANIFEST + b" ")), "PLG-SIG-005"),
    "a git signature replayed": (_only(kit.armour(kit.ACME, _MANIFEST, "git")), "PLG-SIG-004"),
    "a file signature replayed": (_only(kit.armour(kit.ACME, _MANIFEST, "file")), "PLG-SIG-004"),
    "a receipt's signature replayed": (_only(kit.armour(kit.ACME, _MANIFEST, sshsig.NAMESPACE_RECEIPT)), "PLG-SIG-004"),
    "a second spelling of a signature": (_only(_malleated()), "PLG-SIG-006"),
    "a key of small order": (_by_the_identity(), "PLG-KEY-002"),
    "a signature of zeros": (_only(_armoured(_blob(_GOOD)[:-64] + bytes(64))), "PLG-SIG-006"),
    "a key of another type": (
        _only(_armoured(_blob(_GOOD).replace(b"\0\0\0\x0bssh-ed25519", b"\0\0\0\x0bssh-ed25518", 1))), "PLG-KEY-003",
    ),
    "a signature of another type": (
        _only(_armoured(_blob(_GOOD)[:-87] + wire.string(wire.string(b"rsa-sha2-512") + wire.string(bytes(64))))), "PLG-SIG-003",
    ),
    "a signature named for another key": (_with({_REVIEW: _GOOD}), "PLG-SIG-007"),
    "one bad among enough good": (
        _with({_ACME: _GOOD, _STRANGER: kit.armour(kit.STRANGER, _MANIFEST + b" ")}), "PLG-SIG-005",
    ),
    "garbage among enough good": (_with({_ACME: _GOOD, "0" * 64: b"x"}), "PLG-SIG-001"),
    "the same signature twice": (
        kit.parts()["manifest"] + kit.parts()[_ACME] * 2 + b"".join(kit.parts()[n] for n in (*sorted(kit.FILES), "end")),
        "PLG-BND-007",
    ),
    "ten thousand signatures": (_with({f"{n:064x}": b"x" for n in range(10_000)}), "PLG-BND-006"),
    "an empty signature": (_only(b""), "PLG-SIG-001"),
    "a truncated signature": (_only(_GOOD[:-40]), "PLG-SIG-001"),
    "a signature with CRLF": (_only(_GOOD.replace(b"\n", b"\r\n")), "PLG-SIG-001"),
    "garbage for a signature": (_only(os.urandom(300)), "PLG-SIG-001"),
    "a signature with something behind it": (_only(_GOOD + b"junk\n"), "PLG-SIG-001"),
    "an untrusted but valid extra signature": (kit.pack(signers=(kit.ACME, kit.STRANGER)), "accepted"),
}  # fmt: skip
# A good bundle, and what the trust store says of its key.
STORES = {
    "a key for another plugin": ({"plugins": ["acme/other*"]}, "PLG-TRU-003"),
    "a key of another publisher": ({"publisher": "evil", "plugins": ["evil/*"]}, "PLG-TRU-003"),
    "a key that is not valid yet": ({"valid_after": "2999-01-01"}, "PLG-TRU-004"),
    "a key that is not valid any more": ({"valid_before": "2020-01-01"}, "PLG-TRU-005"),
    "a reviewer's key alone": ({"role": "review"}, "PLG-TRU-006"),
    "a key of small order in the store": ({"ssh": "ssh-ed25519 " + base64.b64encode(_IDENTITY).decode()}, "PLG-TST-006"),
    "an RSA key in the store": ({"ssh": "ssh-rsa AAAA"}, "PLG-TST-006"),
    "a homoglyph publisher in the store": ({"publisher": "\u0430cme"}, "PLG-TST-002"),
}  # fmt: skip


def _writable_directory(verifier: Verifier) -> None:
    verifier.trust.chmod(0o777)


def _writable_file(verifier: Verifier) -> None:
    (verifier.trust / "acme.toml").chmod(0o666)


def _loose_link(verifier: Verifier) -> None:
    loose = verifier.home / "loose.toml"
    loose.write_text("")
    loose.chmod(0o666)
    (verifier.trust / "loose.toml").symlink_to(loose)


# What others could write before the verdict; each is undone by a new store.
STATES: dict[str, tuple[Callable[[Verifier], None], str]] = {
    "a trust directory that others can write": (_writable_directory, "PLG-TST-003"),
    "a trust file that others can write": (_writable_file, "PLG-TST-003"),
    "a link in the trust directory": (_loose_link, "PLG-TST-001"),
}


def _verifier(scene: Scene, trust: str = "") -> Verifier:
    return Verifier(scene.directory / f"trust-{len(os.listdir(scene.directory))}", trust)


def _signatures(scene: Scene) -> Mapping[str, str]:
    verifier = _verifier(scene)
    return {_SIGNED + name: verifier(data) for name, (data, _) in SIGNATURES.items()}


def _stores(scene: Scene) -> Mapping[str, str]:
    good = kit.pack()
    endings = {
        _TRUSTED + name: _verifier(scene, kit.trust_text(**fields))(good)
        for name, (fields, _) in STORES.items()
    }
    for name, (spoil, _) in STATES.items():
        verifier = _verifier(scene)
        assert verifier(good) == "accepted"
        spoil(verifier)
        endings[_TRUSTED + name] = verifier(good)
    return endings


def _swapped(scene: Scene) -> Mapping[str, str]:
    """What was verified is what is kept: the file is exchanged, and written over in place, afterwards."""
    endings = {}
    path = scene.directory / "wordfreq-1.2.3.plug"
    for name, exchange in _SWAPS.items():
        path.write_bytes(kit.pack())
        evidence = verify_bundle(str(path), kit.store(), kit.NOW, keep_payload=True)
        try:
            exchange(str(path))
            assert evidence.payload is not None
            kept = {
                entry.path: os.pread(evidence.payload.fd, entry.size, entry.offset)
                for entry in evidence.payload.entries
            }
            endings[name] = "the verified bytes" if kept == kit.FILES else "others"
        finally:
            evidence.close()
    return endings


def _in_place(path: str) -> None:
    with open(path, "r+b") as file:
        file.write(bytes(os.path.getsize(path)))


def _replaced(path: str) -> None:
    other = path + ".new"
    with open(other, "wb") as file:
        file.write(bundle_of(_MANIFEST)[:-1])
    os.rename(other, path)


_SWAPS = {
    "an archive exchanged after its verification changes nothing": _replaced,
    "an archive written over after its verification changes nothing": _in_place,
}


def _unverified_run(scene: Scene) -> Mapping[str, str]:
    """`run` asks the same questions: nothing starts, whatever the host has."""
    endings, home = {}, scene.home
    files = {"main.py": "raise SystemExit('it ran')"}
    unsigned = home.bundle(files, signed=False)
    endings[_RUN_UNSIGNED] = _refusal(home, unsigned)
    signed = home.bundle(files)
    with open(signed, "r+b") as file:
        file.seek(-1536, os.SEEK_END)  # the first byte of the payload
        file.write(b"#")
    endings[_RUN_CHANGED] = _refusal(home, signed)
    return endings


def _refusal(home: Home, path: str) -> str:
    outcome = home.run(path)
    return outcome.error.id if outcome.outcome == "refused" and outcome.error else outcome.outcome


_SIGNED, _TRUSTED = "signature: ", "trust: "
_RUN_UNSIGNED, _RUN_CHANGED = "an unsigned bundle does not run", "a bundle with a changed byte does not run"
_SEEN = "plugsec verify --json"
BATCHES = (
    Batch(
        "hostile signatures",
        tuple(Attack(_SIGNED + name, TRUST, error, _SEEN) for name, (_, error) in SIGNATURES.items()),
        _signatures,
        jailed=False,
    ),
    Batch(
        "keys that do not count",
        (
            *(Attack(_TRUSTED + name, TRUST, error, _SEEN) for name, (_, error) in STORES.items()),
            *(Attack(_TRUSTED + name, TRUST, error, _SEEN) for name, (_, error) in STATES.items()),
        ),
        _stores,
        jailed=False,
    ),
    Batch(
        "archives exchanged after verification",
        tuple(Attack(name, TRUST, "the verified bytes", "the payload that is kept") for name in _SWAPS),
        _swapped,
        jailed=False,
    ),
    Batch(
        "running the unverified",
        (
            Attack(_RUN_UNSIGNED, TRUST, "PLG-TRU-001", "the outcome"),
            Attack(_RUN_CHANGED, TRUST, "PLG-BND-012", "the outcome"),
        ),
        _unverified_run,
        jailed=False,
    ),
)
