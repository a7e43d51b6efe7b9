"""Which files of a plugin's directory go into its bundle.

The directory is walked by descriptor and nothing in it is followed: a link, a device or a socket is
refused unless the author excluded it. The result is sorted and free of everything that differs between two
machines, so that the same sources give the same bundle.
"""

import os
import re
import stat
from collections.abc import Iterator, Sequence

from plugsec_plugins.errors import PackFailed, PackRefused, SecretFound
from plugsec_plugins.project import PROJECT_FILE
from plugsec_plugins.secrets import suspicious_name
from plugsec_signing.envelope import MAX_FILES
from plugsec_signing.errors import PathError
from plugsec_signing.paths import check_path
from plugsec_signing.typed import NamedTuple

# What builds, editors and version control leave behind; never part of a plugin.
ALWAYS_EXCLUDED: tuple[str, ...] = (
    "/" + PROJECT_FILE,
    "__pycache__",
    "*.pyc",
    "*.pyo",
    "*.plug",
    "*~",
    "*.swp",
    "venv",
    "node_modules",
    "*.egg-info",
)
# That of a bundle's paths.
DEPTH_MAX = 32
# Stars in one pattern: matching tries their combinations.
STARS_MAX = 8
# Files looked at, packed or not.
SEEN_MAX = 4 * MAX_FILES


class Found(NamedTuple):
    """A file to pack; `executable` as its owner's permission says."""

    path: str
    executable: bool


class Exclusions:
    """The patterns of `exclude`: `*` stands for any run of characters in a name, `**` for any directories.

    A pattern without a slash (but at its end) is sought at every depth; one that matches a directory excludes
    all below it.
    """

    def __init__(self, patterns: Sequence[str]) -> None:
        self._patterns = [_compile(pattern) for pattern in patterns]

    def match(self, path: str) -> bool:
        """Tell whether the path itself is excluded."""
        return any(pattern.fullmatch(path) for pattern in self._patterns)


def _compile(pattern: str) -> re.Pattern[str]:
    if pattern.count("*") > STARS_MAX or not pattern.strip("/"):
        raise PackRefused(
            f"the pattern {pattern} under exclude is empty or has more than {STARS_MAX} stars",
            'write for instance exclude = ["tests/**", "*.md"]',
        )
    anchored = "/" in pattern.rstrip("/")
    parts = pattern.strip("/").split("/")
    words = []
    for index, part in enumerate(parts):
        last = index == len(parts) - 1
        if part == "**":
            words.append(".+" if last else "(?:[^/]+/)*")
        else:
            words.append("[^/]*".join(re.escape(piece) for piece in part.split("*")) + ("" if last else "/"))
    return re.compile(("" if anchored else "(?:[^/]+/)*") + "".join(words), re.DOTALL)


def find_files(directory: str, exclude: Sequence[str]) -> tuple[tuple[Found, ...], tuple[str, ...]]:
    """Return the files to pack, in byte order, and what was left out because its name begins with a dot.

    Raises PackRefused, SecretFound, and PackFailed where the directory cannot be read.
    """
    exclusions = Exclusions((*ALWAYS_EXCLUDED, *exclude))
    found: list[Found] = []
    hidden: list[str] = []
    seen = 0
    try:
        top = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        for entry, path in _walk(top, "", exclusions, 1):
            seen += 1
            if seen > SEEN_MAX:
                raise PackRefused(
                    f"{directory} holds more than {SEEN_MAX} files", "exclude what is not needed"
                )
            if suspicious_name(entry.name):
                raise SecretFound(
                    f"{path} looks like a file of secrets", f'add "{path}" to exclude in {PROJECT_FILE}'
                )
            if entry.name.startswith("."):
                hidden.append(path)
                continue
            found.append(_check(entry, path))
    except OSError as err:
        raise PackFailed(
            f"{err.filename or directory} cannot be read: {err.strerror}", "name a readable directory"
        ) from err
    if len(found) > MAX_FILES:
        raise PackRefused(f"{directory} holds more than {MAX_FILES} files", "exclude what is not needed")
    return tuple(sorted(found)), tuple(sorted(hidden))


def _walk(
    top: int, prefix: str, exclusions: Exclusions, depth: int
) -> Iterator[tuple["os.DirEntry[str]", str]]:
    """Yield everything that is not a directory and not excluded; `top` is closed at the end."""
    try:
        with os.scandir(top) as entries:
            for entry in entries:
                path = prefix + entry.name
                if exclusions.match(path):
                    continue
                if not entry.is_dir(follow_symlinks=False):
                    yield entry, path
                elif not entry.name.startswith("."):
                    if depth >= DEPTH_MAX:
                        raise PackRefused(
                            f"{path} is more than {DEPTH_MAX} directories deep", "exclude or flatten it"
                        )
                    inner = os.open(
                        entry.name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=top
                    )
                    yield from _walk(inner, path + "/", exclusions, depth + 1)
    finally:
        os.close(top)


_KINDS = (
    (stat.S_ISLNK, "symbolic link", "copy the file it points to"),
    (stat.S_ISSOCK, "socket", "remove it"),
    (stat.S_ISFIFO, "named pipe", "remove it"),
    (stat.S_ISBLK, "device", "remove it"),
    (stat.S_ISCHR, "device", "remove it"),
)


def _check(entry: "os.DirEntry[str]", path: str) -> Found:
    mode = entry.stat(follow_symlinks=False).st_mode
    for is_kind, name, advice in _KINDS:
        if is_kind(mode):
            raise PackRefused(
                f"{path} is a {name}, and a bundle holds regular files only",
                f'{advice}, or add "{path}" to exclude in {PROJECT_FILE}',
            )
    try:
        check_path(path)
    except PathError as err:
        raise PackRefused(
            f"{path} cannot be in a bundle: {err.message}",
            f"rename it, or add it to exclude in {PROJECT_FILE}",
        ) from err
    return Found(path, bool(mode & stat.S_IXUSR))
