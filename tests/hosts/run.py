"""Run the suite and the catalogue of attacks on emulated stock hosts: `make test-hosts`, or this file.

    run.py                          every host of the table, two at a time
    run.py debian12 …               these
    run.py --build                  build the image and stop (needs root once)
    run.py debian12 -- COMMAND…     another command than the suite, in the project's folder on that host

The project travels as its users get it: the wheel from dist/ and the locked dependencies, installed for the
guest's own CPython, beside the suite. Exit status 0 when every host passed and had the layers that it has to
have: one more missing, or one back, is a failure.
"""

import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from guest import Host, run
from image import HostError, Image, cache, image, prune

HERE = Path(__file__).parent
CLONE = HERE.parent.parent
NAMESPACES = frozenset(
    f"{kind}-namespace" for kind in ("user", "mount", "pid", "network", "ipc", "uts", "cgroup")
)
HOSTS = (
    Host("debian12"),
    # An ordinary user may drop capabilities only where a namespace gave them first.
    Host("debian12-without-user-namespaces", user_namespaces=False, lacks=NAMESPACES | {"capabilities"}),
    Host("debian12-masked-proc", masked_proc=True),
    Host("debian12-root", user="root"),
)
# What the catalogue of attacks needs beside plugsec itself: it is plain Python, and makes its own programs.
CATALOGUE = (
    "kit",
    "escapes/catalogue",
    "escapes/run_catalogue.py",
    "signing/signing_kit.py",
    "signing/hostile_containers.py",
    "audit/logs.py",
    "audit/tampering.py",
)
SUITE = "sh guest_suite.sh {0}; suite=$?; python3 tests/escapes/run_catalogue.py --host {0} && exit $suite"
SUMMARY = b"summary: "
AT_ONCE = 2  # a guest keeps about one processor busy
SUITE_SECONDS = 900  # emulation is about ten times slower than the machine it runs on
GUEST_PYTHON = "3.11"
GUEST_GLIBC = 36


def site() -> Path:
    """Return a folder with the locked dependencies for the guest's CPython, installed once per lock."""
    lock = CLONE / "requirements.lock"
    folder = cache() / f"site-{hashlib.sha256(lock.read_bytes()).hexdigest()[:16]}"
    if folder.is_dir():
        return folder
    print("plugsec: installing the locked packages for the guest's Python", file=sys.stderr)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix="site-") as name:
        target = Path(name) / "site"
        platforms = ["manylinux2014_x86_64", "manylinux1_x86_64"]
        platforms += [f"manylinux_2_{minor}_x86_64" for minor in range(5, GUEST_GLIBC + 1)]
        subprocess.run(
            [
                sys.executable,
                "-m",
                "pip",
                "install",
                "-qq",
                "--require-hashes",
                "--no-deps",
                "--only-binary",
                ":all:",
                "--python-version",
                GUEST_PYTHON,
                "--implementation",
                "cp",
                "--abi",
                "cp311",
                "--abi",
                "abi3",
                "--abi",
                "none",
                *(word for platform in platforms for word in ("--platform", platform)),
                "--target",
                str(target),
                "-r",
                str(lock),
            ],
            check=True,
        )
        target.rename(folder)
    prune(folder.parent, "site-*")
    return folder


def project(target: Path) -> None:
    """Fill `target` with what travels to the guest."""
    shutil.copytree(site(), target / "site")
    wheel = next((CLONE / "dist").glob("plugsec-*.whl"), None)
    if wheel is None:
        raise HostError("no wheel in dist/; type: make test-hosts")
    subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "install",
            "-qq",
            "--no-index",
            "--no-deps",
            "--target",
            str(target / "site"),
            str(wheel),
        ],
        check=True,
    )
    shutil.copy(HERE / "guest_suite.sh", target)
    for name in CATALOGUE:
        source, copy = HERE.parent / name, target / "tests" / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, copy, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, copy)


class Result(NamedTuple):
    """How a host's command ended, and what the catalogue says in its summary."""

    host: Host
    status: int
    seconds: float
    summary: dict[str, Any] | None

    def complaints(self) -> Iterator[str]:
        """Why this host failed; nothing where it passed."""
        if self.status != 0:
            yield f"exit {self.status}"
        if self.summary is None:
            yield "the catalogue did not finish"
            return
        inactive = frozenset(self.summary["inactive"])
        if unexpected := sorted(inactive - self.host.lacks):
            yield f"lacks {', '.join(unexpected)}, which this host has to have"
        if returned := sorted(self.host.lacks - inactive):
            yield f"has {', '.join(returned)}, which this host is there to lack"


class Output(io.RawIOBase):
    """Passes on what a guest prints and keeps the summary out of it."""

    def __init__(self, to: BinaryIO) -> None:
        self._to, self._rest = to, b""
        self.summary: dict[str, Any] | None = None

    def write(self, block: bytes) -> int:  # type: ignore[override]
        *lines, self._rest = (self._rest + block).split(b"\n")
        for line in lines:
            if line.startswith(SUMMARY):
                self.summary = json.loads(line[len(SUMMARY) :])
            else:
                self._to.write(line + b"\n")
        self._to.flush()
        return len(block)


def play(base: Image, host: Host, target: Path, command: list[str], out: BinaryIO) -> Result:
    """Run a command on a host; the host's name frames what it prints."""
    began = time.monotonic()
    output = Output(out)
    output.write(f"--- {host.name}\n".encode())
    try:
        status = run(base, host, target, command, seconds=SUITE_SECONDS, out=output)
    except HostError as error:
        output.write(f"plugsec: {error}\n".encode())
        status = 1
    seconds = time.monotonic() - began
    output.write(f"--- {host.name}: exit {status} after {seconds:.0f} s\n".encode())
    return Result(host, status, seconds, output.summary)


def main(words: list[str]) -> int:
    """Run the suite or a command on the named hosts and print one closing line that counts hosts."""
    cut = words.index("--") if "--" in words else len(words)
    names, command = words[:cut] or [host.name for host in HOSTS], words[cut + 1 :]
    if names == ["--build"]:
        print(image().disk.parent)
        return 0
    table = {host.name: host for host in HOSTS}
    if unknown := [name for name in names if name not in table]:
        print(f"no such host: {', '.join(unknown)}; hosts: {', '.join(table)}", file=sys.stderr)
        return 2
    base = image()
    with tempfile.TemporaryDirectory(prefix="plugsec-project-") as name:
        target = Path(name)
        project(target)
        if command:
            results = [play(base, table[host], target, command, sys.stdout.buffer) for host in names]
            return max(result.status for result in results)
        results = list(_in_order(base, [table[host] for host in names], target))
    return _close(results)


def _in_order(base: Image, hosts: list[Host], target: Path) -> Iterator[Result]:
    """Play the suite on AT_ONCE hosts at a time; each one's output comes in one piece, or at once if alone."""
    outs = [io.BytesIO() if len(hosts) > 1 else sys.stdout.buffer for _ in hosts]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        commands = [["sh", "-c", SUITE.format(host.name)] for host in hosts]
        plays = [
            pool.submit(play, base, host, target, command, out)
            for host, command, out in zip(hosts, commands, outs, strict=True)
        ]
        for out, playing in zip(outs, plays, strict=True):
            result = playing.result()
            if isinstance(out, io.BytesIO):
                sys.stdout.buffer.write(out.getvalue())
                sys.stdout.buffer.flush()
            yield result


def _close(results: list[Result]) -> int:
    """What each host had and how its attacks ended, and a closing line that counts hosts."""
    failed = 0
    for result in results:
        complaints = list(result.complaints())
        failed += bool(complaints)
        ended = list((result.summary or {}).get("attacks", {}).values())
        counts = ", ".join(f"{ended.count(word)} {word}" for word in ("stopped", "skipped", "ESCAPED"))
        lacks = ", ".join((result.summary or {}).get("inactive", ())) or "nothing"
        print(f"{result.host.name}: {counts}; lacks {lacks}; {result.seconds:.0f} s")
        for complaint in complaints:
            print(f"{result.host.name}: FAILED: {complaint}")
    print(f"{len(results) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    os.environ.setdefault("LC_ALL", "C.UTF-8")
    try:
        raise SystemExit(main(sys.argv[1:]))
    except (HostError, subprocess.CalledProcessError) as error:
        print(f"plugsec: {error}", file=sys.stderr)
        raise SystemExit(1) from None
