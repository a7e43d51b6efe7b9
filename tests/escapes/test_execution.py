"""What keeps programs and code out, layer by layer; that nothing gets in is shown in catalogue/execution.py.

A program that ran betrays itself by writing `7` to stdout, which the supervisor reads.
"""

import os
from pathlib import Path

import pytest
from catalogue.execution import (
    CODE_MAKERS,
    EXECVE,
    PROGRAM_THAT_BETRAYS_ITSELF,
    WAYS,
    X32_GETPID,
    loader,
    make_code,
    run_ways,
)

from kit import elf, weak
from kit.home import Home
from kit.native import run_file, run_native, run_script
from kit.outside import canary
from plugsec.outcome import Outcome


def _run(home: Home, way: str, *policies: str, **more: object) -> Outcome:
    return run_ways(home, {way: WAYS[way]}, *policies, **more)


def _betrayed(outcome: Outcome) -> bool:
    return b"7" in outcome.stdout


@pytest.mark.parametrize("way", ["execve", "vfork and execve", "a child", "posix_spawn"])
def test_children_execute_nothing_either(way: str, home: Home) -> None:
    """The `process` permission gives children, not programs."""
    policy = home.policy('[[grant]]\nid = "children"\nplugins = ["*"]\nprocess = 8\n')
    asked = [{"name": "process", "max": 8, "reason": "starts children"}]
    assert not _betrayed(_run(home, way, policy, permissions=asked))


@pytest.mark.parametrize(
    ("missing", "runs"),
    [(("seccomp",), False), (("landlock",), False), (("seccomp", "landlock"), True)],
    ids=["Landlock holds alone", "seccomp holds alone", "without both it runs"],
)
@pytest.mark.parametrize("way", ["execve", "execve of a descriptor", "execveat", "execve through /proc"])
def test_layers_before_a_program(way: str, missing: tuple[str, ...], runs: bool, home: Home) -> None:
    """The program is there, may be executed and works; two layers refuse it."""
    with weak.without(home.root, *missing):
        assert _betrayed(_run(home, way)) is runs


def test_without_seccomp_a_memory_file_runs(home: Home) -> None:
    """Landlock does not see files without a place, so the filter is what refuses them."""
    with weak.without(home.root, "seccomp"):
        outcome = _run(home, "a memory file")
    assert _betrayed(outcome) or "refused" in str(outcome.result)
    if "refused" in str(outcome.result):
        pytest.skip("seccomp: this host also forbids executable memory files (vm.memfd_noexec)")


# Machine code made at run time ------------------------------------------------------------------------------


def _make(home: Home, maker: str, *policies: str, **more: object) -> object:
    outcome = make_code(home, {"it": maker}, *policies, **more)
    assert outcome.error is None, outcome.error
    return outcome.result["it"]


@pytest.mark.parametrize("maker", ["writable and executable memory", "memory made executable"])
def test_with_jit_code_is_made(maker: str, home: Home) -> None:
    """The permission is what opens it, and the machine code is good."""
    policy = home.policy('[[grant]]\nid = "jit"\nplugins = ["*"]\njit = true\n')
    asked = [{"name": "jit", "reason": "compiles"}]
    assert _make(home, CODE_MAKERS[maker], policy, permissions=asked) == 42


@pytest.mark.parametrize(
    ("maker", "missing"),
    [
        ("writable and executable memory", ("seccomp", "mdwe")),
        ("memory made executable", ("seccomp", "mdwe")),
        ("/dev/zero, written through a second mapping", ("noexec",)),
        ("a file of /tmp", ("noexec",)),
    ],
    ids=str,
)
def test_without_the_layers_code_is_made(maker: str, missing: tuple[str, ...], home: Home) -> None:
    """The filter and MDWE for memory, noexec mounts for whatever has a file behind it."""
    with weak.without(home.root, *missing):
        assert _make(home, CODE_MAKERS[maker]) == 42


@pytest.mark.parametrize("missing", ["seccomp", "mdwe"])
def test_one_of_the_layers_before_executable_memory_is_enough(missing: str, home: Home) -> None:
    """Kernels before 6.3 have no MDWE: the filter holds alone."""
    if missing == "seccomp" and not _has_mdwe():
        pytest.skip("seccomp: this kernel has no PR_SET_MDWE, so nothing stands behind the filter")
    with weak.without(home.root, missing):
        for maker in ("writable and executable memory", "memory made executable"):
            assert _make(home, CODE_MAKERS[maker]) != 42


def _has_mdwe() -> bool:
    major, minor = os.uname().release.split(".")[:2]
    return (int(major), int("".join(c for c in minor if c.isdigit()))) >= (6, 3)


def test_a_granted_directory_holds_no_code(home: Home) -> None:
    """What a plugin may write it may not run, by whichever permission it may write."""
    with canary() as own:
        directory = str(own.directory)
        text = f'[[grant]]\nid = "own"\nplugins = ["*"]\n"fs.write" = ["{directory}"]\n"fs.read" = ["{directory}"]\n'
        asked = [
            {"name": name, "paths": [directory], "reason": "keeps files"} for name in ("fs.write", "fs.read")
        ]
        for maker in ("file(granted + '/code', 5, 2)", "twice(granted + '/code2')"):
            made = _make(home, maker, home.policy(text), granted=directory, permissions=asked)
            assert made == "refused"
        with weak.without(home.root, "noexec"):
            maker = "file(granted + '/code3', 5, 2)"
            made = _make(home, maker, home.policy(text), granted=directory, permissions=asked)
        assert made == 42


# Native programs --------------------------------------------------------------------------------------------


def _only_x86_64() -> None:
    if os.uname().machine != "x86_64":
        pytest.skip("seccomp: only x86-64 has a second and third call convention")


def test_without_seccomp_a_foreign_call_is_made(home: Home) -> None:
    """The program goes on to its answer (a kernel without these conventions answers ENOSYS or faults)."""
    _only_x86_64()
    with weak.without(home.root, "seccomp"):
        outcome = run_native(home, X32_GETPID + elf.answers_seven())
    assert outcome.result == 7


def test_a_native_program_starts_and_answers(home: Home) -> None:
    """What these tests rest on."""
    assert run_native(home, elf.answers_seven()).result == 7


def test_a_native_program_executes_once(home: Home) -> None:
    """Boot's own execve was let through; the program's is refused and reported."""
    _only_x86_64()
    outcome = run_native(home, EXECVE + elf.answers_seven())
    assert outcome.result == 7
    if "denial-report" in outcome.layers_active:
        assert [(d.call, d.count) for d in outcome.denials] == [("execve", 1)]


def test_without_landlock_a_granted_shell_starts_other_programs(home: Home) -> None:
    """So Landlock's EXECUTE is what refuses them."""
    with weak.without(home.root, "landlock"):
        outcome = run_script(home, "/plugin/other", files={"other": PROGRAM_THAT_BETRAYS_ITSELF})
    assert outcome.result == 7


def test_a_readable_directory_is_no_directory_of_programs(home: Home) -> None:
    """The loader maps what it may read: a program below fs.read must not run through it."""
    shell, true = os.path.realpath("/bin/sh"), os.path.realpath("/bin/true")
    with canary() as own:
        copy = own.directory / "true"
        copy.write_bytes(Path(true).read_bytes())
        copy.chmod(0o755)
        policy = home.policy(
            f'[[grant]]\nid = "shell"\nplugins = ["*"]\nexec = ["{shell}"]\nprocess = 8\n'
            f'"fs.read" = ["{own.directory}"]\n'
        )
        asked = [
            {"name": "exec", "programs": [shell], "reason": "is a script"},
            {"name": "process", "max": 8, "reason": "starts programs"},
            {"name": "fs.read", "paths": [str(own.directory)], "reason": "reads"},
        ]
        script = f"#!/bin/sh\nr=0\n{copy} 2>/dev/null && r=1\n{loader()} {copy} 2>/dev/null && r=2\necho $r\n"
        outcome = run_file(home, script.encode(), policy, permissions=asked)
        assert outcome.result == 0, outcome
        with weak.without(home.root, "noexec"):
            assert run_file(home, script.encode(), policy, permissions=asked).result == 2


def test_set_id_programs_give_nothing(home: Home) -> None:
    """Every mount is nosuid and no_new_privs is set; the flags are read from inside, the kernel's word."""
    code = """
@plugin.method
def go():
    lines = open("/proc/self/status").read().splitlines()
    mounts = [line.split(" - ")[0].split()[5] for line in open("/proc/self/mountinfo")]
    return {
        "flags": {k: v.strip() for k, v in (l.split(":", 1) for l in lines) if k[:3] in ("NoN", "Cap", "Sec")},
        "suid": [m for m in mounts if "nosuid" not in m.split(",")],
    }
"""
    told = home.attack(code).result
    assert told["suid"] == []
    assert told["flags"]["NoNewPrivs"] == "1"
    assert told["flags"]["Seccomp"] == "2"
    assert {value for name, value in told["flags"].items() if name.startswith("Cap")} == {"0" * 16}
