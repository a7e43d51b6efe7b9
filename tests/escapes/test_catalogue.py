"""Every attack of the catalogue, on this host: one test each; a batch is played once, for all of its attacks."""

import pytest
from catalogue import host
from catalogue.interface import ESCAPED, FAMILIES, SKIPPED, Attack, Batch, Scene, Verdict, judge
from catalogue.table import ATTACKS, BATCHES

from plugsec.sandbox.layers import NAMES

_LEAST = 60  # what the project promises, over all lists


class _Stage:
    """Plays each batch when the first of its attacks is asked for."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self._verdicts: dict[str, dict[str, Verdict]] = {}

    def verdict(self, batch: Batch, attack: Attack) -> Verdict:
        if batch.name not in self._verdicts:
            verdicts = judge(batch, self.scene)
            self._verdicts[batch.name] = {verdict.attack.name: verdict for verdict in verdicts}
        return self._verdicts[batch.name][attack.name]


@pytest.fixture(scope="session")
def stage(tmp_path_factory: pytest.TempPathFactory, layers: host.Layers) -> _Stage:
    """One home for all of them, on this host."""
    return _Stage(host.scene(tmp_path_factory.mktemp("catalogue"), layers))


@pytest.mark.parametrize(
    ("batch", "attack"),
    [pytest.param(batch, attack, id=attack.name) for batch in BATCHES for attack in batch.attacks],
)
def test_stopped(batch: Batch, attack: Attack, stage: _Stage) -> None:
    """It ends as the table says."""
    verdict = stage.verdict(batch, attack)
    if verdict.outcome == SKIPPED:
        assert verdict.detail not in stage.scene.layers
        pytest.skip(f"{verdict.detail}: this host lacks the layer")
    assert verdict.outcome != ESCAPED, f"expected {attack.ending}, got {verdict.detail}"


def test_the_table_covers_every_list() -> None:
    """At least sixty in all, some of each list, no name twice."""
    assert len(ATTACKS) >= _LEAST
    assert len({attack.name for attack in ATTACKS}) == len(ATTACKS)
    assert {attack.family for attack in ATTACKS} == set(FAMILIES)


def test_the_layers_of_the_table_are_layers() -> None:
    """By the names that `plugsec doctor` gives them."""
    assert {layer for attack in ATTACKS for layer in attack.layers} <= set(NAMES)
