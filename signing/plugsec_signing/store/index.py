"""Which versions of one plugin are installed, which one is current, and which ones were before.

Pure: text in, text out, a new value for each change. The file is `index/PUBLISHER+NAME.json`; `+` occurs
in no name. A plugin without versions has no index.
"""

from plugsec_signing import canonical
from plugsec_signing.envelope import check_version
from plugsec_signing.errors import EnvelopeError, JsonError, NotInstalled, StoreError, StoreUnusable
from plugsec_signing.typed import NamedTuple

FORMAT = "plugsec.store.index/1"
MAX_BYTES = 256 * 1024  # twice of what MAX_VERSIONS need
MAX_VERSIONS = 500  # side by side, of one plugin: more is a store that nobody cleans
MAX_HISTORY = 64  # steps back that anybody wants to take
_HEX = frozenset("0123456789abcdef")


class Version(NamedTuple):
    """One installed version; `installed` in unix seconds."""

    version: str
    bundle_id: str
    release: int
    installed: int


class Index(NamedTuple):
    """`history` holds the versions that were current before, oldest first; all of them are installed."""

    name: str
    current: str
    versions: tuple[Version, ...]
    history: tuple[str, ...]

    def find(self, version: str | None) -> Version:
        """Return a version, or the current one; raises NotInstalled (exit 2)."""
        wanted = self.current if version is None else version
        for each in self.versions:
            if each.version == wanted:
                return each
        known = ", ".join(each.version for each in self.versions)
        raise NotInstalled(f"{self.name} {wanted} is not installed", f"installed are: {known}")


def file_name(name: str) -> str:
    """Return the index's file name for `publisher/plugin`."""
    return name.replace("/", "+") + ".json"


def encode(index: Index) -> bytes:
    """Return the file's content: canonical JSON and a newline."""
    versions = {
        each.version: {"bundle_id": each.bundle_id, "release": each.release, "installed": each.installed}
        for each in index.versions
    }
    value = {
        "format": FORMAT,
        "name": index.name,
        "current": index.current,
        "versions": versions,
        "history": list(index.history),
    }
    return canonical.encode(value) + b"\n"


def decode(data: bytes, name: str) -> Index:
    """Return the index of `name`; raises StoreError (exit 4) for anything that `encode` would not write."""
    try:
        value = canonical.decode(data, max_bytes=MAX_BYTES, integers_only=True)
        found = _index(value)
    except (JsonError, EnvelopeError, KeyError, TypeError, AttributeError, ValueError) as err:
        _refuse_newer(data)
        raise _damaged(name) from err
    if found.name != name or encode(found) != data:
        raise _damaged(name)
    return found


def with_installed(index: Index | None, name: str, added: Version) -> Index:
    """Return the index with a version that is now the current one; raises StoreUnusable (exit 2)."""
    if index is None:
        return Index(name, added.version, (added,), ())
    for each in index.versions:
        if each.version == added.version and each.bundle_id != added.bundle_id:
            raise StoreUnusable(
                f"{name} {added.version} is installed already, as another bundle ({each.bundle_id})",
                f"plugsec remove {name}@{added.version}, if the new one shall take its place",
                id="PLG-STO-009",
            )
    kept = tuple(each for each in index.versions if each.version != added.version)
    if len(kept) == MAX_VERSIONS:
        raise StoreUnusable(
            f"{name} has {MAX_VERSIONS} versions installed",
            f"plugsec remove {name}@VERSION",
            id="PLG-STO-011",
        )
    before = index.history if index.current == added.version else (*index.history, index.current)
    history = tuple(each for each in before if each != added.version)[-MAX_HISTORY:]
    versions = tuple(sorted((*kept, added), key=lambda each: (each.release, each.version)))
    return Index(name, added.version, versions, history)


def without(index: Index, version: str) -> Index | None:
    """Return the index without a version; the current one gives way to the one before it.

    None when nothing is left. Without a history the highest release takes over.
    """
    index.find(version)
    versions = tuple(each for each in index.versions if each.version != version)
    history = tuple(each for each in index.history if each != version)
    if not versions:
        return None
    if index.current != version:
        return Index(index.name, index.current, versions, history)
    if history:
        return Index(index.name, history[-1], versions, history[:-1])
    return Index(index.name, versions[-1].version, versions, ())


def rolled_back(index: Index) -> Index:
    """Return the index with the version that was current before; raises StoreUnusable (exit 2)."""
    if not index.history:
        raise StoreUnusable(
            f"{index.name} has no earlier version to roll back to",
            f"plugsec run {index.name}@VERSION runs any installed version",
            id="PLG-STO-010",
        )
    return index._replace(current=index.history[-1], history=index.history[:-1])


def _index(value: object) -> Index:
    """Read a decoded value; anything unexpected raises one of the errors that `decode` turns into its own."""
    if not isinstance(value, dict) or value.keys() != {"format", "name", "current", "versions", "history"}:
        raise ValueError("the members are others")
    if value["format"] != FORMAT:
        raise ValueError("the format is another")
    versions = tuple(
        Version(
            check_version(version),
            _bundle_id(of["bundle_id"]),
            _whole(of["release"]),
            _whole(of["installed"]),
        )
        for version, of in value["versions"].items()
    )
    installed = {each.version for each in versions}
    history = tuple(check_version(each) for each in value["history"])
    if len(versions) > MAX_VERSIONS or len(history) > MAX_HISTORY or not installed.issuperset(history):
        raise ValueError("the history is not of this plugin")
    if value["current"] not in installed or value["current"] in history:
        raise ValueError("the current version is not installed")
    ordered = tuple(sorted(versions, key=lambda each: (each.release, each.version)))
    return Index(str(value["name"]), value["current"], ordered, history)


def _bundle_id(value: object) -> str:
    digits = value.removeprefix("sha256:") if isinstance(value, str) else ""
    if len(digits) != 64 or not _HEX.issuperset(digits):
        raise ValueError("a bundle id is sha256: and 64 hex digits")
    return f"sha256:{digits}"


def _whole(value: object) -> int:
    if type(value) is not int or value < 0:
        raise ValueError("a whole number was expected")
    return value


def _refuse_newer(data: bytes) -> None:
    """Say so when a newer plugsec wrote it: this is not damage."""
    try:
        value = canonical.decode(data, max_bytes=MAX_BYTES)
    except JsonError:
        return
    found = value.get("format") if isinstance(value, dict) else None
    stem = FORMAT.rpartition("/")[0] + "/"
    if (
        isinstance(found, str)
        and found.startswith(stem)
        and found[len(stem) :].isdecimal()
        and found != FORMAT
    ):
        raise StoreError(
            "the store was written by a newer plugsec",
            "use that version, or another --home",
            id="PLG-STO-004",
        )


def _damaged(name: str) -> StoreError:
    return StoreError(f"the store's index of {name} is damaged", id="PLG-STO-002")
