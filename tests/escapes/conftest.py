"""One home for each test of this room, and a closing line that says which layers this host had."""

import sys
from pathlib import Path

import pytest

# The catalogue takes containers and logs from the rooms that make them.
sys.path += [str(Path(__file__).parent.parent / room) for room in ("signing", "audit")]

from catalogue import host

from kit.home import Home

_LAYERS = pytest.StashKey[host.Layers]()


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A home with a trusted publisher."""
    return Home(tmp_path)


@pytest.fixture(scope="session")
def layers(pytestconfig: pytest.Config) -> host.Layers:
    """What `plugsec doctor` finds on this host."""
    found = host.layers()
    pytestconfig.stash[_LAYERS] = found
    return found


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Without this line a run does not tell what its attacks were stopped by."""
    if _LAYERS in config.stash:
        terminalreporter.write_line(f"attacks: on {config.stash[_LAYERS]}")
