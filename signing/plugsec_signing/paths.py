"""Which paths a bundle may carry: the ones that mean the same file on every system.

Printable ASCII only, because Unicode tables (normalisation, case folding) differ between systems and
even between Python versions; five classes of attack cannot be written down any more. No component
begins or ends with a dot or a space, which excludes `.`, `..`, dot files and what Windows strips.
"""

from collections.abc import Iterable

from plugsec_signing.errors import PathError, excerpt

MAX_PATH_BYTES = 240  # leaves room for a store's own prefix below PATH_MAX, and fits the ustar fields
MAX_PATH_DEPTH = 32  # deeper trees only serve to exhaust walkers
NAME_FIELD_BYTES = 100  # ustar `name` (POSIX.1-1988, pax(1) "ustar Interchange Format")
PREFIX_FIELD_BYTES = 155  # ustar `prefix`
RESERVED_DIRECTORY = "plugsec"  # in any case: the container's own entries live under PLUGSEC/

_ALLOWED = frozenset(map(chr, range(0x20, 0x7F))) - frozenset('\\:*?"<>|')


def check_path(path: str) -> str:
    """Return the path if a bundle may carry it; raises PathError (exit 4) naming the broken rule."""
    if len(path) > MAX_PATH_BYTES:
        raise PathError(f"the path {excerpt(path)} is longer than {MAX_PATH_BYTES} bytes", id="PLG-PTH-003")
    if not _ALLOWED.issuperset(path):
        raise PathError(
            f'the path {excerpt(path)} holds a character other than printable ASCII without \\ : * ? " < > |',
            id="PLG-PTH-001",
        )
    components = path.split("/")
    for component in components:
        # `strip` takes spaces and dots from both ends, so it also empties "", "." and "..".
        if not component or component.strip(" .") != component:
            raise PathError(
                f"the path {excerpt(path)} is absolute, or a component of it is empty, or begins or ends "
                "with a dot or a space",
                id="PLG-PTH-002",
            )
    if len(components) > MAX_PATH_DEPTH:
        raise PathError(f"the path {excerpt(path)} is deeper than {MAX_PATH_DEPTH}", id="PLG-PTH-004")
    if components[0].lower() == RESERVED_DIRECTORY:
        raise PathError(
            f"the path {excerpt(path)} lies under PLUGSEC/, which belongs to the container",
            "rename the directory",
            id="PLG-PTH-007",
        )
    split_path(path)
    return path


def check_paths(paths: Iterable[str]) -> tuple[str, ...]:
    """Return the paths if each is allowed and together they name distinct files on any file system.

    Distinct also after lower-casing, and no file is also a directory of another. Raises PathError.
    """
    checked = tuple(check_path(path) for path in paths)
    files: set[str] = set()
    for path in checked:
        lower = path.lower()
        if lower in files:
            raise PathError(
                f"the path {excerpt(path)} occurs twice, at least when letter case is ignored",
                "rename one of the two files",
                id="PLG-PTH-005",
            )
        files.add(lower)
    directories: set[str] = set()
    for path in files:
        parent = path.rpartition("/")[0]
        while parent and parent not in directories:  # at most MAX_PATH_DEPTH rounds
            directories.add(parent)
            parent = parent.rpartition("/")[0]
    clashes = files & directories
    if clashes:
        raise PathError(
            f"the path {excerpt(min(clashes))} is a file and also a directory of another file",
            id="PLG-PTH-006",
        )
    return checked


def split_path(path: str) -> tuple[str, str]:
    """Return the ustar fields (prefix, name): the leftmost `/` that leaves a name of ≤ 100 bytes.

    Raises PathError when no `/` leaves both fields within their size.
    """
    if len(path) <= NAME_FIELD_BYTES:
        return "", path
    at = path.find("/", len(path) - NAME_FIELD_BYTES - 1)
    if at <= 0 or at > PREFIX_FIELD_BYTES or at == len(path) - 1:
        raise PathError(
            f"the path {excerpt(path)} does not fit the header: no `/` leaves at most "
            f"{PREFIX_FIELD_BYTES} bytes before it and {NAME_FIELD_BYTES} after it",
            "shorten its longest component",
            id="PLG-PTH-003",
        )
    return path[:at], path[at + 1 :]
