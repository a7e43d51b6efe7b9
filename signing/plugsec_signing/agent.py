"""Signing by `ssh-agent`: a small client that asks for two things only, which keys there are and a signature.

The agent is whatever listens on a path from the environment: forwarded from another machine, a token's
driver, a password manager. So its answers are bounded in size and time and read as strictly as a bundle,
and a signature is used only after it has verified under the key that was asked for.

Source: draft-miller-ssh-agent (the numbers below are its §5.1); OpenSSH's PROTOCOL.agent.
"""

import socket
import time
from typing import NamedTuple

from plugsec_signing import keys, wire
from plugsec_signing.errors import AgentError, KeyRefused, SignatureRefused, excerpt

MAX_ANSWER_BYTES = 256 * 1024  # AGENT_MAX_LEN of OpenSSH: no agent sends more
MAX_KEYS = 2048  # MAX_AGENT_IDENTITIES of OpenSSH
LIST_SECONDS = 10.0  # for connecting and listing, which nobody has to confirm; a forwarded agent may be far
SIGN_SECONDS = 120.0  # somebody may have to find the token and touch it, or type a PIN

_LIST_REQUEST, _LIST_ANSWER = 11, 12
_SIGN_REQUEST, _SIGN_ANSWER = 13, 14
_FAILURE = 5
_NO_FLAGS = bytes(4)  # flags choose a hash for RSA, which is refused here
_MOST_TOLD = 20  # keys in a message; who has more looks at `ssh-add -l`


class Found(NamedTuple):
    """What an agent holds: the keys that may sign here, and how many others it has."""

    usable: tuple[keys.PublicKey, ...]
    others: int


class Agent:
    """One agent, by the path of its socket. Each request has a connection of its own."""

    def __init__(self, path: str) -> None:
        self._path = path

    def list_keys(self) -> Found:
        """Return the agent's keys; raises AgentError (exit 2)."""
        fields = self._ask(bytes([_LIST_REQUEST]), _LIST_ANSWER, LIST_SECONDS)
        count = int.from_bytes(fields[:4], "big")
        parts = wire.strings(fields[4:], 2 * count) if len(fields) >= 4 and count <= MAX_KEYS else None
        if parts is None:
            raise AgentError("the agent's list of keys is malformed", id="PLG-AGT-002")
        found: dict[bytes, keys.PublicKey] = {}
        others = 0
        for blob, comment in zip(parts[::2], parts[1::2], strict=True):
            try:
                found.setdefault(blob, keys.parse_blob(blob, comment.decode("utf-8", "replace")))
            except KeyRefused:
                others += 1
        return Found(tuple(found.values()), others)

    def signer(self, public: keys.PublicKey) -> keys.PrivateKey:
        """Return what signs with one of the agent's keys; nothing is asked of the agent before it signs."""
        return keys.PrivateKey(public, lambda data: self._sign(public, data))

    def _sign(self, public: keys.PublicKey, data: bytes) -> bytes:
        request = bytes([_SIGN_REQUEST]) + wire.string(public.blob) + wire.string(data) + _NO_FLAGS
        parts = wire.strings(self._ask(request, _SIGN_ANSWER, SIGN_SECONDS), 1)
        kind, fields = wire.first(parts[0]) if parts else (b"", b"")
        algorithm = keys.algorithm_named(public.algorithm)
        made = algorithm.unpack(fields) if kind == public.algorithm.encode() else None
        if made is None:
            raise AgentError("the agent's signature is malformed, or of another kind", id="PLG-AGT-002")
        try:
            made = algorithm.one_spelling(made)
            algorithm.verify_blob(public.blob, made, data)
        except SignatureRefused as err:
            raise AgentError(
                f"the agent's signature cannot be used: {err.message}", err.hint, id="PLG-AGT-002"
            ) from err
        return made

    def _ask(self, request: bytes, wanted: int, seconds: float) -> bytes:
        """Return the fields of the answer of the kind `wanted`; `seconds` bound the whole exchange."""
        deadline = time.monotonic() + seconds
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.settimeout(seconds)
            connection.connect(self._path)
            connection.sendall(wire.string(request))
            length = int.from_bytes(_receive(connection, 4, deadline), "big")
            if not 0 < length <= MAX_ANSWER_BYTES:
                raise AgentError(f"the agent announces an answer of {length} bytes", id="PLG-AGT-002")
            answer = _receive(connection, length, deadline)
        except TimeoutError as err:
            raise AgentError(f"the agent did not answer within {seconds:.0f} s", id="PLG-AGT-002") from err
        except (OSError, ValueError) as err:
            raise AgentError(f"the agent at {excerpt(self._path)} cannot be reached: {err}") from err
        finally:
            connection.close()
        if answer[0] == _FAILURE:
            raise AgentError(
                "the agent refuses: the key may be gone, locked, or not confirmed", id="PLG-AGT-005"
            )
        if answer[0] != wanted:
            raise AgentError(f"the agent's answer is of the kind {answer[0]}, not {wanted}", id="PLG-AGT-002")
        return answer[1:]


def choose(found: Found, wanted: str | None) -> keys.PublicKey:
    """Return the one key to sign with: the one with the fingerprint `wanted` (`SHA256:…`), or the only one.

    Raises AgentError (exit 2), which lists the agent's keys where there is a choice to make.
    """
    if wanted is not None:
        for key in found.usable:
            if keys.ssh_fingerprint(key) == wanted:
                return key
        raise AgentError(
            f"the agent does not have the key {excerpt(wanted)}; it has {_told(found)}",
            "ssh-add KEY puts it there",
            id="PLG-AGT-003",
        )
    if len(found.usable) == 1:
        return found.usable[0]
    if found.usable:
        raise AgentError(
            f"the agent has several keys: {_told(found)}",
            "name one: --agent --key FILE.pub; `ssh-add -L` prints their lines",
            id="PLG-AGT-004",
        )
    raise AgentError(
        f"the agent has no key that can sign a bundle; it has {_told(found)}",
        "ssh-add KEY, with an Ed25519 key",
        id="PLG-AGT-003",
    )


def _told(found: Found) -> str:
    """Say what an agent has, in one line, however much that is."""
    shown = [f"{keys.ssh_fingerprint(key)} {excerpt(key.comment)}" for key in found.usable[:_MOST_TOLD]]
    more = len(found.usable) - len(shown)
    if more:
        shown.append(f"{more} more")
    if found.others:
        shown.append(f"{found.others} of kinds that are not accepted")
    return ", ".join(shown) or "none"


def _receive(connection: socket.socket, length: int, deadline: float) -> bytes:
    """Read exactly `length` bytes before `deadline`; raises TimeoutError, or AgentError at an early end."""
    data = bytearray()
    while len(data) < length:
        left = deadline - time.monotonic()
        if left <= 0:  # an agent that drips bytes has no longer than one that is silent
            raise TimeoutError
        connection.settimeout(left)
        more = connection.recv(length - len(data))
        if not more:
            raise AgentError("the agent ended the connection in the middle of an answer", id="PLG-AGT-002")
        data += more
    return bytes(data)
