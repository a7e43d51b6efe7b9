"""The memory of what was accepted: believed only when whole and private, changed only by one writer at a time."""

import contextlib
import fcntl
import hashlib
import json
import multiprocessing
import os
import stat
import subprocess
import sys

import pytest
import signing_kit as kit
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from plugsec_signing import canonical, keys, memory, memory_edit, trust
from plugsec_signing.errors import NotRemembered, TrustMemoryError, TrustRefused
from plugsec_signing.memory import NOTHING, Remembered, Seen
from plugsec_signing.revocation import EMPTY

ACME, REVIEW = (keys.fingerprint(each.public) for each in (kit.ACME, kit.REVIEW))
NOW = kit.NOW
NAME = kit.CANDIDATE.name


def bundle_id(number):
    return f"sha256:{number:064x}"


@pytest.fixture
def path(tmp_path):
    return memory.path_in(str(tmp_path / "state"))


def verdict(release=7, number=1, *, name=NAME, now=NOW, signers=(ACME,), remembered=NOTHING, allow=False):
    store = kit.store(
        kit.trust_text(plugins=["*/*"]),
        kit.trust_text(kit.REVIEW, id="review", role="review", plugins=["*/*"]),
    )
    candidate = kit.CANDIDATE._replace(name=name, release=release, bundle_id=bundle_id(number))
    return trust.judge(store, candidate, signers, now, remembered=remembered, allow_downgrade=allow)


def accept(path, release=7, number=1, *, name=NAME, **more):
    """What a run does."""
    found = verdict(release, number, name=name, remembered=memory.recall(path, name), **more)
    memory.remember(path, found)


def write(path, *lines):
    """A memory of these lines, with the digest that they need."""
    body = b"".join(line + b"\n" for line in lines)
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    with open(path, "wb") as file:
        file.write(body + b'{"sha256":"%s"}\n' % hashlib.sha256(body).hexdigest().encode())
    os.chmod(path, 0o600)


HEADER = b'{"format":"plugsec.memory/1","newest":1,"revocations":{}}'
ENTRY = b'{"release":7,"signers":{"%s":5}}' % ACME.encode()
LINE = b'["acme/wordfreq",{"%s":%s}]' % (bundle_id(1).encode(), ENTRY)


def test_what_never_was_remembers_nothing_and_recalling_writes_nothing(path):
    assert memory.recall(path, NAME) == NOTHING
    assert not os.path.exists(os.path.dirname(path))


def test_an_accepted_bundle_is_remembered_with_its_signers_and_time(path):
    accept(path, signers=(ACME, REVIEW))
    assert memory.recall(path, NAME) == Remembered({bundle_id(1): Seen(7, {ACME: NOW, REVIEW: NOW})}, NOW, 0)
    assert memory.recall(path, "acme/other") == Remembered({}, NOW, 0)
    assert memory.recall(path, "acme/wordfre").bundles == {}
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    assert stat.S_IMODE(os.stat(os.path.dirname(path)).st_mode) == 0o700
    assert os.listdir(os.path.dirname(path)) == ["memory.jsonl"]


def test_a_known_bundle_is_neither_written_nor_locked(path):
    accept(path)
    before = os.stat(path)
    fd = os.open(os.path.dirname(path), os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        accept(path, now=NOW + 500)
    finally:
        os.close(fd)
    after = os.stat(path)
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


def test_a_signature_that_counts_later_has_a_time_of_its_own_and_the_first_one_never_moves(path):
    accept(path)
    accept(path, signers=(ACME, REVIEW), now=NOW + 5)
    accept(path, signers=(ACME,), now=NOW + 9)
    (found,) = memory.recall(path, NAME).bundles.values()
    assert found.signers == {ACME: NOW, REVIEW: NOW + 5}
    assert found.first == NOW


def test_a_clock_that_was_put_back_makes_nothing_older(path):
    accept(path)
    accept(path, 1, 2, name="acme/other", now=NOW - 1000)
    other = memory.recall(path, "acme/other")
    assert other.bundles[bundle_id(2)].first == NOW
    assert other.newest == NOW


def test_the_highest_release_stays_after_a_downgrade_that_was_meant(path):
    accept(path, 8, 1)
    with pytest.raises(TrustRefused) as caught:
        accept(path, 7, 2)
    assert caught.value.id == "PLG-TRU-013"
    accept(path, 7, 2, allow=True)
    assert memory.recall(path, NAME).highest == 8
    with pytest.raises(TrustRefused) as caught:
        accept(path, 7, 2)
    assert caught.value.id == "PLG-TRU-013"


@pytest.mark.parametrize(
    ("first", "second", "allow", "error_id"),
    [((8, 1), (7, 2), False, "PLG-TRU-013"), ((7, 1), (7, 2), False, "PLG-TRU-014"),
     ((7, 1), (7, 2), True, "PLG-TRU-014")],
)  # fmt: skip
def test_of_two_starts_that_judged_at_once_the_second_is_judged_again(first, second, allow, error_id, path):
    early = verdict(*second, allow=allow)
    accept(path, *first)
    with pytest.raises(TrustRefused) as caught:
        memory.remember(path, early)
    assert (caught.value.id, caught.value.code) == (error_id, 3)
    assert list(memory.recall(path, NAME).bundles) == [bundle_id(first[1])]


def _accept_many(path, worker, count):
    for number in range(count):
        accept(path, 1, worker * 1000 + number, name=f"acme/p{worker}-{number}")


def test_concurrent_starts_forget_nothing(path):
    workers = [
        multiprocessing.get_context("fork").Process(target=_accept_many, args=(path, n, 10)) for n in range(4)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    assert len(memory_edit.load(path).plugins) == 40
    assert os.listdir(os.path.dirname(path)) == ["memory.jsonl"]


def test_of_concurrent_starts_with_one_release_exactly_one_bundle_is_accepted(path):
    def start(number):
        try:
            accept(path, 7, number)
        except TrustRefused as err:
            os._exit(0 if err.id == "PLG-TRU-014" else 2)
        os._exit(1)

    pids = []
    for number in range(6):
        pid = os.fork()
        if pid == 0:
            start(number)
        pids.append(pid)
    codes = sorted(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids)
    assert codes == [0] * 5 + [1]
    assert len(memory.recall(path, NAME).bundles) == 1


def test_whoever_holds_the_lock_for_ever_is_named_in_the_end(path, monkeypatch):
    accept(path)
    monkeypatch.setattr(memory_edit, "LOCK_WAIT_S", 0)
    fd = os.open(os.path.dirname(path), os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        with pytest.raises(TrustMemoryError) as caught:
            accept(path, 8, 2)
    finally:
        os.close(fd)
    assert (caught.value.id, caught.value.code) == ("PLG-MEM-007", 4)


# What is not believed.

DAMAGED = {
    "empty": b"",
    "one newline": b"\n",
    "not JSON": b"junk\n",
    "a directory's worth of zeros": bytes(4096),
    "another format": b'{"format":"other/1","newest":1,"revocations":{}}\n',
    "no digest": HEADER + b"\n" + LINE + b"\n",
}
MALFORMED = {
    "no newest": (b'{"format":"plugsec.memory/1","revocations":{}}', LINE),
    "a member too many": (b'{"format":"plugsec.memory/1","more":1,"newest":1,"revocations":{}}', LINE),
    "lists of no store": (HEADER.replace(b"{}", b'{"x":[1,"%s"]}' % ACME.encode()), LINE),
    "a list without a digest": (HEADER.replace(b"{}", b'{"%s":[1]}' % ACME.encode()), LINE),
    "lists that are none": (HEADER.replace(b"{}", b"[]"), LINE),
    "newest is negative": (HEADER.replace(b":1,", b":-1,"), LINE),
    "newest is true": (HEADER.replace(b":1,", b":true,"), LINE),
    "newest is huge": (HEADER.replace(b":1,", b":" + b"9" * 400 + b","), LINE),
    "the line is no pair": (HEADER, b'["acme/wordfreq",1,2]'),
    "the line is another's": (HEADER, b'["acme/wordfreq",5]'),
    "no bundles": (HEADER, b'["acme/wordfreq",{}]'),
    "a bundle id that is none": (HEADER, LINE.replace(b"sha256:", b"sha512:")),
    "a bundle id in upper case": (HEADER, LINE.replace(b'1":{', b'A":{')),
    "a bundle without signers": (HEADER, LINE.replace(b'"%s":5' % ACME.encode(), b"")),
    "a signer that is none": (HEADER, LINE.replace(ACME.encode(), b"acme")),
    "a time that is none": (HEADER, LINE.replace(b":5}", b":null}")),
    "a release that is none": (HEADER, LINE.replace(b":7,", b":7.5,")),
    "a member of a bundle too many": (HEADER, LINE.replace(b'"release"', b'"a":1,"release"')),
    "a key twice": (HEADER, LINE.replace(b'"release":7', b'"release":7,"release":9')),
    "spaces": (HEADER, LINE.replace(b",{", b", {")),
    "deep": (HEADER, b'["acme/wordfreq",' + b"[" * 5000 + b"]" * 5000 + b"]"),
    "two lines of one plugin": (HEADER, LINE, LINE),
    "not UTF-8": (HEADER, LINE.replace(b"release", b"\xff\xfe")),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_memory_is_refused_with_a_way_on(name, path):
    write(path)
    with open(path, "wb") as file:
        file.write(DAMAGED[name])
    with pytest.raises(TrustMemoryError) as caught:
        memory.recall(path, NAME)
    assert (caught.value.id, caught.value.code) == ("PLG-MEM-002", 4)
    assert "trust forget --all" in caught.value.hint


@pytest.mark.parametrize("name", MALFORMED)
def test_a_memory_with_a_right_digest_and_wrong_content_is_refused(name, path):
    write(path, *MALFORMED[name])
    for ask in (lambda: memory.recall(path, NAME), lambda: memory_edit.load(path)):
        with pytest.raises(TrustMemoryError) as caught:
            ask()
        assert caught.value.id == "PLG-MEM-002"


def test_the_form_that_is_accepted_is_the_documented_one(path):
    write(path, HEADER, LINE)
    assert memory.recall(path, NAME) == Remembered({bundle_id(1): Seen(7, {ACME: 5})}, 1, 0)


def test_every_byte_of_the_memory_matters(path):
    accept(path)
    with open(path, "rb") as file:
        whole = file.read()
    for at in range(len(whole)):
        with open(path, "r+b") as file:
            file.write(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(TrustMemoryError) as caught:
            memory.recall(path, NAME)
        assert caught.value.id in {"PLG-MEM-002", "PLG-MEM-004"}
    for length in range(len(whole)):
        os.truncate(path, 0)
        with open(path, "r+b") as file:
            file.write(whole[:length])
        with pytest.raises(TrustMemoryError):
            memory.recall(path, NAME)


def test_a_newer_format_is_refused_as_such(path):
    write(path, HEADER.replace(b"/1", b"/2"), b"anything")
    with pytest.raises(TrustMemoryError) as caught:
        memory.recall(path, NAME)
    assert caught.value.id == "PLG-MEM-004"
    assert "newer" in caught.value.message


@pytest.mark.parametrize("what", ["file", "directory"])
def test_a_memory_that_others_can_write_is_refused(what, path):
    accept(path)
    os.chmod(path if what == "file" else os.path.dirname(path), 0o777)
    with pytest.raises(TrustMemoryError) as caught:
        memory.recall(path, NAME)
    assert caught.value.id == "PLG-MEM-003"
    assert "chmod go-w" in caught.value.hint


@pytest.mark.parametrize("what", ["file", "directory"])
def test_a_memory_that_belongs_to_somebody_else_is_refused(what, path):
    if os.geteuid() != 0:
        pytest.skip("only root can give a file to another user")
    accept(path)
    os.chown(path if what == "file" else os.path.dirname(path), 12345, 12345)
    with pytest.raises(TrustMemoryError) as caught:
        memory.recall(path, NAME)
    assert caught.value.id == "PLG-MEM-003"


@pytest.mark.parametrize("kind", ["link", "pipe", "directory"])
def test_a_memory_that_is_no_file_is_refused_without_waiting(kind, path):
    os.makedirs(os.path.dirname(path), mode=0o700)
    if kind == "link":
        elsewhere = f"{path}.elsewhere"
        write(elsewhere, HEADER)
        os.symlink(elsewhere, path)
    elif kind == "pipe":
        os.mkfifo(path, 0o600)
    else:
        os.mkdir(path)
    with pytest.raises(TrustMemoryError) as caught:
        memory.recall(path, NAME)
    assert caught.value.id in {"PLG-MEM-001", "PLG-MEM-003"}


def test_a_memory_that_is_too_large_is_not_read_to_its_end(path):
    accept(path)
    os.truncate(path, 2**40)
    with pytest.raises(TrustMemoryError) as caught:
        memory.recall(path, NAME)
    assert caught.value.id == "PLG-MEM-002"


def test_a_memory_that_cannot_be_written_refuses_rather_than_forgets(tmp_path):
    (tmp_path / "state").write_text("a file")
    with pytest.raises(TrustMemoryError) as caught:
        memory.remember(memory.path_in(str(tmp_path / "state")), verdict())
    assert (caught.value.id, caught.value.code) == ("PLG-MEM-006", 9)


@given(st.binary(max_size=400) | st.binary(max_size=200).map(lambda tail: HEADER + b"\n" + tail))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_are_a_memory_or_are_refused_within_our_tree(tmp_path, data):
    path = str(tmp_path / "memory.jsonl")
    for content in (data, data + b'{"sha256":"%s"}\n' % hashlib.sha256(data).hexdigest().encode()):
        with open(path, "wb") as file:
            file.write(content)
        os.chmod(path, 0o600)
        os.chmod(tmp_path, 0o700)
        with contextlib.suppress(TrustMemoryError):
            memory.recall(path, NAME)
        with contextlib.suppress(TrustMemoryError):
            memory_edit.load(path)


# Bounds.


def _plugins(count, bundles):
    return {
        f"acme/p{plugin}": {
            bundle_id(plugin * 1000 + n): Seen(n, {ACME: 1000 * plugin + n}) for n in range(bundles)
        }
        for plugin in range(count)
    }


@given(st.integers(1, 6), st.integers(1, 6), st.integers(1, 40))
def test_forgetting_for_want_of_room_never_forgets_a_highest_release(plugins, bundles, most):
    whole = _plugins(plugins, bundles)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(memory_edit, "MAX_BUNDLES", most)
        try:
            left = memory_edit.bounded(whole, keep=bundle_id(0))
        except TrustMemoryError as err:
            assert err.id == "PLG-MEM-005"
            assert most <= plugins
            return
    assert sum(map(len, left.values())) == min(most, plugins * bundles)
    for name, known in whole.items():
        assert max(each.release for each in left[name].values()) == bundles - 1
        assert left[name].items() <= known.items()
    assert bundle_id(0) in left["acme/p0"]


def test_what_was_accepted_longest_ago_is_forgotten_first(monkeypatch):
    monkeypatch.setattr(memory_edit, "MAX_BUNDLES", 5)
    left = memory_edit.bounded(_plugins(2, 4), keep="")
    assert [len(left[name]) for name in ("acme/p0", "acme/p1")] == [1, 4]


def test_a_full_memory_fits_its_file(path):
    signers = {f"{n:064x}": 2**40 for n in range(memory_edit.MAX_SIGNERS)}
    longest = max(len(canonical.encode(signers)), 1) / memory_edit.MAX_SIGNERS
    assert memory_edit.MAX_BUNDLES * (200 + 16 * longest) < memory.MAX_BYTES
    assert path  # sixteen signatures a bundle is what a container can carry


def test_signers_of_one_bundle_are_bounded_and_the_oldest_stay(path, monkeypatch):
    monkeypatch.setattr(memory_edit, "MAX_SIGNERS", 1)
    accept(path)
    found = verdict(signers=(ACME, REVIEW), now=NOW + 1, remembered=memory.recall(path, NAME))
    memory.remember(path, found)
    (known,) = memory.recall(path, NAME).bundles.values()
    assert known.signers == {ACME: NOW}


# Forgetting.


def test_a_forgotten_plugin_is_as_new_and_the_others_stay(path):
    accept(path, 8, 1)
    accept(path, 3, 2, name="acme/other", now=NOW + 50)
    assert list(memory_edit.forget(path, "acme/other")) == [bundle_id(2)]
    assert memory.recall(path, "acme/other") == Remembered({}, NOW, 0)
    assert memory.recall(path, NAME).highest == 8
    with pytest.raises(NotRemembered) as caught:
        memory_edit.forget(path, "acme/other")
    assert (caught.value.id, caught.value.code) == ("PLG-MEM-008", 2)


def test_a_change_that_cannot_be_recorded_does_not_happen(path):
    class LogFullError(Exception):
        pass

    def refuse(_):
        raise LogFullError

    accept(path)
    for change in (
        lambda: memory_edit.forget(path, NAME, announce=refuse),
        lambda: memory_edit.set_aside(path, announce=refuse),
    ):
        with pytest.raises(LogFullError):
            change()
    assert memory.recall(path, NAME).highest == 7


def test_a_damaged_memory_is_set_aside_and_kept(path):
    accept(path)
    with open(path, "ab") as file:
        file.write(b"x")
    aside = memory_edit.set_aside(path)
    assert memory.recall(path, NAME) == NOTHING
    with open(aside, "rb") as file:
        assert file.read().endswith(b"x")
    with pytest.raises(NotRemembered):
        memory_edit.set_aside(path)


def test_the_revocation_list_of_a_store_only_grows_and_survives_acceptances(path):
    listed = EMPTY._replace(sequence=5, digest="5" * 64, origin=memory.origin("/trust.d"))
    memory_edit.note_list(path, listed)
    memory_edit.note_list(path, listed._replace(sequence=4, digest="4" * 64))
    accept(path)
    memory_edit.forget(path, NAME)
    found = memory.recall(path, NAME, "/trust.d")
    assert (found.revocation_sequence, found.revocation_digest) == (5, "5" * 64)
    assert memory.recall(path, NAME, "/other").revocation_sequence == 0


def test_a_run_that_knows_the_bundle_loads_no_writer(path):
    accept(path)
    code = (
        "import sys, json; from plugsec_signing import memory;"
        f"memory.recall({path!r}, {NAME!r}); print('plugsec_signing.memory_edit' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert done.stdout == "False\n"


def test_a_reader_written_from_the_documentation_alone_reads_it(path):
    accept(path, signers=(ACME, REVIEW))
    with open(path, "rb") as file:
        *lines, last = file.read().splitlines(keepends=True)
    assert json.loads(last) == {"sha256": hashlib.sha256(b"".join(lines)).hexdigest()}
    assert json.loads(lines[0]) == {"format": "plugsec.memory/1", "newest": NOW, "revocations": {}}
    name, bundles = json.loads(lines[1])
    assert name == NAME
    assert bundles == {bundle_id(1): {"release": 7, "signers": {ACME: NOW, REVIEW: NOW}}}
