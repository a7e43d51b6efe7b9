"""A policy can demand that what was revoked lately is known: neither no list nor a stale one will do."""

import os

import pytest

from plugsec_policies.decision import HostSupport, Narrowing, Request, decide
from plugsec_policies.errors import PolicyMalformed, RevocationsDemanded
from plugsec_policies.policy import Policy, digest_of, load_policy, parse_policy_toml

HEAD = 'schema = "plugsec.policy/1"\n'
DEMAND = "require_current_revocations = true"


def policy(text: str, where: str = "site.toml") -> Policy:
    return Policy.from_plain(parse_policy_toml(HEAD + text, where=where))


def decided(revocations: str, *policies: Policy):
    name = "acme/wordfreq"
    asked = Request("sha256:" + "0" * 64, name, "1.2.3", ("release",), (), {}, "python", (), revocations)
    return decide(asked, policies, HostSupport(), Narrowing(), 1_800_000_000)


@pytest.mark.parametrize("found", ["none", "stale", "current"])
def test_a_policy_that_says_nothing_takes_any_list_or_none(found):
    assert decided(found, policy(""), policy("require_current_revocations = false")).name == "acme/wordfreq"


def test_a_current_list_satisfies_the_demand():
    assert decided("current", policy(DEMAND)).name == "acme/wordfreq"


@pytest.mark.parametrize(("found", "words"), [("none", "there is no"), ("stale", "is stale")])
def test_none_or_a_stale_one_is_refused_with_the_policy_that_demands_it(found, words):
    with pytest.raises(RevocationsDemanded, match=rf"{words}.*site\.toml demands") as caught:
        decided(found, policy("", where="other.toml"), policy(DEMAND))
    assert (caught.value.id, caught.value.code) == ("PLG-POL-014", 1)


def test_what_a_base_demands_stays_demanded(tmp_path):
    (tmp_path / "base.toml").write_text(HEAD + DEMAND)
    (tmp_path / "team.toml").write_text(
        f'{HEAD}extends = ["base.toml"]\nrequire_current_revocations = false\n'
    )
    plain = load_policy(os.path.join(tmp_path, "team.toml"))
    assert Policy.from_plain(plain).require_current_revocations


def test_a_policy_that_does_not_demand_it_keeps_its_digest():
    plain = parse_policy_toml(HEAD, where="x")
    assert "require_current_revocations" not in plain
    assert digest_of(parse_policy_toml(HEAD + DEMAND, where="x")) != digest_of(plain)


@pytest.mark.parametrize("value", ['"yes"', "1", "[]"])
def test_what_is_neither_true_nor_false_is_refused_with_its_line(value):
    with pytest.raises(PolicyMalformed) as caught:
        policy(f"require_current_revocations = {value}")
    assert caught.value.problems[0].where == "site.toml:2"
