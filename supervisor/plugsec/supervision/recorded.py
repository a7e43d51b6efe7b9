"""What the audit log says of a run whose supervisor is dead: whether it had begun, and whether it had ended.

A run is noted as started just before its `run.start` is durable, and given up just after its `run.end`
is, so a kill between the two leaves a note that is wrong. The log decides. It is read only when a dead
run was found, from the newest segment back: the start that finds it is the first one since.
"""

import os

from plugsec.audit.read import Reader, parse

SEGMENTS_MAX = 2  # of 16 MiB; a run that lived while more was written is taken at its note's word
_EVENTS = ("run.start", "run.end")


def lacks_an_end(directory: str, run_id: str) -> bool:
    """Whether the log in `directory` holds this run's start without its end; raises AuditError, OSError.

    True as well when the log is longer than what is read of it: a record that comes twice is the smaller
    harm.
    """
    needle = os.fsencode(run_id)
    with Reader(directory) as reader:
        numbers = reader.segments()
        for number in reversed(numbers[-SEGMENTS_MAX:]):
            newest = ""
            for line in reader.segment_lines(number):
                record = parse(line) if needle in line.raw else None
                if record is not None and record.get("run") == run_id and record.get("event") in _EVENTS:
                    newest = record["event"]
            if newest:
                return newest == "run.start"
    return len(numbers) > SEGMENTS_MAX
