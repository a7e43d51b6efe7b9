"""Fixtures of the signing room's tests."""

import pytest
import signing_kit as kit


@pytest.fixture
def bundle_path(tmp_path):
    """A function that writes bytes as a bundle file and returns its path."""

    def write(data: bytes, name: str = "wordfreq-1.2.3.plug") -> str:
        path = tmp_path / name
        path.write_bytes(data)
        return str(path)

    return write


@pytest.fixture
def good(bundle_path):
    """The path of a good bundle signed by acme."""
    return bundle_path(kit.pack())
