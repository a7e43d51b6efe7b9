"""A compiled schema: give it a value, get silence or a JSON pointer to the fault."""

from collections.abc import Callable

from plugsec_plugins.errors import SchemaViolation
from plugsec_plugins.schema import small
from plugsec_plugins.schema.check import check_schema, format_pointer, is_simple
from plugsec_signing.typed import Any


class Validator:
    """Checks values against one schema; made by `compile_schema`, used as often as wanted."""

    __slots__ = ("_check",)

    def __init__(self, check: Callable[[Any], None]) -> None:
        self._check = check

    def check(self, value: Any, what: str = "the value") -> None:  # noqa: ANN401
        """Return if `value` (as JSON decodes) obeys the schema; `what` names it in the message.

        Raises SchemaViolation with `pointer`, and nothing else for any value.
        """
        try:
            self._check(value)
        except small.Fault as fault:
            pointer = format_pointer(small.path_of(fault))
            raise SchemaViolation(
                f"{what} breaks the plugin's schema at {pointer or 'its root'}: {fault.message}",
                "plugsec inspect shows the schema",
                pointer,
            ) from fault
        except RecursionError as err:
            raise SchemaViolation(f"{what} is nested too deeply to be checked", "flatten it") from err


def compile_schema(schema: Any) -> Validator:  # noqa: ANN401
    """Check a schema (`check_schema`) and make it usable. Raises SchemaRefused."""
    cost = check_schema(schema)
    if is_simple(schema):
        return Validator(small.build(schema))
    from plugsec_plugins.schema import full  # noqa: PLC0415  (36 ms, and most schemas do without)

    return Validator(full.build(schema, cost))
