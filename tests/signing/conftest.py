"""Fixtures of the signing room's tests."""

import fido_token
import pytest
import signing_kit as kit
from hypothesis import settings

settings.register_profile("a loaded machine", deadline=None)
settings.load_profile("a loaded machine")


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


@pytest.fixture(scope="session")
def provider(tmp_path_factory):
    """The path of a library through which ssh-keygen and ssh-agent find a FIDO token in software."""
    directory = tmp_path_factory.mktemp("provider")
    kit.stock("ssh-keygen")
    library, failed = fido_token.build_provider(kit.stock("cc"), str(directory))
    if failed:
        pytest.skip(f"ssh-keygen takes no provider library: {failed}")
    return library
