"""Whose signatures count, for which plugins, and when: the operator's `trust.d/*.toml`, and the decision.

Reading TOML is left to `trust_toml`, because a run takes the plain form from a cache and must not load a
TOML parser; the words of a refusal are left to `trust_words`. The decision is pure: it is made from the
store, the verified signatures, the clock, the revocation list and what is remembered here (`memory`).
A signature alone never makes anything worse: a third party could add it.
"""

import hashlib
import os
import stat
from collections.abc import Callable, Iterable, Mapping, Sequence

from plugsec_signing import keys
from plugsec_signing.errors import KeyRefused, TrustStoreError, excerpt
from plugsec_signing.memory import NOTHING, Remembered, Seen, recall
from plugsec_signing.typed import Any, NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from plugsec_signing.revocation import RevocationList
    from plugsec_signing.verify import Settled

RELEASE = "release"
ROOT_FILE = "root.json"  # the part of a trust store that is changed by its signers only (`root`)
MAX_FILES = 1000  # one file per key, for more publishers than an operator can know
MAX_FILE_BYTES = 1024 * 1024
MAX_KEYS = 10_000
MAX_RULES = 1000  # each costs a run a comparison
MAX_THRESHOLD = 16  # a bundle carries no more signatures

# Why a verified signature counts under an entry of its key, or does not.
COUNTED, REMEMBERED = "counted", "remembered"  # valid now; valid when it first counted here
GLOB, NOT_YET, EXPIRED = "other-plugins", "not-yet-valid", "expired"
SUPERSEDED, COMPROMISED = "superseded", "compromised"
COUNTS = frozenset((COUNTED, REMEMBERED))
MISSES = {  # the gravest first, then the nearest
    COMPROMISED: "PLG-TRU-008",
    SUPERSEDED: "PLG-TRU-009",
    EXPIRED: "PLG-TRU-005",
    NOT_YET: "PLG-TRU-004",
    GLOB: "PLG-TRU-003",
}

Plain = Mapping[str, Any]


class TrustedKey(NamedTuple):
    """One key entry; times in unix seconds, None meaning unbounded."""

    id: str
    key: keys.PublicKey
    fingerprint: str
    publisher: str
    plugins: tuple[str, ...]
    role: str
    valid_after: int | None
    valid_before: int | None


class Rule(NamedTuple):
    """What must hold besides a release: `threshold` distinct keys with one of these roles; `id` may be ""."""

    id: str
    plugins: tuple[str, ...]
    threshold: int
    roles: tuple[str, ...]


class Candidate(NamedTuple):
    """The part of a bundle's identity that trust is about; `expires` in unix seconds."""

    name: str
    version: str
    release: int
    expires: int | None
    bundle_id: str


class Signer(NamedTuple):
    """A key entry whose signature counted, for the evidence."""

    key_id: str
    publisher: str
    role: str
    fingerprint: str


class Considered(NamedTuple):
    """A verified signature under one entry of its key; `reason` is COUNTED, REMEMBERED or one of MISSES."""

    entry: TrustedKey
    reason: str


class Count(NamedTuple):
    """A rule for the plugin, and the entries that count towards it."""

    rule: Rule
    entries: tuple[TrustedKey, ...]

    @property
    def keys(self) -> int:
        """How many distinct keys those are, by their raw bytes: a second id or spelling adds nothing."""
        return len({entry.key.raw for entry in self.entries})

    @property
    def holds(self) -> bool:
        """Whether they are enough."""
        return self.keys >= self.rule.threshold


class Verdict(NamedTuple):
    """All that was weighed about one bundle. `refused` is the id of what is amiss, or "" when accepted.

    `signers` are the entries that counted. `downgrade_allowed` is what the operator said, `downgrade`
    whether the bundle is one.
    """

    candidate: Candidate
    now: int
    present: frozenset[str]
    considered: tuple[Considered, ...]
    rules: tuple[Count, ...]
    signers: tuple[Signer, ...]
    remembered: Remembered
    revocations: "RevocationList | None"
    downgrade_allowed: bool
    refused: str

    @property
    def downgrade(self) -> bool:
        """Whether a higher release of the plugin was accepted here before."""
        return is_downgrade(self.candidate, self.remembered)

    @property
    def revocations_stale(self) -> bool:
        """Whether a newer revocation list than the one that was asked is due."""
        listed = self.revocations
        return listed is not None and max(self.now, self.remembered.newest) >= listed.next_update

    @property
    def clock_is_behind(self) -> bool:
        """Whether the clock shows an earlier time than this machine remembers."""
        return self.now < self.remembered.newest


class TrustStore(NamedTuple):
    """All key entries and rules; `digest` (hex SHA-256) names exactly the source they were read from.

    `revocation_threshold` is how many distinct keys must sign a revocation list; only a trust root asks
    for more than one.
    """

    keys: tuple[TrustedKey, ...]
    rules: tuple[Rule, ...]
    digest: str
    revocation_threshold: int = 1

    @classmethod
    def from_plain(cls, plains: Sequence[Plain], *, digest: str | None = None) -> "TrustStore":
        """Build the store from the plain forms of its files; raises TrustStoreError (exit 4).

        Keys are parsed (and weak ones refused) again here, so a cached plain form is never authority.
        Without `digest` the store is named by its plain form.
        """
        try:
            entries = tuple(_trusted_key(entry) for plain in plains for entry in plain["key"])
            rules = tuple(_rule(rule) for plain in plains for rule in plain["rule"])
            thresholds = [_threshold(plain.get("revocation_threshold", 1)) for plain in plains]
        except (KeyError, TypeError, ValueError, AttributeError) as err:
            raise TrustStoreError("the plain form of the trust store is malformed", id="PLG-TST-002") from err
        except KeyRefused as err:
            raise TrustStoreError(
                f"the trust store holds a key that is refused: {err}", id="PLG-TST-006"
            ) from err
        if len(entries) > MAX_KEYS:
            raise TrustStoreError(f"the trust store has more than {MAX_KEYS} keys", id="PLG-TST-005")
        if len(rules) > MAX_RULES:
            raise TrustStoreError(f"the trust store has more than {MAX_RULES} rules", id="PLG-TST-005")
        _check_distinct("keys", [entry.id for entry in entries])
        _check_distinct("rules", [rule.id for rule in rules if rule.id])
        if digest is None:
            from plugsec_signing.canonical import encode  # noqa: PLC0415 - only without a source

            digest = hashlib.sha256(encode(list(plains))).hexdigest()
        return cls(entries, rules, digest, max(thresholds, default=1))


def parse_trust_toml(text: str) -> dict[str, Any]:
    """Return the validated plain form of one trust file; raises TrustStoreError (exit 4)."""
    from plugsec_signing.trust_toml import parse  # noqa: PLC0415 - loads a TOML parser, 20 ms

    return parse(text)


def load_trust(directory: str, *, parse: Callable[[str], Plain] = parse_trust_toml) -> TrustStore:
    """Read every `*.toml` of a trust directory and its trust root, in byte order of the names.

    `parse` lets a caller keep plain forms by the digest of the text. A directory that does not exist is
    a store without keys. Raises TrustStoreError (exit 4), also when anybody but the user or root owns or
    can write the directory or a file: such a store says nothing about whom the operator trusts.
    """
    digest = hashlib.sha256()
    plains: list[Plain] = []
    for name, content in read_trust_files(directory):
        digest.update(b"%d %s %d\n" % (len(name), os.fsencode(name), len(content)) + content)
        try:
            plains.append(parse(content.decode("utf-8")))
        except UnicodeDecodeError as err:
            raise TrustStoreError(
                f"{excerpt(name)} in the trust store is not UTF-8", id="PLG-TST-001"
            ) from err
        except TrustStoreError as err:
            where = f"{os.path.join(directory, name)}: {err.message}"
            raise TrustStoreError(where, err.hint, id=err.id) from err
    return TrustStore.from_plain(plains, digest=digest.hexdigest())


def load_revocations(
    directory: str, store: TrustStore, now: int, memory: str, settled: "Settled | None" = None
) -> "RevocationList | None":
    """Return the signed revocation list of a trust directory; None if there is none.

    `memory` is the path of what is remembered here. Raises RevocationError (exit 4; 3 for its signatures).
    """
    if not os.path.lexists(os.path.join(directory, "revocations.json")):
        return None
    from plugsec_signing import revocation  # noqa: PLC0415 - only where there is a list

    return revocation.load(
        directory, store, now,
        accepted=lambda: recall(memory, "", directory).revocation_digest, settled=settled,
    )  # fmt: skip


def read_trust_files(directory: str) -> list[tuple[str, bytes]]:
    """Return (name, content) of the trust files, each checked through the descriptor that is read."""
    try:
        dir_fd = open_directory(directory)
    except FileNotFoundError:
        return []
    try:
        check_private(os.fstat(dir_fd), directory)
        names = sorted(name for name in os.listdir(dir_fd) if name.endswith(".toml") or name == ROOT_FILE)
        if len(names) > MAX_FILES:
            raise TrustStoreError(f"the trust store has more than {MAX_FILES} files", id="PLG-TST-005")
        return [(name, _read_file(dir_fd, name, os.path.join(directory, name))) for name in names]
    except OSError as err:
        raise TrustStoreError(f"the trust store {directory} cannot be read: {err}", id="PLG-TST-001") from err
    finally:
        os.close(dir_fd)


def open_directory(directory: str) -> int:
    """Open a trust directory, which may not be a link; raises TrustStoreError and FileNotFoundError.

    Whoever made the link would choose which directory is the store. Links above it are the user's.
    """
    try:
        return os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as err:
        if isinstance(err, NotADirectoryError) and os.path.islink(directory):
            raise TrustStoreError(
                f"the trust store {directory} is a link", "name the real directory with --trust DIR",
                id="PLG-TST-003",
            ) from err  # fmt: skip
        raise TrustStoreError(
            f"the trust store {directory} cannot be opened: {err}", id="PLG-TST-001"
        ) from err


def check_private(status: os.stat_result, path: str) -> None:
    """Refuse what somebody else owns or may write; raises TrustStoreError."""
    if status.st_uid not in (os.geteuid(), 0):
        raise TrustStoreError(
            f"{path} belongs to another user", f"chown it to yourself: {path}", id="PLG-TST-003"
        )
    if status.st_mode & 0o022:
        raise TrustStoreError(f"others may write {path}", f"chmod go-w {path}", id="PLG-TST-003")


def judge(
    store: TrustStore,
    candidate: Candidate,
    fingerprints: Iterable[str],
    now: int,
    *,
    revocations: "RevocationList | None" = None,
    remembered: Remembered = NOTHING,
    allow_downgrade: bool = False,
) -> Verdict:
    """Return the accepting verdict on a bundle at `now` (unix seconds). Raises TrustRefused (exit 3).

    `fingerprints` must be those of signatures that *were verified*. Pure, and monotone: one signature or
    one key entry less, one rule or one revocation more, and what was refused stays refused.
    """
    return require(
        examine(
            store, candidate, fingerprints, now,
            revocations=revocations, remembered=remembered, allow_downgrade=allow_downgrade,
        )
    )  # fmt: skip


def require(verdict: Verdict) -> Verdict:
    """Return an accepting verdict as it is; raises TrustRefused (exit 3) with the nearest miss."""
    if verdict.refused:
        from plugsec_signing.trust_words import refusal  # noqa: PLC0415 - words are for refusals only

        raise refusal(verdict)
    return verdict


def examine(
    store: TrustStore,
    candidate: Candidate,
    fingerprints: Iterable[str],
    now: int,
    *,
    revocations: "RevocationList | None" = None,
    remembered: Remembered = NOTHING,
    allow_downgrade: bool = False,
) -> Verdict:
    """Weigh everything, whether or not it is accepted in the end: what `judge` decides and people ask for.

    1. Of each verified signature, find every entry of its key and whether the entry counts: trusted for
       this plugin, not revoked, valid now or (as remembered) when its signature first counted here.
    2. One that counts must have the role release.
    3. Every rule for this plugin must hold, counting distinct raw key bytes, never ids.
    4. The bundle must not be revoked, below the least release allowed, or past its own
       `expires`: an end that its publisher set holds on every machine, unlike a key's.
    5. Its release must not be lower than one accepted before, nor the same as another bundle's.
    """
    seen = remembered.bundles.get(candidate.bundle_id)
    at = _At(now, max(now, remembered.newest), seen, revocations)
    present = frozenset(fingerprints)
    considered = tuple(
        Considered(entry, _reason(entry, candidate.name, at))
        for entry in store.keys
        if entry.fingerprint in present
    )  # 1
    counted = [found.entry for found in considered if found.reason in COUNTS]
    rules = tuple(
        Count(rule, tuple(entry for entry in counted if entry.role in rule.roles))
        for rule in store.rules
        if any(matches(glob, candidate.name) for glob in rule.plugins)
    )
    verdict = Verdict(
        candidate=candidate,
        now=now,
        present=present,
        considered=considered,
        rules=rules,
        signers=tuple(Signer(each.id, each.publisher, each.role, each.fingerprint) for each in counted),
        remembered=remembered,
        revocations=revocations,
        downgrade_allowed=allow_downgrade,
        refused="",
    )
    return verdict._replace(refused=_miss(verdict, at))


def counting(
    store: TrustStore,
    name: str,
    fingerprints: Iterable[str],
    now: int,
    revocations: "RevocationList | None" = None,
    *,
    newest: int = 0,
) -> tuple[Signer, ...]:
    """Return the entries of keys that count for a plugin at `now`, whatever their role: for attestations.

    `newest` is the newest moment that is remembered here, so a clock that was put back revives no key.
    """
    present = frozenset(fingerprints)
    at = _At(now, max(now, newest), None, revocations)
    return tuple(
        Signer(entry.id, entry.publisher, entry.role, entry.fingerprint)
        for entry in store.keys
        if entry.fingerprint in present and _reason(entry, name, at) in COUNTS
    )


def is_downgrade(candidate: Candidate, remembered: Remembered) -> bool:
    """Say whether a higher release of the plugin was accepted here before."""
    highest = remembered.highest
    return highest is not None and candidate.release < highest


def rival(candidate: Candidate, remembered: Remembered) -> str | None:
    """Return another bundle that was accepted here under the same release: one of the two is not genuine."""
    for bundle_id, seen in remembered.bundles.items():
        if seen.release == candidate.release and bundle_id != candidate.bundle_id:
            return bundle_id
    return None


def matches(glob: str, name: str) -> bool:
    """Say whether `publisher/plugin` matches a glob, where `*` stands for anything but `/`."""
    glob_parts, name_parts = glob.split("/"), name.split("/")
    return len(glob_parts) == len(name_parts) and all(map(_part_matches, glob_parts, name_parts))


def _part_matches(glob: str, text: str) -> bool:
    first, *rest = glob.split("*")
    if not rest:
        return text == glob
    last = rest.pop()
    if len(text) < len(first) + len(last) or not (text.startswith(first) and text.endswith(last)):
        return False
    middle = text[len(first) : len(text) - len(last)]
    for piece in rest:  # the leftmost place for each piece leaves most room for the next
        at = middle.find(piece)
        if at < 0:
            return False
        middle = middle[at + len(piece) :]
    return True


class _At(NamedTuple):
    """The circumstances under which one bundle is judged.

    `latest` is never before anything remembered: a clock that was put back must not revive an expired key.
    """

    now: int
    latest: int
    seen: Seen | None
    revocations: "RevocationList | None"


def _reason(entry: TrustedKey, name: str, at: _At) -> str:
    """Say why a verified signature counts under an entry of its key, or why not."""
    if not any(matches(glob, name) for glob in entry.plugins):
        return GLOB
    first = at.seen.signers.get(entry.fingerprint) if at.seen is not None else None
    revoked = at.revocations.keys.get(entry.fingerprint) if at.revocations is not None else None
    if revoked is not None and revoked.kind != SUPERSEDED and (first is None or first >= revoked.since):
        return COMPROMISED
    if revoked is not None and revoked.kind == SUPERSEDED and first is None and at.latest >= revoked.since:
        return SUPERSEDED
    after = entry.valid_after if entry.valid_after is not None else at.now
    before = entry.valid_before if entry.valid_before is not None else at.latest + 1
    if after <= at.now and at.latest < before:
        return COUNTED
    if first is not None and _within(first, entry.valid_after, entry.valid_before):
        return REMEMBERED
    return NOT_YET if at.now < after else EXPIRED


def _within(moment: int, after: int | None, before: int | None) -> bool:
    return (after is None or after <= moment) and (before is None or moment < before)


def _miss(verdict: Verdict, at: _At) -> str:
    """Return the id of the first thing that is amiss, or nothing; the order is that of telling."""
    candidate, revocations, expires = verdict.candidate, verdict.revocations, verdict.candidate.expires
    least = revocations.min_release.get(candidate.name, 0) if revocations is not None else 0
    released = any(signer.role == RELEASE for signer in verdict.signers)
    release = "" if released else _missing_release(verdict)
    amiss = (
        ("PLG-TRU-010", revocations is not None and candidate.bundle_id in revocations.bundles),  # 4
        ("PLG-TRU-011", candidate.release < least),
        (release, bool(release)),  # 2
        ("PLG-TRU-012", not all(count.holds for count in verdict.rules)),  # 3
        ("PLG-TRU-007", expires is not None and at.latest >= expires),  # 4
        ("PLG-TRU-014", rival(candidate, verdict.remembered) is not None),  # 5
        ("PLG-TRU-013", verdict.downgrade and not verdict.downgrade_allowed),
    )
    return next((error_id for error_id, found in amiss if found), "")


def _missing_release(verdict: Verdict) -> str:
    """Name what came closest to a release: a releaser's near miss before a reviewer's signature."""
    if not verdict.present:
        return "PLG-TRU-001"
    misses = {found.reason for found in verdict.considered if found.entry.role == RELEASE}
    if not verdict.signers:
        misses |= {found.reason for found in verdict.considered}
    for reason, error_id in MISSES.items():
        if reason in misses and not (reason == GLOB and verdict.signers):
            return error_id
    return "PLG-TRU-006" if verdict.signers else "PLG-TRU-002"


def _check_distinct(what: str, names: Sequence[str]) -> None:
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise TrustStoreError(f"two {what} in the trust store are called {excerpt(twice)}", id="PLG-TST-004")


def _trusted_key(entry: Plain) -> TrustedKey:
    key = keys.parse_public_key(entry["ssh"])
    if key.algorithm != entry["algorithm"]:
        raise ValueError("the entry decides the algorithm, and this is a key of another one")
    return TrustedKey(
        id=str(entry["id"]),
        key=key,
        fingerprint=keys.fingerprint(key),
        publisher=str(entry["publisher"]),
        plugins=tuple(str(glob) for glob in entry["plugins"]),
        role=str(entry["role"]),
        valid_after=_seconds(entry["valid_after"]),
        valid_before=_seconds(entry["valid_before"]),
    )


def _rule(rule: Plain) -> Rule:
    threshold = _threshold(rule["threshold"])
    if not rule["roles"]:
        raise ValueError("a rule has roles")
    plugins, roles = (tuple(str(each) for each in rule[field]) for field in ("plugins", "roles"))
    return Rule(str(rule["id"]), plugins, threshold, roles)


def _threshold(value: object) -> int:
    if type(value) is not int or not 1 <= value <= MAX_THRESHOLD:
        raise ValueError("a threshold is a number of keys")
    return value


def _seconds(value: object) -> int | None:
    if value is None or type(value) is int:
        return value
    raise ValueError("a time in the plain form is an integer or null")


def _read_file(dir_fd: int, name: str, path: str) -> bytes:
    # A link could lead to a place that others can swap; trust is worth a real file.
    fd = os.open(
        name, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY, dir_fd=dir_fd
    )
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise TrustStoreError(f"{path} is not a regular file", id="PLG-TST-003")
        check_private(status, path)
        content = os.read(fd, MAX_FILE_BYTES + 1)
        if len(content) > MAX_FILE_BYTES:
            raise TrustStoreError(f"{path} is larger than {MAX_FILE_BYTES} bytes", id="PLG-TST-005")
        return content
    finally:
        os.close(fd)
