"""The register of live runs: what is alive is left alone, what died is found once, odd files harm nobody."""

import json
import os
import threading
from pathlib import Path

import pytest

from kit.home import Home
from plugsec.places import StateExposed
from plugsec.supervision import runs


def test_a_live_run_is_left_alone(tmp_path: Path) -> None:
    """Its lock is held for as long as its process lives."""
    file = runs.begin(str(tmp_path), "a1")
    file.note({"started": True, "bundle_id": "sha256:x", "plugin": "acme/x", "cgroups": []})
    assert runs.sweep(str(tmp_path)) == []
    file.close()
    assert list((tmp_path / "runs").iterdir()) == []


def test_a_dead_run_is_found_once(tmp_path: Path) -> None:
    """By whoever starts next."""
    child = os.fork()
    if child == 0:
        runs.begin(str(tmp_path), "a1").note({"started": True, "bundle_id": "sha256:x", "plugin": "acme/x"})
        os._exit(0)
    os.waitpid(child, 0)
    assert runs.sweep(str(tmp_path)) == [runs.DeadRun("a1", "sha256:x", "acme/x")]
    assert runs.sweep(str(tmp_path)) == []


def test_a_dead_run_that_had_not_started_is_nobodys_news(tmp_path: Path) -> None:
    """Its file goes, and there is nothing to record."""
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "a1").write_text('{"started": false}')
    (tmp_path / "runs" / "a2").write_bytes(b"")
    assert runs.sweep(str(tmp_path)) == []
    assert list((tmp_path / "runs").iterdir()) == []


@pytest.mark.parametrize("how", ["others can write it", "another user owns it"])
def test_what_another_user_may_have_told_is_not_recorded(tmp_path: Path, how: str) -> None:
    """Red team, second pass, 3: a file in the register became a record of a run that never was."""
    (tmp_path / "runs").mkdir(mode=0o700)
    told = tmp_path / "runs" / "deadbeefdeadbeef"
    told.write_text('{"started": true, "plugin": "evil/never-ran"}')
    if how == "others can write it":
        told.chmod(0o666)
    elif os.geteuid() != 0:
        pytest.skip("only root can give a file to another user")
    else:
        os.chown(told, 12345, 12345)
    assert runs.sweep(str(tmp_path)) == []
    assert told.exists()


def test_a_register_that_others_can_write_is_neither_used_nor_swept(tmp_path: Path) -> None:
    """Red team, second pass, 3: whatever is in there is theirs."""
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs").chmod(0o777)
    (tmp_path / "runs" / "a1").write_text('{"started": true}')
    assert runs.sweep(str(tmp_path)) == []
    with pytest.raises(StateExposed) as refused:
        runs.begin(str(tmp_path), "a2")
    assert refused.value.code == 9


def test_two_sweepers_find_a_dead_run_once(tmp_path: Path) -> None:
    """The log must not say twice that it was interrupted."""
    (tmp_path / "runs").mkdir()
    for number in range(200):
        (tmp_path / "runs" / f"r{number}").write_text('{"started": true}')
    found: list[runs.DeadRun] = []
    threads = [threading.Thread(target=lambda: found.extend(runs.sweep(str(tmp_path)))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(dead.run_id for dead in found) == sorted(f"r{number}" for number in range(200))


def test_a_run_that_starts_is_not_swept_by_another_that_starts(tmp_path: Path) -> None:
    """Between making its file and locking it there must be no moment in which it looks dead."""
    over, swept = threading.Event(), list[runs.DeadRun]()

    def sweep() -> None:
        while not over.is_set():
            swept.extend(runs.sweep(str(tmp_path)))

    threads = [threading.Thread(target=sweep) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for number in range(600):
            file = runs.begin(str(tmp_path), f"r{number}")
            file.note({"started": True})
            assert (tmp_path / "runs" / f"r{number}").exists(), f"run {number} lives and is not registered"
            file.close()
    finally:
        over.set()
        for thread in threads:
            thread.join()
    assert swept == []


ODD = {
    "nothing": b"",
    "half a record": b'{"started": tr',
    "no object": b"[1, 2]",
    "a number": b"7",
    "no UTF-8": b"\xff\xfe\x00",
    "deep nesting": b"[" * 60_000,
    "a long number": b"9" * 60_000,
    "cgroups that are a number": b'{"cgroups": 7, "started": true}',
    "cgroups that are null": b'{"cgroups": null, "started": true}',
    "cgroups of odd kinds": b'{"cgroups": [1, null, {"a": 1}, ["x"]], "started": true}',
    "a bundle that is a list": b'{"started": true, "bundle_id": [1], "plugin": {"x": 1}}',
    "a plugin with a newline": b'{"started": true, "plugin": "a\\nb\\u001b[2J"}',
    "more than is read": b'{"started": true, "x": "' + b"y" * 200_000 + b'"}',
}


@pytest.mark.parametrize("what", ODD)
def test_an_odd_file_harms_nobody(what: str, home: Home) -> None:
    """A torn write or a stranger's hand: the next run starts, the file is gone, the log takes what there is."""
    directory = home.home / "state" / "runs"
    directory.mkdir(parents=True)
    (directory / "0123456789abcdef").write_bytes(ODD[what])
    outcome = home.attack("@plugin.method\ndef go(): return 'hello'\n")
    assert outcome.result == "hello", outcome
    assert list(directory.iterdir()) == []


def test_other_kinds_of_file_are_left_where_they_are(home: Home) -> None:
    """A directory, a link and a pipe are no runs, and opening them neither hangs nor follows."""
    directory = home.home / "state" / "runs"
    directory.mkdir(parents=True)
    elsewhere = home.root / "elsewhere"
    elsewhere.write_text('{"started": true}')
    (directory / "link").symlink_to(elsewhere)
    (directory / "folder").mkdir()
    os.mkfifo(directory / "pipe")
    assert home.attack("@plugin.method\ndef go(): return 'hello'\n").result == "hello"
    assert elsewhere.exists()


@pytest.mark.parametrize(
    "path",
    [
        "{other}",
        "{other}/plugsec-x/..",
        "/plugsec-{other}",
        "plugsec-relative",
        "{other}/plugsec-",
        "../plugsec-x",
    ],
)
def test_only_cgroups_of_our_own_making_are_removed(path: str, tmp_path: Path) -> None:
    """A record that names another directory does not get it removed."""
    other = tmp_path / "plugsec-precious"
    (other / "plugsec-x").mkdir(parents=True)
    (tmp_path / "runs").mkdir()
    record = {"started": True, "cgroups": [path.format(other=other)]}
    (tmp_path / "runs" / "a1").write_text(json.dumps(record))
    runs.sweep(str(tmp_path))
    assert (other / "plugsec-x").is_dir()
