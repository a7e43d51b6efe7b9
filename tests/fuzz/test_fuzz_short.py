"""A few thousand of the examples of `make fuzz`: nothing is raised but refusals, and examples can be had again."""

import pytest

from fuzz.run import example, tried
from fuzz.targets import TARGETS, Target

EXAMPLES = 6000


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_a_reader_raises_nothing_but_refusals(target: Target):
    counts = {"read": 0, "refused": 0}
    for number in range(EXAMPLES * target.share // 100):
        counts[tried(target, example(target, 0, number))] += 1
    assert counts["refused"] > EXAMPLES * target.share // 1000  # the mutations do spoil something


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_the_seeds_themselves_are_read(target: Target):
    for seed in target.seeds:
        assert tried(target, seed) == "read"


def test_an_example_is_the_same_every_time():
    for target in TARGETS:
        assert [example(target, 7, n) for n in range(20)] == [example(target, 7, n) for n in range(20)]
