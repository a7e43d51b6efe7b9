"""Where things are kept, and what a damaged or foreign cache or state does: nothing."""

import json
import os

import pytest

from plugsec import cache, places
from plugsec.errors import UsageError


def test_home_gathers_everything_under_one_directory() -> None:
    found = places.resolve("/h", environment={})
    assert found == places.Places(
        "/h/config", "/h/data", "/h/state", "/h/cache", "/h/config/trust.d", "/h/state/audit"
    )
    assert places.resolve(environment={"PLUGSEC_HOME": "/h"}) == found


def test_the_xdg_specification_decides_otherwise() -> None:
    found = places.resolve(environment={"HOME": "/u", "XDG_STATE_HOME": "/s", "XDG_CACHE_HOME": "relative"})
    assert found.config == "/u/.config/plugsec"
    assert found.state == "/s/plugsec"
    assert found.cache == "/u/.cache/plugsec"  # relative paths are invalid there and ignored
    assert places.resolve(environment={"HOME": "/u"}, trust="/t", audit="/a")[4:] == ("/t", "/a")


def test_without_home_the_password_file_decides_or_a_refusal() -> None:
    try:
        found = places.resolve(environment={})
    except UsageError as refusal:
        assert "--home" in refusal.hint
    else:
        assert os.path.isabs(found.state)


def test_a_newer_state_directory_is_refused_and_left_alone(tmp_path) -> None:
    state = tmp_path / "state"
    places.prepare_state(str(state))
    assert (state / "format").read_text() == "1\n"
    for text in ("2\n", "x", "-1"):
        (state / "format").write_text(text)
        with pytest.raises(places.StateNewer) as refusal:
            places.prepare_state(str(state))
        assert refusal.value.code == 4
        assert (state / "format").read_text() == text


def test_a_cache_entry_is_used_only_for_the_same_text_and_when_whole(tmp_path) -> None:
    calls = []

    def parse(text: str) -> dict[str, str]:
        calls.append(text)
        return {"text": text}

    cached = cache.by_text(str(tmp_path), "kind", parse)
    assert cached("a") == cached("a") == {"text": "a"}
    assert cached("b") == {"text": "b"}
    assert calls == ["a", "b"]
    for entry in (tmp_path / "kind").iterdir():
        entry.write_text("{")
    assert cached("a") == {"text": "a"}
    assert calls == ["a", "b", "a"]


def test_an_entry_that_others_could_write_is_not_used(tmp_path) -> None:
    cached = cache.by_text(str(tmp_path), "kind", lambda text: {"honest": text})
    cached("a")
    (entry,) = (tmp_path / "kind").iterdir()
    entry.write_text(json.dumps({"forged": True}))
    entry.chmod(0o666)
    assert cached("a") == {"honest": "a"}
    entry.unlink()
    entry.symlink_to(tmp_path / "elsewhere")
    assert cached("a") == {"honest": "a"}


def test_a_policy_is_read_again_when_any_of_its_files_changes(home) -> None:
    bundle = home.bundle(
        {"main.py": "from plugsec_plugins.guest import plugin\n@plugin.method\ndef go(): return 1\n"}
    )
    policy = home.policy("[limits]\nwall_ms = 20000\n")
    assert home.run(bundle, policy).code == 0
    with open(policy, "a") as file:
        file.write('[[grnat]]\nid = "x"\n')
    assert home.run(bundle, policy).code == 4
