"""The built-in policies: what is shipped is what the TOML says, and strict is as strict as promised."""

import os
import subprocess
import sys

import pytest

import plugsec_policies
from plugsec_policies import generate
from plugsec_policies.builtin_plain import PLAIN
from plugsec_policies.isolation import Isolation
from plugsec_policies.limits import Limits
from plugsec_policies.policy import BUILTINS, Policy, builtin


def test_the_generated_module_is_what_the_files_say():
    assert generate.plain_forms() == PLAIN
    with open(
        os.path.join(os.path.dirname(plugsec_policies.__file__), "builtin_plain.py"), encoding="utf-8"
    ) as stream:
        assert stream.read() == generate.render()


@pytest.mark.parametrize("name", BUILTINS)
def test_a_builtin_policy_is_complete(name):
    policy = builtin(name)
    assert isinstance(policy, Policy)
    assert policy.denies == ()


def test_strict_lets_a_plugin_read_its_input_and_write_its_output_and_nothing_else():
    (rule,) = builtin("strict").grants
    assert {name: [atom.text for atom in value.atoms] for name, value in rule.permissions.items()} == {
        "fs.read": ["$INPUT"],
        "fs.write": ["$OUTPUT"],
    }
    assert rule.plugins == ("*",)


def test_strict_has_the_published_isolation_and_limits():
    strict = builtin("strict")
    assert strict.isolation == Isolation(
        frozenset(
            {
                "user-namespace",
                "mount-namespace",
                "pid-namespace",
                "network-namespace",
                "landlock",
                "seccomp",
                "no-new-privs",
                "capabilities",
                "rlimits",
            }
        ),
        frozenset({"cgroup", "denial-report"}),
    )
    assert strict.limits == Limits(
        wall_ms=30000,
        cpu_ms=20000,
        memory_bytes=512 * 2**20,
        processes=32,
        open_files=256,
        output_bytes=8 * 2**20,
        tmp_bytes=64 * 2**20,
        file_bytes=64 * 2**20,
        files=1000,
        denials=1000,
    )


@pytest.mark.parametrize("name", BUILTINS)
def test_no_builtin_policy_opens_the_network_or_the_hosts_files(name):
    for rule in builtin(name).grants:
        assert "net" not in rule.permissions
        assert "exec" not in rule.permissions
        paths = (
            [atom.text for key in ("fs.read", "fs.write") for atom in rule.permissions[key].atoms]
            if "fs.read" in rule.permissions
            else []
        )
        assert all(path.startswith("$") for path in paths)


def test_the_default_policy_is_made_without_reading_toml():
    code = (
        "import sys; from plugsec_policies.policy import builtin; import plugsec_policies.decision;"
        "builtin('strict');"
        "print(sorted({'tomllib', 'dataclasses', 'pathlib', 'datetime', 'difflib', 'subprocess', 'tempfile',"
        "'inspect', 'urllib', 'logging', 'ipaddress', 'plugsec_policies.hosts'} & set(sys.modules)))"
    )
    room = os.path.dirname(os.path.dirname(os.path.abspath(plugsec_policies.__file__)))
    done = subprocess.run(
        [sys.executable, "-I", "-c", f"import sys; sys.path.insert(0, {room!r}); {code}"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout.strip() == "[]"
