"""The operator's signals: exit 130, the plugin is dead, the run is recorded, and nothing of it is left."""

import json
import random
import signal
import subprocess
import sys
import threading
import time

import pytest

from kit.home import Home
from kit.outside import PATIENCE_S, command_line, eventually
from kit.started import GREETING, SLEEPER, Started, bundle_of, records, registered, stories, verified
from plugsec.exchange import schemas
from plugsec.outcome import Outcome
from plugsec.pipeline import Call
from plugsec.supervision.interruption import Interruption

_SEED = 20241124
_MOMENTS = 12
_START_S = 0.3
OPERATORS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


@pytest.mark.usefixtures("nothing_left")
@pytest.mark.parametrize("number", OPERATORS, ids=lambda number: number.name)
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


@pytest.mark.usefixtures("nothing_left")
@pytest.mark.parametrize("number", OPERATORS, ids=lambda number: number.name)
def test_a_signal_at_any_moment_leaves_nothing(number: signal.Signals, home: Home) -> None:
    """Before the handlers stand the signal's own effect ends it; afterwards it is 130. Never a traceback."""
    moments, bundle = random.Random(_SEED), bundle_of(home, SLEEPER)
    for _ in range(_MOMENTS):
        started = Started(home, bundle)
        assert eventually(started.descendants)  # before boot is there, Python itself would answer
        ends = time.monotonic() + moments.uniform(0.0, _START_S)
        while time.monotonic() < ends:
            started.descendants()
        started.process.send_signal(number)
        code, _, err = started.said()
        assert code in {130, -number}, (code, err)
        assert "Traceback" not in err
        assert "Exception ignored" not in err
        assert started.gone()
    home.attack(GREETING)
    assert not registered(home)
    for run, story in stories(home).items():
        assert [event for event, _ in story] == ["run.start", "run.end"], (run, story)
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


@pytest.mark.usefixtures("nothing_left")
def test_the_librarys_interruption_ends_the_run(home: Home) -> None:
    """From another thread of the host application."""
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


def test_an_interruption_while_the_result_is_checked_counts(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Red team, second pass, 12: it comes while the library is busy, which hears of it afterwards."""
    interruption = Interruption()
    checked: list[str] = []

    def interrupted(_schema: bytes, _value: object, what: str) -> None:
        checked.append(what)
        interruption.request()

    monkeypatch.setattr(schemas, "check", interrupted)
    bundle = home.bundle(
        {
            "main.py": "from plugsec_plugins.guest import plugin\n" + GREETING,
            "schemas/out.json": '{"pattern":"."}',
        },
        methods={"go": {"summary": "s", "output": "schemas/out.json"}},
    )
    outcome = home.supervisor().run(Call(bundle=bundle), interruption)
    interruption.close()
    assert (checked, outcome.code) == (["output"], 130)
    assert [record["event"] for record in records(home)].count("run.end") == 1
