"""ssh-agent signs, and whatever else listens on its socket does not get a wrong signature past us."""

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
import threading
import time

import fido_token
import pytest
import signing_kit as kit
from hypothesis import given, settings
from hypothesis import strategies as st

from plugsec_signing import agent, keys, sshsig
from plugsec_signing.errors import AgentError, SigningError

MESSAGE = kit.manifest()
NAMESPACE = sshsig.NAMESPACE_MANIFEST
s = fido_token.string
KEY = kit.ACME.public


# The real one.


@pytest.fixture
def started():
    """A directory with a real ssh-agent's socket in it."""
    program, add = kit.stock("ssh-agent"), kit.stock("ssh-add")
    directory = tempfile.mkdtemp(prefix="agent")  # a socket's path has little room, pytest's are long
    path = os.path.join(directory, "s")
    command = [program, "-D", "-a", path, "-P", "/*"]  # the libraries that it may load for FIDO keys
    quiet = {**os.environ, "SSH_ASKPASS_REQUIRE": "never"}
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=quiet)
    try:
        deadline = time.monotonic() + 30
        while not os.path.exists(path) and time.monotonic() < deadline:
            time.sleep(0.01)
        yield Real(directory, path, add)
    finally:
        process.terminate()
        process.wait(30)
        shutil.rmtree(directory)


class Real:
    def __init__(self, directory, path, add):
        self.directory, self.path, self._add = directory, path, add

    def add(self, name, kind, *options):
        """Make a key with ssh-keygen, hand it to the agent, and return its public line."""
        file = os.path.join(self.directory, name)
        subprocess.run(
            [kit.stock("ssh-keygen"), "-q", "-t", kind, "-N", "", "-C", name, "-f", file], check=True
        )
        self.ssh_add(*options, file)
        with open(file + ".pub", encoding="utf-8") as public:
            return public.read()

    def ssh_add(self, *arguments):
        environment = {**os.environ, "SSH_AUTH_SOCK": self.path, "SSH_ASKPASS_REQUIRE": "never"}
        return subprocess.run(
            [self._add, "-q", *arguments], env=environment, check=True, capture_output=True, text=True,
            stdin=subprocess.DEVNULL,
        ).stdout  # fmt: skip


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa"])
def test_the_agent_s_only_key_signs_and_the_signature_verifies(kind, started):
    line = started.add("k", kind)
    one = agent.Agent(started.path)
    public = agent.choose(one.list_keys(), None)
    assert keys.public_line(public) == line.strip()
    for _ in range(6):  # ECDSA signatures are high or low by chance; ours are always the one spelling
        armour = sshsig.sign(one.signer(public), MESSAGE, NAMESPACE)
        assert sshsig.verify(sshsig.parse(armour), MESSAGE, NAMESPACE).blob == public.blob


def test_the_agent_s_token_signs_and_one_that_was_not_touched_does_not(started, provider):
    one = agent.Agent(started.path)
    for name, options in (("touched", ()), ("untouched", ("-O", "no-touch-required"))):
        made = fido_token.keygen(started.directory, provider, name, *options)
        assert made.returncode == 0, made.stderr
        started.ssh_add("-S", provider, os.path.join(started.directory, name))
        public = agent.choose(one.list_keys(), None)
        assert public.algorithm == "sk-ssh-ed25519@openssh.com"
        if name == "touched":
            armour = sshsig.sign(one.signer(public), MESSAGE, NAMESPACE)
            assert sshsig.verify(sshsig.parse(armour), MESSAGE, NAMESPACE).blob == public.blob
        else:
            with pytest.raises(AgentError, match="without touching") as caught:
                sshsig.sign(one.signer(public), MESSAGE, NAMESPACE)
            assert caught.value.id == "PLG-AGT-002"
        started.ssh_add("-D")


def test_a_signature_by_the_agent_is_byte_for_byte_that_of_ssh_keygen(started):
    started.add("k", "ed25519")
    one = agent.Agent(started.path)
    ours = sshsig.sign(one.signer(agent.choose(one.list_keys(), None)), MESSAGE, NAMESPACE)
    theirs = subprocess.run(
        ["ssh-keygen", "-Y", "sign", "-f", "k.pub", "-n", NAMESPACE],
        cwd=started.directory, env={**os.environ, "SSH_AUTH_SOCK": started.path},
        input=MESSAGE, capture_output=True, check=True,
    ).stdout  # fmt: skip
    assert ours == theirs


def test_an_agent_without_a_key_of_use_says_what_it_has(started):
    one = agent.Agent(started.path)
    with pytest.raises(AgentError, match="it has none") as caught:
        agent.choose(one.list_keys(), None)
    assert (caught.value.id, caught.value.code) == ("PLG-AGT-003", 2)
    started.add("r", "rsa")
    with pytest.raises(AgentError, match="1 of kinds that are not accepted") as caught:
        agent.choose(one.list_keys(), None)
    assert caught.value.id == "PLG-AGT-003"


def test_of_several_keys_one_must_be_named_and_the_refusal_lists_them(started):
    lines = [started.add(name, "ed25519") for name in ("first", "second")]
    one = agent.Agent(started.path)
    with pytest.raises(AgentError) as caught:
        agent.choose(one.list_keys(), None)
    assert caught.value.id == "PLG-AGT-004"
    prints = [keys.ssh_fingerprint(keys.parse_public_key(line)) for line in lines]
    for told in (*prints, "first", "second"):
        assert told in caught.value.message
    assert agent.choose(one.list_keys(), prints[1]).comment == "second"


def test_a_key_that_the_agent_lacks_is_refused_before_anything_is_signed(started):
    started.add("k", "ed25519")
    found = agent.Agent(started.path).list_keys()
    with pytest.raises(AgentError, match="it has SHA256:") as caught:
        agent.choose(found, keys.ssh_fingerprint(kit.STRANGER.public))
    assert caught.value.id == "PLG-AGT-003"


def test_an_agent_that_refuses_to_sign_is_reported(started):
    started.add("k", "ed25519", "-c")  # asks for confirmation, and nobody is there
    one = agent.Agent(started.path)
    public = agent.choose(one.list_keys(), None)
    with pytest.raises(AgentError) as caught:
        sshsig.sign(one.signer(public), MESSAGE, NAMESPACE)
    assert caught.value.id == "PLG-AGT-005"
    started.ssh_add("-D")
    with pytest.raises(AgentError) as caught:
        sshsig.sign(one.signer(public), MESSAGE, NAMESPACE)
    assert caught.value.id == "PLG-AGT-005"


# What is no agent, or a hostile one.


@contextlib.contextmanager
def answering(*answers, pause=0.0):
    """The path of a socket that gives each connection the next answer, whatever it is asked."""
    directory = tempfile.mkdtemp(prefix="agent")
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(os.path.join(directory, "s"))
    listener.listen()
    listener.settimeout(30)

    def serve():
        for answer in answers:
            with contextlib.suppress(OSError), listener.accept()[0] as connection:
                connection.recv(65536)
                for part in answer if isinstance(answer, list) else [answer]:
                    connection.sendall(part)
                    time.sleep(pause)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield os.path.join(directory, "s")
    finally:
        listener.close()
        thread.join(30)
        shutil.rmtree(directory)


def listed(*pairs, count=None):
    body = b"".join(s(blob) + s(comment) for blob, comment in pairs)
    return s(b"\x0c" + (len(pairs) if count is None else count).to_bytes(4, "big") + body)


def signed(blob):
    return s(b"\x0e" + s(blob))


LISTS = {
    "nothing": b"",
    "half a length": b"\0\0",
    "length without body": b"\0\0\0\5",
    "an empty answer": b"\0\0\0\0",
    "256 KiB and a byte": (256 * 1024 + 1).to_bytes(4, "big") + bytes(64),
    "4 GiB": b"\xff\xff\xff\xff",
    "another kind of answer": s(b"\x06"),
    "a signature": signed(s(b"ssh-ed25519") + s(bytes(64))),
    "no count": s(b"\x0c\0\0"),
    "more keys than are there": listed((KEY.blob, b"k"), count=2),
    "fewer keys than are there": listed((KEY.blob, b"k"), (KEY.blob, b"k"), count=1),
    "10^9 keys": listed((KEY.blob, b"k"), count=10**9),
    "2^32 - 1 keys": listed(count=2**32 - 1),
    "2,049 keys": listed(*[(b"", b"")] * 2049),
    "a key longer than the answer": s(b"\x0c\0\0\0\1" + b"\xff\xff\xff\xff"),
    "HTTP": b"HTTP/1.1 400 Bad Request\r\n\r\n",
}


@pytest.mark.parametrize("name", LISTS)
def test_a_malformed_list_of_keys_is_refused(name):
    with answering(LISTS[name]) as path, pytest.raises(AgentError) as caught:
        agent.Agent(path).list_keys()
    assert (caught.value.id, caught.value.code) == ("PLG-AGT-002", 2)


def test_keys_that_are_refused_are_counted_and_not_offered():
    identity = s(b"ssh-ed25519") + s(bytes([1]) + bytes(31))
    certificate = s(b"ssh-ed25519-cert-v01@openssh.com") + s(bytes(32))
    answer = listed(
        (KEY.blob, b"\xff\x1b[31m"), (identity, b""), (certificate, b""), (b"", b""), (KEY.blob, b"")
    )
    with answering(answer) as path:
        found = agent.Agent(path).list_keys()
    assert [key.blob for key in found.usable] == [KEY.blob]
    assert found.others == 3


def test_a_long_list_is_told_in_short():
    found = agent.Found(tuple(kit.signer(seed).public for seed in range(1, 60)), 3)
    with pytest.raises(AgentError) as caught:
        agent.choose(found, None)
    assert caught.value.message.count("SHA256:") == 20
    assert "39 more, 3 of kinds" in caught.value.message


GOOD = s(b"ssh-ed25519") + s(kit.ACME.sign(sshsig.signed_data(MESSAGE, NAMESPACE)))
FIDO = fido_token.sign(bytes([1]) * 32, sshsig.signed_data(MESSAGE, NAMESPACE))
SIGNATURES = {
    "nothing in it": signed(b""),
    "no signature": s(b"\x0e"),
    "a byte after": s(b"\x0e" + s(GOOD) + b"\0"),
    "a byte after the signature": signed(GOOD + b"\0"),
    "another kind": signed(s(b"ssh-rsa") + s(bytes(64))),
    "a FIDO signature": signed(s(b"sk-ssh-ed25519@openssh.com") + s(FIDO[:64]) + FIDO[64:]),
    "another key's": signed(s(b"ssh-ed25519") + s(kit.STRANGER.sign(sshsig.signed_data(MESSAGE, NAMESPACE)))),
    "another message's": signed(s(b"ssh-ed25519") + s(kit.ACME.sign(b"else"))),
    "zeros": signed(s(b"ssh-ed25519") + s(bytes(64))),
    "short": signed(s(b"ssh-ed25519") + s(bytes(63))),
    "a list of keys": listed((KEY.blob, b"")),
}


@pytest.mark.parametrize("name", SIGNATURES)
def test_a_signature_that_does_not_verify_is_never_handed_on(name):
    with answering(SIGNATURES[name]) as path, pytest.raises(AgentError) as caught:
        sshsig.sign(agent.Agent(path).signer(KEY), MESSAGE, NAMESPACE)
    assert caught.value.id == "PLG-AGT-002"


def test_the_answers_above_are_refused_for_what_they_say_and_a_good_one_is_taken():
    with answering(signed(GOOD)) as path:
        assert sshsig.sign(agent.Agent(path).signer(KEY), MESSAGE, NAMESPACE) == kit.armour(kit.ACME, MESSAGE)
    with answering([bytes([byte]) for byte in signed(GOOD)]) as path:  # in as many pieces as it likes
        assert sshsig.sign(agent.Agent(path).signer(KEY), MESSAGE, NAMESPACE) == kit.armour(kit.ACME, MESSAGE)


def test_an_agent_that_says_nothing_or_drips_is_left_after_its_time(monkeypatch):
    monkeypatch.setattr(agent, "LIST_SECONDS", 0.3)
    for answer in ([b""] * 20, [b"\0\0\0\x28", *[b"\x0c"] * 40]):
        with (
            answering(answer, pause=0.1) as path,
            pytest.raises(AgentError, match="did not answer") as caught,
        ):
            agent.Agent(path).list_keys()
        assert caught.value.id == "PLG-AGT-002"


def test_what_is_no_socket_is_refused(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    for path in (str(tmp_path / "missing"), str(tmp_path / "file"), str(tmp_path), "x" * 200, "a\0b", ""):
        with pytest.raises(AgentError) as caught:
            agent.Agent(path).list_keys()
        assert (caught.value.id, caught.value.code) == ("PLG-AGT-001", 2)


@given(st.binary(max_size=200), st.sampled_from([b"", b"\x0c", b"\x0e", b"\x0c\0\0\0\1", b"\x0e\0\0\0\x53"]))
@settings(max_examples=60, deadline=None)
def test_any_answer_is_refused_within_our_tree(data, head):
    with answering(s(head + data), s(head + data)) as path:
        one = agent.Agent(path)
        with contextlib.suppress(AgentError):
            assert one.list_keys().usable == ()
        with pytest.raises(SigningError):
            one.signer(KEY).sign(b"m")
