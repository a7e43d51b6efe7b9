"""What a user installs is exactly the four packages, complete, and it is what these tests run against."""

import importlib.metadata
import importlib.util
from pathlib import Path

import pytest

import plugsec

CLONE = Path(__file__).parent.parent.parent
ROOMS = {
    "plugsec": CLONE / "supervisor/plugsec",
    "plugsec_policies": CLONE / "policies/plugsec_policies",
    "plugsec_signing": CLONE / "signing/plugsec_signing",
    "plugsec_plugins": CLONE / "plugins/plugsec_plugins",
}


def installed() -> importlib.metadata.Distribution:
    try:
        return importlib.metadata.distribution("plugsec")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("plugsec is not installed here; `make test` installs the wheel first")


def files(distribution: importlib.metadata.Distribution) -> set[str]:
    return {str(path) for path in distribution.files or () if "__pycache__" not in path.parts}


def test_the_wheel_holds_exactly_the_four_packages() -> None:
    tops = {name.split("/")[0] for name in files(installed()) if not name.startswith("..")}
    assert tops - {f"plugsec-{installed().version}.dist-info"} == set(ROOMS)


def test_the_only_program_is_plugsec() -> None:
    entry_points = [(e.group, e.name, e.value) for e in installed().entry_points]
    assert entry_points == [("console_scripts", "plugsec", "plugsec.__main__:main")]


def below(source: Path, target: str) -> set[str]:
    return {
        f"{target}/{path.relative_to(source)}"
        for path in source.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


@pytest.mark.parametrize("room", ROOMS)
def test_every_file_of_a_room_is_in_the_wheel(room: str) -> None:
    wanted = below(ROOMS[room], room)
    if room == "plugsec_plugins":  # `plugsec demo` and authors find the examples there
        wanted |= below(CLONE / "plugins/examples", f"{room}/examples")
    if room == "plugsec":  # `plugsec explain` prints them
        wanted |= below(CLONE / "docs/errors", f"{room}/error_pages")
    assert wanted == {name for name in files(installed()) if name.startswith(f"{room}/")}


@pytest.mark.parametrize("room", ROOMS)
def test_the_tests_import_the_installed_package(room: str) -> None:
    installed()
    spec = importlib.util.find_spec(room)
    assert spec is not None and spec.origin is not None
    assert CLONE not in Path(spec.origin).parents or "site-packages" in spec.origin


def test_the_package_and_its_metadata_name_one_version() -> None:
    assert installed().version == plugsec.__version__
