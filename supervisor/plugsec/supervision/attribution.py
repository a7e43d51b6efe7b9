"""Why a run ended: one pure function from what was seen to one of the outcomes.

The order is the argument: what the operator did, then what the supervisor enforced, then what the
kernel counted, then what the plugin's end looks like, and only then what the plugin says of itself.
"""

import os
import signal

from plugsec.supervision.loop import Facts
from plugsec_signing.typed import Any, NamedTuple

_NO_SPACE = ("[Errno 28]", "[Errno 122]")  # ENOSPC, EDQUOT in a Python exception's text
_NO_PROCESS = ("can't start new thread", "[Errno 11]")  # EAGAIN
_NEARLY = 0.9  # of a limit: what failed there failed because of it
# Which member of Limits each exit name stands for; `files` has three.
_FIELDS = {
    "wall": "wall_ms",
    "cpu": "cpu_ms",
    "memory": "memory_bytes",
    "processes": "processes",
    "output": "output_bytes",
    "denials": "denials",
}


class Ended(NamedTuple):
    """`outcome` is ok, failed, limit, interrupted or host; `limit` is its exit name, `field` its setting."""

    outcome: str
    limit: str = ""
    field: str = ""
    result: Any = None
    message: str = ""
    trace: str = ""


def attribute(facts: Facts, *, memory_bytes: int, cpu_ms: int) -> Ended:
    """Judge a run that had these limits."""
    answer = facts.answer
    message = answer.message if answer is not None else ""
    trace = answer.trace if answer is not None else ""
    if facts.interrupted:
        return Ended("interrupted", message="interrupted; the plugin is dead")
    limit = facts.limit or _counted(facts) or _died_of(facts, cpu_ms) or _said(facts, memory_bytes)
    if limit:
        # Only the plugin's own words add something to the limit's name.
        said = message if answer is not None and answer.error_type else ""
        return Ended("limit", limit, _field(limit, facts), message=said, trace=trace)
    if facts.launch_error:
        return Ended("host", message=facts.launch_error)
    if answer is not None and answer.ok:
        return Ended("ok", result=answer.result)
    return Ended("failed", message=message or "the plugin ended without an answer", trace=trace)


def _field(limit: str, facts: Facts) -> str:
    """The setting that was reached: a file's size kills, a full tmpfs refuses."""
    return _FIELDS.get(limit) or (facts.tmp_full if not _killed_by(facts, signal.SIGXFSZ) else "file_bytes")


def _counted(facts: Facts) -> str:
    """The kernel's own counters."""
    if facts.cgroup is None:
        return ""
    if facts.cgroup.oom_kills:
        return "memory"
    return "processes" if facts.cgroup.forks_refused else ""


def _died_of(facts: Facts, cpu_ms: int) -> str:
    """Signals that a limit sends; a plugin can also send itself one, so the figures must agree."""
    if _killed_by(facts, signal.SIGXCPU) and facts.cpu_ms >= cpu_ms * _NEARLY:
        return "cpu"
    return "files" if _killed_by(facts, signal.SIGXFSZ) else ""


def _killed_by(facts: Facts, number: int) -> bool:
    """Whether pid 2 died of this signal."""
    return facts.status is not None and os.WIFSIGNALED(facts.status) and os.WTERMSIG(facts.status) == number


def _said(facts: Facts, memory_bytes: int) -> str:
    """A failure that the plugin or its runtime ascribes to a limit."""
    answer = facts.answer
    if answer is None or answer.ok:
        return ""
    # An allocation that was refused leaves no trace but these words; a plugin that only says them harms
    # nothing but its own report.
    if answer.error_type == "MemoryError":
        return "memory"
    if answer.error_type in {"OSError", "BlockingIOError", "RuntimeError"}:
        if facts.tmp_full and any(text in answer.message for text in _NO_SPACE):
            return "files"
        # Where a cgroup counts refused forks, words add nothing.
        if facts.cgroup is None and any(text in answer.message for text in _NO_PROCESS):
            return "processes"
    if facts.tmp_full:
        return "files"
    return "memory" if not answer.error_type and facts.memory_peak_bytes >= memory_bytes * _NEARLY else ""
