"""Try every attack of the catalogue on this host: a plain program, for hosts with nothing but plugsec.

    run_catalogue.py [--host NAME] [WORD…]     only batches whose name holds a WORD

Says which layers the host has, then one line for each attack: stopped, skipped with the layer that this
host lacks, or ESCAPED with what came of it. The last line but one is a JSON summary. Exit status 0 when
nothing escaped and nothing was skipped but for want of a layer.
"""

import json
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), *(str(HERE.parent / room) for room in ("", "signing", "audit"))]

from catalogue import host  # noqa: E402 - the rooms have to be on the path first
from catalogue.interface import (  # noqa: E402
    ESCAPE,
    ESCAPED,
    SKIPPED,
    STOPPED,
    Attack,
    Batch,
    LayerMissing,
    Scene,
    Verdict,
    judge,
    started,
)
from catalogue.table import BATCHES  # noqa: E402

from kit.command import command_line  # noqa: E402
from kit.outside import host_mounts  # noqa: E402

_NOTHING_STARTS = "without a layer that builtin:strict requires, nothing is started"
_LOG = "after all that, the log verifies"
_MOUNTS = "after all that, the host has no mount more"


def main(words: list[str]) -> int:
    """Play the table, print the verdicts; the exit status."""
    name = words.pop(words.index("--host") + 1) if "--host" in words else "here"
    wanted = [word for word in words if word != "--host"]
    found = host.layers()
    print(f"layers: {', '.join(found.active)}")
    print(f"lacks: {', '.join(found.inactive) or 'nothing'}", flush=True)
    verdicts, mounts = [], host_mounts()
    with tempfile.TemporaryDirectory(prefix="plugsec attacks ", dir="/var/tmp") as directory:
        scene = host.scene(Path(directory), found)
        for batch in (*_first(scene), *BATCHES):
            if wanted and not any(word in batch.name for word in wanted):
                continue
            began = time.monotonic()
            played = judge(batch, scene)
            verdicts += played
            for verdict in played:
                print(_line(verdict, scene))
            if len(played) > 1:
                print(f"          {batch.name}: {time.monotonic() - began:.1f} s", flush=True)
        verdicts += _afterwards(scene, mounts)
    for verdict in verdicts[-2:]:
        print(_line(verdict, scene))
    return _close(name, found, verdicts)


def _first(scene: Scene) -> list[Batch]:
    """On a host that cannot start anything, that is the one expectation about jails."""
    if not scene.missing:
        return []
    attack = Attack(_NOTHING_STARTS, ESCAPE, "exit 8, the layer is named", "the outcome")

    def play(scene: Scene) -> dict[str, str]:
        outcome = scene.home.attack("@plugin.method\ndef go(): return 'it ran'\n")
        try:
            started(outcome)
        except LayerMissing as missing:
            named = str(missing) in scene.missing
            return {_NOTHING_STARTS: attack.ending if named else f"another layer is named: {missing}"}
        return {_NOTHING_STARTS: repr(outcome)}

    return [Batch("what cannot start", (attack,), play, jailed=False)]


def _afterwards(scene: Scene, mounts: int) -> list[Verdict]:
    said = command_line()("audit", "verify", "--home", str(scene.home.home))
    log = Attack(_LOG, "audit", "exit 0", "plugsec audit verify")
    tree = Attack(_MOUNTS, ESCAPE, f"{mounts} mounts", "/proc/self/mountinfo")
    endings = {log: f"exit {said.code}", tree: f"{host_mounts()} mounts"}
    return [Verdict(a, STOPPED if ending == a.ending else ESCAPED, ending) for a, ending in endings.items()]


def _line(verdict: Verdict, scene: Scene) -> str:
    attack = verdict.attack
    if verdict.outcome == STOPPED:
        by = f"; {', '.join(attack.layers)}" if attack.layers else ""
        return f"stopped   {attack.name} ({verdict.detail}{by})"
    if verdict.outcome == SKIPPED:
        return f"skipped   {attack.name} (needs layer {verdict.detail}, which this host lacks)"
    return f"ESCAPED   {attack.name} (expected {attack.ending}, got {verdict.detail})"


def _close(name: str, found: host.Layers, verdicts: list[Verdict]) -> int:
    counts = {word: sum(v.outcome == word for v in verdicts) for word in (STOPPED, SKIPPED, ESCAPED)}
    summary = {
        "host": name,
        "active": found.active,
        "inactive": found.inactive,
        "attacks": {verdict.attack.name: verdict.outcome for verdict in verdicts},
    }
    print("summary: " + json.dumps(summary, separators=(",", ":")))
    # A layer that the host has is no reason to skip; `judge` never does, this is what holds it to that.
    wrongly = [v.attack.name for v in verdicts if v.outcome == SKIPPED and v.detail in found.active]
    for skip in wrongly:
        print(f"ESCAPED   {skip} was skipped for a layer that this host has")
    print(f"{counts[STOPPED]} stopped, {counts[SKIPPED]} skipped, {counts[ESCAPED] + len(wrongly)} escaped")
    return 1 if counts[ESCAPED] or wrongly or not counts[STOPPED] else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
