"""A tap on a module's calls of the system: each is named, counted, and can be made to fail.

It sits in the globals of plugsec's own modules (`mounts.os`, `linux._libc`, …), put there by a test; the
product has no switch that would let it in. The same code serves in boot, where a generated boot script
installs it before `enter.main()`, and in the supervisor, where a test does. Standard library only: boot
imports it.
"""

import _socket
import builtins
import ctypes
import fcntl
import mmap
import os
import resource
import select
import signal
import sys
import time
import types
from collections.abc import Callable
from typing import Any

SLOWLY = 10_000  # added to an errno: it comes after SLOW_S
SLOW_S = 0.3  # in which any other process of the jail gets as far as it can
DIES, CRASHES = -1, -2  # instead of an errno: the process leaves without a word; it dies of SIGSEGV

TAPPED = {module.__name__: module for module in (os, fcntl, resource, select, signal, _socket)}
# Not system calls, or not ones that can be seen from Python: text, constants, the process's own end.
_PURE = frozenset(
    "fsencode fsdecode fspath strerror _exit WIFSIGNALED WTERMSIG CMSG_SPACE valid_signals get_exec_path".split()
)
_QUESTIONS = frozenset("exists lexists isdir isfile".split())  # of os.path: they answer False for any errno
_AFTER = frozenset({"os.close", "socket.close"})  # close(2): whatever it answers, the descriptor is gone

_OPTIONS = ("PR_SET_", "PR_GET_", "PR_CAPBSET_", "PR_CAP_AMBIENT")
_OPERANDS = frozenset({"PR_CAP_AMBIENT_CLEAR_ALL"})  # of an option, not options themselves

Seen = Callable[[str, object], int]  # told each call's name and first argument; 0, or how it is to fail


class Tap:
    """Wraps what modules reach the system through; `seen` decides about every call."""

    def __init__(self, seen: Seen) -> None:
        self._seen = seen
        self._undo: list[tuple[types.ModuleType, str, Any]] = []

    def install(self, modules: list[types.ModuleType]) -> None:
        """Put the tap into the globals of these modules."""
        for module in modules:
            names = vars(module)
            for name, value in list(names.items()):
                if isinstance(value, types.ModuleType) and value.__name__ in TAPPED:
                    self._replace(module, name, _TappedModule(value, self))
                elif isinstance(value, ctypes.CDLL):
                    self._replace(module, name, _TappedLibrary(value, module, self))
            self._replace(module, "open", self.wrap("open", builtins.open))

    def remove(self) -> None:
        """Take it out again."""
        for module, name, value in reversed(self._undo):
            if value is None:
                delattr(module, name)
            else:
                setattr(module, name, value)
        self._undo.clear()

    def wrap(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        """The call, with the tap before it (or behind it where the call takes effect even so)."""

        def tapped(*arguments: Any, **named: Any) -> Any:
            fault = self._seen(name, arguments[0] if arguments else None)
            if not fault:
                return real(*arguments, **named)
            fault = die_of(fault)
            if name in _AFTER:
                real(*arguments, **named)
            raise OSError(fault, os.strerror(fault), name)

        return tapped

    def ask(self, name: str, real: Callable[..., bool]) -> Callable[..., bool]:
        """A question of os.path, which answers no where the call beneath it fails."""

        def tapped(path: Any) -> bool:
            fault = self._seen(name, path)
            if fault:
                die_of(fault)
                return False
            return real(path)

        return tapped

    def raw(self, name: str, real: Callable[..., int], *arguments: Any) -> int:
        """A call of the C library, which says -1 and leaves an errno."""
        fault = self._seen(name, None)
        if not fault:
            return real(*arguments)
        fault = die_of(fault)
        ctypes.set_errno(fault)
        return -1

    def socket(self) -> type:
        """A socket class whose messages go through the tap."""
        tap = self

        class Tapped(_socket.socket):
            def __init__(self, *arguments: Any) -> None:
                super().__init__(*arguments)
                for name in ("sendmsg", "recvmsg", "close"):
                    setattr(self, name, tap.wrap(f"socket.{name}", getattr(super(), name)))

        return Tapped

    def _replace(self, module: types.ModuleType, name: str, value: Any) -> None:
        self._undo.append((module, name, vars(module).get(name)))
        setattr(module, name, value)


class _TappedModule:
    def __init__(self, module: types.ModuleType, tap: Tap) -> None:
        self._module, self._tap = module, tap

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._module, name)
        if name in _PURE or not callable(value):
            tapped = _TappedPath(self._tap) if name == "path" else value
        elif name == "socket" and isinstance(value, type):
            tapped = self._tap.socket()
        elif isinstance(value, type):
            tapped = value
        else:
            tapped = self._tap.wrap(f"{self._module.__name__.lstrip('_')}.{name}", value)
        self.__dict__[name] = tapped
        return tapped


class _TappedPath:
    def __init__(self, tap: Tap) -> None:
        self._tap = tap

    def __getattr__(self, name: str) -> Any:
        value = getattr(os.path, name)
        tapped = self._tap.ask(f"os.path.{name}", value) if name in _QUESTIONS else value
        self.__dict__[name] = tapped
        return tapped


class _TappedLibrary:
    """The C library of linux.py: syscall(2) and prctl(2) are named by what they do."""

    def __init__(self, library: ctypes.CDLL, module: types.ModuleType, tap: Tap) -> None:
        self._library, self._tap = library, tap
        numbers = {**vars(module)["_NR"], **vars(module)["_NR_COMMON"]}
        self._calls = {number: name for name, number in numbers.items()}
        self._options = {
            v: k for k, v in vars(module).items() if k.startswith(_OPTIONS) and k not in _OPERANDS
        }

    def __getattr__(self, name: str) -> Callable[..., int]:
        real = getattr(self._library, name)

        def tapped(*arguments: Any) -> int:
            return self._tap.raw(self._named(name, arguments), real, *arguments)

        return tapped

    def _named(self, name: str, arguments: tuple[Any, ...]) -> str:
        words = [getattr(word, "value", word) for word in arguments]
        if name == "prctl":
            return f"prctl({self._options[words[0]]})"
        if name != "syscall":
            return name
        call = self._calls[words[0]]
        if call == "landlock_create_ruleset" and words[1] is None:
            return f"{call}(version)"
        if call == "seccomp":
            return f"{call}(listener)" if words[2] else call
        return call


def die_of(fault: int) -> int:
    """End this process where the fault is no errno; otherwise the errno, when its time has come."""
    if fault == DIES:
        os._exit(0)
    if fault == CRASHES:
        # No signal that it sends itself: pid 1 of a namespace ignores those, and a filter may stand before it.
        ctypes.string_at(0)
    if fault >= SLOWLY:
        time.sleep(SLOW_S)
    return fault % SLOWLY


# Boot's side --------------------------------------------------------------------------------------------

ROLES = ("boot", "waiter", "init", "plugin")
_LOG_BYTES = 256 * 1024  # for each role
_MARK = len(ROLES) * _LOG_BYTES  # one byte: the fault has been met
LOG_SIZE = _MARK + mmap.PAGESIZE


class BootTap:
    """Names calls by process and layer, and logs them in memory that its maker shares.

    The log is a mapped file: no descriptor, no mount and no filter stands between the jail's processes
    and it. Each process has a part of its own, `ROLES`.
    """

    def __init__(self, log: str, site: str, occurrence: int, fault: int) -> None:
        with open(log, "r+b") as file:
            self._log = mmap.mmap(file.fileno(), LOG_SIZE)
        self._target, self._fault = (site, occurrence), fault
        self._role, self._length = 0, 0
        self._counts: dict[str, int] = {}

    def install(self) -> None:
        """Tap every module of the sandbox that boot has imported."""
        from plugsec.sandbox import enter

        self._enter = enter._Step
        resource.setrlimit(
            resource.RLIMIT_CORE, (0, 0)
        )  # a crash leaves no file; the jail has this limit anyway
        modules = [module for name, module in sys.modules.items() if name.startswith("plugsec.sandbox.")]
        Tap(self._seen).install(modules)
        tapped_fork = enter.os.fork

        def fork() -> int:
            child = int(tapped_fork())
            self._forked(child == 0)
            return child

        enter.os.fork = fork

    def _forked(self, child: bool) -> None:
        role = ROLES[self._role]
        if role == "boot":
            self._role, self._length = ROLES.index("init" if child else "waiter"), 0
        elif child:
            self._role, self._length = ROLES.index("plugin"), 0

    def _seen(self, name: str, _about: object) -> int:
        site = f"{ROLES[self._role]} {self._enter.layer} {name}"
        number = self._counts[site] = self._counts.get(site, 0) + 1
        line = f"{site}\n".encode()
        start = self._role * _LOG_BYTES + self._length
        self._length += len(line)
        if self._length < _LOG_BYTES:
            self._log[start : start + len(line)] = line
        if (site, number) != self._target:
            return 0
        self._log[_MARK] = 1
        return self._fault


def read_log(log: str) -> tuple[list[str], bool]:
    """Every call that was logged, a process after the other, and whether the fault was met."""
    with open(log, "rb") as file:
        data = file.read(LOG_SIZE)
    sites: list[str] = []
    for role in range(len(ROLES)):
        part = data[role * _LOG_BYTES : (role + 1) * _LOG_BYTES].rstrip(b"\0")
        sites += part.decode().splitlines()
    return sites, data[_MARK] == 1
