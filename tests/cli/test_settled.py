"""A signature that was verified before is not verified again, and nothing else is taken on memory."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from plugsec.settled import FACTS_MAX, Settled

CODE = "from plugsec_plugins.guest import plugin\n@plugin.method\ndef go():\n    return 1\n"
FACT = "0" * 64
LOADED = """
import os, sys
leave = os._exit
def tell(code):
    print("cryptography" in sys.modules, file=sys.stderr, flush=True)
    leave(code)
os._exit = tell
sys.argv = ["plugsec", *sys.argv[1:]]
from plugsec.__main__ import main
main()
"""


@pytest.fixture
def bundle(home) -> str:
    return home.bundle({"main.py": CODE})


def settled(home) -> list[Path]:
    return sorted((home.home / "cache" / "settled").iterdir())


def loads_cryptography(cli, bundle: str) -> bool:
    ended = subprocess.run(
        [sys.executable, "-c", LOADED, "run", bundle, "--quiet"],
        env=cli.environment, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert ended.stdout == "1\n"
    return ended.stderr.split()[-1] == "True"


def test_only_the_first_run_of_a_bundle_loads_cryptography(cli, bundle) -> None:
    assert [loads_cryptography(cli, bundle) for _ in range(3)] == [True, False, False]


def test_what_was_settled_says_nothing_about_other_bytes(cli, home, bundle) -> None:
    assert cli("run", bundle).returncode == 0
    whole = Path(bundle).read_bytes()
    armour = whole.index(b"-----BEGIN SSH SIGNATURE") + 150
    changes = {
        "manifest": whole.index(b'"version"') + 11,
        "signature": armour,
        "payload": whole.index(b"return 1") + 7,
    }
    codes = {}
    for what, at in changes.items():
        Path(bundle).write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        codes[what] = cli("run", bundle).returncode
    assert codes == {"manifest": 3, "signature": 3, "payload": 4}
    assert len(settled(home)) == 1


def test_trust_is_asked_in_every_run(cli, bundle) -> None:
    assert cli("run", bundle).returncode == 0
    assert cli("trust", "remove", "release").returncode == 0
    assert cli("run", bundle).returncode == 3


def test_a_signature_that_does_not_verify_is_never_settled(cli, home, bundle) -> None:
    whole = Path(bundle).read_bytes()
    at = whole.index(b"-----BEGIN SSH SIGNATURE") + 300
    Path(bundle).write_bytes(whole[:at] + (b"A" if whole[at : at + 1] != b"A" else b"B") + whole[at + 1 :])
    assert cli("run", bundle).returncode == 3
    assert not (home.home / "cache" / "settled").exists() or not settled(home)


def test_verify_does_not_ask_what_was_settled(cli, home, bundle) -> None:
    """Whoever owns the directory can plant a fact; the gate before a release is not fooled by it."""
    whole = Path(bundle).read_bytes()
    assert cli("run", bundle).returncode == 0
    (fact,) = settled(home)
    at = whole.index(b"-----BEGIN SSH SIGNATURE") + 300
    Path(bundle).write_bytes(whole[:at] + (b"A" if whole[at : at + 1] != b"A" else b"B") + whole[at + 1 :])
    assert cli("verify", bundle).returncode == 3
    assert settled(home) == [fact]


def test_a_directory_that_others_can_write_is_not_believed(cli, home, bundle) -> None:
    assert cli("run", bundle).returncode == 0
    (home.home / "cache" / "settled").chmod(0o777)
    assert loads_cryptography(cli, bundle)


@pytest.mark.parametrize("kind", ["directory", "symbolic link", "fifo"])
def test_only_a_plain_file_is_a_fact(tmp_path, kind) -> None:
    facts = Settled(str(tmp_path / "settled"))
    facts.learn(FACT)
    facts = Settled(str(tmp_path / "settled"))
    assert facts.knows(FACT)
    (path,) = (tmp_path / "settled").iterdir()
    path.unlink()
    make = {
        "directory": path.mkdir,
        "symbolic link": lambda: path.symlink_to("/etc/hostname"),
        "fifo": lambda: os.mkfifo(path),
    }
    make[kind]()
    assert not facts.knows(FACT)


def test_the_facts_are_bounded(tmp_path) -> None:
    directory = tmp_path / "settled"
    facts = Settled(str(directory))
    facts.learn(FACT)
    for number in range(FACTS_MAX):
        (directory / f"old-{number}").touch()
    Settled(str(directory)).learn("1" * 64)
    assert [path.name.rpartition("-")[2] for path in directory.iterdir()] == ["1" * 64]


def test_facts_of_another_version_do_not_count(tmp_path, monkeypatch) -> None:
    directory = str(tmp_path / "settled")
    Settled(directory).learn(FACT)
    monkeypatch.setattr("plugsec.__version__", "0.0.1")
    assert not Settled(directory).knows(FACT)


def test_where_nothing_can_be_kept_nothing_is_known(tmp_path) -> None:
    (tmp_path / "file").touch()
    facts = Settled(str(tmp_path / "file" / "settled"))
    facts.learn(FACT)
    assert not facts.knows(FACT)
