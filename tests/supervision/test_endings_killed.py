"""The supervisor and its helpers killed where it matters: while the plugin runs, while boot enters, a whole family.

Whatever is killed, nothing of the jail is left at once, the next start records what was interrupted, and
the audit log still verifies. The moments between are in test_endings_moments.py.
"""

import contextlib
import os
import signal
import time

import psutil
import pytest

from kit import weak
from kit.home import Home
from kit.outside import cgroup_directories, eventually
from kit.started import (
    GREETING,
    JAILED,
    SLEEPER,
    Started,
    bundle_of,
    records,
    runs,
    threaded,
    verified,
)
from plugsec.sandbox import launch

FAMILY = """
import os, threading, time
@plugin.method
def go():
    threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
    for _ in range(3):
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                time.sleep(600)
            time.sleep(600)
    time.sleep(600)
"""
CHILDREN = '[[grant]]\nid = "children"\nplugins = ["*"]\nprocess = 16\n'
ASKS = [{"name": "process", "max": 16, "reason": "starts children"}]


@pytest.mark.usefixtures("nothing_left")
def test_a_killed_supervisor_leaves_nothing_and_is_recorded(home: Home) -> None:
    """Processes and mounts are gone at once; the next start finds the run and says who it was."""
    started = Started(home, bundle_of(home, SLEEPER)).wait_until_running()
    started.stop()
    assert started.gone()
    assert home.attack(GREETING).result == "hello"
    events = records(home)
    begun = next(record for record in events if record["event"] == "run.start")
    ended = [record for record in events if record["event"] == "run.end" and record["run"] == begun["run"]]
    assert [record["decision"] for record in ended] == ["interrupted"]
    assert not [name for name in cgroup_directories() if str(begun["run"]) in name]
    assert verified(home)


@pytest.mark.usefixtures("nothing_left")
def test_a_killed_supervisor_takes_a_whole_family_along(home: Home) -> None:
    """Daemons with sessions of their own have nobody to hide behind."""
    bundle = bundle_of(home, FAMILY, permissions=ASKS)
    started = Started(home, bundle, "--policy", home.policy(CHILDREN)).wait_until_running(JAILED + 6)
    started.stop()
    assert started.gone()
    home.attack(GREETING)


def _children(boot: launch.Boot) -> list[psutil.Process]:
    waiter = psutil.Process(boot.pid)
    return [waiter, *waiter.children(recursive=True)]


@pytest.mark.usefixtures("nothing_left")
@pytest.mark.parametrize(("name", "which"), [("waiter", 0), ("init", 1), ("plugin", 2)])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV, signal.SIGQUIT])
def test_a_process_of_the_jail_killed_from_outside(
    name: str, which: int, number: signal.Signals, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run ends as the plugin's failure and leaves nothing; init is immune to what it did not ask for."""
    go, seen = launch.Boot.go, set[psutil.Process]()

    def shoot(self: launch.Boot) -> None:
        go(self)
        assert eventually(lambda: len(_children(self)) >= JAILED)
        seen.update(_children(self))
        _children(self)[which].send_signal(number)

    monkeypatch.setattr(launch.Boot, "go", shoot)
    outcome = home.attack(
        "import time\n@plugin.method\ndef go(): time.sleep(2)\n", limits={"wall_ms": 15_000}
    )
    assert (outcome.outcome, outcome.code) in {("failed", 6), ("ok", 0)}, outcome
    assert outcome.limit is None
    if number == signal.SIGKILL or name == "plugin":
        assert outcome.outcome == "failed"
    assert eventually(lambda: not [process for process in seen if runs(process)])


@pytest.mark.usefixtures("nothing_left")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_boot_killed_while_it_enters(
    number: signal.Signals, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing was started, which is what the refusal says; a boot that stands still is given up."""
    monkeypatch.setattr(launch, "ENTER_TIMEOUT_S", 1.0)
    begin = launch.Boot.begin

    def shoot(self: launch.Boot, *arguments: object) -> None:
        psutil.Process(self.pid).send_signal(number)
        begin(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(launch.Boot, "begin", shoot)
    outcome = home.attack(GREETING)
    assert (outcome.outcome, outcome.code) == ("refused", 8), outcome
    assert not [record for record in records(home) if record["event"] == "run.start"]


def test_without_parent_death_signals_a_killed_supervisor_leaves_its_jail(home: Home) -> None:
    """So the kernel's signal is what takes it along."""
    for missing in ((), ("parent-death",)):
        supervisor = os.fork()
        if supervisor == 0:
            with weak.without(home.root, *missing):
                home.attack(SLEEPER)
            os._exit(0)
        family = psutil.Process(supervisor)
        assert eventually(lambda family=family: any(map(threaded, family.children(recursive=True))))
        seen = family.children(recursive=True)
        os.kill(supervisor, signal.SIGKILL)
        os.waitpid(supervisor, 0)
        if not missing:
            assert eventually(lambda seen=seen: not [process for process in seen if runs(process)])
        else:
            time.sleep(0.5)
            left = [process for process in seen if runs(process)]
            for process in left:
                with contextlib.suppress(psutil.NoSuchProcess):  # init takes the rest along
                    process.kill()
            assert len(left) == JAILED
