"""Every refusal has a stable identifier with one meaning, listed in one place."""

import ast
import os
import re

import plugsec_signing
from plugsec_signing import errors
from plugsec_signing.error_ids import IDS

SOURCE = os.path.dirname(plugsec_signing.__file__)


def _source():
    for directory in (SOURCE, os.path.join(SOURCE, "store")):
        for name in sorted(os.listdir(directory)):
            if name.endswith(".py") and name != "error_ids.py":
                with open(os.path.join(directory, name), encoding="utf-8") as file:
                    yield name, file.read()


def test_the_list_of_identifiers_and_the_code_agree():
    used = {found for _, text in _source() for found in re.findall(r"PLG-[A-Z]{3}-\d{3}", text)}
    assert used - {"PLG-GEN-000"} == set(IDS)


def test_identifiers_are_numbered_without_gaps():
    families: dict[str, list[int]] = {}
    for error_id in IDS:
        family, number = error_id.rsplit("-", 1)
        families.setdefault(family, []).append(int(number))
    for family, numbers in families.items():
        assert numbers == list(range(1, len(numbers) + 1)), family


def _subclasses(kind):
    for each in kind.__subclasses__():
        yield each
        yield from _subclasses(each)


def test_every_class_has_the_exit_code_of_the_command_line_and_a_next_step():
    codes = {each.__name__: each.code for each in _subclasses(errors.SigningError)}
    assert codes == {
        "JsonError": 4, "PathError": 4, "EnvelopeError": 4, "BundleError": 4, "BundleUnreadable": 2,
        "SignatureRefused": 3, "KeyRefused": 3, "KeyFileError": 4, "KeyFileUnreadable": 2, "TrustRefused": 3,
        "AgentError": 2, "TrustStoreError": 4, "NoSuchKey": 2, "StoreError": 4, "StoreUnusable": 2,
        "NotInstalled": 2, "DestinationRefused": 2, "OciError": 4,
    }  # fmt: skip
    assert all(each.__doc__ for each in _subclasses(errors.SigningError))


def test_only_our_errors_are_raised_on_purpose():
    """`raise ValueError` and the like must not reach a caller; the exceptions are named here."""
    allowed = {"RuntimeError", "AttributeError"} | {
        each.__name__ for each in _subclasses(errors.SigningError)
    }
    raised = set()
    for name, text in _source():
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
                function = node.exc.func
                raised.add((name, function.id if isinstance(function, ast.Name) else ast.unparse(function)))
    odd = {(file, kind) for file, kind in raised if kind not in allowed}
    # `_refused_algorithm`, `_truncated` and the like build ours; the ValueError of the plain form and of the
    # store's index, and the OSError of a tree that is too deep, are caught one frame up.
    assert odd == {
        ("bundle.py", "_truncated"),
        ("keys.py", "_refused_algorithm"),
        ("tree.py", "OSError"),
        *((file, "cannot_write") for file in ("changes.py", "tree.py")),
        *((file, "damaged") for file in ("stored.py", "tree.py")),
        *((file, "unusable") for file in ("changes.py", "directories.py", "stored.py", "sweep.py")),
        *((file, "refused") for file in ("destination.py", "oci.py", "unpack.py")),
        ("index.py", "_damaged"),
        ("index.py", "ValueError"),
        ("trust.py", "ValueError"),
        ("trust.py", "max"),
    }


def test_hostile_text_in_a_message_is_short_and_one_printable_line():
    for text in ("x" * 10_000, "a\nb\x1b[31m", "\u202e", "\ud800", b"\xff" * 500, 10**50):
        shown = errors.excerpt(text)
        assert len(shown) <= 80
        assert shown.isprintable()
