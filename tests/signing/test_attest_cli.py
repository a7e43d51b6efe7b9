"""attest, and what verify and inspect say of attestations, as people and scripts use them."""

import json
import os
import subprocess
import sys

import pytest
import signing_kit as kit

from plugsec_signing import keys

REVIEW = "https://example.org/review/v1"


class Shell:
    """plugsec in a directory with a home of its own."""

    def __init__(self, directory):
        self.directory = directory
        self.environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(sys.path),
            "NO_COLOR": "1",
            "PLUGSEC_HOME": str(directory / "home"),
        }

    def __call__(self, *arguments, code=0):
        done = subprocess.run(
            [sys.executable, "-m", "plugsec", *arguments],
            cwd=self.directory, env=self.environment, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        assert done.returncode == code, (done.stdout, done.stderr)
        assert "Traceback" not in done.stderr
        return done

    def json(self, *arguments, code=0):
        return json.loads(self(*arguments, "--json", code=code).stdout)


@pytest.fixture
def shell(tmp_path):
    """A shell with two trusted keys, `release` and `reviewer`, a stranger's, and a signed bundle."""
    shell = Shell(tmp_path)
    (tmp_path / "b.plug").write_bytes(kit.pack(signers=()))
    (tmp_path / "review.json").write_text('{"verdict": "good", "score": 0.5}')
    for name in ("release", "reviewer", "stranger"):
        keys.generate_keypair(str(tmp_path), name, None, comment=name)
    for name, role in (("release", "release"), ("reviewer", "review")):
        shell("trust", "add", f"{name}.pub", "--publisher", "acme", "--plugins", "acme/*", "--role", role)
    shell("sign", "b.plug", "--key", "release")
    return shell


def attest(shell, key="reviewer", *more, code=0, predicate="review.json", kind=REVIEW):
    return shell("attest", "b.plug", "--predicate", predicate, "--type", kind, "--key", key, *more, code=code)


def test_an_attestation_is_added_verified_and_shown(shell):
    before = shell.json("verify", "b.plug")
    assert before["attestations"] == []
    made = json.loads(attest(shell, "reviewer", "--json").stdout)
    assert made["bundle_id"] == before["bundle_id"]
    after = shell.json("verify", "b.plug", "--require-attestation", REVIEW)
    assert after["bundle_id"] == before["bundle_id"]
    (found,) = after["attestations"]
    assert (found["type"], found["sha256"]) == (REVIEW, made["attestation"]["sha256"])
    assert [each["role"] for each in found["counted"]] == ["review"]
    assert f"attested    {REVIEW}  by" in shell("verify", "b.plug").stdout
    (inspected,) = shell.json("inspect", "b.plug")["attestations"]
    assert inspected["predicate"] == {"verdict": "good", "score": 0.5}
    assert f"attestation {REVIEW}  holds" in shell("inspect", "b.plug").stdout


def test_a_missing_attestation_is_a_refusal_that_is_recorded(shell):
    refused = shell.json("verify", "b.plug", "--require-attestation", REVIEW, code=3)
    assert refused["error"]["id"] == "PLG-ATT-005"
    attest(shell, "stranger")
    refused = shell.json("verify", "b.plug", "--require-attestation", REVIEW, code=3)
    assert "not trusted" in refused["error"]["message"]
    assert shell.json("verify", "b.plug")["attestations"][0]["counted"] == []
    log = shell("audit", "show", "--json").stdout
    assert log.count("PLG-ATT-005") >= 2


def test_two_types_are_both_demanded(shell):
    attest(shell)
    other = "https://slsa.dev/provenance/v1"
    both = ("--require-attestation", REVIEW, "--require-attestation", other)
    assert other in shell.json("verify", "b.plug", *both, code=3)["error"]["message"]
    attest(shell, "release", kind=other)
    assert len(shell.json("verify", "b.plug", *both)["attestations"]) == 2


@pytest.mark.parametrize(
    ("written", "kind", "code", "error_id"),
    [
        ('["a list"]', REVIEW, 4, "PLG-IO-001"),
        ("not JSON", REVIEW, 4, "PLG-JSN-003"),
        ('{"a": 1, "a": 2}', REVIEW, 4, "PLG-JSN-005"),
        ("{}", "no uri", 2, "PLG-USE-001"),
        ('{"x": "' + "y" * 200_000 + '"}', REVIEW, 2, "PLG-USE-001"),
        (None, REVIEW, 2, "PLG-USE-001"),
    ],
)
def test_what_cannot_be_attested_leaves_the_bundle_as_it_was(shell, written, kind, code, error_id):
    before = (shell.directory / "b.plug").read_bytes()
    if written is not None:
        (shell.directory / "p.json").write_text(written)
    refused = attest(shell, "reviewer", "--json", predicate="p.json", kind=kind, code=code)
    assert json.loads(refused.stdout)["error"]["id"] == error_id
    assert (shell.directory / "b.plug").read_bytes() == before


def test_a_bundle_that_does_not_hold_is_not_attested(shell):
    data = bytearray((shell.directory / "b.plug").read_bytes())
    data[-1100] ^= 1
    (shell.directory / "b.plug").write_bytes(data)
    attest(shell, code=4)
    assert (shell.directory / "b.plug").read_bytes() == data
