"""Packing: the same sources give the same bytes, what must not be published is refused, failures leave nothing."""

import hashlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import plugins_kit as kit
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plugsec_plugins import pack as packing
from plugsec_plugins.errors import (
    ElfMalformed,
    ManifestMalformed,
    PackFailed,
    PackRefused,
    PluginError,
    ProjectMalformed,
    SecretFound,
)
from plugsec_plugins.manifest import parse_manifest
from plugsec_plugins.pack import pack
from plugsec_signing.bundle import read_manifest
from plugsec_signing.errors import SigningError
from plugsec_signing.verify import verify_unsafe_unsigned

KEY = (
    "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAEbm9uZQAAAAAAAAAB\n"
    "-----END OPENSSH PRIVATE KEY-----\n"
)


def manifest_of(path):
    fd = os.open(path, os.O_RDONLY)
    try:
        return parse_manifest(read_manifest(fd).envelope)
    finally:
        os.close(fd)


def files_of(path):
    return [entry.path for entry in manifest_of(path).envelope.files]


@pytest.fixture
def out(tmp_path):
    return str(tmp_path / "out.plug")


def test_a_packed_plugin_verifies_and_holds_what_its_toml_says(tmp_path, out):
    packed = pack(str(kit.project(tmp_path / "p", tests__test_it="no", README="hello")), out)
    with open(out, "rb") as stream:
        assert b"acme/wordfreq" in stream.read(2000)
    bundle = verify_unsafe_unsigned(out)
    assert packed.bundle_id == bundle.bundle_id
    manifest = manifest_of(out)
    assert [entry.path for entry in manifest.envelope.files] == [
        "README",
        "schemas/count.input.json",
        "schemas/count.output.json",
        "wordfreq.py",
    ]
    assert manifest.limits == {"wall_ms": 5000, "memory_bytes": 134217728}
    assert manifest.created == ""
    assert packed.warnings == ()


def test_a_bundle_is_named_after_plugin_and_version(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert pack(str(kit.project(tmp_path / "p"))).path == "wordfreq-1.2.3.plug"
    assert os.path.exists("wordfreq-1.2.3.plug")


def test_a_bundle_that_is_already_there_is_replaced(tmp_path, out):
    directory = kit.project(tmp_path / "p")
    first = pack(str(directory), out)
    (directory / "wordfreq.py").write_text("x = 2\n")
    assert pack(str(directory), out).bundle_id != first.bundle_id


# The same bytes anywhere ------------------------------------------------------------------------------------------------


def test_the_same_sources_give_the_same_bytes_whatever_the_clock_the_mask_and_the_directory(tmp_path):
    first = kit.project(tmp_path / "one", sub__a="1", sub__b="2", sub_c="3")
    (first / "run.sh").write_text("#!/bin/sh\n")
    (first / "run.sh").chmod(0o700)
    pack(str(first), str(tmp_path / "1.plug"))
    second = tmp_path / "elsewhere" / "two"
    second.mkdir(parents=True)
    for name in sorted(os.listdir(first), reverse=True):  # another order in the directory
        source = first / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, second / name)
    for directory, _, names in os.walk(second):
        for name in names:
            path = os.path.join(directory, name)
            os.utime(path, (1, time.time() + 1e6))
            os.chmod(path, 0o755 if name == "run.sh" else 0o664)
    old = os.umask(0o077)
    try:
        pack(str(second) + "/", str(tmp_path / "2.plug"))
    finally:
        os.umask(old)
    one, two = (tmp_path / "1.plug").read_bytes(), (tmp_path / "2.plug").read_bytes()
    assert one == two


def test_the_bytes_of_a_small_plugin_never_change(tmp_path, out):
    # A golden value: if this changes, published plugins can no longer be rebuilt to the same id.
    pack(str(kit.project(tmp_path / "p")), out)
    with open(out, "rb") as stream:
        digest = hashlib.sha256(stream.read()).hexdigest()
    assert digest == "9dc4a53b3610a1c0a2ec408cc8044f1b7a477b8426569613a6eefb5a5b590a23"


def test_the_time_of_making_is_written_only_when_given(tmp_path, out):
    pack(str(kit.project(tmp_path / "p")), out, created="2026-05-01T00:00:00Z")
    assert manifest_of(out).created == "2026-05-01T00:00:00Z"
    with pytest.raises(ManifestMalformed, match="created"):
        pack(str(tmp_path / "p"), out, created="now")


# What goes in -------------------------------------------------------------------------------------------------------------


def test_only_the_owners_execute_bit_counts(tmp_path, out):
    directory = kit.project(tmp_path / "p", a="1", b="2", c="3")
    for name, mode in (("a", 0o700), ("b", 0o677), ("c", 0o600)):
        (directory / name).chmod(mode)
    pack(str(directory), out)
    modes = {entry.path: entry.mode for entry in manifest_of(out).envelope.files}
    assert (modes["a"], modes["b"], modes["c"]) == (0o755, 0o644, 0o644)


def test_what_builds_leave_behind_is_never_packed(tmp_path, out):
    directory = kit.project(
        tmp_path / "p",
        **{
            "sub__keep.py": "1",
            "b.pyc": "1",
            "old-1.0.0.plug": "1",
            "venv__lib__x.py": "1",
            "c.py~": "1",
            "node_modules__a__b.js": "1",
        },
    )
    for cache in (directory / "__pycache__", directory / "sub" / "__pycache__"):
        cache.mkdir()
        (cache / "x.py").write_text("1")
    pack(str(directory), out)
    assert files_of(out) == [
        "schemas/count.input.json",
        "schemas/count.output.json",
        "sub/keep.py",
        "wordfreq.py",
    ]


def test_names_that_begin_with_a_dot_are_left_out_and_told(tmp_path, out):
    directory = kit.project(
        tmp_path / "p", **{".gitignore": "x", ".github__ci.yml": "x", ".editorconfig": "x"}
    )
    packed = pack(str(directory), out)
    assert packed.warnings == (
        "left out, since names in a bundle do not begin with a dot: .editorconfig, .gitignore",
    )


EXCLUDES = [
    (["tests/**"], ["a.md", "sub/a.md", "sub/tests/x", "docs/a/b.txt"]),
    (["tests"], ["a.md", "sub/a.md", "docs/a/b.txt"]),
    (["/tests"], ["a.md", "sub/a.md", "sub/tests/x", "docs/a/b.txt"]),
    (["tests/"], ["a.md", "sub/a.md", "docs/a/b.txt"]),
    (["*.md"], ["tests/x", "sub/tests/x", "docs/a/b.txt"]),
    (["/*.md"], ["tests/x", "sub/a.md", "sub/tests/x", "docs/a/b.txt"]),
    (["**/*.md"], ["tests/x", "sub/tests/x", "docs/a/b.txt"]),
    (["docs/*.txt"], ["tests/x", "a.md", "sub/a.md", "sub/tests/x", "docs/a/b.txt"]),
    (["docs/**/b.txt"], ["tests/x", "a.md", "sub/a.md", "sub/tests/x"]),
    (["docs/*/b.*"], ["tests/x", "a.md", "sub/a.md", "sub/tests/x"]),
    (["sub/**", "docs"], ["tests/x", "a.md"]),
    (["a.m"], ["tests/x", "a.md", "sub/a.md", "sub/tests/x", "docs/a/b.txt"]),
    (["A.MD"], ["tests/x", "a.md", "sub/a.md", "sub/tests/x", "docs/a/b.txt"]),
    (["a?md", "[ab].md"], ["tests/x", "a.md", "sub/a.md", "sub/tests/x", "docs/a/b.txt"]),
]


@pytest.mark.parametrize(("patterns", "left"), EXCLUDES, ids=[str(each[0]) for each in EXCLUDES])
def test_exclude_leaves_out_what_its_patterns_match(tmp_path, out, patterns, left):
    text = kit.PROJECT.replace('exclude = ["tests/**"]', f"exclude = {patterns!r}".replace("'", '"'))
    pack(
        str(
            kit.project(
                tmp_path / "p",
                text,
                **{
                    "a.md": "1",
                    "sub__a.md": "1",
                    "tests__x": "1",
                    "sub__tests__x": "1",
                    "docs__a__b.txt": "1",
                },
            )
        ),
        out,
    )
    mine = [path for path in files_of(out) if not path.startswith("schemas/") and path != "wordfreq.py"]
    assert sorted(mine) == sorted(left)


@pytest.mark.parametrize("pattern", ["", "/", "*" * 9, "a*b*c*d*e*f*g*h*i*j"])
def test_a_pattern_that_says_nothing_or_too_much_is_refused(tmp_path, out, pattern):
    with pytest.raises(PackRefused, match="exclude"):
        pack(str(kit.project(tmp_path / "p", kit.PROJECT.replace("tests/**", pattern))), out)


# What is refused --------------------------------------------------------------------------------------------------------------


def _link(path):
    path.symlink_to("/etc/passwd")


def _dangling(path):
    path.symlink_to("nowhere")


def _directory_link(path):
    path.symlink_to("schemas")


def _socket(path):
    with socket.socket(socket.AF_UNIX) as server:
        old = os.getcwd()
        os.chdir(path.parent)  # the name of a socket is at most 107 bytes
        try:
            server.bind(path.name)
        finally:
            os.chdir(old)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (_link, "symbolic link"),
        (_dangling, "symbolic link"),
        (_directory_link, "symbolic link"),
        (os.mkfifo, "named pipe"),
        (_socket, "socket"),
    ],
)
def test_what_is_not_a_regular_file_is_refused_unless_excluded(tmp_path, out, make, words):
    directory = kit.project(tmp_path / "p")
    make(directory / "odd")
    with pytest.raises(PackRefused, match=f"odd is a {words}") as refused:
        pack(str(directory), out)
    assert "exclude" in refused.value.hint
    assert not os.path.exists(out)
    (directory / "plugin.toml").write_text(kit.PROJECT.replace("tests/**", "odd"))
    pack(str(directory), out)


@pytest.mark.parametrize(
    "name", ["a\\b", "a:b", "a*b", "ü", "a\nb", "trailing.", "trailing ", "x" * 241, "\x1b[2J"]
)
def test_a_name_that_a_bundle_cannot_hold_is_refused(tmp_path, out, name):
    directory = kit.project(tmp_path / "p")
    try:
        (directory / name).write_text("x")
    except OSError:
        pytest.skip("this file system does not hold the name either")
    with pytest.raises(PackRefused, match="cannot be in a bundle"):
        pack(str(directory), out)


def test_names_that_differ_only_in_case_are_refused(tmp_path, out):
    directory = kit.project(tmp_path / "p", a="1", A="2")
    if len({"a", "A"} & set(os.listdir(directory))) < 2:
        pytest.skip("this file system ignores case")
    with pytest.raises(SigningError, match="case"):
        pack(str(directory), out)


def test_a_directory_named_like_the_containers_own_is_refused(tmp_path, out):
    with pytest.raises(PackRefused, match="PLUGSEC"):
        pack(str(kit.project(tmp_path / "p", Plugsec__x="1")), out)


def test_a_tree_that_is_too_deep_is_refused(tmp_path, out):
    directory = kit.project(tmp_path / "p")
    (directory / "/".join(["d"] * 33)).mkdir(parents=True)
    with pytest.raises(PackRefused, match="directories deep"):
        pack(str(directory), out)


@pytest.mark.parametrize(
    "name",
    [
        ".env",
        ".env.production",
        "id_rsa",
        "id_ed25519",
        "sub__id_ecdsa",
        ".netrc",
        "_netrc",
        ".npmrc",
        ".pypirc",
        "store.p12",
        "A.PFX",
        "x.jks",
        "passwords.kdbx",
        "putty.ppk",
        ".git-credentials",
    ],
)
def test_a_file_that_usually_holds_a_secret_is_refused_unless_excluded(tmp_path, out, name):
    directory = kit.project(tmp_path / "p", **{name: "x"})
    with pytest.raises(SecretFound) as refused:
        pack(str(directory), out)
    path = name.replace("__", "/")
    assert f'add "{path}" to exclude' in refused.value.hint
    (directory / "plugin.toml").write_text(kit.PROJECT.replace("tests/**", path))
    pack(str(directory), out)
    assert path not in files_of(out)


@pytest.mark.parametrize(
    "content",
    [
        KEY,
        "text before\n" + KEY,
        KEY.replace("\n", "\r\n"),
        KEY.replace("OPENSSH ", ""),
        KEY.replace("OPENSSH", "RSA"),
        KEY.replace("OPENSSH", "EC"),
        KEY.replace("OPENSSH ", "ENCRYPTED "),
        "PuTTY-User-Key-File-3: ssh-ed25519\n",
        "-----BEGIN PGP PRIVATE KEY BLOCK-----\n\nlQOYBGPgxyzBCADabcdefghijk\n",
        "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n",
        "x" * (1024 * 1024 - 20) + KEY,
    ],
)
def test_a_private_key_is_found_wherever_it_is(tmp_path, out, content):
    with pytest.raises(SecretFound, match=r"data\.txt holds a private key"):
        pack(str(kit.project(tmp_path / "p", **{"data.txt": content})), out)
    assert not os.path.exists(out)


@pytest.mark.parametrize(
    "content",
    [
        'MARKER = "-----BEGIN OPENSSH PRIVATE KEY-----"\n',
        "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAabcdefghij\n",
        "-----BEGIN CERTIFICATE-----\nMIIBszCCAVmgAwIBAgIUabcdefghij\n",
        "the words PRIVATE KEY alone\n",
    ],
)
def test_code_that_only_speaks_of_keys_is_packed(tmp_path, out, content):
    pack(str(kit.project(tmp_path / "p", **{"data.txt": content, ".env.example": "A="})), out)
    assert "data.txt" in files_of(out)


def test_what_the_manifest_refuses_is_refused_before_anything_is_written(tmp_path, out):
    with pytest.raises(ManifestMalformed, match="not in the bundle"):
        pack(
            str(kit.project(tmp_path / "p", kit.PROJECT.replace('entry = "wordfreq"', 'entry = "other"'))),
            out,
        )
    assert os.listdir(tmp_path) == ["p"]


def test_an_excluded_schema_is_missed(tmp_path, out):
    with pytest.raises(PackRefused, match="is excluded"):
        pack(str(kit.project(tmp_path / "p", kit.PROJECT.replace("tests/**", "schemas"))), out)


def test_an_inline_schema_does_not_overwrite_another_of_its_name(tmp_path, out):
    directory = kit.project(tmp_path / "p", **{"schemas__count.input.json": "{}"})
    with pytest.raises(PackRefused, match="another schema of that name"):
        pack(str(directory), out)


# Programs -----------------------------------------------------------------------------------------------------------------------

EXEC = kit.PROJECT.replace(
    'kind = "python"\nentry = "wordfreq"', 'kind = "exec"\nentry = "bin/run"\ndialect = "oneshot"'
)


def test_the_machine_of_a_native_program_is_written(tmp_path, out):
    directory = kit.project(tmp_path / "p", EXEC)
    (directory / "bin").mkdir()
    shutil.copy(os.path.realpath("/bin/true"), directory / "bin" / "run")
    packed = pack(str(directory), out)
    assert manifest_of(out).runtime.abi == os.uname().machine
    assert packed.warnings == ()
    other = "aarch64" if os.uname().machine == "x86_64" else "x86_64"
    (directory / "plugin.toml").write_text(EXEC.replace("dialect", f'abi = "{other}"\ndialect', 1))
    with pytest.raises(ElfMalformed, match=f"says {other}"):
        pack(str(directory), out)


def test_a_script_is_told_that_it_needs_its_interpreter(tmp_path, out):
    directory = kit.project(tmp_path / "p", EXEC, bin__run="#!/bin/sh\n")
    with pytest.raises(ManifestMalformed, match="not executable"):
        pack(str(directory), out)
    (directory / "bin" / "run").chmod(0o755)
    assert "needs the exec permission" in pack(str(directory), out).warnings[0]
    (directory / "bin" / "run").write_text("neither")
    assert "neither an ELF program nor a script" in pack(str(directory), out).warnings[0]


def test_what_an_author_may_have_forgotten_is_told(tmp_path, out):
    text = kit.PROJECT.replace('license = "Apache-2.0"\n', "").replace(
        'reason = "reads the file to count"\n', ""
    )
    text = text.replace('output = "schemas/count.output.json"\n', "")
    warnings = " ".join(pack(str(kit.project(tmp_path / "p", text)), out).warnings)
    assert "names no license" in warnings
    assert "fs.read gives no reason" in warnings
    assert "count has no output schema" in warnings


# Failures leave nothing -----------------------------------------------------------------------------------------------------------


def test_a_file_that_changes_while_it_is_packed_is_refused_and_nothing_is_left(tmp_path, out, monkeypatch):
    directory = kit.project(tmp_path / "p")
    real = packing.write_bundle

    def slow(*arguments):
        (directory / "wordfreq.py").write_text("x = 2\n")
        return real(*arguments)

    monkeypatch.setattr(packing, "write_bundle", slow)
    with pytest.raises(SigningError, match="not what its manifest says"):
        pack(str(directory), out)
    assert os.listdir(tmp_path) == ["p"]


@pytest.mark.parametrize("swap", ["link", "fifo", "gone"])
def test_a_file_that_turns_into_something_else_is_refused_and_nothing_is_left(
    tmp_path, out, monkeypatch, swap
):
    directory = kit.project(tmp_path / "p")
    real = packing.write_bundle

    def slow(*arguments):
        path = directory / "wordfreq.py"
        path.unlink()
        if swap == "link":
            path.symlink_to("/etc/passwd")
        elif swap == "fifo":
            os.mkfifo(path)
        return real(*arguments)

    monkeypatch.setattr(packing, "write_bundle", slow)
    with pytest.raises(PluginError):
        pack(str(directory), out)
    assert os.listdir(tmp_path) == ["p"]


@pytest.mark.parametrize("target", ["missing/out.plug", "p", "a\0b", "x" * 300])
def test_a_place_that_cannot_be_written_is_refused(tmp_path, target, monkeypatch):
    directory = kit.project(tmp_path / "p")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(PackFailed, match="cannot be written"):
        pack(str(directory), target)
    assert os.listdir(tmp_path) == ["p"]


def test_an_old_bundle_survives_a_failed_packing(tmp_path, out):
    directory = kit.project(tmp_path / "p")
    pack(str(directory), out)
    before = Path(out).read_bytes()
    (directory / "id_rsa").write_text("x")
    with pytest.raises(SecretFound):
        pack(str(directory), out)
    assert Path(out).read_bytes() == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_that_cannot_be_read_is_refused(tmp_path, out):
    directory = kit.project(tmp_path / "p", secret="x")
    (directory / "secret").chmod(0)
    with pytest.raises(PackFailed, match="secret cannot be read"):
        pack(str(directory), out)


def test_tar_lists_a_bundle(tmp_path, out):
    pack(str(kit.project(tmp_path / "p")), out)
    listed = subprocess.run(["tar", "tf", out], capture_output=True, text=True, check=True, timeout=60).stdout
    assert listed.splitlines() == [
        "PLUGSEC/manifest.json",
        "schemas/count.input.json",
        "schemas/count.output.json",
        "wordfreq.py",
    ]


def test_a_broken_plugin_toml_leaves_nothing(tmp_path, out):
    with pytest.raises(ProjectMalformed):
        pack(str(kit.project(tmp_path / "p", "nonsense")), out)
    assert not os.path.exists(out)


# What travels along -----------------------------------------------------------------------------------------------------------------


def native(machine: int, *, bits: int = 2) -> bytes:
    return b"\x7fELF" + bytes((bits, 1, 1)) + bytes(11) + machine.to_bytes(2, "little") + bytes(44)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (native(243), "riscv64"),
        (native(62, bits=1), "32-bit"),
        (
            native(183 if os.uname().machine == "x86_64" else 62),
            "aarch64" if os.uname().machine == "x86_64" else "x86_64",
        ),
        (b"MZ\x90\0" + bytes(60), "Windows"),
        (b"\xcf\xfa\xed\xfe" + bytes(60), "macOS"),
    ],
)
def test_native_code_for_another_machine_is_told(tmp_path, out, content, words):
    directory = kit.project(tmp_path / "p", lib__native=content)
    (warning,) = pack(str(directory), out).warnings
    assert warning.startswith("lib/native is native code for ")
    assert words in warning


@pytest.mark.parametrize(
    "content",
    [b"MZ is how this text begins", b"\x7fELF", native(62 if os.uname().machine == "x86_64" else 183)],
)
def test_code_for_this_machine_and_text_say_nothing(tmp_path, out, content):
    assert pack(str(kit.project(tmp_path / "p", lib__native=content)), out).warnings == ()


def test_a_file_over_the_cap_is_refused_before_it_is_read(tmp_path, out):
    directory = kit.project(tmp_path / "p")
    with open(directory / "huge.bin", "wb") as file:
        os.truncate(file.fileno(), 4 * 1024**3 + 1)  # sparse: takes no disk
    with pytest.raises(PackRefused, match=r"huge\.bin is larger") as caught:
        pack(str(directory), out)
    assert 'add "huge.bin" to exclude' in caught.value.hint
    kit.project(directory, kit.PROJECT.replace('"tests/**"', '"huge.bin"'))
    pack(str(directory), out)


def test_a_name_that_ends_in_zst_gives_a_compressed_bundle(tmp_path, out):
    zstd = pytest.importorskip("backports.zstd", reason="the extra plugsec[zstd] is not installed")
    directory = str(kit.project(tmp_path / "p"))
    plain, framed = pack(directory, out), pack(directory, out + ".zst")
    assert framed.bundle_id == plain.bundle_id == verify_unsafe_unsigned(framed.path).bundle_id
    assert zstd.decompress(Path(framed.path).read_bytes()) == Path(out).read_bytes()


# Two builds, as different as two machines ---------------------------------------------------------------------------------------------

BUILD = """
import os, sys
directory, out, umask, order = sys.argv[1:]
os.umask(int(umask, 8))
real = os.scandir
class Ordered:  # the directory's order is the file system's affair: both extremes are tried
    def __init__(self, fd):
        with real(fd) as entries:
            self.entries = sorted(entries, key=lambda entry: entry.name, reverse=order == "down")
    def __enter__(self): return iter(self.entries)
    def __exit__(self, *_): pass
os.scandir = Ordered
from plugsec_plugins.pack import pack
print(pack(directory, out).bundle_id)
"""


def test_two_builds_in_two_environments_give_the_same_bytes(tmp_path):
    """What CI compares: another umask, locale, time zone, hash seed, file order, directory, clock and modes."""
    one = kit.project(
        tmp_path / "one", **{f"lib__{letter}{n}.py": f"{n}\n" * n for n in range(9) for letter in "aZ_"}
    )
    (one / "run.sh").write_text("#!/bin/sh\n")
    (one / "run.sh").chmod(0o755)
    two = tmp_path / "zwei drei" / "ü"
    for source in sorted(one.rglob("*"), reverse=True):
        if source.is_file():
            target = two / source.relative_to(one)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
            target.chmod(0o744 if source.name == "run.sh" else 0o660)
            os.utime(target, (1, 1))
    builds = []
    for directory, umask, order, environment in (
        (one, "022", "up", {"LC_ALL": "C", "TZ": "UTC", "PYTHONHASHSEED": "1"}),
        (
            two,
            "077",
            "down",
            {"LC_ALL": "tr_TR.UTF-8", "TZ": "Pacific/Kiritimati", "PYTHONHASHSEED": "2", "LANGUAGE": "tr"},
        ),
    ):
        out = str(tmp_path / f"{order}.plug")
        done = subprocess.run(
            [sys.executable, "-c", BUILD, str(directory), out, umask, order],
            env={"PYTHONPATH": os.pathsep.join(sys.path), "PATH": os.environ["PATH"], **environment},
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        builds.append((done.stdout, Path(out).read_bytes()))
    assert builds[0] == builds[1]


CONTENTS = st.dictionaries(
    st.from_regex(r"[a-zA-Z_]{1,4}(/[a-z]{1,3})?", fullmatch=True).map(lambda name: f"d/{name}x"),
    st.binary(max_size=600),
    max_size=6,
)


@given(CONTENTS, st.booleans(), st.integers(0, 0o77), st.randoms())
@settings(max_examples=40, deadline=None)
def test_any_tree_gives_the_same_bytes_in_any_order_under_any_mask(contents, swap, mask, random):
    with tempfile.TemporaryDirectory() as root:
        made = []
        for number in (0, 1):
            names = list(contents)
            random.shuffle(names)
            old = os.umask(mask if number == swap else 0o022)
            try:
                directory = kit.project(Path(root, f"p{number}"))
                try:
                    for name in names:
                        (directory / name).parent.mkdir(parents=True, exist_ok=True)
                        (directory / name).write_bytes(contents[name])
                except OSError:
                    return  # one name is another's directory: no such tree
                made.append(pack(str(directory), f"{root}/{number}.plug"))
            except PackRefused:
                made.append(None)
            except SigningError:
                made.append(None)  # names that differ in case only
            finally:
                os.umask(old)
        if None in made:
            assert made == [None, None]
        else:
            assert Path(made[0].path).read_bytes() == Path(made[1].path).read_bytes()
