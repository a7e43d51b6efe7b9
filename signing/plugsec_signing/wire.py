"""Strings as SSH writes them: a length in four bytes, then that many bytes (RFC 4251 §5)."""


def string(data: bytes) -> bytes:
    """Return `data` as an SSH string."""
    return len(data).to_bytes(4, "big") + data


def first(blob: bytes) -> tuple[bytes, bytes]:
    """Return the first string of a blob and what follows it.

    A string that ends early is returned as far as it goes, with nothing after it: for deciding what a
    blob claims to be. Whether it is well-formed, `strings` says.
    """
    at = 4 + int.from_bytes(blob[:4], "big")
    return blob[4:at], blob[at:]


def strings(blob: bytes, count: int) -> list[bytes] | None:
    """Split a blob into exactly `count` SSH strings with nothing left over; None if it is not that.

    The caller names the refusal: only it knows what the blob was meant to be.
    """
    found: list[bytes] = []
    at = 0
    for _ in range(count):
        start, at = at + 4, at + 4 + int.from_bytes(blob[at : at + 4], "big")
        found.append(blob[start:at])
    # A length that reaches beyond the end leaves `at` there, so this one comparison covers everything.
    return found if at == len(blob) else None
