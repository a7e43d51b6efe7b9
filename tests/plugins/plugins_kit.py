"""What the plugin tests share: plugin directories on disk, and manifests made from plain data."""

import copy
import hashlib
from pathlib import Path
from typing import Any

from plugsec_plugins.manifest import Manifest, parse_manifest
from plugsec_signing import canonical
from plugsec_signing.envelope import parse_envelope

PROJECT = """\
schema = "plugsec.plugin/1"
name = "acme/wordfreq"
version = "1.2.3"
release = 7
summary = "Counts words"
license = "Apache-2.0"
exclude = ["tests/**"]

[requires]
plugsec = ">=0.1,<1"

[runtime]
kind = "python"
entry = "wordfreq"

[methods.count]
summary = "Counts the words of a text"
input = { type = "object", required = ["text"], properties = { text = { type = "string", maxLength = 1000000 } } }
output = "schemas/count.output.json"

[[permission]]
name = "fs.read"
paths = ["$INPUT"]
reason = "reads the file to count"
optional = false

[limits]
wall_ms = 5000
memory = "128M"
"""


def project(directory: Path, text: str = PROJECT, **files: str | bytes) -> Path:
    """Write a plugin's directory; a file named `a__b.c` lands in `a/b.c`."""
    directory.mkdir(parents=True, exist_ok=True)
    written = {"wordfreq.py": "x = 1\n", "schemas__count.output.json": '{"type": "object"}', **files}
    (directory / "plugin.toml").write_text(text)
    for name, content in written.items():
        path = directory / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return directory


def entry(path: str, content: bytes = b"", mode: int = 0o644) -> dict[str, Any]:
    return {"path": path, "size": len(content), "mode": mode, "sha256": hashlib.sha256(content).hexdigest()}


PLAIN: dict[str, Any] = {
    "schema": "plugsec.manifest/1",
    "name": "acme/wordfreq",
    "version": "1.2.3",
    "release": 7,
    "summary": "Counts words",
    "license": "Apache-2.0",
    "source": "https://example.org/wordfreq",
    "created": "2026-01-01T00:00:00Z",
    "expires": "2030-01-01T00:00:00Z",
    "requires": {"plugsec": ">=0.1,<1"},
    "runtime": {"kind": "python", "entry": "wordfreq"},
    "methods": {
        "count": {
            "summary": "Counts",
            "input": "schemas/count.input.json",
            "output": "schemas/count.output.json",
            "timeout_ms": 1000,
            "idempotent": True,
            "stream": True,
        },
        "ping": {},
    },
    "permissions": [{"name": "fs.read", "paths": ["$INPUT"], "reason": "reads it", "optional": False}],
    "limits": {"wall_ms": 5000, "memory": 134217728},
    "config_schema": "schemas/config.json",
    "dependencies": [{"name": "acme/base", "versions": ">=1"}],
    "health": {"method": "ping", "interval_ms": 1000, "timeout_ms": 100},
    "restart": {"policy": "on-failure", "most": 5},
    "priority": 5,
    "files": [
        entry(path)
        for path in (
            "bin/run",
            "schemas/config.json",
            "schemas/count.input.json",
            "schemas/count.output.json",
            "wordfreq.py",
        )
    ],
}
PLAIN["files"][0]["mode"] = 0o755

EXEC = {**PLAIN, "runtime": {"kind": "exec", "entry": "bin/run", "dialect": "oneshot"}}


def changed(path: str, value: Any, plain: dict[str, Any] = PLAIN) -> dict[str, Any]:
    """Return a copy of a manifest with one field set, or removed when the value is `...`."""
    result = copy.deepcopy(plain)
    *parents, last = path.split("/")
    inner: Any = result
    for part in parents:
        inner = inner[int(part)] if isinstance(inner, list) else inner[part]
    if value is ...:
        del inner[last]
    elif isinstance(inner, list):
        inner[int(last)] = value
    else:
        inner[last] = value
    return result


def parse(plain: dict[str, Any]) -> Manifest:
    """Read a manifest as a reader of a bundle does."""
    return parse_manifest(parse_envelope(canonical.encode(plain)))
