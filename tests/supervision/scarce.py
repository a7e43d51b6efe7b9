"""`plugsec run` where space is short or nothing can be written, told as JSON. Runs inside a mount namespace.

unshare -m python scarce.py DIRECTORY     (as an ordinary user: unshare -rm)

An ordinary user's commands run one user namespace further down, where they are no root again.
"""

import contextlib
import json
import os
import pwd
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from kit.home import Home
from kit.outside import PATIENCE_S, command_line, eventually
from kit.started import bundle_of, registered, stories, verified

PLAIN_ROOT = Path("/proc/self/uid_map").read_text().split()[:2] == ["0", "0"]
NO_ROOT = ["unshare", "-U", "--map-user=1000", "--map-group=1000"]
AS_CALLER = [] if PLAIN_ROOT else NO_ROOT
NOBODY = next(uid for uid in range(54321, 55321) if uid not in {entry.pw_uid for entry in pwd.getpwall()})
SIZE = "size=1m,mode=0700"
PAGE = os.sysconf("SC_PAGESIZE")
GREETING = "@plugin.method\ndef go(): return 'hello'\n"
SLOW = "import time\n@plugin.method\ndef go():\n    time.sleep(1)\n    return 'hello'\n"
RESULTS = "import os\n@plugin.method\ndef go():\n    open('/output/x', 'wb').write(b'x' * 500_000)\n    return 'hello'\n"
WRITES = [{"name": "fs.write", "paths": ["$OUTPUT"], "reason": "its results"}]
PAGES = (0, 1, 2, 3, 4, 5, 6, 8, 62, 64, 66, 68, 70, 72)  # the log's reserve takes 64


def told(
    ended: "subprocess.CompletedProcess[bytes] | subprocess.Popen[bytes]", out: bytes, err: bytes
) -> Any:
    """What a caller sees: the code, and what stdout and stderr say."""
    return {"code": ended.returncode, "out": out.decode(), "err": err.decode()}


def plugsec(home: Home, bundle: str, *more: str, prefix: list[str] = AS_CALLER, **environment: str) -> Any:
    """Run a bundle as an ordinary command."""
    kept = {name: value for name, value in os.environ.items() if name != "PLUGSEC_HOME"}
    where = {"PLUGSEC_HOME": str(home.home)} if not environment else {}
    ended = subprocess.run(
        [*prefix, *command_line("run", bundle, "--quiet", *more)],
        env={**kept, **where, **environment}, capture_output=True, check=False,
    )  # fmt: skip
    return told(ended, ended.stdout, ended.stderr)


@contextlib.contextmanager
def full(directory: Path, *, but: int = 0) -> Iterator[None]:
    """No block left on the file system of `directory`, except so many bytes."""
    filler, spare = directory / f"filler-{time.monotonic_ns()}", directory / "spare"
    if but:
        spare.write_bytes(b"x" * but)
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(b"x" * PAGE):
            pass
    if but:
        spare.unlink()
    try:
        yield
    finally:
        filler.unlink()


def tree(home: Home) -> list[str]:
    """Every name that the home holds."""
    return sorted(str(path.relative_to(home.home)) for path in home.home.rglob("*"))


def kept_home(home: Home) -> Any:
    """A home that has been used, on a disk that is full now and is not later."""
    bundle = bundle_of(home, GREETING)
    first = plugsec(home, bundle)
    before = tree(home)
    with full(home.root):
        refused = [plugsec(home, bundle), plugsec(home, bundle, "--json")]
        more, whole = sorted(set(tree(home)) - set(before)), verified(home)
    return {"first": first, "refused": refused, "more": more, "whole": whole, "then": plugsec(home, bundle)}


def while_it_runs(home: Home) -> Any:
    """The disk fills up under a run that has begun."""
    bundle = bundle_of(home, SLOW)
    plugsec(home, bundle)
    process = subprocess.Popen(
        [*AS_CALLER, *command_line("run", bundle, "--quiet", "--home", str(home.home))],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert eventually(lambda: len(stories(home)) == 2)
    with full(home.root):
        out, err = process.communicate(timeout=PATIENCE_S)
        whole, registers = verified(home), sorted(registered(home))
        with full(home.root):
            refused = plugsec(home, bundle)
    return {
        "ended": told(process, out, err), "whole": whole, "registered": registers, "refused": refused,
        "then": plugsec(home, bundle),
    }  # fmt: skip


def by_inches(home: Home) -> Any:
    """So many pages are left, so that the disk is found full at another step each time."""
    bundle = bundle_of(home, GREETING)
    ended = []
    for pages in PAGES:
        plugsec(home, bundle)  # sets the log's reserve aside again
        with full(home.root, but=PAGE * pages):
            ended.append(plugsec(home, bundle))
            assert verified(home), ended[-1]
    return {"ended": ended, "then": plugsec(home, bundle)}


def fresh_home(home: Home) -> Any:
    """A first start on a full disk."""
    bundle = bundle_of(home, GREETING)
    with full(home.root):
        refused = plugsec(home, bundle)
        head = (home.home / "state" / "audit" / "head").exists()
    return {"refused": refused, "head": head, "then": plugsec(home, bundle)}


def results(home: Home) -> Any:
    """The home has room; where the receipt and the results should go has none."""
    bundle, elsewhere = bundle_of(home, RESULTS, permissions=WRITES), home.root / "elsewhere"
    elsewhere.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", SIZE, "tmpfs", str(elsewhere)], check=True)
    policy = home.policy('[[grant]]\nid = "results"\nplugins = ["*"]\nfs.write = ["$OUTPUT"]\n')
    with full(elsewhere):
        receipt = plugsec(home, bundle, "--policy", policy, "--receipt", str(elsewhere / "receipt"))
        output = plugsec(home, bundle, "--policy", policy, "--output-dir", str(elsewhere / "out"))
        left = sorted(os.listdir(elsewhere))
    return {"receipt": receipt, "output": output, "left": left}


def read_only(home: Home) -> Any:
    """A file system that lets nobody write: a home that was used, and one that was not."""
    bundle = bundle_of(home, GREETING)

    def remount(how: str) -> None:
        subprocess.run(["mount", "-o", f"remount,bind,{how}", str(home.root)], check=True)

    remount("ro")
    fresh = plugsec(home, bundle)
    remount("rw")
    first = plugsec(home, bundle)
    remount("ro")
    kept, whole = plugsec(home, bundle, "--json"), verified(home)
    remount("rw")
    return {"fresh": fresh, "first": first, "kept": kept, "whole": whole, "then": plugsec(home, bundle)}


def no_home(home: Home) -> Any:
    """No HOME for a user whom no passwd entry gives one; a HOME that is a file; the XDG directories alone."""
    bundle = bundle_of(home, GREETING)
    nobody = ["unshare", "-U", f"--map-user={NOBODY}", f"--map-group={NOBODY}"]
    base = {f"XDG_{name}_HOME": "" for name in ("CONFIG", "DATA", "STATE", "CACHE")}
    own = {f"XDG_{name}_HOME": str(home.root / "xdg" / name) for name in ("CONFIG", "DATA", "STATE", "CACHE")}
    trust = ["--trust", str(home.home / "config" / "trust.d")]
    file = home.root / "a file"
    file.write_text("")
    return {
        "none": plugsec(home, bundle, prefix=nobody, HOME="", **base),
        "relative": plugsec(home, bundle, prefix=nobody, HOME="here", **base),
        "a file": plugsec(home, bundle, HOME=str(file), **base),
        "XDG": plugsec(home, bundle, *trust, HOME="", **own),
    }


def main() -> None:
    """Every story in a home and on a file system of its own."""
    report = {}
    for story in (kept_home, while_it_runs, by_inches, fresh_home, results, read_only, no_home):
        place = Path(sys.argv[1], story.__name__)
        place.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", SIZE, "tmpfs", str(place)], check=True)
        home = Home(place)
        report[story.__name__] = {
            **story(home),
            "stories": stories(home),
            "registered at the end": sorted(registered(home)),
            "verifies at the end": verified(home) if (home.home / "state").is_dir() else True,
        }
    json.dump(report, sys.stdout)


if __name__ == "__main__":
    main()
