"""Starts the command line: the hot path for a well-formed `run`, Typer for everything else."""

import sys


def main() -> None:
    """Entry point of `plugsec` and `python -m plugsec`; leaves with an exit code of docs/cli."""
    arguments = sys.argv[1:]
    try:
        if sys.platform == "linux":
            if arguments[:1] == ["run"]:
                from plugsec.cli import fast  # noqa: PLC0415 - each path imports only what it needs

                values = fast.read(arguments[1:])
                if values is not None:
                    from plugsec.cli.run import execute  # noqa: PLC0415

                    execute(values)
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


if __name__ == "__main__":
    main()
