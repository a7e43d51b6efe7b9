"""trust import, export, sign: what others hand out, and what is handed to others."""

import os
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, Any

import typer

from plugsec import private
from plugsec.cli import revoke
from plugsec.cli.common import Places, emit_json, places, refuse, say
from plugsec.cli.edge import read_small, record, show
from plugsec.cli.options import Audit, Home, Json, PassphraseFd, Trust, examples
from plugsec.cli.signing_key import signing_key
from plugsec.errors import REFUSALS, UsageError

if TYPE_CHECKING:
    from plugsec_signing.krl import Krl
    from plugsec_signing.revocation import RevocationList
    from plugsec_signing.trust import TrustedKey

MAX_SIGNATURE_FILE_BYTES = 64 * 1024  # one signature, as in `sign`

_IMPORT = examples(
    "plugsec trust import allowed_signers",
    "plugsec trust import allowed_signers --publisher acme",
    "plugsec trust import revoked.krl --key revocation",
    "plugsec trust import revocations.json      # and revocations.json.sshsig beside it",
)
_EXPORT = examples(
    "plugsec trust export allowed-signers > allowed_signers",
    "plugsec trust export krl --out revoked.krl",
    "plugsec trust export revocations --out revocations.json",
)
_SIGN = examples(
    "plugsec trust sign revocations.json --key revocation-2",
    "plugsec trust sign root.json --agent --key ~/.ssh/id_ed25519_sk.pub",
    "plugsec trust sign root.json --signature root.json.sig",
)
_KINDS = ("allowed-signers", "krl", "revocations")

_File = Annotated[str, typer.Argument(metavar="FILE", help="What was handed to you.")]


def extend(group: typer.Typer) -> None:
    """Add the commands to `trust`."""
    group.command("import", epilog=_IMPORT)(import_file)
    group.command("export", epilog=_EXPORT)(export)
    group.command("sign", epilog=_SIGN)(sign)


def import_file(
    file: _File,
    *,
    publisher: Annotated[
        str | None,
        typer.Option(
            "--publisher", metavar="P", help="Whose keys they are, where the file has mail addresses."
        ),
    ] = None,
    algorithm: Annotated[
        list[str] | None,
        typer.Option("--algorithm", metavar="A", help="Also take keys that are not ssh-ed25519."),
    ] = None,
    key: revoke.Key = None,
    agent: revoke.Agent = False,
    passphrase_fd: PassphraseFd = None,
    next_update: revoke.NextUpdate = 30,
    trust: Trust = None,
    audit: Audit = None,
    home: Home = None,
    json: Json = False,
) -> None:
    """Take over an allowed_signers file, an OpenSSH KRL, or a signed revocation list; whole, or not at all.

    A KRL's keys are revoked as compromised, in the next list, which --key signs. A signed list must be
    later than the one in force. What a file says and plugsec cannot mean is refused, never left out.
    """
    from plugsec_signing import krl, revocation  # noqa: PLC0415 - each command loads only what it needs

    now = int(time.time())
    signing = revoke.Signing(key, agent, passphrase_fd, next_update, None)
    try:
        where = places(home, trust, audit)
        data = read_small(file, krl.MAX_BYTES)
        if krl.is_krl(data):
            _refuse_options("a KRL", publisher=publisher, algorithm=algorithm)
            done, said = _take_krl(where, krl.parse(data), signing, now)
        elif data.startswith(b"{"):
            _refuse_options(
                "a revocation list", publisher=publisher, algorithm=algorithm, key=key, agent=agent
            )
            armours = _beside(file)
            done = revoke.put(where, data, armours, now, {"how": "imported"})
            said = f"{revocation.FILE} is in force"
        else:
            _refuse_options("an allowed_signers file", key=key, agent=agent)
            _take_signers(where, data, publisher, tuple(algorithm or ()), as_json=json)
            return
    except REFUSALS as err:
        refuse(err, as_json=json)
    revoke.tell(done, signing, said, as_json=json)


def export(
    what: Annotated[str, typer.Argument(metavar="WHAT", help="allowed-signers, krl or revocations.")],
    *,
    out: Annotated[
        str | None,
        typer.Option("--out", metavar="FILE", help="Where to; stdout otherwise (not revocations)."),
    ] = None,
    trust: Trust = None,
    home: Home = None,
) -> None:
    """Write keys or revocations for OpenSSH's tools, or the signed list for others; says what is lost."""
    from plugsec_signing import memory, revocation_edit  # noqa: PLC0415
    from plugsec_signing.trust import load_trust  # noqa: PLC0415

    now = int(time.time())
    try:
        if what not in _KINDS:
            raise UsageError(f"{what!r} is none of {', '.join(_KINDS)}")
        where = places(home, trust)
        store = load_trust(where.trust)
        listed = revocation_edit.in_force(where.trust, store, now, memory.path_in(where.state))
        if what == "revocations":
            _hand_out(where, listed, out)
            return
        if what == "krl":
            data, notes = _krl(listed, now)
        else:
            from plugsec_signing import allowed_signers  # noqa: PLC0415

            exported = allowed_signers.export(store, frozenset(listed.keys))
            data, notes = exported.text.encode(), exported.notes
        _write(data, out, binary=what == "krl")
    except REFUSALS as err:
        refuse(err)
    for note in notes:
        say(f"note: {note}")


def sign(
    file: Annotated[str, typer.Argument(metavar="FILE", help="A revocation list or a trust root.")],
    *,
    key: revoke.Key = None,
    agent: revoke.Agent = False,
    passphrase_fd: PassphraseFd = None,
    signature: Annotated[
        str | None, typer.Option("--signature", metavar="SIG", help="One made by `ssh-keygen -Y sign`.")
    ] = None,
    json: Json = False,
) -> None:
    """Add a signature to FILE.sshsig, beside those of others. Nothing is put in place."""
    from plugsec_signing import detached, keys, sshsig, trust_edit  # noqa: PLC0415
    from plugsec_signing.trust import MAX_FILE_BYTES  # noqa: PLC0415

    try:
        if (signature is not None) == (key is not None or agent):
            raise UsageError("give one of --key FILE, --agent and --signature SIG")
        data = read_small(file, MAX_FILE_BYTES * 4)
        namespace, said = _purpose(data)
        if signature is not None:
            armour = sshsig.one_spelling(read_small(signature, MAX_SIGNATURE_FILE_BYTES))
        else:
            signer = signing_key(key, agent=agent, passphrase_fd=passphrase_fd)
            armour = sshsig.sign(signer, data, namespace)
        joined = detached.with_signature(data, _beside(file), namespace, armour)
        try:
            trust_edit.replace_file(file + detached.SUFFIX, joined)
        except OSError as err:
            raise UsageError(f"{file}{detached.SUFFIX} cannot be written: {err.strerror}") from err
        signers = detached.signers(data, joined, namespace)
    except REFUSALS as err:
        refuse(err, as_json=json)
    fingerprints = [keys.fingerprint(each) for each in signers]
    if json:
        emit_json({"outcome": "ok", "code": 0, "path": file + detached.SUFFIX, "signers": fingerprints})
        return
    show(f"{said}, signed by")
    for each in signers:
        show(f"  {keys.ssh_fingerprint(each)}  {keys.fingerprint(each)}")


def _take_signers(
    where: Places, data: bytes, publisher: str | None, algorithms: tuple[str, ...], *, as_json: bool
) -> None:
    """Add every entry of an allowed_signers file that is not there yet; raises Refusals before the first."""
    from plugsec_signing import allowed_signers, keys, trust_edit  # noqa: PLC0415
    from plugsec_signing.errors import TrustStoreError  # noqa: PLC0415
    from plugsec_signing.trust import TrustStore, load_trust  # noqa: PLC0415

    found = allowed_signers.parse(data, publisher=publisher, algorithms=algorithms)
    from plugsec_signing import trust_toml  # noqa: PLC0415 - cold: it loads a TOML parser

    plains = [trust_toml.check_entry(entry) for entry in found.entries]
    wanted = TrustStore.from_plain([{"key": plains, "rule": []}]).keys
    there = load_trust(where.trust).keys
    new = [
        (entry, plain)
        for entry, plain in zip(found.entries, wanted, strict=True)
        if not any(_same(plain, each) for each in there)
    ]
    taken = {each.id for each in there} & {plain.id for _, plain in new}
    if taken:
        raise TrustStoreError(
            f"the trust store already has another entry called {min(taken)}",
            f"plugsec trust remove {min(taken)}, or change the comment of that key in the file",
            id="PLG-TST-004",
        )
    with suppress(OSError):  # what cannot be made is reported by add_key in its own words
        private.make_directories(where.trust)
    seqs: list[int] = []

    def announce(key: "TrustedKey") -> None:
        detail = {"id": key.id, "fingerprint": key.fingerprint, "publisher": key.publisher, "role": key.role,
                  "plugins": list(key.plugins), "from": "allowed_signers"}  # fmt: skip
        seqs.append(record(where, "trust.changed", "added", detail))

    added = [trust_edit.add_key(where.trust, entry, announce=announce) for entry, _ in new]
    if as_json:
        emit_json({
            "outcome": "ok", "code": 0, "added": [each.id for each in added], "notes": list(found.notes),
            "already_there": len(wanted) - len(new), "audit": {"seq": seqs[-1] if seqs else None},
        })  # fmt: skip
        return
    for each in added:
        show(f"{each.id} ({each.role}) may sign {', '.join(each.plugins)}  {keys.ssh_fingerprint(each.key)}")
    if len(new) < len(wanted):
        show(f"{len(wanted) - len(new)} were there already")
    for note in found.notes:
        say(f"note: {note}")


def _same(one: "TrustedKey", other: "TrustedKey") -> bool:
    """Whether two entries differ in their name at most."""
    return one._replace(id="", key=other.key) == other._replace(id="") and one.key.blob == other.key.blob


def _take_krl(where: Places, found: "Krl", signing: revoke.Signing, now: int) -> tuple[revoke.Done, str]:
    from plugsec_signing import revocation_edit as edit  # noqa: PLC0415

    def change(listed: "RevocationList") -> "RevocationList":
        for fingerprint in sorted(found.fingerprints):  # a KRL has at most as many as a list
            listed = edit.with_key(listed, fingerprint, "compromised", 0)
        return listed

    done = revoke.issue(where, signing, now, change, {"how": "krl", "krl_version": found.version})
    count = len(found.fingerprints)
    return done, f"{count} key{'s'[: count != 1]} of the KRL revoked: compromised, since a KRL has no time"


def _krl(listed: "RevocationList", now: int) -> tuple[bytes, tuple[str, ...]]:
    from plugsec_signing import krl  # noqa: PLC0415

    lost = {
        "revoked bundles": len(listed.bundles), "plugins with a least release": len(listed.min_release),
    }  # fmt: skip
    notes = [
        f"{what}: {count}, which are left out, as a KRL revokes keys only"
        for what, count in lost.items()
        if count
    ]
    softer = sum(each.kind == "superseded" or each.since > 0 for each in listed.keys.values())
    if softer:
        notes.append(
            f"{softer} keys are superseded, or compromised since a time: a KRL revokes them from the start"
        )
    comment = f"plugsec revocation list {listed.sequence}"
    return krl.encode(listed.keys, version=listed.sequence, generated=now, comment=comment), tuple(notes)


def _hand_out(where: Places, listed: "RevocationList", out: str | None) -> None:
    from plugsec_signing import detached, revocation, trust_edit  # noqa: PLC0415

    if not listed.sequence or out is None:
        raise UsageError(
            "there is no revocation list" if out is not None else "the list and its signatures are two files",
            "plugsec trust revoke makes one" if out is not None else "give --out revocations.json",
        )
    path = os.path.join(where.trust, revocation.FILE)
    try:
        data = read_small(path, revocation.MAX_BYTES)
        trust_edit.replace_file(out + detached.SUFFIX, detached.over(data, _beside(path)))
        trust_edit.replace_file(out, data)
    except OSError as err:
        raise UsageError(f"{out!r} cannot be written: {err.strerror}") from err
    show(f"revocation list {listed.sequence}: {out}, {out}{detached.SUFFIX}")


def _write(data: bytes, out: str | None, *, binary: bool) -> None:
    if out is None:
        if binary and sys.stdout.isatty():
            raise UsageError("a KRL is not written to a terminal", "give --out FILE")
        sys.stdout.buffer.write(data)
        sys.stdout.flush()
        return
    from plugsec_signing import trust_edit  # noqa: PLC0415

    try:
        trust_edit.replace_file(out, data)
    except OSError as err:
        raise UsageError(f"{out!r} cannot be written: {err.strerror}") from err


def _beside(file: str) -> bytes:
    """Return the signatures beside a document; none where there is no such file."""
    from plugsec_signing import detached  # noqa: PLC0415

    path = file + detached.SUFFIX
    return read_small(path, detached.MAX_SIGNATURES_BYTES) if os.path.lexists(path) else b""


def _purpose(data: bytes) -> tuple[str, str]:
    """Return the namespace under which a document is signed, and what it is; raises Refusals."""
    from plugsec_signing import revocation, root  # noqa: PLC0415

    if b'"schema":"plugsec.root/' in data:
        found = root.parse(data)
        return root.NAMESPACE, f"version {found.version} of the trust root"
    listed = revocation.parse(data)
    return revocation.NAMESPACE, f"revocation list {listed.sequence}"


def _refuse_options(what: str, **given: Any) -> None:  # noqa: ANN401 - values of options
    """Refuse options that would be ignored for this kind of file; raises UsageError (exit 2)."""
    for name, value in given.items():
        if value:
            raise UsageError(f"--{name} does not go with {what}")
