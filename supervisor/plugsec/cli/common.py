"""What every command shares: where things are kept, how results and refusals reach people and machines.

Results go to stdout, everything for people to stderr. With `--json` stdout carries exactly one JSON
object. Text from plugins is escaped by `plugsec.exchange.display` before it is shown.
"""

import json
import sys

from plugsec.errors import Refusal
from plugsec_signing.typed import Any, NamedTuple, NoReturn


class Places(NamedTuple):
    """Where plugsec keeps things for this user; every member is an absolute directory path."""

    config: str
    data: str
    state: str
    cache: str
    trust: str
    audit: str


def places(home: str | None = None, trust: str | None = None, audit: str | None = None) -> Places:
    """Resolve the directories from `--home`, `PLUGSEC_HOME` or the XDG base directory specification."""
    from plugsec.places import resolve  # noqa: PLC0415

    return Places(*resolve(home, trust, audit))


def emit_json(value: Any) -> None:  # noqa: ANN401
    """Write one JSON object and a newline to stdout."""
    sys.stdout.write(json.dumps(value, ensure_ascii=True, separators=(",", ":")) + "\n")
    sys.stdout.flush()


def say(text: str) -> None:
    """Write a line for people to stderr."""
    sys.stderr.write(text + "\n")


def refuse(error: Refusal, *, as_json: bool = False) -> NoReturn:
    """Report a refusal (message, stable id, next step) and leave with its exit code."""
    from plugsec.exchange.display import escape  # noqa: PLC0415

    if as_json:
        problem = {"id": error.id, "message": error.message, "hint": error.hint}
        try:
            emit_json({"outcome": "refused", "code": error.code, "error": problem})
        except BrokenPipeError:  # the reader left; the exit code still says it
            pass
    else:
        say(f"plugsec: {escape(error.message)} [{error.id}]")
        if error.hint:
            say(f"  next: {escape(error.hint)}")
    raise SystemExit(error.code)
