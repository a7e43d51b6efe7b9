"""The layers by name, what each stops, and what to do where a host lacks one.

Requirements come from the policy: `required`, `allow_degraded`, or both (then the command line may
accept the degradation). `probe_all` tries each layer by doing, in a throw-away process of its own.
"""

import os
from collections.abc import Iterable

from plugsec.errors import HostUnsupported
from plugsec.sandbox import cgroups, launch
from plugsec.sandbox.identity import IdentityUnavailable, choose
from plugsec_signing.typed import NamedTuple

USER_NAMESPACE_ADVICE = (
    "allow unprivileged user namespaces: sysctl kernel.unprivileged_userns_clone=1 (Debian),"
    " user.max_user_namespaces > 0, or an AppArmor profile with `userns,` (Ubuntu 24.04 and later);"
    " inside Docker they need --security-opt seccomp=… or running plugsec on the host"
)


class LayerInfo(NamedTuple):
    """One layer: what it stops, and the administrator's next step where it is missing."""

    name: str
    stops: str
    advice: str


LAYERS = (
    LayerInfo("user-namespace", "any privilege on the host", USER_NAMESPACE_ADVICE),
    LayerInfo("mount-namespace", "seeing or writing the host's files", USER_NAMESPACE_ADVICE),
    LayerInfo("pid-namespace", "seeing or signalling other processes; survivors", USER_NAMESPACE_ADVICE),
    LayerInfo("network-namespace", "any network, loopback of the host included", USER_NAMESPACE_ADVICE),
    LayerInfo("ipc-namespace", "System V objects and queues between runs", USER_NAMESPACE_ADVICE),
    LayerInfo("uts-namespace", "learning or changing the host's name", USER_NAMESPACE_ADVICE),
    LayerInfo("cgroup-namespace", "seeing the host's cgroup tree", USER_NAMESPACE_ADVICE),
    LayerInfo("landlock", "file access beyond the grant, even through a mount mistake",
              "Linux 5.13 or later with landlock in the lsm= boot parameter"),
    LayerInfo("seccomp", "system calls that no plugin needs", "a kernel with CONFIG_SECCOMP_FILTER"),
    LayerInfo("no-new-privs", "set-id programs", "Linux 3.5 or later"),
    LayerInfo("capabilities", "regaining a capability", USER_NAMESPACE_ADVICE),
    LayerInfo("rlimits", "exhausting files, memory, processes, CPU", "raise the hard limits of your session"),
    LayerInfo("cgroup", "exceeding memory and process limits as a whole tree",
              "delegate a cgroup v2 subtree and set PLUGSEC_CGROUP (docs/user-guide.md), or run as root"),
    LayerInfo("denial-report", "nothing: it explains refused calls",
              "start plugsec outside another seccomp listener"),
)  # fmt: skip
NAMES = tuple(layer.name for layer in LAYERS)


class Probe(NamedTuple):
    """What happened when a layer was tried: `detail` names the version, or the step that failed."""

    name: str
    active: bool
    detail: str


def probe_all() -> tuple[Probe, ...]:
    """Try every layer by doing; takes about 40 ms each."""
    return tuple(probe(layer.name) for layer in LAYERS)


def probe(name: str) -> Probe:
    """Try one layer in a throw-away process."""
    if name == "cgroup":
        return _probe_cgroup()
    try:
        identity = choose()
    except IdentityUnavailable as error:
        return Probe(name, name not in {"user-namespace", "mount-namespace"}, str(error))
    boot = launch.spawn()
    try:
        report = boot.probe(name, identity)
    except launch.EnterFailed as error:
        return Probe(name, False, f"{error.step}: {error.detail}")
    finally:
        boot.reap()
        if identity.lock_fd >= 0:
            os.close(identity.lock_fd)
    if report["at"] == "failed":
        return Probe(name, False, f"{report['step']}: {report['detail']}")
    return Probe(name, True, str(report.get("detail", "")))


def _probe_cgroup() -> Probe:
    try:
        cgroup = cgroups.create(f"probe-{os.getpid()}")
    except cgroups.CgroupUnavailable as error:
        return Probe("cgroup", False, str(error))
    try:
        cgroup.limit(memory_bytes=64 * 1024 * 1024, processes=8)
    except OSError as error:
        return Probe("cgroup", False, f"{error.filename}: {error.strerror}")
    finally:
        cgroup.remove()
    return Probe("cgroup", True, f"version {cgroup.version}")


def require(missing: str, detail: str, tolerated: Iterable[str]) -> None:
    """Accept the missing layer if the policy tolerates it; raises HostUnsupported otherwise."""
    if missing in tolerated:
        return
    advice = next((layer.advice for layer in LAYERS if layer.name == missing), "")
    raise HostUnsupported(
        f"this host cannot enforce the layer {missing}, which the policy requires ({detail});"
        " nothing was started",
        f"{advice}; `plugsec doctor` shows every layer" if advice else "see `plugsec doctor`",
    )
