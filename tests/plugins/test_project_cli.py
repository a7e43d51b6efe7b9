"""`plugsec new` and `plugsec pack` as people and scripts use them."""

import json
import os
import subprocess
import sys

import pytest


@pytest.fixture
def cli(tmp_path):
    """Run plugsec in an empty directory."""
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "PLUGSEC_HOME": str(tmp_path / "home"),
        "NO_COLOR": "1",
    }
    directory = tmp_path / "work"
    directory.mkdir()

    def run(*arguments):
        return subprocess.run(
            [sys.executable, "-m", "plugsec", *arguments],
            cwd=directory,
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    run.directory = directory
    return run


def test_new_then_pack_gives_a_bundle_and_prints_its_path_and_id(cli):
    made = cli("new", "acme/wordfreq")
    assert made.returncode == 0
    assert made.stdout == ""
    assert "plugsec pack wordfreq" in made.stderr
    packed = cli("pack", "wordfreq")
    assert packed.returncode == 0
    path, bundle_id = packed.stdout.split()
    assert path == "wordfreq-0.1.0.plug"
    assert bundle_id.startswith("sha256:")
    assert (cli.directory / path).is_file()


def test_json_puts_one_object_on_stdout_and_nothing_else(cli):
    made = json.loads(cli("new", "acme/measure", "--runtime", "exec", "--json").stdout)
    assert made["directory"] == "measure"
    packed = cli("pack", "measure", "-o", "out.plug", "--json")
    report = json.loads(packed.stdout)
    assert (report["path"], report["warnings"]) == ("out.plug", [])
    assert packed.stderr == ""


def test_the_commands_that_new_proposes_can_be_typed(cli):
    steps = json.loads(cli("new", "acme/wordfreq", "--json").stdout)["next"]
    assert [step.split()[0:2] for step in steps] == [
        ["python", "-m"],
        ["plugsec", "pack"],
        ["plugsec", "run"],
    ]
    assert cli(*steps[1].split()[1:]).returncode == 0


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("new", "wordfreq"), 2, "publisher/plugin"),
        (("new", "acme/x", "--runtime", "perl"), 2, "no scaffold"),
        (("new",), 2, "NAME"),
        (("pack", "nowhere"), 2, "cannot be read"),
        (("pack",), 2, "DIR"),
    ],
)
def test_a_mistake_is_answered_with_the_right_code_and_a_sentence(cli, arguments, code, words):
    done = cli(*arguments)
    assert done.returncode == code
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_a_refusal_with_json_is_an_object_too(cli):
    cli("new", "acme/wordfreq")
    (cli.directory / "wordfreq" / "id_rsa").write_text("x")
    done = cli("pack", "wordfreq", "--json")
    assert done.returncode == 4
    report = json.loads(done.stdout)
    assert report["error"]["id"] == "PLG-PCK-002"
    assert list(cli.directory.iterdir()) == [cli.directory / "wordfreq"]


def test_a_hostile_name_cannot_write_to_the_terminal(cli):
    cli("new", "acme/wordfreq")
    (cli.directory / "wordfreq" / "\x1b]0;owned\x07").write_text("x")
    done = cli("pack", "wordfreq")
    assert done.returncode == 4
    assert "\x1b" not in done.stderr
    assert "\x07" not in done.stderr


@pytest.mark.parametrize("command", ["new", "pack"])
def test_help_shows_examples(cli, command):
    assert f"plugsec {command} wordfreq" in cli(command, "--help").stdout.replace("acme/", "")
