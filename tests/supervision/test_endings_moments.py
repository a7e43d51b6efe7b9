"""SIGKILL of supervisor, boot, init and plugin at fifty moments each, spread over the victim's whole life.

How long each lives is measured first; the moments are drawn by a fixed seed, one from each fiftieth of that.
"""

import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from kit.home import Home
from kit.marked import GENERATIONS, bearers, below, marked
from kit.outside import PATIENCE_S, cgroup_directories, command_line, eventually, host_mounts, lives
from kit.started import GREETING, bundle_of, registered, stories
from plugsec.audit.verify import verify

MOMENTS = 50
FIRST_STARTS = 20
_SEED = 20241124
_MEASURED = 3
_LOOK_S = 0.0003
_BEYOND = 1.1  # of the measured life: the last moments lie behind the result
_HIT_MIN = MOMENTS // 2  # of the victims, on a host whose speed changes meanwhile
BRIEF = "import time\n@plugin.method\ndef go():\n    time.sleep(0.03)\n    return 'hello'\n"


class Struck(NamedTuple):
    """A run whose victim was killed: whether it lived then, and what was to be seen afterwards."""

    hit: bool
    code: int
    out: str
    err: str
    mark: bytes


def begin(home: Home, bundle: str) -> tuple[subprocess.Popen[bytes], bytes]:
    """Start a run; its processes bear a mark."""
    arguments = command_line("run", bundle, "--home", str(home.home), "--json", "--quiet")
    with marked() as mark:
        process = subprocess.Popen(
            arguments, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
    return process, mark


def found(process: subprocess.Popen[bytes], victim: str) -> int:
    """The victim's pid as soon as there is one; 0 when the run ended before."""
    pid = 0
    while not pid and lives(process.pid):
        time.sleep(_LOOK_S)
        pid = below(process.pid, GENERATIONS[victim])
    return pid


def life(home: Home, bundle: str, victim: str) -> float:
    """How long the victim lives when nobody disturbs it: seconds, the median of a few."""
    lengths = []
    for _ in range(_MEASURED):
        process, _mark = begin(home, bundle)
        pid = found(process, victim)
        born = time.monotonic()
        while lives(pid):
            time.sleep(_LOOK_S)
        lengths.append(time.monotonic() - born)
        process.communicate(timeout=PATIENCE_S)
    return statistics.median(lengths)


def moments(length: float, count: int) -> Iterator[float]:
    """Seconds after its birth, one from each of `count` equal parts of the victim's life and a little more."""
    drawn = random.Random(_SEED)
    for part in range(count):
        yield (part + drawn.random()) / count * length * _BEYOND


def strike(home: Home, bundle: str, victim: str, after: float) -> Struck:
    """Start a run, kill the victim so many seconds after it was born, and see the supervisor end."""
    process, mark = begin(home, bundle)
    pid = found(process, victim)
    time.sleep(after)
    hit = lives(pid) if pid else False
    if hit:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            hit = False
    out, err = process.communicate(timeout=PATIENCE_S)
    return Struck(hit, process.returncode, out.decode(), err.decode(), mark)


def cgroups_of(runs: set[str]) -> list[str]:
    """The cgroup directories that are left of these runs."""
    return [name for name in cgroup_directories() if name.rpartition("plugsec-")[2] in runs]


def sound(home: Home) -> bool:
    """Whether the log verifies to its last byte; raises what is wrong with it."""
    return verify(str(home.home / "state" / "audit")).size > 0


def struck_down(home: Home, struck: Struck, mounts: int) -> str:
    """Judge a killed supervisor and the next start; say what the log had to tell of the run."""
    assert struck.code in {-signal.SIGKILL, 0}, struck
    assert "Traceback" not in struck.err, struck
    assert eventually(lambda: not bearers(struck.mark)), "the jail outlived its supervisor"
    assert host_mounts() == mounts
    killed = registered(home)
    before = stories(home) if (home.home / "state").is_dir() else {}
    assert home.attack(GREETING).result == "hello"
    assert not registered(home)
    assert not cgroups_of(killed)
    after = stories(home)
    for run, story in after.items():
        assert [event for event, _ in story] == ["run.start", "run.end"], (run, story)
    assert sound(home)
    unended = {run for run, story in before.items() if len(story) == 1} & set(after)
    for run in unended:
        assert after[run][1] == ("run.end", "interrupted")
    return "interrupted" if unended else "ended" if struck.code == 0 else "not started, or ended"


def test_a_supervisor_killed_at_any_moment_leaves_nothing(home: Home) -> None:
    """Processes and mounts are gone at once, the rest after the next start, which records what had begun."""
    bundle, mounts, seen = bundle_of(home, BRIEF), host_mounts(), Counter[str]()
    length = life(home, bundle, "supervisor")
    for after in moments(length, MOMENTS):
        struck = strike(home, bundle, "supervisor", after)
        seen[struck_down(home, struck, mounts)] += 1
    assert seen["interrupted"] > 0, seen
    assert seen["not started, or ended"] > 0, seen


def test_a_first_start_killed_at_any_moment_leaves_nothing(home: Home) -> None:
    """The log is half made, the caches are half filled: the next start finishes or forgets them."""
    bundle, mounts = bundle_of(home, BRIEF), host_mounts()

    def forget() -> None:
        for name in ("state", "cache"):
            shutil.rmtree(home.home / name, ignore_errors=True)

    forget()
    length = life(home, bundle, "supervisor")
    for after in moments(length, FIRST_STARTS):
        forget()
        struck_down(home, strike(home, bundle, "supervisor", after), mounts)


def answered(home: Home, struck: Struck, mounts: int) -> str:
    """Judge a run whose supervisor lived on: an honest outcome, recorded, and nothing left."""
    assert "Traceback" not in struck.err, struck
    assert struck.out, struck
    told = json.loads(struck.out)
    run = told["run_id"]
    assert told["code"] == struck.code
    assert told["limit"] is None, told
    story = stories(home).get(run, [])
    match told["outcome"], struck.code:
        case "ok", 0:
            assert told["result"] == "hello"
            assert story == [("run.start", "granted"), ("run.end", "ok")]
        case "failed", 6:
            assert told["result"] is None
            # 002 where the jail was gone between the durable start and the go-ahead.
            assert told["error"]["id"] in {"PLG-RUN-001", "PLG-RUN-002"}
            assert story == [("run.start", "granted"), ("run.end", "failed")]
        case "refused", 8:
            assert "nothing was started" in told["error"]["message"], told
            assert story == []
        case _:
            pytest.fail(f"{told}\n{struck.err}")
    assert eventually(lambda: not bearers(struck.mark))
    assert host_mounts() == mounts
    assert not registered(home)
    assert not cgroups_of({run})
    assert sound(home)
    return str(told["outcome"])


@pytest.mark.parametrize(
    ("victim", "expected"),
    [("boot", {"refused", "failed"}), ("init", {"refused", "failed"}), ("plugin", {"failed"})],
)
def test_a_process_of_the_jail_killed_at_any_moment(victim: str, expected: set[str], home: Home) -> None:
    """Refused before the plugin could start, failed afterwards, or the whole right answer; never less."""
    bundle, mounts, seen = bundle_of(home, BRIEF), host_mounts(), Counter[str]()
    length, hits = life(home, bundle, victim), 0
    for after in moments(length, MOMENTS):
        struck = strike(home, bundle, victim, after)
        hits += struck.hit
        seen[answered(home, struck, mounts)] += 1
    assert expected <= set(seen), seen
    assert hits >= _HIT_MIN, seen
    assert home.attack(GREETING).result == "hello"
