"""The store as a user meets it: installed, listed, run by name, rolled back, removed; and what is recorded."""

import hashlib
import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
from test_hot_path import PROBE

from plugsec_signing import bundle, canonical, keys, sshsig

CODE = "from plugsec_plugins.guest import plugin\n@plugin.method\ndef go():\n    return %r\n"
NAME = "acme/test"


def release(cli, version: str, number: int, *, signed: bool = True, name: str = NAME) -> str:
    """A bundle whose method answers with its version; returns the file's name."""
    content = (CODE % version).encode()
    manifest = canonical.encode({
        "schema": "plugsec.manifest/1", "name": name, "version": version, "release": number,
        "files": [{"path": "main.py", "size": len(content), "mode": 0o644,
                   "sha256": hashlib.sha256(content).hexdigest()}],
        "runtime": {"kind": "python", "entry": "main"}, "methods": {"go": {"summary": "goes"}}, "permissions": [],
    })  # fmt: skip
    signatures = {}
    if signed:
        armour = sshsig.sign(
            keys.load_private_key(str(cli.home.key), None), manifest, sshsig.NAMESPACE_MANIFEST
        )
        signatures[keys.fingerprint(sshsig.parse(armour).key)] = armour
    path = cli.directory / f"{name.split('/')[1]}-{version}.plug"
    with path.open("wb") as out:
        bundle.write_bundle(out, manifest, signatures, {}, lambda entry: io.BytesIO(content))
    return path.name


def told(ended: subprocess.CompletedProcess[str]):
    """The one JSON object on stdout."""
    return json.loads(ended.stdout)


def records(cli) -> list[dict]:
    """Every record of the log, oldest first."""
    segment = cli.home.home / "state" / "audit" / "segment-000001.jsonl"
    return [json.loads(line) for line in segment.read_text().splitlines()]


def test_a_plugin_is_installed_run_by_name_rolled_back_and_removed(cli) -> None:
    for number, version in enumerate(("1.0.0", "1.1.0"), start=1):
        ended = cli("install", release(cli, version, number))
        assert ended.returncode == 0, ended.stderr
        assert ended.stdout.startswith(
            f"acme/test {version} (release {number}): installed, and is the current"
        )
    assert cli("run", NAME).stdout == '"1.1.0"\n'
    assert cli("run", "acme/test@1.0.0").stdout == '"1.0.0"\n', "the older one is there on purpose"
    assert cli("list").stdout.splitlines() == [
        "  acme/test 1.0.0 (release 1)  verifies",
        "* acme/test 1.1.0 (release 2)  verifies",
    ]
    assert cli("rollback", NAME).stdout == "acme/test 1.0.0 is the current version now\n"
    assert cli("run", NAME).stdout == '"1.0.0"\n'
    ended = cli("rollback", NAME)
    assert (ended.returncode, "[PLG-STO-010]" in ended.stderr) == (2, True)
    ended = cli("remove", NAME)
    assert ended.returncode == 2
    assert "1.0.0, 1.1.0" in ended.stderr
    assert cli("remove", "acme/test@1.0.0").stdout.splitlines() == [
        "acme/test 1.0.0 is removed",
        "acme/test 1.1.0 is the current version now",
    ]
    assert cli("remove", NAME).stdout.splitlines()[-1] == "nothing of acme/test is installed any more"
    assert cli("run", NAME).returncode == 2
    assert "nothing is installed" in cli("list").stderr
    events = [record["event"] for record in records(cli) if record["event"].startswith("bundle.")]
    assert [event for event in events if event != "bundle.verified"] == [
        "bundle.installed", "bundle.installed", "bundle.reverted", "bundle.removed", "bundle.removed",
        "bundle.refused",
    ]  # fmt: skip
    assert cli("audit", "verify").returncode == 0


def test_every_command_answers_in_json(cli) -> None:
    path = release(cli, "1.0.0", 1)
    installed = told(cli("install", path, "--json"))
    assert {**installed, "bundle_id": "", "installed": "", "audit": {}} == {
        "outcome": "ok", "code": 0, "plugin": NAME, "version": "1.0.0", "release": 1, "bundle_id": "",
        "installed": "", "new": True, "before": None, "warnings": [], "audit": {},
    }  # fmt: skip
    again = told(cli("install", path, "--json"))
    assert (again["new"], again["bundle_id"]) == (False, installed["bundle_id"])
    (row,) = told(cli("list", "--check", "--json"))["installed"]
    assert (row["plugin"], row["current"], row["verifies"]) == (NAME, True, True)
    seen = told(cli("inspect", NAME, "--json"))
    assert (seen["bundle_id"], seen["manifest"]["version"]) == (installed["bundle_id"], "1.0.0")
    assert told(cli("run", NAME, "--json"))["result"] == "1.0.0"
    cli("install", release(cli, "2.0.0", 2))
    back = told(cli("rollback", NAME, "--json"))
    assert (back["before"], back["current"], back["removed"]) == ("2.0.0", "1.0.0", [])
    gone = told(cli("remove", NAME, "--all-versions", "--json"))
    assert ([each["version"] for each in gone["removed"]], gone["current"]) == (["1.0.0", "2.0.0"], None)
    assert told(cli("gc", "--json")) == {
        "outcome": "ok",
        "code": 0,
        "bundles": [],
        "leftovers": 0,
        "audit": None,
    }
    assert told(cli("list", "--json")) == {"outcome": "ok", "code": 0, "installed": []}


REFUSED = {
    "an unsigned bundle": (("install", "UNSIGNED"), 3, "PLG-TRU-001"),
    "a file that is none": (("install", "nothing.plug"), 2, "PLG-BND-001"),
    "a file that is no bundle": (("install", "garbage.plug"), 4, "PLG-BND-003"),
    "remove without name": (("remove", "wordfreq"), 2, "PLG-STO-008"),
    "remove what is not there": (("remove", "acme/other"), 2, "PLG-STO-007"),
    "remove a version that is not there": (("remove", "acme/test@9.9.9"), 2, "PLG-STO-007"),
    "remove one version and all": (("remove", "acme/test@1.0.0", "--all-versions"), 2, "PLG-USE-001"),
    "roll back to a version": (("rollback", "acme/test@1.0.0"), 2, "PLG-USE-001"),
    "roll back what is not there": (("rollback", "acme/other"), 2, "PLG-STO-007"),
    "run what is not there": (("run", "acme/other"), 2, "PLG-STO-007"),
    "run a version that is not there": (("run", "acme/test@9.9.9"), 2, "PLG-STO-007"),
    "run what is installed as if it were unsigned": (("run", NAME, "--unsafe-unsigned"), 2, "PLG-USE-001"),
    "inspect what is not there": (("inspect", "acme/other"), 2, "PLG-STO-007"),
    "unpack an unsigned bundle": (("unpack", "UNSIGNED", "out"), 3, "PLG-TRU-001"),
    "unpack into a full directory": (("unpack", "test-1.0.0.plug", "."), 2, "PLG-STO-012"),
    "export into a full directory": (("oci", "export", "test-1.0.0.plug", "."), 2, "PLG-STO-012"),
    "import from no layout": (("oci", "import", "."), 4, "PLG-OCI-001"),
    "import from nowhere": (("oci", "import", "nowhere"), 2, "PLG-STO-012"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_refusal_has_its_exit_code_and_id_and_changes_nothing(name, cli) -> None:
    arguments, code, error_id = REFUSED[name]
    assert cli("install", release(cli, "1.0.0", 1)).returncode == 0
    unsigned = release(cli, "2.0.0", 2, signed=False)
    (cli.directory / "garbage.plug").write_bytes(b"x" * 5000)

    def state():
        left = [path for path in cli.directory.rglob("*") if not {"audit", "runs", "cache"} & set(path.parts)]
        return sorted((str(path), path.is_file() and path.read_bytes()) for path in left)

    before = state()
    ended = cli(*(unsigned if word == "UNSIGNED" else word for word in arguments), "--json")
    assert (ended.returncode, told(ended)["error"]["id"]) == (code, error_id), ended.stdout
    assert told(ended)["error"]["hint"]
    assert state() == before


def test_an_older_release_is_refused_unless_it_is_wanted_and_that_is_recorded(cli) -> None:
    old = release(cli, "1.0.0", 1)
    assert cli("install", release(cli, "2.0.0", 2)).returncode == 0
    ended = cli("install", old)
    assert (ended.returncode, "[PLG-TRU-013]" in ended.stderr) == (3, True)
    assert cli("run", old).returncode == 3, "what install accepted counts for runs"
    assert cli("install", old, "--allow-downgrade").returncode == 0
    assert cli("run", NAME).stdout == '"1.0.0"\n'
    overrides = [record["detail"] for record in records(cli) if record["event"] == "override.used"]
    assert {"override": "allow-downgrade", "path": str(cli.directory / old)} in overrides


def test_a_file_that_is_called_like_an_installed_plugin_is_not_run_instead(cli) -> None:
    assert cli("install", release(cli, "1.0.0", 1)).returncode == 0
    other = release(cli, "1.5.0", 5)
    (cli.directory / "acme").mkdir()
    (cli.directory / other).rename(cli.directory / "acme" / "test")
    for command in (("verify", NAME), ("verify", NAME, "--explain"), ("inspect", NAME)):
        assert cli(*command).stdout.startswith("acme/test 1.0.0 (release 1)"), command
    assert cli("run", NAME).stdout == '"1.0.0"\n'
    assert cli("run", "./acme/test").stdout == '"1.5.0"\n'
    assert cli("remove", NAME).returncode == 0
    ended = cli("run", NAME)
    assert ended.returncode == 2
    assert "./acme/test" in ended.stderr


def test_list_says_what_verifies_no_longer(cli) -> None:
    ended = cli("install", release(cli, "1.0.0", 1), "--json")
    tree = cli.home.home / "data" / "store" / "sha256" / told(ended)["bundle_id"].removeprefix("sha256:")
    cli("install", release(cli, "1.0.0", 1, name="acme/other"))
    file = tree / "payload" / "main.py"
    content = file.read_bytes()
    file.chmod(0o644)
    file.write_bytes(content.replace(b"1.0.0", b"6.6.6"))
    file.chmod(0o444)
    rows = {row["plugin"]: row for row in told(cli("list", "--check", "--json"))["installed"]}
    assert (rows["acme/other"]["verifies"], rows[NAME]["error"]["id"]) == (True, "PLG-STO-003")
    assert cli("run", NAME).returncode == 4
    assert cli("verify", NAME).returncode == 4
    assert cli("install", "test-1.0.0.plug").returncode == 0
    assert cli("verify", NAME).returncode == 0
    assert cli("run", NAME).stdout == '"1.0.0"\n'
    assert cli("trust", "remove", "release").returncode == 0
    ended = cli("list")
    assert ended.returncode == 0
    assert ended.stdout.count("REFUSED PLG-TRU-002") == 2


def test_an_installed_plugin_is_in_the_log_under_its_name(cli) -> None:
    cli("install", release(cli, "1.0.0", 1))
    cli("run", "acme/test@2.0.0")
    refused = [record for record in records(cli) if record["event"] == "bundle.refused"]
    assert refused[-1]["detail"]["path"] == "acme/test@2.0.0"


def test_what_is_unpacked_holds_against_stock_tools_and_is_recorded(cli) -> None:
    path = release(cli, "1.0.0", 1)
    assert cli("unpack", path, "out").returncode == 0
    assert (cli.directory / "out" / "main.py").read_text() == CODE % "1.0.0"
    assert records(cli)[-1]["detail"]["unpacked"] == str(cli.directory / "out")
    unsigned = release(cli, "2.0.0", 2, signed=False)
    ended = cli("unpack", unsigned, "out2", "--unsafe-unsigned", "--json")
    assert (ended.returncode, told(ended)["signers"]) == (0, [])
    assert [record["event"] for record in records(cli)][-2:] == ["override.used", "bundle.verified"]


def test_a_bundle_travels_in_an_oci_layout_and_is_installed_from_what_comes_out(cli) -> None:
    path = release(cli, "1.0.0", 1)
    out = told(cli("oci", "export", path, "layout", "--json"))
    back = told(cli("oci", "import", "layout", "-o", "back.plug", "--json"))
    assert (back["bundle_id"], back["layer_digest"]) == (out["bundle_id"], out["layer_digest"])
    assert (cli.directory / "back.plug").read_bytes() == (cli.directory / path).read_bytes()
    assert cli("install", "back.plug").returncode == 0


def test_a_run_of_a_file_loads_nothing_of_the_store(cli) -> None:
    path = str(cli.directory / release(cli, "1.0.0", 1))
    loaded = {}
    for word in (path, Path(path).name, f"./{Path(path).name}", f"{cli.directory.name}/{Path(path).name}"):
        ended = subprocess.run(
            [sys.executable, "-c", PROBE, "run", word, "--quiet"],
            cwd=cli.directory.parent if word.startswith(cli.directory.name) else cli.directory,
            env=cli.environment, capture_output=True, text=True, timeout=60, check=True,
        )  # fmt: skip
        loaded[word] = {name for name in ended.stderr.split() if ".store" in name or name.endswith(".tree")}
    assert set(map(frozenset, loaded.values())) == {frozenset()}


def test_a_change_that_cannot_be_recorded_neither_happens_nor_is_remembered(cli) -> None:
    """Red team, second pass, 13: `gc` removed and then failed; `install` failed and was remembered."""
    assert cli("install", release(cli, "1.0.0", 1)).returncode == 0
    data, audit = cli.home.home / "data" / "store", cli.home.home / "state" / "audit"
    (data / "index" / "acme+test.json").unlink()
    (orphan,) = (data / "sha256").iterdir()
    remembered = cli("trust", "memory", "--json").stdout
    audit.chmod(0o755)
    for command in (("gc",), ("install", release(cli, "5.0.0", 5))):
        assert cli(*command).returncode == 9
        assert list((data / "sha256").iterdir()) == [orphan]
    assert cli("trust", "memory", "--json").stdout == remembered
    audit.chmod(0o700)
    assert told(cli("gc", "--json"))["bundles"] == [f"sha256:{orphan.name}"]
    assert records(cli)[-1]["event"] == "store.collected"
