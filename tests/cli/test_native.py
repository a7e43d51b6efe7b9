"""Native programs and scripts, one-shot: static, dynamic, and what stops them from starting."""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

EXAMPLE = Path(__file__).parents[2] / "plugins" / "examples" / "linecount"
ONESHOT = {"kind": "exec", "entry": "program", "dialect": "oneshot"}
SHELL = os.path.realpath("/bin/sh")
TALKS = r"""
#include <stdio.h>
#include <string.h>
#include <unistd.h>
int main(int argc, char **argv) {
    char in[4096]; ssize_t n = read(0, in, sizeof in - 1); in[n > 0 ? n : 0] = 0; in[strcspn(in, "\n")] = 0;
    fprintf(stderr, "method %s\n", argv[argc - 1]);
    printf("{\"input\": %s, \"arguments\": %d}\n", in, argc - 1);
    return 0;
}
"""


def build(directory: Path, source: str, *flags: str) -> bytes:
    if shutil.which("cc") is None:
        pytest.skip("no C compiler: native test programs cannot be built (apt install gcc libc6-dev)")
    (directory / "program.c").write_text(source)
    subprocess.run(
        ["cc", "-O1", *flags, "-o", str(directory / "program"), str(directory / "program.c")], check=True
    )
    return (directory / "program").read_bytes()


def run(home: Any, program: bytes | str, *policies: str, runtime: Any = ONESHOT, **more: Any) -> Any:
    call = {name: more.pop(name) for name in ("input", "input_files") if name in more}
    bundle = home.bundle({"program": program}, modes={"program": 0o755}, runtime=runtime, **more)
    return home.run(bundle, *policies, **call)


@pytest.mark.parametrize("flags", [("-static",), ()], ids=["static", "dynamic"])
def test_a_program_gets_its_input_and_gives_its_result(home, tmp_path, flags) -> None:
    outcome = run(home, build(tmp_path, TALKS, *flags), input=b'{"text": "hello"}')
    assert outcome.error is None
    assert outcome.result == {"input": {"text": "hello"}, "arguments": 1}
    assert outcome.stderr == b"method go\n"
    assert outcome.denials == ()


def test_fixed_arguments_come_before_the_method(home, tmp_path) -> None:
    outcome = run(home, build(tmp_path, TALKS), runtime={**ONESHOT, "args": ["-v", "x"]})
    assert outcome.result["arguments"] == 3


def test_the_example_counts_lines(home, tmp_path) -> None:
    program = build(tmp_path, (EXAMPLE / "linecount.c").read_text(), "-static")
    lines = tmp_path / "lines"
    lines.write_text("one\ntwo\nthree\n")
    read = [{"name": "fs.read", "paths": ["$INPUT"], "reason": "reads the lines"}]
    outcome = run(home, program, permissions=read, input_files={"lines.txt": str(lines)})
    assert outcome.result == {"lines": 3}


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("int main(void) { return 3; }", "exit status 3"),
        ("int main(void) { return 0; }", "not one JSON value"),
        ("#include <stdlib.h>\nint main(void) { abort(); }", "SIGABRT"),
        ('#include <stdio.h>\nint main(void) { puts("{}"); puts("{}"); return 0; }', "not one JSON value"),
    ],
)
def test_a_bad_end_is_the_program_s_failure(home, tmp_path, source, words) -> None:
    outcome = run(home, build(tmp_path, source))
    assert outcome.code == 6
    assert words in outcome.error.message


def test_a_script_needs_its_interpreter_granted(home) -> None:
    script = '#!/bin/sh\nread -r input\necho "{\\"method\\": \\"$1\\", \\"input\\": $input}"\n'
    ask = [{"name": "exec", "programs": [SHELL], "reason": "is a shell script"}]
    policy = home.policy(f'[[grant]]\nid = "sh"\nplugins = ["acme/*"]\nexec = ["{SHELL}"]\n')
    outcome = run(home, script, policy, permissions=ask, input=b'{"a": 1}')
    assert outcome.error is None
    assert outcome.result == {"method": "go", "input": {"a": 1}}
    assert run(home, script, permissions=ask).code == 1
    without = run(home, script)
    assert (without.code, without.error.id) == (1, "PLG-PERM-021")
    assert json.dumps(SHELL) in without.error.hint


def test_a_program_for_another_machine_is_refused_before_it_starts(home, tmp_path) -> None:
    program = bytearray(build(tmp_path, TALKS))
    program[18] = 183 if program[18] == 62 else 62  # e_machine
    outcome = run(home, bytes(program))
    assert (outcome.code, outcome.error.id) == (4, "PLG-MAN-002")


def test_what_is_no_program_is_refused_before_it_starts(home) -> None:
    for program in (b"\x7fELF" + bytes(100), b"hello", b"#!\n", b"#!relative/sh\n"):
        assert run(home, program).code == 4
