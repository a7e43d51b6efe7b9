"""plugin.toml: each mistake of an author is told as file:line, with a way out."""

import os

import plugins_kit as kit
import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugsec_plugins.errors import PluginError, ProjectMalformed, ProjectUnreadable
from plugsec_plugins.project import _Reader, read_project
from plugsec_policies.errors import PolicyError
from plugsec_policies.toml import parse_toml


def test_a_whole_plugin_toml_is_read(tmp_path):
    project = read_project(str(kit.project(tmp_path / "p")))
    assert (project.name, project.version, project.release) == ("acme/wordfreq", "1.2.3", 7)
    assert project.exclude == ("tests/**",)
    assert project.limits == {"wall_ms": 5000, "memory_bytes": 128 * 2**20}
    count = project.methods["count"]
    assert count.input is not None
    assert count.input.inline
    assert count.input.path == "schemas/count.input.json"
    assert count.output is not None
    assert not count.output.inline
    assert project.permissions[0].reason == "reads the file to count"


MISTAKES = [
    ('name = "acme/wordfreq"', 'name = "Acme/wordfreq"', 2, "publisher/plugin"),
    ('name = "acme/wordfreq"', "", None, "lacks name"),
    ('version = "1.2.3"', 'version = "1.2"', 3, "semantic version"),
    ("release = 7", "release = -1", 4, "whole number"),
    ("release = 7", 'release = "7"', 4, "whole number"),
    ('summary = "Counts words"', 'sumary = "Counts words"', 5, "did you mean summary?"),
    ('summary = "Counts words"', 'summary = "a\\u001bb"', 5, "control"),
    ('summary = "Counts words"', "summary = 1", 5, "text"),
    ('exclude = ["tests/**"]', 'exclude = "tests"', 7, "list"),
    ('exclude = ["tests/**"]', 'created = "today"', 7, "moment"),
    ('exclude = ["tests/**"]', "expires = 2027-01-01", 7, "text"),
    ('plugsec = ">=0.1,<1"', 'plugsec = "new"', 10, "range"),
    ('plugsec = ">=0.1,<1"', 'plugsecc = ">=0.1"', None, "did you mean plugsec?"),
    ('kind = "python"', 'kind = "pyton"', 13, "did you mean python?"),
    ('kind = "python"', 'kind = "wasm"', 12, "not supported yet"),
    ('entry = "wordfreq"', 'entry = "word freq"', 14, "Python module"),
    ('entry = "wordfreq"', 'entry = "wordfreq"\ndialect = "oneshot"', 15, "no field dialect"),
    ("[methods.count]", "[methods.2count]", 16, "method's name"),
    ("[methods.count]", "[method.count]", None, "lacks methods"),
    ('summary = "Counts the words of a text"', 'sumary = "x"', 17, "did you mean summary?"),
    ("maxLength = 1000000", "maxlength = 1000000", 18, "did you mean maxLength?"),
    ('type = "string"', 'type = "strin"', 18, "one or several of"),
    ('type = "string"', 'pattern = "(?=x)"', 18, "look-around"),
    ('type = "string"', '"$ref" = "http://example.org/s.json"', 18, "#/$defs"),
    ('type = "string"', "minimum = nan", 18, "JSON does not have"),
    ('type = "string"', "const = 2027-01-01", 18, "JSON does not have"),
    ('output = "schemas/count.output.json"', 'output = "schemas/none.json"', 19, "No such file"),
    ('output = "schemas/count.output.json"', 'output = "other.json"', 19, "under schemas/"),
    ('output = "schemas/count.output.json"', 'output = "schemas/../wordfreq.json"', 19, "under schemas/"),
    ('output = "schemas/count.output.json"', 'output = "/etc/schemas/x.json"', 19, "under schemas/"),
    ('output = "schemas/count.output.json"', "output = 5", 19, "neither a schema"),
    ('output = "schemas/count.output.json"', 'output = "schemas/bad.json"', 19, "not JSON"),
    ('output = "schemas/count.output.json"', 'output = "schemas/wrong.json"', 19, "no keyword"),
    ('name = "fs.read"', 'name = "fs.reed"', 21, "did you mean fs.read?"),
    ('paths = ["$INPUT"]', 'paths = ["input"]', 21, "neither absolute"),
    ('paths = ["$INPUT"]', 'path = ["$INPUT"]', 21, "no field path"),
    ("wall_ms = 5000", "wall = 5000", 28, "no limit called"),
    ('memory = "128M"', 'memory = "128MB"', 29, "not a size"),
    ('memory = "128M"', 'memory = "128M"\n[helth]\nmethod = "count"', None, "did you mean health?"),
    ('memory = "128M"', 'memory = "128M', 29, "not TOML"),
    ('schema = "plugsec.plugin/1"', 'schema = "plugsec.plugin/2"', 1, "newer plugsec"),
    ('schema = "plugsec.plugin/1"', 'schema = "plugin"', 1, "not one of a plugin"),
]


@pytest.mark.parametrize(
    ("old", "new", "line", "words"), MISTAKES, ids=[f"{m[1]}-{i}"[:40] for i, m in enumerate(MISTAKES)]
)
def test_a_mistake_is_told_with_its_line(tmp_path, old, new, line, words):
    assert old in kit.PROJECT
    directory = kit.project(
        tmp_path / "p",
        kit.PROJECT.replace(old, new, 1),
        schemas__bad__json="",
        **{"schemas__bad.json": "{", "schemas__wrong.json": '{"typ": 1}'},
    )
    with pytest.raises(ProjectMalformed) as refused:
        read_project(str(directory))
    told = f"{refused.value.message} {refused.value.hint}"
    assert words in told
    assert told.startswith(f"{directory}/plugin.toml" + (f":{line}: " if line else ""))
    assert refused.value.code == 4


@pytest.mark.parametrize("make", ["nothing", "empty", "fifo", "directory", "huge"])
def test_a_directory_without_a_readable_plugin_toml_is_refused(tmp_path, make):
    directory = tmp_path / "p"
    if make != "nothing":
        directory.mkdir()
    path = directory / "plugin.toml"
    if make == "fifo":
        os.mkfifo(path)
    elif make == "directory":
        path.mkdir()
    elif make == "huge":
        path.write_text("#" * 300_000)
    with pytest.raises(PluginError) as refused:
        read_project(str(directory))
    assert str(directory) in refused.value.message
    assert refused.value.code in (2, 4)


def test_a_name_with_a_nul_is_refused():
    with pytest.raises(ProjectUnreadable):
        read_project("a\0b")


_VALUES = st.sampled_from(
    ["1", '"x"', "true", "[]", "{}", "[1]", "{ a = 1 }", "nan", "2027-01-01", "-5", '""', "[[]]", '["a"]']
)
_LINES = st.sampled_from([line for line in kit.PROJECT.splitlines() if " = " in line])


@given(st.lists(st.tuples(_LINES, _VALUES), min_size=1, max_size=3))
def test_whatever_stands_in_a_field_is_read_or_refused(changes):
    text = kit.PROJECT
    for line, value in changes:
        text = text.replace(line, f"{line.partition(' = ')[0]} = {value}")
    try:
        _Reader("/nonexistent", parse_toml(text, "plugin.toml")).project()
    except (PluginError, PolicyError) as refused:
        assert refused.message.startswith("plugin.toml")
