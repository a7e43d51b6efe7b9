"""Every error id has a page of its own, and `plugsec explain` prints it."""

import ast
import functools
import json
import os
import re

import pytest
import typer.main

import plugsec
import plugsec_plugins
import plugsec_policies
import plugsec_signing
from plugsec import errors
from plugsec.audit import errors as audit_errors
from plugsec.cli import app, explain
from plugsec.exchange import collect
from plugsec.sandbox import build, granted
from plugsec_plugins.runtimes import exec as exec_runtime

ROOMS = [
    os.path.dirname(os.path.abspath(str(room.__file__)))
    for room in (plugsec, plugsec_plugins, plugsec_policies, plugsec_signing)
]
# The names of the limits as the exit codes' table has them; their ids are put together from these numbers.
LIMITS = {
    "wall": 101,
    "cpu": 102,
    "memory": 103,
    "processes": 104,
    "output": 105,
    "files": 106,
    "denials": 107,
}
NO_REFUSAL = {
    "PLG-GEN-000": "what the root classes have, and no refusal",
    "PLG-LIM-003": "a check of the gate, in the hint of a message",
}
assert audit_errors and collect and build and granted and exec_runtime  # their classes are looked at below


def sources():
    for room in ROOMS:
        for directory, _, names in os.walk(room):
            for name in names:
                if name.endswith(".py"):
                    with open(os.path.join(directory, name), encoding="utf-8") as file:
                        yield file.read()


def used_ids() -> set[str]:
    found = {each for text in sources() for each in re.findall(r"PLG-[A-Z]{2,5}-\d{3}", text)}
    return (found | {f"PLG-LIM-{number}" for number in LIMITS.values()}) - NO_REFUSAL.keys()


def classes() -> dict[str, type]:
    found, level = {}, list(errors.REFUSALS)
    while level:
        level = [each for parent in level for each in parent.__subclasses__()]
        found.update({each.__name__: each for each in level})
    return found | {each.__name__: each for each in errors.REFUSALS}


@functools.cache
def codes_in_the_source() -> dict[str, set[int]]:
    """Which exit codes the code raises an id with, where that can be read off it."""
    known = classes()
    found: dict[str, set[int]] = {}
    for each in known.values():
        found.setdefault(each.id, set()).add(each.code)
    for text in sources():
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in known:
                for keyword in node.keywords:
                    if keyword.arg == "id" and isinstance(keyword.value, ast.Constant):
                        found.setdefault(keyword.value.value, set()).add(known[node.func.id].code)
    return found


def test_every_id_has_a_page_and_every_page_an_id():
    assert set(explain.page_ids()) == used_ids()


@pytest.mark.parametrize("error_id", explain.page_ids())
def test_a_page_says_all_there_is_to_say(error_id):
    page = explain.read_page(error_id)
    assert page.id == error_id
    assert page.code in codes_in_the_source().get(error_id, {page.code})
    assert all(14 < len(text) < 700 for text in (page.happened, page.why))
    assert len(page.next) > 5
    assert page.example.startswith(("$ ", "PLUGSEC_HOME"))
    assert "plugsec" in page.example


def test_each_limit_has_the_page_of_its_name():
    for name, number in LIMITS.items():
        assert f"`{name}`" in explain.read_page(f"PLG-LIM-{number}").title


@functools.cache
def commands() -> dict:
    return typer.main.get_command(app.build()).commands


def test_the_commands_of_the_examples_exist():
    known = commands()
    for error_id in explain.page_ids():
        page = explain.read_page(error_id)
        shown = re.findall(
            r"(?:\$ |`)plugsec ([a-z]+)(?: ([a-z]+))?(?=[ `\n]|$)", page.example + "\n" + page.next
        )
        for command, second in shown:
            assert command in known, (error_id, command)
            if second and hasattr(known[command], "commands"):
                assert second in known[command].commands, (error_id, command, second)


def test_explain_prints_the_page(cli):
    done = cli("explain", "plg-bnd-007")
    assert done.returncode == 0
    assert done.stdout.startswith("PLG-BND-007: The entries under PLUGSEC/ are not in order")
    assert "what to do:" in done.stdout and "[PLG-BND-007]" in done.stdout
    page = json.loads(cli("explain", "PLG-BND-007", "--json").stdout)["page"]
    assert (page["id"], page["code"]) == ("PLG-BND-007", 4)


def test_explain_lists_all_ids(cli):
    lines = cli("explain", "--list").stdout.splitlines()
    assert [line.split()[0] for line in lines] == explain.page_ids()
    assert len(json.loads(cli("explain", "--list", "--json").stdout)["pages"]) == len(lines)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("PLG-BMD-007",), "did you mean PLG-BND-007?"),
        (("PLG-QQQQQQQ-999",), "--list shows all"),
        (("wordfreq.plug",), "is not an error id"),
        ((), "give an error id"),
        (("PLG-BND-007", "--list"), "give an error id"),
    ],
)
def test_an_unknown_id_is_a_usage_error_with_a_hint(cli, arguments, words):
    done = cli("explain", *arguments)
    assert done.returncode == 2
    assert words in done.stderr
