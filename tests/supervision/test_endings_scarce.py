"""Full disks, read-only ones and no home: each a whole `plugsec run` on a real file system of its own (scarce.py)."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

UNSHARE = ["unshare", "-m"] if os.geteuid() == 0 else ["unshare", "-rm"]
TIMEOUT_S = 300


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What every story has to tell."""
    base = tmp_path_factory.mktemp("scarce")
    tried = [*UNSHARE, "mount", "-t", "tmpfs", "tmpfs", str(base)]
    try:
        may_mount = subprocess.run(tried, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        may_mount = False
    if not may_mount:
        pytest.skip("layer `mount` missing: no tmpfs can be mounted here (needs root or user namespaces)")
    ran = subprocess.run(
        [*UNSHARE, sys.executable, str(Path(__file__).with_name("scarce.py")), str(base)],
        capture_output=True, text=True, check=False, timeout=TIMEOUT_S,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)  # type: ignore[no-any-return]


def hello(ended: dict[str, Any]) -> bool:
    """Whether a run ended as it does where nothing is scarce."""
    return (ended["code"], ended["out"]) == (0, '"hello"\n')


def says(ended: dict[str, Any], code: int, *words: str) -> bool:
    """Whether a run was refused with this code and these words, in whichever stream."""
    everything = ended["out"] + ended["err"]
    return ended["code"] == code and "Traceback" not in everything and all(w in everything for w in words)


STORIES = ["kept_home", "while_it_runs", "by_inches", "fresh_home", "results", "read_only", "no_home"]


@pytest.mark.parametrize("story", STORIES)
def test_the_log_is_whole_and_nothing_is_registered_afterwards(told: dict[str, Any], story: str) -> None:
    """Every start that was recorded has its one end, and no end is without its start."""
    for run, events in told[story]["stories"].items():
        assert [event for event, _ in events] == ["run.start", "run.end"], run
    assert told[story]["registered at the end"] == []
    assert told[story]["verifies at the end"]


def test_a_full_disk_starts_nothing(told: dict[str, Any]) -> None:
    """Exit 9, no new file, and a log that verifies; with space again runs start."""
    story = told["kept_home"]
    assert hello(story["first"])
    for refused in story["refused"]:
        assert says(refused, 9, "No space left on device", "PLG-STA-002", "free space")
    assert story["more"] == []
    assert story["whole"]
    assert hello(story["then"])


def test_a_disk_that_fills_up_under_a_run_does_not_spoil_it(told: dict[str, Any]) -> None:
    """Its register and its end had their room set aside; the next start is refused."""
    story = told["while_it_runs"]
    assert hello(story["ended"])
    assert story["whole"]
    assert story["registered"] == []
    assert says(story["refused"], 9, "No space left on device", "PLG-STA-002")
    assert hello(story["then"])


def test_at_whatever_step_the_disk_is_full_the_code_is_the_same(told: dict[str, Any]) -> None:
    """Never a defect, never another layer's refusal: the register or the log says so, or all fits."""
    story = told["by_inches"]
    for ended in story["ended"]:
        assert hello(ended) or says(ended, 9, "PLG-STA-002") or says(ended, 9, "PLG-AUD-005"), ended
    assert {ended["code"] for ended in story["ended"]} == {0, 9}
    assert hello(story["then"])


def test_a_first_start_on_a_full_disk_leaves_no_half_made_log(told: dict[str, Any]) -> None:
    """What it left is no log, and the next start makes one."""
    story = told["fresh_home"]
    assert says(story["refused"], 9, "No space left on device", "PLG-STA-002")
    assert not story["head"]
    assert hello(story["then"])


def test_results_and_receipts_that_do_not_fit_leave_nothing(told: dict[str, Any]) -> None:
    """Exit 2: another place is needed; no part of them stays behind."""
    story = told["results"]
    assert says(story["receipt"], 2, "No space left on device", "the run itself is recorded")
    assert says(story["output"], 2, "No space left on device", "PLG-IO-011")
    assert [name for name in story["left"] if not name.startswith("filler")] == []


def test_a_read_only_home_starts_nothing(told: dict[str, Any]) -> None:
    """Exit 9, whether it was used before or not; its log can still be verified."""
    story = told["read_only"]
    assert says(story["fresh"], 9, "Read-only file system", "PLG-STA-002")
    assert hello(story["first"])
    assert says(story["kept"], 9, "Read-only file system", "PLG-STA-002")
    assert story["whole"]
    assert hello(story["then"])


def test_no_home_is_a_usage_error_unless_another_place_is_named(told: dict[str, Any]) -> None:
    """A user without HOME and without a passwd entry; a HOME that is no directory; XDG directories alone."""
    story = told["no_home"]
    for case in ("none", "relative"):
        assert says(story[case], 2, "there is no HOME", "--home DIR"), case
    assert says(story["a file"], 9, "Not a directory", "--home")
    assert hello(story["XDG"])
