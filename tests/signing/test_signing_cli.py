"""keygen, sign, verify, inspect and trust as people and scripts use them, each in a process of its own."""

import json
import os
import subprocess
import sys

import pytest
import signing_kit as kit

from plugsec_signing import keys, sshsig

PROGRAM = (
    "import typer;from plugsec.cli import inspect, keygen, sign, trust, verify;"
    "app = typer.Typer(pretty_exceptions_enable=False);"
    "[group.register(app) for group in (keygen, sign, verify, inspect, trust)];app(prog_name='plugsec')"
)
ACME = keys.fingerprint(kit.ACME.public)


class Shell:
    """A working directory, a home for plugsec, and the commands under test."""

    def __init__(self, directory):
        self.directory = directory
        self.environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(sys.path),
            "PLUGSEC_HOME": str(directory / "home"),
            "NO_COLOR": "1",
            "COLUMNS": "100",
        }

    def run(self, *arguments, code=0, **options):
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, *arguments],
            cwd=self.directory, env=self.environment, capture_output=True, text=True, check=False,
            stdin=subprocess.DEVNULL, start_new_session=True, **options,
        )  # fmt: skip
        assert done.returncode == code, (done.stdout, done.stderr)
        assert "Traceback" not in done.stderr
        return done

    def json(self, *arguments, code=0, **options):
        done = self.run(*arguments, "--json", code=code, **options)
        value = json.loads(done.stdout)
        assert done.stdout.count("\n") == 1
        assert value["code"] == code
        return value

    def events(self):
        """What the audit log holds, read as lines of JSON and not by its own reader."""
        found = []
        for root, _, names in os.walk(self.directory / "home" / "state" / "audit"):
            for name in sorted(names):
                if name.endswith(".jsonl"):
                    with open(os.path.join(root, name), encoding="utf-8") as file:
                        found += [json.loads(line) for line in file]
        return found

    def write(self, name, data):
        (self.directory / name).write_bytes(data)
        return name

    def passphrase(self, text):
        """Options that hand over a passphrase by descriptor."""
        read_end, write_end = os.pipe()
        os.write(write_end, text.encode() + b"\n")
        os.close(write_end)
        return ("--passphrase-fd", str(read_end)), {"pass_fds": (read_end,)}


@pytest.fixture
def shell(tmp_path):
    return Shell(tmp_path)


@pytest.fixture
def unsigned(shell):
    return shell.write("wordfreq-1.2.3.plug", kit.pack(signers=()))


def test_the_whole_way_from_a_key_to_a_verified_bundle(shell, unsigned):
    made = shell.json("keygen", "release", "--no-passphrase")
    assert made["protected"] is False
    refused = shell.json("verify", unsigned, code=3)
    assert (refused["outcome"], refused["error"]["id"]) == ("refused", "PLG-TRU-001")
    signed = shell.json("sign", unsigned, "--key", "release", "--publisher", "acme")
    assert signed["added"] == [made["fingerprint"]]
    assert shell.json("verify", unsigned, code=3)["error"]["id"] == "PLG-TRU-002"
    added = shell.json("trust", "add", "release.pub", "--publisher", "acme", "--id", "acme-release")
    verified = shell.json("verify", unsigned)
    assert verified["bundle_id"] == signed["bundle_id"]
    assert verified["signers"] == [
        {"key_id": "acme-release", "publisher": "acme", "role": "release", "fingerprint": made["fingerprint"]}
    ]
    assert (verified["files"], verified["untrusted"], verified["warnings"]) == (len(kit.FILES), [], [])
    shell.json("trust", "remove", "acme-release")
    assert shell.json("verify", unsigned, code=3)["error"]["id"] == "PLG-TRU-002"
    told = [(event["event"], event.get("decision")) for event in shell.events() if "decision" in event]
    assert told == [
        ("bundle.refused", "refused"),
        ("bundle.refused", "refused"),
        ("trust.changed", "added"),
        ("bundle.verified", "verified"),
        ("trust.changed", "removed"),
        ("bundle.refused", "refused"),
    ]
    assert shell.events()[verified["audit"]["seq"]]["bundle_id"] == verified["bundle_id"]
    assert added["audit"]["seq"] < verified["audit"]["seq"]


def test_verify_writes_nothing_but_the_audit_record(shell, unsigned):
    shell.run("verify", unsigned, code=3)
    assert sorted(os.listdir(shell.directory)) == ["home", unsigned]
    assert sorted(os.listdir(shell.directory / "home")) == ["state"]


def test_a_verdict_that_cannot_be_recorded_is_no_verdict(shell):
    path = shell.write("wordfreq-1.2.3.plug", kit.pack())
    shell.write("acme.pub", keys.public_line(kit.ACME.public).encode())
    shell.run("trust", "add", "acme.pub", "--publisher", "acme")
    shell.write("not-a-directory", b"")
    shell.run("verify", path, "--audit", "not-a-directory", code=9)
    shell.run(
        "trust", "add", "acme.pub", "--publisher", "acme", "--id", "b", "--audit", "not-a-directory", code=9
    )
    assert len(shell.json("trust", "list")["keys"]) == 1


MALFORMED = {
    "a missing file": (None, 2, "PLG-BND-001"),
    "an empty file": (b"", 4, "PLG-BND-004"),
    "no bundle": (b"x" * 5000, 4, "PLG-BND-003"),
    "a changed payload": (kit.pack().replace(b"print(1)", b"print(2)"), 4, "PLG-BND-012"),
    "a changed manifest": (kit.pack().replace(b'"release":7', b'"release":8'), 3, "PLG-SIG-005"),
    "an appended byte": (kit.pack() + b"x", 4, "PLG-BND-014"),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_every_kind_of_bad_bundle_has_its_exit_code_and_a_next_step(name, shell):
    data, code, error_id = MALFORMED[name]
    shell.write("acme.pub", keys.public_line(kit.ACME.public).encode())
    shell.run("trust", "add", "acme.pub", "--publisher", "acme")
    if data is not None:
        shell.write("x.plug", data)
    error = shell.json("verify", "x.plug", code=code)["error"]
    assert error["id"] == error_id
    assert error["message"] and error["hint"]
    told = shell.run("verify", "x.plug", code=code)
    assert told.stdout == ""
    assert error_id in told.stderr and "next:" in told.stderr


def test_a_key_with_a_passphrase_signs_only_with_it(shell, unsigned):
    options, descriptor = shell.passphrase("correct horse")
    assert shell.json("keygen", "k", *options, **descriptor)["protected"] is True
    options, descriptor = shell.passphrase("wrong")
    assert (
        shell.json("sign", unsigned, "--key", "k", *options, code=4, **descriptor)["error"]["id"]
        == "PLG-KEY-005"
    )
    assert "--passphrase-fd" in shell.json("sign", unsigned, "--key", "k", code=2)["error"]["hint"]
    options, descriptor = shell.passphrase("correct horse")
    assert shell.json("sign", unsigned, "--key", "k", *options, **descriptor)["added"]


def test_an_empty_or_endless_passphrase_is_refused(shell):
    for text in ("", "x" * 5000):
        options, descriptor = shell.passphrase(text)
        shell.json("keygen", "k", *options, code=2, **descriptor)
    shell.json("keygen", "k", "--passphrase-fd", "77", code=2)
    shell.json("keygen", "k", "--passphrase-fd", "-1", code=2)
    shell.json("keygen", "k", "--no-passphrase", "--passphrase-fd", "0", code=2)
    assert os.listdir(shell.directory) == []


@pytest.mark.parametrize("name", ["../k", "a/b", "", ".", "..", "/tmp/k"])
def test_keygen_takes_a_plain_name(name, shell):
    shell.json("keygen", name, "--no-passphrase", code=2)


def test_keygen_never_overwrites(shell):
    shell.run("keygen", "k", "--no-passphrase")
    before = (shell.directory / "k").read_bytes()
    assert shell.json("keygen", "k", "--no-passphrase", code=4)["error"]["id"] == "PLG-KEY-006"
    assert (shell.directory / "k").read_bytes() == before


def test_a_signature_made_by_ssh_keygen_is_imported(shell, unsigned):
    program = kit.stock("ssh-keygen")
    shell.run("keygen", "k", "--no-passphrase")
    shell.write("m", kit.manifest())
    subprocess.run(
        [program, "-q", "-Y", "sign", "-f", "k", "-n", sshsig.NAMESPACE_MANIFEST, "m"],
        cwd=shell.directory, check=True, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    shell.run("sign", unsigned, "--signature", "m.sig")
    imported = (shell.directory / unsigned).read_bytes()
    shell.write(unsigned, kit.pack(signers=()))
    shell.run("sign", unsigned, "--key", "k")
    assert (shell.directory / unsigned).read_bytes() == imported


def test_a_signature_of_something_else_is_not_imported(shell, unsigned):
    before = (shell.directory / unsigned).read_bytes()
    for armour, error_id in (
        (kit.armour(kit.ACME, b"else"), "PLG-SIG-005"),
        (kit.armour(kit.ACME, kit.manifest(), "git"), "PLG-SIG-004"),
        (b"junk", "PLG-SIG-001"),
    ):
        shell.write("s", armour)
        assert shell.json("sign", unsigned, "--signature", "s", code=3)["error"]["id"] == error_id
    assert (shell.directory / unsigned).read_bytes() == before


def test_sign_refuses_another_publisher_and_contradicting_options(shell, unsigned):
    shell.run("keygen", "k", "--no-passphrase")
    shell.json("sign", unsigned, "--key", "k", "--publisher", "other", code=2)
    shell.json("sign", unsigned, code=2)
    shell.json("sign", unsigned, "--key", "k", "--signature", "s", code=2)
    shell.json("sign", unsigned, "--signature", "missing", code=2)
    assert (shell.directory / unsigned).read_bytes() == kit.pack(signers=())


def test_prune_removes_signatures_of_unknown_keys(shell):
    path = shell.write("wordfreq-1.2.3.plug", kit.pack(signers=(kit.ACME, kit.STRANGER)))
    shell.run("trust", "add", keys.public_line(kit.ACME.public), "--publisher", "acme")
    pruned = shell.json("sign", path, "--prune")
    assert pruned["removed"] == [keys.fingerprint(kit.STRANGER.public)]
    assert (shell.directory / path).read_bytes() == kit.pack()


def test_inspect_shows_hostile_text_escaped_and_signatures_without_judging(shell):
    manifest = kit.manifest(summary="\x1b]0;owned\x07 \u202e", permissions=[{"name": "fs.read"}])
    bad = kit.signatures(manifest + b" ", kit.STRANGER)
    pieces = kit.parts(manifest_bytes=manifest)
    entry = kit.raw_entry(f"PLUGSEC/signatures/{next(iter(bad))}.sshsig".encode(), next(iter(bad.values())))
    names = sorted([ACME, next(iter(bad))])
    ordered = {"manifest": pieces.pop("manifest"), **{n: pieces.get(n, entry) for n in names}, **pieces}
    path = shell.write("x.plug", b"".join(ordered.values()))
    shown = shell.run("inspect", path).stdout
    assert "\x1b" not in shown and "\x07" not in shown and "\u202e" not in shown
    assert "\\x1b]0;owned" in shown
    assert "REFUSED PLG-SIG-005" in shown and "verifies" in shown
    told = shell.json("inspect", path)
    assert told["manifest"]["name"] == "acme/wordfreq"
    assert {state["fingerprint"]: state["verifies"] for state in told["signatures"]} == {
        ACME: True, next(iter(bad)): False,
    }  # fmt: skip
    shell.write("y.plug", kit.pack()[:-1])
    assert shell.json("inspect", "y.plug", code=4)["error"]["id"] == "PLG-BND-004"


def test_trust_add_takes_a_file_or_a_line_and_refuses_the_rest(shell):
    line = keys.public_line(kit.ACME.public)
    shell.write("acme.pub", line.encode() + b"\n")
    shell.run("trust", "add", "acme.pub", "--publisher", "acme", "--plugins", "acme/a", "--plugins", "acme/b")
    shell.run("trust", "add", line, "--publisher", "acme", "--id", "b", "--valid-before", "2020-01-01")
    shown = shell.run("trust", "list").stdout
    assert "acme/a, acme/b" in shown and "EXPIRED at 2020-01-01T00:00:00Z" in shown
    listed = shell.json("trust", "list")["keys"]
    assert [key["fingerprint"] for key in listed] == [ACME, ACME]
    identity = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAEAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
    for arguments, code, error_id in (
        ((identity, "--publisher", "acme"), 3, "PLG-KEY-002"),
        (("ssh-rsa AAAA", "--publisher", "acme"), 3, "PLG-KEY-003"),
        ((line, "--publisher", "Acme"), 4, "PLG-TST-002"),
        ((line, "--publisher", "acme", "--plugins", "*"), 4, "PLG-TST-002"),
        ((line, "--publisher", "acme", "--valid-after", "tomorrow"), 4, "PLG-TST-002"),
        ((line, "--publisher", "acme", "--id", "b"), 4, "PLG-TST-004"),
        (("missing.pub", "--publisher", "acme"), 2, "PLG-USE-001"),
    ):
        assert shell.json("trust", "add", *arguments, code=code)["error"]["id"] == error_id
    assert shell.json("trust", "list")["keys"] == listed


def test_trust_add_does_not_take_a_private_key(shell):
    shell.run("keygen", "k", "--no-passphrase")
    error = shell.json("trust", "add", "k", "--publisher", "acme", code=2)["error"]
    assert "private key" in error["message"] and "k.pub" in error["hint"]


def test_a_trust_store_that_others_can_write_is_refused_by_every_command(shell):
    path = shell.write("wordfreq-1.2.3.plug", kit.pack())
    shell.run("trust", "add", keys.public_line(kit.ACME.public), "--publisher", "acme", "--id", "a")
    (shell.directory / "home" / "config" / "trust.d").chmod(0o777)
    for arguments in (("verify", path), ("trust", "list"), ("trust", "remove", "a")):
        assert shell.json(*arguments, code=4)["error"]["id"] == "PLG-TST-003"


@pytest.mark.parametrize(
    "command",
    [
        ("keygen",),
        ("sign",),
        ("verify",),
        ("inspect",),
        ("trust", "add"),
        ("trust", "list"),
        ("trust", "remove"),
    ],
)
def test_help_of_each_command_has_examples(command, shell):
    shown = shell.run(*command, "--help").stdout
    assert "Examples:" in shown
    assert f"plugsec {' '.join(command)} " in shown


def test_a_wrong_command_line_is_usage(shell):
    for arguments in (
        ("verify",),
        ("verify", "a", "b"),
        ("sign", "x", "--passphrase", "secret"),
        ("trust", "nope"),
    ):
        shell.run(*arguments, code=2)
