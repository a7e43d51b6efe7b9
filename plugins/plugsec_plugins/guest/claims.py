"""File refusals as the plugin's own interpreter sees them.

Mounts and Landlock refuse without telling anyone. An audit hook (PEP 578) sees every path that Python
code is about to open and claims a denial for what lies outside the jail's trees. The plugin's code
could lie or silence it, hence `claimed`: it explains, the kernel enforces.
"""

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

CLAIMS_MAX = 200  # a loop over many paths must not flood the call channel
_READS = frozenset({"os.listdir", "os.scandir", "os.chdir"})
_WRITES = frozenset(
    {"os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.chmod", "os.chown", "os.link", "os.symlink",
     "os.truncate", "os.utime", "os.mkfifo", "os.mknod"}
)  # fmt: skip
_ALWAYS_READABLE = ("/proc", "/dev", "/etc/passwd", "/etc/group", "/etc/nsswitch.conf", "/etc/hosts")
_WRITE_FLAGS = 0o1 | 0o2 | 0o100 | 0o1000  # O_WRONLY, O_RDWR, O_CREAT, O_TRUNC


def install(
    claim: "Callable[[str, str], None]", readable: tuple[str, ...], writable: tuple[str, ...]
) -> None:
    """Call `claim(call, path)` for each path outside the given trees, at most CLAIMS_MAX times."""
    left = [CLAIMS_MAX]
    readable = (*readable, *writable, *_ALWAYS_READABLE)
    seen: set[tuple[str, str]] = set()
    busy = [False]

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        if busy[0] or not left[0]:
            return
        if event == "open":
            flags = arguments[2] if len(arguments) > 2 else 0
            writes = isinstance(flags, int) and bool(flags & _WRITE_FLAGS)
        elif event in _READS:
            writes = False
        elif event in _WRITES:
            writes = True
        else:
            return
        path = _absolute(arguments[0]) if arguments else None
        if path is None or _beneath(path, writable if writes else readable):
            return
        busy[0] = True
        try:
            call = ("write" if writes else "read") if event == "open" else event.removeprefix("os.")
            if (call, path) not in seen:
                seen.add((call, path))
                left[0] -= 1
                claim(call, path)
        finally:
            busy[0] = False

    sys.addaudithook(hook)


def _absolute(argument: object) -> str | None:
    """The path as an absolute one, lexically; None for descriptors and what is no path."""
    if isinstance(argument, bytes):
        argument = argument.decode("utf-8", "backslashreplace")
    if not isinstance(argument, str) or not argument:
        return None
    if not argument.startswith("/"):
        argument = "/tmp/" + argument  # noqa: S108 - the jail's working directory
    parts: list[str] = []
    for part in argument.split("/"):
        if part == "..":
            if parts:
                parts.pop()
        elif part not in {"", "."}:
            parts.append(part)
    return "/" + "/".join(parts)


def _beneath(path: str, trees: tuple[str, ...]) -> bool:
    return any(path == tree or path.startswith(tree + "/") for tree in trees)
