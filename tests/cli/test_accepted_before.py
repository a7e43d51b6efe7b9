"""What a run accepted decides what later runs accept: time, releases, and the operator's override."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from test_hot_path import PROBE

from kit.home import Home
from plugsec_signing import memory, memory_edit

CODE = "from plugsec_plugins.guest import plugin\n@plugin.method\ndef go():\n    return {n}\n"
NAME = "acme/test"


@pytest.fixture
def home(tmp_path):
    return Home(tmp_path)


def release(home, number, text=""):
    """A bundle of that release that returns it."""
    return home.bundle({"main.py": CODE.replace("{n}", str(number)) + text}, name=NAME, release=number)


def known(home):
    return memory_edit.load(memory.path_in(str(home.home / "state"))).plugins


def events(home):
    found = []
    for path in sorted((home.home / "state" / "audit").glob("segment-*.jsonl")):
        found += [json.loads(line) for line in path.read_bytes().splitlines()]
    return found


def test_a_run_remembers_what_it_accepted_once(home):
    bundle = release(home, 1)
    assert home.run(bundle).result == 1
    (seen,) = known(home)[NAME].values()
    assert seen.release == 1
    path = memory.path_in(str(home.home / "state"))
    before = os.stat(path)
    assert home.run(bundle).result == 1
    after = os.stat(path)
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


def test_a_downgrade_is_refused_unless_it_is_meant_and_then_recorded_as_an_override(home):
    old, new = release(home, 1), release(home, 2)
    assert home.run(old).result == 1
    assert home.run(new).result == 2
    refused = home.run(old)
    assert (refused.code, refused.error.id) == (3, "PLG-TRU-013")
    assert "--allow-downgrade" in refused.error.hint
    assert home.run(old, allow_downgrade=True).result == 1
    overrides = [event for event in events(home) if event["event"] == "override.used"]
    assert [event["detail"]["override"] for event in overrides] == ["allow-downgrade"]
    assert overrides[0]["bundle_id"] is not None
    starts = [event["seq"] for event in events(home) if event["event"] == "run.start"]
    assert overrides[0]["seq"] < starts[-1]
    assert home.run(old).error.id == "PLG-TRU-013"


def test_an_override_that_overrides_nothing_is_no_override(home):
    assert home.run(release(home, 1), allow_downgrade=True).result == 1
    assert "override.used" not in {event["event"] for event in events(home)}


def test_the_same_release_with_another_digest_is_refused_whatever_is_allowed(home):
    assert home.run(release(home, 1)).result == 1
    other = release(home, 1, "# changed\n")
    for allow in (False, True):
        refused = home.run(other, allow_downgrade=allow)
        assert (refused.code, refused.error.id) == (3, "PLG-TRU-014")
    assert "plugsec trust forget acme/test" in refused.error.hint


def limit_the_key(home, text):
    entry = home.home / "config" / "trust.d" / "acme.toml"
    entry.write_text(entry.read_text() + text)


def test_expiry_does_not_break_what_was_accepted_before(home, monkeypatch):
    accepted, late = release(home, 1), release(home, 2)
    assert home.run(accepted).result == 1
    (seen,) = known(home)[NAME].values()
    # Valid for the second in which it was accepted; the clock of later runs is after that.
    limit_the_key(home, f'valid_before = "{_time(seen.first + 1)}"\n')
    monkeypatch.setattr("plugsec.pipeline.time.time", lambda: seen.first + 100.0)
    assert home.run(accepted).result == 1
    refused = home.run(late)
    assert (refused.code, refused.error.id) == (3, "PLG-TRU-005")
    # Forgotten, it is as new.
    memory_edit.forget(memory.path_in(str(home.home / "state")), NAME)
    assert home.run(accepted).error.id == "PLG-TRU-005"


def _time(seconds):
    from plugsec_signing.times import format_time

    return format_time(seconds)


def test_a_clock_that_is_put_back_is_noted_and_does_not_revive_a_key(home, monkeypatch):
    other = home.bundle({"main.py": CODE.replace("{n}", "1")}, name="acme/other")
    assert home.run(other).result == 1
    (seen,) = known(home)["acme/other"].values()
    monkeypatch.setattr("plugsec.pipeline.time.time", lambda: seen.first - 1000.0)
    told = home.run(other)
    assert told.result == 1
    assert any("the clock says" in warning for warning in told.warnings)
    limit_the_key(home, f'valid_before = "{_time(seen.first - 500)}"\n')
    assert home.run(release(home, 1)).error.id == "PLG-TRU-005"


def test_what_was_not_accepted_is_not_remembered(home):
    unsigned = home.bundle({"main.py": CODE.replace("{n}", "1")}, signed=False)
    assert home.run(unsigned, unsafe_unsigned=True).result == 1
    wanting = home.bundle(
        {"main.py": CODE.replace("{n}", "9")}, name=NAME, release=9,
        permissions=[{"name": "fs.read", "paths": ["/etc"], "reason": "reads", "optional": False}],
    )  # fmt: skip
    assert home.run(wanting).code == 1
    assert not os.path.exists(memory.path_in(str(home.home / "state")))


def test_a_damaged_memory_starts_nothing(home):
    bundle = release(home, 1)
    assert home.run(bundle).result == 1
    with open(memory.path_in(str(home.home / "state")), "ab") as file:
        file.write(b"x")
    refused = home.run(bundle)
    assert (refused.code, refused.error.id) == (4, "PLG-MEM-002")


def test_what_cannot_be_remembered_is_not_started(home):
    state = home.home / "state"
    state.mkdir(mode=0o700)
    (state / "trust").symlink_to("nowhere")
    refused = home.run(release(home, 1))
    assert (refused.code, refused.error.id) == (9, "PLG-MEM-006")
    assert "run.start" not in {event["event"] for event in events(home)}


def test_rules_are_enforced_by_a_run(home):
    limit_the_key(home, '[[rule]]\nplugins = ["acme/*"]\nthreshold = 2\n')
    for _ in range(2):  # the second reads the cached form
        refused = home.run(release(home, 1))
        assert (refused.code, refused.error.id) == (3, "PLG-TRU-012")


def test_a_run_of_a_known_bundle_loads_no_writer_no_words_and_no_revocations(home):
    bundle = release(home, 1)
    assert home.run(bundle).result == 1
    ended = subprocess.run(
        [sys.executable, "-c", PROBE, "run", bundle, "--quiet"],
        env={**os.environ, "PLUGSEC_HOME": str(home.home)}, cwd=Path(bundle).parent,
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    loaded = {name for name in ended.stderr.split() if name.startswith("plugsec_signing.")}
    assert "plugsec_signing.memory" in loaded
    cold = {f"plugsec_signing.{name}" for name in ("memory_edit", "trust_words", "trust_toml", "revocation")}
    assert not loaded & cold
