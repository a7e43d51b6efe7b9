"""Who signs: a private key file, or one of ssh-agent's keys."""

import os
from typing import TYPE_CHECKING

from plugsec.cli.edge import read_small
from plugsec.cli.passphrase import passphrase
from plugsec.errors import UsageError

if TYPE_CHECKING:
    from plugsec_signing.keys import PrivateKey, PublicKey

MAX_PUBLIC_FILE_BYTES = 16 * 1024  # one line of one key
FINGERPRINT = "SHA256:"


def signing_key(key: str | None, *, agent: bool, passphrase_fd: int | None) -> "PrivateKey":
    """Return what signs; raises UsageError and AgentError (exit 2), KeyFileError, KeyRefused.

    Without `agent`, `key` is a private key file. With it, `key` says which of the agent's keys, by a public
    key file or a fingerprint as `ssh-add -l` prints it, and may be left out if the agent has one only.
    """
    from plugsec_signing import keys  # noqa: PLC0415 - each command loads only what it needs

    if agent:
        return _from_agent(key)
    if key is None:
        raise UsageError("no key is named", "give --key FILE, or --agent")
    return keys.load_private_key(key, lambda: passphrase(passphrase_fd, key))


def public_key(path: str) -> "PublicKey":
    """Return the key of a `.pub` file; raises UsageError (exit 2) or KeyRefused (exit 3)."""
    from plugsec_signing import keys  # noqa: PLC0415

    content = read_small(path, MAX_PUBLIC_FILE_BYTES)
    if b"PRIVATE KEY-----" in content:
        raise UsageError(f"{path!r} is a private key; its public half is needed", f"give {path}.pub")
    return keys.parse_public_key(content.decode("utf-8", "replace"))


def _from_agent(key: str | None) -> "PrivateKey":
    from plugsec_signing import agent as agents  # noqa: PLC0415
    from plugsec_signing import keys  # noqa: PLC0415
    from plugsec_signing.errors import AgentError  # noqa: PLC0415

    path = os.environ.get("SSH_AUTH_SOCK")
    if not path:
        raise AgentError(
            "there is no ssh-agent: SSH_AUTH_SOCK is not set", 'eval "$(ssh-agent)"; ssh-add KEY'
        )
    wanted = None
    if key is not None:
        wanted = key if key.startswith(FINGERPRINT) else keys.ssh_fingerprint(public_key(key))
    agent = agents.Agent(path)
    return agent.signer(agents.choose(agent.list_keys(), wanted))
