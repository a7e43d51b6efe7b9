"""`plugsec new`: a small plugin that works at once, with a test, for its author to change.

The files are real: what is written here is packed, tested and run by our own tests
(tests/plugins/test_scaffold.py), so a newcomer starts from something that is known to work.
"""

import os
import shutil
from typing import NamedTuple

from plugsec_plugins.errors import ScaffoldRefused
from plugsec_plugins.fields import KINDS, PLANNED_KINDS
from plugsec_policies.suggest import did_you_mean
from plugsec_signing.envelope import check_name
from plugsec_signing.errors import SigningError


class Scaffolded(NamedTuple):
    """A new plugin: its directory, the files in it, and what its author may type next."""

    directory: str
    files: tuple[str, ...]
    next_steps: tuple[str, ...]


class _File(NamedTuple):
    path: str
    text: str
    executable: bool = False


def scaffold(name: str, kind: str = "python", directory: str | None = None) -> Scaffolded:
    """Make the plugin `publisher/plugin` of a runtime kind in a new directory, by default named as the plugin.

    Raises ScaffoldRefused; then nothing was made.
    """
    try:
        _, plugin = check_name(name)
    except SigningError as err:
        raise ScaffoldRefused(err.message, "write for instance plugsec new acme/wordfreq") from err
    if kind not in KINDS:
        later = f"{kind} is not supported yet; the kinds are {', '.join(KINDS)}"
        raise ScaffoldRefused(
            f"there is no scaffold for the runtime {kind}",
            later if kind in PLANNED_KINDS else did_you_mean(kind, KINDS),
        )
    files = _python(name, plugin) if kind == "python" else _exec(name, plugin, _shell())
    target = directory or plugin
    _write(target, files)
    return Scaffolded(target, tuple(file.path for file in files), _next_steps(target, plugin, kind))


def _next_steps(target: str, plugin: str, kind: str) -> tuple[str, ...]:
    policy = f" --policy {target}/policy.toml" if kind == "exec" else ""
    test = (
        f"python -m pytest {target}" if kind == "python" else f"sh {target}/tests/test_{_module(plugin)}.sh"
    )
    return (
        test,
        f"plugsec pack {target}",
        f"plugsec run {plugin}-0.1.0.plug count --input {target}/example.input.json{policy} --unsafe-unsigned",
    )


def _write(target: str, files: tuple[_File, ...]) -> None:
    try:
        os.mkdir(target)
    except OSError as err:
        raise ScaffoldRefused(
            f"the directory {target} cannot be made: {err.strerror}",
            "choose another name, or remove it if you do not need it",
        ) from err
    try:
        for file in files:
            path = os.path.join(target, file.path)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "x", encoding="utf-8") as out:
                out.write(file.text)
            if file.executable:
                os.chmod(path, 0o755)
    except OSError as err:
        shutil.rmtree(target, ignore_errors=True)
        raise ScaffoldRefused(
            f"{err.filename} cannot be written: {err.strerror}", "make room and try again"
        ) from err


def _module(plugin: str) -> str:
    """Turn a plugin's name into that of a Python module: `word-freq.2` becomes `word_freq_2`."""
    word = "".join(letter if letter.isalnum() else "_" for letter in plugin)
    return word if word[0].isalpha() else f"plugin_{word}"


# Python ----------------------------------------------------------------------------------------------------

_PYTHON_TOML = """\
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

_PYTHON_CODE = '''\
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
    return {{"words": words.total(), "different": len(words), "most_common": dict(words.most_common(MOST_COMMON))}}


def input_files() -> list[str]:
    """Return the names of the files that this run was given, none outside the jail."""
    directory = os.environ.get("INPUT", "")
    return sorted(os.listdir(directory)) if directory and os.path.isdir(directory) else []
'''

_PYTHON_OUTPUT = """\
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

_PYTHON_TEST = '''\
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

_EXAMPLE = '{{"text": "the quick brown fox jumps over the lazy dog"}}\n'


def _python(name: str, plugin: str) -> tuple[_File, ...]:
    module = _module(plugin)
    values = {"name": name, "module": module, "pad": " " * max(1, 24 - len(module))}
    return (
        _File("plugin.toml", _PYTHON_TOML.format(**values)),
        _File(f"{module}.py", _PYTHON_CODE.format(**values)),
        _File("schemas/count.output.json", _PYTHON_OUTPUT),
        _File("example.input.json", _EXAMPLE.format()),
        _File(f"tests/test_{module}.py", _PYTHON_TEST.format(**values)),
    )


# Programs --------------------------------------------------------------------------------------------------

_EXEC_TOML = """\
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
input = {{ type = "object", required = ["text"], properties = {{ text = {{ type = "string", maxLength = 100000 }} }}, \
additionalProperties = false }}
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

_EXEC_CODE = """\
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

_EXEC_OUTPUT = """\
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

_EXEC_POLICY = """\
# Lets this one plugin use the shell; everything else stays as the built-in policy has it.
schema = "plugsec.policy/1"
extends = ["builtin:strict"]

[[grant]]
id = "shell-for-{plugin}"
plugins = ["{name}"]
exec = ["{shell}"]
"""

_EXEC_TEST = """\
#!{shell}
# Runs the program as the jail does, but outside it: sh tests/test_{module}.sh
set -eu
here=$(cd "$(dirname "$0")/.." && pwd)

check() {{
    if [ "$2" != "$3" ]; then
        printf 'FAILED %s: got %s, not %s\\n' "$1" "$2" "$3" >&2
        exit 1
    fi
    printf 'ok %s\\n' "$1"
}}

check 'counts characters and lines' "$(printf 'ab\\ncd' | "$here/bin/{module}" count)" '{{"characters": 4, "lines": 2}}'
check 'accepts the example' "$("$here/bin/{module}" count < "$here/example.input.json" | cut -c 1-14)" '{{"characters":'
if "$here/bin/{module}" nonsense < /dev/null 2> /dev/null; then
    printf 'FAILED: an unknown method was accepted\\n' >&2
    exit 1
fi
printf 'ok refuses an unknown method\\n'
"""


def _shell() -> str:
    """Return the real path of this host's shell: permissions are about real paths."""
    return os.path.realpath("/bin/sh")


def _exec(name: str, plugin: str, shell: str) -> tuple[_File, ...]:
    values = {"name": name, "plugin": plugin, "module": _module(plugin), "shell": shell}
    return (
        _File("plugin.toml", _EXEC_TOML.format(**values)),
        _File(f"bin/{values['module']}", _EXEC_CODE.format(**values), executable=True),
        _File("schemas/count.output.json", _EXEC_OUTPUT),
        _File("example.input.json", _EXAMPLE.format()),
        _File("policy.toml", _EXEC_POLICY.format(**values)),
        _File(f"tests/test_{values['module']}.sh", _EXEC_TEST.format(**values), executable=True),
    )
