"""`plugsec new`: what it makes is packed, tested and valid as it stands."""

import json
import os
import stat
import subprocess
import sys

import pytest

from plugsec_plugins.errors import ScaffoldRefused
from plugsec_plugins.manifest import parse_manifest
from plugsec_plugins.pack import pack
from plugsec_plugins.project import read_project
from plugsec_plugins.scaffold import scaffold
from plugsec_plugins.schema import compile_schema
from plugsec_policies.decision import HostSupport, Narrowing, Request, decide
from plugsec_policies.policy import Policy, builtin, load_policy
from plugsec_signing.bundle import read_manifest

KINDS = ("python", "exec")


@pytest.fixture(params=KINDS)
def made(request, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return request.param, scaffold("acme/word-freq", request.param)


def _run(*command, cwd="."):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    return subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, timeout=120, check=False, env=environment
    )


def test_a_new_plugin_lies_in_a_directory_of_its_name_with_all_it_needs(made):
    _, result = made
    assert result.directory == "word-freq"
    for path in ("plugin.toml", "example.input.json", "schemas/count.output.json"):
        assert path in result.files
    assert all(os.path.isfile(os.path.join("word-freq", path)) for path in result.files)


def test_its_tests_pass_with_unittest_and_with_pytest(made):
    _, result = made
    done = _run(sys.executable, "-m", "unittest", "discover", "-s", "tests", cwd=result.directory)
    assert done.returncode == 0, done.stderr
    assert "OK" in done.stderr
    done = _run(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", result.directory)
    assert done.returncode == 0, done.stdout


def test_it_packs_without_a_warning_and_leaves_out_its_tests(made):
    kind, result = made
    packed = pack(result.directory, "x.plug")
    assert packed.warnings == ()
    with open("x.plug", "rb") as stream:
        manifest = parse_manifest(read_manifest(stream.fileno()).envelope)
    assert manifest.runtime.kind == kind
    paths = [entry.path for entry in manifest.envelope.files]
    assert not [
        path for path in paths if path.startswith("tests/") or path in ("policy.toml", "example.input.json")
    ]


def test_its_example_is_a_valid_input_of_its_first_method(made):
    _, result = made
    method = next(iter(read_project(result.directory).methods.values()))
    with open(os.path.join(result.directory, "example.input.json"), encoding="utf-8") as stream:
        compile_schema(method.input.value).check(json.load(stream))


def test_its_permissions_are_granted_by_the_policy_it_comes_with(made):
    kind, result = made
    project = read_project(result.directory)
    policy = builtin("strict")
    if kind == "exec":
        policy = Policy.from_plain(load_policy(os.path.join(result.directory, "policy.toml")))
    request = Request(
        "sha256:0", project.name, project.version, (), project.permissions, project.limits, kind
    )
    grant = decide(request, [policy], HostSupport(), Narrowing(), 0)
    assert grant.exec == ((os.path.realpath("/bin/sh"),) if kind == "exec" else ())
    assert grant.narrowed == ()


def test_its_toml_has_the_fields_that_a_newcomer_wants_to_see(made):
    _, result = made
    with open(os.path.join(result.directory, "plugin.toml"), encoding="utf-8") as stream:
        text = stream.read()
    for field in (
        "schema",
        "name",
        "version",
        "release",
        "summary",
        "license",
        "exclude",
        "[requires]",
        "[runtime]",
        "kind",
        "entry",
        "[methods.count]",
        "input",
        "output",
        "[[permission]]",
        "reason",
        "optional",
        "[limits]",
        "wall_ms",
        "memory",
    ):
        assert f"\n{field}" in f"\n{text}", field


def test_a_program_reads_its_input_and_writes_what_its_schema_says(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    scaffold("acme/measure", "exec")
    program = os.path.join("measure", "bin", "measure")
    assert os.stat(program).st_mode & stat.S_IXUSR
    done = subprocess.run(
        [program, "count"], input=b'{"text": "a"}', capture_output=True, timeout=60, check=True
    )
    compile_schema(read_project("measure").methods["count"].output.value).check(json.loads(done.stdout))


@pytest.mark.parametrize("name", ["acme/json", "acme/class", "acme/1st", "a/b", "acme/a.b-c"])
def test_a_name_that_python_would_trip_over_still_works(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    result = scaffold(name)
    done = _run(sys.executable, "-m", "unittest", "discover", "-s", "tests", cwd=result.directory)
    assert done.returncode == 0, done.stderr
    pack(result.directory, "x.plug")


@pytest.mark.parametrize(
    ("name", "kind", "words"),
    [
        ("wordfreq", "python", "publisher/plugin"),
        ("Acme/x", "python", "publisher/plugin"),
        ("", "python", "publisher"),
        ("../x/y", "python", "publisher"),
        ("acme/x", "pyton", "did you mean python?"),
        ("acme/x", "wasm", "not supported yet"),
    ],
)
def test_a_bad_name_or_kind_is_refused_and_nothing_is_made(tmp_path, monkeypatch, name, kind, words):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ScaffoldRefused) as refused:
        scaffold(name, kind)
    assert words in f"{refused.value.message} {refused.value.hint}"
    assert refused.value.code == 2
    assert os.listdir() == []


def test_an_existing_directory_is_never_written_into(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.mkdir("x")
    with pytest.raises(ScaffoldRefused, match="File exists"):
        scaffold("acme/x")
    assert os.listdir("x") == []


def test_a_place_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(ScaffoldRefused):
        scaffold("acme/x", directory=str(tmp_path / "a" / "b"))
