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


CODES = {
    "JsonError": 4, "PathError": 4, "EnvelopeError": 4, "BundleError": 4, "BundleUnreadable": 2,
    "SignatureRefused": 3, "AttestationRefused": 3, "KeyRefused": 3, "KeyFileError": 4, "KeyFileUnreadable": 2,
    "AgentError": 2, "TrustRefused": 3, "AttestationMissing": 3, "TrustStoreError": 4, "NoSuchKey": 2,
    "TrustMemoryError": 4, "TrustMemoryUnwritable": 9, "NotRemembered": 2, "StoreError": 4, "StoreUnusable": 2,
    "NotInstalled": 2, "DestinationRefused": 2, "OciError": 4, "RevocationError": 4, "RevocationRefused": 3,
    "RevocationUsage": 2, "InterchangeError": 4, "RootError": 4, "RootRefused": 3, "RootUsage": 2,
}  # fmt: skip


def test_every_class_has_the_exit_code_of_the_command_line_and_a_next_step():
    assert {each.__name__: each.code for each in _subclasses(errors.SigningError)} == CODES
    assert all(each.__doc__ for each in _subclasses(errors.SigningError))


def test_only_our_errors_are_raised_on_purpose():
    """`raise ValueError` and the like must not reach a caller; the exceptions are named here."""
    trees = [(name, ast.parse(text)) for name, text in _source()]
    ours = {"RuntimeError", "AttributeError", "SigningError", *CODES}
    ours |= {
        node.name
        for _, tree in trees
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef)
        and node.returns is not None
        and set(ast.unparse(node.returns).split(" | ")) <= ours
    }  # functions that make one of ours, for others to raise
    raised = {
        (name, ast.unparse(node.exc.func))
        for name, tree in trees
        for node in ast.walk(tree)
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call)
    }
    # `record` is a constructor, `refuse` makes one of ours; the others are caught one frame up at most.
    odd = {(file, kind) for file, kind in raised if kind.rpartition(".")[2] not in ours}
    assert odd == {
        ("allowed_signers.py", "ValueError"),
        ("detached.py", "refuse"),
        ("index.py", "ValueError"),
        ("typed.py", "TypeError"),
        ("tree.py", "OSError"),
        ("trust.py", "ValueError"),
    }


def test_hostile_text_in_a_message_is_short_and_one_printable_line():
    for text in ("x" * 10_000, "a\nb\x1b[31m", "\u202e", "\ud800", b"\xff" * 500, 10**50):
        shown = errors.excerpt(text)
        assert len(shown) <= 80
        assert shown.isprintable()
