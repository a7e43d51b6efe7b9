"""Whatever the caller's umask is, what plugsec keeps is this user's alone and usable by it."""

import os
import stat
from pathlib import Path

import pytest

ECHO = "from plugsec_plugins.guest import plugin\n@plugin.method\ndef go(**value):\n    return value\n"


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o777], ids=oct)
def test_no_umask_opens_or_closes_what_is_kept(home, umask, tmp_path) -> None:
    bundle = home.bundle({"main.py": ECHO})
    home.home = tmp_path / "fresh" / "home"
    before = os.umask(umask)
    try:
        outcomes = [home.run(bundle, unsafe_unsigned=True) for _ in range(2)]
    finally:
        os.umask(before)
    assert [outcome.code for outcome in outcomes] == [0, 0], outcomes[0].error
    kept = [home.home.parent, *home.home.parent.rglob("*")]
    assert len(kept) > 10
    for path in kept:
        mode = stat.S_IMODE(Path(path).stat().st_mode)
        assert not mode & 0o077, (path, oct(mode))
        assert mode & 0o600 == 0o600, (path, oct(mode))
