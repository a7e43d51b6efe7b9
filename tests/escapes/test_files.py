"""Files of the host: mounts and Landlock each hold alone; what is granted is granted exactly.

The canary lies where everybody may read and write it, so nothing but the jail stands before it. That no
way of catalogue/files.py leads to it is shown there; with both layers away, the same plugin gets at it.
"""

import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from catalogue.files import READ_ROUTES, WRITE_ROUTES, try_routes

from kit import weak
from kit.home import Home
from kit.outside import Canary, canary, fixed_identity, host_mounts
from plugsec.outcome import Outcome
from plugsec.sandbox import launch


@pytest.fixture(scope="module")
def outside() -> Iterator[Canary]:
    """The canary of this module."""
    with canary() as found:
        yield found


@pytest.fixture(scope="module")
def reading(tmp_path_factory: pytest.TempPathFactory, outside: Canary) -> Outcome:
    """All ways of reading, tried in one real jail."""
    return _try(Home(tmp_path_factory.mktemp("read")), outside, READ_ROUTES)


def _try(home: Home, outside: Canary, routes: dict[str, str], *policies: str, **more: object) -> Outcome:
    return try_routes(home, dict.fromkeys(routes, outside.file), routes, *policies, **more)


def test_the_refusal_is_explained(reading: Outcome, outside: Canary) -> None:
    """The interpreter's own word for it, marked as a claim, with the line that would ask."""
    claims = [d for d in reading.denials if d.source == "claimed" and d.detail == str(outside.file)]
    assert claims
    assert str(outside.file) in claims[0].hint


@pytest.mark.parametrize(
    ("missing", "readable"),
    [(("mount-namespace",), False), (("landlock",), False), (("mount-namespace", "landlock"), True)],
    ids=["Landlock holds alone", "mounts hold alone", "without both it is read"],
)
def test_layers_before_a_file_outside(
    missing: tuple[str, ...], readable: bool, home: Home, outside: Canary
) -> None:
    """The attack can succeed, and each layer alone prevents it."""
    with weak.without(home.root, *missing):
        outcome = _try(home, outside, {"by its path": READ_ROUTES["by its path"]})
    assert (outside.secret in repr(outcome)) is readable


def test_without_mounts_and_landlock_it_is_changed(home: Home) -> None:
    """So the canary can tell."""
    with canary() as own:
        before = own.state()
        with weak.without(home.root, "mount-namespace", "landlock"):
            _try(home, own, {"overwriting": WRITE_ROUTES["overwriting"]})
        assert own.state() != before


_GRANTED = """
[[grant]]
id = "canary"
plugins = ["*"]
"fs.read" = ["{directory}"]
"""


def _permissions(name: str, directory: Path) -> list[dict[str, object]]:
    return [{"name": name, "paths": [str(directory)], "reason": "the test needs it"}]


def test_a_granted_directory_is_read_and_not_written(home: Home) -> None:
    """fs.read means reading: the mount is read-only and Landlock agrees."""
    with canary() as own:
        before = own.state()
        policy = home.policy(_GRANTED.format(directory=own.directory))
        asked = _permissions("fs.read", own.directory)
        routes = {"reading": "open(p).read()", **WRITE_ROUTES}
        outcome = _try(home, own, routes, policy, permissions=asked)
        assert outcome.result.pop("reading") == own.secret
        assert {text[:7] for text in outcome.result.values()} == {"refused"}
        assert own.state() == before
        with weak.without(home.root, "landlock"):
            _try(home, own, WRITE_ROUTES, policy, permissions=asked)
        assert own.state() == before, "the mount holds alone"


_SET_ID_ROUTES = {
    "created set-user": "os.open(p + '.u', os.O_CREAT | os.O_WRONLY, 0o4777)",
    "created set-group": "os.open(p + '.g', os.O_CREAT | os.O_WRONLY, 0o2777)",
    "created by the old call": "libc.creat((p + '.c').encode(), 0o4777) >= 0 or oops()",
    "made nameless and linked": "os.link('/proc/self/fd/%d' % os.open(os.path.dirname(p), "
    "os.O_TMPFILE | os.O_RDWR, 0o4777), p + '.t', follow_symlinks=True)",
    "changed by path": "(open(p + '.p', 'x'), os.chmod(p + '.p', 0o6777))",
    "changed by descriptor": "os.fchmod(os.open(p + '.d', os.O_CREAT | os.O_WRONLY), 0o4777)",
    "changed in a directory": "os.chmod('secret', 0o4777, dir_fd=os.open(os.path.dirname(p), 0))",
    "a directory": "os.chmod((os.mkdir(p + '.m'), p + '.m')[1], 0o2777)",
    "by a mode in memory": "libc.syscall(437, -100, (p + '.o').encode(), (ctypes.c_uint64 * 3)(0o102, 0o4777, 0),"
    " 24) >= 0 or oops()",
    "with high bits": "libc.syscall(ctypes.c_long(chmod), p.encode(), ctypes.c_long(0x100000000 | 0o4777))"
    " == 0 or oops()",
}  # fmt: skip


def test_a_granted_directory_gets_no_set_id_file(home: Home) -> None:
    """The jail's mount is nosuid, the host's is not: such a file would make others the caller."""
    with canary() as own, fixed_identity():
        policy = home.policy(_GRANTED.format(directory=own.directory).replace("fs.read", "fs.write"))
        asked = _permissions("fs.write", own.directory)
        routes = {name: route.replace("chmod)", "90)") for name, route in _SET_ID_ROUTES.items()}
        _try(home, own, {**routes, "an ordinary file": "open(p + '.fine', 'x')"}, policy, permissions=asked)
        modes = {path.name: path.stat().st_mode for path in own.directory.iterdir()}
        assert "secret.fine" in modes, "the directory was writable"
        assert not [name for name, mode in modes.items() if mode & (stat.S_ISUID | stat.S_ISGID)]
        with weak.without(home.root, "seccomp"):
            _try(home, own, routes, policy, permissions=asked)
        assert [path for path in own.directory.iterdir() if path.stat().st_mode & stat.S_ISUID]


def test_a_granted_directory_gets_only_files_and_folders(home: Home) -> None:
    """No pipe, socket or device is left for the host's programs to trip over."""
    routes = {
        "a pipe": "os.mkfifo(p + '.fifo')",
        "a device": "os.mknod(p + '.node', 0o020666, os.makedev(1, 3))",
        "a socket": "os.mknod(p + '.sock', 0o140666)",
    }
    with canary() as own, fixed_identity():
        policy = home.policy(_GRANTED.format(directory=own.directory).replace("fs.read", "fs.write"))
        asked = _permissions("fs.write", own.directory)
        outcome = _try(home, own, routes, policy, permissions=asked)
        assert {text[:7] for text in outcome.result.values()} == {"refused"}
        assert sorted(path.name for path in own.directory.iterdir()) == ["secret"]
        with weak.without(home.root, "seccomp", "landlock"):
            _try(home, own, routes, policy, permissions=asked)
        assert stat.S_ISFIFO((own.directory / "secret.fifo").stat().st_mode)


def test_a_link_planted_in_a_granted_directory_leads_nowhere(home: Home) -> None:
    """The plugin may write a symbolic link there; inside the jail its target does not exist."""
    with canary() as own, canary() as other:
        policy = home.policy(_GRANTED.format(directory=own.directory).replace("fs.read", "fs.write"))
        routes = {
            "a link": f"(os.symlink({str(other.file)!r}, p + '.l'), open(p + '.l').read())",
            "upwards": f"open(os.path.dirname(p) + '/..' + {'/..' * 20!r} + {str(other.file)!r}).read()",
            "a hard link": f"os.link({str(other.file)!r}, p + '.h')",
        }
        outcome = _try(home, own, routes, policy, permissions=_permissions("fs.write", own.directory))
        assert other.secret not in repr(outcome)
        assert {text[:7] for text in outcome.result.values()} == {"refused"}


def test_a_granted_path_swapped_for_a_link_is_refused(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the decision and the mount someone puts a link in its place; nothing is started."""
    with canary() as own, canary() as other:
        granted = own.directory / "granted"
        granted.mkdir(mode=0o777)
        policy = home.policy(_GRANTED.format(directory=granted))
        begin = launch.Boot.begin

        def swap(self: launch.Boot, *arguments: object) -> None:
            granted.rmdir()
            granted.symlink_to(other.directory)
            begin(self, *arguments)  # type: ignore[arg-type]

        monkeypatch.setattr(launch.Boot, "begin", swap)
        outcome = home.attack(
            "@plugin.method\ndef go(): return open('/granted/secret').read()\n",
            policy,
            permissions=_permissions("fs.read", granted),
        )
    assert outcome.code == 8
    assert outcome.error is not None
    assert "symbolic link" in outcome.error.message or "Too many levels" in outcome.error.message
    assert other.secret not in repr(outcome)


def test_a_granted_link_is_refused_with_its_real_path(home: Home) -> None:
    """The policy must say what it means."""
    with canary() as own:
        link = own.directory / "link"
        link.symlink_to("/etc")
        outcome = home.attack(
            "@plugin.method\ndef go(): return 1\n",
            home.policy(_GRANTED.format(directory=link)),
            permissions=_permissions("fs.read", link),
        )
    assert (outcome.code, outcome.error.id if outcome.error else "") == (1, "PLG-PERM-020")


def test_an_input_file_is_a_copy(home: Home) -> None:
    """What the plugin does to $INPUT never reaches the caller's file, which it may read by name."""
    code = """
import os
@plugin.method
def go():
    text = open("/input/text").read()
    tried = []
    for act in ("open('/input/text', 'w')", "os.chmod('/input/text', 0o777)", "os.remove('/input/text')"):
        try:
            tried.append(str(eval(act)))
        except OSError as error:
            tried.append("refused")
    return [text, tried]
"""
    with canary() as own:
        before = own.state()
        asked = [{"name": "fs.read", "paths": ["$INPUT"], "reason": "reads it"}]
        outcome = home.attack(code, permissions=asked, input_files={"text": str(own.file)})
        assert outcome.result == [own.secret, ["refused"] * 3]
        assert own.state() == before


def test_the_host_has_no_mount_more_afterwards(home: Home) -> None:
    """A jail's mounts are private and end with it, also when the plugin is killed."""
    before = host_mounts()
    home.attack("@plugin.method\ndef go(): return 1\n")
    home.attack("import time\n@plugin.method\ndef go(): time.sleep(60)\n", limits={"wall_ms": 300})
    home.attack("import os\n@plugin.method\ndef go(): os._exit(3)\n")
    assert host_mounts() == before


def test_what_a_run_leaves_in_tmp_is_gone(home: Home) -> None:
    """Neither the host nor the next run sees it."""
    code = """
import os
@plugin.method
def go():
    there = os.listdir("/tmp")
    open("/tmp/plugsec-left-by-a-run", "w").write("x")
    return there
"""
    assert home.attack(code).result == []
    assert home.attack(code).result == []
    assert not Path("/tmp/plugsec-left-by-a-run").exists()


def test_the_jails_own_files_say_nothing_of_the_host(home: Home) -> None:
    """The accounts, the names, the processes and the devices are the jail's own."""
    code = """
import os
FOREIGN = ("home", "root", "root/.ssh", "var", "opt", "mnt", "media", "srv", "run", "sys", "boot", "host", "etc/shadow",
    "etc/hostname", "etc/machine-id", "etc/resolv.conf", "dev/tty", "dev/console", "dev/shm", "dev/pts", "dev/kmsg",
    "dev/mem", "dev/sda", "dev/vda", "proc/sys", "proc/kcore", "proc/cpuinfo", "proc/kallsyms", "proc/sysrq-trigger")
@plugin.method
def go():
    seen = os.listdir("/proc") if os.path.isdir("/proc/self") else []
    return {
        "foreign": [name for name in FOREIGN if os.path.lexists("/" + name)],
        "processes": [name for name in seen if name.isdigit()],
        "passwd": open("/etc/passwd").read(), "name": os.uname().nodename, "user": os.getuid(),
    }
"""
    told = home.attack(code).result
    # An interpreter in somebody's home brings the names of the directories above it, and nothing else.
    above = set(Path(os.path.realpath(sys.base_prefix)).parts[1:2])
    assert set(told["foreign"]) <= above
    assert set(told["processes"]) <= {"1", "2"}
    assert "root:" not in told["passwd"]
    assert (told["name"], told["user"]) == ("plugin", 1000)
