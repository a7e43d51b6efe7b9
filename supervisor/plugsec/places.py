"""Where plugsec keeps things for this user, and the format of the state directory.

`--home` or `PLUGSEC_HOME` puts everything under one directory; otherwise the XDG Base Directory
Specification decides. Nothing here creates anything but the state directory with its format mark.
"""

import os
import stat
from collections.abc import Mapping

from plugsec import private
from plugsec.errors import PlugsecError, UsageError
from plugsec_signing.typed import NamedTuple

STATE_FORMAT = 1
STORE = "store"  # below `data`: installed bundles
_FORMAT_FILE = "format"
_FORMAT_BYTES_MAX = 16


class StateNewer(PlugsecError):
    """The state directory was written by a newer plugsec (exit 4)."""

    id = "PLG-STA-001"
    code = 4


class StateUnusable(PlugsecError):
    """The state directory cannot be created or read; without it nothing can be recorded (exit 9)."""

    id = "PLG-STA-002"
    code = 9


class StateExposed(PlugsecError):
    """Another user owns or can write a directory of ours, or the one it lies in (exit 9)."""

    id = "PLG-STA-003"
    code = 9


class Places(NamedTuple):
    """Absolute directory paths; they need not exist."""

    config: str
    data: str
    state: str
    cache: str
    trust: str
    audit: str


def resolve(
    home: str | None = None,
    trust: str | None = None,
    audit: str | None = None,
    environment: Mapping[str, str] = os.environ,
) -> Places:
    """Find the directories; raises UsageError when there is no home to put them in.

    Raises StateExposed when what exists of them is somebody else's: whoever can rename the directory that
    holds the trust store, the memory or the log decides which of them are found.
    """
    try:
        found = _resolve(home, trust, audit, environment)
    except FileNotFoundError as error:  # os.getcwd(2), for a relative path
        raise UsageError("the working directory does not exist any more", "cd to one that does") from error
    ours = (found.config, found.data, found.state, found.cache)
    for above in dict.fromkeys(map(os.path.dirname, ours)):
        # Below XDG's directories other programs make what they like; a --home is ours alone.
        _check_private(above, sticky=True, writable=not (home or environment.get("PLUGSEC_HOME")))
    for directory in ours:
        _check_private(directory)
    return found


def _resolve(
    home: str | None, trust: str | None, audit: str | None, environment: Mapping[str, str]
) -> Places:
    root = home or environment.get("PLUGSEC_HOME")
    if root:
        root = os.path.abspath(root)
        config, data, state, cache = (os.path.join(root, n) for n in ("config", "data", "state", "cache"))
    else:
        config, data, state, cache = (
            os.path.join(_base(variable, default, environment), "plugsec")
            for variable, default in (
                ("XDG_CONFIG_HOME", ".config"),
                ("XDG_DATA_HOME", ".local/share"),
                ("XDG_STATE_HOME", ".local/state"),
                ("XDG_CACHE_HOME", ".cache"),
            )
        )
    return Places(
        config,
        data,
        state,
        cache,
        os.path.abspath(trust) if trust else os.path.join(config, "trust.d"),
        os.path.abspath(audit) if audit else os.path.join(state, "audit"),
    )


def names_installed(bundle: str) -> bool:
    """Whether the word means the store: by its form alone, never by what lies in the working directory."""
    if bundle.count("/") != 1 or bundle.startswith((".", "/")) or bundle.endswith((".plug", ".plug.zst")):
        return False
    from plugsec_signing.store.names import is_stored_name  # noqa: PLC0415 - most bundles are files

    return is_stored_name(bundle)


def prepare_state(state: str) -> None:
    """Create the state directory (0700) and its format mark.

    Raises StateNewer, StateUnusable or StateExposed.
    """
    path = os.path.join(state, _FORMAT_FILE)
    _check_private(state)
    try:
        with open(path, "rb") as file:
            text = file.read(_FORMAT_BYTES_MAX)
    except FileNotFoundError:
        _create(state, path)
        return
    except OSError as error:
        raise StateUnusable(f"{path} cannot be read: {error.strerror}", "give another --home") from error
    number = int(text) if text.strip().isdigit() else STATE_FORMAT + 1
    if number > STATE_FORMAT:
        raise StateNewer(
            f"{state} was written by a newer plugsec (format {number}, this one knows {STATE_FORMAT})",
            "use that version, or another --home",
        )


def _create(state: str, path: str) -> None:
    try:
        private.make_directories(state)
        _check_private(state)  # somebody may have been faster
        private.replace(path, b"%d\n" % STATE_FORMAT)
    except OSError as error:
        raise StateUnusable(
            f"the state directory {state} cannot be written: {error.strerror}",
            "give a writable --home DIR, or set PLUGSEC_HOME",
        ) from error


def _check_private(path: str, *, sticky: bool = False, writable: bool = False) -> None:
    """Refuse a directory of another user (but root), or one that others can write; raises StateExposed.

    What does not exist yet is made by us. `sticky` tolerates one like /tmp, where nobody can rename what
    is ours; `writable` asks for the owner only. Links are followed: they are judged by where they lead
    and by who could write where they lie.
    """
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return  # whoever needs it says what is amiss
    if status.st_uid not in (os.geteuid(), 0):
        raise StateExposed(
            f"{path} belongs to uid {status.st_uid}, not to uid {os.geteuid()}",
            "give a --home DIR of your own, or set PLUGSEC_HOME; the log of another user: --audit DIR",
        )
    if status.st_mode & 0o022 and not writable and not (sticky and status.st_mode & stat.S_ISVTX):
        raise StateExposed(
            f"others may write {path}", f"chmod go-w {path}, and ask who could have written there"
        )


def _base(variable: str, default: str, environment: Mapping[str, str]) -> str:
    value = environment.get(variable, "")
    if os.path.isabs(value):  # the specification: relative paths are invalid and ignored
        return value
    home = environment.get("HOME", "")
    if not os.path.isabs(home):
        import pwd  # noqa: PLC0415 - only where HOME is unset

        try:
            home = pwd.getpwuid(os.geteuid()).pw_dir
        except KeyError as error:
            raise UsageError(
                "there is no HOME and this user has no home directory", "give --home DIR"
            ) from error
    return os.path.join(home, default)
