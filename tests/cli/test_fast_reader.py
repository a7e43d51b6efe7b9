"""The fast reader and Typer read the same command lines the same way, or the fast one steps aside."""

from typing import Any

import typer
from hypothesis import given, settings
from hypothesis import strategies as st

from plugsec.cli import fast, run
from plugsec.cli.declaration import FLAG, ONE, RUN_OPTIONS


def command() -> Any:
    app = typer.Typer()
    run.register(app)
    return typer.main.get_command(app)


COMMAND = command()
VALUES = st.sampled_from(["", "-", "a", "a=b", "K=V=W", "--json", "-x", "x y", "=", "é", "--", "1"])
FLAGS = st.sampled_from([option.flag for option in RUN_OPTIONS] + ["--nope", "-h", "--help", "-v", "-q"])
TOKENS = st.one_of(VALUES, FLAGS, st.builds(lambda flag, value: f"{flag}={value}", FLAGS, VALUES))


def by_typer(tokens: list[str]) -> dict[str, Any]:
    context = COMMAND.make_context("run", list(tokens))
    values = dict(context.params)
    for option in RUN_OPTIONS:
        if option.kind not in {FLAG, ONE}:
            values[option.name] = list(values[option.name] or [])
    return {name: values[name] for name in fast.empty()}


@settings(max_examples=1500, deadline=None)
@given(st.lists(TOKENS, max_size=7))
def test_what_the_fast_reader_accepts_typer_reads_the_same(tokens: list[str]) -> None:
    values = fast.read(tokens)
    if values is not None:
        assert values == by_typer(tokens)


def test_an_ordinary_line_takes_the_fast_way() -> None:
    tokens = "p.plug count --input - --param k=v --limit wall_ms=5 --policy=a --policy b --json".split()
    values = fast.read(tokens)
    assert values is not None
    assert values["policy"] == ["a", "b"]
    assert values == by_typer(tokens)


def test_what_it_does_not_know_is_left_to_typer() -> None:
    for tokens in (["--help"], ["p", "--nope"], ["p", "--input"], ["p", "m", "x"], [], ["p", "--", "m"]):
        assert fast.read(tokens) is None
