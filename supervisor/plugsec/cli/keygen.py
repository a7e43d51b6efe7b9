"""keygen: an author's key pair."""

import os
from typing import Annotated

import typer

from plugsec.cli.common import emit_json, refuse, say
from plugsec.cli.edge import show
from plugsec.cli.options import Json, PassphraseFd, examples
from plugsec.cli.passphrase import new_passphrase
from plugsec.errors import REFUSALS, UsageError


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("keygen", epilog=_EXAMPLES)(keygen)


_EXAMPLES = examples(
    "plugsec keygen release",
    "plugsec keygen ci --out keys --no-passphrase",
    "plugsec keygen release --passphrase-fd 3 3< passphrase.txt",
)


def keygen(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Name of the private file; NAME.pub beside it.")
    ],
    out: Annotated[str, typer.Option("--out", metavar="DIR", help="Directory for the pair.")] = ".",
    no_passphrase: Annotated[
        bool, typer.Option("--no-passphrase", help="Leave the private key unprotected.")
    ] = False,
    passphrase_fd: PassphraseFd = None,
    json: Json = False,
) -> None:
    """Make an Ed25519 key pair in OpenSSH form; existing files are never overwritten."""
    from plugsec_signing import keys  # noqa: PLC0415 - each command loads only what it needs

    try:
        if os.path.basename(name) != name or name in ("", ".", ".."):
            raise UsageError(f"{name!r} is not a plain file name", "plugsec keygen NAME --out DIR")
        if no_passphrase and passphrase_fd is not None:
            raise UsageError("--no-passphrase and --passphrase-fd exclude each other")
        passphrase = None if no_passphrase else new_passphrase(passphrase_fd)
        key = keys.generate_keypair(out, name, passphrase, comment=name)
    except REFUSALS as err:
        refuse(err, as_json=json)
    path = os.path.normpath(os.path.join(out, name))
    if json:
        emit_json({
            "outcome": "ok", "code": 0, "private": path, "public": path + ".pub",
            "fingerprint": keys.fingerprint(key), "ssh_fingerprint": keys.ssh_fingerprint(key),
            "protected": passphrase is not None,
        })  # fmt: skip
        return
    show(f"{path}.pub  {keys.ssh_fingerprint(key)}")
    if passphrase is None:
        say(f"note: {path} is not protected by a passphrase; whoever reads it can sign as you")
    say(f"next: plugsec sign BUNDLE --key {path}; plugsec trust add {path}.pub --publisher NAME")
