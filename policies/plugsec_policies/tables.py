"""Reading a table that somebody else wrote: every field typed and bounded, every unknown field refused.

The same reader serves policy files, `plugin.toml` and the manifest; they differ in how they say where a fault
is, which is why it is told how to `fail`.
"""

from collections.abc import Callable, Mapping

from plugsec_policies.suggest import did_you_mean
from plugsec_policies.typed import Any, NoReturn

Path = tuple[str | int, ...]
Fail = Callable[[Path, str, str], NoReturn]


class Table:
    """One table at `path`; each method takes a field out, `finish` refuses what nobody took."""

    __slots__ = ("_known", "_mapping", "path", "refuse")

    def __init__(self, mapping: object, path: Path, fail: Fail) -> None:
        if not isinstance(mapping, Mapping):
            fail(path, f"{_name(path)} is not a table", "write it as a table of names and values")
        self._mapping: Mapping[str, Any] = mapping
        self.path = path
        self.refuse = fail
        self._known: list[str] = []

    def fail(self, key: str, message: str, hint: str) -> NoReturn:
        """Refuse with the place of one of this table's fields."""
        self.refuse((*self.path, key), message, hint)

    def take(self, key: str) -> Any:  # noqa: ANN401
        """Return the field as it is, None when absent; null is neither absent nor a value, so refused."""
        self._known.append(key)
        value = self._mapping.get(key)
        if value is None and key in self._mapping:
            self.fail(key, f"{key} is null", f"give {key} a value or leave it out")
        return value

    def has(self, key: str) -> bool:
        """Tell whether the field was written."""
        return key in self._mapping

    def text(self, key: str, most: int, *, required: bool = True, default: str = "") -> str:
        """Return a text of at most `most` characters, not empty when required."""
        value = self._present(key, required=required)
        if value is None:
            return default
        if not isinstance(value, str) or len(value) > most or (required and not value):
            self.fail(
                key,
                f"{key} is not a text of {'1' if required else '0'} to {most} characters",
                f'write {key} = "…"',
            )
        if not _is_unicode(value):
            self.fail(key, f"{key} holds half a surrogate pair", "write it in UTF-8")
        return value

    def integer(self, key: str, least: int, most: int, *, required: bool = True, default: int = 0) -> int:
        """Return a whole number within its range."""
        value = self._present(key, required=required)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            self.fail(
                key, f"{key} is not a whole number from {least} to {most}", f"write {key} = {max(least, 1)}"
            )
        return value

    def boolean(self, key: str, *, default: bool = False) -> bool:
        """Return true or false."""
        value = self.take(key)
        if value is None:
            return default
        if not isinstance(value, bool):
            self.fail(key, f"{key} is neither true nor false", f"write {key} = true or {key} = false")
        return value

    def texts(self, key: str, count: int, most: int, *, required: bool = True) -> tuple[str, ...]:
        """Return at most `count` texts of at most `most` characters, at least one when required."""
        value = self._present(key, required=required)
        if value is None:
            return ()
        if not isinstance(value, list | tuple) or len(value) > count or (required and not value):
            self.fail(
                key,
                f"{key} is not a list of {'1' if required else '0'} to {count} texts",
                f'write {key} = ["…"]',
            )
        for index, item in enumerate(value):
            if not isinstance(item, str) or len(item) > most or not _is_unicode(item):
                self.refuse(
                    (*self.path, key, index),
                    f"{key} holds something that is not a text of at most {most} characters",
                    f'write {key} = ["…"]',
                )
        return tuple(value)

    def table(self, key: str) -> "Table":
        """Return a table inside this one."""
        return Table(self._present(key, required=True), (*self.path, key), self.refuse)

    def maybe_table(self, key: str) -> "Table | None":
        """Return a table inside this one, None when absent."""
        value = self.take(key)
        return None if value is None else Table(value, (*self.path, key), self.refuse)

    def tables(self, key: str, count: int) -> "tuple[Table, ...]":
        """Return the tables of a list, at most `count`; none when absent."""
        value = self.take(key)
        if value is None:
            return ()
        if not isinstance(value, list | tuple) or len(value) > count:
            self.fail(key, f"{key} is not a list of at most {count} tables", f"write [[{key}]] above each")
        return tuple(Table(item, (*self.path, key, index), self.refuse) for index, item in enumerate(value))

    def finish(self) -> None:
        """Refuse the first field that nobody took: an unknown word is a mistake or an attack."""
        for key in self._mapping:
            if key not in self._known:
                self.fail(key, f"{_name(self.path)} has no field {key}", did_you_mean(str(key), self._known))

    def names(self) -> tuple[str, ...]:
        """Return the names of all fields that were written."""
        return tuple(self._mapping)

    def _present(self, key: str, *, required: bool) -> Any:  # noqa: ANN401
        value = self.take(key)
        if value is None and required:
            self.fail(key, f"{_name(self.path)} lacks {key}", self._misspelt(key) or f"add {key} = …")
        return value

    def _misspelt(self, key: str) -> str:
        """Point at a field that nobody knows and that may have been meant."""
        guess = f"did you mean {key}?"
        found = [
            name for name in self._mapping if name not in self._known and did_you_mean(name, [key]) == guess
        ]
        return f"for {found[0]}, {guess}" if found else ""


def _name(path: Path) -> str:
    return ".".join(str(part) for part in path if isinstance(part, str)) or "the file"


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
