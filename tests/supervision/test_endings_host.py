"""Odd homes, few descriptors, odd umasks and many runs at once: the right code and message, and nothing left."""

import json
import os
import stat
import subprocess
from pathlib import Path

import pytest

from kit.home import Home
from kit.marked import bearers, marked
from kit.outside import PATIENCE_S, command_line, eventually
from kit.started import GREETING, SLEEPER, Started, bundle_of, registered, stories, verified

AT_ONCE = 16
ODD_HOMES = {
    "spaces": "a home  with spaces ",
    "a newline": "first\nsecond",
    "quotes": 'it\'s "quoted" `here` $HOME',
    "a leading dash": "-rf",
    "no UTF-8": os.fsdecode(b"caf\xe9"),
    "controls": "a\x1b[2Jb\rc",
    "a colon": "a:b",
}


@pytest.mark.usefixtures("nothing_left")
@pytest.mark.parametrize("what", ODD_HOMES)
def test_a_home_with_an_odd_name_is_like_any_other(what: str, tmp_path: Path) -> None:
    """Runs, receipts, kills, sweeps and verification; its name reaches no terminal unescaped."""
    place = tmp_path / ODD_HOMES[what]
    place.mkdir()
    home = Home(place)
    bundle, receipt = bundle_of(home, GREETING), home.root / "receipt"
    arguments = ["run", bundle, "--home", str(home.home), "--receipt", str(receipt)]
    ended = subprocess.run(command_line(*arguments), capture_output=True, check=False)
    assert (ended.returncode, ended.stdout) == (0, b'"hello"\n'), ended.stderr
    assert receipt.is_file()
    started = Started(home, bundle_of(home, SLEEPER)).wait_until_running()
    started.stop()
    assert started.gone()
    killed = registered(home)
    assert len(killed) == 1
    refused = subprocess.run(
        command_line("run", str(home.root / "missing"), "--home", str(home.home)),
        capture_output=True,
        check=False,
    )
    assert refused.returncode == 2, refused.stderr
    assert b"Traceback" not in refused.stderr
    assert b"\x1b" not in refused.stderr
    assert b"\r" not in refused.stderr
    assert home.attack(GREETING).result == "hello"
    assert stories(home)[killed.pop()] == [("run.start", "granted"), ("run.end", "interrupted")]
    assert not registered(home)
    assert verified(home)


DESCRIPTORS = (64, 48, 32, 28, 27, 26, 25, 24, 23, 22, 21, 20, 16, 12, 8, 6)


def test_64_descriptors_are_enough_and_fewer_are_said(home: Home) -> None:
    """`ulimit -n 64`: a run like any other. Below what a run needs: exit 8 and the limit's name, nothing left."""
    bundle, receipt = bundle_of(home, GREETING), home.root / "receipt"
    run = command_line("run", bundle, "--home", str(home.home), "--receipt", str(receipt), "--quiet")
    for most in DESCRIPTORS:
        with marked() as mark:
            ended = subprocess.run(
                ["/bin/sh", "-c", f'ulimit -n {most}; exec "$@"', "sh", *run],
                capture_output=True,
                check=False,
            )
        assert b"Traceback" not in ended.stderr, (most, ended.stderr)
        if ended.returncode == 0:
            assert ended.stdout == b'"hello"\n'
        else:
            assert most < 64, ended.stderr
            assert ended.returncode == 8, (most, ended.stderr)
            assert b"PLG-HOST-004" in ended.stderr
            assert b"ulimit -n" in ended.stderr
        assert eventually(lambda mark=mark: not bearers(mark))
        assert not registered(home)
    assert verified(home)


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o777], ids=oct)
def test_a_run_is_the_same_under_every_umask(umask: int, home: Home) -> None:
    """Private what is kept, whatever the umask opens or closes; killed and swept as well."""
    bundle = bundle_of(home, GREETING)
    run = ["/bin/sh", "-c", f'umask {umask:o}; exec "$@"', "sh"]
    for _ in range(2):
        arguments = command_line("run", bundle, "--home", str(home.home), "--quiet")
        ended = subprocess.run([*run, *arguments], capture_output=True, check=False)
        assert (ended.returncode, ended.stdout) == (0, b'"hello"\n'), ended.stderr
    sleeper, before = bundle_of(home, SLEEPER), os.umask(umask)
    try:
        started = Started(home, sleeper)
    finally:
        os.umask(before)
    started.wait_until_running().stop()
    assert started.gone()
    (killed,) = registered(home)
    assert home.attack(GREETING).result == "hello"
    assert stories(home)[killed][-1] == ("run.end", "interrupted")
    for path in (home.home / "state").rglob("*"):
        assert not stat.S_IMODE(path.stat().st_mode) & 0o077, path
    assert not registered(home)
    assert verified(home)


@pytest.mark.usefixtures("nothing_left")
@pytest.mark.parametrize("used", [False, True], ids=["fresh", "used"])
def test_sixteen_runs_at_once_on_one_home(used: bool, home: Home) -> None:
    """All of them start, answer and end; the log has a start and an end for each, and verifies."""
    bundle = bundle_of(home, GREETING)
    if used:
        assert home.attack(GREETING).result == "hello"
    arguments = command_line("run", bundle, "--home", str(home.home), "--json", "--quiet")
    with marked() as mark:
        processes = [
            subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            for _ in range(AT_ONCE)
        ]
    told = []
    for process in processes:
        out, err = process.communicate(timeout=3 * PATIENCE_S)
        assert process.returncode == 0, err
        told.append(json.loads(out))
    assert {each["result"] for each in told} == {"hello"}
    seen = stories(home)
    assert len({each["run_id"] for each in told}) == AT_ONCE
    for each in told:
        assert seen[each["run_id"]] == [("run.start", "granted"), ("run.end", "ok")]
    assert len(seen) == AT_ONCE + used
    assert not bearers(mark)
    assert not registered(home)
    assert verified(home)
