"""Schemas that say more than the closed set: jsonschema-rs, with everything dangerous turned off.

Regular expressions run in the engine without backtracking and compile under a size limit; formats are
asserted and unknown ones refused; nothing is fetched. The library is imported when the first such schema
is compiled (36 ms), never before.
"""

from collections.abc import Callable
from typing import Any, NoReturn

from plugsec_plugins.errors import SchemaRefused
from plugsec_plugins.schema.small import Fault

# Compiled size of one regular expression, in bytes: `(a{1000}){1000}` ends here and not in our memory.
REGEX_BYTES_MAX = 256 * 1024
# Evaluations for one value: places in it times the schemas that may apply to each. About five seconds.
WORK_MAX = 50_000_000
# Scanning this much text costs about as much as one evaluation.
CHARACTERS_PER_STEP = 64
# The library's messages quote the value; the pointer says where it is anyway.
MESSAGE_MAX = 300


def build(schema: Any, cost: int) -> Callable[[Any], None]:  # noqa: ANN401
    """Turn a checked schema into a function that raises Fault; `cost` is what `check_schema` returned.

    Raises SchemaRefused for what only the library finds out: a bad or too large pattern, an unknown format.
    """
    import jsonschema_rs  # noqa: PLC0415

    try:
        validator = jsonschema_rs.Draft202012Validator(
            schema,
            validate_formats=True,
            ignore_unknown_formats=False,
            retriever=_fetch_nothing,
            pattern_options=jsonschema_rs.RegexOptions(
                size_limit=REGEX_BYTES_MAX, dfa_size_limit=REGEX_BYTES_MAX
            ),
        )
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as err:  # a panic of the library is a BaseException that no name is exported for
        reason = str(err).partition("\n")[0][:MESSAGE_MAX]
        raise SchemaRefused(
            f"the schema cannot be compiled: {reason}",
            "patterns have no look-around and no back-references; formats are those of 2020-12",
        ) from err

    def check(value: Any) -> None:  # noqa: ANN401
        if cost * _size(value, WORK_MAX // cost) > WORK_MAX:
            raise Fault("it is too large for a schema with so many branches")
        try:
            error = next(validator.iter_errors(value), None)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as err:  # as above; also values that JSON does not have
            raise Fault(f"it cannot be validated: {str(err)[:MESSAGE_MAX]}") from err
        if error is not None:
            fault = Fault(error.message[:MESSAGE_MAX])
            fault.path = list(reversed(error.instance_path))
            raise fault

    return check


def _fetch_nothing(uri: str) -> NoReturn:
    raise LookupError(f"{uri[:100]} is not fetched")


def _size(value: Any, most: int) -> int:  # noqa: ANN401
    """Count the places of a value and its text; stop a little above `most`."""
    size, waiting = 0, [value]
    while waiting and size <= most:
        item = waiting.pop()
        size += 1
        if isinstance(item, str):
            size += len(item) // CHARACTERS_PER_STEP
        elif isinstance(item, list):
            waiting.extend(item)
        elif isinstance(item, dict):
            waiting.extend(item.values())
            size += sum(map(len, item)) // CHARACTERS_PER_STEP
    return size
