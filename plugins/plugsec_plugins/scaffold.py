"""`plugsec new`: a small plugin that works at once, with a test, for its author to change.

The files are real: what is written here is packed, tested and run by our own tests
(tests/plugins/test_scaffold.py), so a newcomer starts from something that is known to work.
"""

import keyword
import os
import shutil
import sys

from plugsec_plugins import scaffold_text as text
from plugsec_plugins.errors import ScaffoldRefused
from plugsec_plugins.fields import KINDS, PLANNED_KINDS
from plugsec_policies.suggest import did_you_mean
from plugsec_signing.envelope import check_name
from plugsec_signing.errors import SigningError
from plugsec_signing.typed import NamedTuple


class Scaffolded(NamedTuple):
    """A new plugin: its directory, the files in it, and what its author may type next."""

    directory: str
    files: tuple[str, ...]
    next_steps: tuple[str, ...]


class _File(NamedTuple):
    path: str
    content: str
    executable: bool = False


def scaffold(name: str, kind: str = "python", directory: str | None = None) -> Scaffolded:
    """Make the plugin `publisher/plugin` of a runtime kind in a new directory, by default of its name.

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
    options = f"{policy} --unsafe-unsigned"
    return (
        f"python -m pytest {target}",
        f"plugsec pack {target}",
        f"plugsec run {plugin}-0.1.0.plug count --input {target}/example.input.json{options}",
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
                out.write(file.content)
            if file.executable:
                os.chmod(path, 0o755)  # noqa: S103 - programs are executable for everybody
    except OSError as err:
        shutil.rmtree(target, ignore_errors=True)
        raise ScaffoldRefused(
            f"{err.filename} cannot be written: {err.strerror}", "make room and try again"
        ) from err


def _module(plugin: str) -> str:
    """Turn a plugin's name into that of a Python module: `word-freq.2` becomes `word_freq_2`."""
    word = "".join(letter if letter.isalnum() else "_" for letter in plugin)
    # A module called json or class would hide the library's, or could not be imported at all.
    taken = keyword.iskeyword(word) or word in sys.stdlib_module_names
    return f"plugin_{word}" if taken or not word[0].isalpha() else word


def _python(name: str, plugin: str) -> tuple[_File, ...]:
    module = _module(plugin)
    values = {"name": name, "module": module, "pad": " " * max(1, 24 - len(module))}
    return (
        _File("plugin.toml", text.PYTHON_TOML.format(**values)),
        _File(f"{module}.py", text.PYTHON_CODE.format(**values)),
        _File("schemas/count.output.json", text.PYTHON_OUTPUT),
        _File("example.input.json", text.EXAMPLE.format()),
        _File(f"tests/test_{module}.py", text.PYTHON_TEST.format(**values)),
    )


def _shell() -> str:
    """Return the real path of this host's shell: permissions are about real paths."""
    return os.path.realpath("/bin/sh")


def _exec(name: str, plugin: str, shell: str) -> tuple[_File, ...]:
    values = {"name": name, "plugin": plugin, "module": _module(plugin), "shell": shell}
    return (
        _File("plugin.toml", text.EXEC_TOML.format(**values)),
        _File(f"bin/{values['module']}", text.EXEC_CODE.format(**values), executable=True),
        _File("schemas/count.output.json", text.EXEC_OUTPUT),
        _File("example.input.json", text.EXAMPLE.format()),
        _File("policy.toml", text.EXEC_POLICY.format(**values)),
        _File(f"tests/test_{values['module']}.py", text.EXEC_TEST.format(**values)),
    )
