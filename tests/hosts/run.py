"""Run guest_suite.sh on emulated stock hosts: `make test-hosts`, or this file with the names of hosts.

    run.py                          every host of the table
    run.py debian12 …               these
    run.py --build                  build the image and stop (needs root once)
    run.py debian12 -- COMMAND…     another command than the suite, in the project's folder on that host

The project travels as its users get it: the wheel from dist/ and the locked dependencies, installed for the
guest's own CPython, beside the suite. Exit status 0 when every host passed.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from guest import Host, run
from image import HostError, cache, image, prune

HERE = Path(__file__).parent
CLONE = HERE.parent.parent
HOSTS = (
    Host("debian12"),
    Host("debian12-without-user-namespaces", user_namespaces=False),
    Host("debian12-masked-proc", masked_proc=True),
    Host("debian12-root", user="root"),
)
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
    failed = []
    with tempfile.TemporaryDirectory(prefix="plugsec-project-") as name:
        target = Path(name)
        project(target)
        for host in (table[name] for name in names):
            began = time.monotonic()
            print(f"--- {host.name}", flush=True)
            # The suite reads the host's name, to know what it must find there.
            status = run(
                base,
                host,
                target,
                command or ["sh", "guest_suite.sh", host.name],
                seconds=SUITE_SECONDS,
                out=sys.stdout.buffer,
            )
            print(f"--- {host.name}: exit {status} after {time.monotonic() - began:.0f} s", flush=True)
            if status != 0:
                failed.append(host.name)
    if command:
        return 1 if failed else 0
    print(f"{len(names) - len(failed)} passed, {len(failed)} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    os.environ.setdefault("LC_ALL", "C.UTF-8")
    try:
        raise SystemExit(main(sys.argv[1:]))
    except (HostError, subprocess.CalledProcessError) as error:
        print(f"plugsec: {error}", file=sys.stderr)
        raise SystemExit(1) from None
