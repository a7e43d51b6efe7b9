"""A log that somebody edited: `plugsec audit verify` leaves with 9 and names the first place that is wrong.

The ways are those of tests/audit, each on a copy of a log of 70 records, in one segment or in several: some
need more than one. What only an anchor shows, and what hostile text does to the log, comes after them.
"""

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import logs
import signing_kit as kit
import tampering

from catalogue.bundles import Verifier
from catalogue.interface import AUDIT, Attack, Batch, Scene
from kit.command import command_line
from plugsec.audit.log import AuditLog

_RECORDS = 70  # a checkpoint covers the first 64
_NAMED = "exit 9, the place is named"
_WAYS = {
    name: attack
    for name, attack in tampering.ATTACKS_BY_NAME.items()
    # A log of 70 records has two segments of these sizes, and one checkpoint.
    if name not in {"swap_checkpoints", *(f"delete_segment_{number}" for number in range(2, 11))}
}
_FIELDS = (("first_seq", "seq"), ("last_seq", "last_seq"), ("file", "file"), ("line", "line"))


def _tampered(scene: Scene) -> Mapping[str, str]:
    command, endings = command_line(), {}
    base = scene.directory / f"logs-{len(os.listdir(scene.directory))}"
    base.mkdir()
    foreign = logs.write(base / "foreign", _RECORDS + 30)
    sound = {
        "one segment": logs.write(base / "one segment", _RECORDS),
        "rotated": logs.write(base / "rotated", _RECORDS, segment_bytes=logs.SMALL_SEGMENT),
    }
    for path in sound.values():
        assert command("audit", "verify", "--json", "--audit", path).code == 0
    for name, attack in _WAYS.items():
        for path in sound.values():
            copy = logs.copy(path, base / "copy")
            try:
                expected = attack(tampering.Victim(copy, foreign))
            except tampering.NotApplicable:
                continue
            else:
                said = command("audit", "verify", "--json", "--audit", copy)
                endings[_sentence(name)] = (
                    _NAMED if said.code == 9 and _fits(said.value, expected) else repr(said)
                )
            finally:
                shutil.rmtree(copy)
            break
    return endings


def _fits(said: dict[str, Any], expected: Mapping[str, Any]) -> bool:
    fault = said["fault"]
    if fault["kind"] not in expected["kinds"]:
        return False
    if "within" in expected and not fault["first_seq"] <= expected["within"] <= fault["last_seq"]:
        return False
    return all(fault[field] == expected[name] for field, name in _FIELDS if name in expected)


def _anchored(scene: Scene) -> Mapping[str, str]:
    """A fork of history, and an older log in its place, verify by themselves: a checkpoint kept elsewhere tells."""
    base = scene.directory / f"anchored-{len(os.listdir(scene.directory))}"
    base.mkdir()
    log, older, fork = (str(base / name) for name in ("log", "older", "fork"))
    logs.write(log, 20)
    for other in (older, fork):
        shutil.copytree(log, other)
    logs.write(log, 40)
    with AuditLog.open(log) as opened:
        (base / "anchor.note").write_bytes(opened.checkpoint())
    logs.write(fork, 45)
    command, anchor = command_line(), ("--anchor", str(base / "anchor.note"))
    endings = {}
    for name, path, kind in ((_FORKED, fork, "rewritten"), (_ROLLED_BACK, older, "rolled back")):
        said = command("audit", "verify", "--json", "--audit", path, *anchor)
        endings[name] = _NAMED if said.code == 9 and said.value["fault"]["kind"] == kind else repr(said)
    return endings


def _hostile_text(scene: Scene) -> Mapping[str, str]:
    """The name of a bundle's file comes from a stranger and goes into the record of its refusal."""
    directory = scene.directory / f"names-{len(os.listdir(scene.directory))}"
    verifier = Verifier(directory)
    name = '\x1b[2Ja\n{"event":"run.end","decision":"verified"}\r\u202e.plug'
    path = directory / name
    path.write_bytes(kit.pack(signers=()))
    command = command_line()
    command("verify", str(path), "--home", str(verifier.home))
    segment = next(Path(verifier.home).rglob("segment-*.jsonl"))
    lines = segment.read_bytes().split(b"\n")[:-1]
    events = [json.loads(line)["event"] for line in lines]
    raw = [byte for byte in segment.read_bytes() if byte < 0x20 and byte != 0x0A]
    shown = command("audit", "show", "--home", str(verifier.home)).stdout
    obeyed = sorted({c for c in shown if c != "\n" and not c.isprintable()})
    verified = command("audit", "verify", "--home", str(verifier.home)).code
    forged = events != ["log.created", "bundle.refused"] or raw
    return {
        _INJECTED: f"{events} {raw}" if forged or verified else "one record more",
        _DISPLAYED: f"{obeyed}" if obeyed or shown.count("\n") != len(events) else "escaped",
    }


def _moved(scene: Scene) -> Mapping[str, str]:
    """A log that is a link leads nowhere: what would be written through it stays as it was."""
    base = scene.directory / f"moved-{len(os.listdir(scene.directory))}"
    base.mkdir()
    victim = base / "victim"
    victim.write_text("precious")
    home = base / "home"
    verifier = Verifier(home)
    verifier(kit.pack())
    segment = next(home.rglob("segment-*.jsonl"))
    segment.unlink()
    segment.symlink_to(victim)
    said = command_line()("verify", str(home / "wordfreq-1.2.3.plug"), "--json", "--home", str(home))
    return {
        _LINKED: f"exit {said.code}" if victim.read_text() == "precious" else "the file behind it changed"
    }


def _sentence(name: str) -> str:
    return "tampered log: " + name.replace("_", " ")


_FORKED, _ROLLED_BACK = (
    "a fork of history is seen by an anchor",
    "an older log in its place is seen by an anchor",
)
_INJECTED = "a newline in a name makes no record"
_DISPLAYED = "control sequences in a record are shown, not obeyed"
_LINKED = "a log that is a link is not written through"
_SEEN = "plugsec audit verify"
BATCHES = (
    Batch(
        "tampered logs",
        tuple(Attack(_sentence(name), AUDIT, _NAMED, _SEEN) for name in _WAYS),
        _tampered,
        jailed=False,
    ),
    Batch(
        "other histories",
        (Attack(_FORKED, AUDIT, _NAMED, _SEEN), Attack(_ROLLED_BACK, AUDIT, _NAMED, _SEEN)),
        _anchored,
        jailed=False,
    ),
    Batch(
        "hostile text in the log",
        (
            Attack(_INJECTED, AUDIT, "one record more", "the log's own bytes"),
            Attack(_DISPLAYED, AUDIT, "escaped", "the bytes that plugsec audit show prints"),
        ),
        _hostile_text,
        jailed=False,
    ),
    Batch(
        "a log that is a link",
        (Attack(_LINKED, AUDIT, "exit 9", "the file behind it"),),
        _moved,
        jailed=False,
    ),
)
