"""Verifying a bundle of 1 GB against `sha256sum` of the same file.

    lines(directory, environment, program, runs)   for the page that `make bench` writes

`plugsec verify` compares every header, hashes every byte of the payload, verifies the signature and writes
one durable audit record; `sha256sum` only hashes. The pairs alternate; the file is in the page cache.
"""

import hashlib
import os
import statistics
import subprocess
import time
from pathlib import Path
from typing import BinaryIO, cast

from kit.home import FILE, Home
from plugsec_signing import bundle, canonical, keys, sshsig

PAYLOAD_BYTES = 1024**3
MUST, MUST_MIB = 0.7, 64
_BLOCK = bytes(range(256)) * 4096


def lines(home: Home, environment: dict[str, str], program: list[str], runs: int) -> list[str]:
    """Return the section of the page."""
    path = _write(home)
    ours: list[float] = []
    theirs: list[float] = []
    peak_kib = 0
    for turn in range(runs + 1):
        begun = time.monotonic_ns()
        process = subprocess.Popen([*program, "verify", path], env=environment, stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        middle = time.monotonic_ns()
        if process.returncode:
            raise SystemExit(f"bench: verify: exit {process.returncode}")
        subprocess.run(["sha256sum", path], stdout=subprocess.DEVNULL, check=True)
        ended = time.monotonic_ns()
        peak_kib = max(peak_kib, usage.ru_maxrss)
        if turn:  # the first pair fills the page cache
            ours.append((middle - begun) / 1e6)
            theirs.append((ended - middle) / 1e6)
    os.unlink(path)
    speed = statistics.median(b / a for a, b in zip(ours, theirs, strict=True))
    kept = speed >= MUST and peak_kib <= MUST_MIB * 1024
    return [
        "", "## Verifying", "",
        "A bundle of 1 GiB of payload; `sha256sum` of the same file only hashes.", "",
        "| | median ms | fastest | slowest |", "|---|---:|---:|---:|",
        *(f"| {name} | {statistics.median(values):.0f} | {min(values):.0f} | {max(values):.0f} |"
          for name, values in (("plugsec verify", ours), ("sha256sum", theirs))), "",
        f"Speed: {speed:.2f} × `sha256sum` (must ≥ {MUST}), {peak_kib // 1024} MiB resident (must ≤ {MUST_MIB}):"
        f" {'kept' if kept else 'missed'}.", "",
    ]  # fmt: skip


class _Blocks:
    """The payload, made while it is read."""

    def __init__(self) -> None:
        self._left = PAYLOAD_BYTES

    def read(self, size: int) -> bytes:
        data = _BLOCK[: min(size, self._left, len(_BLOCK))]
        self._left -= len(data)
        return data

    def __enter__(self) -> "_Blocks":
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is held."""


def _write(home: Home) -> str:
    digest, source = hashlib.sha256(), _Blocks()
    while data := source.read(256 * 1024):
        digest.update(data)
    manifest = canonical.encode({
        "schema": "plugsec.manifest/1", "name": "acme/gigabyte", "version": "1.0.0", "release": 1,
        "files": [{"path": "main.py", "size": PAYLOAD_BYTES, "mode": FILE, "sha256": digest.hexdigest()}],
        "runtime": {"kind": "python", "entry": "main"}, "methods": {"go": {"summary": "goes"}}, "permissions": [],
    })  # fmt: skip
    armour = sshsig.sign(keys.load_private_key(str(home.key), None), manifest, sshsig.NAMESPACE_MANIFEST)
    name = keys.fingerprint(sshsig.parse(armour).key)
    path = Path(home.root) / "gigabyte-1.0.0.plug"
    with path.open("wb") as out:
        bundle.write_bundle(out, manifest, {name: armour}, {}, lambda _: cast("BinaryIO", _Blocks()))
    return str(path)
