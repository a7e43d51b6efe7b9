"""Step 5 of a run: what came of the call, judged from the facts, and the files that it left.

Everything here happens after the jail is dead.
"""

import os

from plugsec.errors import Interrupted, LimitReached, PluginFailed
from plugsec.outcome import Limit, OutputFile, Usage
from plugsec.sandbox import build
from plugsec.supervision import attribution
from plugsec.supervision.attribution import Ended
from plugsec.supervision.loop import Facts
from plugsec_policies.decision import Grant
from plugsec_policies.limits import Limits
from plugsec_signing.typed import Any

_OUTPUT_DEPTH_MAX = 16
_LIMIT_NUMBERS = {
    "wall": "101", "cpu": "102", "memory": "103", "processes": "104", "output": "105", "files": "106",
    "denials": "107",
}  # fmt: skip


def learnt(facts: Facts) -> dict[str, Any]:
    """The members of `Outcome` that hold however the call ended."""
    return {
        "usage": Usage(
            facts.wall_ms, facts.cpu_ms, facts.memory_peak_bytes, facts.processes_peak, facts.output_bytes
        ),
        "denials": facts.denials,
        "stdout": facts.stdout,
        "stderr": facts.stderr,
        "notes": facts.notes,
    }


def judge(facts: Facts, grant: Grant, known: dict[str, Any]) -> Any:  # noqa: ANN401
    """Return the plugin's result, or raise what the run ended with; a limit is noted in `known`."""
    limits = grant.limits
    ended = attribution.attribute(facts, memory_bytes=limits.memory_bytes, cpu_ms=limits.cpu_ms)
    match ended.outcome:
        case "interrupted":
            raise Interrupted(ended.message)
        case "limit":
            value = getattr(limits._replace(processes=build.tasks_allowed(grant)), ended.field)
            known["limit"] = Limit(ended.limit, value)
            raise _limit_reached(ended, value)
        case "host":
            raise PluginFailed(
                f"the program could not be started: {ended.message}",
                "is it built for this machine, and are its loader and libraries on this host?",
                id="PLG-RUN-002",
            )
        case "failed":
            hint = f"its own trace:\n{ended.trace}" if ended.trace else "its log is above"
            raise PluginFailed(f"the plugin failed: {ended.message}", hint)
    return ended.result


def collect_files(output_fd: int, destination: str, limits: Limits) -> tuple[OutputFile, ...]:
    """Take what the plugin left in $OUTPUT; raises ExchangeError and then leaves nothing behind."""
    from plugsec.exchange.collect import collect  # noqa: PLC0415 - only for runs with results

    collected = collect(
        output_fd,
        destination,
        max_files=limits.files,
        max_file_bytes=limits.file_bytes,
        max_total_bytes=limits.tmp_bytes,
        max_depth=_OUTPUT_DEPTH_MAX,
    )
    return tuple(OutputFile(file.path, file.size, file.sha256) for file in collected)


def files_left(output_fd: int) -> bool:
    """Whether the plugin left anything in $OUTPUT."""
    return bool(os.listdir(output_fd))


def _limit_reached(ended: Ended, value: int) -> LimitReached:
    said = f" ({ended.message})" if ended.message else ""
    return LimitReached(
        f"the limit {ended.limit} ended the run: {ended.field} = {value}{said}",
        "the plugin's [limits], the policy's [limits] and --limit decide it; the smallest counts",
        id=f"PLG-LIM-{_LIMIT_NUMBERS[ended.limit]}",
    )
