"""Take a plugin's results out of `$OUTPUT`, after its jail is dead.

The directory is a stranger's: every name, type, size and link in it was chosen to hurt. So it is walked
by descriptor, never by path (openat2(2) with RESOLVE_BENEATH, NO_SYMLINKS and NO_XDEV), in two steps:

    1. look: list everything; types, links, names, depth, counts and sizes, before a byte is read.
       `st_size` counts, holes included: a sparse file is as large as what reading it would return
    2. copy: open each file again, check that it is still the same, and read no more than it said

The copy grows in a hidden sibling of the destination, which is renamed into place when it is complete;
after any failure nothing is left. Files get the caller's umask, never the plugin's mode or times.
Directories without files are not results and are not copied.
"""

import errno
import os
import stat
from hashlib import sha256

from plugsec.errors import ExchangeError, PlugsecError, UsageError
from plugsec.exchange.display import escape
from plugsec.sandbox.linux import RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS, RESOLVE_NO_XDEV, openat2
from plugsec_signing.typed import NamedTuple

MAX_PATH_BYTES = 4095  # PATH_MAX without its NUL: what openat2 takes in one call
MAX_DEPTH = 64  # descriptors held while looking; whatever the caller allows, no more than this
_CHUNK = 1 << 20
_RESOLVE = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY
_KINDS = {
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


class OutputRefused(ExchangeError):
    """What the plugin left in $OUTPUT breaks the exchange rules; nothing of it was kept (exit 5)."""

    id = "PLG-IO-010"


class OutputNotWritten(PlugsecError):
    """The results could not be written to where they should go (exit 2: another place is needed)."""

    id = "PLG-IO-011"
    code = 2


class Collected(NamedTuple):
    """One result: its path below the destination, its bytes, and their SHA-256 in hexadecimal."""

    path: str
    size: int
    sha256: str


class _Seen(NamedTuple):
    path: str
    size: int
    device: int
    inode: int


def collect(
    output_dirfd: int,
    destination: str,
    *,
    max_files: int,
    max_file_bytes: int,
    max_total_bytes: int,
    max_depth: int,
) -> tuple[Collected, ...]:
    """Copy every file below `output_dirfd` into the fresh directory `destination`; sorted by path.

    `max_files` counts directories too, `max_depth` the directories above a file (0: none). Raises
    OutputRefused (exit 5) for anything but plain files within the limits, UsageError (2) when the
    destination is in use, OutputNotWritten (2) when it cannot be written. The destination must not exist
    or be an empty directory; on any error it is as it was.
    """
    target = check_destination(destination)
    try:
        seen = _look(output_dirfd, max_files, min(max_depth, MAX_DEPTH))
    except OSError as err:
        raise OutputRefused(f"$OUTPUT cannot be listed: {err.strerror}") from err
    total = 0
    for file in seen:
        if file.size > max_file_bytes:
            raise OutputRefused(
                f"the result {file.path} is {file.size} bytes; at most {max_file_bytes} are taken",
                "raise the limit file_bytes, in the manifest and the policy",
            )
        total += file.size
    if total > max_total_bytes:
        raise OutputRefused(
            f"the results are {total} bytes together; at most {max_total_bytes} are taken",
            "raise the limit tmp_bytes, in the manifest and the policy",
        )
    return _copy_all(output_dirfd, target, seen)


def check_destination(destination: str) -> str:
    """Return the absolute path of a place for results; ask before a run, so that it is not for nothing.

    Raises UsageError (2) when something is there, OutputNotWritten (2) when nothing can be put there.
    """
    target = os.path.abspath(destination)
    try:
        status = os.lstat(target)
        free = stat.S_ISDIR(status.st_mode) and not os.listdir(target)
    except FileNotFoundError:
        free = True
    except OSError as err:
        raise OutputNotWritten(f"cannot look at the output directory {target}: {err.strerror}") from err
    if not free:
        raise UsageError(
            f"the output directory {target} is in use; results go to a new or empty directory",
            "choose another one, or remove it",
        )
    parent = os.path.dirname(target)
    if not (os.path.isdir(parent) and os.access(parent, os.W_OK | os.X_OK, effective_ids=True)):
        raise OutputNotWritten(
            f"cannot write into {parent}, where the output directory should appear",
            "create it first, or choose another directory with --output-dir",
        )
    return target


# Step 1: look


def _look(output_dirfd: int, max_files: int, max_depth: int) -> list[_Seen]:
    """Every file, checked as far as can be without reading; sorted by path."""
    found: list[_Seen] = []
    entries = 0
    pending = [""]  # directories still to be listed, by path; bounded by max_files like everything else
    while pending:
        directory = pending.pop()
        fd = _open(output_dirfd, directory or ".", os.O_DIRECTORY | _READ)
        try:
            with os.scandir(fd) as listing:
                for entry in listing:
                    entries += 1
                    if entries > max_files:
                        raise OutputRefused(
                            f"the plugin left more than {max_files} files and directories",
                            "raise the limit files, in the manifest and the policy",
                        )
                    path = _check_name(directory, entry.name)
                    status = os.stat(entry.name, dir_fd=fd, follow_symlinks=False)
                    if stat.S_ISDIR(status.st_mode):
                        if path.count("/") >= max_depth:
                            raise OutputRefused(
                                f"the result {path} nests deeper than {max_depth} directories",
                                "write fewer levels",
                            )
                        pending.append(path)
                    else:
                        found.append(_check_file(path, status))
        finally:
            os.close(fd)
    return sorted(found)


def _check_name(directory: str, name: str) -> str:
    """Refuse names that would deceive or hurt whoever handles the results; return the path."""
    # An undecodable byte arrives as a surrogate, which `escape` alters as well.
    if escape(name) != name or "\\" in name:
        raise OutputRefused(
            f"the result {escape(name)} has a control, invisible or undecodable character,"
            " or a backslash, in its name",
            "use printable names",
        )
    if name.startswith("-") or name != name.strip():
        raise OutputRefused(
            f"the name of the result {name!r} begins with '-' or a space, or ends with one", "use plain names"
        )
    path = f"{directory}/{name}" if directory else name
    if len(os.fsencode(path)) > MAX_PATH_BYTES:
        raise OutputRefused(f"a result's path is longer than {MAX_PATH_BYTES} bytes", "use shorter names")
    return path


def _check_file(path: str, status: os.stat_result) -> _Seen:
    if not stat.S_ISREG(status.st_mode):
        kind = _KINDS.get(stat.S_IFMT(status.st_mode), "not a file")
        raise OutputRefused(f"the result {path} is {kind}", "leave only plain files in $OUTPUT")
    if status.st_nlink != 1:
        raise OutputRefused(
            f"the result {path} has {status.st_nlink} names (hard links)", "leave only plain files in $OUTPUT"
        )
    return _Seen(path, status.st_size, status.st_dev, status.st_ino)


def _open(output_dirfd: int, path: str, flags: int) -> int:
    try:
        return openat2(output_dirfd, path, flags, 0, _RESOLVE)
    except OSError as err:
        if err.errno in (errno.ENFILE, errno.EMFILE, errno.ENOMEM):
            raise OutputNotWritten(f"cannot open the result {path}: {err.strerror}") from err
        raise OutputRefused(
            f"the result {path} cannot be opened: {err.strerror}",
            "leave readable plain files in $OUTPUT, on no other mount",
        ) from err


# Step 2: copy


def _copy_all(output_dirfd: int, target: str, seen: list[_Seen]) -> tuple[Collected, ...]:
    parent, name = os.path.split(target)
    part = os.path.join(parent, f".{name[:50]}.{os.urandom(8).hex()}.part")
    directories: dict[str, None] = {}  # what was made, in order: what a failure has to take back
    copied: list[str] = []
    try:
        os.mkdir(part)
        directories[part] = None
        results = []
        for file in seen:
            for directory in _above(part, file.path):
                if directory not in directories:
                    os.mkdir(directory)
                    directories[directory] = None
            copied.append(os.path.join(part, file.path))
            results.append(_copy(output_dirfd, file, copied[-1]))
        os.rename(part, target)
    except OSError as err:
        _remove(copied, list(directories))
        raise OutputNotWritten(
            f"cannot write the results to {target}: {err.strerror}",
            "choose another directory with --output-dir",
        ) from err
    except BaseException:
        _remove(copied, list(directories))
        raise
    return tuple(results)


def _above(part: str, path: str) -> list[str]:
    """The directories to make for a file, outermost first."""
    parts = path.split("/")[:-1]
    return [os.path.join(part, *parts[: count + 1]) for count in range(len(parts))]


def _remove(copied: list[str], made: list[str]) -> None:
    """Take back an unfinished copy, as far as the system lets us."""
    for remove, paths in ((os.unlink, copied), (os.rmdir, made)):
        for path in reversed(paths):
            try:
                remove(path)
            except OSError:
                continue


def _copy(output_dirfd: int, file: _Seen, target: str) -> Collected:
    """Copy one file that must still be what was looked at; reads at most one byte more than it said."""
    source = _open(output_dirfd, file.path, _READ)
    try:
        if _check_file(file.path, os.fstat(source)) != file:
            raise _changed(file)
        digest, left = sha256(), file.size
        fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        with os.fdopen(fd, "wb", buffering=0) as out:
            # One byte more than was said is asked for: if it comes, the file has grown.
            while chunk := _read(source, file, min(_CHUNK, left + 1)):
                left -= len(chunk)
                digest.update(chunk)
                rest = memoryview(chunk)
                while rest:
                    rest = rest[out.write(rest) or 0 :]
        if left:
            raise _changed(file)
        return Collected(file.path, file.size, digest.hexdigest())
    finally:
        os.close(source)


def _read(source: int, file: _Seen, size: int) -> bytes:
    try:
        return os.read(source, size)
    except OSError as err:
        raise OutputRefused(f"the result {file.path} cannot be read: {err.strerror}") from err


def _changed(file: _Seen) -> OutputRefused:
    return OutputRefused(
        f"the result {file.path} changed while it was collected",
        "something outlived the jail: please report it",
    )
