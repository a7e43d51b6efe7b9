"""Where a layer cannot be had and the policy allows that: what is left still refuses, and says what is missing."""

import errno
import json
import os
from pathlib import Path

import pytest

from kit import elf, weak
from kit.calls import Attack, make_all
from kit.home import Home
from kit.native import run_native
from plugsec.sandbox import capabilities, linux

_ALLOW = b"\x06\x00\x00\x00\x00\x00\xff\x7f"  # one instruction: SECCOMP_RET_ALLOW
CALLS = (
    Attack("kill is refused", "kill", (1, 9)),
    Attack("a socket is refused", "socket", (2, 1, 0)),
    Attack("a program is refused", "execve", ("/nonexistent", 0, 0)),
    Attack("executable memory is refused", "mmap", (0, 4096, 7, 0x22, -1, 0)),
    Attack("a new namespace is refused", "unshare", (0x10000000,)),
    Attack("clone3 does not exist", "clone3", (0, 0), errno.ENOSYS),
    Attack("a future call does not exist", 1000, (), errno.ENOSYS),
)


def _behind_another_listener(said: Path, act: object) -> object:
    """Do something in a process whose own filter already has a listener, as under another sandbox."""
    child = os.fork()
    if child == 0:
        try:
            capabilities.no_new_privs()
            linux.seccomp_load(_ALLOW, listener=True)
            said.write_text(json.dumps(act()))  # type: ignore[operator]
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    return json.loads(said.read_text())


def test_without_a_listener_the_same_calls_are_refused(home: Home, tmp_path: Path) -> None:
    """Nobody explains them any more; that is all that is lost."""

    def attack() -> object:
        answers = make_all(home, CALLS)
        outcome = answers.outcome
        return [answers.by_sentence, list(outcome.layers_degraded), [d.call for d in outcome.denials]]

    answers, degraded, denials = _behind_another_listener(tmp_path / "said", attack)  # type: ignore[misc]
    assert answers == {str(attack): attack.answer for attack in CALLS}
    assert "denial-report" in degraded
    assert denials == []


def test_a_program_needs_the_listener_and_is_refused_without(home: Home, tmp_path: Path) -> None:
    """Its one execve is let through by the listener; a filter cannot count, so there is no weaker way."""

    def attack() -> object:
        outcome = run_native(home, elf.answers_seven())
        return [outcome.outcome, outcome.code, outcome.error.message if outcome.error else ""]

    outcome, code, message = _behind_another_listener(tmp_path / "said", attack)  # type: ignore[misc]
    assert (outcome, code) == ("refused", 8)
    assert "denial-report" in message


def test_a_policy_that_requires_the_listener_gets_a_refusal(home: Home, tmp_path: Path) -> None:
    """Required is required: nothing is started."""
    policy = home.policy('[isolation]\nrequired = ["denial-report"]\n')

    def attack() -> object:
        outcome = home.attack("@plugin.method\ndef go(): return 1\n", policy)
        return [outcome.outcome, outcome.code, outcome.error.message if outcome.error else ""]

    outcome, code, message = _behind_another_listener(tmp_path / "said", attack)  # type: ignore[misc]
    assert (outcome, code) == ("refused", 8)
    assert "denial-report" in message


def test_a_policy_that_requires_a_cgroup_gets_a_refusal(home: Home) -> None:
    """And the refusal says what an administrator can do."""
    policy = home.policy('[isolation]\nrequired = ["cgroup"]\n')
    with weak.without(home.root, "cgroup"):
        outcome = home.attack("@plugin.method\ndef go(): return 1\n", policy)
    assert (outcome.outcome, outcome.code) == ("refused", 8)
    assert outcome.error is not None
    assert "cgroup" in outcome.error.message
    assert outcome.error.hint


@pytest.mark.parametrize("layer", ["seccomp", "no-new-privs", "cgroup", "landlock"])
def test_the_command_line_cannot_give_up_what_the_policy_requires(layer: str, home: Home) -> None:
    """`--allow-degraded` accepts what the policy lists; strict lists cgroup and denial-report alone."""
    outcome = home.attack("@plugin.method\ndef go(): return 1\n", allow_degraded=frozenset({layer}))
    assert outcome.code == (0 if layer == "cgroup" else 1), outcome


BROKEN = {
    "the namespaces": "linux.unshare = refuse",
    "the mounts": "linux.mount = refuse",
    "a tmpfs": "linux.new_tmpfs = refuse",
    "a source": "linux.open_tree = refuse",
    "the new root": "linux.pivot_root = refuse",
    "the old root": "linux.umount_detach = refuse",
    "read-only mounts": "linux.mount_setattr = refuse",
    "the names": "linux.set_names = refuse",
    "the limits": "resource.setrlimit = refuse",
    "the bounding set": "capabilities.drop_bounding_set = refuse",
    "no new privileges": "capabilities.no_new_privs = refuse",
    "Landlock": "landlock.restrict = refuse",
    "the capabilities": "capabilities.drop_all = refuse",
    "MDWE": "capabilities.refuse_exec_gain = refuse",
    "the descriptors": "linux.close_range = refuse",
    "the filter": "linux.seccomp_load = refuse",
    "the user": "os.setresuid = refuse",
    "the group": "os.setresgid = refuse",
    "the session": "os.setsid = refuse",
    "the parent's death": "enter.die_with_parent = refuse",
    "the fork": "os.fork = refuse",
}


@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOSYS, errno.ENOMEM], ids=errno.errorcode.get)
@pytest.mark.parametrize("step", BROKEN)
def test_a_step_that_fails_is_a_refusal(step: str, number: int, home: Home) -> None:
    """Never a weaker jail: whichever call the kernel refuses, nothing is started and the layer is named."""
    with weak.broken(home.root, BROKEN[step], number):
        outcome = home.attack("@plugin.method\ndef go(): return 'started'\n")
    assert (outcome.outcome, outcome.code, outcome.result) == ("refused", 8, None), outcome
    assert outcome.error is not None
    assert outcome.error.id.startswith("PLG-HOST-")
    assert "traceback" not in outcome.error.message.lower()
