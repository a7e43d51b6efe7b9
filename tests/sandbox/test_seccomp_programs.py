"""The compiled filters mean what the profiles say: for every call, architecture and boundary argument."""

import errno
import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import bpf
import pytest

from plugsec.sandbox import seccomp
from plugsec.sandbox.seccomp import compile as compiling
from plugsec.sandbox.seccomp import profile, tables

AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
FOREIGN = {"i386": 0x40000003, "arm": 0x40000028, "riscv64": 0xC00000F3, "s390x": 0x80000016}
X32_BIT = 0x40000000
EPERM, ENOSYS = bpf.ERRNO | errno.EPERM, bpf.ERRNO | errno.ENOSYS
KINDS = [
    ("python", {}),
    ("exec", {}),
    ("python", {"write": True}),
    ("python", {"process": True}),
    ("exec", {"process": True, "execute": True}),
    ("python", {"jit": True}),
    ("exec", {"write": True, "process": True, "execute": True, "jit": True}),
    ("init", {}),
]
NOTHING = {"write": False, "process": False, "execute": False, "jit": False}
INTERESTING = (0, 1, 2, 3, 4, 5, 6, 7, 0x20, 0x40, 0xFFFFFFFF, 0xFFFFFFFFFFFFFFFF, 1 << 32, 0x7FFFFFFF)


def rules_of(names: tuple[str, ...]) -> tuple[profile.Rule, ...]:
    found: list[profile.Rule] = []
    for name in names:
        text = Path(tables.PROFILES, f"{name}.profile").read_text()
        found += profile.parse(text, name)
    return tuple(found)


def neighbours(rules: tuple[profile.Rule, ...], call: str) -> Iterator[tuple[int, ...]]:
    """Arguments around every condition of a call: each value, one bit off, high bits set, all masked out."""
    yield (0,) * 6
    yield (0xFFFFFFFFFFFFFFFF,) * 6
    conditions = [c for rule in rules if rule.call == call for c in rule.conditions]
    values: dict[int, set[int]] = {}
    for condition in conditions:
        around = values.setdefault(condition.argument, set(INTERESTING))
        outside = ~condition.mask & 0xFFFFFFFFFFFFFFFF
        around |= {condition.value, condition.value | outside, condition.value ^ 1, condition.value + 1}
        around |= {condition.value | 1 << 32, condition.value | 1 << 63, condition.mask, outside}
        around |= {(condition.value ^ (1 << bit)) for bit in range(64) if condition.mask >> bit & 1}
    for combination in itertools.islice(itertools.product(*values.values()), 20000):
        arguments = [0] * 6
        for index, value in zip(values, combination, strict=True):
            arguments[index] = value & 0xFFFFFFFFFFFFFFFF
        yield tuple(arguments)


@pytest.mark.parametrize("architecture", tables.ARCHITECTURES)
@pytest.mark.parametrize(
    ("kind", "extra"), KINDS, ids=lambda value: "+".join(value) if isinstance(value, dict) else value
)
@pytest.mark.parametrize("notify", [True, False], ids=["notify", "silent"])
def test_the_program_is_the_profile(kind, extra, architecture, notify, tmp_path) -> None:
    names = seccomp.profile_names(kind, **{**NOTHING, **extra})
    program, _ = seccomp.program(names, architecture, notify=notify, cache_directory=str(tmp_path))
    rules = rules_of(names)
    default = bpf.USER_NOTIF if notify else EPERM
    meant = {"allow": bpf.ALLOW, "enosys": ENOSYS, None: default}
    by_number = tables.call_names(architecture)
    newest = max(by_number)
    for number in range(newest + 1):
        call = by_number.get(number, "")
        for arguments in neighbours(rules, call):
            got = bpf.run(program, number, AUDIT_ARCH[architecture], arguments)
            want = meant[profile.meaning(rules, call, arguments)]
            assert got == want, (call, number, [hex(a) for a in arguments], hex(got), hex(want))
    for number in (*range(newest + 1, newest + 200), 5000, 0x3FFFFFFF):
        assert bpf.run(program, number, AUDIT_ARCH[architecture], (0,) * 6) == ENOSYS
    for foreign in FOREIGN.values():
        for number in (*range(0, newest, 7), newest + 50):
            assert bpf.run(program, number, foreign, (0,) * 6) == bpf.KILL_PROCESS
    if architecture == "x86_64":
        for number in range(0, 600, 3):
            assert bpf.run(program, X32_BIT | number, AUDIT_ARCH[architecture], (0,) * 6) == bpf.KILL_PROCESS
        assert bpf.run(program, 0xFFFFFFFF, AUDIT_ARCH[architecture], (0,) * 6) not in {bpf.ALLOW}


def test_the_interpreter_tells_an_altered_program(tmp_path) -> None:
    """The proof can fail: a program with one call more differs from the profile."""
    rules = rules_of(("base", "python"))
    more = (*rules, profile.Rule("ptrace", "allow", (), "a hole"))
    program = compiling.compile_program(more, "x86_64", notify=True)
    number = tables.read_table("x86_64")["ptrace"]
    assert bpf.run(program, number, AUDIT_ARCH["x86_64"], (0,) * 6) == bpf.ALLOW
    assert profile.meaning(rules, "ptrace", (0,) * 6) is None


@pytest.mark.parametrize("name", sorted(path.stem for path in Path(tables.PROFILES).glob("*.profile")))
def test_every_profile_parses_and_gives_a_reason_for_each_call(name) -> None:
    for rule in rules_of((name,)):
        assert rule.reason
        assert rule.action == "enosys" or rule.call not in profile.FORBIDDEN


BAD = {
    "a forbidden call": "[allow]\nptrace  # please\n",
    "a call refused by ENOSYS": "[allow]\nclone3  # please\n",
    "an unknown name": "[allow]\nptrase  # please\n",
    "no reason": "[allow]\nread\n",
    "no section": "read  # a file\n",
    "an unreadable condition": "[allow]\nread  arg9 == 1  # a file\n",
    "two values for ==": "[allow]\nread  arg0 == 1, 2  # a file\n",
    "a negative value": "[allow]\nread  arg0 == -1  # a file\n",
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_profile_names_its_line(case) -> None:
    with pytest.raises(profile.ProfileError, match=r"mine:\d"):
        profile.parse(BAD[case], "mine")


def test_a_long_profile_is_refused() -> None:
    with pytest.raises(profile.ProfileError, match="lines"):
        profile.parse("\n" * 5000, "mine")


def test_tables_have_no_number_twice_and_cover_this_machine() -> None:
    for architecture in tables.ARCHITECTURES:
        table = tables.read_table(architecture)
        assert len(set(table.values())) == len(table)
        assert table["close_range"] == 436  # from 424 on all architectures agree
    assert os.uname().machine in tables.ARCHITECTURES


def test_a_cached_program_is_used_and_a_damaged_or_open_one_is_not(tmp_path) -> None:
    names = seccomp.profile_names("python", **NOTHING)
    program, digest = seccomp.program(names, "x86_64", notify=True, cache_directory=str(tmp_path))
    cached = tmp_path / f"{digest}.bpf"
    whole = cached.read_bytes()
    assert whole[32:] == program
    open_bpf = b"\x06\x00\x00\x00\x00\x00\xff\x7f"  # allow everything
    for damaged in (whole[:32] + open_bpf, open_bpf, b"", whole[:-8], os.urandom(100)):
        cached.write_bytes(damaged)
        assert seccomp.program(names, "x86_64", notify=True, cache_directory=str(tmp_path))[0] == program
        assert cached.read_bytes() == whole
    cached.chmod(0o666)  # others may write it: what it holds is compiled again instead
    cached.write_bytes(seccomp._seal(digest, open_bpf) + open_bpf)
    assert seccomp.program(names, "x86_64", notify=True, cache_directory=str(tmp_path))[0] == program


def test_every_part_of_the_source_is_in_the_digest(tmp_path) -> None:
    digests = set()
    for kind, extra in KINDS:
        for architecture in tables.ARCHITECTURES:
            for notify in (True, False):
                names = seccomp.profile_names(kind, **{**NOTHING, **extra})
                digests.add(
                    seccomp.program(names, architecture, notify=notify, cache_directory=str(tmp_path))[1]
                )
    assert len(digests) == len(KINDS) * 2 * 2


def test_without_libseccomp_the_refusal_says_how_to_get_it(tmp_path, monkeypatch) -> None:
    def gone() -> None:
        raise seccomp.LibseccompMissing("libseccomp was not found (test)")

    monkeypatch.setattr(compiling, "_library", gone)
    with pytest.raises(seccomp.LibseccompMissing):
        seccomp.program(("init",), "x86_64", notify=False, cache_directory=str(tmp_path))
    assert "apt install libseccomp2" in seccomp.LIBSECCOMP_ADVICE
