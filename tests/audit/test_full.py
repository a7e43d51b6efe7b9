"""A full disk and a read-only one: real file systems, in a mount namespace of their own."""

import json
import os
import subprocess
import sys

import pytest

UNSHARE = ["unshare", "-m"] if os.geteuid() == 0 else ["unshare", "-rm"]


def may_mount(tmp_path):
    try:
        tried = subprocess.run(
            [*UNSHARE, "mount", "-t", "tmpfs", "tmpfs", str(tmp_path)], capture_output=True, check=False
        )
    except FileNotFoundError:
        return False
    return tried.returncode == 0


@pytest.fixture(scope="module")
def stories(tmp_path_factory):
    base = tmp_path_factory.mktemp("mounts")
    if not may_mount(base):
        pytest.skip("layer `mount` missing: no tmpfs can be mounted here (needs root or user namespaces)")
    script = os.path.join(os.path.dirname(__file__), "full_disk.py")
    ran = subprocess.run(
        [*UNSHARE, sys.executable, script, str(base)], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


def test_a_full_disk_is_recorded_and_what_is_running_can_still_end(stories):
    story = stories["disk_fills_up"]
    assert story["noticed"] == 1
    assert isinstance(story["end"], int)
    assert story["verifies while full"] == story["end"] + 1


def test_no_run_starts_on_a_full_disk(stories):
    story = stories["disk_fills_up"]
    assert story["start"] == ["LogFull", 9]
    assert story["start in a new process"] == ["LogFull", 9]


def test_when_even_the_reserve_is_spent_the_log_stays_whole(stories):
    story = stories["disk_fills_up"]
    assert story["at the very end"] == 9
    assert story["verifies at the very end"]


def test_with_space_again_runs_start_and_the_reserve_is_set_aside_again(stories):
    story = stories["disk_fills_up"]
    assert story["start with space again"]
    assert story["reserve is back"] == 256 * 1024
    assert story["verifies with space again"]
    assert story["full was recorded"] == 1


def test_without_room_to_begin_there_is_a_refusal_and_no_half_made_log(stories):
    assert stories["no_room_to_begin"] == {"refused": ["LogFull", 9], "then": 2}


def test_a_read_only_disk_is_a_refusal_for_writers_and_none_for_verifying(stories):
    assert stories["read_only"] == {"open": 9, "verify": 2}
