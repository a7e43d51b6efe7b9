"""The 512 bytes of a header, written in one way only (docs/formats/bundle.md has every offset).

The reader never interprets a payload header: it calls `header` for the entry that the signed manifest
promises and compares bytes. Links, devices, sparse files, pax overrides, setuid bits and second
meanings of a size are not handled, they cannot be expressed.

Source: POSIX.1-1988 ustar, as in pax(1) "ustar Interchange Format".
"""

from plugsec_signing.paths import split_path

BLOCK = 512
END = bytes(2 * BLOCK)

# (offset, length, name), only to say in a message which field differs.
_FIELDS = (
    (0, 100, "name"),
    (100, 8, "mode"),
    (108, 8, "uid"),
    (116, 8, "gid"),
    (124, 12, "size"),
    (136, 12, "mtime"),
    (148, 8, "checksum"),
    (156, 1, "typeflag"),
    (157, 100, "linkname"),
    (257, 8, "magic and version"),
    (265, 64, "user and group name"),
    (329, 16, "device numbers"),
    (345, 155, "prefix"),
    (500, 12, "padding"),
)
_CHECKSUM = slice(148, 156)
_SIZE = slice(124, 136)


def header(path: str, size: int, mode: int) -> bytes:
    """Return the only header that a bundle may hold for a regular file; `path` is a checked ASCII path."""
    prefix, name = split_path(path)
    block = bytearray(BLOCK)
    block[0 : len(name)] = name.encode("ascii")
    block[100:108] = b"%07o\0" % mode
    block[108:124] = b"0000000\x000000000\x00"
    block[_SIZE] = b"%011o\0" % size
    block[136:148] = b"00000000000\0"
    block[_CHECKSUM] = b"        "
    block[156:157] = b"0"
    block[257:265] = b"ustar\x0000"
    block[329:345] = b"0000000\x000000000\x00"
    block[345 : 345 + len(prefix)] = prefix.encode("ascii")
    block[_CHECKSUM] = b"%06o\0 " % sum(block)
    return bytes(block)


def padding(size: int) -> int:
    """Return how many zero bytes follow a content of `size` bytes, up to the next block."""
    return -size % BLOCK


def name_field(block: bytes) -> bytes:
    """Return the bytes of the name field before its first NUL, uninterpreted."""
    return block[:100].partition(b"\0")[0]


def size_field(block: bytes) -> int | None:
    """Return the size if the field is eleven octal digits and a NUL, the only form there is; else None."""
    digits, end = block[_SIZE][:11], block[_SIZE][11:]
    return None if end != b"\0" or digits.strip(b"01234567") else int(digits, 8)


def first_difference(found: bytes, expected: bytes) -> str:
    """Return the name of the first field in which two headers differ, for a message."""
    for offset, length, name in _FIELDS:
        if found[offset : offset + length] != expected[offset : offset + length]:
            return name
    raise RuntimeError("two equal headers have no difference")
