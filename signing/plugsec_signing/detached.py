"""Documents with their signatures beside them: `NAME` in canonical JSON, and `NAME.sshsig`.

The second file is one armoured SSHSIG after another, as `ssh-keygen -Y sign` writes each and `cat` joins
them. Whose signatures count, the caller decides. Two files cannot be replaced at once, so the second also
holds the signatures of the document before: one over other bytes says nothing here, for or against.
"""

import hashlib
import os
import stat
from collections.abc import Callable, Iterable

from plugsec_signing import keys, sshsig
from plugsec_signing.errors import SignatureRefused, SigningError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from plugsec_signing.verify import Settled

SUFFIX = ".sshsig"
MAX_SIGNATURES = 32  # as many as a bundle may carry, of two documents
MAX_SIGNATURES_BYTES = MAX_SIGNATURES * sshsig.MAX_ARMOUR_BYTES
_END = b"-----END SSH SIGNATURE-----\n"

Refuse = Callable[[str], SigningError]


def split(armours: bytes) -> tuple[bytes, ...]:
    """Return the armoured signatures of one file, not parsed yet; raises SignatureRefused (exit 3)."""
    *found, rest = armours.split(_END)
    if rest or len(found) > MAX_SIGNATURES:
        raise SignatureRefused(
            f"a file of signatures is not up to {MAX_SIGNATURES} armoured SSH signatures, one after another",
            id="PLG-SIG-001",
        )
    return tuple(each + _END for each in found)


def signers(
    document: bytes, armours: bytes, namespace: str, settled: "Settled | None" = None
) -> tuple[keys.PublicKey, ...]:
    """Return the distinct keys that signed exactly this document for this purpose.

    A signature that `settled` knows is not verified again. Raises SignatureRefused or KeyRefused (exit 3)
    for what is no signature, and with the first one's fault where none of them verifies.
    """
    found: dict[bytes, keys.PublicKey] = {}
    faults: list[SignatureRefused] = []
    for armour in split(armours):
        signature = sshsig.parse(armour)
        fact = _fact(document, armour, namespace)
        if settled is None or not settled.knows(fact):
            try:
                sshsig.verify(signature, document, namespace)
            except SignatureRefused as err:
                faults.append(err)
                continue
            if settled is not None:
                settled.learn(fact)
        found.setdefault(signature.key.raw, signature.key)
    if faults and not found:
        raise faults[0]
    return tuple(found.values())


def with_signature(document: bytes, armours: bytes, namespace: str, new: bytes) -> bytes:
    """Return the file of signatures with one more, in place of one by the same key.

    Raises SignatureRefused or KeyRefused (exit 3), also when the new one does not verify.
    """
    (key,) = signers(document, new, namespace)
    others = [each for each in split(armours) if sshsig.parse(each).key.raw != key.raw]
    split(joined := b"".join((*others, new)))
    return joined


def over(document: bytes, armours: bytes) -> bytes:
    """Return those of a file's signatures that verify over exactly this document, whatever their purpose.

    Raises SignatureRefused or KeyRefused (exit 3) for what is no signature.
    """
    return b"".join(each for each in split(armours) if _verifies(each, document))


def replace(path: str, document: bytes, armours: bytes) -> None:
    """Put a document and its signatures in place of others; at every moment the two belong together.

    The signatures of the document before stay beside the new ones until the next replacement: a reader may
    have read that document already. The caller keeps other writers away. Raises OSError.
    """
    from plugsec_signing.trust_edit import replace_file  # noqa: PLC0415 - readers need no writer

    new = over(document, armours)
    before = _signatures_in_place(path)
    if new not in before and len(split(before + new)) <= MAX_SIGNATURES:
        new = before + new
    replace_file(path + SUFFIX, new)
    replace_file(path, document)


def distinct(found: Iterable[keys.PublicKey], allowed: Iterable[keys.PublicKey]) -> int:
    """Count those that are allowed, by their raw bytes: one key under two names counts once."""
    return len({key.raw for key in found} & {key.raw for key in allowed})


def read_private(path: str, most: int, refuse: Refuse) -> bytes | None:
    """Return a file that nobody but this user or root could have written; None if there is none.

    Its directory was checked by whoever loaded the trust store. Raises what `refuse` makes of a sentence.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as err:
        raise refuse(f"{path} cannot be opened: {err}") from err
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise refuse(f"{path} is not a regular file")
        if status.st_uid not in (os.geteuid(), 0):
            raise refuse(f"{path} belongs to another user")
        if status.st_mode & 0o022:
            raise refuse(f"others may write {path}")
        if status.st_size > most:
            raise refuse(f"{path} is larger than {most} bytes")
        with open(fd, "rb", closefd=False) as file:
            return file.read(most)
    except OSError as err:
        raise refuse(f"{path} cannot be read: {err}") from err
    finally:
        os.close(fd)


def _verifies(armour: bytes, document: bytes) -> bool:
    signature = sshsig.parse(armour)
    try:
        sshsig.verify(signature, document, signature.namespace)
    except SignatureRefused:
        return False
    return True


def _signatures_in_place(path: str) -> bytes:
    """Return the signatures of the document in place; none where the two are damaged or not there."""
    try:
        with open(path, "rb") as file, open(path + SUFFIX, "rb") as beside:
            return over(file.read(), beside.read(MAX_SIGNATURES_BYTES))
    except (FileNotFoundError, SigningError):
        return b""


def _fact(document: bytes, armour: bytes, namespace: str) -> str:
    """Name the fact that this armour signs exactly this document."""
    words = f"{namespace} document {hashlib.sha256(document).hexdigest()}\n"
    return hashlib.sha256(words.encode() + armour).hexdigest()
