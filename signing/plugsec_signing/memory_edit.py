"""Changing the memory of what was accepted: one writer at a time, the whole file replaced by one rename.

Readers take no lock: they see the memory before or after a change, never in between. Loaded only when
there is something new, once for each bundle.
"""

import fcntl
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from plugsec_signing import canonical
from plugsec_signing.errors import NotRemembered, TrustMemoryError, TrustMemoryUnwritable, excerpt
from plugsec_signing.memory import (
    FORMAT,
    MAX_BYTES,
    MAX_LISTS,
    Remembered,
    Seen,
    damaged,
    parse_header,
    parse_line,
    read,
    sealed,
)
from plugsec_signing.private import make_directories
from plugsec_signing.revocation import RevocationList
from plugsec_signing.trust import Verdict, is_downgrade, require, rival
from plugsec_signing.typed import NamedTuple

MAX_BUNDLES = 8192  # of all plugins; some 2 MiB, and years of daily releases
MAX_SIGNERS = 64  # of one bundle over time; it carries at most 16 at once
LOCK_WAIT_S = 10  # a change takes milliseconds; whoever holds the lock longer is stopped or hostile
_LOCK_STEP_S = 0.02


Announce = Callable[[Mapping[str, Seen]], object]


def _silently(_: object) -> None:
    """Announce nothing: for callers without an audit log."""


class Memory(NamedTuple):
    """Everything that is remembered: `plugins` by name, revocation lists by `memory.origin`."""

    newest: int
    revocations: Mapping[str, tuple[int, str]]
    plugins: Mapping[str, Mapping[str, Seen]]


def load(path: str) -> Memory:
    """Return everything that is remembered, every line checked; raises TrustMemoryError (exit 4)."""
    body = read(path)
    if body is None:
        return Memory(0, {}, {})
    newest, lists = parse_header(body, path)
    plugins: dict[str, dict[str, Seen]] = {}
    for line in body.splitlines()[1:]:
        name, bundles = parse_line(line, path)
        if name in plugins:
            raise damaged(path, f"{excerpt(name)} has two lines")
        plugins[name] = bundles
    return Memory(newest, lists, plugins)


def add(path: str, verdict: Verdict) -> None:
    """Remember an accepted bundle. Raises TrustRefused (exit 3) when it has become a downgrade meanwhile.

    The time noted is the clock's, but never earlier than what is remembered already, and a time once noted
    never changes: a clock that is put back cannot make a bundle older than a key's compromise.
    """
    candidate = verdict.candidate
    with _locked(path):
        memory = load(path)
        bundles = dict(memory.plugins.get(candidate.name, {}))
        _judge_again(verdict, Remembered(bundles, memory.newest, 0))
        newest = max(memory.newest, verdict.now)
        known = bundles.get(candidate.bundle_id)
        counted = dict.fromkeys((signer.fingerprint for signer in verdict.signers), newest)
        signers = {**counted, **(known.signers if known is not None else {})}
        oldest_first = sorted(signers.items(), key=lambda item: item[1])
        bundles[candidate.bundle_id] = Seen(candidate.release, dict(oldest_first[:MAX_SIGNERS]))
        plugins = bounded({**memory.plugins, candidate.name: bundles}, keep=candidate.bundle_id)
        lists = memory.revocations
        if verdict.revocations is not None:
            lists = with_list(lists, verdict.revocations)
        _write(path, Memory(newest, lists, plugins))


def note_list(path: str, accepted: RevocationList) -> None:
    """Remember a revocation list that was accepted here, unless a later one of its trust store was."""
    with _locked(path):
        memory = load(path)
        lists = with_list(memory.revocations, accepted)
        if lists != memory.revocations:
            _write(path, memory._replace(revocations=lists))


def with_list(lists: Mapping[str, tuple[int, str]], accepted: RevocationList) -> dict[str, tuple[int, str]]:
    """Return what is remembered of lists after this one; never an older one in place of a later one.

    Raises TrustMemoryError when lists of too many trust stores were accepted here.
    """
    found = dict(lists)
    if accepted.sequence > found.get(accepted.origin, (0, ""))[0]:
        found[accepted.origin] = (accepted.sequence, accepted.digest)
    if len(found) > MAX_LISTS:
        raise TrustMemoryError(
            f"revocation lists of more than {MAX_LISTS} trust stores were accepted here",
            "use another --home for some of them",
            id="PLG-MEM-005",
        )
    return found


def forget(path: str, name: str, *, announce: Announce = _silently) -> Mapping[str, Seen]:
    """Forget a plugin and return what was known of it; raises NotRemembered (exit 2).

    `announce` is called when nothing but the change is left to do, so that one which cannot be recorded
    does not happen.
    """
    with _locked(path):
        memory = load(path)
        if name not in memory.plugins:
            known = ", ".join(sorted(memory.plugins)[:_NAMED_MAX]) or "none"
            raise NotRemembered(f"nothing of {excerpt(name)} was accepted here", f"remembered are: {known}")
        plugins = {other: bundles for other, bundles in memory.plugins.items() if other != name}
        # So a clock that once ran ahead can be forgotten with the plugin that was accepted meanwhile.
        times = (
            when
            for bundles in plugins.values()
            for seen in bundles.values()
            for when in seen.signers.values()
        )
        announce(memory.plugins[name])
        _write(path, memory._replace(newest=max(times, default=0), plugins=plugins))
        return memory.plugins[name]


def set_aside(path: str, *, announce: Callable[[str], object] = _silently) -> str:
    """Begin with an empty memory; return where the old one, however damaged, was moved to."""
    with _locked(path):
        if not os.path.lexists(path):
            raise NotRemembered("nothing was accepted here yet")
        aside = f"{path}.{os.urandom(4).hex()}"
        announce(aside)
        os.rename(path, aside)
        return aside


def bounded(plugins: Mapping[str, Mapping[str, Seen]], *, keep: str) -> Mapping[str, Mapping[str, Seen]]:
    """Drop the bundles that were accepted longest ago until MAX_BUNDLES remain.

    Never a plugin's highest release, without which a downgrade could pass, and never `keep`. What is
    forgotten is refused more, not less: an old release whose key has expired. Raises TrustMemoryError
    when there are more plugins than that.
    """
    excess = sum(map(len, plugins.values())) - MAX_BUNDLES
    if excess <= 0:
        return dict(plugins)
    kept: dict[str, dict[str, Seen]] = {name: dict(bundles) for name, bundles in plugins.items()}
    spare = sorted(
        (seen.first, name, bundle_id)
        for name, bundles in plugins.items()
        for bundle_id, seen in bundles.items()
        if bundle_id != keep and seen.release != max(each.release for each in bundles.values())
    )
    if len(spare) < excess:
        raise TrustMemoryError(
            f"more than {MAX_BUNDLES} plugins were accepted here; more cannot be remembered",
            "plugsec trust forget NAME, for plugins that are no longer used",
            id="PLG-MEM-005",
        )
    for _, name, bundle_id in spare[:excess]:
        del kept[name][bundle_id]
    return kept


_NAMED_MAX = 20


def _judge_again(verdict: Verdict, remembered: Remembered) -> None:
    """Refuse what another start, since the verdict, has made a second bundle or a downgrade."""
    candidate = verdict.candidate
    if rival(candidate, remembered) is not None:
        require(verdict._replace(remembered=remembered, refused="PLG-TRU-014"))
    if is_downgrade(candidate, remembered) and not verdict.downgrade_allowed:
        require(verdict._replace(remembered=remembered, refused="PLG-TRU-013"))


@contextmanager
def _locked(path: str) -> Iterator[None]:
    """Keep writers apart by flock(2) on the directory, which is made 0700; raises TrustMemoryError."""
    directory = os.path.dirname(path)
    try:
        make_directories(directory)
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as err:
        raise TrustMemoryUnwritable(f"{directory} cannot be made or opened: {err}") from err
    try:
        _lock(fd, directory)
        yield
    except OSError as err:
        raise TrustMemoryUnwritable(f"the memory {path} cannot be written: {err}") from err
    finally:
        os.close(fd)


def _lock(fd: int, directory: str) -> None:
    end = time.monotonic() + LOCK_WAIT_S
    while True:  # ends at `end`
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError as err:
            if time.monotonic() > end:
                raise TrustMemoryError(
                    f"another plugsec has held {directory} for {LOCK_WAIT_S} seconds",
                    f"fuser {directory} shows which",
                    id="PLG-MEM-007",
                ) from err
        time.sleep(_LOCK_STEP_S)


def _write(path: str, memory: Memory) -> None:
    """Replace the memory; a power cut leaves the old one or the new one, whole. Raises OSError."""
    header = {
        "format": FORMAT,
        "newest": memory.newest,
        "revocations": {origin: list(latest) for origin, latest in memory.revocations.items()},
    }
    lines = [canonical.encode(header)]
    for name in sorted(memory.plugins):
        entries = {
            bundle_id: {"release": seen.release, "signers": dict(seen.signers)}
            for bundle_id, seen in memory.plugins[name].items()
        }
        lines.append(canonical.encode([name, entries]))
    data = sealed(b"".join(line + b"\n" for line in lines))
    if len(data) > MAX_BYTES:
        raise TrustMemoryError(f"the memory {path} would exceed {MAX_BYTES} bytes", id="PLG-MEM-005")
    new = f"{path}.{os.urandom(8).hex()}"
    try:
        _write_new(new, data)
        os.replace(new, path)
    except BaseException:
        try:
            os.unlink(new)
        except FileNotFoundError:
            pass
        raise
    directory = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)  # a release that was seen must still be known after a power cut
    finally:
        os.close(directory)


def _write_new(path: str, data: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with open(fd, "wb") as file:
        os.fchmod(fd, 0o600)  # even under a umask that takes it away
        file.write(data)
        file.flush()
        os.fsync(fd)
