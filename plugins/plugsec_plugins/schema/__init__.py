"""JSON Schema 2020-12: what a method's input and output must look like.

    check_schema(schema)                 a stranger's schema is well-formed and cheap to use
    compile_schema(schema).check(value)  a value obeys it, or SchemaViolation with a JSON pointer

Two validators share the work. Schemas of the closed keyword set (`check.SIMPLE`), which most plugins use, go
to a small one of our own that costs no import; all others to jsonschema-rs. On the closed set both must
agree (tests/plugins/test_schema_agreement.py).
"""

from plugsec_plugins.schema.check import check_schema, is_simple
from plugsec_plugins.schema.validator import Validator, compile_schema

__all__ = ["Validator", "check_schema", "compile_schema", "is_simple"]
