"""The demo runs to its end; every step of it checks its own exit code."""


def test_the_demo_shows_everything(cli) -> None:
    ended = cli("demo", "shown")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    for words in ("plugsec verify wordfreq-1.2.3.plug", "PLG-LIM-105", "PLG-LIM-101", "PLG-LIM-104", "PLG-LIM-103",
                  "PLG-BND-012", "was changed", "denied: socket AF_INET"):  # fmt: skip
        assert words in ended.stdout
    assert "\x1b]0;" not in ended.stdout
