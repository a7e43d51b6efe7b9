"""The control socket between the supervisor and boot: small JSON messages, descriptors beside them.

A SOCK_SEQPACKET pair keeps message borders. The C module is used directly: `socket` imports some
10 ms of enumerations and selectors that neither side needs.

    supervisor → boot   {"do":"cgroup"} + descriptors · {"do":"enter"} + spec, payload, inputs
                        {"do":"mapped"} · {"do":"go"} · {"do":"probe","layer":…}
    boot → supervisor   {"at":"unshared"} · {"at":"init"} + pidfd · {"at":"reaping"}
                        {"at":"entered",…} + output, listener
                        {"at":"failed","layer","step","errno"} · {"at":"exited","status",…}
"""

import _socket
import array
import errno
import json
import os

from plugsec.sandbox.spec import DESCRIPTORS_MAX, MESSAGE_BYTES_MAX
from plugsec_signing.typed import Any

_ANCILLARY_BYTES = _socket.CMSG_SPACE(DESCRIPTORS_MAX * 4)


class PeerGone(Exception):
    """The other end closed its socket."""


def send(sock: _socket.socket, message: dict[str, Any], descriptors: tuple[int, ...] = ()) -> None:
    """Send one message; raises OSError when the peer is gone (EPIPE)."""
    data = json.dumps(message, separators=(",", ":")).encode()
    if len(data) > MESSAGE_BYTES_MAX:
        raise RuntimeError(f"a control message of {len(data)} bytes")
    ancillary = []
    if descriptors:
        ancillary.append((_socket.SOL_SOCKET, _socket.SCM_RIGHTS, array.array("i", descriptors)))
    sock.sendmsg([data], ancillary, _socket.MSG_NOSIGNAL)


def receive(sock: _socket.socket) -> tuple[dict[str, Any], tuple[int, ...]]:
    """Receive one message and its descriptors (close-on-exec); raises PeerGone at the end.

    Raises OSError (EMFILE) where this process has no room for all of them: what came is closed again, since
    a message without its descriptors means something else (recvmsg(2), MSG_CTRUNC).
    """
    limits = (MESSAGE_BYTES_MAX, _ANCILLARY_BYTES, _socket.MSG_CMSG_CLOEXEC)
    try:
        data, ancillary, flags, _address = sock.recvmsg(*limits)
    except ConnectionResetError:
        # The peer left without reading everything. Said once, ahead of what it had still to say (unix(7)).
        data, ancillary, flags, _address = sock.recvmsg(*limits)
    descriptors = array.array("i")
    for level, kind, content in ancillary:
        if level == _socket.SOL_SOCKET and kind == _socket.SCM_RIGHTS:
            descriptors.frombytes(content[: len(content) - len(content) % descriptors.itemsize])
    if flags & _socket.MSG_CTRUNC:
        for fd in descriptors:
            os.close(fd)
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE), "recvmsg")
    if not data:
        raise PeerGone
    return json.loads(data), tuple(descriptors)
