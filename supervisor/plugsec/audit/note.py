"""C2SP signed notes, and the checkpoints written as such: what a witness or a colleague can keep.

    plugsec.audit/host.example/0123456789abcdef      origin: names this log, and the signer
    64                                               how many records
    CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=     Merkle root over them
                                                     (an empty line)
    — plugsec.audit/host.example/0123456789abcdef Az3grl…

Specifications: https://c2sp.org/signed-note and https://c2sp.org/tlog-checkpoint (Ed25519, type 0x01).
"""

from binascii import Error as Base64Error
from binascii import a2b_base64, b2a_base64
from hashlib import sha256
from typing import TYPE_CHECKING

from plugsec.audit.errors import NoteRefused
from plugsec_signing.typed import NamedTuple

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

MAX_NOTE = 16 * 1024  # a checkpoint is 250 bytes; witnesses add 100 each
_MAX_SIGNATURES = 64
_ED25519 = b"\x01"
_DASH = "\u2014 "


class Checkpoint(NamedTuple):
    """The text of a checkpoint."""

    origin: str
    size: int
    root: bytes


def key_id(name: str, public: bytes) -> bytes:
    """Four bytes that tell a verifier which of its keys a signature line is for."""
    return sha256(name.encode() + b"\n" + _ED25519 + public).digest()[:4]


def verifier_key(name: str, public: bytes) -> str:
    """The key as notes' tools write it: `name+hash+base64`."""
    return f"{name}+{key_id(name, public).hex()}+{_base64(_ED25519 + public)}"


def sign_checkpoint(checkpoint: Checkpoint, private: "Ed25519PrivateKey") -> bytes:
    """The signed note for a checkpoint; the key's name is the log's origin."""
    text = f"{checkpoint.origin}\n{checkpoint.size}\n{_base64(checkpoint.root)}\n"
    public = private.public_key().public_bytes_raw()
    signature = key_id(checkpoint.origin, public) + private.sign(text.encode())
    return f"{text}\n{_DASH}{checkpoint.origin} {_base64(signature)}\n".encode()


def open_checkpoint(note: bytes, public: bytes) -> Checkpoint:
    """Return the checkpoint that `public` signed. Raises NoteRefused.

    Lines of other signers (witnesses) are skipped, as the specification asks; one of ours must be there
    and verify.
    """
    from cryptography.exceptions import InvalidSignature  # noqa: PLC0415 - 21 ms, only where notes are read
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey  # noqa: PLC0415

    text, signatures = _split(note)
    checkpoint = _parse(text)
    wanted = key_id(checkpoint.origin, public)
    for name, raw in signatures:
        if name == checkpoint.origin and raw[:4] == wanted:
            try:
                Ed25519PublicKey.from_public_bytes(public).verify(raw[4:], text.encode())
            except InvalidSignature as err:
                raise NoteRefused("the checkpoint's signature does not verify") from err
            return checkpoint
    raise NoteRefused("the checkpoint is not signed by this log's key")


def _split(note: bytes) -> tuple[str, list[tuple[str, bytes]]]:
    if len(note) > MAX_NOTE:
        raise NoteRefused(f"the checkpoint is longer than {MAX_NOTE} bytes")
    try:
        whole = note.decode("utf-8")
    except UnicodeDecodeError as err:
        raise NoteRefused("the checkpoint is not UTF-8") from err
    text, gap, tail = whole.rpartition("\n\n")
    lines = tail.split("\n")
    controls = any(ord(character) < 0x20 and character != "\n" for character in whole)
    if not gap or controls or lines.pop() != "" or not 1 <= len(lines) <= _MAX_SIGNATURES:
        raise NoteRefused("the text is not a signed note")
    signatures = []
    for line in lines:
        name, _, encoded = line.removeprefix(_DASH).partition(" ")
        raw = _unbase64(encoded)
        if not line.startswith(_DASH) or not name or "+" in name or len(raw) < 5:
            raise NoteRefused("a signature line of the checkpoint is malformed")
        signatures.append((name, raw))
    return text + "\n", signatures


def _parse(text: str) -> Checkpoint:
    lines = text.split("\n")[:-1]
    if len(lines) < 3 or not all(lines):
        raise NoteRefused("the note is not a checkpoint")
    origin, size, root = lines[0], lines[1], _unbase64(lines[2])
    if not (size.isascii() and size.isdigit() and len(size) <= 19 and str(int(size)) == size):
        raise NoteRefused("the checkpoint's size is not a number")
    if len(root) != 32:
        raise NoteRefused("the checkpoint's root is not a SHA-256")
    return Checkpoint(origin, int(size), root)


def _base64(raw: bytes) -> str:
    return b2a_base64(raw, newline=False).decode()


def _unbase64(text: str) -> bytes:
    """Strict base64: only its one proper spelling."""
    try:
        raw = a2b_base64(text, strict_mode=True)
    except (Base64Error, ValueError) as err:
        raise NoteRefused("the checkpoint's base64 is malformed") from err
    if _base64(raw) != text:
        raise NoteRefused("the checkpoint's base64 is malformed")
    return raw
