"""What an attack of the table is, and how a batch of them tells what came of each.

Attacks that do not disturb each other are tried in one jail. A batch says for each attack how it ended,
judged from outside wherever something outside can tell; `judge` compares that with the table.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from kit.home import Home
from plugsec.outcome import Outcome

BUNDLE, TRUST, ESCAPE, AUDIT = FAMILIES = (
    "bundle and manifest",
    "signature, trust, state",
    "escape and abuse",
    "audit",
)
STOPPED, SKIPPED, ESCAPED = "stopped", "skipped", "ESCAPED"
_MISSING = re.compile(r"cannot enforce the layer ([a-z-]+)")
_SAID_CHARS = 300  # of what an attack ended with instead


class Attack(NamedTuple):
    """`ending` is how it has to end, `seen` is where that is observed, `layers` stop it, the first one first.

    Without layers it is a check of plugsec's own that stops it, in the supervisor.
    """

    name: str
    family: str
    ending: str
    seen: str
    layers: tuple[str, ...] = ()


class Scene(NamedTuple):
    """Where a batch plays: a home with a trusted publisher, scratch space, and the host's active layers.

    `missing` are those that builtin:strict requires and the host lacks: nothing is started there.
    """

    home: Home
    directory: Path
    layers: frozenset[str]
    missing: tuple[str, ...] = ()


class Batch(NamedTuple):
    """`play` tries all attacks and returns each one's ending by its name; `jailed`: it starts plugins."""

    name: str
    attacks: tuple[Attack, ...]
    play: Callable[[Scene], Mapping[str, str]]
    jailed: bool = True


class Verdict(NamedTuple):
    """What came of an attack: stopped, skipped (`detail` names the layer) or ESCAPED (how it ended)."""

    attack: Attack
    outcome: str
    detail: str


class LayerMissing(Exception):
    """A run was refused because this host lacks a layer; the message is the layer's name."""


def started(outcome: Outcome) -> Outcome:
    """The outcome of a run that was started; raises LayerMissing where the host could not."""
    if outcome.code == 8:
        message = outcome.error.message if outcome.error else ""
        found = _MISSING.search(message)
        raise LayerMissing(found[1] if found else message)
    return outcome


def judge(batch: Batch, scene: Scene) -> list[Verdict]:
    """Play a batch and compare; whatever goes wrong in it is an escape of all its attacks."""
    if batch.jailed and scene.missing:
        return [Verdict(attack, SKIPPED, scene.missing[0]) for attack in batch.attacks]
    lacking = {attack.name: skip for attack in batch.attacks if (skip := lacks(attack, scene.layers))}
    if len(lacking) == len(batch.attacks):
        return [Verdict(attack, SKIPPED, lacking[attack.name]) for attack in batch.attacks]
    try:
        endings = batch.play(scene)
    except LayerMissing as missing:
        layer = str(missing)
        outcome = ESCAPED if layer in scene.layers else SKIPPED
        return [Verdict(attack, outcome, layer) for attack in batch.attacks]
    except Exception as error:
        said = f"{type(error).__name__}: {error}"[:_SAID_CHARS]
        return [Verdict(attack, ESCAPED, said) for attack in batch.attacks]
    verdicts = []
    for attack in batch.attacks:
        ending = endings.get(attack.name, "it was not tried")
        if attack.name in lacking:
            verdicts.append(Verdict(attack, SKIPPED, lacking[attack.name]))
        elif ending == attack.ending:
            verdicts.append(Verdict(attack, STOPPED, ending))
        else:
            verdicts.append(Verdict(attack, ESCAPED, ending[:_SAID_CHARS]))
    return verdicts


def lacks(attack: Attack, layers: Iterable[str]) -> str:
    """The layer for want of which this attack cannot be stopped on a host, empty where one is there."""
    return attack.layers[0] if attack.layers and not set(attack.layers) & set(layers) else ""
