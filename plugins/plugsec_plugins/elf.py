"""What a native program needs to start: a bounded reader of ELF64 headers (elf(5), System V ABI).

The file is a stranger's. Every offset, count and length is checked against the file and a named bound
before it is used; anything odd is ElfMalformed, never an exception of the interpreter's. `ldd` is not
an alternative: it runs the program's own loader.
"""

import os
import struct
from collections.abc import Callable

from plugsec_plugins.errors import ElfMalformed
from plugsec_signing.typed import NamedTuple

MAGIC = b"\x7fELF"
# Real programs have about a dozen; the ABI allows 65535.
PROGRAM_HEADERS_MAX = 128
# 16 bytes each; the largest shared objects have a few hundred.
DYNAMIC_ENTRIES_MAX = 4096
NEEDED_MAX = 256
# PATH_MAX of Linux, including the NUL that ends a string.
STRING_MAX = 4096

_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_PROGRAM_HEADER = struct.Struct("<IIQQQQQQ")
_DYNAMIC_ENTRY = struct.Struct("<qQ")
_CLASS64, _LITTLE_ENDIAN = 2, 1
_PT_LOAD, _PT_DYNAMIC, _PT_INTERP = 1, 2, 3
_DT_NEEDED, _DT_STRTAB, _DT_STRSZ, _DT_SONAME, _DT_RPATH, _DT_RUNPATH = 1, 5, 10, 14, 15, 29
_TYPES = {2: "executable", 3: "shared"}
_MACHINES = {62: "x86_64", 183: "aarch64", 243: "riscv64", 21: "ppc64", 22: "s390x"}

Read = Callable[[int, int], bytes]


class Elf(NamedTuple):
    """What the headers say.

    `kind` is "executable" (fixed addresses) or "shared" (position independent, also most programs);
    `machine` the uname(2) name or `em-N`; `interpreter` the loader's path, None for a static program or a
    library; `runpath` the library directories it names, `$ORIGIN` and all.
    """

    machine: str
    kind: str
    interpreter: str | None
    needed: tuple[str, ...]
    soname: str | None
    runpath: tuple[str, ...]

    @property
    def static(self) -> bool:
        """Whether it starts without a loader and needs no library."""
        return self.interpreter is None and not self.needed


class _Segment(NamedTuple):
    kind: int
    offset: int
    address: int
    size: int


def machine_name(number: int) -> str:
    """Return the uname(2) name of a machine by its number in ELF headers (`e_machine`), or `em-N`."""
    return _MACHINES.get(number, f"em-{number}")


def read_elf(fd: int, offset: int = 0, size: int | None = None) -> Elf:
    """Read the ELF file that begins at `offset` of an open file and is `size` bytes long.

    Raises ElfMalformed.
    """
    if size is None:
        try:
            size = os.fstat(fd).st_size - offset
        except OSError as err:
            raise _malformed(f"it cannot be read ({err.strerror})") from err

    def read(at: int, count: int) -> bytes:
        try:
            return os.pread(fd, count, offset + at)
        except OSError as err:
            raise _malformed(f"it cannot be read ({err.strerror})") from err

    return parse_elf(read, size)


def parse_elf(read: Read, size: int) -> Elf:
    """Read an ELF file of `size` bytes through `read(offset, count)`. Raises ElfMalformed."""
    take = _bounded(read, size)
    header = _HEADER.unpack(take(0, _HEADER.size))
    identity, kind, machine = header[0], header[1], header[2]
    if identity[:4] != MAGIC:
        raise _malformed("it does not begin with the ELF magic")
    if identity[4] != _CLASS64 or identity[5] != _LITTLE_ENDIAN:
        raise _malformed("it is not a 64-bit little-endian file")
    if kind not in _TYPES:
        raise _malformed(f"its type {kind} is neither a program nor a shared object")
    segments = _segments(take, table=header[5], entry_size=header[9], count=header[10])
    strings, numbers = _dynamic(take, segments)
    return Elf(
        machine=machine_name(machine),
        kind=_TYPES[kind],
        interpreter=_interpreter(take, segments),
        needed=tuple(strings(number) for number in numbers[_DT_NEEDED]),
        soname=next((strings(number) for number in numbers[_DT_SONAME]), None),
        runpath=_runpath(strings, numbers),
    )


def _malformed(what: str) -> ElfMalformed:
    return ElfMalformed(
        f"the program is not a well-formed ELF file: {what}", "build it again for 64-bit Linux"
    )


def _bounded(read: Read, size: int) -> Read:
    def take(at: int, count: int) -> bytes:
        if at > size or count > size - at:
            raise _malformed(f"it says that {count} bytes are at {at}, where the file has ended")
        data = read(at, count)
        if len(data) != count:
            raise _malformed("it is shorter than it was said to be")
        return data

    return take


def _segments(take: Read, *, table: int, entry_size: int, count: int) -> tuple[_Segment, ...]:
    if entry_size != _PROGRAM_HEADER.size or not 1 <= count <= PROGRAM_HEADERS_MAX:
        raise _malformed(f"it has {count} program headers of {entry_size} bytes")
    data = take(table, count * _PROGRAM_HEADER.size)
    # kind, flags, offset, virtual address, physical address, size in the file, size in memory, alignment
    return tuple(_Segment(p[0], p[2], p[3], p[5]) for p in _PROGRAM_HEADER.iter_unpack(data))


def _only(segments: tuple[_Segment, ...], kind: int) -> _Segment | None:
    found = [segment for segment in segments if segment.kind == kind]
    if len(found) > 1:
        raise _malformed("it has several loaders or several dynamic sections")
    return found[0] if found else None


def _interpreter(take: Read, segments: tuple[_Segment, ...]) -> str | None:
    segment = _only(segments, _PT_INTERP)
    if segment is None:
        return None
    if not 2 <= segment.size <= STRING_MAX:
        raise _malformed("the path of its loader is empty or too long")
    path = take(segment.offset, segment.size)
    if path.index(0) != len(path) - 1 if 0 in path else True:
        raise _malformed("the path of its loader does not end where it should")
    text = _text(path[:-1])
    if not text.startswith("/"):
        raise _malformed("the path of its loader is not absolute")
    return text


def _text(data: bytes) -> str:
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as err:
        raise _malformed("a name in it is not UTF-8") from err
    if not text or not text.isprintable():
        raise _malformed("a name in it is empty or holds control characters")
    return text


_WANTED = (_DT_NEEDED, _DT_STRTAB, _DT_STRSZ, _DT_SONAME, _DT_RPATH, _DT_RUNPATH)


def _dynamic(take: Read, segments: tuple[_Segment, ...]) -> tuple[Callable[[int], str], dict[int, list[int]]]:
    """Return a reader of the dynamic string table, and the values of the entries we care for."""
    numbers: dict[int, list[int]] = {tag: [] for tag in _WANTED}
    segment = _only(segments, _PT_DYNAMIC)
    if segment is not None:
        count = segment.size // _DYNAMIC_ENTRY.size
        if count > DYNAMIC_ENTRIES_MAX:
            raise _malformed(f"its dynamic section has more than {DYNAMIC_ENTRIES_MAX} entries")
        for tag, value in _DYNAMIC_ENTRY.iter_unpack(take(segment.offset, count * _DYNAMIC_ENTRY.size)):
            if tag == 0:
                break
            if tag in numbers:
                numbers[tag].append(value)
    if len(numbers[_DT_NEEDED]) > NEEDED_MAX:
        raise _malformed(f"it needs more than {NEEDED_MAX} libraries")
    if not any(numbers[tag] for tag in (_DT_NEEDED, _DT_SONAME, _DT_RPATH, _DT_RUNPATH)):
        return _no_string, numbers
    if len(numbers[_DT_STRTAB]) != 1 or len(numbers[_DT_STRSZ]) != 1:
        raise _malformed("its dynamic section has no string table, or several")
    length = numbers[_DT_STRSZ][0]
    return _strings(take, _file_offset(segments, numbers[_DT_STRTAB][0], length), length), numbers


def _no_string(_number: int) -> str:
    raise _malformed("it refers to a string table that it does not have")


def _file_offset(segments: tuple[_Segment, ...], address: int, length: int) -> int:
    """Find where in the file a range of virtual addresses is loaded from."""
    for segment in segments:
        if (
            segment.kind == _PT_LOAD
            and segment.address <= address
            and address - segment.address + length <= segment.size
        ):
            return segment.offset + address - segment.address
    raise _malformed("its string table is in no segment that is loaded")


def _strings(take: Read, start: int, length: int) -> Callable[[int], str]:
    def string(number: int) -> str:
        if number >= length:
            raise _malformed("a name is outside its string table")
        data = take(start + number, min(length - number, STRING_MAX))
        end = data.find(0)
        if end < 0:
            raise _malformed("a name in it does not end")
        return _text(data[:end])

    return string


def _runpath(strings: Callable[[int], str], numbers: dict[int, list[int]]) -> tuple[str, ...]:
    # DT_RUNPATH makes the loader ignore DT_RPATH (ld.so(8)).
    given = numbers[_DT_RUNPATH] or numbers[_DT_RPATH]
    return tuple(part for number in given[:1] for part in strings(number).split(":") if part)
