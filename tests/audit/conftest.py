"""Where crash tests keep their thousands of logs: in memory, because they model the disk themselves."""

import os
import shutil
import tempfile
from pathlib import Path

import pytest


@pytest.fixture
def memory_path(tmp_path):
    """A directory on /dev/shm where there is one (a sync costs nothing there), else `tmp_path`."""
    if not os.access("/dev/shm", os.W_OK):
        yield tmp_path
        return
    path = tempfile.mkdtemp(prefix="plugsec-test-", dir="/dev/shm")
    yield Path(path)
    shutil.rmtree(path)
