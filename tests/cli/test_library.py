"""The same pipeline as a library."""

import threading

from plugsec.pipeline import Call

ECHO = "from plugsec_plugins.guest import plugin\n@plugin.method\ndef go(**value):\n    return value\n"


def test_supervisor_is_the_package_s_entry_point() -> None:
    from plugsec import Supervisor, pipeline

    assert Supervisor is pipeline.Supervisor


def test_runs_from_several_threads_at_once_keep_apart(home) -> None:
    bundle = home.bundle({"main.py": ECHO})
    supervisor = home.supervisor()
    results: dict[int, object] = {}

    def one(number: int) -> None:
        results[number] = supervisor.run(Call(bundle=bundle, input=b'{"n": %d}' % number)).result

    threads = [threading.Thread(target=one, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {number: {"n": number} for number in range(8)}


def test_a_run_leaves_no_descriptor_open(home) -> None:
    import os

    bundle = home.bundle({"main.py": ECHO})
    home.run(bundle)
    before = sorted(os.listdir("/proc/self/fd"))
    for path in (bundle, home.bundle({"main.py": ECHO}, signed=False), str(home.root / "missing")):
        home.run(path)
    assert sorted(os.listdir("/proc/self/fd")) == before
