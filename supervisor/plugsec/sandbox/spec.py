"""What boot is told to do: the frozen, already decided description of one jail.

It crosses from the supervisor to boot as JSON in a sealed memory file; descriptors travel beside it
in the order that the fields say. Boot decides nothing: every member is either a command or a name for
a report. Sizes in bytes, times in milliseconds.
"""

import json

from plugsec_plugins.runtimes.plan import Bind
from plugsec_signing.typed import Any, NamedTuple

SPEC_BYTES_MAX = 64 * 1024 * 1024  # 100,000 payload files at some 300 bytes each, with room to spare
MESSAGE_BYTES_MAX = 4096  # every message on the control socket fits one packet of this size
DESCRIPTORS_MAX = 250  # SCM_MAX_FD is 253 (include/net/scm.h)

PLUGIN_DIR, INPUT_DIR, OUTPUT_DIR, TMP_DIR = "/plugin", "/input", "/output", "/tmp"  # noqa: S108
JAIL_UID = 1000
RPC_FD = 3
# What keeps pid 1 and the waiter above it alive beside the plugin, counted by RLIMIT_NPROC and pids.max.
OWN_PROCESSES = 2

# Descriptors that boot is started with: 0-2 the plugin's streams, 3 the call channel, 4 the control socket.
CONTROL_FD = 4


class File(NamedTuple):
    """A payload file: `size` bytes at `offset` of the payload's memory file, mode 0o644 or 0o755."""

    path: str
    mode: int
    offset: int
    size: int


class SandboxSpec(NamedTuple):
    """Everything that boot needs to build one jail and start one plugin in it."""

    kind: str  # "python" or "exec"
    binds: tuple[Bind, ...]
    links: tuple[tuple[str, str], ...]  # (path, target): the host's own, such as /lib64
    files: tuple[File, ...]  # empty: the payload's descriptor is the installed directory, to be mounted
    inputs: tuple[str, ...]  # names under /input; their descriptors follow the payload's
    input_bytes: int
    output: bool  # a writable /output exists
    tmp_bytes: int
    tmp_inodes: int
    rlimits: tuple[tuple[int, int, int], ...]  # (resource, soft, hard)
    landlock_may_miss: bool  # the policy allows a kernel without Landlock
    write_exec_memory: bool  # the `jit` permission
    setgroups: bool  # root's run: drop supplementary groups inside
    seccomp: bytes  # with USER_NOTIF as the default action
    seccomp_silent: bytes  # the same with ERRNO; b"" when denial-report is required
    seccomp_init: bytes
    environment: tuple[tuple[str, str], ...]
    program: tuple[str, ...]  # exec: path and arguments; python: the entry module
    program_exec: tuple[str, ...]  # paths inside /plugin that Landlock lets be executed
    python_path: tuple[str, ...]


def encode(spec: SandboxSpec) -> bytes:
    """Serialise for boot."""
    plain: dict[str, Any] = spec._asdict()
    for name in ("seccomp", "seccomp_silent", "seccomp_init"):
        plain[name] = plain[name].hex()
    return json.dumps(plain, separators=(",", ":")).encode()


def decode(data: bytes) -> SandboxSpec:
    """The inverse of `encode`; the bytes come from the supervisor and are trusted."""
    plain: dict[str, Any] = json.loads(data)
    for name in ("seccomp", "seccomp_silent", "seccomp_init"):
        plain[name] = bytes.fromhex(plain[name])
    plain["binds"] = tuple(Bind(*b) for b in plain["binds"])
    plain["files"] = tuple(File(*f) for f in plain["files"])
    for name in ("inputs", "program", "program_exec", "python_path"):
        plain[name] = tuple(plain[name])
    for name in ("rlimits", "environment", "links"):
        plain[name] = tuple(tuple(pair) for pair in plain[name])
    return SandboxSpec(**plain)
