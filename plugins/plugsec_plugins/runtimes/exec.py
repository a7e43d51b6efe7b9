"""The `exec` kind, dialect `oneshot`: `PROGRAM METHOD`, input on stdin, result on stdout.

The program is an ELF file of the bundle (static or dynamic) or a script whose interpreter was granted
by the `exec` permission. What it needs of the host is found by our own bounded ELF reader, never by
`ldd`, which runs the program's own loader.
"""

import os

from plugsec_plugins.elf import Elf, parse_elf, read_elf
from plugsec_plugins.errors import ElfMalformed, ManifestMalformed, RuntimeUnsupported
from plugsec_plugins.manifest import Manifest, check_machine
from plugsec_plugins.runtimes import system
from plugsec_plugins.runtimes.interface import ReadPayload
from plugsec_plugins.runtimes.plan import Bind, LaunchPlan
from plugsec_policies.errors import PermissionRefused
from plugsec_policies.permissions import BUNDLE_ROOT
from plugsec_signing.typed import NamedTuple

_SHEBANG_BYTES_MAX = 255  # BINPRM_BUF_SIZE is 256, the kernel's own bound
_PLUGIN_DIR = "/plugin"


class InterpreterNotGranted(PermissionRefused):
    """A script names an interpreter that the `exec` permission does not grant (exit 1)."""

    id = "PLG-PERM-021"


class ExecAdapter:
    """Plans the launch of a native program or a script."""

    def prepare(
        self, manifest: Manifest, method: str, programs: tuple[str, ...], read_payload: ReadPayload
    ) -> LaunchPlan:
        """Plan the launch; raises PluginError or InterpreterNotGranted when it cannot start."""
        check_machine(manifest, os.uname().machine)
        sizes = {entry.path: entry.size for entry in manifest.envelope.files}
        entry = manifest.runtime.entry
        libraries, links = system.library_binds()
        binds = [*libraries, *system.device_binds()]
        executables: list[str] = []
        for program in programs:
            if program.startswith(BUNDLE_ROOT + "/"):
                path = program.removeprefix(BUNDLE_ROOT + "/")
                executables += _bundle_program(path, sizes[path], read_payload)
            else:
                found = _host_program(program)
                binds.append(Bind(program, program, exec=True))
                executables += found
        head = read_payload(entry, _SHEBANG_BYTES_MAX)
        if head.startswith(b"#!"):
            start = _script(entry, head, programs)
        else:
            executables += _bundle_program(entry, sizes[entry], read_payload)
            start = (f"{_PLUGIN_DIR}/{entry}",)
        return LaunchPlan(
            kind="exec",
            binds=tuple(binds),
            links=links,
            program=(*start, *manifest.runtime.args, method),
            executables=tuple(dict.fromkeys(executables)),
            python_path=(),
            dialect="oneshot",
        )


class _Interpreter(NamedTuple):
    path: str
    argument: tuple[str, ...]


def _script(entry: str, head: bytes, programs: tuple[str, ...]) -> tuple[str, ...]:
    """The argv that the kernel would make of a `#!` line (execve(2)), with the interpreter's real path."""
    line, newline, _ = head.partition(b"\n")
    if not newline and len(head) >= _SHEBANG_BYTES_MAX:
        raise ManifestMalformed(f"the first line of {entry} is too long", "shorten its #! line")
    words = line[2:].decode("utf-8", "replace").strip().split(None, 1)
    if not words or not words[0].startswith("/"):
        raise ManifestMalformed(f"{entry} names no interpreter", 'begin it with, say, "#!/bin/sh"')
    interpreter = _Interpreter(os.path.realpath(words[0]), tuple(words[1:]))
    if interpreter.path not in programs:
        raise InterpreterNotGranted(
            f"{entry} is a script for {words[0]} ({interpreter.path} on this host), which is not granted",
            f'the plugin must ask: [[permission]] name = "exec", programs = ["{interpreter.path}"],'
            " and the policy must grant it",
        )
    return (interpreter.path, *interpreter.argument, f"{_PLUGIN_DIR}/{entry}")


def _bundle_program(path: str, size: int, read_payload: ReadPayload) -> list[str]:
    """What may be executed so that a program of the bundle can start: itself and its loader."""
    content = read_payload(path, size)
    if content.startswith(b"#!"):
        return [f"{_PLUGIN_DIR}/{path}"]
    elf = parse_elf(lambda at, count: content[at : at + count], len(content))
    return [f"{_PLUGIN_DIR}/{path}", *_loader(elf, path)]


def _host_program(path: str) -> list[str]:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise RuntimeUnsupported(
            f"the granted program {path} cannot be opened: {error.strerror}",
            "install it, or take it out of the permission",
        ) from error
    try:
        elf = read_elf(fd)
    except ElfMalformed:
        return [path]  # a script of the host; its interpreter needs a grant of its own
    finally:
        os.close(fd)
    return [path, *_loader(elf, path)]


def _loader(elf: Elf, path: str) -> list[str]:
    machine = os.uname().machine
    if elf.machine != machine:
        raise RuntimeUnsupported(
            f"{path} is a program for {elf.machine}, this machine is {machine}",
            f"ask the publisher for a bundle built for {machine}",
        )
    if elf.interpreter is None:
        return []
    real = os.path.realpath(elf.interpreter)
    if not os.path.isfile(real):
        raise RuntimeUnsupported(
            f"{path} needs the loader {elf.interpreter}, which this host does not have",
            "ask for a static build, or install the C library it was built for",
        )
    return [real]
