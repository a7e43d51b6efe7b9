"""Receipts: the signed summary of one run, with proof of its place in the log.

A receipt is two things in one file: a line of canonical JSON, and below it an armoured SSHSIG signature
over that line (newline included), namespace `plugsec-receipt@v1`, by the key of the log's epoch. A stock
OpenSSH checks it:

    head -n 1 run.receipt | ssh-keygen -Y check-novalidate -n plugsec-receipt@v1 -s <(tail -n +2 run.receipt)

The line holds the `run.end` record itself (`record`), its inclusion proof in the tree that it completed
(`inclusion`, `tree`), and a summary in the words of `plugsec run --json`. So the receipt, and any later
checkpoint of the log, prove together that this run was recorded, and what was recorded of it.
"""

from binascii import Error as HexError
from binascii import unhexlify
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from plugsec.audit import keys, merkle, record
from plugsec.audit.errors import ReceiptMalformed, ReceiptRefused, ReceiptSigner
from plugsec.audit.read import Reader
from plugsec_signing import sshsig
from plugsec_signing.canonical import decode, decode_canonical, encode
from plugsec_signing.errors import SigningError
from plugsec_signing.keys import PrivateKey, PublicKey, parse_public_key
from plugsec_signing.typed import NamedTuple

if TYPE_CHECKING:
    from plugsec.audit.log import AuditLog

FORMAT = "plugsec.receipt/1"
MAX_RECEIPT = 512 * 1024
"""Bytes: a record and a summary of 64 KiB each, escaped once more as JSON text, and a signature."""


class Receipt(NamedTuple):
    """A receipt that verified. `summary` and `record` are what the signer said, `tree` what proves it."""

    origin: str
    epoch: int
    seq: int
    record: Mapping[str, Any]
    summary: Mapping[str, Any]
    tree_size: int
    tree_root: str


def sign_receipt(log: "AuditLog", summary: Mapping[str, Any]) -> bytes:
    """The receipt for the newest `run.end` that `log` recorded.

    Text in `summary` is redacted, escaped and cut as in a record. Raises LogTampered (key missing),
    LogUnsafe; RuntimeError when no run ended, or the summary's `run_id` is another run's.
    """
    evidence = log.evidence
    if evidence is None:
        raise RuntimeError("a receipt was asked for before any run.end was recorded")
    ended = decode(evidence.line)
    if summary.get("run_id", ended.get("run")) != ended.get("run"):
        raise RuntimeError("a receipt was asked for another run than the one that ended")
    head = evidence.head
    body = (
        encode(
            {
                "format": FORMAT,
                "origin": head.origin,
                "epoch": head.epoch,
                "seq": evidence.position.seq,
                "record": evidence.line.decode(),
                "inclusion": [node.hex() for node in evidence.path],
                "tree": {"size": evidence.position.seq + 1, "root": evidence.root.hex()},
                "summary": record.shaped(summary, log.redact),
            }
        )
        + b"\n"
    )
    with Reader(log.directory) as reader:
        secret = keys.load_secret(reader.dirfd, reader.directory, head.epoch)
    private = keys.signing_key(secret)
    public = parse_public_key(keys.openssh_line(keys.public_raw(private), head.origin))
    return body + sshsig.sign(PrivateKey(public, private.sign), body, sshsig.NAMESPACE_RECEIPT)


def verify_receipt(data: bytes, public_key: PublicKey) -> Receipt:
    """Verify a receipt offline, with nothing but the public key of the log's epoch.

        1. a line and a signature, within MAX_RECEIPT
        2. the signature verifies over the line, and is by `public_key`
        3. the line is a receipt in canonical JSON
        4. the record in it leads, by the inclusion proof, to the tree's root
        5. the record is a `run.end` of the place and the run that the receipt names

    Raises ReceiptMalformed (4), SignatureRefused and ReceiptSigner (3), ReceiptRefused, ProofRefused (9).
    """
    body, signature = _split(data)  # 1
    signer = sshsig.verify(sshsig.parse(signature), body, sshsig.NAMESPACE_RECEIPT)  # 2
    if signer.blob != public_key.blob:
        raise ReceiptSigner(
            "the receipt is signed by another key than the one given",
            "give the public key of the log's epoch: --key LOG/keys/epoch-NNNNNN.pub",
        )
    fields = _fields(body)  # 3
    try:
        line = fields["record"].encode()
        seq, size = int(fields["seq"]), int(fields["tree"]["size"])
        path = [unhexlify(node) for node in fields["inclusion"]]
        root = unhexlify(fields["tree"]["root"])
        ended = decode_canonical(line, max_bytes=record.MAX_LINE)
        named = {"seq": seq, "event": "run.end", "run": fields["summary"].get("run_id", ended.get("run"))}
        origin, epoch = str(fields["origin"]), int(fields["epoch"])
    except (KeyError, TypeError, AttributeError, ValueError, HexError, SigningError) as err:
        raise ReceiptMalformed("the receipt's fields are malformed") from err
    merkle.verify_inclusion(merkle.leaf_hash(line), seq, size, path, root)  # 4
    if any(ended.get(name) != value for name, value in named.items()):  # 5
        raise ReceiptRefused("the receipt's record is not the end of the run that it names")
    return Receipt(origin, epoch, seq, ended, fields["summary"], size, root.hex())


def claimed_epoch(data: bytes) -> int:
    """The epoch that a receipt claims, to find the key with; nothing is verified. Raises ReceiptMalformed."""
    epoch = _fields(_split(data)[0]).get("epoch")
    if type(epoch) is not int or not 1 <= epoch <= keys.MAX_EPOCHS:
        raise ReceiptMalformed("the receipt names no epoch")
    return epoch


def _split(data: bytes) -> tuple[bytes, bytes]:
    if len(data) > MAX_RECEIPT:
        raise ReceiptMalformed(f"the receipt is longer than {MAX_RECEIPT} bytes")
    body, newline, signature = data.partition(b"\n")
    if not newline or not signature:
        raise ReceiptMalformed(
            "the file is not a receipt: it should be a line of JSON and a signature",
            "plugsec run … --receipt FILE writes one",
        )
    return body + newline, signature


def _fields(body: bytes) -> dict[str, Any]:
    try:
        fields = decode_canonical(body[:-1], max_bytes=MAX_RECEIPT)
    except SigningError as err:
        raise ReceiptMalformed(f"the receipt is malformed: {err.message}") from err
    if not isinstance(fields, dict) or fields.get("format") != FORMAT:
        raise ReceiptMalformed(f"the file is not a receipt of the form {FORMAT}", "upgrade plugsec")
    return fields
