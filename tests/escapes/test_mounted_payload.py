"""A payload that is too large for memory is mounted from the store: read-only, and nothing around it."""

import errno
import os
import time
from pathlib import Path
from unittest import mock

import pytest

from kit import native
from kit.home import PROGRAM, Home
from plugsec_signing import payload
from plugsec_signing.store import changes
from plugsec_signing.trust import load_trust
from plugsec_signing.verify import verify_bundle

CODE = """
from plugsec_plugins.guest import plugin
import os, ctypes

def tried(act):
    try:
        act()
    except OSError as refused:
        return refused.errno
    return 0

def remount():
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"none", b"/plugin", None, 0x1020, None):  # MS_REMOUNT | MS_BIND
        raise OSError(ctypes.get_errno(), "mount")

@plugin.method
def go(n):
    import beside
    flags = os.statvfs("/plugin").f_flag
    return {
        "beside": beside.VALUE, "n": n,
        "names": sorted(name for name in os.listdir("/plugin") if name != "__pycache__"),
        "above": tried(lambda: os.stat("/plugin/../manifest.json")),
        "flags": [bool(flags & each) for each in (os.ST_RDONLY, os.ST_NOSUID, os.ST_NODEV)],
        "write": tried(lambda: open("/plugin/main.py", "r+")),
        "create": tried(lambda: open("/plugin/new", "w")),
        "unlink": tried(lambda: os.unlink("/plugin/beside.py")),
        "rename": tried(lambda: os.rename("/plugin/beside.py", "/plugin/main.py")),
        "chmod": tried(lambda: os.chmod("/plugin/main.py", 0o777)),
        "touch": tried(lambda: os.utime("/plugin/main.py")),
        "remount": tried(remount),
    }
"""
SCHEMA = '{"type": "object", "required": ["n"], "properties": {"n": {"type": "integer"}}}'


@pytest.fixture(autouse=True)
def nothing_fits_in_memory():
    """Every payload above a few bytes counts as large."""
    with mock.patch.object(payload, "PAYLOAD_IN_MEMORY_MAX", 8):
        yield


def install(home: Home, path: str) -> Path:
    """Install a bundle; return its payload's directory."""
    trust, now = load_trust(str(home.home / "config" / "trust.d")), int(time.time())
    store = home.home / "data" / "store"
    _, done = changes.install(
        str(store),
        lambda sink: verify_bundle(path, trust, now, also=sink),
        now,
        sync=lambda _: None,
        announce=lambda evidence, done: None,
    )
    return store / "sha256" / done.version.bundle_id.removeprefix("sha256:") / "payload"


def test_a_plugin_can_read_its_mounted_payload_and_change_nothing_of_it(home: Home) -> None:
    files = {"main.py": CODE, "beside.py": "VALUE = 7\n", "schemas/in.json": SCHEMA}
    bundle = home.bundle(files, methods={"go": {"summary": "goes", "input": "schemas/in.json"}})
    tree = install(home, bundle)
    before = {path: (path.stat().st_mode, path.stat().st_mtime_ns) for path in tree.rglob("*")}
    outcome = home.run("acme/test", input=b'{"n": 3}')
    assert outcome.error is None, outcome.error
    found = outcome.result
    assert (found["beside"], found["n"], found["names"]) == (7, 3, ["beside.py", "main.py", "schemas"])
    assert found["above"] == errno.ENOENT, "above it is the jail's root, not the store"
    assert found["flags"] == [True, True, True]
    refusals = ("write", "create", "unlink", "rename", "chmod", "touch", "remount")
    assert all(found[name] for name in refusals), found
    assert {path: (path.stat().st_mode, path.stat().st_mtime_ns) for path in tree.rglob("*")} == before
    refused = home.run("acme/test", input=b'{"n": "3"}')
    assert refused.code == 5, "its schema is read from the mounted directory too"


def test_a_program_runs_from_its_mounted_payload(home: Home) -> None:
    shell = os.path.realpath("/bin/sh")
    policy = home.policy(f'[[grant]]\nid = "shell"\nplugins = ["*"]\nexec = ["{shell}"]\nprocess = 8\n')
    asked = [
        {"name": "exec", "programs": [shell], "reason": "is a script"},
        {"name": "process", "max": 8, "reason": "starts programs"},
    ]
    content = {"program": b"#!/bin/sh\necho 42\n"}
    bundle = home.bundle(
        content, runtime=native.ONESHOT, modes={"program": PROGRAM}, permissions=asked, name="acme/script"
    )
    install(home, bundle)
    outcome = home.run("acme/script", policy)
    assert outcome.error is None, outcome.error
    assert outcome.result == 42


def test_a_file_of_that_size_still_does_not_run_and_the_hint_says_what_does(home: Home) -> None:
    outcome = home.run(home.bundle({"main.py": CODE}))
    assert outcome.error is not None
    assert (outcome.code, outcome.error.id) == (4, "PLG-BND-015")
    assert "plugsec install" in outcome.error.hint
