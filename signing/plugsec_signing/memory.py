"""What was accepted here before: the memory without which neither time nor rollback can be judged.

A signature carries no time, so "accepted while the key was valid" and "before the key was stolen" mean
what this machine remembers, and nothing else. A run reads the memory with one open and takes from it the
one line about its plugin; only something new is written (`memory_edit`). The form of the file is
docs/formats/trust.md; it ends with a digest of itself, so that a torn, edited or shortened memory is
refused rather than believed. Whoever has this user's rights can delete it: that is outside its promise.
"""

import hashlib
import os
import stat
from collections.abc import Mapping

from plugsec_signing import canonical
from plugsec_signing.errors import JsonError, TrustMemoryError, excerpt
from plugsec_signing.typed import Any, NamedTuple, NoReturn

TYPE_CHECKING = False
if TYPE_CHECKING:
    from plugsec_signing.trust import Verdict

FORMAT = "plugsec.memory/1"
MAX_BYTES = 16 * 1024 * 1024  # MAX_BUNDLES of memory_edit with the most signers that one can have
MAX_LISTS = 16  # trust stores with revocation lists: one for this user, a few for tests and CI
_HEADER_BYTES_MAX = 4096  # MAX_LISTS of 150 bytes, and some more
_NAME = ("trust", "memory.jsonl")
_FORMAT_PREFIX = FORMAT.rpartition("/")[0] + "/"
_TRAILER = b'{"sha256":"%s"}\n'
_TRAILER_BYTES = len(_TRAILER) - len(b"%s") + 64
_HEX = frozenset("0123456789abcdef")
_DAMAGED = (
    "plugsec trust forget --all sets it aside and begins anew: first-seen times and releases are then lost"
)


class Seen(NamedTuple):
    """A bundle that was accepted here: its release, and when (unix s) each signature first counted."""

    release: int
    signers: Mapping[str, int]

    @property
    def first(self) -> int:
        """When the bundle was first accepted here, in unix seconds."""
        return min(self.signers.values())


class Remembered(NamedTuple):
    """What is known here about one plugin, by bundle id, and the newest moment known at all (unix s).

    The last two say which revocation list of this trust store was accepted here; 0 and "" for none.
    """

    bundles: Mapping[str, Seen]
    newest: int
    revocation_sequence: int
    revocation_digest: str = ""

    @property
    def highest(self) -> int | None:
        """The highest release of the plugin that was accepted here."""
        return max((seen.release for seen in self.bundles.values()), default=None)


NOTHING = Remembered({}, 0, 0)


def path_in(state: str) -> str:
    """Return where the memory is in a state directory."""
    return os.path.join(state, *_NAME)


def origin(trust: str) -> str:
    """Return what names a trust directory here: every one has revocation lists of its own."""
    return hashlib.sha256(os.fsencode(os.path.abspath(trust))).hexdigest()


def recall(path: str, name: str, trust: str = "") -> Remembered:
    """Return what is remembered about a plugin; a memory that does not exist remembers nothing.

    With the `trust` directory, also which of its revocation lists was accepted last.
    Raises TrustMemoryError (exit 4) for a memory that is damaged, newer, or that others could have written.
    """
    data = read(path)
    if data is None:
        return NOTHING
    newest, lists = parse_header(data, path)
    latest = lists.get(origin(trust), (0, "")) if lists and trust else (0, "")
    begins = b'\n["%s",' % name.encode()
    if begins not in data:
        return Remembered({}, newest, *latest)
    if data.count(begins) != 1:
        raise damaged(path, f"{name} has two lines")
    start = data.index(begins) + 1
    found, bundles = parse_line(data[start : data.index(b"\n", start)], path)
    if found != name:
        raise damaged(path, "a line is not the one that it begins as")
    return Remembered(bundles, newest, *latest)


def remember(path: str, verdict: "Verdict") -> None:
    """Remember an accepted bundle, the signatures that counted and the revocation list that was asked.

    It costs nothing when all of them are known.

    Raises TrustMemoryError (exit 4; 9 when it cannot be written) and TrustRefused (exit 3) when another
    start has meanwhile accepted what makes this one a downgrade.
    """
    seen = verdict.remembered.bundles.get(verdict.candidate.bundle_id)
    listed, known = verdict.revocations, verdict.remembered.revocation_sequence
    if (
        seen is not None
        and all(signer.fingerprint in seen.signers for signer in verdict.signers)
        and (listed is None or listed.sequence == known)
    ):
        return
    from plugsec_signing.memory_edit import add  # noqa: PLC0415 - once for each bundle

    add(path, verdict)


def read(path: str) -> bytes | None:
    """Return the whole memory, its form checked as far as its digest; None if there is none."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as err:
        raise TrustMemoryError(f"the memory {path} cannot be opened: {err}", id="PLG-MEM-001") from err
    try:
        size = _check_private(fd, path)
        data = os.read(fd, min(size, MAX_BYTES) + 1)
    except OSError as err:
        raise TrustMemoryError(f"the memory {path} cannot be read: {err}", id="PLG-MEM-001") from err
    finally:
        os.close(fd)
    _check_format(data, path)
    body, trailer = data[:-_TRAILER_BYTES], data[-_TRAILER_BYTES:]
    if trailer != _TRAILER % hashlib.sha256(body).hexdigest().encode() or not body.endswith(b"\n"):
        raise damaged(path, "its last line is not the digest of the lines above")
    return body


def sealed(body: bytes) -> bytes:
    """Return the lines with the last one that vouches for them."""
    return body + _TRAILER % hashlib.sha256(body).hexdigest().encode()


def parse_header(body: bytes, path: str) -> tuple[int, dict[str, tuple[int, str]]]:
    """Return (newest, revocation lists: (sequence, digest) by `origin`) of the first line."""
    header = _json(body[: body.find(b"\n")], path)
    if not isinstance(header, dict) or header.keys() != {"format", "newest", "revocations"}:
        raise damaged(path, "its first line is malformed")
    lists = header["revocations"]
    if not isinstance(lists, dict) or not all(map(_is_hash, lists)):
        raise damaged(path, "its first line does not name revocation lists")
    return _count(header["newest"], path), {name: _list(entry, path) for name, entry in lists.items()}


def parse_line(line: bytes, path: str) -> tuple[str, dict[str, Seen]]:
    """Return (plugin, what is known of each bundle) of one line."""
    value = _json(line, path)
    if not isinstance(value, list) or len(value) != 2 or not isinstance(value[0], str):
        raise damaged(path, f"the line {excerpt(line)} is malformed")
    name, entries = value
    if not isinstance(entries, dict) or not entries:
        raise damaged(path, f"the line of {excerpt(name)} lists no bundles")
    return name, {_bundle_id(key, path): _seen(entry, path) for key, entry in entries.items()}


def damaged(path: str, how: str) -> TrustMemoryError:
    """Return the refusal of a memory that nobody may rely on."""
    return TrustMemoryError(f"the memory {path} is damaged: {how}", _DAMAGED, id="PLG-MEM-002")


def _check_private(fd: int, path: str) -> int:
    """Refuse what others own or may write; return the size in bytes."""
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode):
        raise TrustMemoryError(f"the memory {path} is not a regular file", _DAMAGED, id="PLG-MEM-003")
    # The directory as well: whoever may write there may put an older memory in place.
    for found, where in ((status, path), (os.stat(os.path.dirname(path)), os.path.dirname(path))):
        if found.st_uid not in (os.geteuid(), 0):
            _exposed(f"{where} belongs to another user", f"chown it to yourself: {where}")
        if found.st_mode & 0o022:
            _exposed(f"others may write {where}", f"chmod go-w {where}")
    return status.st_size


def _exposed(message: str, hint: str) -> NoReturn:
    raise TrustMemoryError(message, hint, id="PLG-MEM-003")


def _check_format(data: bytes, path: str) -> None:
    """Tell a newer format before anything else: all but its name may have changed there."""
    try:
        header = canonical.decode(data[:_HEADER_BYTES_MAX].partition(b"\n")[0])
    except JsonError:
        header = None
    found = header.get("format") if isinstance(header, dict) else None
    if found == FORMAT:
        return
    if isinstance(found, str) and found.startswith(_FORMAT_PREFIX) and found[len(_FORMAT_PREFIX) :].isdigit():
        raise TrustMemoryError(
            f"{path} was written by a newer plugsec: its format is {excerpt(found)}, not {FORMAT!r}",
            "use that version, or another --home",
            id="PLG-MEM-004",
        )
    raise damaged(path, f"its first line does not say {FORMAT!r}")


def _json(line: bytes, path: str) -> Any:  # noqa: ANN401 - any JSON value
    try:
        return canonical.decode_canonical(line, max_bytes=MAX_BYTES)
    except JsonError as err:
        raise damaged(path, err.message) from err


def _seen(entry: object, path: str) -> Seen:
    if not isinstance(entry, dict) or entry.keys() != {"release", "signers"}:
        raise damaged(path, f"{excerpt(entry)} does not have exactly release and signers")
    signers = entry["signers"]
    if not isinstance(signers, dict) or not signers or not all(map(_is_hash, signers)):
        raise damaged(path, f"{excerpt(signers)} does not name signers")
    return Seen(_count(entry["release"], path), {name: _count(when, path) for name, when in signers.items()})


def _list(entry: object, path: str) -> tuple[int, str]:
    if not isinstance(entry, list) or len(entry) != 2 or not _is_hash(entry[1]):
        raise damaged(path, f"{excerpt(entry)} does not name a revocation list")
    return _count(entry[0], path), entry[1]


def _count(value: object, path: str) -> int:
    if type(value) is not int or value < 0:
        raise damaged(path, f"{excerpt(value)} is not a whole number from 0")
    return value


def _bundle_id(text: str, path: str) -> str:
    if text[:7] != "sha256:" or not _is_hash(text[7:]):
        raise damaged(path, f"{excerpt(text)} is not a bundle id")
    return text


def _is_hash(text: object) -> bool:
    return isinstance(text, str) and len(text) == 64 and _HEX.issuperset(text)
