"""What a later start makes of a dead run: the log decides whether its end is missing, and what stays is found again."""

import json
import os
from pathlib import Path

import pytest

from kit.home import Home
from kit.started import GREETING, registered, stories, verified
from plugsec.audit.errors import LogFull
from plugsec.audit.log import AuditLog, Position
from plugsec.sandbox import cgroups
from plugsec.supervision import recorded, runs
from plugsec.supervision.recorded import lacks_an_end

RUN, OTHER = "00000000000000aa", "00000000000000bb"
LOGS: dict[str, tuple[list[tuple[str, str]], bool]] = {
    "nothing of it": ([("run.start", OTHER)], False),
    "its start": ([("run.start", RUN)], True),
    "its start and end": ([("run.start", RUN), ("run.end", RUN)], False),
    "its start and another's end": ([("run.start", OTHER), ("run.start", RUN), ("run.end", OTHER)], True),
    "only words about it": ([("denial", RUN)], False),
}


@pytest.mark.parametrize("what", LOGS)
def test_the_log_tells_whether_an_end_is_missing(what: str, tmp_path: Path) -> None:
    """By the run's own records, whatever others say of it."""
    events, lacks = LOGS[what]
    with AuditLog.open(str(tmp_path / "log")) as log:
        for event, run in events:
            log.append(event, run=run, detail={"about": RUN})
    assert lacks_an_end(str(tmp_path / "log"), RUN) is lacks


def test_the_start_is_found_in_an_older_segment(tmp_path: Path) -> None:
    """And where more was written since than is read, the note's word counts: twice rather than never."""
    with AuditLog.open(str(tmp_path / "log"), segment_bytes=1) as log:
        log.append("run.start", run=RUN)
        log.append("denial", run=OTHER)
        assert lacks_an_end(log.directory, RUN)
        assert not lacks_an_end(log.directory, OTHER) or log.head.segment > recorded.SEGMENTS_MAX
        for _ in range(recorded.SEGMENTS_MAX):
            log.append("denial", run=OTHER)
        assert lacks_an_end(log.directory, "00000000000000cc")


def _dead(home: Home, **note: object) -> None:
    directory = home.home / "state" / "runs"
    directory.mkdir(parents=True, exist_ok=True)
    audit = str(home.home / "state" / "audit")
    (directory / RUN).write_text(json.dumps({"started": True, "plugin": "acme/test", "audit": audit, **note}))


def test_a_run_killed_before_its_start_was_durable_is_nobodys_news(home: Home) -> None:
    """It was noted, and the plugin had not started."""
    home.attack(GREETING)
    _dead(home)
    home.attack(GREETING)
    assert RUN not in stories(home)
    assert not registered(home)


def test_a_run_killed_after_its_end_was_recorded_does_not_end_twice(home: Home) -> None:
    """The first end is the true one."""
    home.attack(GREETING)
    with AuditLog.open(str(home.home / "state" / "audit")) as log:
        log.append("run.start", run=RUN, decision="granted")
        log.append("run.end", run=RUN, decision="ok")
    _dead(home)
    home.attack(GREETING)
    assert stories(home)[RUN] == [("run.start", "granted"), ("run.end", "ok")]
    assert not registered(home)


def test_a_run_of_another_log_is_recorded_in_ours(home: Home) -> None:
    """Its own log may never be opened again; here nothing can be looked up, so its note counts."""
    home.attack(GREETING)
    _dead(home, audit="/somewhere/else")
    home.attack(GREETING)
    assert stories(home)[RUN] == [("run.end", "interrupted")]


def test_an_end_that_the_log_could_not_take_is_recorded_by_the_next_start(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit 9 now; the log, once it can be written, does not show a run that never ends."""
    append = AuditLog.append

    def refuse(self: AuditLog, event: str, **more: object) -> Position:
        if event == "run.end":
            raise LogFull("no space left, says a test")
        return append(self, event, **more)  # type: ignore[arg-type]

    with monkeypatch.context() as full:
        full.setattr(AuditLog, "append", refuse)
        outcome = home.attack(GREETING)
    assert outcome.code == 9
    assert registered(home) == {outcome.run_id}
    assert home.attack(GREETING).result == "hello"
    assert stories(home)[outcome.run_id] == [("run.start", "granted"), ("run.end", "interrupted")]
    assert not registered(home)
    assert verified(home)


def test_a_start_that_the_log_could_not_take_has_no_end(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """The plugin was not started, so nothing ended."""
    append = AuditLog.append

    def refuse(self: AuditLog, event: str, **more: object) -> Position:
        if event == "run.start":
            raise LogFull("no space left, says a test")
        return append(self, event, **more)  # type: ignore[arg-type]

    with monkeypatch.context() as full:
        full.setattr(AuditLog, "append", refuse)
        outcome = home.attack(GREETING)
    assert outcome.code == 9
    home.attack(GREETING)
    assert outcome.run_id not in stories(home)
    assert not registered(home)


def test_a_cgroup_that_stays_busy_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its run's file is what remembers it."""
    monkeypatch.setattr(cgroups, "_REMOVE_TRIES", 1)
    directory = tmp_path / "plugsec-a1"
    (directory / "busy").mkdir(parents=True)
    child = os.fork()
    if child == 0:
        runs.begin(str(tmp_path), "a1").note({"started": False, "cgroups": [str(directory)]})
        os._exit(0)
    os.waitpid(child, 0)
    runs.sweep(str(tmp_path))
    assert directory.is_dir()
    (directory / "busy").rmdir()
    runs.sweep(str(tmp_path))
    assert not directory.exists()
    assert list((tmp_path / "runs").iterdir()) == []
