"""The four error trees have one shape, and no identifier means two things (docs/adr/0002)."""

import importlib
import pkgutil
import re
from collections.abc import Iterator
from types import ModuleType

import pytest

import plugsec
import plugsec_plugins
import plugsec_policies
import plugsec_signing
from plugsec.errors import REFUSALS

CODES = {1, 2, 3, 4, 5, 6, 7, 8, 9, 70, 130}
FORM = re.compile(r"PLG-[A-Z]{2,5}-[0-9]{3}")
# Starting these is what they are for; the guest's imports belong inside the jail.
NOT_IMPORTED = re.compile(r"(\.__main__|\.sandbox\.boot|\.guest(\..*)?)$")
ROOTS = tuple(root for root in REFUSALS)


def import_everything(package: ModuleType) -> None:
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        if not NOT_IMPORTED.search(module.name):
            importlib.import_module(module.name)


def tree(root: type[BaseException]) -> Iterator[type[BaseException]]:
    yield root
    for child in root.__subclasses__():
        yield from tree(child)


@pytest.fixture(scope="module")
def classes() -> list[type[BaseException]]:
    for package in (plugsec, plugsec_plugins, plugsec_policies, plugsec_signing):
        import_everything(package)
    return [cls for root in ROOTS for cls in tree(root) if cls.__module__.startswith("plugsec")]


def test_every_refusal_has_an_identifier_and_an_exit_code(classes: list[type[BaseException]]) -> None:
    wrong = [cls for cls in classes if not FORM.fullmatch(getattr(cls, "id", "")) or cls.code not in CODES]
    assert wrong == []


def test_no_identifier_is_declared_by_two_classes(classes: list[type[BaseException]]) -> None:
    seen: dict[str, type[BaseException]] = {}
    twice = []
    for cls in classes:
        own = vars(cls).get("id")
        if own is None or cls in ROOTS:
            continue
        if seen.setdefault(own, cls) is not cls:
            twice.append((own, seen[own], cls))
    assert twice == []


@pytest.mark.parametrize("root", ROOTS, ids=lambda root: root.__name__)
def test_a_refusal_carries_message_hint_and_identifier(root: type[BaseException]) -> None:
    error = root("we tried this", "type that")
    assert (error.message, error.hint, str(error)) == ("we tried this", "type that", "we tried this")
