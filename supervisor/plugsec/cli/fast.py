"""Reads a well-formed `plugsec run …` from the declaration alone.

Anything not fully understood (an unknown option, a missing value, help) is left to Typer, which has the
better words for it.
"""

from plugsec.cli.declaration import ARGUMENTS, FLAG, MANY, ONE, RUN_OPTIONS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_BY_FLAG = {option.flag: option for option in RUN_OPTIONS}
_BY_FLAG |= {option.short: option for option in RUN_OPTIONS if option.short}
_ARGUMENTS_MAX = 4096  # more tokens than a kernel's command line holds of this size


def empty() -> "dict[str, Any]":
    """Every name of the declaration with its default."""
    values: dict[str, Any] = {name: None for name, *_ in ARGUMENTS}
    for option in RUN_OPTIONS:
        values[option.name] = False if option.kind == FLAG else None if option.kind == ONE else []
    return values


def read(tokens: list[str]) -> "dict[str, Any] | None":
    """The values of `run`'s arguments and options, or None to leave it to Typer."""
    values = empty()
    positional: list[str] = []
    if len(tokens) > _ARGUMENTS_MAX:
        return None
    rest = iter(tokens)
    for token in rest:
        if not token.startswith("-"):
            positional.append(token)
            continue
        flag, equals, value = token.partition("=")
        option = _BY_FLAG.get(flag)
        if option is None or (option.kind == FLAG and equals):
            return None
        if option.kind == FLAG:
            values[option.name] = True
            continue
        if not equals:
            value = next(rest, "--")
            if value.startswith("-") and value != "-":
                return None
        if option.kind == ONE:
            values[option.name] = value
        elif option.kind == MANY or "=" in value:
            values[option.name].append(value)
        else:
            return None
    if not 1 <= len(positional) <= len(ARGUMENTS):
        return None
    values.update(zip((name for name, *_ in ARGUMENTS), positional, strict=False))
    return values
