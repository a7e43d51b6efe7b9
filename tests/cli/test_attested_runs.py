"""A run under a policy that demands attestations, and runs of compressed bundles, from file and store."""

import json

import pytest

REVIEW = "https://example.org/review/v1"
CODE = "from plugsec_plugins.guest import plugin\n@plugin.method\ndef go(n=1):\n    return n + 1\n"


@pytest.fixture
def bundle(home):
    return home.bundle({"main.py": CODE})


def attest(cli, home, bundle, key=None):
    (home.root / "review.json").write_text('{"verdict": "good"}')
    done = cli(
        "attest", bundle, "--predicate", "review.json", "--type", REVIEW, "--key", str(key or home.key)
    )
    assert done.returncode == 0, done.stderr


def test_a_policy_that_demands_a_review_is_content_only_with_one(cli, home, bundle):
    policy = home.root / "site.toml"
    policy.write_text(
        f'schema = "plugsec.policy/1"\nextends = ["builtin:strict"]\nrequire_attestations = ["{REVIEW}"]\n'
    )
    refused = cli("run", bundle, "--policy", str(policy), "--json")
    assert (refused.returncode, json.loads(refused.stdout)["error"]["id"]) == (1, "PLG-POL-013")
    cli("keygen", "stranger", "--no-passphrase")
    attest(cli, home, bundle, home.root / "stranger")
    assert cli("run", bundle, "--policy", str(policy)).returncode == 1
    attest(cli, home, bundle)
    for _ in range(2):  # the second time what was verified before is known
        assert cli("run", bundle, "--policy", str(policy), "--quiet").stdout == "2\n"
    shown = cli("policy", "show", str(policy)).stdout
    assert f'require_attestations = ["{REVIEW}"]' in shown


def test_an_installed_bundle_keeps_its_attestations(cli, home, bundle):
    policy = home.root / "site.toml"
    policy.write_text(
        f'schema = "plugsec.policy/1"\nextends = ["builtin:strict"]\nrequire_attestations = ["{REVIEW}"]\n'
    )
    attest(cli, home, bundle)
    assert cli("install", bundle).returncode == 0
    done = cli("run", "acme/test", "--policy", str(policy), "--quiet")
    assert (done.returncode, done.stdout) == (0, "2\n"), done.stderr


def test_an_unsigned_run_has_no_attestation_that_counts(cli, home):
    bundle = home.bundle({"main.py": CODE}, signed=False)
    policy = home.root / "site.toml"
    policy.write_text(
        f'schema = "plugsec.policy/1"\nextends = ["builtin:strict"]\nrequire_attestations = ["{REVIEW}"]\n'
    )
    attest(cli, home, bundle)
    done = cli("run", bundle, "--unsafe-unsigned", "--policy", str(policy), "--json")
    assert json.loads(done.stdout)["error"]["id"] == "PLG-POL-013"


def test_a_compressed_bundle_is_verified_run_and_installed_like_the_one_inside(cli, home, bundle):
    zstd = pytest.importorskip("backports.zstd", reason="the extra plugsec[zstd] is not installed")
    with open(bundle, "rb") as file:
        framed = home.root / "test-1.0.0.plug.zst"
        framed.write_bytes(zstd.compress(file.read()))
    plain, inside = (json.loads(cli("verify", path, "--json").stdout) for path in (bundle, str(framed)))
    assert inside["bundle_id"] == plain["bundle_id"]
    assert inside["warnings"] == []
    assert cli("run", str(framed), "--quiet").stdout == "2\n"
    assert cli("install", str(framed)).returncode == 0
    assert cli("run", "acme/test", "--quiet").stdout == "2\n"
    framed.write_bytes(framed.read_bytes() + b"x")
    refused = json.loads(cli("run", str(framed), "--json").stdout)
    assert (refused["code"], refused["error"]["id"]) == (4, "PLG-BND-019")
