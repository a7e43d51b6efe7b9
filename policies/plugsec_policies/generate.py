"""Writes `builtin_plain.py` from `builtin/*.toml`: `python -m plugsec_policies.generate`.

Run it after editing a built-in policy; a test fails until it has been. The generated module spares every run
of the default policy the 20 ms that importing tomllib costs.
"""

import os
import pprint
from typing import Any

from plugsec_policies.policy import BUILTIN_PREFIX, BUILTINS, parse_policy_toml

_HERE = os.path.dirname(os.path.abspath(__file__))
_HEAD = '''"""Built-in policies, plain; written by `python -m plugsec_policies.generate`; do not edit."""

from plugsec_policies.typed import Any

PLAIN: dict[str, dict[str, Any]] = '''


def plain_forms() -> dict[str, dict[str, Any]]:
    """Parse the built-in policies' TOML."""
    forms = {}
    for name in BUILTINS:
        with open(os.path.join(_HERE, "builtin", f"{name}.toml"), encoding="utf-8") as stream:
            forms[name] = parse_policy_toml(stream.read(), where=BUILTIN_PREFIX + name)
    return forms


def render() -> str:
    """Return the text of the generated module."""
    text = pprint.pformat(plain_forms(), width=108, sort_dicts=True).replace("'", '"')
    return f"# ruff: noqa\n{_HEAD}{text}\n"


def main() -> None:
    """Write the generated module."""
    with open(os.path.join(_HERE, "builtin_plain.py"), "w", encoding="utf-8") as stream:
        stream.write(render())


if __name__ == "__main__":
    main()
