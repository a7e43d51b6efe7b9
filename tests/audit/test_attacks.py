"""Everything that can be done to a log from outside, and what `verify` says of it.

Each attack works on a copy of a sound log and returns what the verdict has to name. Logs of 1, 63, 64, 65
and 500 records (a checkpoint covers 64), in one segment and in several.
"""

import json
import os
import random

import logs
import pytest
from tampering import ATTACKS_BY_NAME, NotApplicable, Victim, changed, check

from plugsec.audit import checkpoints, head, keys, merkle, note
from plugsec.audit.errors import AuditError, LogTampered, NoteRefused
from plugsec.audit.log import AuditLog
from plugsec.audit.verify import verify
from plugsec_signing.canonical import encode

SHAPES = [
    (size, layout)
    for size in (1, 63, 64, 65, 500)
    for layout in ("one segment", "rotated")
    if not (size == 1 and layout == "rotated")
]


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    base = tmp_path_factory.mktemp("sound")
    made = {}

    def get(size, layout):
        if (size, layout) not in made:
            segment_bytes = logs.SMALL_SEGMENT if layout == "rotated" else logs.PLAIN_SEGMENT
            made[size, layout] = logs.write(base / f"{size}-{layout}", size, segment_bytes=segment_bytes)
        return made[size, layout]

    return get


@pytest.fixture(scope="module")
def foreign(tmp_path_factory):
    """Another log of the same machine and user."""
    return logs.write(tmp_path_factory.mktemp("foreign") / "log", 500)


@pytest.mark.parametrize(("size", "layout"), SHAPES)
def test_the_sound_log_verifies(size, layout, sound):
    found = verify(sound(size, layout))
    assert found.size == size
    assert (found.segments > 1) == (layout == "rotated")


@pytest.mark.parametrize("name", ATTACKS_BY_NAME)
def test_detected_with_the_place_named(name, sound, foreign, tmp_path):
    applied = 0
    for size, layout in SHAPES:
        directory = logs.copy(sound(size, layout), tmp_path / f"{size}-{layout}")
        victim = Victim(directory, foreign)
        try:
            expected = ATTACKS_BY_NAME[name](victim)
        except NotApplicable:
            continue
        applied += 1
        with pytest.raises(AuditError) as caught:
            verify(directory)
        check(caught.value, expected, (name, size, layout))
    assert applied, "no log was long enough for this attack"


def test_a_log_without_its_lock_file_still_verifies(sound, tmp_path):
    directory = logs.copy(sound(65, "one segment"), tmp_path / "log")
    os.unlink(os.path.join(directory, "lock"))
    assert verify(directory).size == 65


# What only an anchor kept elsewhere can show: the holder of the current key rewrites everything


def anchor_of(directory):
    with AuditLog.open(directory) as log:
        return log.checkpoint()


def rewrite_everything(directory, foreign, seq):
    """Change a record, re-hash, re-sign every checkpoint and the head: all that the key's holder can."""
    victim = Victim(directory, foreign)
    victim.replace(seq, changed(victim.lines[seq][1]))
    victim.rehash(seq + 1)
    victim.write()
    frontier, roots = (), {}
    for number, (_, raw) in enumerate(victim.lines):
        frontier = merkle.push(frontier, number, merkle.leaf_hash(raw[:-1]))
        roots[number + 1] = merkle.root_of(frontier)
    old = victim.heads()[-1]
    private, lines, chain = keys.signing_key(victim.secret()), [], head.NO_HASH
    for line in logs.lines_of(victim.path("checkpoints.jsonl")):
        size = json.loads(line)["size"]
        signed = note.sign_checkpoint(note.Checkpoint(old.origin, size, roots[size]), private)
        lines.append(encode({"epoch": 1, "size": size, "note": signed.decode()}) + b"\n")
        chain = checkpoints.chained(chain, lines[-1])
    logs.put_lines(victim.path("checkpoints.jsonl"), lines)
    victim.resign_head(
        old._replace(
            frontier=frontier,
            last=merkle.leaf_hash(victim.lines[-1][1][:-1]),
            checkpoint_chain=chain,
            checkpoint_offset=sum(map(len, lines)),
        )
    )


@pytest.mark.parametrize(("size", "layout"), SHAPES[1:])  # one record has nothing but the key to change
def test_resigned_with_the_current_key_is_caught_by_an_anchor_only(size, layout, sound, foreign, tmp_path):
    directory = logs.copy(sound(size, layout), tmp_path / "log")
    anchor = anchor_of(directory)
    rewrite_everything(directory, foreign, size // 2)
    assert verify(directory).current_epoch == size, "within the epoch this cannot be seen: README says so"
    with pytest.raises(LogTampered) as caught:
        verify(directory, anchors=[anchor])
    assert caught.value.fault.kind == "rewritten"
    assert caught.value.fault.file == "anchor 1"
    assert caught.value.fault.first_seq <= size // 2 <= caught.value.fault.last_seq


def resigned(directory, foreign, seq, /, **changes):
    """Change a record's fields, re-hash what follows and re-sign the head; the log has no checkpoints."""
    victim = Victim(directory, foreign)
    victim.replace(seq, encode({**victim.record(seq), **changes}) + b"\n")
    victim.rehash(seq + 1)
    victim.write()
    frontier = ()
    for number, (_, raw) in enumerate(victim.lines):
        frontier = merkle.push(frontier, number, merkle.leaf_hash(raw[:-1]))
    victim.resign_head(
        victim.heads()[-1]._replace(
            frontier=frontier,
            last=merkle.leaf_hash(victim.lines[-1][1][:-1]),
            offset=sum(len(raw) for _, raw in victim.lines),
        )
    )


@pytest.mark.parametrize(
    ("seq", "changes", "kind"),
    [
        (3, {"seq": 7}, "edited"),
        (3, {"seq": 2}, "edited"),
        (4, {"seq": 5}, "edited"),
        (2, {"seq": "2"}, "malformed"),
        (2, {"prev": 7}, "malformed"),
        (0, {"event": "run.start"}, "foreign"),
        (0, {"detail": []}, "foreign"),
        (0, {"detail": {"origin": "plugsec.audit/other/0", "epoch": 1}}, "foreign"),
    ],
)
def test_a_chain_that_holds_must_still_be_a_log(seq, changes, kind, foreign, tmp_path):
    directory = logs.write(tmp_path / "log", 5)
    resigned(directory, foreign, 4, detail={"within the epoch": "not seen"})
    assert verify(directory).size == 5
    resigned(directory, foreign, seq, **changes)
    with pytest.raises(LogTampered) as caught:
        verify(directory)
    assert caught.value.fault.kind == kind


def test_an_older_log_replayed_is_caught_by_an_anchor(sound, tmp_path):
    directory = logs.copy(sound(65, "one segment"), tmp_path / "log")
    older = logs.copy(directory, tmp_path / "older")
    logs.write(directory, 80)
    anchor = anchor_of(directory)
    assert verify(older).size == 65
    with pytest.raises(LogTampered) as caught:
        verify(older, anchors=[anchor])
    assert caught.value.fault[0::3] == ("rolled back", 65)
    assert caught.value.fault.last_seq == 79


def test_a_fork_of_history_is_caught_by_an_anchor(sound, tmp_path):
    directory = logs.copy(sound(65, "one segment"), tmp_path / "log")
    other = logs.copy(directory, tmp_path / "other")
    logs.write(directory, 90)
    logs.write(other, 100)
    anchor = anchor_of(directory)
    assert verify(other).size == 100
    with pytest.raises(LogTampered) as caught:
        verify(other, anchors=[anchor])
    assert caught.value.fault.kind == "rewritten"
    assert caught.value.fault.first_seq <= 65 <= caught.value.fault.last_seq < 90


def test_an_anchor_of_another_log_is_refused(sound, foreign):
    with pytest.raises(NoteRefused):
        verify(sound(65, "one segment"), anchors=[anchor_of(foreign)])


def test_an_anchor_reaches_as_far_as_it_says(sound, tmp_path):
    directory = logs.copy(sound(65, "one segment"), tmp_path / "log")
    anchor = anchor_of(directory)
    logs.write(directory, 70)
    found = verify(directory, anchors=[anchor, anchor])
    assert (found.anchored, found.current_epoch, found.sealed) == (65, 5, 0)


def test_any_truncation_of_any_file_is_detected(sound, tmp_path):
    """A cut anywhere, at a record's end or inside it: never a shorter log that verifies."""
    directory = logs.copy(sound(65, "rotated"), tmp_path / "log")
    rng = random.Random(1)
    for name in ["segment-000001.jsonl", "segment-000002.jsonl", "checkpoints.jsonl", "head"]:
        path = os.path.join(directory, name)
        with open(path, "rb") as file:
            whole = file.read()
        ends = [at + 1 for at in range(len(whole)) if whole[at : at + 1] == b"\n"][:-1]
        for length in {0, len(whole) - 1, *ends, *rng.sample(range(len(whole)), 30)}:
            with open(path, "wb") as file:
                file.write(whole[:length])
            with pytest.raises(LogTampered):
                verify(directory)
        with open(path, "wb") as file:
            file.write(whole)
    assert verify(directory).size == 65


def test_every_flipped_byte_is_detected(memory_path):
    """One bit of every byte of every file that carries meaning, in a log with records and a checkpoint."""
    directory = logs.write(memory_path / "log", 5)
    anchor_of(directory)
    rng = random.Random(2)
    for name in [
        "segment-000001.jsonl",
        "checkpoints.jsonl",
        "head",
        "keys/epoch-000001.key",
        "keys/epoch-000001.pub",
    ]:
        path = os.path.join(directory, name)
        with open(path, "rb") as file:
            whole = file.read()
        fd = os.open(path, os.O_WRONLY)
        try:
            for at, byte in enumerate(whole):
                os.pwrite(fd, bytes([byte ^ (1 << rng.randrange(8))]), at)
                with pytest.raises(AuditError):
                    verify(directory)
                os.pwrite(fd, bytes([byte]), at)
        finally:
            os.close(fd)
    assert verify(directory).size == 5
