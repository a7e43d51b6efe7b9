"""What a plugin leaves in $OUTPUT comes out whole and plain, or the caller gets nothing of it."""

import json
import os
from collections.abc import Mapping

from catalogue.interface import ESCAPE, Attack, Batch, Scene, started

_PERMISSIONS = ({"name": "fs.write", "paths": ["$OUTPUT"], "reason": "leaves results"},)
_LIMITS = {"files": 200, "file_bytes": 1 << 20, "tmp_bytes": 8 << 20}
# Each leaves one hostile thing beside a good file.
HOSTILE = {
    "a symbolic link": "os.symlink('/etc/passwd', o + '/a')",
    "a link to a directory": "os.symlink('/etc', o + '/a')",
    "two names for one file": "os.link(o + '/good', o + '/a')",
    "a newline in a name": "open(o + '/a\\nb', 'x')",
    "an escape sequence in a name": "open(o + '/\\x1b[2J', 'x')",
    "a name that is not UTF-8": "open(o.encode() + b'/\\xff', 'x')",
    "a name that reads backwards": "open(o + '/a\\u202egnp.exe', 'x')",
    "a deep tree": "os.makedirs(o + '/d' * 100)",
}
_ENDING = "exit 5, nothing came out"
_BEFORE = "not collected: "
_CODE = """
import os
@plugin.method
def go(code):
    o = os.environ["OUTPUT"]
    open(o + "/good", "w").write("good")
    eval(code, globals(), {"o": o})
    return "left"
"""


def _play(scene: Scene) -> Mapping[str, str]:
    bundle = scene.home.bundle(
        {"main.py": "from plugsec_plugins.guest import plugin\n" + _CODE}, permissions=_PERMISSIONS
    )
    endings = {}
    for number, (name, code) in enumerate(HOSTILE.items()):
        destination = scene.directory / f"results-{number}"
        call = json.dumps({"code": code}).encode()
        outcome = started(scene.home.run(bundle, input=call, output_dir=str(destination), limits=_LIMITS))
        came = sorted(os.listdir(destination)) if destination.exists() else "nothing"
        endings[_BEFORE + name] = f"exit {outcome.code}, {came} came out"
    return endings


BATCHES = (
    Batch(
        "results",
        tuple(Attack(_BEFORE + name, ESCAPE, _ENDING, "the caller's directory") for name in HOSTILE),
        _play,
    ),
)
