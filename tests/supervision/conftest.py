"""One home for each test of this room."""

from pathlib import Path

import pytest

from kit.home import Home


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A home with a trusted publisher."""
    return Home(tmp_path)
