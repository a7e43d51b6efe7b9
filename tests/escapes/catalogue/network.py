"""No network: not the host's loopback, not its unix sockets, not a datagram; the listener saw nobody."""

import json
import secrets
import socket
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager

from catalogue.interface import ESCAPE, Attack, Batch, Scene, started
from kit.home import Home
from kit.outside import Canary, Visited, canary, listening
from plugsec.outcome import Outcome

GUEST = """
import ctypes, socket
libc = ctypes.CDLL(None, use_errno=True)

def connected(family, kind, address):
    with socket.socket(family, kind) as sock:
        sock.settimeout(2)
        sock.connect(address)
        sock.send(b"out")

def sent(family, kind, address):
    pair = socket.socketpair(socket.AF_UNIX, kind)
    pair[0].sendto(b"x", address)

@plugin.method
def go(targets):
    said = {}
    for name, (family, kind, addresses) in targets.items():
        for address in addresses:
            address = tuple(address) if isinstance(address, list) else address
            for way in (connected, sent):
                try:
                    way(family, kind, address)
                    said[name] = "connected"
                except (OSError, TypeError) as error:
                    said.setdefault(name, "refused")
    return said
"""
KINDS = (
    "TCP",
    "TCP over IPv6",
    "UDP",
    "an abstract unix socket",
    "an abstract unix datagram socket",
    "a unix socket in the file tree",
)
_ENDING = "nobody came"
_BEFORE = "the host's listener is not reached: "


class Target:
    """A listening socket of the host and the addresses by which a plugin would find it."""

    def __init__(self, family: int, kind: int, addresses: list[object], visited: Visited) -> None:
        self.family, self.kind, self.addresses, self.visited = family, kind, addresses, visited


@contextmanager
def listener(name: str, outside: Canary) -> Iterator[Target]:
    """One of KINDS, open for everybody on the host; raises OSError where the host has no such sockets."""
    path = outside.directory / "socket"
    families = {
        "TCP": (socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", 0)),
        "TCP over IPv6": (socket.AF_INET6, socket.SOCK_STREAM, ("::1", 0)),
        "UDP": (socket.AF_INET, socket.SOCK_DGRAM, ("127.0.0.1", 0)),
        "an abstract unix socket": (socket.AF_UNIX, socket.SOCK_STREAM, f"\0plugsec-{secrets.token_hex(8)}"),
        "an abstract unix datagram socket": (
            socket.AF_UNIX, socket.SOCK_DGRAM, f"\0plugsec-{secrets.token_hex(8)}",
        ),
        "a unix socket in the file tree": (socket.AF_UNIX, socket.SOCK_STREAM, str(path)),
    }  # fmt: skip
    family, kind, address = families[name]
    with listening(family, kind, address) as visited:
        addresses: list[object] = [address]
        if path.exists():
            path.chmod(0o777)
            addresses = [str(path), f"/host{path}"]  # the second, where a mount mistake would show it
        elif family != socket.AF_UNIX:
            addresses = [list(visited.sock.getsockname()[:2])]
        yield Target(family, kind, addresses, visited)


def reach(home: Home, targets: Mapping[str, Target]) -> Outcome:
    """Try every address in one jail."""
    call = {"targets": {name: (t.family, t.kind, t.addresses) for name, t in targets.items()}}
    outcome = started(home.attack(GUEST, input=json.dumps(call).encode()))
    assert outcome.error is None, outcome.error
    return outcome


def _nobody_comes(scene: Scene) -> Mapping[str, str]:
    with ExitStack() as stack:
        outside, targets = stack.enter_context(canary()), dict[str, Target]()
        endings = {}
        for name in KINDS:
            try:
                targets[name] = stack.enter_context(listener(name, outside))
            except OSError:  # no IPv6 here: nobody can come
                endings[_BEFORE + name] = _ENDING
        outcome = reach(scene.home, targets)
        for name, target in targets.items():
            visits, said = target.visited.count(), outcome.result[name]
            endings[_BEFORE + name] = _ENDING if (visits, said) == (0, "refused") else f"{visits}, {said}"
    return endings


_LAYERS = {
    "a unix socket in the file tree": ("seccomp", "mount-namespace", "landlock"),
    "an abstract unix socket": ("seccomp", "network-namespace", "landlock"),
    "an abstract unix datagram socket": ("seccomp", "network-namespace", "landlock"),
}
BATCHES = (
    Batch(
        "ways to the host's sockets",
        tuple(
            Attack(
                _BEFORE + name,
                ESCAPE,
                _ENDING,
                "the listener",
                _LAYERS.get(name, ("seccomp", "network-namespace")),
            )
            for name in KINDS
        ),
        _nobody_comes,
    ),
)
