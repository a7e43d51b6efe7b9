"""A policy can demand attestations by predicate type: nothing else in it makes up for a missing one."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugsec_policies.decision import HostSupport, Narrowing, Request, decide
from plugsec_policies.errors import AttestationDemanded, PolicyMalformed
from plugsec_policies.policy import Policy, digest_of, load_policy, parse_policy_toml

REVIEW, SLSA = "https://example.org/review/v1", "https://slsa.dev/provenance/v1"
HEAD = 'schema = "plugsec.policy/1"\n'


def policy(text: str) -> Policy:
    return Policy.from_plain(parse_policy_toml(HEAD + text, where="site.toml"))


def request(*attestations: str) -> Request:
    return Request(
        "sha256:" + "0" * 64, "acme/wordfreq", "1.2.3", ("release",), (), {}, "python", attestations
    )


def decided(asked: Request, *policies: Policy):
    return decide(asked, policies, HostSupport(), Narrowing(), 1_800_000_000)


def test_a_demanded_attestation_that_is_there_lets_the_plugin_run():
    demanding = policy(f'require_attestations = ["{REVIEW}"]')
    assert decided(request(REVIEW, SLSA), demanding).name == "acme/wordfreq"


def test_a_missing_one_is_refused_with_the_policy_that_demands_it():
    demanding = policy(f'require_attestations = ["{REVIEW}", "{SLSA}"]')
    with pytest.raises(AttestationDemanded, match=r"provenance.*site\.toml demands") as caught:
        decided(request(REVIEW), demanding)
    assert (caught.value.id, caught.value.code) == ("PLG-POL-013", 1)


def test_what_a_base_demands_stays_demanded(tmp_path):
    (tmp_path / "base.toml").write_text(f'{HEAD}require_attestations = ["{REVIEW}"]\n')
    (tmp_path / "team.toml").write_text(f'{HEAD}extends = ["base.toml"]\nrequire_attestations = ["{SLSA}"]\n')
    plain = load_policy(os.path.join(tmp_path, "team.toml"))
    assert plain["require_attestations"] == [REVIEW, SLSA]


def test_a_policy_that_demands_none_keeps_its_digest():
    plain = parse_policy_toml(HEAD, where="x")
    assert "require_attestations" not in plain
    assert digest_of({**plain, "require_attestations": [REVIEW]}) != digest_of(plain)


@pytest.mark.parametrize(
    "value", ['"x"', '["good"]', '["x:\\u001b"]', "[1]", f'["x:{"y" * 300}"]', str(["x:y"] * 17)]
)
def test_what_is_no_list_of_types_is_refused_with_its_line(value):
    with pytest.raises(PolicyMalformed) as caught:
        policy(f"require_attestations = {value}".replace("'", '"'))
    assert caught.value.problems[0].where == "site.toml:2"


KINDS = st.sets(st.sampled_from([REVIEW, SLSA, "urn:a", "urn:b"]))


@given(st.lists(KINDS, min_size=1, max_size=3), KINDS)
def test_every_policys_demands_count_and_nothing_else_does(demands, attested):
    policies = [policy(f"require_attestations = {sorted(each)}".replace("'", '"')) for each in demands]
    try:
        decided(request(*sorted(attested)), *policies)
    except AttestationDemanded:
        assert not set().union(*demands) <= attested
    else:
        assert set().union(*demands) <= attested
