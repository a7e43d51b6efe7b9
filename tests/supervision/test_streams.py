"""Pipes to and from a plugin: bounded, never blocking, and fair to each other."""

import os
import socket
import threading
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugsec.supervision.streams import READS_PER_TURN_MAX, OutputBudget, Reader, Writer


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """A pipe whose both ends do not block."""
    read, write = os.pipe()
    for fd in (read, write):
        os.set_blocking(fd, False)
    yield read, write
    for fd in (read, write):
        try:
            os.close(fd)
        except OSError:
            continue


def test_a_reader_of_an_empty_pipe_returns_at_once(pipe: tuple[int, int]) -> None:
    """Nothing there is no end."""
    reader = Reader(pipe[0], OutputBudget(10))
    reader.pump()
    assert (bytes(reader.data), reader.ended) == (b"", False)


def test_the_end_is_noticed_after_the_last_byte(pipe: tuple[int, int]) -> None:
    """What was written before the writer died is kept."""
    os.write(pipe[1], b"last words")
    os.close(pipe[1])
    reader = Reader(pipe[0], OutputBudget(100))
    reader.pump()
    assert (bytes(reader.data), reader.ended) == (b"last words", True)


def test_a_reset_connection_is_an_end() -> None:
    """A peer that dies with unread data resets a socket; that is its end and not our failure."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    ours.send(b"unread")
    theirs.send(b"said")
    theirs.close()
    reader = Reader(ours.fileno(), OutputBudget(100))
    reader.pump()
    reader.pump()
    assert reader.ended
    ours.close()


@given(st.integers(0, 300), st.lists(st.integers(0, 200), max_size=6))
def test_a_budget_is_never_passed_by_more_than_one_byte(limit: int, sizes: list[int]) -> None:
    """However the bytes are spread over channels and turns."""
    budget = OutputBudget(limit)
    pairs = [os.pipe() for _ in sizes]
    readers = [Reader(read, budget) for read, _ in pairs]
    for (read, write), size in zip(pairs, sizes, strict=True):
        os.set_blocking(read, False)
        os.write(write, b"x" * size)
        os.close(write)
    for _ in range(3):
        for reader in readers:
            reader.pump()
    total = sum(len(reader.data) for reader in readers)
    for read, _ in pairs:
        os.close(read)
    assert total == budget.used
    assert total <= limit + 1
    assert budget.exceeded is (sum(sizes) > limit)
    if sum(sizes) <= limit:
        assert [len(reader.data) for reader in readers] == sizes


def test_a_loud_pipe_does_not_keep_the_loop() -> None:
    """A writer that never stops: one turn still ends."""
    read, write = os.pipe()
    os.set_blocking(read, False)
    over = threading.Event()

    def shout() -> None:
        while not over.is_set():
            try:
                os.write(write, b"x" * 65536)
            except OSError:
                return

    thread = threading.Thread(target=shout)
    thread.start()
    reader = Reader(read, OutputBudget(1 << 40))
    for _ in range(20):
        reader.pump()
    assert len(reader.data) <= 20 * READS_PER_TURN_MAX * 65536
    over.set()
    os.close(read)
    thread.join()
    os.close(write)


def test_a_writer_waits_for_nobody(pipe: tuple[int, int]) -> None:
    """A pipe that nobody reads takes what fits, and the rest when there is room."""
    data = os.urandom(300_000)
    writer, got = Writer(pipe[1], data), b""
    writer.pump()
    assert not writer.done
    while not writer.done:
        got += os.read(pipe[0], 65536)
        writer.pump()
    while True:
        try:
            got += os.read(pipe[0], 65536)
        except BlockingIOError:
            break
    assert got == data


def test_a_writer_whose_reader_left_is_done(pipe: tuple[int, int]) -> None:
    """A plugin may ignore its input."""
    os.close(pipe[0])
    writer = Writer(pipe[1], b"x")
    writer.pump()
    assert writer.done


def test_nothing_to_write_is_done(pipe: tuple[int, int]) -> None:
    """An empty input needs no turn."""
    assert Writer(pipe[1], b"").done
