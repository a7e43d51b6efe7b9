"""Directories that are this user's alone, whatever the caller's umask is."""

import os

_PARENTS_MAX = 64  # deeper than any home directory


def make_directories(path: str) -> None:
    """Make `path` and what is missing above it, each 0700; what exists stays as it is. Raises OSError.

    os.makedirs gives its mode to the last one only, and leaves those above to the umask: whoever can
    write there can put another directory in the place of the last.
    """
    missing: list[str] = []
    at = os.path.abspath(path)
    while not os.path.isdir(at) and len(missing) < _PARENTS_MAX:
        missing.append(at)
        at = os.path.dirname(at)
    for directory in reversed(missing):
        try:
            os.mkdir(directory, 0o700)
        except FileExistsError:
            continue  # another start was faster
        os.chmod(directory, 0o700)  # a umask of 777 would leave it unusable
