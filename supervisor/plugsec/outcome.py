"""The outcome of a run, frozen: how it ended, what it gave, what it used, and where it is recorded."""

from plugsec.supervision.denials import Denial
from plugsec_signing.typed import Any, NamedTuple

# Exit code to the word of `run --json`; docs/cli lists the codes.
_WORDS = {0: "ok", 1: "refused", 3: "refused", 8: "refused", 5: "invalid", 6: "failed", 7: "limit"}


class Problem(NamedTuple):
    """Why a run did not end well: a stable id, words for people, and the next thing to type."""

    id: str
    message: str
    hint: str


class Usage(NamedTuple):
    """Milliseconds, bytes and counts over the whole jail."""

    wall_ms: int = 0
    cpu_ms: int = 0
    memory_peak_bytes: int = 0
    processes_peak: int = 0
    output_bytes: int = 0


class Limit(NamedTuple):
    """The limit that ended a run, and its value in its own unit."""

    name: str
    value: int


class OutputFile(NamedTuple):
    """A file collected from $OUTPUT: its path below the output directory, bytes, SHA-256 (hex)."""

    path: str
    size: int
    sha256: str


class Outcome(NamedTuple):
    """Everything about one run. `outcome` is ok, refused, invalid, failed, limit or error."""

    outcome: str
    code: int
    run_id: str
    result: Any = None
    error: Problem | None = None
    bundle_id: str | None = None
    plugin: str | None = None
    method: str | None = None
    layers_active: tuple[str, ...] = ()
    layers_degraded: tuple[str, ...] = ()
    usage: Usage = Usage()
    denials: tuple[Denial, ...] = ()
    limit: Limit | None = None
    audit_seq: int | None = None
    outputs: tuple[OutputFile, ...] = ()
    stdout: bytes = b""
    stderr: bytes = b""
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    receipt: bytes | None = None


def word(code: int, *, about_input: bool = False) -> str:
    """The outcome's word for an exit code; 4 is `invalid` for an input and `refused` for a bundle."""
    if code == 4:
        return "invalid" if about_input else "refused"
    return _WORDS.get(code, "error")


def to_json(outcome: Outcome) -> dict[str, Any]:
    """The object that `plugsec run --json` prints; its fields are a promise (docs/user-guide.md)."""
    return {
        "outcome": outcome.outcome,
        "code": outcome.code,
        "result": outcome.result,
        "error": outcome.error._asdict() if outcome.error else None,
        "bundle_id": outcome.bundle_id,
        "plugin": outcome.plugin,
        "method": outcome.method,
        "run_id": outcome.run_id,
        "layers": {"active": list(outcome.layers_active), "degraded": list(outcome.layers_degraded)},
        "usage": outcome.usage._asdict(),
        "denials": [
            {"layer": d.layer, "call": d.call, "detail": d.detail, "count": d.count, "source": d.source}
            for d in outcome.denials
        ],
        "limit": outcome.limit._asdict() if outcome.limit else None,
        "audit": {"seq": outcome.audit_seq},
        "outputs": [file._asdict() for file in outcome.outputs],
    }
