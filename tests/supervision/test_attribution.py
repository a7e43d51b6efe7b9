"""Why a run ended: one table of facts and verdicts, and what holds for every fact there can be."""

import signal
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugsec.sandbox.cgroups import Usage
from plugsec.supervision.attribution import Ended, attribute
from plugsec.supervision.dialects import Answer
from plugsec.supervision.loop import Facts

MEMORY, CPU = 64 * 1024 * 1024, 1000
NOTHING = Facts(
    answer=None, status=None, limit=None, interrupted=False, launch_error="", stdout=b"", stderr=b"", notes=(),
    denials=(), denials_total=0, output_bytes=0, wall_ms=5, cpu_ms=3, memory_peak_bytes=5_000_000,
    processes_peak=1, cgroup=None, tmp_full=False,
)  # fmt: skip
GOOD = Answer(True, result={"x": 1})
QUIET = Usage(5_000_000, 3, 3, 0, 0)


def exited(code: int) -> int:
    """A wait status of an exit (wait(2))."""
    return code << 8


def said(error_type: str, message: str = "words") -> Answer:
    """The plugin's word for its failure."""
    return Answer(False, message=message, error_type=error_type, trace="trace")


class Row(NamedTuple):
    """Facts, by what differs from nothing at all, and the verdict."""

    sentence: str
    facts: dict[str, Any]
    outcome: str
    limit: str = ""

    def __str__(self) -> str:
        return self.sentence.replace(" ", "_")


ROWS = (
    Row("an answer is the outcome", {"answer": GOOD, "status": exited(0)}, "ok"),
    Row("an answer counts though the plugin then crashed", {"answer": GOOD, "status": signal.SIGSEGV}, "ok"),
    Row("an answer counts though it had to be ended", {"answer": GOOD, "status": None}, "ok"),
    Row("an exception is a failure", {"answer": said("ValueError"), "status": exited(1)}, "failed"),
    Row("no answer is a failure", {"status": exited(0)}, "failed"),
    Row("a crash is a failure", {"status": signal.SIGSEGV}, "failed"),
    Row("SIGKILL from nowhere is a failure", {"status": signal.SIGKILL}, "failed"),
    Row("SIGSYS is a failure", {"status": signal.SIGSYS}, "failed"),
    Row("an unstartable program is the host's", {"launch_error": "no loader", "status": exited(125)}, "host"),
    # What the operator did goes first
    Row("an interruption is one", {"interrupted": True}, "interrupted"),
    Row("an interruption goes before a limit", {"interrupted": True, "limit": "wall"}, "interrupted"),
    Row("an interruption goes before an answer", {"interrupted": True, "answer": GOOD}, "interrupted"),
    # Then what the supervisor enforced
    *(
        Row(f"the enforced limit {name} is the verdict", {"limit": name}, "limit", name)
        for name in ("wall", "cpu", "memory", "processes", "output", "files", "denials")
    ),
    Row("an enforced limit goes before an answer", {"limit": "output", "answer": GOOD}, "limit", "output"),
    Row(
        "an enforced limit goes before the counters",
        {"limit": "wall", "cgroup": QUIET._replace(oom_kills=1)},
        "limit",
        "wall",
    ),
    Row("an enforced limit goes before a launch error", {"limit": "wall", "launch_error": "x"}, "limit", "wall"),
    # Then what the kernel counted
    Row("an out-of-memory kill is memory", {"cgroup": QUIET._replace(oom_kills=1)}, "limit", "memory"),
    Row(
        "an out-of-memory kill of a child is memory though an answer came",
        {"cgroup": QUIET._replace(oom_kills=1), "answer": GOOD},
        "limit",
        "memory",
    ),
    Row("a refused fork is processes", {"cgroup": QUIET._replace(forks_refused=3)}, "limit", "processes"),
    Row(
        "memory goes before processes",
        {"cgroup": QUIET._replace(oom_kills=1, forks_refused=1)},
        "limit",
        "memory",
    ),
    Row("quiet counters say nothing", {"cgroup": QUIET, "answer": GOOD}, "ok"),
    Row("counters that nobody has say nothing", {"cgroup": Usage(None, None, None, 0, 0), "answer": GOOD}, "ok"),
    # Then how it died
    Row("SIGXCPU near the limit is cpu", {"status": signal.SIGXCPU, "cpu_ms": 990}, "limit", "cpu"),
    Row("SIGXCPU after next to nothing is the plugin's own", {"status": signal.SIGXCPU, "cpu_ms": 3}, "failed"),
    Row("SIGXCPU with a core bit near the limit is cpu", {"status": signal.SIGXCPU | 0x80, "cpu_ms": 990}, "limit", "cpu"),
    Row("SIGXFSZ is files", {"status": signal.SIGXFSZ}, "limit", "files"),
    Row("an exit status that looks like SIGXCPU is none", {"status": exited(128 + 24), "cpu_ms": 990}, "failed"),
    Row("an exit status that looks like SIGXFSZ is none", {"status": exited(128 + 25)}, "failed"),
    # And only then what the plugin says of itself
    Row(
        "no space in a full file system is files",
        {"answer": said("OSError", "OSError: [Errno 28] No space left on device"), "tmp_full": True},
        "limit",
        "files",
    ),
    Row(
        "no space in an empty file system is a failure",
        {"answer": said("OSError", "OSError: [Errno 28] No space left on device")},
        "failed",
    ),
    Row("a failure with a full file system is files", {"answer": said("RuntimeError"), "tmp_full": True}, "limit", "files"),
    Row("an answer with a full file system is one", {"answer": GOOD, "tmp_full": True}, "ok"),
    Row(
        "no new thread without a counter is processes",
        {"answer": said("RuntimeError", "RuntimeError: can't start new thread")},
        "limit",
        "processes",
    ),
    Row(
        "no new thread with a quiet counter is a failure",
        {"answer": said("RuntimeError", "RuntimeError: can't start new thread"), "cgroup": QUIET},
        "failed",
    ),
    Row(
        "EAGAIN at a fork without a counter is processes",
        {"answer": said("BlockingIOError", "BlockingIOError: [Errno 11] Resource temporarily unavailable")},
        "limit",
        "processes",
    ),
    Row(
        "EAGAIN in another kind of exception is a failure",
        {"answer": said("ValueError", "[Errno 11] Resource temporarily unavailable")},
        "failed",
    ),
    Row("no memory near the limit is memory", {"answer": said("MemoryError"), "memory_peak_bytes": MEMORY}, "limit", "memory"),
    Row("a death near the memory limit is memory", {"status": signal.SIGSEGV, "memory_peak_bytes": MEMORY,
        "answer": Answer(False, message="x")}, "limit", "memory"),
    Row("an exception near the memory limit is a failure",
        {"answer": said("ValueError"), "memory_peak_bytes": MEMORY}, "failed"),
    Row("an answer near the memory limit is one", {"answer": GOOD, "memory_peak_bytes": MEMORY}, "ok"),
)  # fmt: skip


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_verdict(row: Row) -> None:
    """The order of the argument is the order of these rows."""
    ended = attribute(NOTHING._replace(**row.facts), memory_bytes=MEMORY, cpu_ms=CPU)
    assert (ended.outcome, ended.limit) == (row.outcome, row.limit)
    if ended.outcome == "failed":
        assert ended.message
    assert ended.result == (GOOD.result if ended.outcome == "ok" else None)


_ANSWERS = st.one_of(
    st.none(),
    st.just(GOOD),
    st.builds(
        said,
        st.sampled_from(["", "MemoryError", "OSError", "RuntimeError", "BlockingIOError", "ValueError"]),
        st.sampled_from(["", "[Errno 28]", "[Errno 122]", "[Errno 11]", "can't start new thread", "x"]),
    ),
)
_FACTS = st.builds(
    NOTHING._replace,
    answer=_ANSWERS,
    status=st.one_of(st.none(), st.integers(0, 0xFFFF)),
    limit=st.one_of(
        st.none(), st.sampled_from(["wall", "cpu", "memory", "processes", "output", "files", "denials"])
    ),
    interrupted=st.booleans(),
    launch_error=st.sampled_from(["", "no loader"]),
    cpu_ms=st.integers(0, 2 * CPU),
    memory_peak_bytes=st.integers(0, 2 * MEMORY),
    processes_peak=st.integers(0, 100),
    cgroup=st.one_of(
        st.none(),
        st.builds(Usage, st.none(), st.none(), st.none(), st.integers(0, 2), st.integers(0, 2)),
    ),
    tmp_full=st.booleans(),
)


@given(_FACTS)
def test_every_fact_has_one_verdict(facts: Facts) -> None:
    """Total, and consistent with the words that the rest of the supervisor matches on."""
    ended = attribute(facts, memory_bytes=MEMORY, cpu_ms=CPU)
    assert isinstance(ended, Ended)
    assert ended.outcome in {"ok", "failed", "limit", "interrupted", "host"}
    assert bool(ended.limit) is (ended.outcome == "limit")


@given(_FACTS)
def test_a_plugins_words_never_make_a_good_outcome_of_a_bad_one(facts: Facts) -> None:
    """Nothing that the plugin says turns an enforced end into `ok`, and only a good answer is one."""
    ended = attribute(facts, memory_bytes=MEMORY, cpu_ms=CPU)
    if ended.outcome == "ok":
        assert facts.answer == GOOD
        assert facts.limit is None
        assert not facts.interrupted
    if facts.interrupted:
        assert ended.outcome == "interrupted"
    elif facts.limit is not None:
        assert ended.limit == facts.limit
    elif facts.cgroup is not None and facts.cgroup.oom_kills:
        assert ended.limit == "memory"
