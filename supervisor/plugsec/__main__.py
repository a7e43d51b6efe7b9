"""Starts the command line: the hot path for a well-formed `run`, Typer for everything else."""

import errno
import gc
import os
import sys

_NOT_DELIVERED = 2
_GC_THRESHOLD = 50_000  # loading the modules makes some 20,000 objects, none of them garbage
_STREAM_ERRORS = frozenset({errno.ENOSPC, errno.EIO, errno.EPIPE})  # of write(2) on a stream, without a path


def main() -> None:
    """Entry point of `plugsec` and `python -m plugsec`; leaves with an exit code of docs/cli."""
    _open_standard_streams()
    try:
        _dispatch(sys.argv[1:])
    except KeyboardInterrupt:
        sys.stderr.write("plugsec: interrupted\n")
        raise SystemExit(130) from None
    except SystemExit:
        _deliver()
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.filename is None and error.errno in _STREAM_ERRORS:
            _not_delivered(error)
            return
        from plugsec.cli.defect import report  # noqa: PLC0415

        report(error)
    _deliver()


def _open_standard_streams() -> None:
    """Nothing that is opened later may become descriptor 0, 1 or 2 because the caller had closed it."""
    for fd, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
        if getattr(sys, name) is None:
            stream = open(fd, "r" if fd == 0 else "w", encoding="utf-8", closefd=False)  # noqa: SIM115
            setattr(sys, name, stream)


def _deliver() -> None:
    """Flush stdout; a reader that left is its own choice, a full disk is said and is exit 2."""
    try:
        sys.stdout.flush()
    except OSError as error:
        _not_delivered(error)


def _not_delivered(error: OSError) -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    if error.errno != errno.EPIPE:
        sys.stderr.write(f"plugsec: stdout cannot be written: {error.strerror} [PLG-USE-002]\n")
        raise SystemExit(_NOT_DELIVERED) from None


def _dispatch(arguments: "list[str]") -> None:
    if sys.platform == "linux":
        if arguments[:1] == ["run"]:
            _run_fast(arguments[1:])
        elif arguments in (["version"], ["--version"]):
            import plugsec  # noqa: PLC0415 - each path imports only what it needs

            sys.stdout.write(f"plugsec {plugsec.__version__}\n")
            return
    from plugsec.cli.app import main as everything  # noqa: PLC0415

    everything()


def _run_fast(tokens: list[str]) -> None:
    """Read the line without Typer and run it; returns if the line is not well-formed or asks for help."""
    from plugsec.cli import fast  # noqa: PLC0415

    values = fast.read(tokens)
    if values is None:
        return
    gc.set_threshold(_GC_THRESHOLD)
    from plugsec.sandbox import spawn  # noqa: PLC0415

    # Its failure is reported later, by whoever needs it: the words for it are not loaded yet.
    try:
        spawned = spawn.spawn()
        start = lambda: spawned  # noqa: E731
    except OSError:
        start = spawn.spawn
    from plugsec.cli.run import execute  # noqa: PLC0415

    try:
        execute(values, start)
    except SystemExit as leaving:
        _deliver()
        sys.stderr.flush()
        # Everything is delivered and given back; taking the interpreter apart would cost 7 ms more.
        os._exit(leaving.code if isinstance(leaving.code, int) else 0)


if __name__ == "__main__":
    main()
