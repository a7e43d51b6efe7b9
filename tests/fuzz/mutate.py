"""Ways to spoil an input that keep enough of its structure to get past the first check.

Everything is drawn from the `Random` that is handed in, so an example is named by seed and number.
"""

import base64
import json
import re
from random import Random
from typing import Any

NUMBERS = (
    0,
    1,
    7,
    8,
    127,
    128,
    255,
    256,
    511,
    512,
    513,
    65535,
    2**31 - 1,
    2**31,
    2**53,
    2**63 - 1,
    2**63,
    2**64,
)
TOKENS = (
    b"", b"\0", b"\xff", b"\x80", b"\n", b"\r\n", b"\xef\xbb\xbf", b"..", b"../", b"//", b"PLUGSEC/", b"*", b"**", b"$INPUT", b"[[", b"]]",
    b'"""', b"'''", b"= ", b"# ", b"inf", b"nan", b"-0", b"1e400", b"0x", b"1979-05-27", b"\\ud800", b"\\u0000", b"{}", b"[]", b"null",
    "\u202e\u0130".encode(), b"ssh-ed25519", b"sk-ssh-ed25519@openssh.com", b"ecdsa-sha2-nistp256", b"cert-authority ", b"ustar\x0000",
)  # fmt: skip
MAX_BYTES = 256 * 1024  # what an example may grow to; caps are tried by naming sizes, not by having them


def spoil(data: bytes, random: Random, others: list[bytes]) -> bytes:
    """Change some bytes: flip, cut, double, insert, splice."""
    for _ in range(random.choice((1, 1, 1, 2, 3, 8))):
        at = random.randrange(len(data) + 1)
        to = min(len(data), at + random.choice((1, 1, 2, 4, 8, 64, 512)))
        match random.randrange(8):
            case 0 if data:
                at = min(at, len(data) - 1)
                data = data[:at] + bytes([data[at] ^ (1 << random.randrange(8))]) + data[at + 1 :]
            case 1:
                data = data[:at] + data[to:]
            case 2:
                data = data[:to] + data[at:to] * random.choice((1, 1, 2, 40)) + data[to:]
            case 3:
                data = data[:at] + random.choice(TOKENS) + data[to if random.random() < 0.5 else at :]
            case 4:
                data = data[:at] + random.randbytes(random.choice((1, 4, 32, 512))) + data[at:]
            case 5:
                data = data[:at]
            case 6:
                number = random.choice(NUMBERS) % 2**64
                text = (
                    str(number).encode()
                    if random.random() < 0.5
                    else number.to_bytes(8, "big")[-random.choice((1, 2, 4, 8)) :]
                )
                data = data[:at] + text + data[to:]
            case _:
                other = random.choice(others)
                start = random.randrange(len(other) + 1)
                data = data[:at] + other[start : start + random.choice((16, 512, 4096))] + data[to:]
    return data[:MAX_BYTES]


def spoil_lines(data: bytes, random: Random, others: list[bytes]) -> bytes:
    """Double, drop, swap and exchange lines, as TOML and line formats are made of them."""
    lines = data.split(b"\n")
    for _ in range(random.choice((1, 1, 2, 4))):
        at = random.randrange(len(lines))
        match random.randrange(5):
            case 0:
                lines.insert(at, lines[random.randrange(len(lines))])
            case 1 if len(lines) > 1:
                del lines[at]
            case 2:
                lines.insert(at, random.choice(random.choice(others).split(b"\n")))
            case 3:
                key, equals, _ = lines[at].partition(b"=")
                value = random.choice(
                    (
                        b'"x"',
                        b"1",
                        b"-1",
                        b"true",
                        b"[]",
                        b"{}",
                        b'["*"]',
                        b"2027-01-01",
                        b"1.5",
                        b'"\\u0000"',
                        b"[[[]]]",
                    )
                )
                lines[at] = key + (equals or b"=") + value
            case _:
                lines[at] = spoil(lines[at], random, others)
    return b"\n".join(lines)[:MAX_BYTES]


def spoil_value(value: Any, random: Random, depth: int = 0) -> Any:
    """Change one place of a JSON value to something of another kind or size."""
    if isinstance(value, dict) and value and random.random() < 0.85 and depth < 8:
        key = random.choice(list(value))
        match random.randrange(8):
            case 0:
                return {name: each for name, each in value.items() if name != key}
            case 1:
                return {
                    **value,
                    random.choice(("x", "", "paths", "\x00", "é", "schema")): random.choice(
                        list(value.values())
                    ),
                }
            case _:
                return {**value, key: spoil_value(value[key], random, depth + 1)}
    if isinstance(value, list) and value and random.random() < 0.85 and depth < 8:
        at = random.randrange(len(value))
        match random.randrange(6):
            case 0:
                return value[:at] + value[at + 1 :]
            case 1:
                return value[:at] + [value[at]] * random.choice((2, 3, 300)) + value[at + 1 :]
            case 2:
                return value[::-1]
            case _:
                return [*value[:at], spoil_value(value[at], random, depth + 1), *value[at + 1 :]]
    if isinstance(value, str) and random.random() < 0.6:
        return spoil(value.encode("utf-8", "surrogatepass"), random, [b"/"])[:2000].decode("utf-8", "replace")
    return random.choice(
        (
            None,
            True,
            False,
            0,
            -1,
            420,
            493,
            2**53 - 1,
            1.5,
            "",
            "a",
            "a/b",
            "../x",
            "x" * 300,
            [],
            {},
            [[]],
            {"a": {}},
            *NUMBERS,
        )
    )


def spoil_json(data: bytes, random: Random, others: list[bytes]) -> bytes:
    """Change a JSON text as a value and write it again compactly and sorted, or change its bytes."""
    if random.random() < 0.3:
        return spoil(data, random, others)
    value = spoil_value(json.loads(data), random)
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=True).encode(
        "utf-8", "surrogatepass"
    )[:MAX_BYTES]


def spoil_armour(data: bytes, random: Random, others: list[bytes]) -> bytes:
    """Change the blob inside a PEM-like armour and wrap it again, or change the text."""
    if random.random() < 0.3:
        return spoil(data, random, others)
    first, *body, last, end = data.split(b"\n")
    blob = spoil(
        base64.b64decode(b"".join(body)),
        random,
        [base64.b64decode(b"".join(each.split(b"\n")[1:-2])) for each in others],
    )
    text = base64.b64encode(blob[: 20 * 1024])
    return b"\n".join([first, *(text[at : at + 70] for at in range(0, len(text), 70)), last, end])


def spoil_archive(data: bytes, random: Random, others: list[bytes]) -> bytes:
    """Change a ustar archive by blocks and header fields, with checksums that are right again."""
    if random.random() < 0.2:
        return spoil(data, random, others)
    blocks = [data[at : at + 512] for at in range(0, len(data), 512)]
    for _ in range(random.choice((1, 1, 2, 3))):
        at = random.randrange(len(blocks))
        match random.randrange(8):
            case 0:
                blocks.insert(at, blocks[random.randrange(len(blocks))])
            case 1 if len(blocks) > 1:
                del blocks[at]
            case 2:
                blocks.insert(at, bytes(512))
            case 3:
                blocks[at] = spoil(blocks[at], random, others)
            case 4:
                other = random.choice(others)
                start = 512 * random.randrange(len(other) // 512 + 1)
                blocks[at:at] = [other[start : start + 512]]
            case _:
                headers = [n for n, block in enumerate(blocks) if block[257:263] == b"ustar\0"] or [0]
                chosen = random.choice(headers)
                blocks[chosen] = _field(blocks[chosen], random)
    return b"".join(blocks)[:MAX_BYTES]


_FIELDS = (
    (0, 100),
    (100, 8),
    (108, 8),
    (116, 8),
    (124, 12),
    (136, 12),
    (156, 1),
    (157, 100),
    (257, 8),
    (265, 64),
    (345, 155),
    (500, 12),
)


def _field(block: bytes, random: Random) -> bytes:
    start, length = random.choice(_FIELDS)
    value = random.choice((
        b"%011o\0" % random.choice(NUMBERS), b"\x80" + bytes(10) + b"\x01", random.randbytes(length), random.choice(TOKENS),
        b"0000644\0", b"0000755\0", b"0004755\0", b"1", b"2", b"5", b"g", b"x", b"L", b"PLUGSEC/manifest.json",
        b"PLUGSEC/signatures/" + b"0" * 64 + b".sshsig", b"PLUGSEC/attestations/" + b"f" * 64 + b".dsse.json",
    ))[:length].ljust(length, b"\0")  # fmt: skip
    block = (block[:start] + value + block[start + length :])[:512].ljust(512, b"\0")
    return block[:148] + b"%06o\0 " % (sum(block) - sum(block[148:156]) + 8 * 32) + block[156:]


def spoil_manifest(data: bytes, random: Random, others: list[bytes]) -> bytes:
    """Change the manifest inside a bundle as JSON, and give its entry the size that it then has."""
    size = int(data[124:135], 8)
    manifest = spoil_json(data[512 : 512 + size], random, [data[512 : 512 + size]])
    header = data[:124] + b"%011o\0" % len(manifest) + data[136:512]
    header = header[:148] + b"%06o\0 " % (sum(header) - sum(header[148:156]) + 8 * 32) + header[156:]
    rest = data[512 + size + -size % 512 :]
    return header + manifest + bytes(-len(manifest) % 512) + rest


def spoil_public_line(data: bytes, random: Random, others: list[bytes]) -> bytes:
    """Change the blob of the first public key in a text, or the text by lines."""
    match = re.search(rb"AAAA[A-Za-z0-9+/=]+", data)
    if match is None or random.random() < 0.5:
        return spoil_lines(data, random, others)
    blob = spoil(base64.b64decode(match[0]), random, [b"ssh-ed25519"])
    return data[: match.start()] + base64.b64encode(blob) + data[match.end() :]
