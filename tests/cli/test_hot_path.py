"""What a run may load, and what happens while: imports decide the cold path."""

import os
import subprocess
import sys
from unittest import mock

from plugsec import pipeline

FORBIDDEN = {
    "typer", "click", "rich", "pydantic", "psutil", "pyseccomp", "jsonschema_rs", "dataclasses", "pathlib",
    "tomllib", "logging", "subprocess", "asyncio", "tempfile", "inspect", "urllib.parse", "multiprocessing",
    "typing", "cryptography",  # a bundle that ran before needs neither: docs/adr/0008 and 0009
}  # fmt: skip
PROBE = """
import os, sys
before, leave = set(sys.modules), os._exit
def tell(code):
    print(*sorted(set(sys.modules) - before), sep="\\n", file=sys.stderr, flush=True)
    leave(code)
os._exit = tell
sys.argv = ["plugsec", *sys.argv[1:]]
from plugsec.__main__ import main
main()
"""
SCHEMA = '{"type": "object", "required": ["n"], "properties": {"n": {"type": "integer"}}}'
CODE = "from plugsec_plugins.guest import plugin\n@plugin.method\ndef go(n):\n    return n + 1\n"


def test_a_run_loads_none_of_the_heavy_modules(cli, home) -> None:
    methods = {"go": {"summary": "", "input": "schemas/in.json"}}
    bundle = home.bundle({"main.py": CODE, "schemas/in.json": SCHEMA}, methods=methods)
    assert cli("run", bundle, "--param", "n=1").returncode == 0  # fills the caches
    ended = subprocess.run(
        [sys.executable, "-c", PROBE, "run", bundle, "--param", "n=1", "--quiet"],
        env=cli.environment, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert ended.stdout == "2\n"
    loaded = set(ended.stderr.split())
    assert "plugsec.pipeline" in loaded
    assert not loaded & FORBIDDEN


def test_boot_is_running_while_the_bundle_is_verified(home) -> None:
    seen = []
    real = pipeline.verify_bundle

    def verify(*arguments: object, **more: object) -> object:
        children = f"/proc/self/task/{os.getpid()}/children"
        with open(children, encoding="ascii") as file:
            seen.extend(file.read().split())
        return real(*arguments, **more)  # type: ignore[arg-type]

    with mock.patch.object(pipeline, "verify_bundle", verify):
        assert home.run(home.bundle({"main.py": CODE}), input=b'{"n": 1}').result == 2
    assert len(seen) == 1
