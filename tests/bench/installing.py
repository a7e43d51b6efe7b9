"""Installing a bundle of 5,000 files against `tar x` of the same file, on the same file system.

    python tests/bench/installing.py            by itself
    lines(directory, environment, program, runs)   for the page that `make bench` writes

`plugsec install` verifies every signature and hash, writes the tree, makes it durable (syncfs) and records
it; `tar x` only writes. The pairs alternate; each starts from a store, or a directory, without the bundle.
"""

import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))

from kit.home import Home  # noqa: E402 - the path had to be set first

FILES, FILE_BYTES = 5000, 4096
MUST = 2.0
NAME = "acme/large"


def lines(home: Home, environment: dict[str, str], program: list[str], runs: int) -> list[str]:
    """Return the section of the page."""
    noise = random.Random(1)
    files = {f"lib/part{n // 100:02}/module{n:04}.py": noise.randbytes(FILE_BYTES) for n in range(FILES - 1)}
    bundle = home.bundle({"main.py": b"", **files}, name=NAME)
    target = home.root / "untarred"

    def install() -> None:
        _run([*program, "install", bundle], environment)

    def tar() -> None:
        _run(["tar", "xf", bundle, "-C", str(target)], environment)

    ours, theirs = [], []
    for turn in range(runs + 1):
        target.mkdir()
        pair = _timed(install), _timed(tar)
        if turn:  # the first pair fills caches
            ours.append(pair[0])
            theirs.append(pair[1])
        _run([*program, "remove", NAME], environment)
        shutil.rmtree(target)
        os.sync()  # so that one turn does not pay for the one before
    ratio = statistics.median(a / b for a, b in zip(ours, theirs, strict=True))
    verdict = "kept" if ratio <= MUST else "MISSED"
    return [
        "", "## Installing", "",
        f"A bundle of {FILES} files of {FILE_BYTES} bytes; `tar x` neither verifies nor syncs.", "",
        "| | median ms | fastest | slowest |", "|---|---|---|---|",
        _row("plugsec install", ours), _row("tar x", theirs), "",
        f"Ratio: {ratio:.2f} × (budget {MUST} ×: {verdict}).", "",
    ]  # fmt: skip


def _timed(act: Callable[[], None]) -> float:
    begun = time.monotonic_ns()
    act()
    return (time.monotonic_ns() - begun) / 1e6


def _run(command: list[str], environment: dict[str, str]) -> None:
    ended = subprocess.run(command, env=environment, capture_output=True, check=False)
    if ended.returncode != 0:
        raise SystemExit(f"bench: {command[0]}: exit {ended.returncode}: {ended.stderr.decode()}")


def _row(name: str, times: list[float]) -> str:
    return f"| {name} | {statistics.median(times):.0f} | {min(times):.0f} | {max(times):.0f} |"


def main() -> None:
    """Measure alone and print the section."""
    with tempfile.TemporaryDirectory() as directory:
        home = Home(Path(directory))
        environment = {**os.environ, "PLUGSEC_HOME": str(home.home)}
        print("\n".join(lines(home, environment, [sys.executable, "-m", "plugsec"], 9)))


if __name__ == "__main__":
    main()
