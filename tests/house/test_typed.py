"""The words of typed behave as those of typing, and the two rooms hold one text of them."""

import pickle
from pathlib import Path
from typing import NamedTuple

import pytest

import plugsec_policies.typed
import plugsec_signing.typed


class Ours(plugsec_signing.typed.NamedTuple):
    """A record with a default and a method."""

    name: str
    size: int
    note: str = "none"

    def doubled(self):
        return self._replace(size=2 * self.size)


class Theirs(NamedTuple):
    """The same, as typing makes it."""

    name: str
    size: int
    note: str = "none"

    def doubled(self):
        return self._replace(size=2 * self.size)


@pytest.fixture(params=[Ours, Theirs], ids=["ours", "typing's"])
def record(request):
    return request.param


def test_the_two_bottom_rooms_hold_one_text():
    texts = {Path(room.__file__).read_bytes() for room in (plugsec_policies.typed, plugsec_signing.typed)}
    assert len(texts) == 1


def test_a_record_is_a_tuple_with_names(record):
    made = record("a", 3)
    assert made == ("a", 3, "none") == record(name="a", size=3) == record("a", note="none", size=3)
    assert (made.name, made.size, made.note) == tuple(made)
    assert hash(made) == hash(("a", 3, "none"))
    assert made.doubled() == ("a", 6, "none")
    assert type(made.doubled()) is record
    assert made._asdict() == {"name": "a", "size": 3, "note": "none"}
    assert record._make(["a", 3, "b"]) == ("a", 3, "b")
    assert record._fields == record.__match_args__ == ("name", "size", "note")
    assert record._field_defaults == {"note": "none"}
    assert repr(made) == f"{record.__name__}(name='a', size=3, note='none')"
    assert pickle.loads(pickle.dumps(made)) == made


def test_a_record_is_frozen(record):
    made = record("a", 3)
    for change in (lambda: setattr(made, "name", "b"), lambda: setattr(made, "other", 1)):
        with pytest.raises(AttributeError):
            change()
    with pytest.raises(TypeError):
        made[0] = "b"


@pytest.mark.parametrize(
    ("values", "named"),
    [((), {}), (("a",), {}), (("a", 1, "n", 4), {}), (("a", 1), {"name": "b"}), (("a", 1), {"unknown": 1})],
    ids=["nothing", "one missing", "too many", "given twice", "unknown"],
)
def test_a_wrong_construction_is_a_type_error(record, values, named):
    with pytest.raises(TypeError):
        record(*values, **named)
    if len(values) == 1:
        with pytest.raises((TypeError, ValueError)):
            record._make(values)


def test_patterns_match_by_position_and_by_name(record):
    match record("a", 3):
        case record(name, 3, note=note):
            assert (name, note) == ("a", "none")
        case _:
            pytest.fail("no pattern matched")
