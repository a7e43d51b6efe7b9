"""What keeps a plugin off the network, layer by layer; that nobody comes is shown in catalogue/network.py.

The empty network namespace and the filter each hold alone. Without them (and without Landlock, which
knows connect and abstract names on newer kernels) the same plugin gets through.
"""

import json
import secrets
import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from catalogue.network import KINDS, Target, listener, reach

from kit import weak
from kit.home import Home
from kit.outside import Canary, canary, listening


@pytest.fixture
def outside() -> Iterator[Canary]:
    """A directory of the host that everybody may use."""
    with canary() as found:
        yield found


@pytest.fixture(params=KINDS)
def target(request: pytest.FixtureRequest, outside: Canary) -> Iterator[Target]:
    """Each kind of listener."""
    with ExitStack() as stack:
        try:
            found = stack.enter_context(listener(request.param, outside))
        except OSError as error:
            pytest.skip(f"network-namespace: this host cannot listen on {request.param}: {error}")
        yield found


def _visits(home: Home, target: Target) -> tuple[int, str]:
    """How many came, and everything that the outcome says."""
    said = repr(reach(home, {"it": target}))
    return target.visited.count(), said


@pytest.mark.parametrize("missing", ["seccomp", "network-namespace"])
def test_one_layer_less_and_still_nobody_comes(missing: str, target: Target, home: Home) -> None:
    """The other one holds alone; for a socket in the file tree that other one is the mounts."""
    with weak.without(home.root, missing):
        visits, told = _visits(home, target)
    assert visits == 0
    assert "connected" not in told


def test_without_the_layers_somebody_comes(target: Target, home: Home) -> None:
    """So the listener can tell."""
    with weak.without(home.root, "seccomp", "network-namespace", "landlock", "mount-namespace"):
        visits, told = _visits(home, target)
    assert visits > 0, told


def test_the_jail_has_an_empty_network(home: Home) -> None:
    """Only a loopback of its own, and neither routes nor sockets to look at."""
    code = """
@plugin.method
def go():
    found = {}
    for name in ("dev", "route", "tcp", "udp", "unix", "arp"):
        try:
            found[name] = open(f"/proc/self/net/{name}").read().splitlines()
        except OSError as error:
            found[name] = []
    return found
"""
    found = home.attack(code).result
    assert {line.split(":")[0].strip() for line in found["dev"] if ":" in line} <= {"lo"}
    for name in ("route", "tcp", "udp", "arp"):
        assert len(found[name]) <= 1, f"only a heading in {name}"


def test_a_pair_stays_inside_the_jail(home: Home) -> None:
    """socketpair is granted to event loops: it reaches nobody else, whatever is sent to it."""
    code = """
import array, socket
@plugin.method
def go(path):
    a, b = socket.socketpair()
    said = []
    for act in (lambda: a.connect(path), lambda: a.bind("\\0x"), lambda: a.sendto(b"x", path),
                lambda: socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)[0].sendto(b"x", path),
                lambda: socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)[0].sendmsg([b"x"], [], 0, path)):
        try:
            act()
            said.append("done")
        except OSError as error:
            said.append("refused")
    a.sendall(b"hello")
    return [said, b.recv(5).decode()]
"""
    name = f"\0plugsec-{secrets.token_hex(8)}"
    with listening(socket.AF_UNIX, socket.SOCK_DGRAM, name) as visited:
        outcome = home.attack(code, input=json.dumps({"path": name}).encode())
        assert outcome.error is None, outcome.error
        assert outcome.result == [["refused"] * 5, "hello"]
        assert visited.count() == 0


def test_a_granted_directorys_socket_is_not_reached(home: Home) -> None:
    """fs.read on a directory with a socket in it (/run has many) is no permission to talk to its owner."""
    code = """
import socket
@plugin.method
def go(path):
    said = []
    for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM, socket.SOCK_SEQPACKET, socket.SOCK_RAW):
        for send in ("sendto(b'x', path)", "sendmsg([b'x'], [], 0, path)", "connect(path)"):
            try:
                eval("socket.socketpair(socket.AF_UNIX, kind)[0]." + send)
                said.append("sent")
            except OSError as error:
                said.append("refused")
    return said
"""
    with canary() as own:
        path = own.directory / "socket"
        policy = home.policy(f'[[grant]]\nid = "canary"\nplugins = ["*"]\n"fs.read" = ["{own.directory}"]\n')
        asked = [{"name": "fs.read", "paths": [str(own.directory)], "reason": "reads"}]
        with listening(socket.AF_UNIX, socket.SOCK_DGRAM, str(path)) as visited:
            path.chmod(0o777)
            call = json.dumps({"path": str(path)}).encode()
            outcome = home.attack(code, policy, permissions=asked, input=call)
            assert visited.count() == 0
            assert set(outcome.result) == {"refused"}
            with weak.without(home.root, "seccomp"):
                home.attack(code, policy, permissions=asked, input=call)
            assert visited.count() > 0
