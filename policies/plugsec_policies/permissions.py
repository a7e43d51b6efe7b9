"""The permission vocabulary: what a plugin may ask, what a rule may allow, and where the two meet.

Every permission's value is a set of **atoms** (a path, a name, a host and port, a number). An atom stands for
itself and all that it covers; `meet` of two atoms is what both stand for. That one operation, defined once
for each kind, gives intersection and coverage for all of them, and their laws: intersection is commutative,
associative and idempotent and never wider than either side (tests/policies/test_permission_laws.py).
"""

import re
from collections.abc import Callable, Iterable, Mapping

from plugsec_policies.env import parse_env_name
from plugsec_policies.errors import PermissionInvalid
from plugsec_policies.limits import PROCESSES_MAX
from plugsec_policies.paths import READ_ONLY_ROOTS, covers, parse_path, root_of
from plugsec_policies.suggest import did_you_mean
from plugsec_policies.typed import Any, NamedTuple

# A plugin that needs more places than this needs another design; bounds the quadratic comparisons.
ATOMS_MAX = 256
# `[[permission]]` entries of one plugin, and all that they ask for together: a stranger's manifest must not
# be able to make the decision long, which compares each of these with each thing that a policy grants.
PERMISSIONS_MAX = 256
ASKED_MAX = 1024
# A reason is a sentence for the person who decides, not a document.
REASON_MAX = 500
NAME_MAX = 128

# Compiled when first used, as `hosts` is imported: most plugins ask for neither names nor the network.
_DOTTED = r"[a-z][a-z0-9_-]*(\.[a-z0-9][a-z0-9_-]*)*"
# A program of the bundle itself, as against one of the host.
BUNDLE_ROOT = "$BUNDLE"


class Atom(NamedTuple):
    """One indivisible thing asked or allowed; which members mean something depends on the permission.

    `text` is a path, a name, a host or a topic; `word` an access word or `publish`/`subscribe`; `number` a
    port (0 for any) or a count of processes.
    """

    text: str = ""
    word: str = ""
    number: int = 0


class PermissionSet(NamedTuple):
    """The value of one permission: no atom covers another, and they are sorted, so equal sets are equal."""

    name: str
    atoms: tuple[Atom, ...]


class Permission(NamedTuple):
    """What a plugin asks: a value, why, and whether it can do without."""

    name: str
    value: PermissionSet
    reason: str
    optional: bool


class _Kind(NamedTuple):
    """How one permission is written and compared."""

    fields: tuple[str, ...]  # the keys of a [[permission]] that carry the value
    read: Callable[[object, bool, str], Atom]  # (what is written, in a deny rule?, key) -> atom
    write: Callable[[Atom], Any]  # the inverse of read
    meet: Callable[[Atom, Atom], Atom | None]


# Reading atoms ---------------------------------------------------------------------------------------------


def _read_path(access: str) -> Callable[[object, bool, str], Atom]:
    words = (access, access + "x")

    def read(raw: object, deny: bool, _key: str) -> Atom:
        word = access
        if isinstance(raw, Mapping):
            if deny:
                raise PermissionInvalid(
                    "a deny rule covers every access, so it takes paths only",
                    "write the path as a plain text",
                )
            unknown = set(raw) - {"path", "access"}
            if unknown or raw.get("access") not in words:
                raise PermissionInvalid(
                    "a path with an access word is not written as one",
                    f'write {{ path = "/srv/x", access = "{words[1]}" }} ({" or ".join(words)})',
                )
            word, raw = raw["access"], raw.get("path")
        path = parse_path(raw, deny=deny)
        if access == "rw" and not deny and root_of(path) in READ_ONLY_ROOTS:
            raise PermissionInvalid(f"{root_of(path)} is read-only for every plugin", "write to $OUTPUT")
        return Atom(path, word)

    return read


def _write_path(atom: Atom) -> Any:  # noqa: ANN401
    return {"path": atom.text, "access": atom.word} if atom.word.endswith("x") else atom.text


def _read_host(raw: object, _deny: bool, _key: str) -> Atom:
    from plugsec_policies.hosts import parse_host_port  # noqa: PLC0415

    host, port = parse_host_port(raw)
    return Atom(host, "", port)


def _write_host(atom: Atom) -> Any:  # noqa: ANN401
    from plugsec_policies.hosts import format_host_port  # noqa: PLC0415

    return format_host_port(atom.text, atom.number)


def _read_env(raw: object, deny: bool, _key: str) -> Atom:
    return Atom(parse_env_name(raw, deny=deny))


def _read_program(raw: object, deny: bool, _key: str) -> Atom:
    if isinstance(raw, str) and raw.startswith(BUNDLE_ROOT + "/") and len(raw) > len(BUNDLE_ROOT) + 1:
        parse_path("/" + raw.partition("/")[2], deny=True)
        return Atom(raw)
    path = parse_path(raw, deny=deny)
    if not path.startswith("/"):
        raise PermissionInvalid(
            f"the program {path} is not an absolute path",
            'write the real path, for instance "/usr/bin/dash", or "$BUNDLE/bin/helper"',
        )
    return Atom(path)


def _read_dotted(raw: object, _deny: bool, key: str) -> Atom:
    if not isinstance(raw, str) or len(raw) > NAME_MAX or not re.fullmatch(_DOTTED, raw, re.ASCII):
        raise PermissionInvalid(
            f"{raw} is not a name", "write lower-case words joined by dots, for instance kv.get"
        )
    return Atom(raw, key if key in ("publish", "subscribe") else "")


def _write_text(atom: Atom) -> Any:  # noqa: ANN401
    return atom.text


def _read_count(raw: object, deny: bool, _key: str) -> Atom:
    if deny:
        if raw is not True:
            raise PermissionInvalid("a deny rule denies processes altogether", "write process = true")
        return Atom(number=PROCESSES_MAX)
    if isinstance(raw, bool) or not isinstance(raw, int) or not 1 <= raw <= PROCESSES_MAX:
        raise PermissionInvalid(
            f"the number of processes is not a whole number from 1 to {PROCESSES_MAX}",
            "write how many processes it may start, for instance 4",
        )
    return Atom(number=raw)


def _write_count(atom: Atom) -> Any:  # noqa: ANN401
    return atom.number


def _read_flag(raw: object, _deny: bool, _key: str) -> Atom:
    if raw is not True:
        raise PermissionInvalid("this permission is either there or not", "write true, or remove the line")
    return Atom()


def _write_flag(_atom: Atom) -> Any:  # noqa: ANN401
    return True


# Where two atoms meet --------------------------------------------------------------------------------------


def _meet_path(a: Atom, b: Atom) -> Atom | None:
    if covers(a.text, b.text):
        lower = b.text
    elif covers(b.text, a.text):
        lower = a.text
    else:
        return None
    return Atom(lower, min(a.word, b.word))  # "ro" < "rox" and "rw" < "rwx": the shorter word is the weaker


def _meet_host(a: Atom, b: Atom) -> Atom | None:
    from plugsec_policies.hosts import ANY_PORT, covers_host  # noqa: PLC0415

    if ANY_PORT not in (a.number, b.number) and a.number != b.number:
        return None
    port = max(a.number, b.number)  # either they are equal or one is 0, which stands for any
    if covers_host(a.text, b.text):
        return Atom(b.text, "", port)
    if covers_host(b.text, a.text):
        return Atom(a.text, "", port)
    return None


def _meet_same(a: Atom, b: Atom) -> Atom | None:
    return a if a == b else None


def _meet_count(a: Atom, b: Atom) -> Atom | None:
    return min(a, b)


_KINDS: dict[str, _Kind] = {
    "fs.read": _Kind(("paths",), _read_path("ro"), _write_path, _meet_path),
    "fs.write": _Kind(("paths",), _read_path("rw"), _write_path, _meet_path),
    "net": _Kind(("hosts",), _read_host, _write_host, _meet_host),
    "env": _Kind(("names",), _read_env, _write_text, _meet_same),
    "exec": _Kind(("programs",), _read_program, _write_text, _meet_same),
    "process": _Kind(("max",), _read_count, _write_count, _meet_count),
    "host": _Kind(("functions",), _read_dotted, _write_text, _meet_same),
    "events": _Kind(("publish", "subscribe"), _read_dotted, _write_text, _meet_same),
    "secrets": _Kind(("names",), _read_dotted, _write_text, _meet_same),
    "device": _Kind(("devices",), _read_dotted, _write_text, _meet_same),
    "jit": _Kind((), _read_flag, _write_flag, _meet_same),
}
# Every permission there is, in the order in which people are told about them.
PERMISSION_NAMES: tuple[str, ...] = tuple(_KINDS)
# Permissions whose value is one scalar rather than a list.
_SCALAR = frozenset({"process", "jit"})
# Permissions whose value is a table of several lists.
_KEYED = frozenset({"events"})


# The algebra -----------------------------------------------------------------------------------------------


def _normal(name: str, atoms: Iterable[Atom]) -> PermissionSet:
    """Drop every atom that another covers and sort the rest: one set, one spelling."""
    unique = set(atoms)
    meet = _KINDS[name].meet
    if meet is not _meet_same:
        unique = {a for a in unique if not any(b != a and meet(a, b) == a for b in unique)}
    return PermissionSet(name, tuple(sorted(unique)))


def intersect(a: PermissionSet, b: PermissionSet) -> PermissionSet:
    """Return what both sets stand for. Both must be of the same permission (RuntimeError otherwise)."""
    if a.name != b.name:
        raise RuntimeError(f"cannot intersect {a.name} with {b.name}")
    meet = _KINDS[a.name].meet
    met = (meet(x, y) for x in a.atoms for y in b.atoms)
    return _normal(a.name, (atom for atom in met if atom is not None))


def union(name: str, sets: Iterable[PermissionSet]) -> PermissionSet:
    """Return what any of the sets stands for."""
    return _normal(name, (atom for each in sets for atom in each.atoms))


def uncovered(asked: PermissionSet, allowed: PermissionSet) -> tuple[Atom, ...]:
    """Return the atoms of `asked` that `allowed` does not stand for wholly; empty means all is covered."""
    meet = _KINDS[asked.name].meet
    return tuple(a for a in asked.atoms if not any(meet(a, b) == a for b in allowed.atoms))


def without_denied(asked: PermissionSet, denied: Mapping[str, PermissionSet]) -> PermissionSet:
    """Drop every atom of `asked` that has anything at all in common with what one rule denies.

    Whole atoms, not their differences: what is left must not depend on which grants came before, or
    adding a policy could widen (docs/formats/policy.md, "Deny"). A permission that includes another is
    denied with it: who may write a file may read it, and `rox` executes what is below.
    """
    atoms = asked.atoms
    own = denied.get(asked.name)
    if own is not None:
        meet = _KINDS[asked.name].meet
        atoms = tuple(a for a in atoms if all(meet(a, b) is None for b in own.atoms))
    if asked.name == "fs.write" and "fs.read" in denied:
        unread = denied["fs.read"].atoms
        atoms = tuple(a for a in atoms if all(_meet_path(a, b) is None for b in unread))
    if asked.name.startswith("fs.") and "exec" in denied:
        programs = denied["exec"].atoms
        atoms = tuple(
            a for a in atoms if not a.word.endswith("x") or all(_meet_path(a, b) is None for b in programs)
        )
    return PermissionSet(asked.name, atoms)


def support_needed(name: str, atom: Atom) -> tuple[str, ...]:
    """Name what this host and this plugsec must be able to enforce for the atom to be granted.

    The permission itself, the named root that is not one of `$INPUT` and `$OUTPUT`, an access word with `x`.
    """
    words = [name]
    root = root_of(atom.text) if atom.text.startswith("$") else ""
    if root not in ("", "$INPUT", "$OUTPUT"):
        words.append(root)
    if atom.word.endswith("x"):
        words.append(atom.word)
    return tuple(words)


def format_atom(name: str, atom: Atom) -> str:
    """Say one atom in words for people: `fs.read /srv/data`, `net *.acme.com:443`, `jit`."""
    extra = f" ({atom.word})" if atom.word.endswith("x") or atom.word in ("publish", "subscribe") else ""
    if name == "jit":
        return name
    written = atom.text if name.startswith("fs.") else _KINDS[name].write(atom)
    return f"{name} {written}{extra}"


# Plain data ------------------------------------------------------------------------------------------------


def parse_value(name: object, raw: object, *, deny: bool = False) -> PermissionSet:
    """Read a permission's value as a rule writes it (`net = ["api.acme.com:443"]`, `process = 4`).

    Raises PermissionInvalid, also for a permission that does not exist, and NeverGrantable.
    """
    kind = _kind(name)
    name = str(name)
    if name in _SCALAR:
        return PermissionSet(name, (kind.read(raw, deny, ""),))
    if name in _KEYED:
        return _parse_keyed(name, kind, raw, deny)
    return _normal(name, _atoms(name, kind, kind.fields[0], raw, deny))


def _kind(name: object) -> _Kind:
    kind = _KINDS.get(name) if isinstance(name, str) else None
    if kind is None:
        raise PermissionInvalid(f"there is no permission called {name}", did_you_mean(str(name), _KINDS))
    return kind


def _parse_keyed(name: str, kind: _Kind, raw: object, deny: bool) -> PermissionSet:
    if not isinstance(raw, Mapping) or not raw or set(raw) - set(kind.fields):
        example = ", ".join(f'{field} = ["orders.new"]' for field in kind.fields)
        raise PermissionInvalid(f"{name} is not written as a table of lists", f"write {{ {example} }}")
    return _normal(name, [atom for key in raw for atom in _atoms(name, kind, key, raw[key], deny)])


def _atoms(name: str, kind: _Kind, key: str, raw: object, deny: bool) -> list[Atom]:
    if not isinstance(raw, list | tuple) or not raw:
        raise PermissionInvalid(f"{name} takes a list with at least one member", f"write {key} = [ … ]")
    if len(raw) > ATOMS_MAX:
        raise PermissionInvalid(
            f"{name} lists {len(raw)} things, more than {ATOMS_MAX}", "ask for what is above them"
        )
    return [kind.read(item, deny, key) for item in raw]


def to_plain(value: PermissionSet) -> Any:  # noqa: ANN401
    """Write a value as `parse_value` reads it, JSON-able; the inverse, up to ATOMS_MAX atoms."""
    kind = _KINDS[value.name]
    if value.name in _SCALAR:
        return kind.write(value.atoms[0])
    if value.name in _KEYED:
        keyed = {key: [kind.write(a) for a in value.atoms if a.word == key] for key in kind.fields}
        return {key: atoms for key, atoms in keyed.items() if atoms}
    return [kind.write(atom) for atom in value.atoms]


def parse_permission(entry: object) -> Permission:
    """Read one entry of a manifest's `permissions`. Raises PermissionInvalid and NeverGrantable."""
    if not isinstance(entry, Mapping):
        raise PermissionInvalid("a permission is not a table", 'write name = "fs.read" and its value')
    kind = _kind(entry.get("name"))
    name = str(entry["name"])
    known = {"name", "reason", "optional", *kind.fields}
    for key in entry:
        if key not in known:
            raise PermissionInvalid(f"{name} has no field {key}", did_you_mean(str(key), known))
    reason, optional = entry.get("reason", ""), entry.get("optional", False)
    if not isinstance(reason, str) or len(reason) > REASON_MAX:
        raise PermissionInvalid(
            f"the reason for {name} is not a text of at most {REASON_MAX} characters",
            "say in one sentence what it is needed for",
        )
    if not isinstance(optional, bool):
        raise PermissionInvalid(f"optional of {name} is neither true nor false", "write optional = false")
    return Permission(name, parse_value(name, _raw_value(name, kind, entry)), reason, optional)


def _raw_value(name: str, kind: _Kind, entry: Mapping[str, Any]) -> object:
    if not kind.fields:
        return True
    given = {key: entry[key] for key in kind.fields if key in entry}
    if not given:
        raise PermissionInvalid(f"{name} does not say which", f"add {kind.fields[0]} = …")
    return given if name in _KEYED else given[kind.fields[0]]


def permission_to_plain(permission: Permission) -> dict[str, Any]:
    """Write a permission as a manifest's entry; the inverse of `parse_permission`."""
    kind = _KINDS[permission.name]
    entry: dict[str, Any] = {
        "name": permission.name,
        "reason": permission.reason,
        "optional": permission.optional,
    }
    if permission.name in _KEYED:
        entry.update(to_plain(permission.value))
    elif kind.fields:
        entry[kind.fields[0]] = to_plain(permission.value)
    return entry
