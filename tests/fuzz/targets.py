"""What is fuzzed: each reader of strangers' bytes, its seeds, and the only exceptions it may raise."""

import json
import os
from collections.abc import Callable
from random import Random
from typing import NamedTuple

from fuzz import mutate
from plugsec_plugins.errors import PluginError
from plugsec_plugins.manifest import parse_manifest
from plugsec_plugins.schema import compile_schema
from plugsec_policies.errors import PolicyError
from plugsec_policies.policy import Policy, parse_policy_toml
from plugsec_signing import (
    allowed_signers,
    bundle,
    canonical,
    dsse,
    keys,
    krl,
    revocation,
    root,
    sshsig,
    trust_toml,
    verify,
    wire,
)
from plugsec_signing.envelope import parse_envelope
from plugsec_signing.errors import SigningError
from plugsec_signing.trust import TrustStore, parse_trust_toml

HERE = os.path.dirname(os.path.abspath(__file__))
REFUSALS = (SigningError, PolicyError, PluginError)
Spoil = Callable[[bytes, Random, list[bytes]], bytes]


class Target(NamedTuple):
    """A reader; `share` is how many of a hundred examples it gets."""

    name: str
    share: int
    seeds: list[bytes]
    spoil: tuple[Spoil, ...]
    read: Callable[[bytes], object]


class _Nowhere:
    """A reading that checks signatures and attestations, and keeps nothing."""

    def head(self, head: bundle.BundleHead) -> None:
        verify.check_signatures(head)
        verify.check_attestations(head, None, 0)

    def begin(self, entry: object) -> None:
        """The reader hashes."""

    def chunk(self, data: memoryview) -> None:
        """Nothing is kept."""


class _File:
    """One file in memory for all examples: making one each time would be most of the work."""

    def __init__(self) -> None:
        self._fd = -1

    def holding(self, data: bytes) -> int:
        if self._fd < 0:
            self._fd = os.memfd_create("fuzz")
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, data, 0)
        return self._fd


_file = _File()


def _read_bundle(data: bytes) -> object:
    return bundle.read_bundle(_file.holding(data), _Nowhere())


def _read_canonical(data: bytes) -> object:
    try:
        value = canonical.decode(data)
    except SigningError:
        value = None
    again = canonical.decode_canonical(data)
    if canonical.encode(again) != data or again != value:
        raise AssertionError("a text was accepted that is not its own encoding")
    return again


def _read_signature(data: bytes) -> object:
    signature = sshsig.parse(data)
    if sshsig.encode(signature) != data:
        raise AssertionError("a signature has a second spelling")
    return sshsig.verify(signature, _GOLDEN.envelope.manifest_bytes, sshsig.NAMESPACE_MANIFEST)


def _read_manifest(data: bytes) -> object:
    return parse_manifest(parse_envelope(data))


def _read_key(data: bytes) -> object:
    return keys.parse_public_key(data.decode("utf-8", "replace"))


def _read_policy(data: bytes) -> object:
    plain = parse_policy_toml(data.decode("utf-8", "replace"), where="fuzz.toml")
    return Policy.from_plain(json.loads(json.dumps(plain)))


def _read_trust(data: bytes) -> object:
    plain = parse_trust_toml(data.decode("utf-8", "replace"))
    return TrustStore.from_plain([json.loads(json.dumps(plain))])


def _read_revocations(data: bytes) -> object:
    listed = revocation.parse(data)
    if revocation.encode(listed) != data:
        raise AssertionError("a revocation list has a second spelling")
    return listed


def _read_signers(data: bytes) -> object:
    plains = [trust_toml.check_entry(entry) for entry in allowed_signers.parse(data).entries]
    return TrustStore.from_plain([{"key": plains, "rule": []}])


def _read_schema(data: bytes) -> object:
    return compile_schema(canonical.decode(data, max_bytes=64 * 1024))


def _seed_file(*path: str) -> bytes:
    with open(os.path.join(HERE, "..", "..", *path), "rb") as file:
        return file.read()


POLICY = b"""schema = "plugsec.policy/1"
extends = ["builtin:strict"]
require_attestations = ["https://example.org/review/v1"]
[isolation]
required = ["landlock"]
allow_degraded = ["cgroup"]
[limits]
wall_ms = 5000
memory = "128M"
[[grant]]
id = "one"
plugins = ["acme/*"]
signed_by = ["release"]
expires = 2030-12-31
"fs.read" = ["$INPUT", { path = "/srv", access = "rox" }]
env = ["LANG"]
process = 4
net = ["api.acme.com:443"]
[[deny]]
id = "no"
plugins = ["*"]
net = ["169.254.169.254:*"]
[[check]]
id = "PLG-LIM-003"
severity = "error"
[[waiver]]
check = "PLG-LIM-003"
plugin = "acme/x"
versions = "<2"
approved_by = "me"
reason = "r"
expires = 2030-12-31
"""
KEY = _seed_file("tests", "signing", "golden", "acme.pub").strip()
TRUST = (
    b"""[[key]]
id = "acme"
ssh = "%s"
publisher = "acme"
plugins = ["acme/*"]
valid_after = "2026-01-01"
valid_before = 2027-01-01T00:00:00Z
role = "release"
[[rule]]
plugins = ["acme/*"]
threshold = 1
roles = ["release"]
"""
    % KEY
)
REVOCATIONS = canonical.encode({
    "schema": "plugsec.revocations/1", "sequence": 7, "next_update": 1_800_000_000,
    "keys": {"ab" * 32: {"kind": "compromised", "since": 0}, "cd" * 32: {"kind": "superseded", "since": 5}},
    "bundles": ["sha256:" + "ef" * 32], "min_release": {"acme/wordfreq": 8},
})  # fmt: skip
KRL = krl.encode(["ab" * 32, "cd" * 32], version=7, generated=1_800_000_000, comment="c")
_KEYS = wire.string(keys.parse_public_key(KEY.decode()).blob)
KRL_OF_KEYS = krl.encode([], version=7, generated=1) + b"\2" + wire.string(_KEYS)
SIGNERS = b"""# ours
acme,acme/x-* namespaces="plugsec-*,!git",valid-after="20260101Z",valid-before="20270101000000Z" %s one
globex %s
""" % (KEY, KEY)
ROOT = canonical.encode({
    "schema": "plugsec.root/1", "version": 2, "thresholds": {"root": 1, "revocation": 1},
    "key": [
        {"id": role, "ssh": KEY.decode(), "publisher": "acme", "role": role} for role in ("root", "revocation", "release")
    ],
    "rule": [{"plugins": ["acme/*"], "threshold": 1}],
})  # fmt: skip
GOLDEN = _seed_file("tests", "signing", "golden", "wordfreq-1.2.3.plug")
ATTESTED = _seed_file("tests", "signing", "golden", "attested-1.2.3.plug")


def _head(data: bytes) -> bundle.BundleHead:
    return bundle.read_manifest(_file.holding(data))


_GOLDEN, _ATTESTED = _head(GOLDEN), _head(ATTESTED)
_ARMOURS = list(_GOLDEN.signatures.values())
_ATTESTATIONS = list(_ATTESTED.attestations.values())
MANIFEST = {
    **json.loads(_GOLDEN.envelope.manifest_bytes),
    "runtime": {"kind": "exec", "entry": "run", "dialect": "oneshot", "args": ["-x"]},
    "methods": {"count": {"summary": "s", "input": "schemas/count.json", "timeout_ms": 5}},
    "permissions": [{"name": "fs.read", "paths": ["$INPUT"], "reason": "r", "optional": True}, {"name": "env", "names": ["A"]}],
    "limits": {"wall_ms": 5}, "requires": {"plugsec": ">=0.1"}, "summary": "s",
}  # fmt: skip
SCHEMA = {"type": "object", "properties": {"a": {"type": "string", "pattern": "^a+$"}, "b": {"enum": [1, "x"]}}, "required": ["a"], "$defs": {"c": {"anyOf": [{}, True]}}}  # fmt: skip


def _read_attestation(data: bytes) -> object:
    return dsse.check(data, _ATTESTED.envelope.bundle_id)


TARGETS = [
    Target("bundle", 30, [GOLDEN, ATTESTED], (mutate.spoil_archive, mutate.spoil_archive, mutate.spoil_manifest), _read_bundle),
    Target("canonical", 22, [_GOLDEN.envelope.manifest_bytes, b'{"a":[1,null,"\xc3\xa9",{}]}'], (mutate.spoil_json,), _read_canonical),
    Target("sshsig", 14, _ARMOURS, (mutate.spoil_armour,), _read_signature),
    Target("manifest", 14, [json.dumps(MANIFEST, separators=(",", ":"), sort_keys=True).encode()], (mutate.spoil_json,), _read_manifest),
    Target("dsse", 6, _ATTESTATIONS, (mutate.spoil_json,), _read_attestation),
    Target("key", 6, [KEY], (mutate.spoil_public_line,), _read_key),
    Target("schema", 3, [json.dumps(SCHEMA).encode()], (mutate.spoil_json,), _read_schema),
    Target("policy", 2, [POLICY], (mutate.spoil_lines, mutate.spoil), _read_policy),
    Target("trust", 3, [TRUST], (mutate.spoil_lines, mutate.spoil_public_line), _read_trust),
    Target("revocations", 3, [REVOCATIONS], (mutate.spoil_json,), _read_revocations),
    Target("krl", 3, [KRL, KRL_OF_KEYS], (mutate.spoil,), krl.parse),
    Target("allowed_signers", 3, [SIGNERS], (mutate.spoil_lines, mutate.spoil_public_line), _read_signers),
    Target("root", 2, [ROOT], (mutate.spoil_json,), root.parse),
]  # fmt: skip

try:
    from backports import zstd
except ImportError:  # the extra is not installed: what compressed bundles do is then one refusal
    pass
else:
    _FRAMES = [zstd.compress(GOLDEN), zstd.compress(ATTESTED, 1)]
    TARGETS.append(Target("zstd", 3, _FRAMES, (mutate.spoil,), _read_bundle))
