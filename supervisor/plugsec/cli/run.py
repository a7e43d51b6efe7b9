"""`plugsec run`: the main job. This module is on the hot path and imports neither Typer nor Rich."""

import json
import os
import signal
import sys

from plugsec.cli.common import emit_json, refuse, say
from plugsec.cli.declaration import ARGUMENTS, FLAG, ONE, RUN_EXAMPLES, RUN_HELP, RUN_OPTIONS
from plugsec.errors import REFUSALS, UsageError
from plugsec.exchange.display import escape, escape_lines
from plugsec.exchange.inputs import INPUT_BYTES_MAX
from plugsec_signing.typed import Any

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    import typer

    from plugsec.outcome import Outcome
    from plugsec.sandbox.launch import Boot
    from plugsec.sandbox.spawn import Spawned

_LOG_LINES_MAX = 1000  # of each stream, for people; --json and the audit log are not affected
_DENIALS_SHOWN_MAX = 50
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def register(app: "typer.Typer") -> None:
    """Add `run`, built from the declaration."""
    import inspect  # noqa: PLC0415 - cold: only when Typer is used anyway
    from typing import Annotated  # noqa: PLC0415

    import typer  # noqa: PLC0415

    parameters: list[tuple[str, Any, Any]] = []
    for name, required, metavar, text in ARGUMENTS:
        annotation: Any = Annotated[
            str if required else str | None, typer.Argument(metavar=metavar, help=text)
        ]
        parameters.append((name, annotation, ... if required else None))
    for option in RUN_OPTIONS:
        kind: Any = bool if option.kind == FLAG else str | None if option.kind == ONE else list[str] | None
        info = typer.Option(
            option.flag,
            *([option.short] if option.short else []),
            metavar=option.metavar or None,
            help=option.help,
        )
        parameters.append((option.name, Annotated[kind, info], False if option.kind == FLAG else None))

    def run(**values: Any) -> None:  # noqa: ANN401
        execute({name: [] if value is None and _repeats(name) else value for name, value in values.items()})

    run.__doc__ = RUN_HELP
    # What inspect.signature, and so Typer, reads first (PEP 362); functions do not declare it.
    run.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [
            inspect.Parameter(
                name,
                inspect.Parameter.KEYWORD_ONLY,
                annotation=annotation,
                default=inspect.Parameter.empty if default is ... else default,
            )
            for name, annotation, default in parameters
        ]
    )
    app.command("run", epilog=RUN_EXAMPLES)(run)


def _repeats(name: str) -> bool:
    return any(option.name == name and option.kind not in {FLAG, ONE} for option in RUN_OPTIONS)


def execute(values: dict[str, Any], start: "Callable[[], Spawned] | None" = None) -> None:
    """Do what the values say; leaves with the outcome's exit code.

    `start` gives the boot process, one already started where the caller could.
    """
    from plugsec.sandbox.spawn import spawn  # noqa: PLC0415 - a name that only runs need

    try:
        outcome = _run(values, start or spawn)
        if values["receipt"] is not None and outcome.receipt is not None:
            _write_whole(values["receipt"], outcome.receipt)
    except REFUSALS as error:
        refuse(error, as_json=values["json"])
    except OSError as error:  # of the run itself; taken for a stream's, it would end with exit 0 and no word
        from plugsec.cli.defect import report  # noqa: PLC0415

        report(error)
    try:
        _report(outcome, as_json=values["json"], quiet=values["quiet"])
    except BrokenPipeError:  # the reader left; the run is recorded all the same
        pass
    raise SystemExit(outcome.code)


def _run(values: dict[str, Any], start: "Callable[[], Spawned]") -> "Outcome":
    from plugsec.sandbox import launch  # noqa: PLC0415 - after boot was started

    boot = launch.adopt(start)
    try:
        return _run_with(boot, values)
    finally:
        boot.reap()


def _run_with(boot: "Boot", values: dict[str, Any]) -> "Outcome":
    from plugsec.pipeline import Call, Supervisor  # noqa: PLC0415 - see above
    from plugsec.supervision.interruption import Interruption  # noqa: PLC0415
    from plugsec_policies.limits import parse_limit_argument  # noqa: PLC0415

    call = Call(
        bundle=values["bundle"],
        method=values["method"],
        input=_read_input(values["input"]),
        parameters=_pairs("--param", values["param"]),
        input_files=_pairs("--input-file", values["input_file"]),
        output_dir=values["output_dir"],
        limits=dict(parse_limit_argument(text) for text in values["limit"]),
        allow_degraded=frozenset(values["allow_degraded"]),
        unsafe_unsigned=values["unsafe_unsigned"],
        receipt=values["receipt"] is not None,
        allow_downgrade=values["allow_downgrade"],
    )
    interruption = Interruption()
    for number in _SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup's choice stands
            signal.signal(number, lambda *_: interruption.request())
    supervisor = Supervisor(
        home=values["home"], trust=values["trust"], audit=values["audit"], policies=values["policy"]
    )
    return supervisor.run(call, interruption, boot)


def _pairs(flag: str, texts: list[str]) -> dict[str, str]:
    pairs = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise UsageError(f"{flag} {text!r} is not of the form NAME=VALUE")
        pairs[name] = value
    return pairs


def _read_input(path: str | None) -> bytes | None:
    if path is None:
        return None
    try:
        if path == "-":
            return sys.stdin.buffer.read(INPUT_BYTES_MAX + 1)
        with open(path, "rb", opener=lambda p, flags: os.open(p, flags | os.O_NONBLOCK)) as file:
            return file.read(INPUT_BYTES_MAX + 1) or b""
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UsageError(
            f"the input {path} cannot be read: {reason}", "--input FILE, or --input -"
        ) from error


def _write_whole(path: str, data: bytes) -> None:
    temporary = f"{path}.{os.urandom(8).hex()}"
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        try:
            with open(fd, "wb") as file:
                file.write(data)
            os.replace(temporary, path)
        except OSError:
            os.unlink(temporary)
            raise
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}; the run itself is recorded") from error


def _report(outcome: "Outcome", *, as_json: bool, quiet: bool) -> None:
    if not quiet:
        _explain(outcome)
    if as_json:
        from plugsec.outcome import to_json  # noqa: PLC0415 - loaded by the run

        emit_json(to_json(outcome))
    elif outcome.error is None:
        indent = 2 if sys.stdout.isatty() else None
        # ASCII, so that nothing in a result reaches a terminal as a control or a bidirectional mark
        sys.stdout.write(json.dumps(outcome.result, ensure_ascii=True, indent=indent) + "\n")
        sys.stdout.flush()
    if outcome.error is not None and not as_json:
        _say_problem(outcome)


def _explain(outcome: "Outcome") -> None:
    for warning in outcome.warnings:
        say(f"note: {escape(warning)}")
    for note in outcome.notes[:_LOG_LINES_MAX]:
        say(f"plugin| {escape(note)}")
    for data in (outcome.stdout, outcome.stderr):
        for line in escape_lines(data, max_lines=_LOG_LINES_MAX):
            say(f"plugin| {line}")
    for denial in outcome.denials[:_DENIALS_SHOWN_MAX]:
        what = f"{denial.call} {denial.detail}".strip()
        times = f" ({denial.count} times)" if denial.count > 1 else ""
        claimed = ", claimed by the plugin's runtime" if denial.source == "claimed" else ""
        line = f"denied: {what}{times} by {denial.layer}{claimed}"
        say(escape(line + (f"; to ask for it: {denial.hint}" if denial.hint else "")))
    left = len(outcome.denials) - _DENIALS_SHOWN_MAX
    if left > 0:
        say(f"denied: {left} more kinds, see --json")
    if outcome.layers_degraded:
        say(f"note: without {', '.join(outcome.layers_degraded)} on this host (the policy allows it);"
            " see plugsec doctor")  # fmt: skip
    for file in outcome.outputs:
        say(f"result: {escape(file.path)} ({file.size} bytes)")


def _say_problem(outcome: "Outcome") -> None:
    problem = outcome.error
    assert problem is not None  # noqa: S101 - the caller's condition
    say(f"plugsec: {escape(problem.message)} [{problem.id}]")
    lines = problem.hint.split("\n")
    for index, line in enumerate(lines):
        if line:
            say(f"{'  next: ' if index == 0 else '  '}{escape(line)}")
