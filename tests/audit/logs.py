"""Logs for tests: made once for each shape, copied for each test."""

import os
import shutil

from plugsec.audit.log import AuditLog

PLAIN_SEGMENT = 16 * 1024 * 1024
SMALL_SEGMENT = 20_000  # about forty records


def write(directory, records, *, segment_bytes=PLAIN_SEGMENT):
    """A log of exactly `records` records (the first is `log.created`), some durable, some not."""
    with AuditLog.open(str(directory), segment_bytes=segment_bytes) as log:
        size = log.head.size
        while size < records:
            event = ("run.start", "denial", "denial", "run.end")[size % 4]
            position = log.append(
                event,
                run=f"run-{size // 4}",
                bundle_id="sha256:" + "ab" * 32,
                detail={"number": size, "text": "x" * (size % 50)},
            )
            size = position.seq + 1
    return str(directory)


def copy(source, target):
    shutil.copytree(source, target)
    return str(target)


def segment(directory, number=1):
    return os.path.join(directory, f"segment-{number:06d}.jsonl")


def lines_of(path):
    with open(path, "rb") as file:
        return file.read().splitlines(keepends=True)


def put_lines(path, lines):
    with open(path, "wb") as file:
        file.write(b"".join(lines))
