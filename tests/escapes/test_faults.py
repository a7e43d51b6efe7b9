"""Every call of a start fails in turn: a refusal that names the layer, nothing left, never a weaker jail.

The calls are those that a healthy run was seen to make (kit/tap.py); what each can fail with is
kit/fault_table.py. By default each call fails at its first and last occurrence with errnos picked in turn;
with PLUGSEC_ALL_FAULTS=1 at its first, middle and last with all of them.
"""

import _socket
import collections
import errno
import os
import resource
import types
from collections.abc import Iterator
from pathlib import Path

import pytest
from catalogue import host

from kit import fault_table, faults, tap
from kit.faults import Fault, Struck
from kit.home import Home
from plugsec.audit.verify import verify
from plugsec.outcome import Outcome
from plugsec.pipeline import Call
from plugsec.sandbox import control

_ALL = os.environ.get("PLUGSEC_ALL_FAULTS") == "1"
# What the jail looks like from inside, so that a run that goes on in spite of a fault can be compared.
_PLUGIN = """
import os, resource
from plugsec_plugins.guest import plugin

_FIELDS = ("Uid", "Gid", "Groups", "Cap", "NoNewPrivs", "Seccomp", "SigBlk", "SigIgn", "SigCgt", "NSpid", "Speculation")

def tried(what, *arguments):
    try: return repr(what(*arguments))
    except OSError as error: return error.errno

@plugin.method
def go():
    with open("/output/result", "w") as file: file.write(open("/input/one").read())
    limits = [getattr(resource, name) for name in dir(resource) if name.startswith("RLIMIT_")]
    facts = {
        "limits": [tried(resource.getrlimit, each) for each in limits],
        "attempts": [tried(os.listdir, "/"), tried(os.mkdir, "/x"), tried(os.listdir, "/etc"),
                     tried(os.kill, 1, 0), tried(os.getpid), tried(os.sched_getaffinity, 1)],
        "files": [tried(os.stat, path) != 2 for path in ("/usr", "/home", "/var", "/proc/1", "/tmp", "/sys")],
        "name": tried(os.uname),
        "ids": [tried(os.getuid), tried(os.getresgid), tried(os.getgroups), tried(os.getsid, 0)],
        "descriptors": [n for n in range(64) if tried(os.fstat, n) != 9],
    }
    if os.path.exists("/proc/self/status"):
        facts["status"] = [line for line in open("/proc/self/status") if line.startswith(_FIELDS)]
        facts["mounts"] = sorted(line.split(" ", 4)[4].split(" - ")[0] for line in open("/proc/self/mountinfo"))
    return facts
"""


class Bench:
    """One home and one bundle that uses what a jail can hold: an input, results, a granted tree with a mask."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.home = Home(directory)
        granted = directory / "granted"
        granted.mkdir()
        self._input = directory / "one"
        self._input.write_text("1")
        for path in (directory, granted):
            path.chmod(0o755)  # root's jail is another user
        asked = [
            {"name": "fs.read", "paths": ["$INPUT", str(directory)], "reason": "reads"},
            {"name": "fs.write", "paths": ["$OUTPUT", str(granted)], "reason": "writes"},
        ]
        self._policy = self.home.policy(
            '[[grant]]\nid = "all"\nplugins = ["*"]\n'
            f'"fs.read" = ["$INPUT", "{directory}"]\n"fs.write" = ["$OUTPUT", "{granted}"]\n'
        )
        self._bundle = self.home.bundle({"main.py": _PLUGIN, "lib/more.py": "1\n"}, permissions=asked)
        self.run()  # so that every directory and cache is there
        self.healthy = faults.recorded(directory, self.run)
        self.counts = collections.Counter(self.healthy.calls)

    def run(self, *policies: str) -> Outcome:
        """One whole run."""
        call = Call(bundle=self._bundle, input_files={"one": str(self._input)})
        return self.home.supervisor(*(policies or (self._policy,))).run(call)

    def strike(self, fault: Fault) -> Struck:
        """One whole run with one fault; nothing may be left of it."""
        struck = faults.struck(self.directory, fault, self.run)
        assert struck.left == (), f"{fault}: left {struck.left}"
        return struck

    def verified(self) -> None:
        """The log holds together, and no run is thought to be alive."""
        verify(str(self.home.home / "state" / "audit"))
        assert os.listdir(self.home.home / "state" / "runs") == []


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory, layers: host.Layers) -> Iterator[Bench]:
    if layers.missing:
        pytest.skip(f"{', '.join(layers.missing)}: missing on this host, so that no start is healthy")
    bench = Bench(tmp_path_factory.mktemp("faults"))
    yield bench
    bench.verified()


def test_a_healthy_run_is_healthy(bench: Bench) -> None:
    """What everything else is compared with."""
    assert bench.healthy.outcome.code == 0, bench.healthy.outcome
    assert bench.healthy.left == ()
    assert bench.healthy.outcome.result["attempts"][1] in {errno.EROFS, errno.EACCES}


def test_every_call_of_a_start_is_in_the_table(bench: Bench) -> None:
    """A call that somebody adds to the boot sequence must be made to fail too, or be excused with a reason."""
    unknown = set(bench.counts) - set(fault_table.SITES) - set(fault_table.EXCLUDED)
    assert not unknown, f"enter these in kit/fault_table.py: {sorted(unknown)}"
    assert not set(fault_table.SITES) & set(fault_table.EXCLUDED)


def test_no_call_of_the_jail_is_in_the_table_for_nothing(bench: Bench) -> None:
    """What only some hosts do (groups as root, a cgroup's version) apart, the table is what happens."""
    gone = {site for site in fault_table.SITES if not site.startswith(faults.SUPERVISOR)} - set(bench.counts)
    assert gone <= {"boot user-namespace os.setgroups", "boot cgroup os.write", "boot cgroup os.close"}


# What goes on in spite of a fault, and why the jail is the same. An empty tuple: whatever the errno.
ANY = frozenset[int]()
GOES_ON: dict[str, frozenset[int]] = {
    # Tried again in two steps, for a better sentence; both succeeded.
    "boot user-namespace unshare": ANY,
    # Another staging directory; a target that is not looked for is made, and refused if it was there.
    "init mount-namespace os.path.isdir": ANY,
    "init mount-namespace os.path.exists": ANY,
    # No /proc at all, as on hosts that mask theirs.
    "init mount-namespace mount": frozenset({errno.EPERM}),
    # What the kernel says to the one after its last; earlier it is looked at twice, and refused.
    "init capabilities prctl(PR_CAPBSET_DROP)": frozenset({errno.EINVAL}),
    "init capabilities prctl(PR_CAPBSET_READ)": frozenset({errno.EINVAL}),
    # A kernel before 6.3.
    "init capabilities prctl(PR_SET_MDWE)": frozenset({errno.EINVAL}),
    # A kernel before 5.19: asked again without WAIT_KILLABLE_RECV.
    "plugin seccomp seccomp(listener)": ANY,
    # The cached program is an optimisation.
    "supervisor seccomp os.open(*.bpf)": ANY,
    # No subordinate ids on this host.
    "supervisor identity open(subuid)": frozenset({errno.ENOENT}),
    "supervisor identity open(subgid)": frozenset({errno.ENOENT}),
    # A kernel without swap accounting.
    "supervisor cgroups os.open(memory.memsw.limit_in_bytes)": frozenset({errno.ENOENT}),
    "supervisor cgroups os.open(memory.swap.max)": frozenset({errno.ENOENT}),
    "supervisor cgroups os.open(memory.oom.group)": frozenset({errno.ENOENT}),
    # Figures that cannot be read are not told.
    "supervisor cgroups os.open(memory.oom_control)": ANY,
    "supervisor cgroups os.open(memory.max_usage_in_bytes)": ANY,
    "supervisor cgroups os.open(memory.events)": ANY,
    "supervisor cgroups os.open(memory.peak)": ANY,
    "supervisor cgroups os.open(cpuacct.usage)": ANY,
    "supervisor cgroups os.open(cpu.stat)": ANY,
    "supervisor cgroups os.open(pids.events)": ANY,
    "supervisor cgroups os.open(pids.peak)": ANY,
    "supervisor cgroups os.read": ANY,
    "supervisor cgroups os.rmdir": ANY,
}
# There is no cgroup then, which strict allows and the receipt says.
DEGRADES = {
    "plugin seccomp seccomp(listener)": "denial-report",
    **dict.fromkeys(
        (
            "supervisor cgroups open(mountinfo)", "supervisor cgroups open(cgroup)", "supervisor cgroups os.mkdir",
            "supervisor cgroups open(cgroup.controllers)", "supervisor cgroups open(cgroup.subtree_control)",
            "supervisor cgroups os.makedirs", "supervisor cgroups os.path.exists",
        ),
        "cgroup",
    ),
}  # fmt: skip
# Calls after the jail has been entered and said so: a run that they end was a run (exit 6).
LATE = frozenset({
    "waiter pid-namespace os.close", "waiter pid-namespace socket.close", "waiter pid-namespace os.waitpid",
    "init seccomp os.wait4", "init seccomp socket.sendmsg",
    "plugin seccomp os.close", "plugin seccomp socket.recvmsg", "plugin seccomp socket.close",
})  # fmt: skip
# The go-ahead and the word that all is over: the last message each way.
LATE_AT_LAST = frozenset({"supervisor launch socket.sendmsg", "supervisor launch socket.recvmsg"})
# How often these happen depends on what else the host is doing: other runs' ids, a plugin that leaves late.
VARIES = frozenset({
    "supervisor identity os.open(N)", "supervisor identity fcntl.flock", "supervisor launch socket.recvmsg",
    "supervisor cgroups os.read", "supervisor cgroups os.rmdir",
})  # fmt: skip


def _occurrences(count: int) -> list[int]:
    return sorted({1, count, (count + 1) // 2} if _ALL else {1, count})


def _faults(site: str, count: int) -> Iterator[Fault]:
    numbers = fault_table.errnos(site)
    in_boot = not site.startswith(faults.SUPERVISOR)
    occurrences = _occurrences(count)
    for index, occurrence in enumerate(occurrences):
        if _ALL:
            chosen: tuple[int, ...] = numbers
        else:
            chosen = (numbers[2 * index : 2 * index + 2] or numbers[:2]) if index else numbers[:2]
        yield from (Fault(site, occurrence, number) for number in chosen)
        if in_boot and (_ALL or index == 0):
            yield Fault(site, occurrence, tap.DIES)
        if in_boot and (_ALL or index == len(occurrences) - 1):
            yield Fault(site, occurrence, tap.CRASHES)


@pytest.mark.parametrize("site", fault_table.SITES)
def test_a_call_that_fails_is_a_refusal(site: str, bench: Bench) -> None:
    """Or, where the table says why, the same jail; or a lesser one that says so and that the policy allows."""
    if not bench.counts[site]:
        pytest.skip(f"this host makes no such call: {site}")
    last = bench.counts[site]
    for fault in _faults(site, last):
        late = site in LATE or (site in LATE_AT_LAST and fault.occurrence == last)
        struck = bench.strike(fault)
        if struck.met:
            _judge(fault, struck, bench, late=late)
        else:  # the plugin may have answered, and all have been ended, before init came to its next call
            assert late or site in VARIES, f"{fault}: was not reached"
    bench.verified()


def _judge(fault: Fault, struck: Struck, bench: Bench, *, late: bool) -> None:
    outcome, site = struck.outcome, fault.site
    if outcome.code == 0:
        assert late or _may_go_on(fault), f"{fault}: ok"
        _same_jail(fault, outcome, bench.healthy.outcome)
        return
    assert outcome.error is not None, fault
    said = f"{fault}: {outcome.error.message}"
    assert outcome.result is None, said
    if late and outcome.code == 6:
        return
    assert (outcome.outcome, outcome.code) == ("refused", 8), said
    assert outcome.error.id.startswith("PLG-HOST-"), said
    assert outcome.layers_active == (), said
    assert outcome.audit_seq is not None, f"{said}: not recorded"
    if not late and fault.number > 0 and not site.split()[2].startswith("os.path."):
        assert fault_table.SITES[site] in outcome.error.message, said
        assert os.strerror(fault.number) in outcome.error.message, said


def _may_go_on(fault: Fault) -> bool:
    allowed = GOES_ON.get(fault.site)
    retried = fault.number == errno.ECONNRESET and fault.site.endswith("recvmsg")
    return fault.number > 0 and (
        retried
        or fault.site in DEGRADES
        or allowed == ANY
        or (allowed is not None and fault.number in allowed)
    )


def _same_jail(fault: Fault, outcome: Outcome, healthy: Outcome) -> None:
    """The receipt's layers, and the view from inside; what is missing is only what the receipt says."""
    lost = DEGRADES.get(fault.site)
    degraded = set(outcome.layers_degraded) - set(healthy.layers_degraded)
    assert degraded <= {lost}, f"{fault}: degraded {degraded}"
    assert set(outcome.layers_active) == set(healthy.layers_active) - degraded, fault
    expected, facts = dict(healthy.result), dict(outcome.result)
    if fault.site == "init mount-namespace mount":  # no /proc to see more with
        assert "status" not in facts, fault
        expected, facts = ({**each, "files": 0, "status": 0, "mounts": 0} for each in (expected, facts))
    if degraded == {"cgroup"}:
        assert facts.pop("limits") != expected.pop("limits"), f"{fault}: rlimits stand in for the cgroup"
    if degraded == {"denial-report"}:
        assert "EPERM" not in str(facts), fault
    assert facts == expected, fault


SLOW = {
    "init seccomp seccomp": "init's own filter",
    "waiter no-new-privs prctl(PR_SET_NO_NEW_PRIVS)": "the waiter's promise",
    "waiter capabilities capset": "the waiter's capabilities",
}


@pytest.mark.parametrize("site", SLOW)
def test_no_plugin_starts_while_a_process_of_the_jail_is_still_entering(site: str, bench: Bench) -> None:
    """Init and the waiter enter beside the plugin; however slow they are, it waits for them."""
    struck = bench.strike(Fault(site, 1, errno.EPERM + tap.SLOWLY))
    assert struck.met
    assert (struck.outcome.outcome, struck.outcome.code) == ("refused", 8), struck.outcome


def test_a_message_whose_descriptors_do_not_fit_is_an_error() -> None:
    """The kernel drops what there is no room for and says so in a flag; a jail without its listener is not one."""
    left, right = (
        _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET, 0, end.detach()) for end in _pair()
    )
    control.send(left, {"at": "entered"}, (0, 0, 0))
    before = sorted(os.listdir("/proc/self/fd"))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.dup(0)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free + 1, hard))
    try:
        with pytest.raises(OSError) as caught:
            control.receive(right)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert caught.value.errno == errno.EMFILE
    assert sorted(os.listdir("/proc/self/fd")) == before
    left.close()
    right.close()


def _pair() -> tuple[_socket.socket, _socket.socket]:
    return _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)


def test_the_last_words_of_a_boot_that_left_are_heard() -> None:
    """The kernel tells of the unread message first (ECONNRESET), and of the report only when asked again."""
    left, right = (
        _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET, 0, end.detach()) for end in _pair()
    )
    control.send(left, {"do": "enter"})
    control.send(right, {"at": "failed"})
    right.close()  # with the message unread
    assert control.receive(left) == ({"at": "failed"}, ())
    with pytest.raises(control.PeerGone):
        control.receive(left)
    left.close()


# Modules of the standard library that make no system call of their own, or none that a start depends on.
QUIET = frozenset("array ctypes errno gc hashlib json re stat struct sys time".split())


def test_the_tap_sees_every_way_to_the_system() -> None:
    """A module of the sandbox that called the system by another way would not be made to fail."""
    tapped = {*tap.TAPPED, *QUIET}
    for module in faults.sandbox_modules():
        for name, value in vars(module).items():
            if isinstance(value, types.ModuleType) and not value.__name__.startswith("plugsec"):
                assert value.__name__ in tapped, f"{module.__name__}.{name}: tap it, or say that it is quiet"
            if isinstance(value, types.BuiltinFunctionType):
                assert value.__module__ not in {
                    "posix",
                    "fcntl",
                    "resource",
                    "select",
                    "_signal",
                    "_socket",
                }, name
