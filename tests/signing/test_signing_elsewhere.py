"""Signing where plugsec is not: by ssh-agent, on an air-gapped machine, by hardware that knows no SSH."""

import base64
import json
import os
import pty
import shutil
import subprocess
import sys
import tempfile
import time

import fido_token
import pytest
import signing_kit as kit
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from test_signing_cli import PROGRAM, Shell

from plugsec_signing import keys, sshsig

NAME = "wordfreq-1.2.3.plug"
NAMESPACE = sshsig.NAMESPACE_MANIFEST
STOCK_SIGN = ["ssh-keygen", "-q", "-Y", "sign", "-n", NAMESPACE]


@pytest.fixture
def shell(tmp_path):
    made = Shell(tmp_path)
    made.write(NAME, kit.pack(signers=()))
    return made


@pytest.fixture
def agent(shell):
    """A function that makes a key with ssh-keygen and puts it into the shell's own ssh-agent."""
    directory = tempfile.mkdtemp(prefix="agent")
    path = os.path.join(directory, "s")
    process = subprocess.Popen([kit.stock("ssh-agent"), "-D", "-a", path], stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 30
    while not os.path.exists(path) and time.monotonic() < deadline:
        time.sleep(0.01)
    shell.environment["SSH_AUTH_SOCK"] = path

    def add(name, kind="ed25519"):
        where = {"cwd": shell.directory, "env": shell.environment, "capture_output": True}
        subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", "", "-f", name], check=True, **where)
        subprocess.run(["ssh-add", "-q", name], stdin=subprocess.DEVNULL, check=True, **where)
        (shell.directory / name).unlink()  # only the agent has it now
        return keys.parse_public_key((shell.directory / f"{name}.pub").read_text())

    try:
        yield add
    finally:
        process.terminate()
        process.wait(30)
        shutil.rmtree(directory)


def bundle(shell):
    return (shell.directory / NAME).read_bytes()


def test_the_agent_signs_and_the_bundle_is_verified(shell, agent):
    key = agent("k")
    signed = shell.json("sign", NAME, "--agent")
    assert signed["added"] == [keys.fingerprint(key)]
    shell.run("trust", "add", "k.pub", "--publisher", "acme")
    assert shell.json("verify", NAME)["bundle_id"] == signed["bundle_id"]


def test_the_agent_signs_attestations_as_well(shell, agent):
    key = agent("k")
    shell.write("review.json", b'{"verdict": "good"}')
    command = [
        sys.executable, "-m", "plugsec", "attest", NAME, "--predicate", "review.json",
        "--type", "https://example.org/review/v1", "--json",
    ]  # fmt: skip
    here = {
        "cwd": shell.directory,
        "env": shell.environment,
        "capture_output": True,
        "stdin": subprocess.DEVNULL,
    }
    done = subprocess.run([*command, "--agent"], check=True, **here)
    assert json.loads(done.stdout)["attestation"]["signers"] == [keys.fingerprint(key)]
    assert subprocess.run(command, check=False, **here).returncode == 2  # neither a key nor the agent


def test_one_of_several_keys_is_named_by_file_or_fingerprint(shell, agent):
    first, second = agent("first"), agent("second", "ecdsa")
    before = bundle(shell)
    refused = shell.json("sign", NAME, "--agent", code=2)["error"]
    assert refused["id"] == "PLG-AGT-004"
    assert keys.ssh_fingerprint(first) in refused["message"]
    assert bundle(shell) == before
    assert shell.json("sign", NAME, "--agent", "--key", "first.pub")["added"] == [keys.fingerprint(first)]
    told = shell.run("sign", NAME, "--agent", "--key", keys.ssh_fingerprint(second))
    assert keys.fingerprint(second) in told.stdout
    assert 'algorithm = "ecdsa-sha2-nistp256"' in told.stderr
    signatures = {
        state["fingerprint"]: state["verifies"] for state in shell.json("inspect", NAME)["signatures"]
    }
    assert signatures == {keys.fingerprint(first): True, keys.fingerprint(second): True}


def test_what_the_agent_lacks_is_refused_and_nothing_is_changed(shell, agent):
    agent("k")
    shell.write("other.pub", keys.public_line(kit.STRANGER.public).encode())
    shell.run("keygen", "private", "--no-passphrase")
    before = bundle(shell)
    for named, error_id in (
        ("other.pub", "PLG-AGT-003"),
        ("SHA256:nothing", "PLG-AGT-003"),
        ("private", "PLG-USE-001"),
        ("missing.pub", "PLG-USE-001"),
    ):
        assert shell.json("sign", NAME, "--agent", "--key", named, code=2)["error"]["id"] == error_id
    assert bundle(shell) == before


def test_without_an_agent_the_refusal_says_so(shell):
    shell.environment.pop("SSH_AUTH_SOCK", None)
    assert shell.json("sign", NAME, "--agent", code=2)["error"]["id"] == "PLG-AGT-001"
    shell.environment["SSH_AUTH_SOCK"] = str(shell.directory / "nothing")
    assert shell.json("sign", NAME, "--agent", code=2)["error"]["id"] == "PLG-AGT-001"


def test_an_air_gapped_machine_signs_the_printed_payload(shell):
    subprocess.run(
        [kit.stock("ssh-keygen"), "-q", "-t", "ed25519", "-N", "", "-f", "k"], cwd=shell.directory, check=True
    )
    with open(shell.directory / "m", "wb") as payload:
        subprocess.run(
            [sys.executable, "-c", PROGRAM, "sign", NAME, "--print-payload"],
            cwd=shell.directory, env=shell.environment, stdout=payload, check=True, stderr=subprocess.DEVNULL,
        )  # fmt: skip
    assert (shell.directory / "m").read_bytes() == kit.manifest()
    subprocess.run([*STOCK_SIGN, "-f", "k", "m"], cwd=shell.directory, check=True, stdin=subprocess.DEVNULL)
    shell.run("sign", NAME, "--signature", "m.sig")
    shell.run("trust", "add", "k.pub", "--publisher", "acme")
    shell.run("verify", NAME)


def test_a_signature_by_a_token_made_elsewhere_is_imported(shell, provider):
    made = fido_token.keygen(str(shell.directory), provider, "k")
    assert made.returncode == 0, made.stderr
    shell.write("m", kit.manifest())
    subprocess.run(
        [*STOCK_SIGN, "-w", provider, "-f", "k", "m"],
        cwd=shell.directory, check=True, stdin=subprocess.DEVNULL, capture_output=True,
    )  # fmt: skip
    told = shell.run("sign", NAME, "--signature", "m.sig")
    assert 'algorithm = "sk-ssh-ed25519@openssh.com"' in told.stderr


def test_either_spelling_of_an_ecdsa_signature_is_imported_as_the_one(shell):
    private = ec.derive_private_key(1, ec.SECP256R1())
    line = private.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    key = keys.parse_public_key(line)
    data = sshsig.signed_data(kit.manifest(), NAMESPACE)
    low = sshsig.from_bare(key, private.sign(data, ec.ECDSA(hashes.SHA256())), NAMESPACE)
    r, s = low_numbers(low)
    order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
    number = (order - s).to_bytes(33, "big")
    high = sshsig.encode(
        sshsig.parse(low)._replace(
            signature=fido_token.string(r)
            + fido_token.string(number.lstrip(b"\0") if number[1] < 128 else number)
        )
    )
    results = []
    for armour in (low, high):
        shell.write(NAME, kit.pack(signers=()))
        shell.write("s", armour)
        shell.run("sign", NAME, "--signature", "s")
        results.append(bundle(shell))
    assert low != high and results[0] == results[1]


def low_numbers(armour):
    signature = sshsig.parse(armour).signature
    length = int.from_bytes(signature[:4], "big")
    return signature[4 : 4 + length], int.from_bytes(signature[8 + length :], "big")


class Hardware:
    """Something that signs bytes and has never heard of SSH."""

    def __init__(self, kind):
        self.ed25519 = kind == "Ed25519"
        self.key = Ed25519PrivateKey.generate() if self.ed25519 else ec.generate_private_key(ec.SECP256R1())

    def line(self):
        return self.key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)

    def sign(self, data):
        return self.key.sign(data) if self.ed25519 else self.key.sign(data, ec.ECDSA(hashes.SHA256()))


@pytest.mark.parametrize("kind", ["Ed25519", "ECDSA P-256"])
def test_hardware_signs_the_raw_payload_and_its_bare_signature_is_imported(kind, shell):
    hardware = Hardware(kind)
    shell.write("k.pub", hardware.line() + b"\n")
    payload = base64.b64decode(shell.json("sign", NAME, "--print-payload", "--raw")["payload_base64"])
    assert payload == sshsig.signed_data(kit.manifest(), NAMESPACE) and len(payload) == 111
    shell.write("s", hardware.sign(payload))
    signed = shell.json("sign", NAME, "--signature", "s", "--raw", "--key", "k.pub")
    assert signed["added"] == [keys.fingerprint(keys.parse_public_key(hardware.line().decode()))]
    after = bundle(shell)
    shell.write("k.pub", Hardware(kind).line())
    assert (
        shell.json("sign", NAME, "--signature", "s", "--raw", "--key", "k.pub", code=3)["error"]["id"]
        == "PLG-SIG-005"
    )
    assert bundle(shell) == after


def test_openssl_s_signature_of_the_raw_payload_is_imported(shell):
    openssl = kit.stock("openssl")
    here = {"cwd": shell.directory, "capture_output": True}
    subprocess.run([openssl, "genpkey", "-algorithm", "ed25519", "-out", "k.pem"], check=True, **here)
    (shell.directory / "k.pem").chmod(0o600)
    public = keys.load_private_key(str(shell.directory / "k.pem")).public
    shell.write("k.pub", keys.public_line(public).encode())
    with open(shell.directory / "m", "wb") as payload:
        subprocess.run(
            [sys.executable, "-c", PROGRAM, "sign", NAME, "--print-payload", "--raw"],
            cwd=shell.directory, env=shell.environment, stdout=payload, check=True, stderr=subprocess.DEVNULL,
        )  # fmt: skip
    subprocess.run(
        [openssl, "pkeyutl", "-sign", "-inkey", "k.pem", "-rawin", "-in", "m", "-out", "s"],
        check=True,
        **here,
    )
    shell.run("sign", NAME, "--signature", "s", "--raw", "--key", "k.pub")
    by_openssl = bundle(shell)
    shell.write(NAME, kit.pack(signers=()))
    shell.run("sign", NAME, "--key", "k.pem")
    assert bundle(shell) == by_openssl


def test_signers_of_every_algorithm_share_a_bundle_whose_id_stays(shell):
    before = shell.json("inspect", NAME)["bundle_id"]
    added = set()
    for name, kind in (("a", "ed25519"), ("b", "ecdsa"), ("c", "ed25519")):
        subprocess.run(
            [kit.stock("ssh-keygen"), "-q", "-t", kind, "-N", "", "-f", name], cwd=shell.directory, check=True
        )
        signed = shell.json("sign", NAME, "--key", name)
        assert signed["bundle_id"] == before
        added |= set(signed["added"])
    assert len(added) == 3
    assert {state["fingerprint"] for state in shell.json("inspect", NAME)["signatures"]} == added


def test_nothing_is_printed_for_signing_a_bundle_that_would_be_refused(shell):
    for data, code, error_id in (
        (kit.pack().replace(b"print(1)", b"print(2)"), 4, "PLG-BND-012"),
        (kit.pack()[:-1], 4, "PLG-BND-004"),
        (kit.pack().replace(b'"release":7', b'"release":8'), 3, "PLG-SIG-005"),
    ):
        shell.write("x.plug", data)
        refused = shell.run("sign", "x.plug", "--print-payload", code=code)
        assert refused.stdout == "" and error_id in refused.stderr
    shell.json("sign", NAME, "--print-payload", "--publisher", "other", code=2)
    shell.run("sign", NAME, "--print-payload", "--publisher", "acme")


def test_the_payload_is_not_written_to_a_terminal(shell):
    leader, follower = pty.openpty()
    try:
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, "sign", NAME, "--print-payload"], cwd=shell.directory,
            env=shell.environment, stdout=follower, stderr=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
    finally:
        os.close(follower)
        os.close(leader)
    assert done.returncode == 2
    assert "--print-payload > m" in done.stderr


CONTRADICTIONS = [
    ("--print-payload", "--key", "k"),
    ("--print-payload", "--agent"),
    ("--print-payload", "--signature", "s"),
    ("--print-payload", "--prune"),
    ("--raw",),
    ("--raw", "--key", "k"),
    ("--raw", "--signature", "s"),
    ("--raw", "--agent"),
    ("--agent", "--signature", "s"),
    ("--agent", "--signature", "s", "--prune"),
    ("--key", "k", "--signature", "s"),
]


@pytest.mark.parametrize("options", CONTRADICTIONS, ids=" ".join)
def test_options_that_contradict_each_other_are_usage(options, shell):
    shell.json("sign", NAME, *options, code=2)
