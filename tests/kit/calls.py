"""Many system calls from one jail: the guest makes each of a table through ctypes and tells its errno."""

import errno
import json
import os
from collections.abc import Iterable
from typing import Any, NamedTuple

from kit.home import Home
from plugsec.outcome import Outcome
from plugsec.sandbox.seccomp.tables import read_table

MISSING = "this architecture has no such call"

# An argument is an integer, a text (passed as a C string) or a list of one integer: so many zero bytes.
GUEST = """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long

def word(value):
    if isinstance(value, list):
        return ctypes.create_string_buffer(max(1, value[0]))
    return ctypes.c_char_p(value.encode()) if isinstance(value, str) else ctypes.c_long(value)

@plugin.method
def go(calls):
    answers = []
    for number, arguments in calls:
        ctypes.set_errno(0)
        result = libc.syscall(ctypes.c_long(number), *map(word, arguments))
        answers.append(ctypes.get_errno() if result == -1 else 0)
    return answers
"""


class Attack(NamedTuple):
    """One call and what it would do: the sentence names the outcome, `call` is a name or a number."""

    sentence: str
    call: str | int
    arguments: tuple[int | str | list[int], ...] = ()
    answer: int = errno.EPERM

    def __str__(self) -> str:
        return self.sentence.replace(" ", "_")


class Answers(NamedTuple):
    """What came of a table: an errno (0: it succeeded) for each sentence, and the run's outcome."""

    by_sentence: dict[str, int]
    outcome: Outcome


def number_of(call: str | int) -> int | None:
    """The call's number on this machine, None where it has none."""
    return call if isinstance(call, int) else read_table(os.uname().machine).get(call)


def make_all(home: Home, attacks: Iterable[Attack], *policies: str, **more: Any) -> Answers:
    """Run the whole table in one jail; raises AssertionError when the run itself does not end well."""
    present = [attack for attack in attacks if number_of(attack.call) is not None]
    calls = [[number_of(attack.call), list(attack.arguments)] for attack in present]
    outcome = home.attack(GUEST, *policies, input=json.dumps({"calls": calls}).encode(), **more)
    assert outcome.error is None, outcome.error
    return Answers({str(a): result for a, result in zip(present, outcome.result, strict=True)}, outcome)
