"""Faults under other policies and another kind: what one policy lets go on, another refuses; a program's start."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from catalogue import host

from kit import elf, fault_table, faults, tap
from kit.faults import Fault, Struck
from kit.home import PROGRAM, Home
from kit.native import ONESHOT
from plugsec.outcome import Outcome
from plugsec.pipeline import Call
from plugsec.sandbox import linux

_STRICT_BUT_LANDLOCK = """
schema = "plugsec.policy/1"
[isolation]
required = ["user-namespace", "mount-namespace", "pid-namespace", "network-namespace", "seccomp",
            "no-new-privs", "capabilities", "rlimits"]
allow_degraded = ["landlock", "cgroup", "denial-report"]
[[grant]]
id = "result"
plugins = ["*"]
"fs.write" = ["$OUTPUT"]
"""
_PYTHON = """
import os
from plugsec_plugins.guest import plugin
@plugin.method
def go():
    found = []
    for path in ("/", "/etc"):
        try: found.append(bool(os.listdir(path)))
        except OSError as error: found.append(error.errno)
    return found
"""


class Bundles(NamedTuple):
    """A Python plugin and a program, in one home."""

    home: Home
    python: str
    program: str

    def run(self, bundle: str, *policies: str) -> Outcome:
        return self.home.supervisor(*policies).run(Call(bundle=bundle))

    def strike(self, fault: Fault, bundle: str, *policies: str) -> Struck:
        """One run with one fault, of which nothing is left."""
        struck = faults.struck(self.home.root, fault, lambda: self.run(bundle, *policies))
        assert struck.left == (), f"{fault}: left {struck.left}"
        return struck


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory, layers: host.Layers) -> Iterator[Bundles]:
    if layers.missing:
        pytest.skip(f"{', '.join(layers.missing)}: missing on this host, so that no start is healthy")
    home = Home(tmp_path_factory.mktemp("faults"))
    program = {"program": elf.program(elf.answers_seven())}
    yield Bundles(
        home,
        home.bundle({"main.py": _PYTHON}),
        home.bundle(program, runtime=ONESHOT, modes={"program": PROGRAM}, name="acme/program"),
    )


def _lax(home: Home) -> str:
    path = home.root / "lax.toml"
    path.write_text(_STRICT_BUT_LANDLOCK)
    return str(path)


VERSION = "init landlock landlock_create_ruleset(version)"


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EOPNOTSUPP], ids=errno.errorcode.get)
def test_a_kernel_without_landlock_is_a_lesser_jail_where_the_policy_says_so(
    number: int, bundles: Bundles
) -> None:
    """The receipt says that it is missing; the mounts still stand: what Landlock hid is the jail's own root."""
    _need_landlock()
    struck = bundles.strike(Fault(VERSION, 1, number), bundles.python, _lax(bundles.home))
    assert struck.outcome.code == 0, struck.outcome
    assert "landlock" in struck.outcome.layers_degraded
    assert "landlock" not in struck.outcome.layers_active
    assert struck.outcome.result == [True, True]


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EOPNOTSUPP], ids=errno.errorcode.get)
def test_a_kernel_without_landlock_is_refused_by_strict(number: int, bundles: Bundles) -> None:
    """The same fault, the default policy."""
    struck = bundles.strike(Fault(VERSION, 1, number), bundles.python)
    assert (struck.outcome.outcome, struck.outcome.code) == ("refused", 8)
    assert struck.outcome.error is not None
    assert "landlock" in struck.outcome.error.message


@pytest.mark.parametrize(
    "call", ["landlock_create_ruleset", "landlock_add_rule", "landlock_restrict_self", "os.open"]
)
def test_a_landlock_that_is_there_and_fails_is_refused_by_every_policy(call: str, bundles: Bundles) -> None:
    """A kernel that has it and says no is not a kernel without it."""
    _need_landlock()
    fault = Fault(f"init landlock {call}", 1, errno.ENOMEM)
    struck = bundles.strike(fault, bundles.python, _lax(bundles.home))
    assert struck.met
    assert (struck.outcome.outcome, struck.outcome.code) == ("refused", 8), struck.outcome
    assert struck.outcome.error is not None
    assert "landlock" in struck.outcome.error.message


def _need_landlock() -> None:
    try:
        linux.landlock_abi()
    except OSError:
        pytest.skip("landlock: this kernel has none")


REQUIRED = {
    "denial-report": ("plugin seccomp seccomp(listener)",),
    "cgroup": (
        "supervisor cgroups open(mountinfo)",
        "supervisor cgroups open(cgroup)",
        "supervisor cgroups open(cgroup.controllers)",
        "supervisor cgroups os.mkdir",
    ),
}


@pytest.mark.parametrize("layer", REQUIRED)
def test_what_strict_lets_go_on_is_refused_where_the_layer_is_required(layer: str, bundles: Bundles) -> None:
    """Required is required, whatever call it was that failed."""
    policy = bundles.home.policy(f'[isolation]\nrequired = ["{layer}"]\n')
    healthy = faults.recorded(bundles.home.root, lambda: bundles.run(bundles.python, policy))
    if healthy.outcome.code != 0:
        pytest.skip(f"{layer}: this host has none")
    for site in REQUIRED[layer]:
        for number in fault_table.errnos(site) if site in healthy.calls else ():
            struck = bundles.strike(Fault(site, 1, number), bundles.python, policy)
            if struck.outcome.code == 0 and number == errno.EINVAL:
                continue  # a kernel before 5.19: asked again without WAIT_KILLABLE_RECV, and there it is
            assert (struck.outcome.outcome, struck.outcome.code) == ("refused", 8), (
                site,
                number,
                struck.outcome,
            )
            assert struck.outcome.error is not None
            assert layer in struck.outcome.error.message or "seccomp" in struck.outcome.error.message


def test_every_call_of_a_programs_start_is_in_the_table(bundles: Bundles) -> None:
    """It makes the same calls and one more, its own execve."""
    healthy = faults.recorded(bundles.home.root, lambda: bundles.run(bundles.program))
    assert (healthy.outcome.result, healthy.left) == (7, ())
    known = {*fault_table.SITES, *fault_table.EXCLUDED, *PROGRAMS_OWN}
    assert set(healthy.calls) <= known, sorted(set(healthy.calls) - known)


PROGRAMS_OWN = {
    "plugin seccomp os.execve": (
        errno.ENOENT,
        errno.EACCES,
        errno.ENOEXEC,
        errno.ENOMEM,
        errno.E2BIG,
        errno.ETXTBSY,
    ),
    "supervisor seccomp open(exec.profile)": (errno.EACCES, errno.EMFILE, errno.ENOENT),
}


@pytest.mark.parametrize("site", PROGRAMS_OWN)
def test_a_program_that_cannot_be_started_says_why(site: str, bundles: Bundles) -> None:
    """After the go-ahead it is a run that failed; before, a refusal."""
    healthy = faults.recorded(bundles.home.root, lambda: bundles.run(bundles.program))
    if site not in healthy.calls:
        pytest.skip(f"this host makes no such call: {site}")
    for number in (*PROGRAMS_OWN[site], *((tap.DIES, tap.CRASHES) if site.startswith("plugin") else ())):
        struck = bundles.strike(Fault(site, 1, number), bundles.program)
        outcome = struck.outcome
        assert outcome.code == (6 if site.startswith("plugin") else 8), outcome
        assert outcome.result is None
        assert outcome.error is not None
        if number > 0:
            assert os.strerror(number) in outcome.error.message, outcome


@pytest.mark.parametrize("number", [tap.DIES, tap.CRASHES], ids=["leaves", "crashes"])
def test_init_that_ends_beside_a_program_takes_it_along(number: int, bundles: Bundles) -> None:
    """Whether before the program was let start or after: nothing of it runs on."""
    struck = bundles.strike(Fault("init seccomp os.wait4", 1, number), bundles.program)
    assert struck.met
    assert struck.outcome.code in {6, 8}, struck.outcome


def test_the_tap_is_for_tests_alone() -> None:
    """No file of the product knows of it: there is nothing that a plugin, a user or a variable could set."""
    product = Path(__file__).resolve().parents[2]
    for room in ("supervisor", "plugins", "policies", "signing"):
        for path in (product / room).rglob("*.py"):
            text = path.read_text()
            assert "BootTap" not in text and "kit.tap" not in text and "PLUGSEC_ALL_FAULTS" not in text, path
