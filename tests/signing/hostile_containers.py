"""Containers that their manifest does not describe, and the id of the error that refuses each.

All of them but the first bytes' are signed: what is wrong is beside or around the signed manifest.
"""

import signing_kit as kit

from plugsec_signing import keys

FIRST, SECOND, THIRD = sorted(kit.FILES)
ACME = keys.fingerprint(kit.ACME.public)


def joined(**replaced: bytes) -> bytes:
    """The good bundle with some entries replaced; keys as in `kit.parts`, `_` for `/` and `.`."""
    pieces = kit.parts()
    named = {name.replace("/", "_").replace(".", "_"): name for name in pieces}
    pieces.update({named[name]: data for name, data in replaced.items()})
    return b"".join(pieces.values())


def in_place_of_run(entry: bytes) -> bytes:
    """The good bundle with another entry where `run` must be."""
    return joined(run=entry)


RUN = kit.FILES["run"]
GOOD = b"".join(kit.parts().values())
SIGNATURE = kit.parts()[ACME]
SIGNATURE_NAME = f"PLUGSEC/signatures/{ACME}.sshsig".encode()
ARMOUR = kit.signatures(kit.manifest(), kit.ACME)[ACME]
PAX = kit.raw_entry(b"pax_global_header", b"20 path=../../evil\n ", kind=b"g")

ATTACKS = {
    # links, devices, special files
    "symlink": (in_place_of_run(kit.raw_header(b"run", 0, kind=b"2", link=b"/etc/passwd")), "PLG-BND-005"),
    "hard link": (in_place_of_run(kit.raw_header(b"run", 0, kind=b"1", link=b"lib/count.py")), "PLG-BND-005"),
    "symlink of the right size": (
        in_place_of_run(kit.raw_entry(b"run", RUN, mode=0o755, kind=b"2", link=b"x")),
        "PLG-BND-005",
    ),
    "symlink, then a file through it": (
        joined(lib_count_py=kit.raw_header(b"lib", 0, kind=b"2", link=b"/tmp") + kit.parts()[FIRST]),
        "PLG-BND-011",
    ),
    "FIFO": (in_place_of_run(kit.raw_header(b"run", 0, kind=b"6")), "PLG-BND-005"),
    "character device": (in_place_of_run(kit.raw_header(b"run", 0, kind=b"3")), "PLG-BND-005"),
    "block device": (in_place_of_run(kit.raw_header(b"run", 0, kind=b"4")), "PLG-BND-005"),
    "directory entry": (
        joined(lib_count_py=kit.raw_header(b"lib/", 0, kind=b"5") + kit.parts()[FIRST]),
        "PLG-BND-011",
    ),
    "old-style regular file": (
        in_place_of_run(kit.raw_entry(b"run", RUN, mode=0o755, kind=b"\0")),
        "PLG-BND-005",
    ),
    "contiguous file": (in_place_of_run(kit.raw_entry(b"run", RUN, mode=0o755, kind=b"7")), "PLG-BND-005"),
    # modes, owners, times
    "setuid": (in_place_of_run(kit.raw_entry(b"run", RUN, mode=0o4755)), "PLG-BND-005"),
    "world-writable": (in_place_of_run(kit.raw_entry(b"run", RUN, mode=0o777)), "PLG-BND-005"),
    "not executable": (in_place_of_run(kit.raw_entry(b"run", RUN, mode=0o644)), "PLG-BND-005"),
    "mode in another spelling": (
        in_place_of_run(kit.raw_entry(b"run", RUN, mode_field=b"000755 \0")),
        "PLG-BND-005",
    ),
    "another owner": (
        in_place_of_run(kit.raw_entry(b"run", RUN, mode=0o755, uid=b"0001750\0")),
        "PLG-BND-005",
    ),
    "owner by name": (in_place_of_run(kit.raw_entry(b"run", RUN, mode=0o755, uname=b"root")), "PLG-BND-005"),
    "a time": (
        in_place_of_run(kit.raw_entry(b"run", RUN, mode=0o755, mtime=b"14371573410\0")),
        "PLG-BND-005",
    ),
    "bytes in the header's padding": (
        in_place_of_run(kit.raw_entry(b"run", RUN, mode=0o755, tail=b"hidden text!")),
        "PLG-BND-005",
    ),
    "link name on a regular file": (
        in_place_of_run(kit.raw_entry(b"run", RUN, mode=0o755, link=b"x")),
        "PLG-BND-005",
    ),
    # extensions
    "pax global header first": (PAX + GOOD, "PLG-BND-003"),
    "pax header before a file": (in_place_of_run(PAX + kit.parts()["run"]), "PLG-BND-011"),
    "pax header named like the file": (
        in_place_of_run(kit.raw_entry(b"run", RUN, mode=0o755, kind=b"x")),
        "PLG-BND-005",
    ),
    "GNU long name": (
        in_place_of_run(kit.raw_entry(b"././@LongLink", b"run\0", kind=b"L") + kit.parts()["run"]),
        "PLG-BND-011",
    ),
    "GNU sparse file": (in_place_of_run(kit.raw_entry(b"run", RUN, mode=0o755, kind=b"S")), "PLG-BND-005"),
    "GNU magic": (in_place_of_run(kit.raw_entry(b"run", RUN, mode=0o755, magic=b"ustar  \0")), "PLG-BND-005"),
    "name moved to the prefix": (
        joined(lib_count_py=kit.raw_entry(b"count.py", kit.FILES[FIRST], prefix=b"lib")),
        "PLG-BND-011",
    ),
    # sizes
    "size too small": (in_place_of_run(kit.raw_entry(b"run", RUN[:-1], mode=0o755)), "PLG-BND-005"),
    "size too large": (in_place_of_run(kit.raw_entry(b"run", RUN + b"x", mode=0o755)), "PLG-BND-005"),
    "base-256 size": (
        in_place_of_run(kit.raw_entry(b"run", RUN, mode=0o755, size_field=b"\x80" + bytes(10) + b"\x0a")),
        "PLG-BND-005",
    ),
    "size padded with spaces": (
        in_place_of_run(kit.raw_entry(b"run", RUN, mode=0o755, size_field=b"         12\0")),
        "PLG-BND-005",
    ),
    "manifest of base-256 size": (
        kit.raw_header(b"PLUGSEC/manifest.json", 0, size_field=b"\x80" + bytes(10) + b"\x0a") + GOOD[512:],
        "PLG-BND-005",
    ),
    "manifest of negative size": (
        kit.raw_header(b"PLUGSEC/manifest.json", 0, size_field=b"\xff" * 12) + GOOD[512:],
        "PLG-BND-005",
    ),
    "manifest of 8 GiB": (
        kit.raw_header(b"PLUGSEC/manifest.json", 0o77777777777) + GOOD[512:],
        "PLG-BND-006",
    ),
    "signature of 1 MiB": (joined(**{ACME: kit.raw_entry(SIGNATURE_NAME, bytes(1 << 20))}), "PLG-BND-006"),
    "executable manifest": (
        kit.raw_header(b"PLUGSEC/manifest.json", len(kit.manifest()), mode=0o755) + GOOD[512:],
        "PLG-BND-005",
    ),
    "non-zero padding after a file": (
        in_place_of_run(kit.parts()["run"][:-1] + b"x"),
        "PLG-BND-009",
    ),
    "non-zero padding after the manifest": (
        joined(manifest=kit.parts()["manifest"][:-1] + b"\x01"),
        "PLG-BND-009",
    ),
    "non-zero padding after a signature": (joined(**{ACME: SIGNATURE[:-1] + b"\x01"}), "PLG-BND-009"),
    # contents and order
    "changed content": (
        in_place_of_run(kit.raw_entry(b"run", RUN[:-1] + b"x", mode=0o755)),
        "PLG-BND-012",
    ),
    "missing file": (joined(run=b""), "PLG-BND-011"),
    "missing last file": (joined(schemas_count_json=b""), "PLG-BND-010"),
    "extra file at the end": (joined(end=kit.raw_entry(b"z", b"z") + bytes(1024)), "PLG-BND-013"),
    "extra file in the middle": (
        in_place_of_run(kit.raw_entry(b"m", b"") + kit.parts()["run"]),
        "PLG-BND-011",
    ),
    "doubled entry": (in_place_of_run(kit.parts()["run"] * 2), "PLG-BND-011"),
    "doubled last entry": (
        joined(schemas_count_json=kit.parts()[THIRD] * 2),
        "PLG-BND-013",
    ),
    "unsorted entries": (
        joined(run=kit.parts()[THIRD], schemas_count_json=kit.parts()["run"]),
        "PLG-BND-011",
    ),
    "manifest not first": (SIGNATURE + joined(**{ACME: b""}), "PLG-BND-003"),
    "payload first": (kit.parts()["run"] + joined(run=b""), "PLG-BND-003"),
    "two manifests": (
        joined(manifest=kit.parts()["manifest"] * 2),
        "PLG-BND-011",
    ),
    "second manifest among the payload": (
        in_place_of_run(kit.parts()["manifest"] + kit.parts()["run"]),
        "PLG-BND-011",
    ),
    "signature among the payload": (
        in_place_of_run(SIGNATURE + kit.parts()["run"]),
        "PLG-BND-011",
    ),
    "unknown file under PLUGSEC": (
        joined(**{ACME: SIGNATURE + kit.raw_entry(b"PLUGSEC/notes.txt", b"x")}),
        "PLG-BND-011",
    ),
    "signature name in upper case": (
        joined(**{ACME: kit.raw_entry(SIGNATURE_NAME.upper(), ARMOUR)}),
        "PLG-BND-011",
    ),
    "signature name with a path": (
        joined(**{ACME: kit.raw_entry(b"PLUGSEC/signatures/../" + ACME.encode()[:60] + b".sshsig", ARMOUR)}),
        "PLG-BND-011",
    ),
    "signature name with bytes after its NUL": (
        joined(**{ACME: kit.raw_entry(SIGNATURE_NAME + b"\0x", ARMOUR)}),
        "PLG-BND-005",
    ),
    "doubled signature": (joined(**{ACME: SIGNATURE * 2}), "PLG-BND-007"),
    # before, after, around
    "prepended bytes": (b"#!/bin/sh\n" + GOOD, "PLG-BND-003"),
    "prepended archive": (GOOD + GOOD, "PLG-BND-014"),
    "appended byte": (GOOD + b"x", "PLG-BND-014"),
    "appended zero block": (GOOD + bytes(512), "PLG-BND-014"),
    "padded to a tape record": (GOOD + bytes(-len(GOOD) % 10240), "PLG-BND-014"),
    "one zero block only": (GOOD[:-512], "PLG-BND-004"),
    "second archive without an end between": (GOOD[:-1024] + GOOD, "PLG-BND-013"),
    "zero block in the middle": (in_place_of_run(bytes(512) + kit.parts()["run"]), "PLG-BND-010"),
    "empty file": (b"", "PLG-BND-004"),
    "zip": (b"PK\x03\x04" + bytes(2000), "PLG-BND-003"),
    "gzip": (b"\x1f\x8b" + bytes(2000), "PLG-BND-003"),
    "zeros only": (bytes(10240), "PLG-BND-003"),
}
