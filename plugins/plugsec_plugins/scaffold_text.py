"""The files of a new plugin, as templates for `str.format`: every other brace is doubled."""

# Python ----------------------------------------------------------------------------------------------------

PYTHON_TOML = """\
schema = "plugsec.plugin/1"
name = "{name}"
version = "0.1.0"
release = 1                       # grows with every release: an older one is then a downgrade
summary = "Counts the words of a text"
license = "Apache-2.0"
exclude = ["tests/**", "example.input.json"]

[requires]
plugsec = ">=0.1,<1"

[runtime]
kind = "python"
entry = "{module}"{pad}# the module with the methods

[methods.count]
summary = "Counts the words of a text, or of the files it is given"
input = {{ type = "object", properties = {{ text = {{ type = "string", maxLength = 1000000 }} }}, \
additionalProperties = false }}
output = "schemas/count.output.json"      # inline, or a file under schemas/

[[permission]]
name = "fs.read"
paths = ["$INPUT"]
reason = "counts the words of the files it is given"
optional = true

[limits]                          # what this plugin needs; the operator's policy may allow less
wall_ms = 5000
memory = "128M"
"""

PYTHON_CODE = '''\
"""{name}: counts words. Runs in plugsec's jail; nothing here can reach the network or your files."""

import os
from collections import Counter

from plugsec_plugins.guest import Context, plugin

MOST_COMMON = 10


@plugin.method
def count(text: str = "", *, ctx: Context) -> dict[str, object]:
    """Count the words of `text` and of every file given with --input-file NAME=PATH."""
    words: Counter[str] = Counter(text.lower().split())
    for name in input_files():
        with open(ctx.input_path(name), encoding="utf-8", errors="replace") as stream:
            for line in stream:
                words.update(line.lower().split())
    ctx.log(f"{{words.total()}} words, {{len(words)}} different")
    common = dict(words.most_common(MOST_COMMON))
    return {{"words": words.total(), "different": len(words), "most_common": common}}


def input_files() -> list[str]:
    """Return the names of the files that this run was given, none outside the jail."""
    directory = os.environ.get("INPUT", "")
    return sorted(os.listdir(directory)) if directory and os.path.isdir(directory) else []
'''

PYTHON_OUTPUT = """\
{
  "type": "object",
  "required": ["words", "different", "most_common"],
  "properties": {
    "words": { "type": "integer", "minimum": 0 },
    "different": { "type": "integer", "minimum": 0 },
    "most_common": { "type": "object", "additionalProperties": { "type": "integer", "minimum": 1 } }
  },
  "additionalProperties": false
}
"""

PYTHON_TEST = '''\
"""Runs outside the jail: python -m pytest, or python -m unittest discover tests (with plugsec installed)."""

import json
import os
import sys
import unittest

PLUGIN = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, PLUGIN)

from plugsec_plugins.guest import Context  # noqa: E402

import {module}  # noqa: E402


class CountTest(unittest.TestCase):
    def test_counts_each_word(self) -> None:
        result = {module}.count("to be or not to be", ctx=Context())
        self.assertEqual(result["words"], 6)
        self.assertEqual(result["different"], 4)
        self.assertEqual(result["most_common"]["to"], 2)

    def test_example_input_works(self) -> None:
        with open(os.path.join(PLUGIN, "example.input.json"), encoding="utf-8") as stream:
            example = json.load(stream)
        self.assertGreater({module}.count(**example, ctx=Context())["words"], 0)


if __name__ == "__main__":
    unittest.main()
'''

EXAMPLE = '{{"text": "the quick brown fox jumps over the lazy dog"}}\n'

# Programs --------------------------------------------------------------------------------------------------

EXEC_TOML = """\
schema = "plugsec.plugin/1"
name = "{name}"
version = "0.1.0"
release = 1                       # grows with every release: an older one is then a downgrade
summary = "Measures the JSON it is given"
license = "Apache-2.0"
exclude = ["tests/**", "example.input.json", "policy.toml"]

[requires]
plugsec = ">=0.1,<1"

# A oneshot program is started as PROGRAM METHOD, reads the input JSON from stdin and writes the result
# JSON to stdout; its stderr is the log. Put a compiled program here and the exec permission can go.
[runtime]
kind = "exec"
entry = "bin/{module}"
dialect = "oneshot"

[methods.count]
summary = "Counts the characters and lines of its input"
input = {{ type = "object", required = ["text"], properties = \
{{ text = {{ type = "string", maxLength = 100000 }} }}, additionalProperties = false }}
output = "schemas/count.output.json"      # inline, or a file under schemas/

# A script needs its interpreter, by its real path, and an operator who allows it. The built-in policy
# does not; policy.toml beside this file does:  plugsec run … --policy policy.toml
[[permission]]
name = "exec"
programs = ["{shell}"]
reason = "the entry is a shell script"
optional = false

[limits]                          # what this plugin needs; the operator's policy may allow less
wall_ms = 5000
memory = "128M"
"""

EXEC_CODE = """\
#!{shell}
# {name}: measures its input. Only the shell's own commands are used: in the jail no other program may be
# started, and no process forked, unless plugin.toml asks for it and the operator's policy allows it.
set -eu

lines=0
characters=0
while IFS= read -r line || [ -n "$line" ]; do
    lines=$((lines + 1))
    characters=$((characters + ${{#line}}))
done

case "$1" in
count)
    printf '{{"characters": %d, "lines": %d}}\\n' "$characters" "$lines"
    ;;
*)
    printf 'there is no method %s\\n' "$1" >&2
    exit 1
    ;;
esac
"""

EXEC_OUTPUT = """\
{
  "type": "object",
  "required": ["characters", "lines"],
  "properties": {
    "characters": { "type": "integer", "minimum": 0 },
    "lines": { "type": "integer", "minimum": 0 }
  },
  "additionalProperties": false
}
"""

EXEC_POLICY = """\
# Lets this one plugin use the shell; everything else stays as the built-in policy has it.
schema = "plugsec.policy/1"
extends = ["builtin:strict"]

[[grant]]
id = "shell-for-{plugin}"
plugins = ["{name}"]
exec = ["{shell}"]
"""

EXEC_TEST = '''\
"""Runs the program outside the jail: python -m pytest, or python -m unittest discover tests."""

import json
import os
import subprocess
import unittest

PLUGIN = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PROGRAM = os.path.join(PLUGIN, "bin", "{module}")


def run(method: str, text: bytes) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([PROGRAM, method], input=text, capture_output=True, timeout=60, check=False)


class CountTest(unittest.TestCase):
    def test_counts_characters_and_lines(self) -> None:
        self.assertEqual(json.loads(run("count", b"ab\\ncd").stdout), {{"characters": 4, "lines": 2}})

    def test_example_input_works(self) -> None:
        with open(os.path.join(PLUGIN, "example.input.json"), "rb") as stream:
            self.assertGreater(json.loads(run("count", stream.read()).stdout)["characters"], 0)

    def test_unknown_method_fails(self) -> None:
        self.assertNotEqual(run("nonsense", b"{{}}").returncode, 0)


if __name__ == "__main__":
    unittest.main()
'''
