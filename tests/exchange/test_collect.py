"""Results come out of a stranger's directory whole and plain, or not at all."""

import errno
import hashlib
import os
import shutil
import socket
import stat
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plugsec.errors import ExchangeError, PlugsecError, UsageError
from plugsec.exchange import collect as module
from plugsec.exchange.collect import Collected, OutputNotWritten, OutputRefused, check_destination, collect

LIMITS = {"max_files": 100, "max_file_bytes": 1 << 20, "max_total_bytes": 2 << 20, "max_depth": 4}


@pytest.fixture
def output(tmp_path):
    path = tmp_path / "output"
    path.mkdir()
    return path


def take(output, destination, **limits):
    fd = os.open(output, os.O_RDONLY | os.O_DIRECTORY)
    try:
        return collect(fd, str(destination), **{**LIMITS, **limits})
    finally:
        os.close(fd)


def put(output, path, content=b"x"):
    file = output / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    return file


def left_beside(output):
    return sorted(entry.name for entry in output.parent.iterdir() if entry != output)


def test_files_arrive_as_they_were_with_their_digests(output, tmp_path):
    content = os.urandom(3_000_000)
    put(output, "b/deep/report.csv", content)
    put(output, "été.txt", b"")
    (output / "empty").mkdir()
    result = take(output, tmp_path / "out", max_file_bytes=1 << 22, max_total_bytes=1 << 22)
    assert result == (
        Collected("b/deep/report.csv", len(content), hashlib.sha256(content).hexdigest()),
        Collected("été.txt", 0, hashlib.sha256(b"").hexdigest()),
    )
    assert (tmp_path / "out/b/deep/report.csv").read_bytes() == content
    assert sorted(os.listdir(tmp_path / "out")) == ["b", "été.txt"]
    assert left_beside(output) == ["out"]


def test_nothing_left_gives_an_empty_directory(output, tmp_path):
    assert take(output, tmp_path / "out") == ()
    assert os.listdir(tmp_path / "out") == []


def test_an_existing_empty_directory_is_taken(output, tmp_path):
    put(output, "a")
    (tmp_path / "out").mkdir()
    assert [file.path for file in take(output, tmp_path / "out")] == ["a"]


def test_the_plugins_modes_do_not_come_along(output, tmp_path):
    file = put(output, "a")
    file.chmod(0o6777)
    os.utime(file, (1, 1))
    before = os.umask(0o027)
    try:
        take(output, tmp_path / "out")
    finally:
        os.umask(before)
    status = os.stat(tmp_path / "out/a")
    assert stat.S_IMODE(status.st_mode) == 0o640
    assert status.st_mtime > 1


def symlink(output):
    os.symlink("/etc/hostname", output / "a")


def symlink_to_directory(output):
    os.symlink("/etc", output / "a")


def dangling(output):
    os.symlink("nowhere", output / "a")


def fifo(output):
    os.mkfifo(output / "a")


def unix_socket(output):
    here = os.getcwd()
    os.chdir(output)  # a socket's path has 108 bytes at most
    try:
        with socket.socket(socket.AF_UNIX) as end:
            end.bind("a")
    finally:
        os.chdir(here)


def hard_link(output):
    put(output, "a")
    os.link(output / "a", output / "b")


def hard_link_outside(output):
    put(output.parent, "secret")
    os.link(output.parent / "secret", output / "a")


def sparse_petabyte(output):
    path = put(output, "a")
    for size in (1 << 50, 1 << 43, 1 << 40):  # ext4 stops at 16 TiB
        try:
            os.truncate(path, size)
        except OSError as err:
            if err.errno != errno.EFBIG:
                raise
        else:
            return


def sparse_together(output):
    for name in "abc":
        os.truncate(put(output, name), 1 << 20)


def deep_tree(output):
    put(output, "1/2/3/4/5/a")


def many_files(output):
    for number in range(101):
        put(output, f"f{number}")


def many_directories(output):
    for number in range(101):
        (output / f"d{number}").mkdir()


def named(name):
    def make(output):
        with open(os.path.join(os.fsencode(output), name), "wb"):
            pass

    return make


HOSTILE = {
    "a symbolic link": symlink,
    "a symbolic link to a directory": symlink_to_directory,
    "a dangling symbolic link": dangling,
    "a FIFO": fifo,
    "a socket": unix_socket,
    "two names for one file": hard_link,
    "a second name for a file outside": hard_link_outside,
    "a sparse petabyte": sparse_petabyte,
    "sparse files that are too large together": sparse_together,
    "a deep tree": deep_tree,
    "too many files": many_files,
    "too many directories": many_directories,
    "a newline in a name": named(b"a\nb"),
    "an escape sequence in a name": named(b"\x1b[2J"),
    "a C1 control in a name": named("\x9b2J".encode()),
    "a name that is not UTF-8": named(b"\xff\xfe"),
    "a name that reads backwards": named("a\u202egnp.exe".encode()),
    "an invisible name": named("\u2800\u200b".encode()),
    "a name like an option": named(b"-rf"),
    "a name of a space": named(b" "),
    "a backslash in a name": named(b"..\\a"),
}


@pytest.mark.parametrize("make", HOSTILE.values(), ids=HOSTILE)
def test_refused_with_nothing_left_behind(make, output, tmp_path):
    put(output, "good/file", b"plain")
    make(output)
    before = left_beside(output)
    with pytest.raises(OutputRefused) as refused:
        take(output, tmp_path / "out")
    assert refused.value.code == 5
    assert refused.value.message.isprintable()
    assert refused.value.hint
    assert left_beside(output) == before


@pytest.mark.parametrize("depth", range(5))
def test_depth_counts_the_directories_above_a_file(depth, output, tmp_path):
    put(output, "/".join([*"abcd"[:depth], "file"]))
    assert len(take(output, tmp_path / "out", max_depth=depth)) == 1
    if depth:
        with pytest.raises(OutputRefused):
            take(output, tmp_path / "other", max_depth=depth - 1)


def test_the_limits_themselves_are_allowed(output, tmp_path):
    put(output, "a", b"x" * 100)
    put(output, "b", b"x" * 50)
    assert len(take(output, tmp_path / "out", max_files=2, max_file_bytes=100, max_total_bytes=150)) == 2


def test_a_path_too_long_for_the_kernel_is_refused(output, tmp_path):
    here = os.open(output, os.O_RDONLY)
    for _ in range(20):
        os.mkdir("d" * 250, dir_fd=here)
        deeper = os.open("d" * 250, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = deeper
    os.close(here)
    with pytest.raises(OutputRefused, match="longer than 4095 bytes"):
        take(output, tmp_path / "out", max_depth=64)
    shutil.rmtree(output)


def test_another_file_system_inside_is_not_entered(output, tmp_path):
    """RESOLVE_NO_XDEV, observed on a directory that already has another file system below it."""
    fd = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
    try:
        with pytest.raises(OutputRefused, match="cannot be opened"):
            module._open(fd, "proc", os.O_DIRECTORY | os.O_RDONLY)
        with pytest.raises(OutputRefused, match="cannot be opened"):
            module._open(fd, "../proc", os.O_DIRECTORY | os.O_RDONLY)
    finally:
        os.close(fd)


def swap_for_symlink(path):
    path.unlink()
    path.symlink_to("/etc/hostname")


def swap_for_fifo(path):
    path.unlink()
    os.mkfifo(path)


def swap_for_another(path):
    path.rename(path.with_name("old"))
    path.write_bytes(b"xxxxx")


def grow(path):
    with path.open("ab") as file:
        file.write(b"more")


def shrink(path):
    os.truncate(path, 1)


def swap_parent(path):
    path.parent.rename(path.parent.with_name("moved"))
    path.parent.symlink_to("moved")


SWAPS = [swap_for_symlink, swap_for_fifo, swap_for_another, grow, shrink, swap_parent]


@pytest.mark.parametrize("swap", SWAPS)
def test_a_result_swapped_between_look_and_copy_is_refused(swap, output, tmp_path, monkeypatch):
    path = put(output, "dir/file", b"12345")
    look = module._look

    def look_then_swap(*arguments):
        seen = look(*arguments)
        swap(path)
        return seen

    monkeypatch.setattr(module, "_look", look_then_swap)
    with pytest.raises(OutputRefused):
        take(output, tmp_path / "out")
    assert left_beside(output) == []


def test_a_file_that_never_stops_growing_is_not_read_for_ever(output, tmp_path, monkeypatch):
    path = put(output, "a", b"x" * 1000)
    reads = []

    def read(source, file, size):
        grow(path)
        reads.append(size)
        return os.read(source, size)

    monkeypatch.setattr(module, "_read", read)
    with pytest.raises(OutputRefused, match="changed"):
        take(output, tmp_path / "out")
    assert sum(reads) <= 1001


@pytest.mark.parametrize("occupy", ["file", "full directory", "symbolic link"])
def test_a_destination_in_use_is_left_alone(occupy, output, tmp_path):
    put(output, "a")
    out = tmp_path / "out"
    if occupy == "file":
        out.write_text("mine")
    elif occupy == "full directory":
        out.mkdir()
        (out / "mine").write_text("mine")
    else:
        (tmp_path / "elsewhere").mkdir()
        out.symlink_to("elsewhere")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UsageError):
        take(output, out)
    with pytest.raises(UsageError):
        check_destination(str(out))
    assert sorted(tmp_path.rglob("*")) == before


def test_a_destination_without_a_parent_is_known_before_the_run(output, tmp_path):
    with pytest.raises(OutputNotWritten) as refused:
        check_destination(str(tmp_path / "no/such/place"))
    assert refused.value.code == 2
    assert check_destination(str(tmp_path / "out")) == str(tmp_path / "out")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere: run as an ordinary user")
def test_a_destination_that_cannot_be_written_is_a_refusal(output, tmp_path):
    put(output, "a")
    with pytest.raises(OutputNotWritten):
        take(output, "/usr/out")


def test_a_disk_that_fills_up_leaves_nothing(output, tmp_path, monkeypatch):
    put(output, "a/b", b"x" * 100)
    write = os.fdopen

    class Full:
        def __init__(self, fd):
            self.file = write(fd, "wb", buffering=0)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.file.close()

        def write(self, data):
            self.file.write(data[:10])
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module.os, "fdopen", lambda fd, *_, **__: Full(fd))
    with pytest.raises(OutputNotWritten, match="No space"):
        take(output, tmp_path / "out")
    assert left_beside(output) == []


def test_interrupted_leaves_nothing(output, tmp_path, monkeypatch):
    put(output, "a/b")
    put(output, "a/c")
    copy = module._copy

    def interrupted(fd, file, target):
        copy(fd, file, target)
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "_copy", interrupted)
    with pytest.raises(KeyboardInterrupt):
        take(output, tmp_path / "out")
    assert left_beside(output) == []


def test_two_collections_at_once_do_not_mix(output, tmp_path):
    for number in range(50):
        put(output, f"d{number % 7}/f{number}", b"%d" % number)
    outcomes = []

    def run():
        try:
            outcomes.append(take(output, tmp_path / "out"))
        except PlugsecError as refused:
            outcomes.append(refused)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(isinstance(outcome, tuple) for outcome in outcomes) == 1
    assert len(list((tmp_path / "out").rglob("f*"))) == 50
    assert left_beside(output) == ["out"]


NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0/"), min_size=1, max_size=20).filter(
    lambda name: name not in (".", "..") and len(name.encode()) <= 255
)


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(NAMES, st.binary(max_size=50), max_size=5))
def test_any_names_are_taken_whole_or_refused_whole(tmp_path_factory, files):
    base = tmp_path_factory.mktemp("any")
    output = base / "output"
    output.mkdir()
    for name, content in files.items():
        put(output, name, content)
    try:
        result = take(output, base / "out")
    except ExchangeError:
        assert left_beside(output) == []
    else:
        assert {file.path: (base / "out" / file.path).read_bytes() for file in result} == files
        assert all(
            file.path.isprintable() or "\u00a0" in file.path or "\u202f" in file.path or "\u3000" in file.path
            for file in result
        )
