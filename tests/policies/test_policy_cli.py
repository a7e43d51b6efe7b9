"""`plugsec policy show` and `plugsec policy lint` as people and scripts use them."""

import json
import os
import subprocess
import sys

import policies_kit as kit
import pytest

from plugsec_policies.policy import BUILTINS, Policy, builtin, parse_policy_toml


@pytest.fixture
def cli(tmp_path):
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "NO_COLOR": "1",
    }

    def run(*arguments):
        return subprocess.run(
            [sys.executable, "-m", "plugsec", "policy", *arguments],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    run.directory = tmp_path
    return run


@pytest.mark.parametrize("name", BUILTINS)
def test_what_is_shown_is_a_policy_of_the_same_meaning(cli, name):
    shown = cli("show", f"builtin:{name}")
    assert shown.returncode == 0
    again = Policy.from_plain(parse_policy_toml(shown.stdout, where="again.toml"))
    assert again.digest == builtin(name).digest


def test_everything_that_a_policy_can_say_is_shown(cli):
    text = (
        kit.HEAD
        + """
        [[grant]]
        id = "g"
        plugins = ["acme/*"]
        signed_by = ["release"]
        expires = 2027-06-30
        net = ["any:443"]
        fs.read = ["/srv", { path = "/opt", access = "rox" }]
        events = { publish = ["a"] }
        [[deny]]
        id = "d"
        plugins = ["*"]
        process = true
        [[check]]
        id = "PLG-LIM-003"
        severity = "error"
        parameters = { most = 3 }
        [[waiver]]
        check = "PLG-LIM-003"
        plugin = "acme/x"
        versions = "<2"
        approved_by = "security"
        reason = 'says "yes"'
        expires = 2027-06-30
    """
    )
    (cli.directory / "p.toml").write_text(text)
    shown = cli("show", "p.toml").stdout
    again = Policy.from_plain(parse_policy_toml(shown, where="again.toml"))
    assert again.digest == Policy.from_plain(parse_policy_toml(text, where="p.toml")).digest
    assert "expires = 2027-06-30" in shown


def test_the_default_policy_is_shown_when_none_is_named(cli):
    report = json.loads(cli("show", "--json").stdout)
    assert report["where"] == "builtin:strict"
    assert report["digest"] == builtin("strict").digest


def test_a_good_file_passes_lint(cli):
    (cli.directory / "p.toml").write_text(kit.HEAD)
    done = cli("lint", "p.toml")
    assert done.returncode == 0
    assert done.stderr == "1 file, 0 errors, 0 warnings\n"


def test_every_mistake_is_told_and_the_code_says_so(cli):
    (cli.directory / "p.toml").write_text(
        kit.HEAD + '[limits]\nwal_ms = 1\n[[grant]]\nid = "a"\nplugins = ["*"]\nevn = []\n'
    )
    done = cli("lint", "p.toml")
    assert done.returncode == 4
    assert "p.toml:3: error: there is no limit called wal_ms (did you mean wall_ms?)" in done.stderr
    assert "p.toml:7: error: there is no permission or field called evn (did you mean env?)" in done.stderr
    report = json.loads(cli("lint", "p.toml", "--json").stdout)
    assert [each["where"] for each in report["errors"]] == ["p.toml:3", "p.toml:7"]


def test_a_line_without_effect_is_a_warning(cli):
    (cli.directory / "p.toml").write_text(
        kit.HEAD + 'extends = ["builtin:strict"]\n[limits]\nwall_ms = 60000\n'
    )
    done = cli("lint", "p.toml")
    assert done.returncode == 0
    assert (
        "p.toml:4: warning: wall_ms = 60000 has no effect, builtin:strict:12 says wall_ms = 30000"
        in done.stderr
    )


def test_a_missing_file_is_a_usage_error(cli):
    done = cli("lint", "none.toml")
    assert done.returncode == 2
    assert "cannot be read" in done.stderr
    assert cli("show", "none.toml").returncode == 2
    assert json.loads(cli("show", "none.toml", "--json").stdout)["error"]["id"] == "PLG-POL-003"


def test_hostile_text_cannot_write_to_the_terminal(cli):
    (cli.directory / "p.toml").write_text(kit.HEAD + '"\\u001b]0;owned\\u0007" = 1\n')
    done = cli("lint", "p.toml")
    assert done.returncode == 4
    assert "\x1b" not in done.stderr


@pytest.mark.parametrize("command", ["show", "lint"])
def test_help_shows_examples(cli, command):
    assert f"plugsec policy {command} company.toml" in cli(command, "--help").stdout
