"""Ends that nobody planned: the supervisor killed at any moment, its helpers killed, the operator's signals.

Whatever is killed, nothing of the jail is left at once, the next start records what was interrupted, and
the audit log still verifies.
"""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from kit import weak
from kit.home import Home
from kit.outside import PATIENCE_S, cgroup_directories, command_line, eventually, host_mounts, stop
from plugsec.outcome import Outcome
from plugsec.pipeline import Call
from plugsec.sandbox import launch
from plugsec.supervision.interruption import Interruption

# The second thread tells those who watch from outside that the plugin's code runs.
SLEEPER = """
import signal, threading, time
@plugin.method
def go():
    threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
    time.sleep(600)
"""
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
GREETING = "@plugin.method\ndef go(): return 'hello'\n"
JAILED = 3  # waiter, init, plugin
_SEED = 20241124


def bundle_of(home: Home, code: str, **more: object) -> str:
    """A bundle of a Python plugin."""
    return home.bundle({"main.py": "from plugsec_plugins.guest import plugin\n" + code}, **more)  # type: ignore[arg-type]


class Started:
    """The command line as a child process, with what was seen of its descendants."""

    def __init__(self, home: Home, bundle: str, *more: str) -> None:
        self.home = home
        arguments = ["run", bundle, "--home", str(home.home), "--json", *more]
        self.process = subprocess.Popen(
            command_line(*arguments), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        self.seen: set[psutil.Process] = set()

    def descendants(self) -> set[psutil.Process]:
        """Everything below the supervisor now."""
        try:
            found = set(psutil.Process(self.process.pid).children(recursive=True))
        except psutil.NoSuchProcess:
            found = set()
        self.seen |= found
        return found

    def wait_until_running(self, processes: int = JAILED) -> "Started":
        """Until so many processes are there and the plugin's code runs, in a thread of its own too."""
        assert eventually(lambda: len(self.descendants()) >= processes and any(map(_threaded, self.seen)))
        return self

    def gone(self) -> bool:
        """Whether nothing that was seen runs any more."""
        return eventually(lambda: not [process for process in self.seen if _runs(process)])

    def said(self) -> tuple[int, str, str]:
        """Exit status, stdout and stderr, once it has ended by itself."""
        out, err = self.process.communicate(timeout=PATIENCE_S)
        return self.process.returncode, out.decode(), err.decode()


def _threaded(process: psutil.Process) -> bool:
    try:
        return process.num_threads() > 1
    except psutil.NoSuchProcess:
        return False


def _runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def records(home: Home) -> list[dict[str, object]]:
    """Every record of the home's audit log, in order; a last line that is being written is left out."""
    found = []
    for path in sorted((home.home / "state").glob("**/*.jsonl")):
        for line in path.read_bytes().split(b"\n"):
            try:
                record = json.loads(line)
            except ValueError:
                continue
            if isinstance(record, dict) and "event" in record:
                found.append(record)
    return found


def verified(home: Home) -> bool:
    """Whether the audit log verifies, as the command line judges."""
    return (
        subprocess.run(
            command_line("audit", "verify", "--home", str(home.home)), check=False, capture_output=True
        ).returncode
        == 0
    )


@pytest.fixture
def nothing_left(home: Home) -> Iterator[None]:
    """Around a test: no mount more, and no cgroup of any of this home's runs once they have been swept."""
    mounts = host_mounts()
    yield
    assert host_mounts() == mounts
    known = {str(record.get("run")) for record in records(home)}
    assert not [name for name in cgroup_directories() if name.rpartition("plugsec-")[2] in known]


# SIGKILL ----------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("nothing_left")
def test_a_killed_supervisor_leaves_nothing_and_is_recorded(home: Home) -> None:
    """Processes and mounts are gone at once; the next start finds the run and says who it was."""
    started = Started(home, bundle_of(home, SLEEPER)).wait_until_running()
    stop(started.process, signal.SIGKILL)
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
    stop(started.process, signal.SIGKILL)
    assert started.gone()
    home.attack(GREETING)


@pytest.mark.usefixtures("nothing_left")
def test_a_supervisor_killed_at_any_moment_leaves_nothing(home: Home) -> None:
    """Twelve moments between its start and the plugin's, by a fixed seed; the log verifies after each."""
    moments, bundle = random.Random(_SEED), bundle_of(home, SLEEPER)
    for _ in range(12):
        started = Started(home, bundle)
        ends = time.monotonic() + moments.uniform(0.0, 0.4)
        while time.monotonic() < ends:
            started.descendants()
        stop(started.process, signal.SIGKILL)
        assert started.gone()
    assert home.attack(GREETING).result == "hello"
    by_run: dict[object, list[object]] = {}
    for record in records(home):
        if record["event"] in {"run.start", "run.end"}:
            by_run.setdefault(record["run"], []).append(record["event"])
    # A start that is killed between recording another's end and forgetting it leaves that to the next one.
    assert {(events[0], events[-1]) for events in by_run.values()} == {("run.start", "run.end")}
    assert all(events.count("run.start") == 1 for events in by_run.values())
    assert not list((home.home / "state" / "runs").iterdir())
    assert verified(home)


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
    assert eventually(lambda: not [process for process in seen if _runs(process)])


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


# The operator's signals --------------------------------------------------------------------------------------


@pytest.mark.usefixtures("nothing_left")
@pytest.mark.parametrize(
    "number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name
)
def test_the_operators_signal_ends_the_run(number: signal.Signals, home: Home) -> None:
    """Exit 130, the plugin is dead, the run is recorded, and nothing of it is left."""
    started = Started(home, bundle_of(home, SLEEPER)).wait_until_running()
    started.process.send_signal(number)
    code, out, _ = started.said()
    assert code == 130
    told = json.loads(out)
    assert (told["outcome"], told["code"], told["limit"]) == ("error", 130, None)
    assert started.gone()
    ended = [record for record in records(home) if record["event"] == "run.end"]
    assert [record["run"] for record in ended] == [told["run_id"]]
    assert verified(home)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_a_plugin_that_ignores_signals_is_ended_by_the_operators(number: signal.Signals, home: Home) -> None:
    """The operator need not ask the plugin."""
    ignore = "[signal.signal(n, signal.SIG_IGN) for n in range(1, 32) if n not in (9, 19)]"
    code = SLEEPER.replace("threading.Thread", f"{ignore}\n    threading.Thread")
    started = Started(home, bundle_of(home, code)).wait_until_running()
    started.process.send_signal(number)
    assert started.said()[0] == 130
    assert started.gone()


def test_many_signals_are_one(home: Home) -> None:
    """An impatient operator gets the same end, and the record is whole."""
    started = Started(home, bundle_of(home, SLEEPER)).wait_until_running()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGINT, signal.SIGHUP) * 5:
        started.process.send_signal(number)
    assert started.said()[0] == 130
    assert started.gone()
    assert verified(home)


def test_a_signal_at_any_moment_leaves_nothing(home: Home) -> None:
    """Before the handlers stand Python's own end it; afterwards it is 130. Never a traceback of ours."""
    moments, bundle = random.Random(_SEED), bundle_of(home, SLEEPER)
    for _ in range(10):
        started = Started(home, bundle)
        ends = time.monotonic() + moments.uniform(0.0, 0.4)
        while time.monotonic() < ends:
            started.descendants()
        started.process.send_signal(signal.SIGTERM)
        code, _, err = started.said()
        assert code in {130, -signal.SIGTERM}, (code, err)
        assert "Traceback" not in err
        assert started.gone()
    home.attack(GREETING)
    assert verified(home)


def test_nohup_keeps_a_run_alive(home: Home) -> None:
    """A caller that ignores SIGHUP meant it."""
    code = "import time\n@plugin.method\ndef go():\n    time.sleep(1)\n    return 'hello'\n"
    script = "import os, signal, sys; signal.signal(signal.SIGHUP, signal.SIG_IGN); os.execv(sys.argv[1], sys.argv[1:])"
    arguments = command_line("run", bundle_of(home, code), "--home", str(home.home))
    with subprocess.Popen(
        [sys.executable, "-c", script, *arguments], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        assert eventually(lambda: len(records(home)) >= 2)
        process.send_signal(signal.SIGHUP)
        out, _ = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, json.loads(out)) == (0, "hello")


def test_a_reader_that_leaves_changes_nothing(home: Home) -> None:
    """`plugsec run … | head -0`: the run is recorded all the same, and there is no traceback."""
    code = "@plugin.method\ndef go(): return 'x' * 1_000_000\n"
    bundle = bundle_of(home, code)
    process = subprocess.Popen(
        command_line("run", bundle, "--home", str(home.home)), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    err = process.stderr.read().decode()
    assert process.wait(timeout=PATIENCE_S) in {0, -signal.SIGPIPE, 128 + signal.SIGPIPE}
    assert "Traceback" not in err
    assert [r["decision"] for r in records(home) if r["event"] == "run.end"] == ["ok"]


@pytest.mark.usefixtures("nothing_left")
def test_the_librarys_interruption_ends_the_run(home: Home) -> None:
    """From another thread of the host application."""
    import threading

    interruption = Interruption()
    outcomes: list[Outcome] = []
    bundle = bundle_of(home, SLEEPER)
    thread = threading.Thread(
        target=lambda: outcomes.append(home.supervisor().run(Call(bundle=bundle), interruption))
    )
    thread.start()
    assert eventually(lambda: [record for record in records(home) if record["event"] == "run.start"])
    interruption.request()
    thread.join(PATIENCE_S)
    interruption.close()
    assert [(outcome.outcome, outcome.code) for outcome in outcomes] == [("error", 130)]


def test_an_interruption_before_the_start_starts_nothing(home: Home) -> None:
    """Asked for while the bundle was being verified."""
    interruption = Interruption()
    interruption.request()
    outcome = home.supervisor().run(Call(bundle=bundle_of(home, GREETING)), interruption)
    interruption.close()
    assert outcome.code == 130
    assert not [record for record in records(home) if record["event"] == "run.start"]


# The host's own state ----------------------------------------------------------------------------------------


def _descriptors() -> set[str]:
    return {
        os.readlink(f"/proc/self/fd/{fd}")
        for fd in os.listdir("/proc/self/fd")
        if os.path.lexists(f"/proc/self/fd/{fd}")
    }


def _attacks(home: Home) -> dict[str, Callable[[], Outcome]]:
    return {
        "an answer": lambda: home.attack(GREETING),
        "a failure": lambda: home.attack("@plugin.method\ndef go(): raise ValueError\n"),
        "a limit": lambda: home.attack(SLEEPER, limits={"wall_ms": 200}),
        "a refusal": lambda: home.run(str(home.root / "no such bundle")),
        "a refused permission": lambda: home.attack(GREETING, permissions=ASKS),
        "a crash": lambda: home.attack("import os\n@plugin.method\ndef go(): os.abort()\n"),
        "bad input": lambda: home.run(bundle_of(home, GREETING), input=b"{"),
    }


def test_a_run_leaves_no_descriptor_and_no_child(home: Home) -> None:
    """A host application calls thousands of times."""
    runs = _attacks(home)
    for run in runs.values():  # what is cached at first use is open from here on
        run()
    before = len(os.listdir("/proc/self/fd"))
    for run in runs.values():
        run()
    assert len(os.listdir("/proc/self/fd")) == before, _descriptors()
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def test_a_run_changes_nothing_of_its_callers_process(home: Home) -> None:
    """Signal handlers, mask, umask, directory, limits and environment are the host application's."""
    import resource

    def standing() -> object:
        mask = os.umask(0)
        os.umask(mask)
        return (
            [signal.getsignal(number) for number in range(1, 32)],
            signal.pthread_sigmask(signal.SIG_BLOCK, []),
            mask,
            Path.cwd(),
            dict(os.environ),
            [resource.getrlimit(kind) for kind in range(16)],
        )

    before = standing()
    for run in _attacks(home).values():
        run()
    assert standing() == before


def test_without_parent_death_signals_a_killed_supervisor_leaves_its_jail(home: Home) -> None:
    """So the kernel's signal is what takes it along."""
    for missing in ((), ("parent-death",)):
        supervisor = os.fork()
        if supervisor == 0:
            with weak.without(home.root, *missing):
                home.attack(SLEEPER)
            os._exit(0)
        family = psutil.Process(supervisor)
        assert eventually(lambda family=family: any(map(_threaded, family.children(recursive=True))))
        seen = family.children(recursive=True)
        os.kill(supervisor, signal.SIGKILL)
        os.waitpid(supervisor, 0)
        if not missing:
            assert eventually(lambda seen=seen: not [process for process in seen if _runs(process)])
        else:
            time.sleep(0.5)
            left = [process for process in seen if _runs(process)]
            for process in left:
                with contextlib.suppress(psutil.NoSuchProcess):  # init takes the rest along
                    process.kill()
            assert len(left) == JAILED
