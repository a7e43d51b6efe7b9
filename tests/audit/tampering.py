"""What can be done to the files of a log from outside: each attack, and what `verify` has to name.

An attack works on a copy of a sound log and returns the fault that it leaves.
"""

import json
import os
import shutil

import logs

from plugsec.audit import head, keys, merkle, note
from plugsec.audit.errors import LogTampered, NeedsRecovery
from plugsec_signing.canonical import encode


class NotApplicable(Exception):
    """This log is too short for this attack."""


class Victim:
    """A log about to be attacked: its lines with their places, and the tools of an attacker."""

    def __init__(self, directory, foreign):
        self.directory, self.foreign = directory, foreign
        self.segments = sorted(name for name in os.listdir(directory) if name.startswith("segment-"))
        self.lines = [(name, line) for name in self.segments for line in logs.lines_of(self.path(name))]
        self.size = len(self.lines)

    def path(self, name):
        return os.path.join(self.directory, name)

    def need(self, records):
        if self.size < records:
            raise NotApplicable

    def number(self, seq):
        """The line number (from 1) of a record in its segment."""
        name = self.lines[seq][0]
        return 1 + sum(1 for other, _ in self.lines[:seq] if other == name)

    def write(self, lines=None):
        lines = self.lines if lines is None else lines
        for name in self.segments:
            logs.put_lines(self.path(name), [line for other, line in lines if other == name])

    def replace(self, seq, raw):
        self.lines[seq] = (self.lines[seq][0], raw)

    def record(self, seq):
        return json.loads(self.lines[seq][1])

    def rehash(self, first):
        """Give every record from `first` on the hash of the one before."""
        for seq in range(max(first, 1), self.size):
            record = self.record(seq)
            record["prev"] = merkle.leaf_hash(self.lines[seq - 1][1][:-1]).hex()
            self.replace(seq, encode(record) + b"\n")

    def secret(self):
        with open(self.path(keys.secret_name(1)), "rb") as file:
            return file.read()

    def heads(self):
        with open(self.path("head"), "rb") as file:
            raw = file.read()
        mac_key = keys.mac_key(self.secret())
        found = [head.from_slot(raw[at : at + 4096], self.directory, lambda _: mac_key) for at in (0, 4096)]
        return sorted(found, key=lambda slot: slot.generation)

    def resign_head(self, new):
        with open(self.path("head"), "wb") as file:
            file.write(head.to_slot(new, keys.mac_key(self.secret())) * 2)

    def fault_at(self, seq, *kinds):
        return {"kinds": kinds, "seq": seq, "file": self.lines[seq][0], "line": self.number(seq)}


def middle(victim):
    victim.need(3)
    return victim.size // 2


def changed(raw):
    """A line with one value changed: another mono_ns of the same length."""
    at = raw.index(b'"mono_ns":"') + 11
    return raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :]


# Edits


def edit(victim, seq):
    victim.replace(seq, changed(victim.lines[seq][1]))
    victim.write()
    return victim.fault_at(seq, "edited")


def edit_the_first_record(victim):
    return edit(victim, 0)


def edit_a_middle_record(victim):
    return edit(victim, middle(victim))


def edit_the_last_record(victim):
    return edit(victim, victim.size - 1)


def edit_three_records(victim):
    victim.need(63)
    for seq in (20, 21, 40):
        victim.replace(seq, changed(victim.lines[seq][1]))
    victim.write()
    return victim.fault_at(20, "edited")


def edit_a_record_to_another_length(victim):
    seq = middle(victim)
    record = victim.record(seq)
    record["detail"]["added"] = "evidence of innocence"
    victim.replace(seq, encode(record) + b"\n")
    victim.write()
    return victim.fault_at(seq, "edited")


def edit_a_records_number(victim):
    seq = middle(victim)
    record = victim.record(seq)
    record["seq"] = seq + 7
    victim.replace(seq, encode(record) + b"\n")
    victim.write()
    return victim.fault_at(seq, "edited")


def edit_a_records_prev(victim):
    seq = middle(victim)
    record = victim.record(seq)
    record["prev"] = "00" * 32
    victim.replace(seq, encode(record) + b"\n")
    victim.write()
    return victim.fault_at(seq, "edited")


def edit_and_rehash_forward(victim):
    seq = middle(victim)
    victim.replace(seq, changed(victim.lines[seq][1]))
    victim.rehash(seq + 1)
    victim.write()
    return {"kinds": ("rewritten",), "within": seq}


def overwrite_a_record_with_garbage(victim):
    seq = middle(victim)
    raw = victim.lines[seq][1]
    victim.replace(seq, b"\x00" * (len(raw) - 1) + b"\n")
    victim.write()
    return victim.fault_at(seq, "malformed")


def overwrite_a_newline(victim):
    seq = middle(victim)
    victim.replace(seq, victim.lines[seq][1][:-1] + b" ")
    victim.write()
    return victim.fault_at(seq, "malformed")


# Removals


def delete(victim, seq):
    # The line that follows; where the next segment begins if there is none in this one.
    following = victim.lines[seq + 1]
    number = 1 if following[0] != victim.lines[seq][0] else victim.number(seq)
    del victim.lines[seq]
    victim.size -= 1
    victim.write()
    return {"kinds": ("removed",), "seq": seq, "last_seq": seq, "file": following[0], "line": number}


def delete_the_first_record(victim):
    victim.need(3)
    return delete(victim, 0)


def delete_a_middle_record(victim):
    return delete(victim, middle(victim))


def delete_ten_records(victim):
    victim.need(63)
    first = victim.size // 2
    del victim.lines[first : first + 10]
    victim.write()
    return {"kinds": ("removed",), "seq": first, "last_seq": first + 9}


def delete_the_last_record(victim):
    last = victim.lines.pop()
    assert last
    victim.write()
    return {"kinds": ("truncated",), "seq": victim.size - 1, "last_seq": victim.size - 1}


def truncate_inside_the_last_record(victim):
    victim.replace(victim.size - 1, victim.lines[-1][1][:-20])
    victim.write()
    return victim.fault_at(victim.size - 1, "malformed", "truncated")


def truncate_at_a_checkpoint(victim):
    victim.need(65)
    with open(victim.path("checkpoints.jsonl"), "rb") as file:
        size = json.loads(file.readline())["size"]
    if size >= victim.size:
        raise NotApplicable
    victim.write(victim.lines[:size])
    return {"kinds": ("truncated",), "seq": size, "last_seq": victim.size - 1}


def delete_each_segment(number):
    def attack(victim):
        if len(victim.segments) <= number:
            raise NotApplicable
        os.unlink(victim.path(victim.segments[number]))
        return {"kinds": ("segment missing",), "file": victim.segments[number]}

    return attack


def delete_the_last_segment(victim):
    os.unlink(victim.path(victim.segments[-1]))
    return {"kinds": ("segment missing",), "file": victim.segments[-1]}


def empty_a_segment(victim):
    if len(victim.segments) < 2:
        raise NotApplicable
    os.truncate(victim.path(victim.segments[0]), 0)
    return {"kinds": ("removed",), "seq": 0}


# Reordering, inserting, splicing


def swap_neighbours(victim):
    seq = middle(victim)
    if victim.lines[seq][0] != victim.lines[seq + 1][0]:
        seq -= 2
    victim.lines[seq], victim.lines[seq + 1] = victim.lines[seq + 1], victim.lines[seq]
    victim.write()
    return victim.fault_at(seq, "reordered")


def move_a_record_to_the_end(victim):
    victim.need(63)
    name, raw = victim.lines.pop(7)
    assert name
    victim.lines.append((victim.segments[-1], raw))
    victim.write()
    # Where it makes the last segment longer than the head counts, it lies beyond the log.
    return victim.fault_at(7, *(("reordered",) if len(victim.segments) == 1 else ("removed",)))


def move_a_late_record_forward(victim):
    victim.need(63)
    raw = victim.lines.pop(50)[1]
    victim.lines.insert(7, (victim.segments[0], raw))
    victim.write()
    return victim.fault_at(7, "reordered")


def swap_segments(victim):
    if len(victim.segments) < 2:
        raise NotApplicable
    first, second = victim.path(victim.segments[0]), victim.path(victim.segments[1])
    os.rename(first, first + ".x")
    os.rename(second, first)
    os.rename(first + ".x", second)
    return {"kinds": ("reordered", "removed"), "seq": 0, "file": victim.segments[0], "line": 1}


def repeat_a_record(victim):
    seq = middle(victim)
    victim.lines.insert(seq, victim.lines[seq])
    victim.write()
    return {"kinds": ("inserted",), "seq": seq}


def insert_a_forged_record(victim):
    seq = middle(victim)
    forged = {**victim.record(seq), "detail": {"forged": True}}
    victim.lines.insert(seq, (victim.lines[seq][0], encode(forged) + b"\n"))
    victim.write()
    return {**victim.fault_at(seq, "inserted"), "line": victim.number(seq)}


def insert_an_empty_line(victim):
    seq = middle(victim)
    victim.lines.insert(seq, (victim.lines[seq][0], b"\n"))
    victim.write()
    return victim.fault_at(seq, "malformed")


def insert_a_gigantic_line(victim):
    seq = middle(victim)
    victim.lines.insert(seq, (victim.lines[seq][0], b"x" * 3_000_000 + b"\n"))
    victim.write()
    return victim.fault_at(seq, "malformed")


def splice_from_another_log(victim):
    seq = middle(victim)
    victim.replace(seq, logs.lines_of(logs.segment(victim.foreign))[seq])
    victim.write()
    return victim.fault_at(seq, "edited")


def splice_a_run_of_records_from_another_log(victim):
    victim.need(63)
    other = logs.lines_of(logs.segment(victim.foreign))
    for seq in range(20, 30):
        victim.replace(seq, other[seq])
    victim.write()
    return victim.fault_at(20, "edited")


def splice_from_another_segment(victim):
    if len(victim.segments) < 2:
        raise NotApplicable
    victim.replace(5, victim.lines[-1][1])
    victim.write()
    return victim.fault_at(5, "edited", "removed")


# Checkpoints


def checkpoint_lines(victim, least):
    lines = logs.lines_of(victim.path("checkpoints.jsonl"))
    if len(lines) < least:
        raise NotApplicable
    return lines


def swap_checkpoints(victim):
    lines = checkpoint_lines(victim, 2)
    lines[0], lines[1] = lines[1], lines[0]
    logs.put_lines(victim.path("checkpoints.jsonl"), lines)
    return {"kinds": ("checkpoint",), "file": "checkpoints.jsonl", "line": 2}


def delete_a_checkpoint(victim):
    lines = checkpoint_lines(victim, 1)
    logs.put_lines(victim.path("checkpoints.jsonl"), lines[1:])
    return {"kinds": ("truncated", "checkpoint"), "file": "checkpoints.jsonl"}


def delete_the_checkpoints(victim):
    os.unlink(victim.path("checkpoints.jsonl"))
    return {"kinds": ("missing file",), "file": "checkpoints.jsonl"}


def forge_a_checkpoint(victim):
    """By another key, over other contents, of the same length."""
    lines = checkpoint_lines(victim, 1)
    entry = json.loads(lines[0])
    origin = entry["note"].split("\n")[0]
    forged = note.sign_checkpoint(
        note.Checkpoint(origin, entry["size"], b"r" * 32), keys.signing_key(b"k" * 32)
    )
    entry["note"] = forged.decode()
    logs.put_lines(victim.path("checkpoints.jsonl"), [encode(entry) + b"\n", *lines[1:]])
    return {"kinds": ("checkpoint",), "file": "checkpoints.jsonl", "line": 1}


def exchange_a_checkpoint_for_another_true_one(victim):
    """The current key signs another point of the true history: only the head knows that it was not this."""
    lines = checkpoint_lines(victim, 1)
    entry = json.loads(lines[0])
    origin, size = entry["note"].split("\n")[0], entry["size"] - 1
    frontier = ()
    for seq in range(size):
        frontier = merkle.push(frontier, seq, merkle.leaf_hash(victim.lines[seq][1][:-1]))
    signed = note.sign_checkpoint(
        note.Checkpoint(origin, size, merkle.root_of(frontier)), keys.signing_key(victim.secret())
    )
    line = encode({"epoch": 1, "size": size, "note": signed.decode()}) + b"\n"
    logs.put_lines(victim.path("checkpoints.jsonl"), [line, *lines[1:]])
    return {"kinds": ("checkpoint",), "file": "checkpoints.jsonl"}


def sign_another_root_with_the_current_key(victim):
    lines = checkpoint_lines(victim, 1)
    entry = json.loads(lines[0])
    origin = entry["note"].split("\n")[0]
    signed = note.sign_checkpoint(
        note.Checkpoint(origin, entry["size"], b"r" * 32), keys.signing_key(victim.secret())
    )
    logs.put_lines(
        victim.path("checkpoints.jsonl"), [encode({**entry, "note": signed.decode()}) + b"\n", *lines[1:]]
    )
    return {"kinds": ("rewritten",), "file": "checkpoints.jsonl", "line": 1}


def edit_rehash_and_resign_the_head(victim):
    """With the current key, but leaving a signed checkpoint behind."""
    checkpoint_lines(victim, 1)
    victim.replace(3, changed(victim.lines[3][1]))
    victim.rehash(4)
    victim.write()
    frontier = ()
    for seq, (_, raw) in enumerate(victim.lines):
        frontier = merkle.push(frontier, seq, merkle.leaf_hash(raw[:-1]))
    new = victim.heads()[-1]._replace(frontier=frontier, last=merkle.leaf_hash(victim.lines[-1][1][:-1]))
    victim.resign_head(new)
    return {"kinds": ("rewritten",), "within": 3, "file": "checkpoints.jsonl", "line": 1}


# Head and keys


def take_a_foreign_head(victim):
    shutil.copy(os.path.join(victim.foreign, "head"), victim.path("head"))
    return {"kinds": ("head",), "file": "head"}


def take_a_foreign_head_and_its_keys(victim):
    shutil.copy(os.path.join(victim.foreign, "head"), victim.path("head"))
    for name in os.listdir(victim.path("keys")):
        shutil.copy(os.path.join(victim.foreign, "keys", name), victim.path(f"keys/{name}"))
    return {"kinds": ("foreign",), "seq": 0}


def delete_the_head(victim):
    os.unlink(victim.path("head"))
    return {"kinds": ("head",), "file": "head"}


def truncate_the_head(victim):
    os.truncate(victim.path("head"), 4096)
    return {"kinds": ("head",), "file": "head"}


def zero_the_head(victim):
    with open(victim.path("head"), "wb") as file:
        file.write(bytes(8192))
    return {"kinds": ("head",), "file": "head"}


def lengthen_the_head(victim):
    with open(victim.path("head"), "ab") as file:
        file.write(b"\n")
    return {"kinds": ("head",), "file": "head"}


def change_the_key(victim):
    with open(victim.path("keys/epoch-000001.key"), "wb") as file:
        file.write(os.urandom(32))
    return {"kinds": ("head",), "file": "head"}


def shorten_the_key(victim):
    os.truncate(victim.path("keys/epoch-000001.key"), 31)
    return {"kinds": ("key",), "file": "keys/epoch-000001.key"}


def delete_the_key(victim):
    os.unlink(victim.path("keys/epoch-000001.key"))
    return {"kinds": ("key",), "file": "keys/epoch-000001.key"}


def exchange_the_public_key(victim):
    shutil.copy(os.path.join(victim.foreign, "keys/epoch-000001.pub"), victim.path("keys/epoch-000001.pub"))
    return {"kinds": ("key",), "file": "keys/epoch-000001.pub"}


# Beyond the head: what a crash looks like is not called tampering, and not passed either


def roll_the_head_back_one_step(victim):
    older = victim.heads()[0]
    if older.size == victim.size:
        raise NotApplicable
    victim.resign_head(older)
    return {"kinds": ("beyond head",), "error": NeedsRecovery, "seq": older.size}


def append_a_record_without_a_head(victim):
    last = victim.record(victim.size - 1)
    record = {**last, "seq": victim.size, "prev": merkle.leaf_hash(victim.lines[-1][1][:-1]).hex()}
    with open(victim.path(victim.segments[-1]), "ab") as file:
        file.write(encode(record) + b"\n")
    return {
        "kinds": ("beyond head",),
        "error": NeedsRecovery,
        "file": victim.segments[-1],
        "seq": victim.size,
    }


def append_half_a_line(victim):
    with open(victim.path(victim.segments[-1]), "ab") as file:
        file.write(b'{"boot_id":"')
    return {"kinds": ("beyond head",), "error": NeedsRecovery, "file": victim.segments[-1]}


def add_a_segment(victim):
    name = f"segment-{len(victim.segments) + 1:06d}.jsonl"
    shutil.copy(logs.segment(victim.foreign), victim.path(name))
    return {"kinds": ("beyond head",), "error": NeedsRecovery, "file": name}


def append_to_the_checkpoints(victim):
    with open(victim.path("checkpoints.jsonl"), "ab") as file:
        file.write(b"{}\n")
    return {"kinds": ("beyond head",), "error": NeedsRecovery, "file": "checkpoints.jsonl"}


def damage_the_spare_slot(victim):
    with open(victim.path("head"), "r+b") as file:
        slots = [file.read(4096), file.read(4096)]
        mac_key = keys.mac_key(victim.secret())
        newest = max((0, 1), key=lambda at: head.from_slot(slots[at], "", lambda _: mac_key).generation)
        file.seek(4096 * (1 - newest) + 10)
        file.write(b"?")
    return {"kinds": ("beyond head",), "error": NeedsRecovery, "file": "head"}


ATTACKS = [
    edit_the_first_record,
    edit_a_middle_record,
    edit_the_last_record,
    edit_three_records,
    edit_a_record_to_another_length,
    edit_a_records_number,
    edit_a_records_prev,
    edit_and_rehash_forward,
    overwrite_a_record_with_garbage,
    overwrite_a_newline,
    delete_the_first_record,
    delete_a_middle_record,
    delete_ten_records,
    delete_the_last_record,
    truncate_inside_the_last_record,
    truncate_at_a_checkpoint,
    delete_the_last_segment,
    empty_a_segment,
    swap_neighbours,
    move_a_record_to_the_end,
    move_a_late_record_forward,
    swap_segments,
    repeat_a_record,
    insert_a_forged_record,
    insert_an_empty_line,
    insert_a_gigantic_line,
    splice_from_another_log,
    splice_a_run_of_records_from_another_log,
    splice_from_another_segment,
    swap_checkpoints,
    delete_a_checkpoint,
    delete_the_checkpoints,
    forge_a_checkpoint,
    exchange_a_checkpoint_for_another_true_one,
    sign_another_root_with_the_current_key,
    edit_rehash_and_resign_the_head,
    take_a_foreign_head,
    take_a_foreign_head_and_its_keys,
    delete_the_head,
    truncate_the_head,
    zero_the_head,
    lengthen_the_head,
    change_the_key,
    shorten_the_key,
    delete_the_key,
    exchange_the_public_key,
    roll_the_head_back_one_step,
    append_a_record_without_a_head,
    append_half_a_line,
    add_a_segment,
    append_to_the_checkpoints,
    damage_the_spare_slot,
]
ATTACKS_BY_NAME = {attack.__name__: attack for attack in ATTACKS} | {
    f"delete_segment_{number}": delete_each_segment(number) for number in range(11)
}


def check(error, expected, context):
    fault = error.fault
    where = (context, error.message, fault)
    assert type(error) is expected.get("error", LogTampered), where
    assert error.code == 9, where
    assert fault.kind in expected["kinds"], where
    for field, name in (("first_seq", "seq"), ("last_seq", "last_seq"), ("file", "file"), ("line", "line")):
        if name in expected:
            assert getattr(fault, field) == expected[name], where
    if "within" in expected:
        assert fault.first_seq <= expected["within"] <= fault.last_seq, where
    if fault.line is not None:
        assert fault.file in error.message and str(fault.line) in error.message, where
