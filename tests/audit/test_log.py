"""Writing: what a record holds, who may write, what is durable, and what many writers do to one log."""

import json
import os
import re
import signal
import stat
import subprocess
import sys
import threading
import time

import logs
import pytest

from plugsec.audit import checkpoints, events, files, head
from plugsec.audit.errors import (
    AuditError,
    LogBusy,
    LogFormat,
    LogMissing,
    LogTampered,
    LogUnsafe,
    LogUnwritable,
)
from plugsec.audit.log import AuditLog
from plugsec.audit.verify import verify
from plugsec_signing.canonical import decode_canonical


def records_of(directory):
    found = []
    for name in sorted(os.listdir(directory)):
        if name.startswith("segment-"):
            found += [decode_canonical(line[:-1]) for line in logs.lines_of(os.path.join(directory, name))]
    return found


@pytest.fixture
def directory(tmp_path):
    return str(tmp_path / "state" / "audit")


def test_a_record_says_who_what_when_and_after_what(directory):
    with AuditLog.open(directory) as log:
        position = log.append(
            "run.start",
            run="r1",
            bundle_id="sha256:ab",
            policy_digest="cd",
            decision="ok",
            detail={"layers": ["seccomp"], "limits": {"wall_ms": 5}},
        )
        assert position.seq == 1
        assert log.head.last.hex() == position.line_hash
    record = records_of(directory)[1]
    assert set(record) == {
        "v",
        "seq",
        "prev",
        "ts",
        "mono_ns",
        "boot_id",
        "host",
        "uid",
        "pid",
        "session",
        "event",
        "run",
        "bundle_id",
        "policy_digest",
        "decision",
        "detail",
    }
    assert (record["v"], record["seq"], record["event"], record["run"]) == (1, 1, "run.start", "r1")
    assert (record["uid"], record["pid"], record["host"]) == (os.getuid(), os.getpid(), os.uname().nodename)
    assert record["detail"] == {"layers": ["seccomp"], "limits": {"wall_ms": 5}}
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", record["ts"])


def test_the_first_record_names_the_log_and_its_key(directory):
    AuditLog.open(directory).close()
    created = records_of(directory)[0]
    assert created["event"] == "log.created"
    assert created["prev"] == "00" * 32
    with open(os.path.join(directory, "keys/epoch-000001.pub")) as file:
        assert file.read() == created["detail"]["public_key"] + "\n"


def test_an_unknown_event_is_our_own_mistake(directory):
    with AuditLog.open(directory) as log, pytest.raises(RuntimeError, match="not an audit event"):
        log.append("run.strat")
    assert verify(directory).size == 1


def test_everything_is_private(directory):
    before = os.umask(0)
    try:
        logs.write(directory, 70)
    finally:
        os.umask(before)
    assert stat.S_IMODE(os.stat(directory).st_mode) == 0o700
    for where, folders, names in os.walk(directory):
        for name in folders:
            assert stat.S_IMODE(os.stat(os.path.join(where, name)).st_mode) == 0o700
        for name in names:
            assert stat.S_IMODE(os.stat(os.path.join(where, name)).st_mode) == 0o600


def count_syncs(monkeypatch):
    calls = []
    sync = os.fdatasync

    def counted(fd):
        calls.append(os.readlink(f"/proc/self/fd/{fd}"))
        sync(fd)

    monkeypatch.setattr(os, "fdatasync", counted)
    return calls


@pytest.mark.parametrize("event", sorted(events.EVENTS - {"log.created"}))
def test_durable_kinds_are_synced_whoever_asks_and_others_are_not(event, directory, monkeypatch):
    with AuditLog.open(directory) as log:
        log.append("denial")  # the first write of a process may have to sync once
        calls = count_syncs(monkeypatch)
        log.append(event, durable=False)
        names = [os.path.basename(path) for path in calls]
        assert names == (["segment-000001.jsonl", "head"] if event in events.DURABLE else [])


def test_any_record_is_durable_when_asked(directory, monkeypatch):
    with AuditLog.open(directory) as log:
        log.append("denial")
        calls = count_syncs(monkeypatch)
        log.append("denial", durable=True)
        assert len(calls) == 2


def test_a_record_that_nobody_synced_is_visible_at_once(directory):
    with AuditLog.open(directory) as log:
        log.append("denial", detail={"n": 1})
        assert verify(directory).size == 2
        with AuditLog.open(directory) as other:
            assert other.append("denial").seq == 2
        assert log.append("denial").seq == 3


def test_a_checkpoint_is_due_every_64_records(directory):
    logs.write(directory, checkpoints.EVERY - 1)
    assert verify(directory).checkpoints == 0
    logs.write(directory, checkpoints.EVERY)
    assert verify(directory)[7:9] == (1, 64)
    logs.write(directory, 3 * checkpoints.EVERY)
    assert verify(directory)[7:9] == (3, 192)


def test_asking_twice_for_a_checkpoint_writes_one(directory):
    with AuditLog.open(directory) as log:
        assert log.checkpoint() == log.checkpoint()
    assert verify(directory).checkpoints == 1


def test_the_tree_continues_over_segments(directory):
    logs.write(directory, 300, segment_bytes=5000)
    found = verify(directory)
    assert found.segments > 20
    assert found.size in (300, 301)  # a rotation adds a record of its own
    opened = [record for record in records_of(directory) if record["event"] == "log.rotated"]
    assert len(opened) == found.segments - 1
    assert opened[0]["detail"]["closed"] == "segment-000001.jsonl"
    assert opened[0]["detail"]["size"] == opened[0]["seq"]


def test_nothing_heavy_is_imported_for_a_durable_append(directory):
    AuditLog.open(directory).close()
    script = (
        "import sys; from plugsec.audit.log import AuditLog\n"
        f"with AuditLog.open({directory!r}) as log: log.append('run.start', detail={{'a': 1}})\n"
        "print(*sys.modules)"
    )
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    heavy = {
        "dataclasses",
        "pathlib",
        "tomllib",
        "logging",
        "subprocess",
        "asyncio",
        "tempfile",
        "typer",
        "rich",
        "psutil",
        "pyseccomp",
        "inspect",
        "urllib",
        "cryptography",
        "datetime",
        "base64",
    }
    assert not heavy & set(loaded.stdout.split())


# Many writers


def run_in_children(count, work):
    """Fork `count` children that run `work(number)`; every one must succeed."""
    children = []
    for number in range(count):
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                work(number)
                code = 0
            finally:
                os._exit(code)
        children.append(pid)
    assert [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children] == [0] * count


def test_eight_processes_lose_nothing_and_keep_their_order(directory):
    AuditLog.open(directory).close()

    def work(number):
        with AuditLog.open(directory, segment_bytes=100_000) as log:
            for step in range(200):
                log.append("denial", run=f"w{number}", detail={"step": step}, durable=step % 20 == 0)

    run_in_children(8, work)
    found = verify(directory)
    records = records_of(directory)
    assert found.size == len(records)
    assert found.segments > 3
    for number in range(8):
        steps = [record["detail"]["step"] for record in records if record.get("run") == f"w{number}"]
        assert steps == list(range(200))
    assert sum(record["event"] in ("log.created", "log.rotated") for record in records) == found.size - 1600


def test_eight_processes_may_begin_the_same_log(directory):
    def work(number):
        with AuditLog.open(directory) as log:
            log.append("run.start", run=f"w{number}")

    run_in_children(8, work)
    assert verify(directory).size == 9
    assert sum(record["event"] == "log.created" for record in records_of(directory)) == 1


def test_a_log_survives_fork(directory):
    with AuditLog.open(directory) as log:
        log.append("run.start", run="before")

        def work(number):
            for step in range(20):
                log.append("denial", run=f"child{number}", detail={"step": step})

        run_in_children(3, work)
        for _ in range(20):
            log.append("denial", run="parent")
    assert verify(directory).size == 2 + 60 + 20
    sessions = {record["session"] for record in records_of(directory)}
    assert len(sessions) == 4


def test_one_log_serves_many_threads(directory):
    with AuditLog.open(directory) as log:

        def work(number):
            for step in range(50):
                log.append("denial", run=f"t{number}", detail={"step": step})

        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert verify(directory).size == 201


def test_verifying_while_others_write_never_finds_fault(directory):
    logs.write(directory, 10)
    pid = os.fork()
    if pid == 0:
        try:
            with AuditLog.open(directory, segment_bytes=20_000) as log:
                for step in range(400):
                    log.append("denial", detail={"step": step}, durable=step % 50 == 0)
        finally:
            os._exit(0)
    sizes = []
    while os.waitpid(pid, os.WNOHANG) == (0, 0):
        sizes.append(verify(directory).size)
    assert sizes == sorted(sizes)
    assert verify(directory).size >= 410


def test_the_holder_of_the_lock_killed_leaves_it_free(directory):
    AuditLog.open(directory).close()
    ready, tell = os.pipe()
    pid = os.fork()
    if pid == 0:
        fd = os.open(os.path.join(directory, "lock"), os.O_RDWR)
        files.lock(fd)
        os.write(tell, b".")
        signal.pause()
    os.read(ready, 1)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    with AuditLog.open(directory) as log:
        assert log.append("run.start").seq == 1


def test_a_lock_that_is_never_released_is_reported(directory, monkeypatch):
    AuditLog.open(directory).close()
    monkeypatch.setattr(files, "LOCK_WAIT_S", 0.05)
    fd = os.open(os.path.join(directory, "lock"), os.O_RDWR)
    files.lock(fd)
    with pytest.raises(LogBusy) as refused:
        AuditLog.open(directory)
    assert refused.value.code == 9
    with pytest.raises(LogBusy):
        verify(directory)
    os.close(fd)
    AuditLog.open(directory).close()


def test_a_lock_file_replaced_under_a_writer_is_noticed(directory):
    with AuditLog.open(directory) as log:
        log.append("denial")
        os.unlink(os.path.join(directory, "lock"))
        with AuditLog.open(directory) as other:
            other.append("denial")
            log.append("denial")
            other.append("denial")
    assert verify(directory).size == 5


# Refused places


def test_a_symbolic_link_as_the_log_is_refused(directory, tmp_path):
    AuditLog.open(directory).close()
    link = tmp_path / "link"
    link.symlink_to(directory)
    for act in (AuditLog.open, verify):
        with pytest.raises(LogUnsafe) as refused:
            act(str(link))
        assert refused.value.code == 9


@pytest.mark.parametrize(
    "name", ["lock", "head", "segment-000001.jsonl", "checkpoints.jsonl", "keys/epoch-000001.key"]
)
@pytest.mark.parametrize("trick", ["symbolic link", "hard link", "FIFO", "open to others", "directory"])
def test_a_file_that_others_could_reach_is_refused(name, trick, directory, tmp_path):
    AuditLog.open(directory).close()
    path = os.path.join(directory, name)
    if trick == "symbolic link":
        os.rename(path, tmp_path / "moved")
        os.symlink(tmp_path / "moved", path)
    elif trick == "hard link":
        os.link(path, tmp_path / "second")
    elif trick == "FIFO":
        os.unlink(path)
        os.mkfifo(path, 0o600)
    elif trick == "open to others":
        os.chmod(path, 0o640)
    else:
        os.unlink(path)
        os.mkdir(path, 0o700)
    for act in (AuditLog.open, verify):
        with pytest.raises(LogUnsafe):
            act(directory)


@pytest.mark.parametrize("mode", [0o710, 0o755, 0o777, 0o702])
def test_a_directory_open_to_others_is_refused(mode, directory):
    AuditLog.open(directory).close()
    os.chmod(directory, mode)
    for act in (AuditLog.open, verify):
        with pytest.raises(LogUnsafe, match="open to other users"):
            act(directory)


@pytest.mark.skipif(os.geteuid() != 0, reason="giving a directory to another user needs root")
def test_another_users_log_is_readable_by_root_but_not_written(directory):
    logs.write(directory, 5)
    for where, folders, names in os.walk(directory):
        for name in ["", *folders, *names]:
            os.chown(os.path.join(where, name), 65534, 65534)
    assert verify(directory).size == 5
    with pytest.raises(LogUnsafe, match="belongs to uid 65534"):
        AuditLog.open(directory)


def test_a_directory_with_other_things_in_it_does_not_become_a_log(tmp_path):
    (tmp_path / "photos").mkdir(mode=0o700)
    (tmp_path / "photos/cat.jpg").write_bytes(b"cat")
    with pytest.raises(LogUnsafe, match="other things"):
        AuditLog.open(str(tmp_path / "photos"))
    assert (tmp_path / "photos/cat.jpg").read_bytes() == b"cat"


def test_a_file_in_the_place_of_the_log_is_refused(tmp_path):
    (tmp_path / "audit").write_text("")
    with pytest.raises(LogUnsafe):
        AuditLog.open(str(tmp_path / "audit"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere: run as an ordinary user")
def test_a_place_that_cannot_be_written_is_a_refusal():
    with pytest.raises(LogUnwritable) as refused:
        AuditLog.open("/usr/plugsec-audit")
    assert refused.value.code == 9


def test_there_is_nothing_to_verify_where_there_is_no_log(tmp_path):
    with pytest.raises(LogMissing):
        verify(str(tmp_path / "none"))
    (tmp_path / "empty").mkdir(mode=0o700)
    with pytest.raises(LogMissing):
        verify(str(tmp_path / "empty"))


def test_nothing_is_appended_to_a_log_that_lost_its_head(directory):
    logs.write(directory, 5)
    os.unlink(os.path.join(directory, "head"))
    with pytest.raises(LogTampered, match="head is missing"):
        AuditLog.open(directory)


@pytest.mark.parametrize("loss", ["cut", "unlinked", "replaced"])
def test_a_log_that_shrinks_under_a_writer_is_noticed_at_the_next_append(loss, directory):
    logs.write(directory, 5)
    path = logs.segment(directory)
    with AuditLog.open(directory) as log:
        log.append("denial")
        if loss == "cut":
            os.truncate(path, os.path.getsize(path) - 1)
        elif loss == "unlinked":
            os.unlink(path)
        else:
            os.rename(path, path + ".old")
            logs.put_lines(path, logs.lines_of(path + ".old")[:-1])
        if loss == "replaced":
            log.append("denial")  # this writer still holds the true file; a new one does not
            with pytest.raises(AuditError):
                verify(directory)
        else:
            with pytest.raises(LogTampered):
                log.append("denial")


def test_a_newer_format_is_refused_by_name(directory, monkeypatch):
    monkeypatch.setattr(head, "FORMAT", "plugsec.audit.head/2")
    logs.write(directory, 3)
    monkeypatch.undo()
    for act in (AuditLog.open, verify):
        with pytest.raises(LogFormat, match="newer plugsec"):
            act(directory)


def test_the_clock_may_jump_without_breaking_the_chain(directory, monkeypatch):
    with AuditLog.open(directory) as log:
        now = time.time_ns()
        for jump in (0, -3600, 7200, -(10**6), 0):
            monkeypatch.setattr(time, "time_ns", lambda jump=jump: now + jump * 10**9)
            log.append("denial")
    found = verify(directory)
    assert found.size == 6
    assert found.clock_steps_back == 2


def test_text_that_would_forge_a_record_stays_text(directory):
    forged = '"}\n{"event":"run.end","decision":"ok","seq":99}\n\x1b[2J\u202e'
    with AuditLog.open(directory) as log:
        log.append("denial", run=forged, decision=forged, detail={forged: forged, "raw": forged.encode()})
    with open(logs.segment(directory), "rb") as file:
        raw = file.read()
    assert raw.count(b"\n") == 2
    assert raw.decode().replace("\n", "").isprintable()
    assert json.loads(raw.splitlines()[1])["seq"] == 1
    assert verify(directory).size == 2


def test_secrets_never_reach_the_disk(directory):
    with AuditLog.open(directory, redact=["hunter2", b"p\xff\nq", ""]) as log:
        values = ["xhunter2y", b"see p\xff\nq", "p\\xff\\nq"]
        log.append("denial", run="hunter2", detail={"k-hunter2": values})
    with open(logs.segment(directory), "rb") as file:
        raw = file.read()
    assert b"hunter2" not in raw
    assert b"xff" not in raw
    assert raw.count(b"[redacted]") == 5


def test_a_callers_own_redaction_is_used(directory):
    with AuditLog.open(directory, redact=lambda text: text.upper()) as log:
        log.append("denial", detail={"a": "quiet"})
    assert records_of(directory)[1]["detail"] == {"A": "QUIET"}
