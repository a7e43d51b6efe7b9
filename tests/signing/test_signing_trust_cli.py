"""Rules, memory and explanations as people and scripts use them, each command in a process of its own."""

import json
import os
import shlex
import time

import pytest
import signing_kit as kit
from test_signing_cli import Shell

from plugsec_signing import keys, memory, trust_edit
from plugsec_signing.errors import NoSuchKey, TrustStoreError
from plugsec_signing.times import format_time
from plugsec_signing.trust import judge, load_trust

ACME, STRANGER = (keys.fingerprint(each.public) for each in (kit.ACME, kit.STRANGER))
LINE, REVIEW_LINE, STRANGER_LINE = (
    keys.public_line(each.public) for each in (kit.ACME, kit.REVIEW, kit.STRANGER)
)
BUNDLE = "wordfreq-1.2.3.plug"


@pytest.fixture
def shell(tmp_path):
    return Shell(tmp_path)


@pytest.fixture
def trusting(shell):
    """A shell that trusts acme, with a bundle signed by acme and by a stranger."""
    shell.write(BUNDLE, kit.pack(signers=(kit.ACME, kit.STRANGER)))
    shell.run("trust", "add", LINE, "--publisher", "acme", "--id", "rel")
    return shell


RULE = ("--plugins", "acme/*", "--threshold", "2", "--role", "release", "--role", "security")


def test_a_rule_is_added_listed_enforced_and_removed_and_each_change_is_recorded(trusting):
    added = trusting.json("trust", "rule", "add", *RULE, "--id", "two")
    assert added["rule"] == {
        "rule": "two", "plugins": ["acme/*"], "threshold": 2, "roles": ["release", "security"],
    }  # fmt: skip
    assert added["keys_there"] == 1
    listed = trusting.json("trust", "rule", "list")
    assert listed["rules"] == [added["rule"]] == trusting.json("trust", "list")["rules"]
    assert trusting.json("verify", BUNDLE, code=3)["error"]["id"] == "PLG-TRU-012"
    trusting.run("trust", "add", STRANGER_LINE, "--publisher", "acme", "--role", "security", "--id", "sec")
    assert trusting.json("verify", BUNDLE)["code"] == 0
    trusting.run("trust", "remove", "sec")
    trusting.json("trust", "rule", "remove", "two")
    assert trusting.json("verify", BUNDLE)["code"] == 0
    told = [
        (e["decision"], e["detail"].get("rule")) for e in trusting.events() if e["event"] == "trust.changed"
    ]
    assert told == [("added", None), ("added", "two"), ("added", None), ("removed", None), ("removed", "two")]


def test_a_rule_that_nothing_can_satisfy_yet_says_so(trusting):
    assert "nothing can satisfy this rule yet" in trusting.run("trust", "rule", "add", *RULE).stderr
    assert "2 distinct keys of release or security" in trusting.run("trust", "rule", "list").stdout


BAD = [
    (("--plugins", "*", "--threshold", "2"), 4, "PLG-TST-002"),
    (("--plugins", "acme/*", "--threshold", "0"), 4, "PLG-TST-002"),
    (("--plugins", "acme/*", "--threshold", "17"), 4, "PLG-TST-002"),
    (("--plugins", "acme/*", "--threshold", "2", "--role", "Release"), 4, "PLG-TST-002"),
    (("--plugins", "acme/*", "--threshold", "2", "--id", "../x"), 4, "PLG-TST-002"),
    (("--plugins", "acme/*", "--threshold", "2", "--id", "rel"), 4, "PLG-TST-004"),
]


@pytest.mark.parametrize(("arguments", "code", "error_id"), BAD, ids=[" ".join(each[0]) for each in BAD])
def test_a_bad_rule_is_refused_and_the_store_stays_as_it_was(arguments, code, error_id, trusting):
    before = trusting.json("trust", "list")["trust_digest"]
    assert trusting.json("trust", "rule", "add", *arguments, code=code)["error"]["id"] == error_id
    assert trusting.json("trust", "list")["trust_digest"] == before


def test_removing_a_rule_that_is_not_there_says_which_there_are(trusting):
    trusting.run("trust", "rule", "add", *RULE, "--id", "two")
    error = trusting.json("trust", "rule", "remove", "three", code=2)["error"]
    assert error["id"] == "PLG-TST-011"
    assert "two" in error["hint"]


# The store's files, edited gently.


def write_store(directory, text):
    directory.mkdir(mode=0o700, exist_ok=True)
    path = directory / "hand.toml"
    path.write_text(text)
    path.chmod(0o600)
    return path


RULE_TEXT = '[[rule]]\nid = "two"\nplugins = ["acme/*"]\nthreshold = 2\n'


def test_removing_the_only_key_of_a_file_keeps_its_rules(tmp_path):
    path = write_store(tmp_path / "trust.d", "# ours\n" + kit.trust_text(id="a") + RULE_TEXT)
    trust_edit.remove_key(str(tmp_path / "trust.d"), "a")
    assert path.read_text() == "# ours\n" + RULE_TEXT
    assert [rule.id for rule in load_trust(str(tmp_path / "trust.d")).rules] == ["two"]


def test_removing_a_key_keeps_the_rule_that_follows_it(tmp_path):
    text = kit.trust_text(id="a") + RULE_TEXT + kit.trust_text(kit.REVIEW, id="b")
    path = write_store(tmp_path / "trust.d", text)
    trust_edit.remove_key(str(tmp_path / "trust.d"), "a")
    assert path.read_text() == RULE_TEXT + kit.trust_text(kit.REVIEW, id="b")


def test_removing_a_rule_keeps_the_keys_around_it(tmp_path):
    text = kit.trust_text(id="a") + RULE_TEXT + kit.trust_text(kit.REVIEW, id="b")
    path = write_store(tmp_path / "trust.d", text)
    trust_edit.remove_rule(str(tmp_path / "trust.d"), "two")
    assert path.read_text() == kit.trust_text(id="a") + kit.trust_text(kit.REVIEW, id="b")


def test_a_rule_that_cannot_be_cut_safely_is_left_to_its_owner(tmp_path):
    text = 'rule = [{id = "two", plugins = ["acme/*"], threshold = 2}]\n' + kit.trust_text(id="a")
    path = write_store(tmp_path / "trust.d", text)
    with pytest.raises(TrustStoreError) as caught:
        trust_edit.remove_rule(str(tmp_path / "trust.d"), "two")
    assert caught.value.id == "PLG-TST-009"
    assert path.read_text() == text


def test_a_rule_without_a_name_cannot_be_removed_by_an_empty_one(tmp_path):
    write_store(tmp_path / "trust.d", '[[rule]]\nplugins = ["acme/*"]\nthreshold = 2\n')
    with pytest.raises(NoSuchKey) as caught:
        trust_edit.remove_rule(str(tmp_path / "trust.d"), "")
    assert "one without an id" in caught.value.hint


# verify --explain.


def test_an_acceptance_is_explained(trusting):
    why = trusting.json("verify", BUNDLE, "--explain")["explain"]
    assert (why["accepted"], why["refusal"], why["released_by"]) == (True, None, ["rel"])
    by_key = {signature["fingerprint"]: signature for signature in why["signatures"]}
    (entry,) = by_key[ACME]["entries"]
    assert (entry["key_id"], entry["counted"], entry["reason"]) == ("rel", True, "counted")
    assert (by_key[STRANGER]["counted"], by_key[STRANGER]["entries"]) == (False, [])
    assert STRANGER_LINE in by_key[STRANGER]["next"]
    assert why["memory"]["first_accepted"] is None
    assert why["revocation"] is None
    shown = trusting.run("verify", BUNDLE, "--explain").stdout
    assert "+ rel (release): the key rel is trusted for acme/wordfreq" in shown
    assert "trust: accepted" in shown


def test_a_refusal_is_explained_and_still_a_refusal(trusting):
    trusting.run("trust", "rule", "add", *RULE, "--id", "two")
    told = trusting.json("verify", BUNDLE, "--explain", code=3)
    assert (told["outcome"], told["error"]["id"]) == ("refused", "PLG-TRU-012")
    assert told["explain"]["refusal"]["id"] == "PLG-TRU-012"
    (rule,) = told["explain"]["rules"]
    assert (rule["id"], rule["keys"], rule["holds"], rule["counted"]) == ("two", 1, False, ["rel"])
    done = trusting.run("verify", BUNDLE, "--explain", code=3)
    assert "trust: REFUSED [PLG-TRU-012]" in done.stdout
    assert "- the rule two wants 2 distinct keys" in done.stdout
    assert "PLG-TRU-012" in done.stderr and "next:" in done.stderr


def test_the_line_that_is_offered_does_what_it_says(shell):
    shell.write(BUNDLE, kit.pack(signers=(kit.ACME,)))
    (signature,) = shell.json("verify", BUNDLE, "--explain", code=3)["explain"]["signatures"]
    line = signature["next"].partition("   #")[0]
    assert line.startswith("plugsec trust add ")
    shell.run(*shlex.split(line)[1:])
    shell.run("verify", BUNDLE)


@pytest.mark.parametrize(
    ("data", "code"),
    [(b"x" * 5000, 4), (kit.pack().replace(b'"release":7', b'"release":8'), 3), (None, 2)],
    ids=["no bundle", "a bad signature", "no file"],
)
def test_what_never_came_to_a_verdict_is_refused_as_always(data, code, shell):
    if data is not None:
        shell.write(BUNDLE, data)
    assert "explain" not in shell.json("verify", BUNDLE, "--explain", code=code)


def test_a_trusted_bundle_with_a_changed_payload_is_explained_and_refused_for_the_payload(trusting):
    trusting.write(BUNDLE, kit.pack().replace(b"print(1)", b"print(2)"))
    told = trusting.json("verify", BUNDLE, "--explain", code=4)
    assert told["error"]["id"] == "PLG-BND-012"
    assert told["explain"]["accepted"] is True


# Memory.


def accept(shell, *, now=kit.NOW, **fields):
    """Have this home remember a bundle with these fields in place of the other's, and name its release."""
    path = memory.path_in(str(shell.directory / "home" / "state"))
    os.makedirs(shell.directory / "home" / "state", mode=0o700, exist_ok=True)
    candidate = kit.CANDIDATE._replace(**fields)
    memory.remember(path, judge(kit.store(), candidate, [ACME], now, allow_downgrade=True))
    return path


def test_verify_heeds_what_was_accepted_and_remembers_nothing_itself(trusting):
    path = accept(trusting, release=8)
    with open(path, "rb") as file:
        before = file.read()
    error = trusting.json("verify", BUNDLE, code=3)["error"]
    assert error["id"] == "PLG-TRU-013"
    assert "--allow-downgrade" in error["hint"]
    assert trusting.json("verify", BUNDLE, "--allow-downgrade")["downgrade"] is True
    told = trusting.json("verify", BUNDLE, "--explain", code=3)["explain"]["memory"]
    assert (told["highest_release"], told["downgrade"], told["downgrade_allowed"]) == (8, True, False)
    with open(path, "rb") as file:
        assert file.read() == before


def test_the_memory_is_shown_and_forgotten_and_that_is_recorded(trusting):
    accept(trusting, release=7)
    (plugin,) = trusting.json("trust", "memory")["plugins"]
    assert (plugin["plugin"], plugin["highest_release"]) == ("acme/wordfreq", 7)
    assert plugin["bundles"][0]["first_accepted"] == "2027-01-15T08:00:00Z"
    assert "highest release 7" in trusting.run("trust", "memory", "acme/wordfreq").stdout
    assert trusting.json("trust", "memory", "acme/other")["plugins"] == []
    assert trusting.json("verify", BUNDLE, code=3)["error"]["id"] == "PLG-TRU-014"
    forgotten = trusting.json("trust", "forget", "acme/wordfreq")
    assert trusting.events()[forgotten["audit"]["seq"]]["decision"] == "forgotten"
    assert trusting.json("verify", BUNDLE)["code"] == 0
    assert trusting.json("trust", "forget", "acme/wordfreq", code=2)["error"]["id"] == "PLG-MEM-008"
    trusting.json("trust", "forget", code=2)
    trusting.json("trust", "forget", "acme/wordfreq", "--all", code=2)


def test_a_damaged_memory_refuses_until_it_is_set_aside(trusting):
    path = accept(trusting, release=7)
    with open(path, "ab") as file:
        file.write(b"\n")
    for command in (("verify", BUNDLE), ("trust", "memory"), ("trust", "forget", "acme/wordfreq")):
        error = trusting.json(*command, code=4)["error"]
        assert error["id"] == "PLG-MEM-002"
        assert "trust forget --all" in error["hint"]
    aside = trusting.json("trust", "forget", "--all")["set_aside"]
    assert os.path.exists(aside)
    trusting.run("verify", BUNDLE)


def test_a_clock_behind_the_memory_is_a_warning(trusting):
    tomorrow = int(time.time()) + 86400
    accept(trusting, name="acme/other", release=1, now=tomorrow)
    told = trusting.json("verify", BUNDLE, "--explain")
    assert any(format_time(tomorrow) in warning for warning in told["warnings"])
    assert told["explain"]["memory"]["clock"] in told["warnings"]


@pytest.mark.parametrize(
    "command",
    [("trust", "rule", "add"), ("trust", "rule", "list"), ("trust", "rule", "remove"), ("trust", "memory"),
     ("trust", "forget")],
)  # fmt: skip
def test_help_of_each_command_has_examples(command, shell):
    shown = shell.run(*command, "--help").stdout
    assert "Examples:" in shown
    assert f"plugsec {' '.join(command)}" in shown


def test_a_json_answer_is_one_object(trusting):
    done = trusting.run("verify", BUNDLE, "--explain", "--json")
    assert isinstance(json.loads(done.stdout), dict)
