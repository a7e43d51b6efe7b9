"""A plugsec home of its own for a test: a publisher's key, trusted, and bundles signed with it."""

import hashlib
import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from plugsec.outcome import Outcome
from plugsec.pipeline import Call, Supervisor
from plugsec_signing import bundle, canonical, keys, sshsig

PYTHON = {"kind": "python", "entry": "main"}
FILE, PROGRAM = 0o644, 0o755


class Home:
    """Everything below `root`; `run` is the library's own entry point."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.home = root / "home"
        self._unnamed: dict[bytes, int] = {}
        trust = self.home / "config" / "trust.d"
        trust.mkdir(parents=True, mode=0o700)
        keys_directory = root / "keys"
        keys_directory.mkdir(mode=0o700)
        keys.generate_keypair(str(keys_directory), "release", None, comment="release")
        self.key = keys_directory / "release"
        public = (keys_directory / "release.pub").read_text().strip()
        entry = trust / "acme.toml"
        entry.write_text(
            f'[[key]]\nid = "release"\nssh = "{public}"\npublisher = "acme"\nplugins = ["acme/*"]\nrole = "release"\n'
        )
        entry.chmod(0o600)

    def bundle(
        self,
        files: Mapping[str, bytes | str],
        *,
        runtime: Mapping[str, Any] = PYTHON,
        methods: Mapping[str, Any] | None = None,
        permissions: Sequence[Mapping[str, Any]] = (),
        limits: Mapping[str, int] | None = None,
        modes: Mapping[str, int] | None = None,
        name: str | None = None,
        release: int = 1,
        signed: bool = True,
    ) -> str:
        """Write a signed bundle of these files and return its path.

        Without a name, the first bundle of a home is acme/test, and others are plugins of their own: two
        bundles with one name and one release are what plugsec refuses.
        """
        content = {path: data.encode() if isinstance(data, str) else data for path, data in files.items()}
        manifest: dict[str, Any] = {
            "schema": "plugsec.manifest/1",
            "name": name or "acme/test",
            "version": f"{release}.0.0",
            "release": release,
            "files": [
                {
                    "path": path,
                    "size": len(content[path]),
                    "mode": (modes or {}).get(path, FILE),
                    "sha256": hashlib.sha256(content[path]).hexdigest(),
                }
                for path in sorted(content)
            ],
            "runtime": dict(runtime),
            "methods": dict(methods or {"go": {"summary": "goes"}}),
            "permissions": [dict(permission) for permission in permissions],
        }
        if limits:
            manifest["limits"] = dict(limits)
        if name is None:
            number = self._unnamed.setdefault(canonical.encode(manifest), len(self._unnamed) + 1)
            manifest["name"] = "acme/test" if number == 1 else f"acme/test-{number}"
        text = canonical.encode(manifest)
        signatures = {}
        if signed:
            private = keys.load_private_key(str(self.key), None)
            armour = sshsig.sign(private, text, sshsig.NAMESPACE_MANIFEST)
            signatures[keys.fingerprint(sshsig.parse(armour).key)] = armour
        path = self.root / f"{hashlib.sha256(text).hexdigest()[:16]}.plug"
        with path.open("wb") as out:
            bundle.write_bundle(out, text, signatures, {}, lambda entry: io.BytesIO(content[entry.path]))
        return str(path)

    def policy(self, text: str) -> str:
        """Write a policy file that extends strict and return its path."""
        path = self.root / f"policy-{hashlib.sha256(text.encode()).hexdigest()[:8]}.toml"
        path.write_text('schema = "plugsec.policy/1"\nextends = ["builtin:strict"]\n' + text)
        return str(path)

    def supervisor(self, *policies: str) -> Supervisor:
        """A supervisor over this home."""
        return Supervisor(home=str(self.home), policies=policies or ("builtin:strict",))

    def run(self, bundle_path: str, *policies: str, **call: Any) -> Outcome:
        """Run a bundle's only method (or `method=`) under policies."""
        return self.supervisor(*policies).run(Call(bundle=bundle_path, **call))

    def attack(self, code: str, *policies: str, **more: Any) -> Outcome:
        """Run Python source that defines `go` as a plugin."""
        call = {name: more.pop(name) for name in list(more) if name in Call._fields}
        source = "from plugsec_plugins.guest import plugin\n" + code
        return self.run(self.bundle({"main.py": source}, **more), *policies, **call)


def is_root() -> bool:
    """Whether this suite runs as root."""
    return os.geteuid() == 0
