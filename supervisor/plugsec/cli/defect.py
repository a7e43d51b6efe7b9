"""What a person sees when we are wrong: no traceback on the terminal, all of it in a file to send."""

import os
import sys
import tempfile
import traceback
from typing import NoReturn

import plugsec


def report(error: Exception) -> NoReturn:
    """Say that this is our defect and how to report it; exit 70."""
    sys.stderr.write(f"plugsec: a defect of ours: {type(error).__name__} [PLG-BUG-001]\n")
    try:
        fd, path = tempfile.mkstemp(prefix="plugsec-defect-", suffix=".txt")
        with os.fdopen(fd, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(f"plugsec {plugsec.__version__}, Python {sys.version}\n{sys.argv!r}\n")
            file.writelines(traceback.format_exception(error))
        sys.stderr.write(f"  next: please report it with {path} (see SECURITY.md if it may be one)\n")
    except OSError:
        sys.stderr.write("  next: please report it with the command you gave\n")
    raise SystemExit(70)
