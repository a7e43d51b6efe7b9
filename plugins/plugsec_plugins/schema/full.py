"""Schemas that say more than the closed set: jsonschema-rs, with everything dangerous turned off.

Regular expressions run in the engine without backtracking and compile under a size limit; formats are
asserted and unknown ones refused; nothing is fetched. The library is imported when the first such schema
is compiled (36 ms), never before.

While the library works nobody can interrupt it. So what it may do is bounded before it begins: the places
of the value times the schemas that may apply to one, and the bytes of its text times the compiled sizes of
the patterns that one text may meet. A value that would cost more is refused.
"""

from collections.abc import Callable
from typing import Any, NoReturn

from plugsec_plugins.errors import SchemaRefused
from plugsec_plugins.schema import patterns
from plugsec_plugins.schema.check import scan
from plugsec_plugins.schema.small import Fault

# Evaluations for one value: places in it times the schemas that may apply to each. About five seconds.
WORK_MAX = 50_000_000
# Bytes of text times KiB of compiled patterns. The worst patterns found (word boundaries among letters
# beyond ASCII, which no automaton of the engine takes) cost 270 ns for each; ordinary ones a hundredth.
# About five seconds, and a megabyte of e-mail addresses against HTML's pattern (18 KiB) is below it.
SCAN_MAX = 18_500_000
# Scanning this much text costs about as much as one evaluation.
CHARACTERS_PER_STEP = 64
# The library's messages quote the value; the pointer says where it is anyway.
MESSAGE_MAX = 300


def build(schema: Any, cost: int) -> Callable[[Any], None]:  # noqa: ANN401
    """Turn a checked schema into a function that raises Fault; `cost` is what `check_schema` returned.

    Raises SchemaRefused for what only the library finds out: a bad or too large pattern, an unknown format.
    """
    import jsonschema_rs  # noqa: PLC0415

    if cost > WORK_MAX:
        raise SchemaRefused(
            "the schema cannot be compiled: it would cost too much to check any value with it",
            "branch less, and do not nest unevaluatedProperties or unevaluatedItems",
        )
    try:
        validator = jsonschema_rs.Draft202012Validator(
            schema,
            validate_formats=True,
            ignore_unknown_formats=False,
            retriever=_fetch_nothing,
            pattern_options=patterns.options(patterns.REGEX_BYTES_MAX),
        )
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as err:  # a panic of the library is a BaseException that no name is exported for
        reason = str(err).partition("\n")[0][:MESSAGE_MAX]
        raise SchemaRefused(
            f"the schema cannot be compiled: {reason}",
            "patterns have no look-around and no back-references, and count to some hundreds only (use "
            "maxLength); formats are those of 2020-12",
        ) from err
    text = scan(schema, patterns.weigh)
    # The verdict, and then the fault: for it the library looks twice at what fails, and goes through each
    # alternative again for every list that it is in.
    retrace = 1 + 2 * (1 + text.branches)

    def check(value: Any) -> None:  # noqa: ANN401
        work, scanned = _measure(value, cost, text.weight)
        if work > WORK_MAX:
            raise Fault("it is too large for a schema with so many branches")
        if scanned > SCAN_MAX:
            raise Fault(
                f"it has too much text for the patterns of the schema, which take {text.weight} KiB: "
                f"more than {SCAN_MAX // text.weight} bytes"
            )
        try:
            if validator.is_valid(value):
                return
            if max(work * retrace / WORK_MAX, scanned * retrace / SCAN_MAX) > 1:
                raise Fault("it breaks the schema, and is too large to find out where")
            error = next(validator.iter_errors(value), None)
        except (KeyboardInterrupt, SystemExit, Fault):
            raise
        except BaseException as err:  # as above; also values that JSON does not have
            raise Fault(f"it cannot be validated: {str(err)[:MESSAGE_MAX]}") from err
        if error is None:
            raise Fault("it breaks the schema")
        fault = Fault(error.message[:MESSAGE_MAX])
        fault.path = list(reversed(error.instance_path))
        raise fault

    return check


def _fetch_nothing(uri: str) -> NoReturn:
    raise LookupError(f"{uri[:100]} is not fetched")


def _measure(value: Any, cost: int, weight: int) -> tuple[int, int]:  # noqa: ANN401
    """Return the evaluations that a value causes and the bytes scanned; stop a little above either bound."""
    size, text, waiting = 0, 0, [value]
    while waiting and size * cost <= WORK_MAX and text * weight <= SCAN_MAX:
        item = waiting.pop()
        size += 1
        if isinstance(item, str):
            length = _bytes(item)
            size += length // CHARACTERS_PER_STEP
            text += length
        elif isinstance(item, list):
            waiting.extend(item)
        elif isinstance(item, dict):
            waiting.extend(item.values())
            length = sum(map(_bytes, item))
            size += length // CHARACTERS_PER_STEP
            text += length
    return size * cost, text * weight


def _bytes(text: Any) -> int:  # noqa: ANN401
    if not isinstance(text, str):
        return 1  # the name of a member that JSON does not have; the library refuses it
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
