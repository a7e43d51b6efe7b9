"""The ELF reader: real programs read as binutils reads them, hostile ones refused."""

import glob
import os
import shutil
import struct
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugsec_plugins.elf import Elf, parse_elf, read_elf
from plugsec_plugins.errors import ElfMalformed

REAL = [
    os.path.realpath(path)
    for path in ("/bin/ls", "/bin/sh", "/usr/bin/env", "/proc/self/exe", "/sbin/ldconfig")
    if os.path.exists(path)
]
LIBRARIES = sorted(glob.glob("/lib/*-linux-gnu/libc.so.6") + glob.glob("/lib/*-linux-gnu/libm.so.6"))


def read(path: str) -> Elf:
    fd = os.open(path, os.O_RDONLY)
    try:
        return read_elf(fd)
    finally:
        os.close(fd)


@pytest.mark.parametrize("path", REAL)
def test_a_program_of_this_system_is_read(path):
    elf = read(path)
    assert elf.machine == os.uname().machine
    if elf.static:
        return
    assert elf.interpreter is not None
    assert os.path.exists(elf.interpreter)
    assert any(name.startswith("libc.") for name in elf.needed)


@pytest.mark.parametrize("path", LIBRARIES)
def test_a_library_of_this_system_is_read(path):
    elf = read(path)
    assert elf.kind == "shared"
    assert elf.soname == os.path.basename(path)


@pytest.mark.parametrize("path", [*REAL, *LIBRARIES])
def test_the_reader_agrees_with_readelf(path):
    if shutil.which("readelf") is None:
        pytest.skip("readelf (binutils) is not installed")
    shown = subprocess.run(
        ["readelf", "-dlW", path], capture_output=True, text=True, check=True, timeout=60
    ).stdout
    elf = read(path)
    listed = [line.partition("[")[2].rstrip("]") for line in shown.splitlines() if "(NEEDED)" in line]
    assert list(elf.needed) == listed
    if elf.interpreter:
        assert f"interpreter: {elf.interpreter}]" in shown


def test_a_program_inside_another_file_is_read_at_its_offset(tmp_path):
    with open(REAL[0], "rb") as stream:
        data = stream.read()
    (tmp_path / "x").write_bytes(b"\0" * 1000 + data + b"trailing")
    fd = os.open(tmp_path / "x", os.O_RDONLY)
    try:
        assert read_elf(fd, 1000, len(data)) == read(REAL[0])
    finally:
        os.close(fd)


def read_inside(tmp_path, data):
    """Read a program that lies in the middle of a larger file, as payload files do."""
    (tmp_path / "x").write_bytes(b"\0" * 100 + data + b"/" * 10_000)
    fd = os.open(tmp_path / "x", os.O_RDONLY)
    try:
        return read_elf(fd, 100, len(data))
    finally:
        os.close(fd)


def test_a_program_cannot_read_the_file_behind_it(tmp_path):
    assert read_inside(tmp_path, made()).soname == "self.so"
    for data in (
        made(table=len(made()) + 10),
        made(load_size=20_000, dynamic=[(1, 1), (5, 0x1000), (10, 9_000)]),
    ):
        with pytest.raises(ElfMalformed):
            read_inside(tmp_path, data)


@pytest.mark.parametrize("table", [2**31, 2**63 - 1, 2**63, 2**64 - 1])
def test_an_offset_beyond_what_the_kernel_takes_is_refused(tmp_path, table):
    with pytest.raises(ElfMalformed):
        read_inside(tmp_path, made(table=table))


def test_a_file_that_is_closed_or_a_directory_is_refused(tmp_path):
    fd = os.open(tmp_path, os.O_RDONLY)
    try:
        with pytest.raises(ElfMalformed):
            read_elf(fd)
    finally:
        os.close(fd)
    with pytest.raises(ElfMalformed):
        read_elf(fd)


# Made by hand ----------------------------------------------------------------------------------------------------------

HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
SEGMENT = struct.Struct("<IIQQQQQQ")
DYNAMIC = struct.Struct("<qQ")
STRINGS = b"\0libc.so.6\0libm.so.6\0self.so\0$ORIGIN/lib:/opt/lib\0unended"
LOADER = b"/lib64/ld-linux-x86-64.so.2\0"


def made(
    *,
    kind=3,
    machine=62,
    identity=b"\x7fELF\x02\x01\x01",
    loader=LOADER,
    strings=STRINGS,
    dynamic=None,
    count=None,
    entry_size=SEGMENT.size,
    table=HEADER.size,
    address=0x1000,
    load_size=None,
    loaders=1,
):
    """A small ELF file of which every part can be made wrong."""
    if dynamic is None:
        dynamic = [(1, 1), (1, 11), (14, 21), (29, 29), (5, 0x1000), (10, len(strings)), (0, 0), (1, 9999)]
    segments = 2 + loaders
    at = HEADER.size + segments * SEGMENT.size
    dynamic_bytes = b"".join(DYNAMIC.pack(*each) for each in dynamic)
    parts = [(3, at, 0, len(loader))] * loaders
    parts += [
        (2, at + len(loader), 0, len(dynamic_bytes)),
        (1, at + len(loader) + len(dynamic_bytes), address, len(strings) if load_size is None else load_size),
    ]
    head = HEADER.pack(
        identity.ljust(16, b"\0"),
        kind,
        machine,
        1,
        0,
        table,
        0,
        0,
        64,
        entry_size,
        segments if count is None else count,
        0,
        0,
        0,
    )
    table_bytes = b"".join(
        SEGMENT.pack(k, 4, offset, where, where, size, size, 1) for k, offset, where, size in parts
    )
    return head + table_bytes + loader + dynamic_bytes + strings


def parse(data):
    return parse_elf(lambda at, count: data[at : at + count], len(data))


def test_a_file_made_by_hand_is_read_whole():
    assert parse(made()) == Elf(
        "x86_64",
        "shared",
        "/lib64/ld-linux-x86-64.so.2",
        ("libc.so.6", "libm.so.6"),
        "self.so",
        ("$ORIGIN/lib", "/opt/lib"),
    )


def test_a_runpath_hides_an_rpath_and_an_rpath_alone_counts():
    ends = [(5, 0x1000), (10, len(STRINGS))]
    assert parse(made(dynamic=[(15, 1), (29, 11), *ends])).runpath == ("libm.so.6",)
    assert parse(made(dynamic=[(15, 1), *ends])).runpath == ("libc.so.6",)


def test_a_static_program_needs_nothing():
    elf = parse(made(kind=2, loaders=0, dynamic=[], machine=183))
    assert elf == Elf("aarch64", "executable", None, (), None, ())
    assert elf.static


def test_an_unknown_machine_is_named_by_its_number():
    assert parse(made(machine=4242)).machine == "em-4242"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x7fELF",
        b"#!/bin/sh\n",
        made()[:63],
        made(identity=b"\x7fELG\x02\x01"),
        made(identity=b"\x7fELF\x01\x01"),
        made(identity=b"\x7fELF\x02\x02"),
        made(kind=1),
        made(kind=4),
        made(kind=0xFFFF),
        made(count=0),
        made(count=129),
        made(count=0xFFFF),
        made(entry_size=32),
        made(entry_size=0),
        made(table=2**63),
        made(table=2**64 - 1),
        made(table=10**6),
        made(loader=b"\0"),
        made(loader=b""),
        made(loader=b"/lib/ld.so"),
        made(loader=b"/lib\0/ld.so\0"),
        made(loader=b"ld.so\0"),
        made(loader=b"/l\xff\0"),
        made(loader=b"/l\x1b[2J\0"),
        made(loader=b"/" + b"a" * 5000 + b"\0"),
        made(loaders=2),
        made(strings=b""),
        made(address=0x9000),
        made(load_size=4),
        made(dynamic=[(1, 1)]),
        made(dynamic=[(1, 1), (5, 0x1000)]),
        made(dynamic=[(1, 1), (10, 9)]),
        made(dynamic=[(1, 10**6), (5, 0x1000), (10, len(STRINGS))]),
        made(dynamic=[(1, 2**64 - 1), (5, 0x1000), (10, len(STRINGS))]),
        made(dynamic=[(1, 1), (5, 2**64 - 1), (10, len(STRINGS))]),
        made(dynamic=[(1, 1), (5, 0x1000), (10, 2**64 - 1)]),
        made(dynamic=[(1, 1), (5, 0x1000), (5, 0x1000), (10, len(STRINGS))]),
        made(dynamic=[(1, 52), (5, 0x1000), (10, len(STRINGS))]),
        made(dynamic=[(1, 0), (5, 0x1000), (10, len(STRINGS))]),
        made(dynamic=[(1, 1)] * 257 + [(5, 0x1000), (10, len(STRINGS))]),
        made(dynamic=[(7, 0)] * 5000),
    ],
)
def test_a_malformed_file_is_refused(data):
    with pytest.raises(ElfMalformed) as refused:
        parse(data)
    assert refused.value.code == 4
    assert refused.value.hint


@given(st.binary(max_size=400))
def test_random_bytes_are_refused(data):
    with pytest.raises(ElfMalformed):
        parse(data)


_GOOD = made()


@given(st.lists(st.tuples(st.integers(0, len(_GOOD) - 1), st.integers(0, 255)), min_size=1, max_size=6))
def test_a_file_with_flipped_bytes_is_read_or_refused(changes):
    data = bytearray(_GOOD)
    for at, value in changes:
        data[at] = value
    try:
        elf = parse(bytes(data))
    except ElfMalformed:
        return
    assert all(name.isprintable() for name in elf.needed)


@given(st.integers(0, len(_GOOD) - 1))
def test_a_truncated_file_is_read_or_refused(length):
    try:
        parse(_GOOD[:length])
    except ElfMalformed:
        return


_WORD = st.sampled_from([0, 1, 2, 3, 63, 64, 4096, 2**31, 2**32 - 1, 2**63, 2**64 - 1])


@given(st.lists(st.tuples(st.integers(0, len(_GOOD) // 8 - 1), _WORD), min_size=1, max_size=4))
def test_a_file_with_extreme_words_is_read_or_refused(changes):
    data = bytearray(_GOOD)
    for index, value in changes:
        data[index * 8 : index * 8 + 8] = struct.pack("<Q", value)
    try:
        parse(bytes(data))
    except ElfMalformed:
        return


def test_a_file_that_shrinks_while_it_is_read_is_refused():
    with pytest.raises(ElfMalformed, match="shorter"):
        parse_elf(lambda at, count: _GOOD[at : at + count][:-1], len(_GOOD))
