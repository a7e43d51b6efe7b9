"""Running machine code as a plugin of the `exec` kind."""

import os
from typing import Any

from kit import elf
from kit.home import PROGRAM, Home
from plugsec.outcome import Outcome

ONESHOT = {"kind": "exec", "entry": "program", "dialect": "oneshot"}


def run_native(home: Home, code: bytes, *policies: str, **more: Any) -> Outcome:
    """Run these instructions as the bundle's program."""
    return run_file(home, elf.program(code), *policies, **more)


def run_script(home: Home, lines: str, *, files: dict[str, bytes] | None = None, **more: Any) -> Outcome:
    """Run a shell script whose interpreter is granted; `files` lie beside it, executable."""
    shell = os.path.realpath("/bin/sh")
    policy = home.policy(f'[[grant]]\nid = "shell"\nplugins = ["*"]\nexec = ["{shell}"]\nprocess = 8\n')
    asked = [
        {"name": "exec", "programs": [shell], "reason": "is a script"},
        {"name": "process", "max": 8, "reason": "starts programs"},
    ]
    script = f"#!/bin/sh\n{lines}\n".encode()
    return run_file(home, script, policy, files=files or {}, permissions=asked, **more)


def run_file(
    home: Home, program: bytes, *policies: str, files: dict[str, bytes] | None = None, **more: Any
) -> Outcome:
    """Run this content as the bundle's program."""
    content = {"program": program, **(files or {})}
    call = {name: more.pop(name) for name in ("limits", "method", "input") if name in more}
    bundle = home.bundle(content, runtime=ONESHOT, modes=dict.fromkeys(content, PROGRAM), **more)
    return home.run(bundle, *policies, **call)
