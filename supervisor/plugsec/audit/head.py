"""The head: how much of the log counts, authenticated, replaced atomically, and never torn.

`head` holds two slots of 4096 bytes. Each is one line: a canonical JSON object, a space, the HMAC-SHA-256
of the object's bytes as a JSON string, spaces up to the slot's end and a newline. The valid slot with
the higher `generation` counts. A new head is written over the *other* slot, so a crash in the middle of
that write leaves the old head; no file is created or renamed, so it also works on a full disk and
costs one fdatasync.

Which slot may be overwritten? Always the one whose loss would lose nothing acknowledged:

- A *durable* head is written only after fdatasync of everything that it covers, then synced itself.
- Heads of records that nobody asked to be durable overwrite each other in one slot, unsynced; the other
  slot keeps the last synced head. Which generation is known to be synced stands, for this boot only, in
  the *watermark* inside the lock file. A writer killed between writing a head and syncing it has not
  raised the watermark, so the next writer spares the synced slot.

After a power cut the newest head may cover records that never reached the disk. If it is not durable
and was written in an earlier boot, the other head counts and the loss is reported; in every other case
a log shorter than its head has been tampered with. (docs/formats/audit.md tells the whole story.)
"""

import hmac
import os
import struct
from binascii import hexlify, unhexlify
from collections.abc import Callable, Mapping

from plugsec.audit import files, keys, merkle
from plugsec.audit.errors import Fault, LogFormat, LogTampered
from plugsec_signing.canonical import decode, encode
from plugsec_signing.errors import SigningError
from plugsec_signing.typed import Any, NamedTuple

FORMAT = "plugsec.audit.head/1"
SLOT = 4096
SLOTS = 2
_MAC_CHARS = 2 + 64  # a quoted SHA-256 in hexadecimal
_WATERMARK = struct.Struct("<36sQ")  # boot id, generation
_NUMBERS = ("generation", "size", "segment", "offset", "checkpoint_size", "checkpoint_offset")
_MAX_NUMBER = 2**52  # bytes, records or heads: more than any disk holds, and 1 can still be added
NO_HASH = bytes(merkle.HASH_BYTES)  # `prev` of the first record, and the chain before any checkpoint


class Head(NamedTuple):
    """The state of the log after `size` records."""

    origin: str
    epoch: int
    generation: int
    size: int
    frontier: tuple[bytes, ...]
    last: bytes  # hash of the last line: the next record's `prev`
    segment: int
    offset: int  # bytes of that segment that count
    durable: bool
    boot_id: str
    checkpoint_size: int  # records covered by the newest checkpoint
    checkpoint_offset: int  # bytes of checkpoints.jsonl that count
    checkpoint_chain: bytes  # running hash over its lines
    torn: tuple[Mapping[str, Any], ...]  # moved to torn/, not yet recorded

    @property
    def root(self) -> bytes:
        """The Merkle root over all records."""
        return merkle.root_of(self.frontier)


def to_slot(head: Head, mac_key: bytes) -> bytes:
    """The 4096 bytes that stand for `head`."""
    fields = head._asdict()
    for name in ("last", "checkpoint_chain"):
        fields[name] = fields[name].hex()
    fields["frontier"] = [peak.hex() for peak in head.frontier]
    fields["torn"] = [dict(item) for item in head.torn]
    body = encode({**fields, "format": FORMAT, "root": head.root.hex()})
    mac = hmac.digest(mac_key, body, "sha256")
    line = body + b' "' + hexlify(mac) + b'"'
    if len(line) >= SLOT:
        raise RuntimeError("a head outgrew its slot")  # MAX_LEAVES and the short `torn` prevent it
    return line.ljust(SLOT - 1) + b"\n"


def from_slot(slot: bytes, directory: str, key_of: Callable[[int], bytes]) -> Head | None:
    """The head in a slot, or None when the slot is damaged.

    The epoch has to be read before the MAC can be checked, so the object is decoded by the hardened
    decoder first; nothing else of it is believed before. `key_of` gives an epoch's MAC key. Raises
    LogFormat, and LogTampered when that key is missing.
    """
    body = slot.removesuffix(b"\n").rstrip(b" ")[: -_MAC_CHARS - 1]
    try:
        fields = decode(body, max_bytes=SLOT, integers_only=True)
    except SigningError:
        return None
    if not isinstance(fields, dict):
        return None
    epoch = fields.get("epoch")
    if type(epoch) is not int or not 1 <= epoch <= keys.MAX_EPOCHS:
        return None
    expected = hmac.digest(key_of(epoch), body, "sha256")
    if slot != (body + b' "' + hexlify(expected) + b'"').ljust(SLOT - 1) + b"\n":
        return None
    if fields.pop("format", None) != FORMAT:
        raise LogFormat(f"the audit log {directory} was written by a newer plugsec", "upgrade plugsec")
    try:
        return _from_fields(fields)
    except (KeyError, TypeError, ValueError, AttributeError):
        return None  # its MAC is good, so this was written by whoever holds the key, but not by us


def _from_fields(fields: dict[str, Any]) -> Head:
    root = fields.pop("root")
    for name in ("last", "checkpoint_chain"):
        fields[name] = unhexlify(fields[name])
    fields["frontier"] = tuple(unhexlify(peak) for peak in fields["frontier"])
    fields["torn"] = tuple(fields["torn"])
    head = Head(**fields)
    digests = (head.last, head.checkpoint_chain, *head.frontier)
    well_formed = (
        all(type(getattr(head, name)) is int and 0 <= getattr(head, name) <= _MAX_NUMBER for name in _NUMBERS)
        and type(head.origin) is type(head.boot_id) is str
        and type(head.durable) is bool
        and all(type(entry) is dict for entry in head.torn)
        and all(len(digest) == merkle.HASH_BYTES for digest in digests)
        and len(head.frontier) == head.size.bit_count()
        and head.root.hex() == root
    )
    if not well_formed:
        raise ValueError("a head with a good MAC that no writer of ours made")
    return head


class HeadFile:
    """The two slots and the watermark, read and written under the writers' lock.

    `current` is the head that counts, `slots` what the two slots hold (None: damaged).
    """

    __slots__ = ("_directory", "_fd", "_key_of", "_lock_fd", "_raw", "current", "slots")

    def __init__(self, directory: str, fd: int, lock_fd: int, key_of: Callable[[int], bytes]) -> None:
        self._directory, self._fd, self._lock_fd, self._key_of = directory, fd, lock_fd, key_of
        self._raw = b""
        self.slots: list[Head | None] = []
        self.current: Head

    def read(self) -> list[Head]:
        """Read both slots; return the valid heads, newest first. Raises LogTampered when there is none."""
        raw = files.read_all(self._fd, SLOTS * SLOT + 1)
        if raw != self._raw:  # else nobody wrote since: what was parsed still holds
            self.slots = [from_slot(raw[at : at + SLOT], self._directory, self._key_of) for at in (0, SLOT)]
            self._raw = raw
        valid = sorted((head for head in self.slots if head), key=_generation, reverse=True)
        if not valid or len(raw) != SLOTS * SLOT:
            raise LogTampered(
                Fault(
                    "head",
                    files.HEAD,
                    None,
                    None,
                    None,
                    "the head does not verify under the key of its epoch",
                ),
                self._directory,
            )
        self.current = valid[0]
        return valid

    def damaged(self) -> int | None:
        """The number (from 1) of a slot that does not verify, if there is one."""
        return self.slots.index(None) + 1 if None in self.slots else None

    def synced(self, boot_id: str) -> int:
        """The generation known to be on the disk; -1 when this boot does not know yet."""
        raw = os.pread(self._lock_fd, _WATERMARK.size, 0)
        if len(raw) != _WATERMARK.size:
            return -1
        boot, generation = _WATERMARK.unpack(raw)
        return int(generation) if boot == boot_id.encode()[:36].ljust(36, b"\0") else -1

    def write(self, head: Head, segment_fd: int) -> Head:
        """Make `head` (its generation is given here) the current one.

        When `head.durable`, everything that it covers is on the disk already. `segment_fd` is synced
        with the head in the one case in which this boot does not know what is on the disk.
        """
        known = self.synced(head.boot_id)
        if known < 0:
            # First writer since the machine started (or the lock file is new): make `current` safe.
            os.fdatasync(segment_fd)
            os.fdatasync(self._fd)
            known = self.current.generation
            self._raise_watermark(head.boot_id, known)
        here = self.slots.index(self.current)
        target = 1 - here if self.current.generation <= known else here
        head = head._replace(generation=1 + max(slot.generation for slot in self.slots if slot))
        raw = to_slot(head, self._key_of(head.epoch))
        if os.pwrite(self._fd, raw, target * SLOT) != SLOT:
            raise OSError("short write to the head")
        self._raw = self._raw[:SLOT] + raw if target else raw + self._raw[SLOT:]
        self.slots[target] = self.current = head
        if head.durable:
            os.fdatasync(self._fd)
            self._raise_watermark(head.boot_id, head.generation)
        return head

    def _raise_watermark(self, boot_id: str, generation: int) -> None:
        os.pwrite(self._lock_fd, _WATERMARK.pack(boot_id.encode()[:36], generation), 0)


def _generation(head: Head) -> int:
    return head.generation
