"""Runs `plugsec run …` in this process and prints, as JSON on stderr, when each step began and ended.

Times are milliseconds since the parent started this process (BENCH_T0_NS, CLOCK_MONOTONIC), so the
interpreter's own start is part of the picture.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

T0_NS = int(os.environ["BENCH_T0_NS"])
marks: list[tuple[str, float, float]] = []


def now_ms() -> float:
    return (time.monotonic_ns() - T0_NS) / 1e6


marks.append(("interpreter starts, site", 0.0, now_ms()))


def timed(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    def wrapper(*arguments: Any, **more: Any) -> Any:
        begun = now_ms()
        try:
            return function(*arguments, **more)
        finally:
            marks.append((name, begun, now_ms()))

    return wrapper


def main() -> None:
    # As plugsec.__main__ does it: read the line, start boot, import the rest.
    from plugsec.cli import fast
    from plugsec.sandbox import spawn

    values = fast.read(sys.argv[2:])
    assert values is not None
    begun = now_ms()
    marks.append(("import the reader, read the line", marks[0][2], begun))
    spawned = timed("spawn boot", spawn.spawn)()
    before = now_ms()
    from plugsec.cli import run
    from plugsec.sandbox import launch

    marks.append(("import run and launch", before, now_ms()))
    original = run._run_with

    def run_with(*arguments: Any) -> Any:
        before = now_ms()
        from plugsec import pipeline

        marks.append(("import the pipeline", before, now_ms()))
        for name, step in (
            ("_verify", "1 verify"),
            ("_decide", "2 decide"),
            ("_launch", "3 launch: build the spec, enter"),
            ("_converse", "4 converse: run.start durable, the call"),
            ("_conclude", "5 record: judge, run.end durable"),
        ):
            setattr(pipeline._Run, name, timed(step, getattr(pipeline._Run, name)))
        launch.Boot.follow = timed("  follow boot through every layer", launch.Boot.follow)
        launch.Boot.end = timed("  end: kill and reap", launch.Boot.end)
        pipeline._Run._prepare = timed("  prepare the call meanwhile: modules, log", pipeline._Run._prepare)
        pipeline.Held.take = timed("register, cgroup", pipeline.Held.take)
        pipeline.Held.release = timed("release", pipeline.Held.release)
        opened = pipeline.Held.open_log

        def open_log(self: Any) -> Any:
            log = opened(self)
            log.append = timed("  audit append", log.append)
            return log

        pipeline.Held.open_log = open_log
        return original(*arguments)

    run._run_with = run_with
    try:
        run.execute(values, lambda: spawned)
    finally:
        marks.append(("the whole command", begun, now_ms()))
        sys.stderr.write(json.dumps(marks) + "\n")


main()
