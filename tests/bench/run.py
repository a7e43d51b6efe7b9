"""`make bench`: speed as ratios against a peer measured in the same run, written to docs/benchmarks.md.

Commands alternate (A B C A B C …), so that a machine whose speed drifts treats them alike; medians and
the spread are shown, and the ratio is the median of the ratios pair by pair. Nothing here is a test.
"""

import argparse
import json
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))

import installing  # noqa: E402 - beside this file
import verifying  # noqa: E402

from kit.home import Home  # noqa: E402 - the path had to be set first

RUNS = 21
ECHO = "import sys, json; print(json.dumps(json.loads(sys.stdin.read())))"
PLUGIN = "from plugsec_plugins.guest import plugin\n@plugin.method\ndef echo(**value):\n    return value\n"
SCHEMA = '{"type": "object", "properties": {"text": {"type": "string", "maxLength": 1000}}}'
INPUT = b'{"text": "hello"}'
NATIVE = r"""
#include <stdio.h>
int main(void) { char b[4096]; size_t n = fread(b, 1, sizeof b, stdin); fwrite(b, 1, n, stdout); return 0; }
"""
MUST_COLD, MUST_NATIVE_MS = 2.5, 30
FIRST = "the same, its signature not verified before"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=RUNS)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "benchmarks.md")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        os.chmod(directory, 0o755)
        text = measure(Path(directory), options.runs)
    options.out.write_text(text, encoding="utf-8")
    print(text)


def measure(directory: Path, runs: int) -> str:
    home = Home(directory)
    environment = {**os.environ, "PLUGSEC_HOME": str(home.home)}
    program = shutil.which("plugsec", path=os.path.dirname(sys.executable)) or ""
    if not program:
        raise SystemExit("bench: plugsec is not installed beside this interpreter")
    methods = {"echo": {"summary": "", "input": "schemas/echo.json", "output": "schemas/echo.json"}}
    bundle = home.bundle({"main.py": PLUGIN, "schemas/echo.json": SCHEMA}, methods=methods)
    plugsec = [program, "run", bundle, "echo", "--input", "-", "--quiet"]
    python = os.path.realpath(sys.executable)
    commands = {
        "plugsec run (Python plugin)": plugsec,
        FIRST: plugsec,
        "bwrap python3 -I -S": [*bwrap(python), python, "-I", "-S", "-c", ECHO],
        "bare python3 -I -S": [python, "-I", "-S", "-c", ECHO],
    }
    native = build_native(directory)
    if native:
        binary = native.read_bytes()
        runtime = {"kind": "exec", "entry": "echo", "dialect": "oneshot"}
        packed = home.bundle({"echo": binary}, modes={"echo": 0o755}, runtime=runtime)
        commands["plugsec run (static native plugin)"] = [program, "run", packed, "--input", "-", "--quiet"]
        commands["bwrap (the same native program)"] = [
            *bwrap(python),
            "--ro-bind",
            str(native),
            "/echo",
            "/echo",
        ]
    times = alternate(commands, environment, runs)
    falls = waterfall(bundle, environment)
    loaded = modules(program, bundle, environment)
    sections = [
        *verifying.lines(home, environment, [program], min(runs, 5)),
        *installing.lines(home, environment, [program], min(runs, 9)),
    ]
    return page(times, falls, loaded, runs) + "\n".join(sections)


def bwrap(python: str) -> list[str]:
    if not shutil.which("bwrap"):
        raise SystemExit("bench: bubblewrap is the peer and is not installed (apt install bubblewrap)")
    words = [
        "bwrap",
        "--unshare-all",
        "--die-with-parent",
        "--new-session",
        "--proc",
        "/proc",
        "--dev",
        "/dev",
    ]
    words += ["--tmpfs", "/tmp"]
    prefix = str(Path(python).parent.parent)
    for path in dict.fromkeys(["/usr", prefix]):
        words += ["--ro-bind", path, path]
    for link in ("/lib", "/lib64", "/bin"):
        if os.path.islink(link):
            words += ["--symlink", os.readlink(link), link]
    return words


def build_native(directory: Path) -> Path | None:
    if not shutil.which("cc"):
        return None
    source, binary = directory / "echo.c", directory / "echo"
    source.write_text(NATIVE)
    built = subprocess.run(["cc", "-O2", "-static", "-o", str(binary), str(source)], check=False)
    return binary if built.returncode == 0 else None


def alternate(
    commands: dict[str, list[str]], environment: dict[str, str], runs: int
) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {name: [] for name in commands}
    for turn in range(runs + 2):
        for name, command in commands.items():
            facts = (
                list(Path(environment["PLUGSEC_HOME"], "cache", "settled").iterdir()) if name == FIRST else []
            )
            for fact in facts:
                fact.unlink()
            begun = time.monotonic_ns()
            ended = subprocess.run(command, input=INPUT, env=environment, capture_output=True, check=False)
            taken = (time.monotonic_ns() - begun) / 1e6
            for fact in facts:
                fact.touch(0o600)
            if ended.returncode != 0 or json.loads(ended.stdout) != json.loads(INPUT):
                raise SystemExit(f"bench: {name}: exit {ended.returncode}: {ended.stderr.decode()}")
            if turn >= 2:  # the first two fill caches
                times[name].append(taken)
    return times


def waterfall(bundle: str, environment: dict[str, str]) -> list[tuple[str, float, float]]:
    """The steps of the run whose whole took the median of nine."""
    script = str(Path(__file__).with_name("waterfall.py"))
    falls = []
    for _ in range(9):
        t0 = str(time.monotonic_ns())
        ended = subprocess.run(
            [sys.executable, script, "run", bundle, "echo", "--param", "text=hello", "--quiet"],
            env={**environment, "BENCH_T0_NS": t0}, capture_output=True, text=True, check=False,
        )  # fmt: skip
        falls.append([tuple(mark) for mark in json.loads(ended.stderr.splitlines()[-1])])
    falls.sort(key=lambda marks: max(end for _, _, end in marks))
    return sorted(falls[len(falls) // 2], key=lambda mark: mark[1])


def modules(program: str, bundle: str, environment: dict[str, str]) -> dict[str, tuple[int, float]]:
    """What a run imports, as `-X importtime` counts it: number and milliseconds, ours and the library's."""
    command = [sys.executable, "-X", "importtime", program, "run", bundle, "echo", "--input", "-", "--quiet"]
    best: dict[str, int] = {}
    for _ in range(7):
        ended = subprocess.run(command, input=INPUT, env=environment, capture_output=True, check=True)
        for found in re.finditer(rb"import time:\s+(\d+) \|\s+\d+ \|\s+(\S+)", ended.stderr):
            name, own_us = found[2].decode(), int(found[1])
            best[name] = min(own_us, best.get(name, own_us))
    ours = [value for name, value in best.items() if name.startswith("plugsec")]
    others = [value for name, value in best.items() if not name.startswith("plugsec")]
    return {"plugsec's": (len(ours), sum(ours) / 1e3), "the library's": (len(others), sum(others) / 1e3)}


def page(
    times: dict[str, list[float]],
    falls: list[tuple[str, float, float]],
    loaded: dict[str, tuple[int, float]],
    runs: int,
) -> str:
    peer = "bwrap python3 -I -S"
    lines = [
        "# Benchmarks", "",
        "Written by `make bench`; budgets and their reasons are the design's. Machines differ and are noisy:"
        " read the ratios.", "",
        f"Machine: {platform.machine()}, {os.cpu_count()} cores, Linux {platform.release()}, CPython"
        f" {platform.python_version()}, {version('bwrap')}; {'root' if os.geteuid() == 0 else 'ordinary user'};"
        f" {runs} alternating runs, load average {os.getloadavg()[0]:.1f} at the end.", "",
        "## Cold: one run from a shell", "",
        "The plugin echoes a small JSON object. plugsec verifies the bundle and every byte, decides, enters"
        " every layer, checks input and output against their schemas and writes two durable audit records;"
        " bubblewrap verifies and records nothing. The arithmetic of a signature is done once for each bundle"
        " (adr/0009); the second line is a run that does it.", "",
        "| command | median ms | spread (10 to 90 %) | × bwrap, pair by pair |", "|---|---:|---:|---:|",
    ]  # fmt: skip
    for name, values in times.items():
        deciles = statistics.quantiles(values, n=10)
        ratio = statistics.median(a / b for a, b in zip(values, times[peer], strict=True))
        median = statistics.median(values)
        lines.append(f"| {name} | {median:.1f} | {deciles[0]:.1f} to {deciles[-1]:.1f} | {ratio:.2f} |")
    lines += ["", *verdicts(times, peer), "", "## Where the time of a cold run goes", ""]
    lines += [
        "Milliseconds since the process was started (with a timer around each step, so a little slower).",
        "",
    ]
    lines += ["| from | to | ms | step |", "|---:|---:|---:|---|"]
    lines += [
        f"| {begin:.1f} | {end:.1f} | {end - begin:.1f} | {name.strip()} |" for name, begin, end in falls
    ]
    lines += [
        "", "The next milliseconds are in what is loaded before boot is told what to do, as `-X importtime`"
        " counts it (best of seven, its own cost included):", "",
        *(f"- {whose} modules: {number}, {ms:.1f} ms" for whose, (number, ms) in loaded.items()),
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def verdicts(times: dict[str, list[float]], peer: str) -> list[str]:
    cold = statistics.median(
        a / b for a, b in zip(times["plugsec run (Python plugin)"], times[peer], strict=True)
    )
    lines = [f"- Cold, Python: {cold:.2f} × bubblewrap; the budget's must is ≤ {MUST_COLD}:"
             f" {'kept' if cold <= MUST_COLD else 'missed'}."]  # fmt: skip
    if "plugsec run (static native plugin)" in times:
        ours, theirs = times["plugsec run (static native plugin)"], times["bwrap (the same native program)"]
        over = statistics.median(a - b for a, b in zip(ours, theirs, strict=True))
        lines.append(f"- Cold, static native: {over:.1f} ms over bubblewrap; the must is ≤ {MUST_NATIVE_MS} ms:"
                     f" {'kept' if over <= MUST_NATIVE_MS else 'missed'}.")  # fmt: skip
    return lines


def version(program: str) -> str:
    return subprocess.run([program, "--version"], capture_output=True, text=True, check=False).stdout.strip()


if __name__ == "__main__":
    main()
