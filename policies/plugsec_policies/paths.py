"""Paths as permissions speak of them: compared by component as text, never looked up.

A path is absolute (`/srv/data`) or starts at a named root (`$INPUT/page`). It covers itself and everything
below it. The decision is about words only; at launch each granted path is opened without following
symbolic links (openat2(2), RESOLVE_NO_SYMLINKS), so a link cannot stand in for another place.
"""

from plugsec_policies.errors import NeverGrantable, PermissionInvalid

# What a run brings with it: files given to it, files it leaves, its own lasting files, its configuration.
ROOTS = frozenset({"$INPUT", "$OUTPUT", "$STATE", "$CONFIG"})
# These are written by the operator or the supervisor, never by the plugin.
READ_ONLY_ROOTS = frozenset({"$INPUT", "$CONFIG"})
# PATH_MAX and NAME_MAX of Linux (limits.h), in bytes.
PATH_BYTES_MAX = 4095
NAME_BYTES_MAX = 255
# Deeper than any real layout; bounds the length of comparisons.
DEPTH_MAX = 64
# Kernel interfaces: the host's /proc leads to other processes' roots and descriptors (proc_pid_root(5)),
# /sys and /dev to its devices. The jail brings its own /proc and /dev.
NEVER = ("/proc", "/sys", "/dev")


def parse_path(text: object, *, deny: bool = False) -> str:
    """Return the path if it is written in its only form. Raises PermissionInvalid or NeverGrantable.

    A rule that denies may name anything; one that grants may not name `/` or a kernel interface.
    """
    if not isinstance(text, str) or not text:
        raise PermissionInvalid("a path is not a text", 'write for instance paths = ["$INPUT", "/srv/data"]')
    _check_characters(text)
    root, *parts = text.split("/")
    if root and root not in ROOTS:
        raise PermissionInvalid(
            f"the path {text} is neither absolute nor under a named root",
            "start it with / or with one of " + " ".join(sorted(ROOTS)),
        )
    if text != "/":
        _check_parts(text, parts)
    if not deny:
        _check_grantable(text)
    return text


def _check_characters(text: str) -> None:
    try:
        size = len(text.encode())
    except UnicodeEncodeError as err:
        raise PermissionInvalid("a path holds half a surrogate pair", "write it in UTF-8") from err
    if size > PATH_BYTES_MAX:
        raise PermissionInvalid(f"a path of {size} bytes is longer than {PATH_BYTES_MAX}", "shorten it")
    if not text.isprintable():
        raise PermissionInvalid("a path holds control or invisible characters", "remove them")
    if "*" in text or "?" in text:
        raise PermissionInvalid(
            f"the path {text} holds a wildcard", "name the directory: a path covers everything below it"
        )


def _check_parts(text: str, parts: list[str]) -> None:
    if len(parts) > DEPTH_MAX:
        raise PermissionInvalid(
            f"the path {text[:60]}… is more than {DEPTH_MAX} directories deep", "shorten it"
        )
    for part in parts:
        if part in ("", ".", ".."):
            raise PermissionInvalid(
                f"the path {text} holds an empty, . or .. part",
                "write it plainly, without a slash at the end: permissions are compared as text",
            )
        if len(part.encode()) > NAME_BYTES_MAX:
            raise PermissionInvalid(
                f"a part of the path {text[:60]}… is longer than {NAME_BYTES_MAX} bytes", "shorten it"
            )


def _check_grantable(text: str) -> None:
    if text == "/":
        raise NeverGrantable("the path / would grant the whole host", "name the directories that are needed")
    for kernel in NEVER:
        if covers(kernel, text):
            raise NeverGrantable(
                f"the path {text} is an interface of the host's kernel and can never be granted",
                "remove it: the jail has a /proc and a /dev of its own",
            )


def covers(upper: str, lower: str) -> bool:
    """Tell whether `upper` is `lower` or a directory above it, both as `parse_path` returns them."""
    if upper == "/":
        return lower.startswith("/")
    return lower == upper or lower.startswith(upper + "/")


def root_of(path: str) -> str:
    """Return the named root a path starts at, or the empty text for an absolute path."""
    return path.partition("/")[0]
