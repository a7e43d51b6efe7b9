"""Fill a small file system under a log and report what happened, as JSON. Runs inside its own mount.

unshare -m python full_disk.py DIRECTORY
"""

import json
import os
import sys

from plugsec.audit.errors import AuditError, LogFull, LogUnwritable
from plugsec.audit.log import AuditLog
from plugsec.audit.verify import verify


def fill(directory):
    """Take every block that is left; return the path of the filler."""
    path = os.path.join(directory, "filler")
    fd = os.open(path, os.O_WRONLY | os.O_CREAT)
    size = 1 << 16
    while size:
        try:
            while os.write(fd, b"x" * size):
                pass
        except OSError:
            size //= 2
    os.close(fd)
    return path


def events(directory):
    with open(os.path.join(directory, "segment-000001.jsonl")) as file:
        return [json.loads(line)["event"] for line in file]


def attempt(act):
    try:
        return act().seq
    except AuditError as refused:
        return [type(refused).__name__, refused.code]


def disk_fills_up(mount):
    where = os.path.join(mount, "log")
    report = {}
    log = AuditLog.open(where)
    log.append("run.start", run="running")
    filler = fill(mount)
    # Whatever still fits into the last blocks of the segment is taken; then the reserve is spent.
    denials = 0
    while "log.full" not in events(where) and denials < 100:
        log.append("denial", run="running", detail={"text": "y" * 500})
        denials += 1
    report["noticed"] = events(where).count("log.full")
    report["end"] = attempt(lambda: log.append("run.end", run="running"))
    report["verifies while full"] = verify(where).size
    report["start"] = attempt(lambda: log.append("run.start", run="next"))
    report["start in a new process"] = attempt(lambda: AuditLog.open(where).append("run.start"))
    fill(mount)
    spent = 0
    try:
        for _ in range(2000):
            log.append("denial", detail={"text": "z" * 3000})
            spent += 1
    except LogFull as full:
        report["at the very end"] = full.code
    report["verifies at the very end"] = verify(where).size == len(events(where))
    os.unlink(filler)
    report["start with space again"] = attempt(lambda: log.append("run.start", run="next")) > 0
    report["reserve is back"] = os.path.getsize(os.path.join(where, "reserve"))
    report["verifies with space again"] = verify(where).size == len(events(where))
    report["full was recorded"] = events(where).count("log.full")
    return report


def no_room_to_begin(mount):
    fill(mount)
    refused = attempt(lambda: AuditLog.open(os.path.join(mount, "log")))
    os.unlink(os.path.join(mount, "filler"))
    with AuditLog.open(os.path.join(mount, "log")) as log:
        log.append("run.start")
    return {"refused": refused, "then": verify(os.path.join(mount, "log")).size}


def read_only(mount):
    where = os.path.join(mount, "log")
    with AuditLog.open(where) as log:
        log.append("run.start")
    os.system(f"mount -o remount,bind,ro {mount}")
    try:
        AuditLog.open(where)
    except LogUnwritable as refused:
        return {"open": refused.code, "verify": verify(where).size}
    return {}


if __name__ == "__main__":
    results = {}
    for story in (disk_fills_up, no_room_to_begin, read_only):
        place = os.path.join(sys.argv[1], story.__name__)
        os.mkdir(place)
        os.system(f"mount -t tmpfs -o size=768k,mode=0700 tmpfs {place}")
        results[story.__name__] = story(place)
    json.dump(results, sys.stdout)
