"""One home for each test of this room."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from kit.home import Home
from kit.outside import cgroup_directories, host_mounts
from kit.started import records


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A home with a trusted publisher."""
    return Home(tmp_path)


@pytest.fixture
def nothing_left(home: Home) -> Iterator[None]:
    """Around a test: no mount more, and no cgroup of any of this home's runs once they have been swept."""
    mounts = host_mounts()
    yield
    assert host_mounts() == mounts
    known = {str(record.get("run")) for record in records(home)}
    assert not [name for name in cgroup_directories() if name.rpartition("plugsec-")[2] in known]
