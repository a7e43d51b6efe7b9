"""What programs need of the host in order to run at all: shared libraries, device nodes, a clock's zones.

Only directories that exist, each resolved to its real path, plus the top-level links (`/lib64` and the
like) that loaders are named by.
"""

import os

from plugsec_plugins.runtimes.plan import Bind

_TRIPLETS = {"x86_64": "x86_64-linux-gnu", "aarch64": "aarch64-linux-gnu"}
_TOP_LEVEL = ("/lib", "/lib64", "/bin", "/sbin")
_DEVICES = ("null", "zero", "full", "random", "urandom")
_FILES = ("/etc/ld.so.cache", "/usr/share/zoneinfo")


def library_binds() -> tuple[tuple[Bind, ...], tuple[tuple[str, str], ...]]:
    """Read-only library directories and the links that lead to them."""
    triplet = _TRIPLETS.get(os.uname().machine, "")
    candidates = [f"/lib/{triplet}", f"/usr/lib/{triplet}", "/lib64", "/usr/lib64"]
    if not any(os.path.isdir(path) for path in candidates[:2]):
        candidates += ["/lib", "/usr/lib"]  # musl distributions, and those that use lib64 beside lib
    real = {os.path.realpath(path) for path in candidates if os.path.isdir(path)}
    outer = [path for path in sorted(real) if not any(path.startswith(other + "/") for other in real)]
    links = tuple((path, os.readlink(path)) for path in _TOP_LEVEL if os.path.islink(path))
    files = [path for path in _FILES if os.path.exists(path) and os.path.realpath(path) == path]
    binds = [*(Bind(path, path, libraries=True) for path in outer), *(Bind(path, path) for path in files)]
    return tuple(binds), links


def device_binds() -> tuple[Bind, ...]:
    """The five nodes of /dev that programs expect."""
    return tuple(Bind(f"/dev/{name}", f"/dev/{name}", device=True) for name in _DEVICES)
