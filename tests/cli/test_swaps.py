"""Time of check and time of use: whatever is swapped between two steps, other bytes are never executed.

Each scenario is repeated with the swap before the first step, the second, … until there are no more: each
touch of the bundle's or the store's paths is a step, and so is each stage of a run. Every time the plugin's
own code answers, or the run is refused; and never the bytes that were swapped in.
"""

import os
import shutil
from pathlib import Path
from unittest import mock

import pytest

from kit.home import Home
from kit.steps import steps
from plugsec import pipeline
from plugsec_signing import payload
from plugsec_signing.errors import SigningError
from plugsec_signing.store import changes
from plugsec_signing.store.names import parse_name
from plugsec_signing.store.stored import opened_bundle
from plugsec_signing.tree import remove_tree
from plugsec_signing.trust import load_trust
from plugsec_signing.verify import verify_bundle

CODE = "from plugsec_plugins.guest import plugin\n@plugin.method\ndef go():\n    return '%s'\n"
GOOD, EVIL = CODE % "good", CODE % "evil"
NAME = "acme/test"
STAGES = ("_verify", "_decide", "_launch")
STEPS_MAX = 200  # more than any of these has


class Place:
    """A home with a good bundle, an evil one, and the store as it is before each attempt."""

    def __init__(self, root: Path) -> None:
        root.mkdir()
        self.home = Home(root)
        self.good = Path(self.home.bundle({"main.py": GOOD}, name=NAME))
        self.evil = Path(self.home.bundle({"main.py": EVIL}, name=NAME, signed=False))
        self.data = self.home.home / "data"
        self.store = self.data / "store"
        self.archive = root / "test-1.0.0.plug"
        self.install(self.good)
        with opened_bundle(str(self.store), parse_name(NAME)) as stored:
            self.tree = Path(stored.path)
        self.template, self.evil_data = root / "template", root / "evil-data"
        shutil.copytree(self.data, self.template, symlinks=True)
        shutil.copytree(self.data, self.evil_data, symlinks=True)
        self._edit(self.evil_data / "store" / self.tree.relative_to(self.store))

    def install(self, path: Path):
        """Install in this process, as the command line does."""
        trust = load_trust(str(self.home.home / "config" / "trust.d"))
        return changes.install(
            str(self.store),
            lambda sink: verify_bundle(str(path), trust, 1_800_000_000, also=sink),
            1_800_000_000,
            sync=lambda _: None,
            announce=lambda evidence, done: None,
        )

    def reset(self) -> None:
        """Everything as it was before the last swap."""
        _remove(self.data)
        shutil.copytree(self.template, self.data, symlinks=True)
        _remove(self.archive)
        shutil.copy(self.good, self.archive)

    @staticmethod
    def _edit(tree: Path) -> None:
        (tree / "payload" / "main.py").chmod(0o644)
        (tree / "payload" / "main.py").write_text(EVIL)
        (tree / "payload" / "main.py").chmod(0o444)

    def edit(self) -> None:
        """A stored file is overwritten in place."""
        if self.tree.exists():
            self._edit(self.tree)

    def replace_file(self) -> None:
        """Another file takes a stored file's name."""
        (self.tree / "payload").chmod(0o755)
        new = self.tree / "payload" / "new"
        new.write_text(EVIL)
        new.chmod(0o444)
        new.rename(self.tree / "payload" / "main.py")
        (self.tree / "payload").chmod(0o555)

    def replace_tree(self) -> None:
        """Another directory takes the tree's name."""
        self.tree.chmod(0o755)
        self.tree.rename(self.data / "aside")
        shutil.copytree(self.evil_data / "store" / self.tree.relative_to(self.store), self.tree)

    def link_tree(self) -> None:
        """A link takes the tree's name."""
        self.tree.chmod(0o755)
        self.tree.rename(self.data / "aside")
        self.tree.symlink_to(self.evil_data / "store" / self.tree.relative_to(self.store))

    def link_payload(self) -> None:
        """A link takes the payload's name."""
        self.tree.chmod(0o755)
        (self.tree / "payload").chmod(0o755)
        (self.tree / "payload").rename(self.data / "aside")
        (self.tree / "payload").symlink_to(
            self.evil_data / "store" / self.tree.relative_to(self.store) / "payload"
        )

    def link_parent(self) -> None:
        """A link to another store takes the place of the directory that holds the store."""
        self.data.rename(self.data.with_name("aside"))
        self.data.symlink_to(self.evil_data)

    def replace_archive(self) -> None:
        """Another file takes the archive's name."""
        new = self.archive.with_name("new")
        shutil.copy(self.evil, new)
        new.rename(self.archive)

    def overwrite_archive(self) -> None:
        """The archive is overwritten in place."""
        with self.archive.open("r+b") as file:
            file.write(self.evil.read_bytes())
            file.truncate()


def _remove(path: Path) -> None:
    aside = path.with_name("aside")
    for each in (path, aside):
        if os.path.lexists(each):
            parent = os.open(each.parent, os.O_RDONLY | os.O_DIRECTORY)
            try:
                remove_tree(parent, each.name)
            finally:
                os.close(parent)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return Place(tmp_path_factory.mktemp("swaps") / "place")


def about(place: Place):
    own = (str(place.archive), str(place.data))
    # Relative to descriptors, the store's code opens names like these.
    names = {
        "format",
        "lock",
        "sha256",
        "index",
        "tmp",
        "payload",
        "signatures",
        "attestations",
        "manifest.json",
    }
    names |= {"main.py", "acme+test.json", place.tree.name}
    return lambda path: path.startswith(own) or path in names


def attempts(place: Place, swap, act):
    """Yield `act`'s result for a swap before each step there is, and at last for one that comes too late."""
    for at in range(1, STEPS_MAX):
        place.reset()
        with steps(about(place), at, lambda: swap(place)) as counted, _stages(counted):
            yield at, act()
        if counted.count < at:
            return
    raise AssertionError("there are more steps than anybody thought")


def _stages(counted):
    class Stages:
        def __enter__(self):
            self.patches = [
                mock.patch.object(pipeline._Run, name, _then_step(name, counted)) for name in STAGES
            ]
            for patch in self.patches:
                patch.start()

        def __exit__(self, *_):
            for patch in self.patches:
                patch.stop()

    return Stages()


def _then_step(name, counted):
    real = getattr(pipeline._Run, name)

    def stage(self, *arguments):
        result = real(self, *arguments)
        counted.step()
        return result

    return stage


def judge(outcomes):
    """Every run gave the plugin's own answer or was refused; returns how often each."""
    good = refused = 0
    for at, outcome in outcomes:
        if outcome.error is None:
            assert outcome.result == "good", f"other bytes were executed after a swap at step {at}"
            good += 1
        else:
            assert outcome.code in {2, 3, 4}, (at, outcome.error)
            refused += 1
    return good, refused


ARCHIVE = [Place.replace_archive, Place.overwrite_archive]
STORED = [
    Place.edit, Place.replace_file, Place.replace_tree, Place.link_tree, Place.link_payload, Place.link_parent,
]  # fmt: skip
BY_PATH = [Place.replace_tree, Place.link_tree, Place.link_payload, Place.link_parent]


@pytest.mark.parametrize("swap", ARCHIVE, ids=lambda swap: swap.__name__)
def test_a_swapped_archive_is_never_run(place, swap):
    good, refused = judge(attempts(place, swap, lambda: place.home.run(str(place.archive))))
    assert good >= len(STAGES)
    assert refused >= 1


@pytest.mark.parametrize("swap", STORED, ids=lambda swap: swap.__name__)
def test_a_stored_bundle_that_is_swapped_is_never_run(place, swap):
    good, refused = judge(attempts(place, swap, lambda: place.home.run(NAME)))
    assert good >= len(STAGES)
    assert refused >= 1


@pytest.mark.parametrize("swap", BY_PATH, ids=lambda swap: swap.__name__)
def test_a_stored_bundle_that_is_mounted_is_the_directory_that_was_hashed(place, swap):
    with mock.patch.object(payload, "PAYLOAD_IN_MEMORY_MAX", 8):
        good, refused = judge(attempts(place, swap, lambda: place.home.run(NAME)))
    assert good >= len(STAGES)
    assert refused >= 1


@pytest.mark.parametrize("swap", ARCHIVE, ids=lambda swap: swap.__name__)
def test_an_archive_that_is_swapped_while_it_is_installed_leaves_the_good_one_or_nothing(place, swap):
    def act():
        _remove(place.store)
        try:
            return place.install(place.archive)[1].new
        except SigningError as refused:
            return refused.id

    found = set()
    for at, new in attempts(place, swap, act):
        found.add(new)
        if new is True:
            assert place.home.run(NAME).result == "good", at
        else:
            assert changes.installed(str(place.store)) == (), at
    assert True in found
    assert len(found) > 1


def test_an_installed_file_that_is_edited_while_it_is_installed_again_is_never_run(place):
    """A store that was changed under an install is refused later, or repaired: what runs is what was signed."""
    for at, _ in attempts(place, Place.edit, lambda: place.install(place.archive)):
        outcome = place.home.run(NAME)
        assert outcome.error is not None or outcome.result == "good", at
