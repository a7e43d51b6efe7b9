"""Starts the command line: the hot path for a well-formed `run`, Typer for everything else."""

import sys


def main() -> None:
    """Entry point of `plugsec` and `python -m plugsec`; leaves with an exit code of docs/cli."""
    arguments = sys.argv[1:]
    try:
        if sys.platform == "linux":
            if arguments[:1] == ["run"]:
                _run_fast(arguments[1:])
            elif arguments in (["version"], ["--version"]):
                import plugsec  # noqa: PLC0415

                sys.stdout.write(f"plugsec {plugsec.__version__}\n")
                return
        from plugsec.cli.app import main as everything  # noqa: PLC0415

        everything()
    except KeyboardInterrupt:
        sys.stderr.write("plugsec: interrupted\n")
        raise SystemExit(130) from None
    except (SystemExit, BrokenPipeError):
        raise
    except Exception as error:
        from plugsec.cli.defect import report  # noqa: PLC0415

        report(error)


def _run_fast(tokens: list[str]) -> None:
    """Read the line without Typer and run it; returns if the line is not well-formed or asks for help."""
    from plugsec.cli import fast  # noqa: PLC0415

    values = fast.read(tokens)
    if values is None:
        return
    from plugsec.sandbox import spawn  # noqa: PLC0415

    # Its failure is reported later, by whoever needs it: the words for it are not loaded yet.
    try:
        spawned = spawn.spawn()
        start = lambda: spawned  # noqa: E731
    except OSError:
        start = spawn.spawn
    from plugsec.cli.run import execute  # noqa: PLC0415

    execute(values, start)


if __name__ == "__main__":
    main()
