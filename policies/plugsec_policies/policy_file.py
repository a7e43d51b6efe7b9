"""From policy files to the plain form: read them, check every word, merge (`policy_merge`)."""

import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from typing import Any, NoReturn

from plugsec_policies.errors import PolicyError, PolicyMalformed, PolicyNewer, PolicyUnreadable, Problem
from plugsec_policies.globs import parse_glob
from plugsec_policies.isolation import FLOOR, LAYERS, Isolation
from plugsec_policies.limits import LIMIT_WORDS, parse_limit
from plugsec_policies.permissions import PERMISSION_NAMES, parse_value, to_plain
from plugsec_policies.policy import BUILTIN_PREFIX, POLICY_SCHEMA, Reader, builtin_plain
from plugsec_policies.policy_merge import RULES_MAX, merge
from plugsec_policies.suggest import did_you_mean
from plugsec_policies.tables import Table
from plugsec_policies.toml import TEXT_MAX, Document, parse_toml
from plugsec_policies.versions import parse_range

# Files in one chain of `extends`: enough for company, team, project; a loop is found long before.
EXTENDS_DEPTH_MAX = 8
EXTENDS_MAX = 16
# Faults reported at once; more are seldom read.
PROBLEMS_MAX = 50
ID_MAX = 64
GLOBS_MAX = 256
KEYS_MAX = 64
REASON_MAX = 500
ATTESTATIONS_MAX = 16  # as many as a bundle carries
PREDICATE_TYPE_MAX = 256

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*", re.ASCII)
_CHECK_ID = re.compile(r"PLG-[A-Z]{2,4}-[0-9]{3}", re.ASCII)
_SCHEMA = re.compile(r"plugsec\.policy/([1-9][0-9]{0,3})", re.ASCII)
_PREDICATE_TYPE = re.compile(r"[a-z][a-z0-9+.-]{1,30}:[!-~]+", re.ASCII)  # a URI, loosely (RFC 3986 §3)
_SEVERITIES = ("off", "note", "warning", "error")


def load(path: str) -> dict[str, Any]:
    """Read a policy file and all that it extends. Raises PolicyMalformed, PolicyNewer, PolicyUnreadable."""
    sources: list[dict[str, str]] = []
    plain = _load(path, sources, ())
    plain["sources"] = sources
    return plain


def _load(path: str, sources: list[dict[str, str]], chain: tuple[str, ...]) -> dict[str, Any]:
    real = os.path.realpath(path) if "\0" not in path else path  # reading it says what is wrong
    if real in chain or len(chain) >= EXTENDS_DEPTH_MAX:
        raise PolicyUnreadable(
            f"the policy {path} extends itself, or more than {EXTENDS_DEPTH_MAX} files deep",
            "remove it from extends",
        )
    data = _read_bytes(path)
    if len(sources) > EXTENDS_MAX:
        raise PolicyUnreadable(f"the policy {path} is one of more than {EXTENDS_MAX} files", "merge some")
    sources.append({"path": real, "sha256": hashlib.sha256(data).hexdigest()})
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as err:
        raise PolicyMalformed(
            f"{path}: it is not UTF-8 text",
            "save it as UTF-8",
            (Problem(path, "it is not UTF-8 text", "save it as UTF-8"),),
        ) from err
    directory = os.path.dirname(path)
    return _parse(text, path, lambda base: _load(os.path.join(directory, base), sources, (*chain, real)))


def _read_bytes(path: str) -> bytes:
    try:
        # O_NONBLOCK: a FIFO in place of the file must not make us wait for ever (open(2)).
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with open(descriptor, "rb") as stream:
            data = stream.read(TEXT_MAX + 1)
    except (OSError, ValueError) as err:
        reason = err.strerror if isinstance(err, OSError) else "the name holds a NUL"
        raise PolicyUnreadable(
            f"the policy {path} cannot be read: {reason}",
            "name an existing file, or one of builtin:strict, builtin:ci, …",
        ) from err
    if len(data or b"") > TEXT_MAX:
        raise PolicyUnreadable(f"the policy {path} is longer than {TEXT_MAX} bytes", "split it")
    return data or b""


def parse(text: str, where: str, read: Reader | None) -> dict[str, Any]:
    """Parse one file's text, fetching what it extends by `read`; see `policy.parse_policy_toml`."""

    def base(name: str, chain: tuple[str, ...]) -> dict[str, Any]:
        if read is None:
            raise PolicyUnreadable(
                f"{where} extends {name}, but files cannot be read here", "extend builtin:… only"
            )
        found, its_text = read(name)
        if found in chain or len(chain) >= EXTENDS_DEPTH_MAX:
            raise PolicyUnreadable(f"{where} extends itself through {found}", "remove it from extends")
        return _parse(its_text, found, lambda deeper: base(deeper, (*chain, found)))

    return _parse(text, where, lambda name: base(name, (where,)))


def _parse(text: str, where: str, base: Any) -> dict[str, Any]:  # noqa: ANN401
    return _File(parse_toml(text, where)).plain(base)


class _File:
    """One file being read. A fault ends the table it is in, not the reading: all are reported together."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._problems: list[Problem] = []

    def plain(self, base: Any) -> dict[str, Any]:  # noqa: ANN401
        table = Table(self._document.data, (), self._fail)
        self._schema(table)
        own: dict[str, Any] = {"isolation": None, "limits": {}, "limits_where": {}, "warnings": []}
        bases: list[dict[str, Any]] = []
        with self._recovering():
            names = table.texts("extends", EXTENDS_MAX, 4096, required=False)
            for index, name in enumerate(names):
                # A base that cannot be read is a fault of the line that names it.
                with self._recovering(("extends", index)):
                    bases.append(self._base(name, index, base))
        with self._recovering():
            own["isolation"] = self._isolation(table)
        with self._recovering():
            own["require_attestations"] = self._attestations(table)
        with self._recovering():
            own["require_current_revocations"] = table.boolean("require_current_revocations")
        self._limits(table, own)
        for key, read in (
            ("grant", self._grant),
            ("deny", self._deny),
            ("check", self._check),
            ("waiver", self._waiver),
        ):
            own[key] = self._each(table, key, read)
        self._same_id(own["grant"], "grant")
        self._same_id(own["deny"], "deny")
        with self._recovering():
            table.finish()
        if self._problems:
            self._raise()
        return merge(self._document.where, bases, own)

    # Faults ------------------------------------------------------------------------------------------------

    def _fail(self, path: tuple[str | int, ...], message: str, hint: str) -> NoReturn:
        where = self._document.at(path)
        raise PolicyMalformed(f"{where}: {message}", hint, (Problem(where, message, hint),))

    @contextmanager
    def _recovering(self, path: tuple[str | int, ...] = ()) -> Iterator[None]:
        try:
            yield
        except PolicyNewer:
            raise
        except PolicyMalformed as err:
            self._problems.extend(err.problems)
        except PolicyError as err:
            self._problems.append(Problem(self._document.at(path), err.message, err.hint))

    def _raise(self) -> NoReturn:
        first = self._problems[0]
        more = f" (and {len(self._problems) - 1} more)" if len(self._problems) > 1 else ""
        raise PolicyMalformed(
            f"{first.where}: {first.message}{more}", first.hint, tuple(self._problems[:PROBLEMS_MAX])
        )

    # Parts of the file -------------------------------------------------------------------------------------

    def _schema(self, table: Table) -> None:
        name = table.text("schema", 64)
        if name == POLICY_SCHEMA:
            return
        where = self._document.at(("schema",))
        if _SCHEMA.fullmatch(name):
            raise PolicyNewer(
                f"{where}: it is written for a newer plugsec ({name})",
                f'upgrade plugsec, or write schema = "{POLICY_SCHEMA}"',
            )
        self._fail(
            ("schema",), f"the schema {name} is not one of a policy", f'write schema = "{POLICY_SCHEMA}"'
        )

    def _base(self, name: str, index: int, base: Any) -> dict[str, Any]:  # noqa: ANN401
        if name.startswith(BUILTIN_PREFIX):
            return builtin_plain(name[len(BUILTIN_PREFIX) :])
        if os.path.isabs(name):
            self._fail(
                ("extends", index),
                f"extends names the absolute path {name}",
                "write it relative to this file, so that both can move together",
            )
        return base(name)  # type: ignore[no-any-return]  # plain data from the cache

    def _isolation(self, table: Table) -> Isolation | None:
        inner = table.maybe_table("isolation")
        if inner is None:
            return None
        required = self._layers(inner, "required")
        allowed = self._layers(inner, "allow_degraded")
        inner.finish()
        for layer in sorted(FLOOR & allowed):
            inner.fail(
                "allow_degraded", f"{layer} can never be missing", f"remove {layer} from allow_degraded"
            )
        return Isolation(required | FLOOR, allowed)

    def _attestations(self, table: Table) -> list[str]:
        kinds = table.texts("require_attestations", ATTESTATIONS_MAX, PREDICATE_TYPE_MAX, required=False)
        for index, kind in enumerate(kinds):
            if not _PREDICATE_TYPE.fullmatch(kind):
                self._fail(
                    ("require_attestations", index),
                    f"{kind} is not a predicate type",
                    'write a URI: require_attestations = ["https://slsa.dev/provenance/v1"]',
                )
        return list(kinds)

    def _layers(self, table: Table, key: str) -> frozenset[str]:
        layers = table.texts(key, len(LAYERS), ID_MAX, required=False)
        for index, layer in enumerate(layers):
            if layer not in LAYERS:
                self._fail(
                    (*table.path, key, index),
                    f"there is no layer called {layer}",
                    did_you_mean(layer, LAYERS),
                )
        return frozenset(layers)

    def _limits(self, table: Table, own: dict[str, Any]) -> None:
        with self._recovering():
            inner = table.maybe_table("limits")
            if inner is None:
                return
            for name in inner.names():
                with self._recovering(("limits", name)):
                    if name not in LIMIT_WORDS:
                        inner.fail(name, f"there is no limit called {name}", did_you_mean(name, LIMIT_WORDS))
                    field, number = parse_limit(name, inner.take(name))
                    own["limits"][field] = number
                    own["limits_where"][field] = self._document.at(("limits", name))

    def _each(self, table: Table, key: str, read: Any) -> list[dict[str, Any]]:  # noqa: ANN401
        found = []
        with self._recovering():
            for inner in table.tables(key, RULES_MAX):
                with self._recovering(inner.path):
                    found.append(read(inner))
        return found

    def _same_id(self, rules: list[dict[str, Any]], kind: str) -> None:
        seen: dict[str, str] = {}
        for rule in rules:
            if rule["id"] in seen:
                self._problems.append(
                    Problem(
                        rule["where"],
                        f"the {kind} {rule['id']} is already at {seen[rule['id']]}",
                        "give it another id: messages name rules by it",
                    )
                )
            seen[rule["id"]] = rule["where"]

    def _grant(self, table: Table) -> dict[str, Any]:
        signed_by = list(table.texts("signed_by", KEYS_MAX, ID_MAX, required=table.has("signed_by")))
        expires = self._expires(table, required=False)
        return {**self._rule(table, deny=False), "signed_by": signed_by, "expires": expires}

    def _deny(self, table: Table) -> dict[str, Any]:
        if table.has("signed_by"):
            table.fail(
                "signed_by",
                "a deny rule does not look at signatures: removing one would undo it",
                "write signed_by on the grants instead",
            )
        return {**self._rule(table, deny=True), "signed_by": [], "expires": None}

    def _rule(self, table: Table, *, deny: bool) -> dict[str, Any]:
        name = self._id(table)
        globs = list(table.texts("plugins", GLOBS_MAX, 256))
        for index, glob in enumerate(globs):
            with self._at((*table.path, "plugins", index)):
                parse_glob(glob)
        permissions = {}
        for word, path, raw in self._permission_words(table):
            with self._at(path):
                value = parse_value(word, raw, deny=deny)
                # A denial is kept as it was written: `process = true` has no number to write.
                permissions[word] = raw if deny else to_plain(value)
        table.finish()
        if not permissions:
            verb = "denies" if deny else "grants"
            table.fail(
                "id",
                f"the rule {name} {verb} nothing",
                'add a permission, for instance "fs.read" = ["/srv/data"]',
            )
        return {
            "id": name,
            "where": self._document.at(table.path),
            "plugins": globs,
            "permissions": permissions,
        }

    def _permission_words(self, table: Table) -> Iterator[tuple[str, tuple[str | int, ...], object]]:
        """Yield the permissions of a rule; `fs.read = …` is TOML's way of writing `fs = { read = … }`."""
        fields = ("id", "plugins", "signed_by", "expires")
        for key in table.names():
            if key in PERMISSION_NAMES:
                yield key, (*table.path, key), table.take(key)
            elif key == "fs":
                yield from self._file_words(table.table(key))
            elif key not in fields:
                hint = did_you_mean(key, (*PERMISSION_NAMES, *fields))
                table.fail(key, f"there is no permission or field called {key}", hint)

    def _file_words(self, table: Table) -> Iterator[tuple[str, tuple[str | int, ...], object]]:
        for part in table.names():
            word = f"fs.{part}"
            if word not in PERMISSION_NAMES:
                table.fail(
                    part, f"there is no permission called {word}", did_you_mean(word, PERMISSION_NAMES)
                )
            yield word, (*table.path, part), table.take(part)

    @contextmanager
    def _at(self, path: tuple[str | int, ...]) -> Iterator[None]:
        """Give the place of a fault that was found in a value."""
        try:
            yield
        except PolicyMalformed:
            raise
        except PolicyError as err:
            self._fail(path, err.message, err.hint)

    def _id(self, table: Table) -> str:
        name = table.text("id", ID_MAX)
        if not _ID.fullmatch(name):
            table.fail(
                "id", "an id is made of letters, digits, . _ and -", 'write for instance id = "acme-api"'
            )
        return name

    def _expires(self, table: Table, *, required: bool) -> int | None:
        value = table.take("expires")
        if value is None:
            if required:
                table.fail("expires", "a waiver must say when it ends", "add expires = 2027-12-31")
            return None
        if not isinstance(value, date) or isinstance(value, datetime) or value.year > 9000:
            table.fail("expires", "expires is not a day", "write a day without quotes: expires = 2027-12-31")
        # The day named is the last one on which it counts, in UTC.
        ends = datetime(value.year, value.month, value.day, tzinfo=UTC) + timedelta(days=1)
        return int(ends.timestamp())

    def _check_id(self, table: Table, key: str) -> str:
        name = table.text(key, ID_MAX)
        if not _CHECK_ID.fullmatch(name):
            table.fail(key, f"{name} is not the id of a check", f'write for instance {key} = "PLG-LIM-003"')
        return name

    def _check(self, table: Table) -> dict[str, Any]:
        name = self._check_id(table, "id")
        severity = table.text("severity", ID_MAX)
        if severity not in _SEVERITIES:
            table.fail(
                "severity", f"there is no severity called {severity}", did_you_mean(severity, _SEVERITIES)
            )
        parameters = table.take("parameters") or {}
        if not isinstance(parameters, Mapping) or not all(
            isinstance(value, str | int | bool) for value in parameters.values()
        ):
            table.fail(
                "parameters",
                "parameters is not a table of texts, numbers and truth values",
                "write parameters = { most = 10 }",
            )
        table.finish()
        return {
            "id": name,
            "severity": severity,
            "parameters": dict(parameters),
            "where": self._document.at(table.path),
        }

    def _waiver(self, table: Table) -> dict[str, Any]:
        check = self._check_id(table, "check")
        plugin = table.text("plugin", 256)
        versions = table.text("versions", 128, required=False)
        with self._at((*table.path, "plugin")):
            parse_glob(plugin)
        with self._at((*table.path, "versions")):
            if versions:
                parse_range(versions)
        waiver = {
            "check": check,
            "plugin": plugin,
            "versions": versions,
            "approved_by": table.text("approved_by", ID_MAX),
            "reason": table.text("reason", REASON_MAX),
            "expires": self._expires(table, required=True),
            "where": self._document.at(table.path),
        }
        table.finish()
        return waiver
