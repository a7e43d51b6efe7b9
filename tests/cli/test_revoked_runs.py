"""Revocation, OpenSSH's files and the trust root, as an operator meets them: stories with wrong turns."""

import json
import os
import pwd
import shutil
import subprocess
import sys

import pytest

CODE = "from plugsec_plugins.guest import plugin\n@plugin.method\ndef go(n=1):\n    return n + 1\n"


@pytest.fixture
def ssh_keygen(home):
    """The stock program, in the home's directory."""
    path = shutil.which("ssh-keygen")
    if path is None:
        pytest.skip("ssh-keygen is not installed")
    try:
        pwd.getpwuid(os.geteuid())
    except KeyError:  # a container's arbitrary uid
        pytest.skip("ssh-keygen refuses users who are not in the password file")

    def run(*arguments, code=0):
        done = subprocess.run([path, *arguments], cwd=home.root, capture_output=True, text=True, check=False)
        assert done.returncode == code, done.stdout + done.stderr

    return run


@pytest.fixture
def bundle(home):
    return home.bundle({"main.py": CODE})


@pytest.fixture
def trust(home):
    return home.home / "config" / "trust.d"


class Story:
    """Commands that must end with a code; `json` gives what they say."""

    def __init__(self, cli):
        self.cli = cli

    def __call__(self, *arguments, code=0):
        done = self.cli(*map(str, arguments))
        assert done.returncode == code, (arguments, done.stdout, done.stderr)
        return done

    def json(self, *arguments, code=0):
        return json.loads(self(*arguments, "--json", code=code).stdout)

    def refused(self, *arguments, code):
        """The id of a refusal."""
        return self.json(*arguments, code=code)["error"]["id"]


@pytest.fixture
def plugsec(cli):
    return Story(cli)


def key(plugsec, name, role="revocation"):
    plugsec("keygen", name, "--no-passphrase")
    if role:
        plugsec("trust", "add", f"{name}.pub", "--publisher", "acme", "--role", role, "--id", name)


def events(home):
    found = []
    for path in sorted((home.home / "state" / "audit").rglob("*.jsonl")):
        found += [json.loads(line) for line in path.read_text().splitlines()]
    return [each for each in found if each.get("event") == "revocation.changed"]


def test_a_key_is_stolen_at_three_in_the_morning(plugsec, home, bundle):
    assert plugsec("run", bundle, "--quiet").stdout == "2\n"
    plugsec("install", bundle)
    key(plugsec, "watch", role=None)
    # Wrong turns: no key, one that may not, a name with a slip, no word of how.
    assert plugsec.refused("trust", "revoke", "release", "--compromised", code=2) == "PLG-USE-001"
    assert (
        plugsec.refused("trust", "revoke", "release", "--compromised", "--key", "watch", code=3)
        == "PLG-REV-004"
    )
    assert (
        plugsec.refused("trust", "revoke", "relaese", "--compromised", "--key", "watch", code=2)
        == "PLG-REV-009"
    )
    assert plugsec.refused("trust", "revoke", "release", "--key", "watch", code=2) == "PLG-USE-001"
    assert plugsec("run", bundle, "--quiet").stdout == "2\n"
    plugsec("trust", "add", "watch.pub", "--publisher", "acme", "--role", "revocation", "--id", "watch")
    done = plugsec("trust", "revoke", "release", "--compromised", "--key", "watch")
    assert done.stdout.startswith(
        "release is compromised: no signature of it counts, not even of old bundles\n"
    )
    for arguments in (("run", bundle), ("run", "acme/test"), ("verify", bundle), ("install", bundle)):
        assert plugsec.refused(*arguments, code=3) == "PLG-TRU-008"
    (change,) = events(home)
    assert (change["detail"]["revoked"], change["detail"]["sequence"]) == ("release", 1)
    assert "release  acme (release)  acme/*  COMPROMISED" in plugsec("trust", "list").stdout
    # It was a false alarm.
    plugsec("trust", "revoke", "release", "--undo", "--key", "watch")
    assert plugsec("run", bundle, "--quiet").stdout == "2\n"
    assert [each["detail"]["sequence"] for each in events(home)] == [1, 2]


def test_a_key_that_was_superseded_keeps_what_was_accepted_and_gets_nothing_new(plugsec, home, bundle):
    plugsec("run", bundle, "--quiet")
    key(plugsec, "watch")
    plugsec("trust", "revoke", "release", "--superseded", "--key", "watch")
    assert plugsec("run", bundle, "--quiet").stdout == "2\n"
    later = home.bundle({"main.py": CODE}, name="acme/test", release=2)
    assert plugsec.refused("run", later, code=3) == "PLG-TRU-009"


def test_a_key_that_was_compromised_since_a_moment_keeps_what_was_accepted_before(plugsec, home, bundle):
    plugsec("run", bundle, "--quiet")
    key(plugsec, "watch")
    plugsec("trust", "revoke", "release", "--compromised", "--since", "2100-01-01", "--key", "watch")
    assert plugsec("run", bundle, "--quiet").stdout == "2\n"
    assert plugsec.refused("run", home.bundle({"main.py": CODE + "\n"}), code=3) == "PLG-TRU-008"


def test_one_bundle_and_old_releases_are_withdrawn(plugsec, home, bundle):
    key(plugsec, "watch")
    bundle_id = plugsec.json("verify", bundle)["bundle_id"]
    plugsec("trust", "revoke", bundle_id, "--key", "watch")
    assert plugsec.refused("run", bundle, code=3) == "PLG-TRU-010"
    plugsec("trust", "revoke", bundle_id, "--undo", "--key", "watch")
    plugsec("trust", "revoke", "acme/test", "--min-release", "2", "--key", "watch")
    assert plugsec.refused("run", bundle, code=3) == "PLG-TRU-011"
    plugsec("run", home.bundle({"main.py": CODE}, name="acme/test", release=2), "--quiet")
    assert plugsec.refused(
        "trust", "revoke", "acme/test", "--min-release", "1", "--key", "watch", code=2
    ) == ("PLG-REV-009")
    shown = plugsec.json("trust", "revocations")
    assert shown["revocations"]["min_release"] == {"acme/test": 2}
    assert shown["revocations"]["sequence"] == 3


WRONG = [
    (("release", "--compromised", "--superseded"), "PLG-USE-001"),
    (("release", "--min-release", "2"), "PLG-USE-001"),
    (("acme/test", "--compromised"), "PLG-USE-001"),
    (("sha256:" + "0" * 64, "--compromised"), "PLG-USE-001"),
    (("sha256:" + "0" * 63,), "PLG-REV-009"),
    (("SHA256:" + "A" * 42, "--compromised"), "PLG-REV-009"),
    (("Acme/Test", "--min-release", "2"), "PLG-REV-009"),
    (("acme/test", "--min-release", "0"), "PLG-USE-001"),
    (("acme/test", "--min-release", str(2**63)), "PLG-USE-001"),
    (("acme/test", "--min-release", "2", "--since", "2026-01-01"), "PLG-USE-001"),
    (("release", "--compromised", "--since", "yesterday"), "PLG-USE-001"),
    (("release", "--compromised", "--next-update", "0"), "PLG-REV-009"),
    (("release", "--undo"), "PLG-REV-009"),
    (("missing.pub", "--compromised"), "PLG-REV-009"),
    (("release", "--compromised", "--out", "nowhere/list.json"), "PLG-USE-001"),
]


def test_what_makes_no_sense_is_refused_and_changes_nothing(plugsec, trust):
    key(plugsec, "watch")
    for arguments, error_id in WRONG:
        assert plugsec.refused("trust", "revoke", *arguments, "--key", "watch", code=2) == error_id, arguments
    assert not (trust / "revocations.json").exists()


def test_a_key_is_named_by_its_fingerprint_or_its_public_file(plugsec, home):
    key(plugsec, "watch")
    listed = {each["id"]: each["fingerprint"] for each in plugsec.json("trust", "list")["keys"]}
    public = f"{home.key}.pub"
    for name in (listed["release"], public):
        plugsec("trust", "revoke", name, "--compromised", "--key", "watch")
        (found,) = plugsec.json("trust", "revocations")["revocations"]["keys"]
        assert (found["key_id"], found["fingerprint"]) == ("release", listed["release"])
        plugsec("trust", "revoke", name, "--undo", "--key", "watch")


def test_an_older_list_or_none_is_a_rollback(plugsec, trust, bundle):
    key(plugsec, "watch")
    plugsec("trust", "publish", "--key", "watch")
    plugsec("trust", "export", "revocations", "--out", "first.json")
    plugsec("trust", "revoke", "release", "--compromised", "--key", "watch")
    assert plugsec.refused("trust", "import", "first.json", code=3) == "PLG-REV-005"
    first = plugsec.cli.directory / "first.json"
    for suffix in ("", ".sshsig"):
        shutil.copy(f"{first}{suffix}", f"{trust}/revocations.json{suffix}")
    assert plugsec.refused("run", bundle, code=3) == "PLG-REV-005"
    for suffix in ("", ".sshsig"):
        os.unlink(f"{trust}/revocations.json{suffix}")
    for arguments in (("run", bundle), ("verify", bundle), ("install", bundle), ("trust", "revocations")):
        assert plugsec.refused(*arguments, code=3) == "PLG-REV-007"
    assert "[PLG-REV-007]" in plugsec("trust", "list").stderr
    assert plugsec.refused("trust", "publish", "--key", "watch", code=3) == "PLG-REV-007"


def test_another_trust_store_has_lists_of_its_own(plugsec, trust, bundle):
    key(plugsec, "watch")
    other = plugsec.cli.directory / "other"
    shutil.copytree(trust, other)
    plugsec("trust", "publish", "--key", "watch")
    assert plugsec("run", bundle, "--trust", other, "--quiet").stdout == "2\n"


PROBE = """
import os, sys
leave = os._exit
def tell(code):
    print(*sorted(sys.modules), sep="\\n", file=sys.stderr, flush=True)
    leave(code)
os._exit = tell
sys.argv = ["plugsec", *sys.argv[1:]]
from plugsec.__main__ import main
main()
"""


def test_a_list_whose_signature_was_verified_before_costs_a_run_no_cryptography(plugsec, bundle):
    for lists in (False, True):
        if lists:
            key(plugsec, "watch")
            plugsec("trust", "publish", "--key", "watch")
        plugsec("run", bundle, "--quiet")  # fills the caches
        ended = subprocess.run(
            [sys.executable, "-c", PROBE, "run", bundle, "--quiet"],
            env=plugsec.cli.environment, capture_output=True, text=True, timeout=60, check=True,
        )  # fmt: skip
        loaded = set(ended.stderr.split())
        assert ended.stdout == "2\n"
        assert ("plugsec_signing.revocation" in loaded) == lists
        assert not loaded & {
            "cryptography",
            "tomllib",
            "plugsec_signing.revocation_edit",
            "plugsec_signing.root",
        }


def test_a_stale_list_is_warned_of_and_a_policy_can_refuse_it(plugsec, home, trust, bundle):
    key(plugsec, "watch")
    policy = home.root / "site.toml"
    policy.write_text(
        'schema = "plugsec.policy/1"\nextends = ["builtin:strict"]\nrequire_current_revocations = true\n'
    )
    assert "require_current_revocations = true" in plugsec("policy", "show", policy).stdout
    assert plugsec.refused("run", bundle, "--policy", policy, code=1) == "PLG-POL-014"
    plugsec("trust", "publish", "--key", "watch", "--next-update", "1")
    assert plugsec("run", bundle, "--policy", policy, "--quiet").stdout == "2\n"
    make_stale(plugsec, home)
    assert "the revocation list 2 is stale" in plugsec("run", bundle).stderr
    assert any("is stale" in warning for warning in plugsec.json("verify", bundle)["warnings"])
    assert plugsec.refused("run", bundle, "--policy", policy, code=1) == "PLG-POL-014"
    assert "STALE" in plugsec("trust", "revocations").stdout
    plugsec("trust", "publish", "--key", "watch")
    assert plugsec("run", bundle, "--policy", policy, "--quiet").stdout == "2\n"


def make_stale(plugsec, home):
    """Sign a list that was due long ago, as its publisher's was when nobody renewed it."""
    from plugsec_signing import canonical, keys, revocation, sshsig

    private = keys.load_private_key(str(home.root / "watch"))
    data = canonical.encode({
        "schema": revocation.SCHEMA, "sequence": 2, "next_update": 1_700_000_000, "keys": {}, "bundles": [],
        "min_release": {},
    })  # fmt: skip
    (home.root / "stale.json").write_bytes(data)
    (home.root / "stale.json.sshsig").write_bytes(sshsig.sign(private, data, revocation.NAMESPACE))
    plugsec("trust", "import", "stale.json")


# OpenSSH's files.


def test_an_allowed_signers_file_goes_round(plugsec, home, trust, bundle):
    exported = plugsec("trust", "export", "allowed-signers")
    (home.root / "allowed").write_text(exported.stdout)
    plugsec("trust", "remove", "release")
    assert plugsec.refused("run", bundle, code=3) == "PLG-TRU-002"
    assert plugsec.json("trust", "import", "allowed")["added"] == ["release"]
    assert plugsec("run", bundle, "--quiet").stdout == "2\n"
    again = plugsec.json("trust", "import", "allowed")
    assert (again["added"], again["already_there"]) == ([], 1)


def test_an_allowed_signers_file_is_taken_whole_or_not_at_all(plugsec, home, trust):
    public = (home.root / "keys" / "release.pub").read_text().split()
    plugsec("trust", "remove", "release")
    line = " ".join(public[:2])
    (home.root / "allowed").write_text(f"acme {line}\nglobex cert-authority {line}\n")
    assert plugsec.refused("trust", "import", "allowed", code=4) == "PLG-ALS-002"
    (home.root / "allowed").write_text(f"anna@acme.example {line}\n")
    assert plugsec.refused("trust", "import", "allowed", code=4) == "PLG-ALS-003"
    assert plugsec.json("trust", "list")["keys"] == []
    plugsec("trust", "import", "allowed", "--publisher", "acme")
    assert (
        plugsec.refused("trust", "import", "allowed", "--publisher", "acme", "--key", "x", code=2)
        == "PLG-USE-001"
    )
    (key,) = plugsec.json("trust", "list")["keys"]
    assert (key["publisher"], key["role"]) == ("acme", "release")


def test_krls_go_both_ways(plugsec, home, bundle, ssh_keygen):
    key(plugsec, "watch")
    ssh_keygen("-k", "-f", "theirs.krl", "keys/release.pub")
    assert plugsec.refused("trust", "import", "theirs.krl", code=2) == "PLG-USE-001"  # who signs?
    done = plugsec("trust", "import", "theirs.krl", "--key", "watch")
    assert done.stdout.startswith("1 key of the KRL revoked")
    assert plugsec.refused("run", bundle, code=3) == "PLG-TRU-008"
    plugsec("trust", "export", "krl", "--out", "ours.krl")
    ssh_keygen("-Q", "-f", "ours.krl", "keys/release.pub", code=1)
    ssh_keygen("-Q", "-f", "ours.krl", "watch.pub")
    assert plugsec("trust", "export", "allowed-signers").stdout.count("\n") == 1  # watch, and not release
    (home.root / "cut.krl").write_bytes((home.root / "theirs.krl").read_bytes()[:-1])
    assert plugsec.refused("trust", "import", "cut.krl", "--key", "watch", code=4) == "PLG-KRL-001"


def test_a_list_is_signed_by_stock_ssh_keygen(plugsec, bundle, ssh_keygen):
    key(plugsec, "watch")
    plugsec("trust", "revoke", "release", "--compromised", "--key", "keys/release", "--out", "list.json")
    assert plugsec.refused("trust", "import", "list.json", code=3) == "PLG-REV-004"
    ssh_keygen("-Y", "sign", "-f", "watch", "-n", "plugsec-revocation@v1", "list.json")
    plugsec("trust", "sign", "list.json", "--signature", "list.json.sig")
    plugsec("trust", "import", "list.json")
    assert plugsec.refused("run", bundle, code=3) == "PLG-TRU-008"


def test_what_is_none_of_the_known_files_is_refused(plugsec, home):
    for name, data, code in (
        ("empty", b"", 4), ("json", b"{}", 4), ("krl", b"SSHKRL\n\0", 4), ("binary", bytes(range(256)), 4),
    ):  # fmt: skip
        (home.root / name).write_bytes(data)
        arguments = ("--key", "watch") if name == "krl" else ()
        plugsec("trust", "import", name, *arguments, "--json", code=code)
    plugsec("trust", "import", "missing", code=2)
    plugsec("trust", "export", "everything", code=2)
    plugsec("trust", "export", "revocations", "--out", "x", code=2)


# The root.

ROOT = """
version = {version}
[thresholds]
root = 2
{keys}
"""


def draft(home, version, entries):
    tables = "\n".join(
        f'[[key]]\nid = "{name}"\nssh = "{(home.root / f"{file}.pub").read_text().strip()}"\n'
        f'publisher = "acme"\nrole = "{role}"'
        for name, file, role in entries
    )
    (home.root / f"root.{version}.toml").write_text(ROOT.format(version=version, keys=tables))


def test_an_organisation_hands_out_its_keys_and_changes_them(plugsec, home, bundle):
    for name in ("one", "two", "three"):
        key(plugsec, name, role=None)
    plugsec("trust", "remove", "release")
    roots = [("root-1", "one", "root"), ("root-2", "two", "root")]
    draft(home, 1, [*roots, ("acme-release", "keys/release", "release")])
    plugsec("trust", "root", "make", "root.1.toml", "--out", "root.1.json")
    digest = plugsec.json("trust", "root", "make", "root.1.toml", "--out", "root.1.json")["root"]["digest"]
    plugsec("trust", "sign", "root.1.json", "--key", "one")
    init = ("trust", "root", "init", "root.1.json", "--digest")
    assert plugsec.refused(*init, digest, code=3) == "PLG-ROT-004"  # one of two
    plugsec("trust", "sign", "root.1.json", "--key", "two")
    assert plugsec.refused(*init, "0" * 64, code=3) == "PLG-ROT-004"
    assert plugsec.refused("trust", "rotate", "root.1.json", code=2) == "PLG-ROT-006"
    plugsec(*init, digest)
    assert plugsec("run", bundle, "--quiet").stdout == "2\n"
    assert plugsec.refused("trust", "remove", "acme-release", code=3) == "PLG-ROT-007"

    # Version 2 replaces a signer and takes the release key away.
    draft(home, 2, [("root-2", "two", "root"), ("root-3", "three", "root")])
    plugsec("trust", "root", "make", "root.2.toml", "--out", "root.2.json")
    for signer, error_id in (("two", "PLG-ROT-003"), ("three", "PLG-ROT-003")):
        plugsec("trust", "sign", "root.2.json", "--key", signer)
        assert plugsec.refused("trust", "rotate", "root.2.json", code=3) == error_id
    assert plugsec("run", bundle, "--quiet").stdout == "2\n"
    plugsec("trust", "sign", "root.2.json", "--key", "one")
    plugsec("trust", "rotate", "root.2.json")
    assert plugsec.json("trust", "root", "show")["root"]["version"] == 2
    assert plugsec.refused("run", bundle, code=3) == "PLG-TRU-002"
    assert plugsec.refused("trust", "rotate", "root.1.json", code=3) == "PLG-ROT-005"


def test_without_a_root_there_is_none_to_show(plugsec):
    assert plugsec.refused("trust", "root", "show", code=2) == "PLG-ROT-006"
