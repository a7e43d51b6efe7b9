"""A receipt proves one run to somebody who has nothing but the log's public key."""

import json
import os
import shutil
import subprocess

import logs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plugsec.audit import merkle
from plugsec.audit.errors import (
    LogTampered,
    ProofRefused,
    ReceiptMalformed,
    ReceiptRefused,
    ReceiptSigner,
)
from plugsec.audit.keys import load_secret, signing_key
from plugsec.audit.log import AuditLog
from plugsec.audit.receipt import MAX_RECEIPT, claimed_epoch, sign_receipt, verify_receipt
from plugsec.audit.verify import verify
from plugsec.errors import REFUSALS
from plugsec_signing import sshsig
from plugsec_signing.canonical import encode
from plugsec_signing.errors import SignatureRefused
from plugsec_signing.keys import PrivateKey, parse_public_key


def run_once(log, name, outcome="ok"):
    log.append("run.start", run=name)
    log.append("run.end", run=name, decision=outcome, bundle_id="sha256:" + "ab" * 32)
    return sign_receipt(log, {"run_id": name, "outcome": outcome, "usage": {"wall_ms": 12}, "ratio": 0.5})


def public_of(directory):
    with open(os.path.join(directory, "keys/epoch-000001.pub")) as file:
        return parse_public_key(file.read())


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    directory = logs.write(tmp_path_factory.mktemp("receipt") / "log", 20)
    with AuditLog.open(directory) as log:
        receipt = run_once(log, "r1")
    return directory, receipt, public_of(directory)


def test_a_receipt_says_what_the_log_says(made):
    directory, receipt, public = made
    found = verify_receipt(receipt, public)
    assert (found.seq, found.tree_size, found.epoch) == (21, 22, 1)
    assert found.record["run"] == "r1"
    assert found.summary == {"run_id": "r1", "outcome": "ok", "usage": {"wall_ms": 12}, "ratio": "0.5"}
    logged = verify(directory)
    assert (found.origin, found.tree_root) == (logged.origin, logged.root)


@pytest.mark.parametrize("size", [1, 2, 3, 62, 63, 64, 65, 126, 127, 128])
def test_the_proof_holds_at_any_size_of_log(size, tmp_path):
    directory = logs.write(tmp_path / "log", size)
    with AuditLog.open(directory) as log:
        receipt = run_once(log, "r1")
        for _ in range(3):
            log.append("denial")  # the log goes on; the receipt stays true
    assert verify_receipt(receipt, public_of(directory)).seq == size + 1


def test_a_receipt_stays_with_its_own_run_when_others_write(tmp_path):
    directory = logs.write(tmp_path / "log", 5)
    with AuditLog.open(directory) as mine, AuditLog.open(directory) as other:
        mine.append("run.end", run="mine")
        other.append("run.end", run="other")
        mine.append("denial")
        receipt = sign_receipt(mine, {"run_id": "mine"})
    assert verify_receipt(receipt, public_of(directory)).record["run"] == "mine"


def test_stock_openssh_verifies_it(made, tmp_path):
    if shutil.which("ssh-keygen") is None:
        pytest.skip("ssh-keygen is not installed")
    directory, receipt, _ = made
    body, _, signature = receipt.partition(b"\n")
    (tmp_path / "sig").write_bytes(signature)
    with open(os.path.join(directory, "keys/epoch-000001.pub")) as file:
        (tmp_path / "allowed").write_text("log " + " ".join(file.read().split()[:2]) + "\n")
    command = [
        "ssh-keygen",
        "-Y",
        "verify",
        "-f",
        str(tmp_path / "allowed"),
        "-I",
        "log",
        "-n",
        "plugsec-receipt@v1",
        "-s",
        str(tmp_path / "sig"),
    ]
    good = subprocess.run(command, input=body + b"\n", capture_output=True, check=False)
    assert good.returncode == 0, good
    bad = subprocess.run(command, input=body + b" \n", capture_output=True, check=False)
    assert bad.returncode != 0


def test_a_receipt_before_any_run_is_our_own_mistake(tmp_path):
    directory = logs.write(tmp_path / "log", 2)
    with AuditLog.open(directory) as log:
        with pytest.raises(RuntimeError):
            sign_receipt(log, {})
        log.append("run.end", run="r1")
        with pytest.raises(RuntimeError):
            sign_receipt(log, {"run_id": "r2"})


def test_a_receipt_without_its_key_is_refused(tmp_path):
    directory = logs.write(tmp_path / "log", 2)
    with AuditLog.open(directory) as log:
        log.append("run.end", run="r1")
        os.unlink(os.path.join(directory, "keys/epoch-000001.key"))
        with pytest.raises(LogTampered):
            sign_receipt(log, {"run_id": "r1"})


def test_another_logs_key_is_refused(made, tmp_path):
    other = logs.write(tmp_path / "log", 2)
    with pytest.raises(ReceiptSigner) as refused:
        verify_receipt(made[1], public_of(other))
    assert refused.value.code == 3


def resigned(made, change):
    """The receipt with its body changed and signed again by the same key: what the signer could lie about."""
    directory, receipt, _ = made
    body = json.loads(receipt.partition(b"\n")[0])
    change(body)
    raw = encode(body) + b"\n"
    fd = os.open(directory, os.O_RDONLY)
    private = signing_key(load_secret(fd, directory, 1))
    os.close(fd)
    return raw + sshsig.sign(PrivateKey(public_of(directory), private.sign), raw, sshsig.NAMESPACE_RECEIPT)


def with_record(**changes):
    """A record that says something else, and the tree of one leaf that holds it."""

    def change(body):
        record = {**json.loads(body["record"]), **changes}
        line = encode(record)
        body.update(
            record=line.decode(), inclusion=[], tree={"size": 1, "root": merkle.leaf_hash(line).hex()}, seq=0
        )

    return change


LIES = {
    "the record says more": (
        lambda body: body.update(record=body["record"].replace('"ok"', '"no"')),
        ProofRefused,
    ),
    "another place": (lambda body: body.update(seq=20), ProofRefused),
    "a larger tree": (lambda body: body["tree"].update(size=1000), ProofRefused),
    "another root": (lambda body: body["tree"].update(root="00" * 32), ProofRefused),
    "a shorter proof": (lambda body: body["inclusion"].pop(), ProofRefused),
    "a proof of rubbish": (lambda body: body.update(inclusion=["00"] * 3), ProofRefused),
    "another run in the summary": (lambda body: body["summary"].update(run_id="r2"), ReceiptRefused),
    "a record of another kind": (with_record(event="denial", seq=0), ReceiptRefused),
    "a record of another number": (with_record(seq=7), ReceiptRefused),
    "no record": (lambda body: body.pop("record"), ReceiptMalformed),
    "a record that is a list": (lambda body: body.update(record="[1]"), ReceiptMalformed),
    "a record that is a number": (lambda body: body.update(record=7), ReceiptMalformed),
    "a summary that is a list": (lambda body: body.update(summary=[]), ReceiptMalformed),
    "a proof that is no list": (lambda body: body.update(inclusion=5), ReceiptMalformed),
    "a proof that is not hexadecimal": (lambda body: body.update(inclusion=["zz"]), ReceiptMalformed),
    "a size that is text": (lambda body: body["tree"].update(size="many"), ReceiptMalformed),
    "a newer form": (lambda body: body.update(format="plugsec.receipt/2"), ReceiptMalformed),
}


@pytest.mark.parametrize("name", LIES)
def test_signed_lies_do_not_fit_together(name, made):
    change, refusal = LIES[name]
    with pytest.raises(refusal):
        verify_receipt(resigned(made, change), made[2])


def test_an_unchanged_receipt_signed_again_is_the_same(made):
    assert resigned(made, lambda body: None) == made[1]


UNSIGNED = {
    "empty": lambda receipt: b"",
    "no signature": lambda receipt: receipt.partition(b"\n")[0] + b"\n",
    "only a signature": lambda receipt: receipt.partition(b"\n")[2],
    "too long": lambda receipt: receipt + b"x" * MAX_RECEIPT,
    "no newline": lambda receipt: receipt.replace(b"\n", b""),
    "a signature over something else": lambda receipt: receipt.replace(b'"outcome":"ok"', b'"outcome":"no"'),
    "text after the signature": lambda receipt: receipt + b"\n",
    "carriage returns": lambda receipt: receipt.replace(b"\n", b"\r\n"),
}


@pytest.mark.parametrize("name", UNSIGNED)
def test_refused(name, made):
    with pytest.raises((ReceiptMalformed, SignatureRefused)) as refused:
        verify_receipt(UNSIGNED[name](made[1]), made[2])
    assert refused.value.code in (3, 4)


def test_a_signature_for_another_purpose_is_refused(made):
    directory, receipt, public = made
    body = receipt.partition(b"\n")[0] + b"\n"
    fd = os.open(directory, os.O_RDONLY)
    private = signing_key(load_secret(fd, directory, 1))
    os.close(fd)
    replayed = body + sshsig.sign(PrivateKey(public, private.sign), body, "plugsec-manifest@v1")
    with pytest.raises(SignatureRefused):
        verify_receipt(replayed, public)


@settings(deadline=None)
@given(st.data())
def test_no_flipped_bit_is_accepted(made, data):
    _, receipt, public = made
    changed = bytearray(receipt)
    changed[data.draw(st.integers(0, len(receipt) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(REFUSALS):
        verify_receipt(bytes(changed), public)


@settings(deadline=None)
@given(st.binary(max_size=300))
def test_nonsense_is_refused_not_crashed_on(made, data):
    for act in (claimed_epoch, lambda raw: verify_receipt(raw, made[2])):
        with pytest.raises(REFUSALS):
            act(data)
