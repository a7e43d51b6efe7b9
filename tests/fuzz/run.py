"""Fuzz for a while: `make fuzz`, or `python tests/fuzz/run.py --examples 10000 --target bundle`.

Every example is named by seed, target and number, so a finding can be had again; its bytes are kept besides.
A finding is an exception outside the error tree, an answer that contradicts itself, or no answer in time.
"""

import argparse
import os
import signal
import sys
import time
import traceback
from random import Random

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(HERE))

from fuzz.targets import REFUSALS, TARGETS, Target  # noqa: E402

EXAMPLES = 1_000_000
SECONDS_EACH = 20  # honest examples take milliseconds
FINDINGS_MAX = 20  # more than that are variations
MEMORY_MAX = 2 * 1024**3


class TooSlow(BaseException):
    """An example that does not end; no reader's `except Exception` may hide it."""


def example(target: Target, seed: int, number: int) -> bytes:
    """The bytes of one example, the same on every machine."""
    random = Random(f"{seed} {target.name} {number}")
    data = random.choice(target.seeds)
    return random.choice(target.spoil)(data, random, target.seeds)


def tried(target: Target, data: bytes) -> str:
    """Read one example; `read`, `refused`, or raises what must not be."""
    try:
        target.read(data)
    except REFUSALS as err:
        if not err.id.startswith("PLG-") or not err.message or err.code not in (2, 3, 4):
            raise AssertionError(f"a refusal without id, words or exit code: {err!r}") from err
        return "refused"
    return "read"


def fuzz(targets: list[Target], examples: int, seed: int, findings: str) -> int:
    """Run all targets for their shares of `examples`; returns how many findings there were."""
    shares = sum(target.share for target in targets)
    found = 0
    for target in targets:
        count, began = max(1, examples * target.share // shares), time.monotonic()
        counts = {"read": 0, "refused": 0}
        shown = began
        for number in range(count):
            data = example(target, seed, number)
            signal.alarm(SECONDS_EACH)
            try:
                counts[tried(target, data)] += 1
            except (Exception, TooSlow):
                found += 1
                report(target, seed, number, data, findings)
                if found == FINDINGS_MAX:
                    return found
            finally:
                signal.alarm(0)
            if time.monotonic() - shown > 5:
                shown = time.monotonic()
                print(f"  {target.name}: {number + 1} of {count}", file=sys.stderr, flush=True)
        took = time.monotonic() - began
        print(
            f"{target.name:<10} {count:>8} examples in {took:5.0f} s: {counts['refused']} refused, {counts['read']} read",
            flush=True,
        )
    return found


def report(target: Target, seed: int, number: int, data: bytes, findings: str) -> None:
    """Keep a finding's bytes and say how to have it again."""
    os.makedirs(findings, exist_ok=True)
    path = os.path.join(findings, f"{target.name}-{seed}-{number}.bin")
    with open(path, "wb") as file:
        file.write(data)
    print(f"FOUND in {target.name}: example {number} of seed {seed}, kept as {path}", flush=True)
    traceback.print_exc(limit=-6, file=sys.stdout)
    print(f"  again: python {os.path.relpath(__file__)} --target {target.name} --replay {path}", flush=True)


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--examples", type=int, default=EXAMPLES)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--target", choices=[target.name for target in TARGETS])
    parser.add_argument("--findings", default=".fuzz", help="where findings are kept")
    parser.add_argument("--replay", metavar="FILE", help="read this file once, by --target")
    arguments = parser.parse_args()
    targets = [target for target in TARGETS if arguments.target in (None, target.name)]
    limit_memory()
    signal.signal(signal.SIGALRM, _too_slow)
    if arguments.replay:
        with open(arguments.replay, "rb") as file:
            print(tried(targets[0], file.read()))
        return 0
    found = fuzz(targets, arguments.examples, arguments.seed, arguments.findings)
    print(f"{found} findings" if found else "no findings")
    return 1 if found else 0


def limit_memory() -> None:
    """A reader that grows without bound must fail here, not take the machine along."""
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_MAX, MEMORY_MAX))


def _too_slow(_signal: int, _frame: object) -> None:
    raise TooSlow(f"no answer in {SECONDS_EACH} s")


if __name__ == "__main__":
    raise SystemExit(main())
