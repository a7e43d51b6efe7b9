"""What lies in a directory that others can write is theirs to replace: plugsec makes none, and uses none.

Red team, second pass, 3 and its addition.
"""

import json
import os
import stat
from pathlib import Path

import pytest

CODE = "from plugsec_plugins.guest import plugin\n@plugin.method\ndef go(n=1):\n    return n + 1\n"
STRANGER = 12345
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory to another user")


@pytest.fixture
def bundle(home):
    return home.bundle({"main.py": CODE})


def refusal(done) -> tuple[int, str]:
    return done.returncode, json.loads(done.stdout)["error"]["id"]


@pytest.mark.parametrize("umask", [0o000, 0o002, 0o077], ids=oct)
@pytest.mark.parametrize("first", ["install", "run", "list", "trust add"])
def test_whatever_comes_first_in_a_new_home_makes_directories_of_ones_own(cli, home, bundle, umask, first):
    """With a trust store written by hand, `install` wrote the memory before anything made its parents."""
    trust, key = str(home.home / "config" / "trust.d"), (home.root / "keys" / "release.pub").read_text()
    home.home = home.root / "fresh" / "home"
    arguments = {
        "install": ("install", bundle, "--trust", trust),
        "run": ("run", bundle, "--trust", trust),
        "list": ("list",),
        "trust add": ("trust", "add", key.strip(), "--publisher", "acme", "--id", "acme"),
    }[first]
    before = os.umask(umask)
    try:
        done = cli(*arguments, "--home", str(home.home))
    finally:
        os.umask(before)
    assert done.returncode == 0, done.stderr
    made = [path for path in home.home.parent.rglob("*") if path.is_dir()]
    assert first == "list" or len(made) > 1
    exposed = [path for path in made if stat.S_IMODE(path.stat().st_mode) & 0o022]
    assert exposed == []


@pytest.mark.parametrize("mode", [0o720, 0o702, 0o777], ids=oct)
@pytest.mark.parametrize("which", ["", "config", "data", "state", "cache", "state/runs"])
def test_a_directory_that_others_can_write_is_refused_until_it_is_closed(cli, home, bundle, which, mode):
    assert cli("run", bundle).returncode == 0
    directory = home.home / which
    directory.mkdir(exist_ok=True)
    directory.chmod(mode)
    done = cli("run", bundle, "--json")
    assert refusal(done) == (9, "PLG-STA-003")
    assert f"chmod go-w {directory}" in done.stdout
    directory.chmod(0o700)
    assert cli("run", bundle).returncode == 0


@pytest.mark.parametrize("command", ["verify", "install"])
def test_other_commands_do_not_use_one_either(cli, home, bundle, command):
    (home.home / "config").chmod(0o777)
    assert refusal(cli(command, bundle, "--json")) == (9, "PLG-STA-003")


def test_a_release_that_others_could_make_forgotten_is_not_run(cli, home):
    """The attack: the memory is renamed away, by whoever can write the directory that holds it."""
    older, newer = (home.bundle({"main.py": CODE}, name="acme/dg", release=each) for each in (1, 2))
    assert cli("run", newer).returncode == 0
    assert refusal(cli("run", older, "--json")) == (3, "PLG-TRU-013")
    state = home.home / "state"
    state.chmod(0o777)
    for name in ("trust", "audit", "runs"):
        (state / name).rename(state / f".old-{name}")
    assert refusal(cli("run", older, "--json")) == (9, "PLG-STA-003")


@as_root
@pytest.mark.parametrize("which", ["", "config", "data", "state", "cache", "state/runs"])
def test_a_home_of_somebody_else_is_refused(cli, home, bundle, which):
    assert cli("run", bundle).returncode == 0
    (home.home / which).mkdir(exist_ok=True)
    os.chown(home.home / which, STRANGER, STRANGER)
    assert refusal(cli("run", bundle, "--json")) == (9, "PLG-STA-003")


@as_root
def test_root_with_the_home_of_another_user_in_its_environment_is_refused(cli, home, bundle):
    """As sudo(8) leaves it where it is told to keep HOME."""
    theirs = home.root / "user"
    (theirs / ".local" / "state").mkdir(parents=True)
    os.chown(theirs / ".local" / "state", STRANGER, STRANGER)
    del cli.environment["PLUGSEC_HOME"]
    assert refusal(cli("run", bundle, "--json", HOME=str(theirs))) == (9, "PLG-STA-003")
    assert list((theirs / ".local" / "state").iterdir()) == []


def test_a_home_below_a_directory_like_tmp_is_used(cli, home, bundle):
    home.root.chmod(0o1777)
    assert cli("run", bundle).returncode == 0


@pytest.mark.parametrize("command", ["run", "verify"])
def test_a_link_as_the_trust_directory_is_refused_and_one_above_it_is_not(cli, home, bundle, command):
    trust, elsewhere = home.home / "config" / "trust.d", home.root / "elsewhere"
    trust.rename(elsewhere)
    trust.symlink_to(elsewhere)
    done = cli(command, bundle, "--json")
    assert refusal(done) == (4, "PLG-TST-003")
    assert "--trust" in json.loads(done.stdout)["error"]["hint"]
    assert cli(command, bundle, "--trust", str(elsewhere)).returncode == 0
    above = home.root / "above"
    above.symlink_to(home.root)
    assert cli(command, bundle, "--trust", str(above / "elsewhere")).returncode == 0


def test_trust_is_not_added_through_a_link(cli, home):
    elsewhere = home.root / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    link: Path = home.root / "link"
    link.symlink_to(elsewhere)
    key = (home.root / "keys" / "release.pub").read_text().strip()
    done = cli("trust", "add", key, "--publisher", "acme", "--trust", str(link), "--json")
    assert refusal(done) == (4, "PLG-TST-003")
    assert list(elsewhere.iterdir()) == []
