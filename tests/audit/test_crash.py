"""Writers that die: nothing acknowledged is lost, nothing found is hidden, the next start repairs it."""

import json
import os
import random
import shutil
import signal
import time

import logs
import pytest
from dying import die_after, power_cuts

from plugsec.audit import files
from plugsec.audit.errors import LogMissing, NeedsRecovery
from plugsec.audit.log import AuditLog
from plugsec.audit.merkle import leaf_hash
from plugsec.audit.verify import verify

SEGMENT = 3000


def lines_of(directory):
    found = []
    for name in sorted(os.listdir(directory)):
        if name.startswith("segment-"):
            found += logs.lines_of(os.path.join(directory, name))
    return found


def life(directory):
    """A writer's life: durable and other records, a rotation, a checkpoint asked for."""

    def work(acknowledge):
        with AuditLog.open(directory, segment_bytes=SEGMENT) as log:
            for step in range(9):
                durable = step % 3 == 0
                position = log.append("denial", detail={"step": step}, durable=durable)
                acknowledge((position.seq, position.line_hash, durable))
            log.checkpoint()
            position = log.append("run.end", run="last")
            acknowledge((position.seq, position.line_hash, True))

    return work


def check_repaired(directory, acknowledged, *, durable_only=False):
    """The log verifies, and every record that its writer was told of is where it was."""
    with AuditLog.open(directory, segment_bytes=SEGMENT) as log:
        log.append("denial", detail={"after": True})
    assert verify(directory).beyond_head == 0
    lines = lines_of(directory)
    for seq, line_hash, durable in acknowledged:
        if durable or not durable_only:
            assert leaf_hash(lines[seq][:-1]).hex() == line_hash
    for name in os.listdir(os.path.join(directory, "torn")):
        assert name == "incoming" or any(name.encode() in line for line in lines), "kept, but not recorded"
    return [json.loads(line) for line in lines]


def all_deaths(base, tmp_path, work_of):
    """Kill a writer after its first, second, … change to the disk, each time on a fresh copy."""
    number = 0
    while True:
        number += 1
        directory = logs.copy(base, tmp_path / str(number)) if base else str(tmp_path / str(number))
        death = die_after(number, directory, work_of(directory))
        if not death.killed:
            return
        yield number, directory, death
        shutil.rmtree(directory)


def judged(directory):
    """What `verify` says of a log that a writer died on: sound, or in need of recovery; never tampered."""
    try:
        return verify(directory)
    except NeedsRecovery as needed:
        return needed


def test_killed_after_every_change_to_the_disk(memory_path):
    base = logs.write(memory_path / "base", 5)
    deaths = recoveries = 0
    for number, directory, death in all_deaths(base, memory_path, life):
        verdict = judged(directory)
        records = check_repaired(directory, death.acknowledged)
        found = [record for record in records if record["event"] == "log.recovered"]
        assert len(found) == isinstance(verdict, NeedsRecovery), number
        deaths += 1
        recoveries += len(found)
    assert deaths > 40
    assert recoveries > 8


def test_killed_while_the_log_is_created(memory_path):
    deaths = 0
    for _, directory, death in all_deaths(None, memory_path, life):
        try:
            judged(directory)
        except LogMissing:
            pass
        except Exception as refused:
            assert "head is missing" in str(refused)
        records = check_repaired(directory, death.acknowledged)
        assert sum(record["event"] == "log.created" for record in records) == 1
        deaths += 1
    assert deaths > 60


def test_killed_during_the_recovery_itself(memory_path):
    base = logs.write(memory_path / "base", 5)
    second = memory_path / "second"
    second.mkdir()
    for number, directory, death in all_deaths(base, memory_path, life):
        if number % 7 or not isinstance(judged(directory), NeedsRecovery):
            continue

        def recover(copy):
            return lambda _: AuditLog.open(copy, segment_bytes=SEGMENT).close()

        where = second / str(number)
        where.mkdir()
        for _, again, _ in all_deaths(directory, where, recover):
            judged(again)
            records = check_repaired(again, death.acknowledged)
            assert sum(record["event"] == "log.recovered" for record in records) == 1


def test_a_writer_that_dies_after_any_byte_of_a_record(memory_path):
    """Three records cut at every byte (the last two at every fifth), the head as it was before."""
    base = logs.write(memory_path / "base", 5)
    longer = logs.write(logs.copy(base, memory_path / "longer"), 8)
    directory = logs.copy(base, memory_path / "log")
    segment, head = logs.segment(directory), os.path.join(directory, "head")
    with open(logs.segment(longer), "rb") as file:
        whole = file.read()
    with open(head, "rb") as file:
        old_head = file.read()
    before = os.path.getsize(segment)
    first = whole.index(b"\n", before) + 2
    for end in [*range(before + 1, first), *range(first, len(whole) + 1, 5), len(whole)]:
        restore(directory, {"segment-000001.jsonl": whole[:end], "head": old_head})
        with pytest.raises(NeedsRecovery):
            verify(directory)
        AuditLog.open(directory).close()
        assert verify(directory).size == 6
        torn = json.loads(lines_of(directory)[-1])["detail"]["torn"][0]
        with open(os.path.join(directory, torn["kept"]), "rb") as file:
            assert file.read() == whole[before:end]
        assert (torn["bytes"], torn["offset"]) == (end - before, before)


def restore(directory, state):
    for name, content in state.items():
        with open(os.path.join(directory, name), "wb") as file:
            file.write(content)


def test_a_power_cut_after_every_change_loses_nothing_that_was_synced(memory_path, monkeypatch):
    base = logs.write(memory_path / "base", 5)
    states = 0
    for number, directory, death in all_deaths(base, memory_path, life):
        for cut, state in enumerate(power_cuts(directory, death.synced)):
            copy = logs.copy(directory, memory_path / f"{number}-{cut}")
            restore(copy, state)
            with monkeypatch.context() as patch:
                patch.setattr(files, "boot_id", lambda: "after-the-power-came-back")
                judged(copy)
                check_repaired(copy, death.acknowledged, durable_only=True)
            shutil.rmtree(copy)
            states += 1
    assert states > 200


def test_what_a_power_cut_lost_is_said(tmp_path, monkeypatch):
    directory = logs.write(tmp_path / "log", 2)
    with AuditLog.open(directory) as log:
        log.append("run.start")
        size = os.path.getsize(logs.segment(directory))
        for _ in range(3):
            log.append("denial")
    os.truncate(logs.segment(directory), size)  # three records that nobody asked to be durable
    monkeypatch.setattr(files, "boot_id", lambda: "after-the-power-came-back")
    with pytest.raises(NeedsRecovery, match="3 unsynced records were lost"):
        verify(directory)
    AuditLog.open(directory).close()
    assert verify(directory).size == 4
    assert json.loads(lines_of(directory)[-1])["detail"]["torn"] == [{"lost_unsynced_records": 3}]


def test_within_one_boot_the_same_loss_is_tampering(tmp_path):
    directory = logs.write(tmp_path / "log", 2)
    with AuditLog.open(directory) as log:
        log.append("run.start")
        size = os.path.getsize(logs.segment(directory))
        log.append("denial")
    os.truncate(logs.segment(directory), size)
    with pytest.raises(Exception, match="record 3 was cut off") as caught:
        verify(directory)
    assert caught.value.fault.kind == "truncated"


def test_a_durable_record_lost_over_a_restart_is_tampering(tmp_path, monkeypatch):
    directory = logs.write(tmp_path / "log", 2)
    with AuditLog.open(directory) as log:
        size = os.path.getsize(logs.segment(directory))
        log.append("run.start")
    os.truncate(logs.segment(directory), size)
    monkeypatch.setattr(files, "boot_id", lambda: "after-the-power-came-back")
    with pytest.raises(Exception, match="record 2 was cut off"):
        verify(directory)


def test_killed_at_random_moments_by_another_process(tmp_path):
    directory = str(tmp_path / "log")
    AuditLog.open(directory).close()
    rng = random.Random(3)
    acknowledged = []
    for round_number in range(12):
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            with AuditLog.open(directory, segment_bytes=20_000) as log:
                for step in range(100_000):
                    position = log.append("denial", detail={"round": round_number}, durable=step % 5 == 0)
                    os.write(writer, f"{position.seq} {position.line_hash}\n".encode())
        os.close(writer)
        time.sleep(rng.uniform(0.005, 0.1))
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        with os.fdopen(reader) as pipe:
            acknowledged += [line.split() for line in pipe.read().splitlines() if len(line.split()) == 2]
        judged(directory)
    records = check_repaired(directory, [(int(seq), digest, True) for seq, digest in acknowledged])
    assert len(acknowledged) > 20
    assert len(records) > len(acknowledged)
