"""`plugsec audit` and `plugsec receipt`, as a person or a script meets them."""

import json
import os
import shutil
import subprocess
import sys

import logs
import pytest

from plugsec.audit.log import AuditLog
from plugsec.audit.receipt import sign_receipt


def plugsec(*arguments, code=0):
    """Run the command; return (stdout, stderr)."""
    environment = {**os.environ, "NO_COLOR": "1", "PLUGSEC_HOME": "/nonexistent"}
    ran = subprocess.run(
        [sys.executable, "-m", "plugsec", *arguments],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert ran.returncode == code, (ran.stdout, ran.stderr)
    assert "Traceback" not in ran.stderr
    return ran.stdout, ran.stderr


@pytest.fixture(scope="module")
def log_directory(tmp_path_factory):
    directory = logs.write(tmp_path_factory.mktemp("cli") / "log", 70, segment_bytes=logs.SMALL_SEGMENT)
    with AuditLog.open(directory) as log:
        log.append("run.start", run="r9", bundle_id="sha256:cd")
        log.append("denial", run="r9", detail={"call": "connect", "name": "\x1b]0;title\x07\nfake"})
        log.append("run.end", run="r9", bundle_id="sha256:cd", decision="ok")
        receipt = sign_receipt(log, {"run_id": "r9", "outcome": "ok"})
    with open(os.path.join(directory, os.pardir, "run.receipt"), "wb") as file:
        file.write(receipt)
    return directory


@pytest.fixture
def copied(log_directory, tmp_path):
    return logs.copy(log_directory, tmp_path / "copy")


def test_show_is_one_line_a_record_and_obeys_no_escape(log_directory):
    out, _ = plugsec("audit", "show", "--audit", log_directory, "--last", "3")
    lines = out.splitlines()
    assert [line.split()[2] for line in lines] == ["run.start", "denial", "run.end"]
    assert "\x1b" not in out


def test_show_filters(log_directory):
    for arguments, events in [
        (["--run", "r9"], ["run.start", "denial", "run.end"]),
        (["--run", "r9", "--event", "run"], ["run.start", "run.end"]),
        (["--event", "log.created"], ["log.created"]),
        (["--bundle", "sha256:cd"], ["run.start", "run.end"]),
        (["--run", "nobody"], []),
    ]:
        out, _ = plugsec("audit", "show", "--audit", log_directory, "--json", *arguments)
        shown = json.loads(out)
        assert [record["event"] for record in shown["records"]] == events
        assert shown["verified"] is False


def test_show_reaches_back_over_segments(log_directory):
    out, _ = plugsec("audit", "show", "--audit", log_directory, "--last", "1000", "--json")
    assert [record["seq"] for record in json.loads(out)["records"]] == list(range(73))


def test_show_still_shows_a_log_that_does_not_verify(copied):
    os.unlink(os.path.join(copied, "head"))
    with open(logs.segment(copied), "ab") as file:
        file.write(b"rubbish\n")
    out, err = plugsec("audit", "show", "--audit", copied, "--last", "80")
    assert len(out.splitlines()) == 73
    assert "1 lines are not records" in err


def test_verify_says_what_it_knows_and_what_it_cannot(log_directory):
    out, err = plugsec("audit", "verify", "--audit", log_directory)
    assert "verifies" in out
    assert "current epoch  73 records" in out
    assert "could have rewritten" in err


def test_verify_speaks_json(log_directory):
    out, err = plugsec("audit", "verify", "--audit", log_directory, "--json")
    found = json.loads(out)
    assert (found["outcome"], found["code"], found["size"], found["beyond_head"]) == ("ok", 0, 73, 0)
    assert (found["anchored"], found["sealed"], found["current_epoch"]) == (0, 0, 73)
    assert err == ""


def test_a_changed_record_is_named_for_people_and_for_scripts(copied):
    lines = logs.lines_of(logs.segment(copied))
    lines[7] = lines[7].replace(b'"number":7', b'"number":8')
    logs.put_lines(logs.segment(copied), lines)
    out, err = plugsec("audit", "verify", "--audit", copied, code=9)
    assert out == ""
    assert "record 7 at segment-000001.jsonl line 8 was changed" in err
    assert "PLG-AUD-003" in err
    assert "next: " in err
    out, _ = plugsec("audit", "verify", "--audit", copied, "--json", code=9)
    refused = json.loads(out)
    assert refused["fault"]["kind"] == "edited"
    assert (refused["fault"]["file"], refused["fault"]["line"]) == ("segment-000001.jsonl", 8)
    assert refused["error"]["id"] == "PLG-AUD-003"


def test_recovery_is_asked_for_done_and_recorded(copied):
    with open(logs.segment(copied, 2), "ab") as file:
        file.write(b'{"half":')
    _, err = plugsec("audit", "verify", "--audit", copied, code=9)
    assert "needs recovery" in err
    assert "PLG-AUD-004" in err
    plugsec("audit", "checkpoint", "--audit", copied)
    plugsec("audit", "verify", "--audit", copied)
    out, _ = plugsec("audit", "show", "--audit", copied, "--event", "log.recovered", "--json")
    assert json.loads(out)["records"][0]["detail"]["torn"][0]["bytes"] == 8


def test_a_checkpoint_kept_elsewhere_anchors_the_log(copied, tmp_path):
    note, _ = plugsec("audit", "checkpoint", "--audit", copied)
    (tmp_path / "anchor.note").write_text(note)
    again, _ = plugsec("audit", "checkpoint", "--audit", copied, "--json")
    assert json.loads(again)["checkpoint"] == note
    assert json.loads(again)["verifier_key"].startswith(note.split("\n")[0] + "+")
    out, err = plugsec("audit", "verify", "--audit", copied, "--anchor", str(tmp_path / "anchor.note"))
    assert "anchored       73 records" in out
    assert err == ""
    (tmp_path / "bad.note").write_text(note.replace("73", "74", 1))
    plugsec("audit", "verify", "--audit", copied, "--anchor", str(tmp_path / "bad.note"), code=9)
    plugsec("audit", "verify", "--audit", copied, "--anchor", str(tmp_path / "no.note"), code=2)


@pytest.mark.parametrize("command", ["show", "verify", "checkpoint"])
def test_where_there_is_no_log_nothing_is_made(command, tmp_path):
    place = tmp_path / "none"
    _, err = plugsec("audit", command, "--audit", str(place), code=9)
    assert "there is no audit log" in err
    assert not place.exists()
    place.mkdir(mode=0o700)
    out, _ = plugsec("audit", command, "--audit", str(place), "--json", code=9)
    assert json.loads(out)["error"]["id"] == "PLG-AUD-010"
    assert list(place.iterdir()) == []


def test_a_log_behind_a_symbolic_link_is_refused(log_directory, tmp_path):
    (tmp_path / "link").symlink_to(log_directory)
    _, err = plugsec("audit", "verify", "--audit", str(tmp_path / "link"), code=9)
    assert "PLG-AUD-006" in err


def test_bad_options_are_usage(log_directory):
    plugsec("audit", "show", "--audit", log_directory, "--last", "0", code=2)
    plugsec("audit", "show", "--audit", log_directory, "--last", "many", code=2)
    plugsec("audit", "shwo", code=2)


@pytest.mark.parametrize(
    "arguments", [["audit", "show"], ["audit", "verify"], ["audit", "checkpoint"], ["receipt", "verify"]]
)
def test_help_has_examples(arguments):
    out, _ = plugsec(*arguments, "--help")
    assert "Examples:" in out
    assert f"plugsec {' '.join(arguments)}" in out


def test_a_receipt_verifies_beside_its_log_and_without_it(log_directory, tmp_path):
    receipt = os.path.join(log_directory, os.pardir, "run.receipt")
    out, _ = plugsec("receipt", "verify", receipt, "--audit", log_directory)
    assert "run            r9, ended as ok" in out
    shutil.copy(os.path.join(log_directory, "keys/epoch-000001.pub"), tmp_path / "key.pub")
    out, _ = plugsec("receipt", "verify", receipt, "--key", str(tmp_path / "key.pub"), "--json")
    found = json.loads(out)
    assert (found["outcome"], found["seq"], found["record"]["run"]) == ("ok", 72, "r9")


def test_a_changed_receipt_is_refused(log_directory, tmp_path):
    with open(os.path.join(log_directory, os.pardir, "run.receipt"), "rb") as file:
        raw = file.read()
    (tmp_path / "r").write_bytes(raw.replace(b'"outcome":"ok"', b'"outcome":"no"'))
    out, _ = plugsec("receipt", "verify", str(tmp_path / "r"), "--audit", log_directory, "--json", code=3)
    assert json.loads(out)["outcome"] == "refused"
    (tmp_path / "r").write_bytes(b"hello\n")
    plugsec("receipt", "verify", str(tmp_path / "r"), "--audit", log_directory, code=4)
    plugsec("receipt", "verify", str(tmp_path / "none"), "--audit", log_directory, code=2)
    (tmp_path / "r").write_bytes(raw)
    other = logs.write(tmp_path / "other", 2)
    plugsec("receipt", "verify", str(tmp_path / "r"), "--audit", other, code=3)
