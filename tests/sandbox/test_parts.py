"""The parts of the jail that can be looked at without one: what crosses to boot, rules, ids, refusals."""

import _socket
import json
import os
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.home import is_root
from plugsec.errors import HostUnsupported
from plugsec.sandbox import build, cgroups, control, granted, identity, landlock, launch, layers, spec
from plugsec_plugins.runtimes.plan import Bind
from plugsec_policies import decision, policy
from plugsec_policies.isolation import LAYERS

PATHS = st.text(st.characters(blacklist_categories=["Cs"]), max_size=30)
INTS = st.integers(0, 2**62)
SPECS = st.builds(
    spec.SandboxSpec,
    kind=st.sampled_from(["python", "exec"]),
    binds=st.lists(st.builds(Bind, PATHS, PATHS, *[st.booleans()] * 4), max_size=4).map(tuple),
    links=st.lists(st.tuples(PATHS, PATHS), max_size=3).map(tuple),
    files=st.lists(st.builds(spec.File, PATHS, INTS, INTS, INTS), max_size=4).map(tuple),
    inputs=st.lists(PATHS, max_size=3).map(tuple),
    input_bytes=INTS,
    output=st.booleans(),
    tmp_bytes=INTS,
    tmp_inodes=INTS,
    rlimits=st.lists(st.tuples(INTS, INTS, INTS), max_size=3).map(tuple),
    landlock_may_miss=st.booleans(),
    write_exec_memory=st.booleans(),
    setgroups=st.booleans(),
    seccomp=st.binary(max_size=40),
    seccomp_silent=st.binary(max_size=40),
    seccomp_init=st.binary(max_size=40),
    environment=st.lists(st.tuples(PATHS, PATHS), max_size=3).map(tuple),
    program=st.lists(PATHS, max_size=3).map(tuple),
    program_exec=st.lists(PATHS, max_size=3).map(tuple),
    python_path=st.lists(PATHS, max_size=3).map(tuple),
)


@given(SPECS)
def test_boot_reads_exactly_what_was_decided(whole: spec.SandboxSpec) -> None:
    assert spec.decode(spec.encode(whole)) == whole


def test_control_messages_carry_descriptors_and_the_end_is_told() -> None:
    ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
    read, write = os.pipe()
    control.send(ours, {"do": "enter"}, (read, write))
    message, descriptors = control.receive(theirs)
    assert message == {"do": "enter"}
    os.write(descriptors[1], b"x")
    assert os.read(descriptors[0], 9) == b"x"
    assert not any(os.get_inheritable(fd) for fd in descriptors)
    for fd in (read, write, *descriptors):
        os.close(fd)
    ours.close()
    with pytest.raises(control.PeerGone):
        control.receive(theirs)
    theirs.close()


def test_a_control_message_is_never_cut() -> None:
    ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
    with pytest.raises(RuntimeError):
        control.send(ours, {"detail": "x" * spec.MESSAGE_BYTES_MAX})
    ours.close()
    theirs.close()


def test_sealed_memory_cannot_be_changed() -> None:
    fd = launch.sealed_memory("test", b"verified")
    with pytest.raises(PermissionError):
        os.pwrite(fd, b"X", 0)
    with pytest.raises(PermissionError):
        os.ftruncate(fd, 1)
    assert os.pread(fd, 100, 0) == b"verified"
    os.close(fd)


# From include/uapi/linux/landlock.h: the accesses that each ABI brought.
@pytest.mark.parametrize(
    ("abi", "handled", "words"),
    [
        (1, 0x1FFF, 1),
        (2, 0x3FFF, 1),
        (3, 0x7FFF, 1),
        (4, 0x7FFF, 2),
        (5, 0xFFFF, 2),
        (6, 0xFFFF, 3),
        (7, 0xFFFF, 3),
    ],
)
def test_landlock_handles_all_that_an_abi_knows_and_no_more(abi: int, handled: int, words: int) -> None:
    attributes = landlock.ruleset_attributes(abi)
    assert landlock.handled(abi) == handled
    assert len(attributes) == 8 * words
    assert struct.unpack_from("=Q", attributes)[0] == handled


def test_neither_devices_nor_sockets_nor_fifos_can_be_made() -> None:
    make_char, make_sock, make_fifo, make_block = 1 << 6, 1 << 9, 1 << 10, 1 << 11
    assert not landlock.WRITE & (make_char | make_sock | make_fifo | make_block)
    assert not landlock.READ & landlock.EXECUTE
    assert not landlock.WRITE & landlock.EXECUTE


def test_two_runs_never_share_an_id() -> None:
    first, second = identity.choose(), identity.choose()
    try:
        if is_root():
            assert first.uid != second.uid
            assert min(first.uid, second.uid) >= identity.RANGE_START
        else:
            assert first.uid == second.uid == os.geteuid()
            assert first.lock_fd == -1
    finally:
        for each in (first, second):
            if each.lock_fd >= 0:
                os.close(each.lock_fd)


def test_layers_and_policies_speak_of_the_same_layers() -> None:
    assert set(layers.NAMES) == set(LAYERS)
    assert all(info.stops and info.advice for info in layers.LAYERS)


def test_a_missing_required_layer_is_a_refusal_with_advice() -> None:
    layers.require("cgroup", "none here", {"cgroup"})
    with pytest.raises(HostUnsupported) as refusal:
        layers.require("landlock", "none here", {"cgroup"})
    assert (refusal.value.code, refusal.value.id) == (8, "PLG-HOST-001")
    assert "landlock" in refusal.value.message
    assert "lsm=" in refusal.value.hint


@pytest.mark.parametrize("name", [info.name for info in layers.LAYERS if info.name != "cgroup"])
def test_every_layer_can_be_had_here(name: str) -> None:
    """A host without one of these must say so in its own run of the suite; this one has them all."""
    probe = layers.probe(name)
    assert probe.active, probe.detail


def grant(**changes: object) -> decision.Grant:
    request = decision.Request("sha256:0", "acme/x", "1.0.0", (), (), {}, "python")
    return decision.decide(
        request, [policy.builtin("strict")], decision.HostSupport(), decision.Narrowing(), 0
    )._replace(**changes)


@pytest.mark.parametrize(
    "path", ["/", "/tmp", "/proc", "/proc/self", "/dev/mem", "/sys", "/plugin", "/input/x", "/output"]
)
def test_the_jail_s_own_trees_cannot_be_replaced(path: str) -> None:
    with pytest.raises(granted.PathRefused):
        granted._check_mappable(path)


def test_a_link_is_refused_with_the_real_path(tmp_path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    with pytest.raises(granted.PathRefused) as refusal:
        granted._check_mappable(str(tmp_path / "link"))
    assert str(tmp_path / "real") in refusal.value.hint
    with pytest.raises(granted.PathRefused):
        granted._check_mappable(str(tmp_path / "missing"))


def test_rlimits_never_exceed_what_this_process_may_have() -> None:
    import resource

    for kind, soft, hard in build.rlimits(grant(), cgroup=False):
        most = resource.getrlimit(kind)[1]
        assert soft <= hard
        assert most == resource.RLIM_INFINITY or hard <= most


def test_a_process_permission_counts_tasks_and_never_widens() -> None:
    limits = grant().limits._replace(processes=8)
    assert build.tasks_allowed(grant(limits=limits)) == 8
    assert build.tasks_allowed(grant(limits=limits, processes_allowed=2)) == 3
    assert build.tasks_allowed(grant(limits=limits, processes_allowed=100)) == 8


@pytest.mark.parametrize("field", ["memory_bytes", "open_files", "tmp_bytes"])
def test_a_limit_that_nothing_can_start_under_is_named(home, field: str) -> None:
    outcome = home.run(home.bundle({"main.py": "x = 1\n"}), limits={field: 1})
    assert (outcome.code, outcome.error.id) == (2, "PLG-LIM-110")


def test_the_environment_is_only_what_was_granted(tmp_path) -> None:
    environment = dict(
        build._environment(grant(env=("A", "HOME", "MISSING")), {"A": "1", "B": "2", "HOME": "/root"})
    )
    assert environment == {
        "A": "1", "HOME": "/tmp", "TMPDIR": "/tmp", "PATH": "/nonexistent", "LANG": "C.UTF-8",
        "INPUT": "/input", "OUTPUT": "/output",
    }  # fmt: skip


def test_a_cgroup_is_made_limited_read_and_removed_or_refused_with_advice() -> None:
    try:
        cgroup = cgroups.create(f"test-{os.getpid()}")
    except cgroups.CgroupUnavailable as refusal:
        assert not is_root()
        assert str(refusal)
        return
    try:
        cgroup.limit(memory_bytes=32 << 20, processes=5)
        usage = cgroup.usage()
        assert usage.oom_kills == usage.forks_refused == 0
        for fd in cgroup.open_procs():
            os.close(fd)
    finally:
        cgroup.remove()
    assert not any(os.path.exists(directory) for directory in cgroup.directories)


def test_boot_without_a_grant_does_nothing_and_leaves() -> None:
    boot = launch.spawn()
    boot.sock.close()
    pid, status = os.waitpid(boot.pid, 0)
    assert (pid, os.waitstatus_to_exitcode(status)) == (boot.pid, 0)
    assert os.read(boot.stderr, 1000) == b""
    boot.sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
    boot.reap()


def test_doctor_speaks_json(home) -> None:
    import subprocess
    import sys

    ended = subprocess.run(
        [sys.executable, "-m", "plugsec", "doctor", "--json"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    told = json.loads(ended.stdout)
    assert ended.returncode == told["code"] == 0
    assert [row["layer"] for row in told["layers"]] == list(layers.NAMES)
