"""The words of `typing` that the hot path is written in, without loading or running `typing`.

Importing `typing` takes a run 3 ms, `typing.NamedTuple` compiles a constructor for each class, some 70 µs,
and a run loads ninety of them; a `Protocol` takes 0.3 ms to make. Type checkers see `typing`'s own. At run
time the annotations' words are placeholders, protocols are plain classes, and a record is a tuple with a
metaclass of thirty lines: constructor, defaults, `_make`, `_replace`, `_asdict` and pattern matching are
the same. The two bottom rooms do not know each other, so each holds this file; a test holds the two equal
(docs/adr/0008-typing-without-its-price.md).
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, BinaryIO, NamedTuple, NoReturn, Protocol, Self
else:
    from operator import itemgetter

    Any = BinaryIO = NoReturn = Self = object  # annotations are looked up, never asked
    Protocol = object  # a real one takes 0.3 ms to make, and nothing asks it anything at run time

    class _RecordType(type):
        def __new__(mcs, name: str, bases: tuple[type, ...], namespace: dict[str, object]) -> type:
            fields = tuple(namespace.get("__annotations__", ()))
            namespace["_field_defaults"] = {
                field: namespace.pop(field) for field in fields if field in namespace
            }
            for position, field in enumerate(fields):
                namespace[field] = property(itemgetter(position))
            namespace["_fields"] = namespace["__match_args__"] = fields
            namespace["__slots__"] = ()
            return super().__new__(mcs, name, bases, namespace)

    class NamedTuple(tuple, metaclass=_RecordType):
        """A tuple with named fields: its annotations, in order, with their defaults."""

        def __new__(cls, *values: object, **named: object) -> "NamedTuple":
            if named or len(values) != len(cls._fields):
                values = _complete(cls, values, named)
            return tuple.__new__(cls, values)

        @classmethod
        def _make(cls, values: tuple[object, ...]) -> "NamedTuple":
            return cls(*values)

        def _replace(self, **changes: object) -> "NamedTuple":
            return type(self)(**{**self._asdict(), **changes})

        def _asdict(self) -> dict[str, object]:
            return dict(zip(self._fields, self, strict=True))

        def __repr__(self) -> str:
            members = ", ".join(f"{field}={value!r}" for field, value in self._asdict().items())
            return f"{type(self).__name__}({members})"

        def __getnewargs__(self) -> tuple[object, ...]:
            return tuple(self)

    def _complete(
        cls: "type[NamedTuple]", values: tuple[object, ...], named: dict[str, object]
    ) -> tuple[object, ...]:
        """Fill in what was given by name or has a default; raises TypeError as any constructor does."""
        if len(values) > len(cls._fields):
            raise TypeError(f"{cls.__name__} has {len(cls._fields)} fields, {len(values)} were given")
        given = dict(zip(cls._fields, values, strict=False))
        for field in named:
            if field in given or field not in cls._fields:
                raise TypeError(f"{cls.__name__}: {field} is given twice, or is not a field")
        given = {**cls._field_defaults, **given, **named}
        if missing := [field for field in cls._fields if field not in given]:
            raise TypeError(f"{cls.__name__}: missing {', '.join(missing)}")
        return tuple(given[field] for field in cls._fields)


__all__ = ["Any", "BinaryIO", "NamedTuple", "NoReturn", "Protocol", "Self"]
