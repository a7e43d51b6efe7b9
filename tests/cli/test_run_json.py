"""`plugsec run --json` is a promise: these fields, these words, these exit codes."""

import json
from collections.abc import Callable, Mapping
from typing import Any

import pytest

SDK = "from plugsec_plugins.guest import plugin\n@plugin.method\n"
ECHO = SDK + "def go(**value):\n    return value\n"
FIELDS = {
    "outcome", "code", "result", "error", "bundle_id", "plugin", "method", "run_id", "layers", "usage",
    "denials", "limit", "audit", "outputs",
}  # fmt: skip
USAGE = {"wall_ms", "cpu_ms", "memory_peak_bytes", "processes_peak", "output_bytes"}


def run_json(cli: Any, *arguments: str, **more: Any) -> tuple[int, dict[str, Any]]:
    ended = cli("run", *arguments, "--json", **more)
    assert ended.stdout.count("\n") == 1, ended.stdout
    value = json.loads(ended.stdout)
    assert value.keys() == FIELDS or value["outcome"] == "refused"
    assert value["code"] == ended.returncode
    return ended.returncode, value


def test_a_good_run_has_every_field(cli, home) -> None:
    code, value = run_json(cli, home.bundle({"main.py": ECHO}), "--param", "n=3", "--param", "s=three")
    assert code == 0
    assert value.keys() == FIELDS
    assert value["outcome"] == "ok"
    assert value["result"] == {"n": 3, "s": "three"}
    assert value["error"] is None
    assert value["limit"] is None
    assert value["plugin"] == "acme/test"
    assert value["method"] == "go"
    assert value["bundle_id"].startswith("sha256:")
    assert len(value["run_id"]) == 16
    assert value["usage"].keys() == USAGE
    assert value["layers"].keys() == {"active", "degraded"}
    assert {"seccomp", "landlock", "user-namespace", "no-new-privs"} <= set(value["layers"]["active"])
    assert isinstance(value["audit"]["seq"], int)


def test_a_denial_names_layer_call_detail_count_and_source(cli, home) -> None:
    code = (
        SDK
        + "def go():\n    import socket\n    for _ in range(3):\n        try: socket.socket()\n        except OSError: pass\n"
    )
    _, value = run_json(cli, home.bundle({"main.py": code}))
    assert value["denials"] == [
        {"layer": "seccomp", "call": "socket", "detail": "AF_INET", "count": 3, "source": "kernel"}
    ]


def test_a_limit_is_named_with_its_value(cli, home) -> None:
    code = SDK + "def go():\n    while True: pass\n"
    status, value = run_json(cli, home.bundle({"main.py": code}), "--limit", "wall_ms=300")
    assert (status, value["outcome"], value["limit"]) == (7, "limit", {"name": "wall", "value": 300})


SCHEMA = '{"type": "object", "required": ["text"], "properties": {"text": {"type": "string"}}}'
TEXT_ONLY = {"go": {"summary": "", "input": "schemas/in.json"}}
NUMBER_OUT = {"go": {"summary": "", "output": "schemas/out.json"}}
NETWORK = [{"name": "net", "hosts": ["api.acme.com:443"], "reason": "calls home"}]
READ_ETC = [{"name": "fs.read", "paths": ["/etc/hostname"], "reason": "reads the name"}]

Case = tuple[int, str, str, Callable[[Any], tuple[str, ...]]]
CASES: dict[str, Case] = {
    "a permission that strict does not grant": (
        1, "refused", "PLG-POL-01", lambda home: (home.bundle({"main.py": ECHO}, permissions=READ_ETC),)),
    "a permission that is not supported yet": (
        1, "refused", "PLG-POL-01", lambda home: (home.bundle({"main.py": ECHO}, permissions=NETWORK),)),
    "a method that is not there": (
        2, "error", "PLG-USE-001", lambda home: (home.bundle({"main.py": ECHO}), "stop")),
    "a bundle that is not there": (2, "error", "PLG-BND-", lambda home: (str(home.root / "no.plug"),)),
    "an unsigned bundle": (
        3, "refused", "PLG-TRU-001", lambda home: (home.bundle({"main.py": ECHO}, signed=False),)),
    "another publisher's name": (
        3, "refused", "PLG-TRU-", lambda home: (home.bundle({"main.py": ECHO}, name="other/test"),)),
    "input that is not JSON": (
        4, "invalid", "PLG-IO-001", lambda home: (home.bundle({"main.py": ECHO}), "--input", written(home, "{"))),
    "input that breaks the schema": (
        5, "invalid", "PLG-SCH-002", lambda home: (
            home.bundle({"main.py": ECHO, "schemas/in.json": SCHEMA}, methods=TEXT_ONLY), "--param", "text=3")),
    "output that breaks the schema": (
        5, "invalid", "PLG-SCH-002", lambda home: (
            home.bundle({"main.py": ECHO, "schemas/out.json": '{"type": "number"}'}, methods=NUMBER_OUT),)),
    "an exception": (
        6, "failed", "PLG-RUN-001", lambda home: (home.bundle({"main.py": SDK + "def go():\n    1 / 0\n"}),)),
    "a plugin that leaves in the middle": (
        6, "failed", "PLG-RUN-001", lambda home: (
            home.bundle({"main.py": SDK + "def go():\n    import os\n    os._exit(0)\n"}),)),
    "a syntax error": (6, "failed", "PLG-RUN-001", lambda home: (home.bundle({"main.py": "def"}),)),
    "a method that the code does not offer": (
        6, "failed", "PLG-RUN-001", lambda home: (home.bundle({"main.py": "x = 1\n"}),)),
}  # fmt: skip


def written(home: Any, text: str) -> str:
    path = home.root / "input.json"
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize("case", CASES)
def test_every_bad_run_has_its_code_word_and_id(cli, home, case) -> None:
    code, word, identifier, arguments = CASES[case]
    status, value = run_json(cli, *arguments(home))
    assert (status, value["outcome"]) == (code, word), value
    assert value["error"]["id"].startswith(identifier)
    assert value["error"]["message"]
    assert value["result"] is None


def test_a_malformed_bundle_is_code_4(cli, home) -> None:
    path = home.root / "broken.plug"
    path.write_bytes(b"PK\x03\x04" + bytes(2000))
    status, value = run_json(cli, str(path))
    assert (status, value["outcome"]) == (4, "refused")


def test_a_malformed_policy_is_code_4_and_names_the_line(cli, home) -> None:
    policy = home.policy('[[grnat]]\nid = "x"\n')
    status, value = run_json(cli, home.bundle({"main.py": ECHO}), "--policy", policy)
    assert status == 4
    assert "grnat" in value["error"]["message"]


def test_a_log_that_was_changed_is_code_9_and_nothing_runs(cli, home) -> None:
    bundle = home.bundle({"main.py": ECHO})
    assert run_json(cli, bundle)[0] == 0
    segment = next((home.home / "state" / "audit").glob("segment-*.jsonl"))
    segment.write_bytes(segment.read_bytes()[:-40])
    status, value = run_json(cli, bundle)
    assert status == 9
    assert value["error"]["id"].startswith("PLG-AUD-")


def test_a_refusal_is_recorded(cli, home) -> None:
    _, value = run_json(cli, home.bundle({"main.py": ECHO}, signed=False))
    shown: Mapping[str, Any] = json.loads(cli("audit", "show", "--json").stdout)
    last = shown["records"][-1]
    assert last["event"] == "bundle.refused"
    assert last["seq"] == value["audit"]["seq"]
