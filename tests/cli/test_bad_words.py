"""Wrong command lines get a message a person understands, the next step, and the right code."""

import subprocess
import sys

import pytest

ECHO = "from plugsec_plugins.guest import plugin\n@plugin.method\ndef go(**value):\n    return value\n"
LINES = {
    "an unknown command": (["rnu"], 2),
    "an unknown option": (["run", "p.plug", "--polcy", "x"], 2),
    "no bundle": (["run"], 2),
    "a limit without a value": (["run", "BUNDLE", "--limit", "wall_ms"], 2),
    "a limit that does not exist": (["run", "BUNDLE", "--limit", "walls=3"], 2),
    "a negative limit": (["run", "BUNDLE", "--limit", "wall_ms=-1"], 2),
    "a limit of zero": (["run", "BUNDLE", "--limit", "memory=0"], 2),
    "a limit beyond 2^63": (["run", "BUNDLE", "--limit", "wall_ms=9223372036854775808"], 2),
    "a limit that is not a number": (["run", "BUNDLE", "--limit", "wall_ms=NaN"], 2),
    "a parameter without a value": (["run", "BUNDLE", "--param", "x"], 2),
    "an input that is not there": (["run", "BUNDLE", "--input", "missing.json"], 2),
    "an input that is a directory": (["run", "BUNDLE", "--input", "."], 2),
    "an input file for a plugin that reads none": (["run", "BUNDLE", "--input-file", "a=/etc/hostname"], 2),
    "a policy that is not there": (["run", "BUNDLE", "--policy", "missing.toml"], 2),
    "a built-in policy that is not there": (["run", "BUNDLE", "--policy", "builtin:lax"], 2),
    "a degradation that the policy does not list": (["run", "BUNDLE", "--allow-degraded", "seccomp"], 1),
    "a bundle that is a directory": (["run", "."], 4),
    "a bundle that is a device": (["run", "/dev/zero"], 4),
    "verify of nothing": (["verify", "missing.plug"], 2),
    "inspect of a text": (["inspect", "/etc/hostname"], 4),
    "pack of nothing": (["pack", "missing"], 2),
    "sign without a key": (["sign", "BUNDLE"], 2),
    "sign with a missing key": (["sign", "BUNDLE", "--key", "missing"], 2),
    "trust in a missing key": (["trust", "add", "missing.pub", "--publisher", "acme"], 2),
    "trust removed that is not there": (["trust", "remove", "nobody"], 2),
    "a scaffold without a publisher": (["new", "wordfreq"], 2),
    "a scaffold of an unknown kind": (["new", "acme/x", "--runtime", "cobol"], 2),
    "a receipt that is not there": (["receipt", "verify", "missing"], 2),
    "a policy lint of nothing": (["policy", "lint", "missing.toml"], 2),
}


@pytest.mark.parametrize("case", LINES)
def test_a_wrong_line_gets_its_code_and_words(cli, home, case) -> None:
    line, code = LINES[case]
    bundle = home.bundle({"main.py": ECHO}) if "BUNDLE" in line else ""
    ended = cli(*[bundle if word == "BUNDLE" else word for word in line])
    assert ended.returncode == code, ended.stderr
    assert ended.stderr.strip()
    assert ended.stdout == ""


@pytest.mark.parametrize(
    "command", ["run", "new", "keygen", "pack", "sign", "verify", "inspect", "doctor", "demo"]
)
def test_help_has_examples(cli, command) -> None:
    ended = cli(command, "--help")
    assert ended.returncode == 0
    assert "Examples" in ended.stdout
    assert f"plugsec {command}" in ended.stdout


def test_version(cli) -> None:
    for words in (["version"], ["--version"]):
        assert cli(*words).stdout.startswith("plugsec 0.")


def test_a_failed_run_leaves_no_output(cli, home) -> None:
    write = [{"name": "fs.write", "paths": ["$OUTPUT"], "reason": "writes"}]
    code = "import os\nfrom plugsec_plugins.guest import plugin\n@plugin.method\ndef go():\n    open(os.environ['OUTPUT'] + '/x', 'w').write('y')\n    1 / 0\n"
    ended = cli(
        "run", home.bundle({"main.py": code}, permissions=write), "--output-dir", "out", "--receipt", "r"
    )
    assert ended.returncode == 6
    assert not (home.root / "out").exists()


def test_elsewhere_than_on_linux_a_run_is_one_clear_refusal(monkeypatch, capsys, home) -> None:
    import sys
    from types import SimpleNamespace

    from plugsec import __main__
    from plugsec.cli import app

    def on_macos(*arguments: str) -> int:
        elsewhere = SimpleNamespace(
            platform="darwin",
            argv=["plugsec", *arguments],
            stdin=sys.stdin,
            stdout=sys.stdout,
            stderr=sys.stderr,
        )
        monkeypatch.setattr(__main__, "sys", elsewhere)
        monkeypatch.setattr(app, "sys", elsewhere)
        with pytest.raises(SystemExit) as left:
            __main__.main()
        return int(left.value.code or 0)

    assert on_macos("run", "p.plug") == 8
    assert "PLG-HOST-003" in capsys.readouterr().err
    assert on_macos("inspect", home.bundle({"main.py": ECHO})) == 0
    assert "acme/test" in capsys.readouterr().out


def test_a_working_directory_that_is_gone_is_no_defect(cli, home, tmp_path) -> None:
    gone = tmp_path / "gone"
    for bundle, code in ((home.bundle({"main.py": ECHO}), 0), ("relative.plug", 2)):
        gone.mkdir()
        cli.directory = gone
        script = f'import os, sys; os.rmdir("{gone}"); sys.argv = ["plugsec", "run", "{bundle}"]\n'
        script += "from plugsec.__main__ import main; main()"
        ended = subprocess.run(
            [sys.executable, "-c", script],
            cwd=gone,
            env=cli.environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert ended.returncode == code, ended.stderr
        assert "defect" not in ended.stderr
