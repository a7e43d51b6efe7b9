"""Values against the plugin's own JSON Schemas, on the way in and on the way out."""

from plugsec_plugins.errors import SchemaRefused
from plugsec_plugins.schema.validator import compile_schema
from plugsec_signing.canonical import decode
from plugsec_signing.errors import SigningError
from plugsec_signing.typed import Any


def check(schema_bytes: bytes, value: Any, what: str) -> None:  # noqa: ANN401
    """Return if `value` obeys the schema in a payload file.

    Raises SchemaViolation (exit 5) with a JSON pointer, or SchemaRefused (exit 4) when the schema itself
    is unusable.
    """
    try:
        schema = decode(schema_bytes)
    except SigningError as error:
        raise SchemaRefused(
            f"the plugin's schema for its {what} is not usable JSON: {error.message}",
            "ask the publisher for a corrected release",
        ) from error
    compile_schema(schema).check(value, f"the {what}")
