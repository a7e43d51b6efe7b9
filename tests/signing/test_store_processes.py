"""Real processes at one store: many at once, killed at any moment, and on a disk that is full."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import signing_kit as kit
import store_kit as shop

from plugsec_signing.errors import NotInstalled, SigningError
from plugsec_signing.store import changes

KIT = Path(shop.__file__)
KILLS = 15
UNSHARE = ["unshare", "-m"] if os.geteuid() == 0 else ["unshare", "-rm"]


def start(store, *bundles):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((*sys.path, str(KIT.parent)))}
    return subprocess.Popen(
        [sys.executable, str(KIT), "install", str(store), *bundles],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def killed(process) -> str:
    process.kill()
    return process.communicate()[1].decode()


def test_many_processes_install_and_remove_one_bundle_and_readers_see_all_or_nothing(tmp_path):
    store = tmp_path / "store"
    bundles = [
        shop.write_bundle(tmp_path, version, release) for version, release in (("1.0.0", 1), ("2.0.0", 2))
    ]
    shop.install(store, bundles[0])
    writers = [start(store, *order) for order in (bundles, bundles[::-1], bundles)]
    seen, deadline = 0, time.monotonic() + 20
    try:
        for writer in writers:
            assert writer.stdout.read(1) == b".", writer.communicate()[1].decode()
        while seen < 60 and time.monotonic() < deadline:
            for name in ("acme/wordfreq", "acme/wordfreq@1.0.0", "acme/wordfreq@2.0.0"):
                try:
                    assert shop.verified(store, name) == kit.FILES
                    seen += 1
                except NotInstalled:
                    pass  # just removed
            with ThreadPoolExecutor(2) as pool:  # threads of one process are as good as processes here
                for removal in [pool.submit(shop.remove, store, version) for version in ("1.0.0", "2.0.0")]:
                    try:
                        removal.result()
                    except NotInstalled:
                        pass
    finally:
        said = [killed(writer) for writer in writers]
    assert said == ["", "", ""]
    assert seen >= 10
    shop.collect(store)
    left = {each.bundle_id for index in changes.installed(str(store)) for each in index.versions}
    assert {f"sha256:{path.name}" for path in (store / "sha256").iterdir()} == left
    assert list((store / "tmp").iterdir()) == []


def test_an_install_killed_at_any_moment_leaves_the_store_whole(tmp_path):
    """Between two kills every installed version verifies, and one more change leaves nothing behind."""
    store, chance = tmp_path / "store", random.Random(4)
    files = {f"lib/module{number:03}.py": b"x = %d\n" % number * 50 for number in range(60)}
    bundles = [
        shop.write_bundle(tmp_path, f"1.0.{number}", number, files=files, signers=(kit.ACME,))
        for number in range(6)
    ]
    for kill in range(KILLS):
        process = start(store, *bundles)
        assert process.stdout.read(1) == b".", process.communicate()[1].decode()
        time.sleep(chance.random() * 0.1)
        assert killed(process) == ""
        for index in changes.installed(str(store)):
            for version in index.versions:
                assert shop.verified(store, f"{index.name}@{version.version}") == files, kill
        if kill % 5 == 0:  # start anew, so that what is killed is an install and not a repetition
            shop.remove(store, *(each.version for each in changes.installed(str(store))[0].versions))
    shop.install(store, bundles[0])
    assert list((store / "tmp").iterdir()) == []
    shop.collect(store)
    left = {each.bundle_id for index in changes.installed(str(store)) for each in index.versions}
    assert {f"sha256:{path.name}" for path in (store / "sha256").iterdir()} == left


def test_a_suspended_install_is_not_taken_for_a_dead_one(tmp_path):
    store = tmp_path / "store"
    path = shop.write_bundle(tmp_path)
    ready, go = os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:

        def sync(_):
            os.write(ready[1], b".")
            os.read(go[0], 1)

        try:
            shop.install(store, path, sync=sync)
            os._exit(0)
        except BaseException:
            os._exit(1)
    os.read(ready[0], 1)
    assert shop.collect(store) == ((), 0)
    assert len(list((store / "tmp").iterdir())) == 1
    os.write(go[1], b".")
    assert os.waitpid(pid, 0)[1] == 0
    assert shop.verified(store) == kit.FILES
    for fd in (*ready, *go):
        os.close(fd)


def test_an_interrupted_install_leaves_nothing(tmp_path):
    store = tmp_path / "store"

    def interrupt(_):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(5)

    with pytest.raises(KeyboardInterrupt):
        shop.install(store, shop.write_bundle(tmp_path), sync=interrupt)
    assert shop.everything(store) == ["format", "index", "sha256", "tmp"]


FULL_DISK = """
import json, os, sys
from pathlib import Path
import signing_kit as kit, store_kit as shop
from plugsec_signing.errors import SigningError
from plugsec_signing.unpack import unpack
from plugsec_signing.verify import verify_bundle
from plugsec_signing import oci

mount, here = Path(sys.argv[1]), Path(sys.argv[2])
small = shop.write_bundle(here, "1.0.0", 1)
(here / "large").mkdir()
large = shop.write_bundle(here / "large", "2.0.0", 2, files={f"f{n}": bytes(200_000) for n in range(20)})
store = mount / "store"
shop.install(store, small)
before = shop.everything(store)
found = {}

def attempt(name, act):
    try:
        act()
        found[name] = "done"
    except SigningError as refused:
        found[name] = [refused.id, refused.code, refused.message]

attempt("install", lambda: shop.install(store, large))
attempt("unpack", lambda: unpack(str(mount / "out"), lambda sink: verify_bundle(large, shop.TRUST, kit.NOW, also=sink)))
attempt("oci export", lambda: oci.export(large, str(mount / "layout")))
oci.export(large, str(here / "layout"))
attempt("oci import", lambda: oci.import_layout(str(here / "layout"), str(mount / "new.plug")))
found["left behind"] = sorted(set(shop.everything(store)) - set(before)) + sorted(
    path.name for path in mount.iterdir() if path.name != "store")
found["still verifies"] = shop.verified(store, "acme/wordfreq@1.0.0") == kit.FILES
print(json.dumps(found))
"""


def test_a_full_disk_leaves_nothing_behind_and_is_said(tmp_path):
    mount, here = tmp_path / "mount", tmp_path / "here"
    mount.mkdir()
    here.mkdir()
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((*sys.path, str(KIT.parent)))}
    script = 'mount -t tmpfs -o size=1m tmpfs "$1" || exit 77; exec "$3" -c "$4" "$1" "$2"'
    try:
        ran = subprocess.run(
            [*UNSHARE, "sh", "-c", script, "sh", str(mount), str(here), sys.executable, FULL_DISK],
            env=environment, capture_output=True, text=True, check=False, timeout=120,
        )  # fmt: skip
    except FileNotFoundError:
        pytest.skip("layer `mount` missing: no unshare(1) here")
    if ran.returncode == 77 or "unshare" in ran.stderr:
        pytest.skip("layer `mount` missing: no tmpfs can be mounted here (needs root or user namespaces)")
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout)
    for name, error_id in (
        ("install", "PLG-STO-005"), ("unpack", "PLG-STO-005"),
        ("oci export", "PLG-STO-012"), ("oci import", "PLG-STO-012"),
    ):  # fmt: skip
        assert found[name][:2] == [error_id, 2], found
        assert "No space left" in found[name][2]
    assert found["left behind"] == []
    assert found["still verifies"]


def test_a_directory_that_cannot_be_written_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SigningError) as refused:
        shop.install(tmp_path / "file" / "store", shop.write_bundle(tmp_path))
    assert refused.value.code in {2, 4}
