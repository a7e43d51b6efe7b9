"""Refused calls, explained: what was asked, with which argument, and what would ask for it.

The numbers are the guest's; nothing is read from its memory. Names for the few argument values that
matter to a reader are from the man pages and uapi headers.
"""

import json

from plugsec_signing.typed import NamedTuple

DISTINCT_MAX = 500  # kinds of denial kept apart; the rest are counted together
_DETAIL_CHARACTERS_MAX = 300

_FAMILIES = {
    1: "AF_UNIX", 2: "AF_INET", 10: "AF_INET6", 16: "AF_NETLINK", 17: "AF_PACKET", 38: "AF_ALG",
    40: "AF_VSOCK",
}  # fmt: skip
_NETWORK = frozenset("socket connect bind listen accept accept4".split())
_PROCESS = frozenset("fork vfork clone kill tkill setsid setpgid pidfd_open".split())
_SIGNALS = {9: "SIGKILL", 15: "SIGTERM", 19: "SIGSTOP"}


class Denial(NamedTuple):
    """One kind of refusal and how often: `source` is "kernel", or "claimed" by the plugin's own runtime."""

    layer: str
    call: str
    detail: str
    count: int  # type: ignore[assignment]  # hides tuple.count; the JSON field has this name
    source: str
    hint: str


class DenialCounter:
    """Aggregates denials; `total` counts every one of the kernel's."""

    def __init__(self) -> None:
        self.total = 0
        self._counts: dict[tuple[str, str, str, str], int] = {}

    def refuse(self, call: str, arguments: tuple[int, ...]) -> None:
        """Count a call that the listener refused."""
        self.total += 1
        self._add(("seccomp", call, describe(call, arguments), "kernel"))

    def claim(self, call: str, path: str) -> None:
        """Count a file refusal that the plugin's own interpreter reported."""
        self._add(("mount-namespace", call, path[:_DETAIL_CHARACTERS_MAX], "claimed"))

    def collected(self) -> tuple[Denial, ...]:
        """Every kind in the order of its first appearance."""
        return tuple(
            Denial(layer, call, detail, count, source, hint(call, detail, source))
            for (layer, call, detail, source), count in self._counts.items()
        )

    def _add(self, key: tuple[str, str, str, str]) -> None:
        if key not in self._counts and len(self._counts) >= DISTINCT_MAX:
            key = (key[0], "(others)", "", key[3])
        self._counts[key] = self._counts.get(key, 0) + 1


def describe(  # noqa: PLR0911 - one line for each kind of call
    call: str, arguments: tuple[int, ...]
) -> str:
    """The arguments that tell a reader what was wanted."""
    first, second, third = arguments[:3]
    match call:
        case "socket" | "socketpair":
            return _FAMILIES.get(first & 0xFFFFFFFF, f"family {first & 0xFFFFFFFF}")
        case "kill" | "tkill":
            pid = (first & 0xFFFFFFFF) - (1 << 32 if first & 0x80000000 else 0)
            return f"pid {pid}, {_SIGNALS.get(second & 0xFF, f'signal {second & 0xFF}')}"
        case "ioctl":
            return f"request {second & 0xFFFFFFFF:#x}"
        case "mmap" | "mprotect":
            return "executable memory" if third & 4 else f"protection {third:#x}"
        case "clone" | "unshare":
            return f"flags {first:#x}"
        case "prctl":
            return f"option {first}"
        case "personality":
            return f"{first:#x}"
        case _:
            return ""


def _quoted(text: str) -> str:
    """A TOML basic string: the path is the plugin's word and must not end the quotes."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def hint(call: str, detail: str, source: str) -> str:
    """The manifest line that would ask for it, or "" where no permission allows the call."""
    if source == "claimed":
        name = "fs.read" if call in {"read", "listdir", "scandir", "chdir"} else "fs.write"
        return f'[[permission]] name = "{name}", paths = [{_quoted(detail)}]'
    if call in _NETWORK:
        return '[[permission]] name = "net" (not supported yet)'
    if call in _PROCESS:
        return '[[permission]] name = "process", max = 8'
    if call == "execve":
        return '[[permission]] name = "exec", programs = ["/usr/bin/…"]'
    if call in {"mmap", "mprotect"} and detail == "executable memory":
        return '[[permission]] name = "jit"'
    return ""
