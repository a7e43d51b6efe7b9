"""What this host has: the layers as `plugsec doctor` finds them, by doing, and a scene to play in."""

import json
import subprocess
from pathlib import Path
from typing import NamedTuple

from catalogue.interface import Scene
from kit.home import Home
from kit.outside import command_line


class Layers(NamedTuple):
    """Active and inactive layers by name, and those of builtin:strict that are missing."""

    active: tuple[str, ...]
    inactive: tuple[str, ...]
    missing: tuple[str, ...]
    system: str

    def __str__(self) -> str:
        lacks = f"; without {', '.join(self.inactive)}" if self.inactive else ""
        return f"{self.system}: {', '.join(self.active)}{lacks}"


def layers() -> Layers:
    """Ask `plugsec doctor`, which leaves with 8 where builtin:strict cannot run."""
    said = subprocess.run(command_line("doctor", "--json"), capture_output=True, check=False)
    found = json.loads(said.stdout)
    rows = [(row["layer"], row["active"]) for row in found["layers"]]
    return Layers(
        tuple(name for name, active in rows if active),
        tuple(name for name, active in rows if not active),
        tuple(found["missing"]),
        f"Linux {found['host']['kernel']}, {found['host']['user']}",
    )


def scene(directory: Path, found: Layers) -> Scene:
    """A home below `directory`, which must be empty, on a host with these layers."""
    (directory / "home").mkdir()
    (directory / "scratch").mkdir()
    return Scene(Home(directory / "home"), directory / "scratch", frozenset(found.active), found.missing)
