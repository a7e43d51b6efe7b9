"""What a policy demands of the host: for each layer of the jail, whether it may be missing.

There are four levels for a layer, from lax to strict: not listed; `allow_degraded` (may be missing, and the
receipt says so); `required` and `allow_degraded` (may be missing only when the command line says
`--allow-degraded LAYER`); `required`. The stricter of two policies is the higher level, layer by layer.
"""

from collections.abc import Iterable

from plugsec_policies.errors import DegradationRefused
from plugsec_policies.typed import NamedTuple

LAYERS: tuple[str, ...] = (
    "user-namespace",
    "mount-namespace",
    "pid-namespace",
    "network-namespace",
    "ipc-namespace",
    "uts-namespace",
    "cgroup-namespace",
    "landlock",
    "seccomp",
    "no-new-privs",
    "capabilities",
    "rlimits",
    "cgroup",
    "denial-report",
)
# Nothing can lower these (sandbox.md, "Layers and honesty"): without them a jail is only a directory.
FLOOR = frozenset({"seccomp", "no-new-privs"})


class Isolation(NamedTuple):
    """`required` layers must be enforced, those in `allow_degraded` may be (see the module's first lines)."""

    required: frozenset[str]
    allow_degraded: frozenset[str]


def stricter(a: Isolation, b: Isolation) -> Isolation:
    """Take the stricter demand for each layer."""
    levels = {layer: max(_level(a, layer), _level(b, layer)) for layer in LAYERS}
    return Isolation(
        frozenset(layer for layer, level in levels.items() if level >= 2),
        frozenset(layer for layer, level in levels.items() if level in (1, 2)),
    )


def _level(isolation: Isolation, layer: str) -> int:
    if layer in isolation.required:
        return 2 if layer in isolation.allow_degraded else 3
    return 1 if layer in isolation.allow_degraded else 0


def accept_degradation(isolation: Isolation, layers: Iterable[str], where: str) -> Isolation:
    """Apply `--allow-degraded`: the named layers are no longer required.

    Raises DegradationRefused for a layer that the policy does not list.
    """
    named = frozenset(layers)
    for layer in sorted(named):
        if layer not in isolation.allow_degraded:
            raise DegradationRefused(
                f"--allow-degraded {layer} refused: {where} does not list it in allow_degraded",
                "the policy lists " + (", ".join(sorted(isolation.allow_degraded)) or "none"),
            )
    return Isolation(isolation.required - named, isolation.allow_degraded)
