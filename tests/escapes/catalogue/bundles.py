"""Bundles that are not what they say: refused by `plugsec verify` and by every run, with a stable id.

The containers are those of tests/signing; the manifests here are signed by a trusted key, so that nothing but
their own content speaks against them.
"""

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import hostile_containers
import signing_kit as kit

from catalogue.interface import BUNDLE, Attack, Batch, Scene
from kit.command import command_line
from plugsec_signing import keys

_MANIFEST = kit.manifest()
_FILE = kit.manifest_value()["files"][0]


def _with(**fields: object) -> bytes:
    return kit.manifest(**fields)


def _path(*paths: str) -> bytes:
    return kit.manifest(files=[{**_FILE, "path": path} for path in paths])


MANIFESTS = {
    # Paths
    "a path that climbs": (_path("../x"), "PLG-PTH-002"),
    "a path that climbs from below": (_path("a/../../x"), "PLG-PTH-002"),
    "an absolute path": (_path("/etc/passwd"), "PLG-PTH-002"),
    "a path from here": (_path("./x"), "PLG-PTH-002"),
    "an empty component": (_path("a//x"), "PLG-PTH-002"),
    "a hidden file": (_path(".bashrc"), "PLG-PTH-002"),
    "a backslash": (_path("a\\b"), "PLG-PTH-001"),
    "a drive letter": (_path("C:x"), "PLG-PTH-001"),
    "a NUL": (_path("a\0b"), "PLG-PTH-001"),
    "an escape sequence": (_path("a\x1b[31m"), "PLG-PTH-001"),
    "a DEL": (_path("a\x7f"), "PLG-PTH-001"),
    "a path that is not ASCII": (_path("caf\u00e9"), "PLG-PTH-001"),
    "a path that reads backwards": (_path("a\u202eb"), "PLG-PTH-001"),
    "a path too long": (_path("x" * 241), "PLG-PTH-003"),
    "a path too deep": (_path("/".join("d" * 33)), "PLG-PTH-004"),
    "the same path twice": (_path("a", "a"), "PLG-PTH-005"),
    "paths that differ in case": (_path("A", "a"), "PLG-PTH-005"),
    "a file that is another's directory": (_path("a", "a/b"), "PLG-PTH-006"),
    "a payload under PLUGSEC": (_path("PLUGSEC/x"), "PLG-PTH-007"),
    # Files
    "a set-user mode": (_with(files=[{**_FILE, "mode": 0o4755}]), "PLG-ENV-011"),
    "a world-writable mode": (_with(files=[{**_FILE, "mode": 0o777}]), "PLG-ENV-011"),
    "a negative size": (_with(files=[{**_FILE, "size": -1}]), "PLG-ENV-008"),
    "a payload of terabytes": (_with(files=[{**_FILE, "size": 1 << 42}]), "PLG-ENV-009"),
    "files out of order": (_path("b", "a"), "PLG-ENV-010"),
    "a million files": (
        _MANIFEST.replace(b'"files":[', b'"files":[' + b'{"path":"a"},' * 1_000_000), "PLG-BND-006"
    ),
    # JSON
    "a duplicate key": (_MANIFEST.replace(b'"release":7', b'"release":7,"release":8'), "PLG-JSN-005"),
    "a nesting bomb": (b"[" * 100_000 + b"]" * 100_000, "PLG-JSN-004"),
    "an integer of 5,000 digits": (_MANIFEST.replace(b'"release":7', b'"release":' + b"9" * 5000), "PLG-JSN-006"),
    "1e400": (_MANIFEST.replace(b'"release":7', b'"release":1e400'), "PLG-JSN-006"),
    "NaN": (_MANIFEST.replace(b'"release":7', b'"release":NaN'), "PLG-JSN-006"),
    "minus zero": (_MANIFEST.replace(b'"release":7', b'"release":-0'), "PLG-JSN-006"),
    "a byte order mark": (b"\xef\xbb\xbf" + _MANIFEST, "PLG-JSN-002"),
    "no UTF-8": (_MANIFEST.replace(b"acme", b"acm\xff"), "PLG-JSN-002"),
    "a lone surrogate": (_MANIFEST.replace(b"acme", b"acm\\ud800"), "PLG-JSN-007"),
    "whitespace of its own": (_MANIFEST.replace(b',"name"', b', "name"'), "PLG-JSN-008"),
    "a newline at the end": (_MANIFEST + b"\n", "PLG-JSN-008"),
    # Fields
    "a future schema": (_with(schema="plugsec.manifest/2"), "PLG-ENV-002"),
    "another schema": (_with(schema="plugsec.plugin/1"), "PLG-ENV-003"),
    "a homoglyph publisher": (_with(name="\u0430cme/wordfreq"), "PLG-ENV-004"),
    "a parent for a publisher": (_with(name="../wordfreq"), "PLG-ENV-004"),
    "a version with a path": (_with(version="1.2.3-../x"), "PLG-ENV-005"),
    "a negative release": (_with(release=-1), "PLG-ENV-006"),
    "an expiry on no day": (_with(expires="2027-02-30T00:00:00Z"), "PLG-ENV-007"),
}  # fmt: skip

# Whole and rightly signed, but nothing that may run: what `plugsec run` says before anything is started.
_RUNTIME = {"kind": "python", "entry": "main"}
_METHODS = {"go": {"summary": "goes"}}
_UNRUNNABLE: dict[str, tuple[dict[str, object], str]] = {
    "an unknown field": ({"runtime": {**_RUNTIME, "preload": "x"}}, "PLG-MAN-001"),
    "an unknown kind": ({"runtime": {"kind": "kernel", "entry": "main"}}, "PLG-MAN-001"),
    "an entry that is missing": ({"runtime": {**_RUNTIME, "entry": "none"}}, "PLG-MAN-001"),
    "an entry that climbs": ({"runtime": {**_RUNTIME, "entry": "../main"}}, "PLG-MAN-001"),
    "a program that is not executable": (
        {"runtime": {"kind": "exec", "entry": "main.py", "dialect": "oneshot"}}, "PLG-MAN-001",
    ),
    "an unknown permission": ({"permissions": [{"name": "root", "reason": "x"}]}, "PLG-MAN-001"),
    "a permission for /proc": (
        {"permissions": [{"name": "fs.read", "paths": ["/proc"], "reason": "x"}]}, "PLG-MAN-001",
    ),
    "a permission for LD_PRELOAD": (
        {"permissions": [{"name": "env", "names": ["LD_PRELOAD"], "reason": "x"}]}, "PLG-MAN-001",
    ),
    "a limit of nothing": ({"limits": {"wall_ms": 0}}, "PLG-MAN-001"),
    "a negative limit": ({"limits": {"memory_bytes": -1}}, "PLG-MAN-001"),
    "no runtime at all": ({"runtime": {}}, "PLG-MAN-001"),
    "methods named like code": ({"methods": {"__import__('os')": {"summary": "x"}}}, "PLG-MAN-001"),
}  # fmt: skip
_SCHEMAS = {
    "a remote schema": ({"$ref": "https://example.com/schema.json"}, "PLG-SCH-001"),
    "a schema of a file": ({"$ref": "file:///etc/passwd"}, "PLG-SCH-001"),
    "a schema of itself": ({"$ref": "#"}, "PLG-SCH-001"),
    "a schema of a million branches": ({"anyOf": [{}] * 1_000_000}, "PLG-MAN-001"),
    "a schema too deep": (json.loads('{"not":' * 60 + "{}" + "}" * 60), "PLG-SCH-001"),
}


def bundle_of(manifest: bytes, private: keys.PrivateKey = kit.ACME) -> bytes:
    """A container with this text for a manifest, signed, and the kit's files."""
    pieces = kit.parts()
    name = keys.fingerprint(private.public)
    pieces["manifest"] = kit.raw_entry(b"PLUGSEC/manifest.json", manifest)
    pieces[keys.fingerprint(kit.ACME.public)] = kit.raw_entry(
        f"PLUGSEC/signatures/{name}.sshsig".encode(), kit.armour(private, manifest)
    )
    return b"".join(pieces.values())


class Verifier:
    """`plugsec verify --json` over a home that trusts the kit's publisher."""

    def __init__(self, directory: Path, trust: str = "") -> None:
        self.home = directory
        self.trust = directory / "config" / "trust.d"
        self.trust.mkdir(parents=True, mode=0o700)
        (directory / "config").chmod(0o700)
        entry = self.trust / "acme.toml"
        entry.write_text(trust or kit.trust_text())
        entry.chmod(0o600)
        self._command = command_line()
        self._bundle = directory / "wordfreq-1.2.3.plug"

    def __call__(self, data: bytes) -> str:
        """The error's id, or `accepted`."""
        self._bundle.write_bytes(data)
        return self.said(self._command("verify", str(self._bundle), "--json", "--home", str(self.home)).value)

    @staticmethod
    def said(value: dict[str, object]) -> str:
        """What a verdict comes to."""
        error = value.get("error")
        return str(error["id"]) if isinstance(error, dict) else "accepted"


def _verify_all(
    scene: Scene, table: Mapping[str, tuple[bytes, str]], make: Callable[[bytes], bytes]
) -> Mapping[str, str]:
    directory = scene.directory / f"verify-{len(os.listdir(scene.directory))}"
    verifier = Verifier(directory)
    assert verifier(kit.pack()) == "accepted"
    return {name: verifier(make(data)) for name, (data, _) in table.items()}


def _containers(scene: Scene) -> Mapping[str, str]:
    endings = _verify_all(scene, hostile_containers.ATTACKS, bytes)
    return {_CONTAINER + name: ending for name, ending in endings.items()}


def _manifests(scene: Scene) -> Mapping[str, str]:
    endings = _verify_all(scene, MANIFESTS, bundle_of)
    return {_IN_MANIFEST + name: ending for name, ending in endings.items()}


def _unrunnable(scene: Scene) -> Mapping[str, str]:
    endings = {}
    for name, (fields, _) in _UNRUNNABLE.items():
        given = {"runtime": _RUNTIME, "methods": _METHODS, **fields}
        outcome = scene.home.run(scene.home.bundle({"main.py": "raise SystemExit('it ran')"}, **given))  # type: ignore[arg-type]
        endings[_NOT_RUN + name] = outcome.error.id if outcome.error else "it ran"
    for name, (schema, _) in _SCHEMAS.items():
        methods = {"go": {"summary": "goes", "input": "schemas/in.json"}}
        files = {"main.py": "raise SystemExit('it ran')", "schemas/in.json": json.dumps(schema)}
        outcome = scene.home.run(scene.home.bundle(files, methods=methods))
        endings[_NOT_RUN + name] = outcome.error.id if outcome.error else "it ran"
    return endings


def _displayed(scene: Scene) -> Mapping[str, str]:
    """What is shown to people of a hostile manifest holds no byte that a terminal obeys."""
    directory = scene.directory / f"shown-{len(os.listdir(scene.directory))}"
    directory.mkdir()
    path = directory / "x.plug"
    summary = "\x1b]52;c;b3duZWQ=\x07\x1b[2J\r\u202eevil\u2066\x9b31m\nplugsec: verified"
    value = kit.manifest(summary=summary, runtime=_RUNTIME, methods={"run": {"summary": summary}})
    path.write_bytes(bundle_of(value))
    said = command_line()("inspect", str(path))
    text = said.stdout + said.stderr
    obeyed = sorted({c for c in text if c != "\n" and not c.isprintable()})
    forged = [line for line in text.splitlines() if line.startswith("plugsec: verified")]
    shown = "evil" in text
    return {
        _DISPLAY: "escaped" if shown and not obeyed and not forged else f"{obeyed} {forged} {text[:200]!r}"
    }


_CONTAINER, _IN_MANIFEST, _NOT_RUN = "container: ", "manifest: ", "not run: "
_DISPLAY = "control sequences in a summary are shown, not obeyed"
_SEEN = "plugsec verify --json"
BATCHES = (
    Batch(
        "hostile containers",
        tuple(
            Attack(_CONTAINER + n, BUNDLE, error, _SEEN)
            for n, (_, error) in hostile_containers.ATTACKS.items()
        ),
        _containers,
        jailed=False,
    ),
    Batch(
        "hostile manifests",
        tuple(Attack(_IN_MANIFEST + name, BUNDLE, error, _SEEN) for name, (_, error) in MANIFESTS.items()),
        _manifests,
        jailed=False,
    ),
    Batch(
        "bundles that may not run",
        (
            *(
                Attack(_NOT_RUN + name, BUNDLE, error, "the outcome")
                for name, (_, error) in _UNRUNNABLE.items()
            ),
            *(Attack(_NOT_RUN + name, BUNDLE, error, "the outcome") for name, (_, error) in _SCHEMAS.items()),
        ),
        _unrunnable,
        jailed=False,
    ),
    Batch(
        "what people are shown",
        (Attack(_DISPLAY, BUNDLE, "escaped", "the bytes that plugsec inspect prints"),),
        _displayed,
        jailed=False,
    ),
)
