"""Installing, removing, rolling back, collecting; and everything that can be wrong with what is stored."""

import hashlib
import io
import os
import shutil
import stat

import pytest
import signing_kit as kit
import store_kit as shop
from store_kit import (
    collect,
    current,
    everything,
    install,
    remove,
    roll_back,
    tree_of,
    verified,
    writable,
    write_bundle,
)

from plugsec_signing import bundle as container
from plugsec_signing import dsse, keys, payload
from plugsec_signing.envelope import parse_envelope
from plugsec_signing.errors import (
    BundleError,
    NotInstalled,
    SignatureRefused,
    SigningError,
    StoreError,
    StoreUnusable,
    TrustRefused,
)
from plugsec_signing.store import changes, directories
from plugsec_signing.store.names import parse_name
from plugsec_signing.store.stored import opened_bundle, verify_stored
from plugsec_signing.trust import TrustStore


@pytest.fixture
def store(tmp_path):
    return tmp_path / "data" / "store"


@pytest.fixture
def bundle(tmp_path):
    return write_bundle(tmp_path)


def test_an_installed_bundle_verifies_and_holds_the_very_bytes(store, bundle):
    evidence, done = install(store, bundle)
    assert (done.new, done.before, done.version.version) == (True, None, "1.2.3")
    assert done.version.bundle_id == evidence.bundle_id
    assert verified(store) == kit.FILES
    again = verify_stored(str(store), parse_name("acme/wordfreq@1.2.3"), shop.TRUST, kit.NOW)
    assert [signer.key_id for signer in again.signers] == ["acme-release"]
    again.close()


def test_what_is_installed_is_read_only_and_content_addressed(store, bundle, monkeypatch):
    old = os.umask(0o077)
    try:
        evidence, _ = install(store, bundle)
    finally:
        os.umask(old)
    tree = tree_of(store)
    assert tree == store / "sha256" / evidence.bundle_id.removeprefix("sha256:")
    modes = {str(path.relative_to(tree)): stat.S_IMODE(path.stat().st_mode) for path in tree.rglob("*")}
    assert stat.S_IMODE(tree.stat().st_mode) == 0o555
    assert {modes[name] for name in ("payload", "payload/lib", "signatures", "attestations")} == {0o555}
    assert (modes["payload/run"], modes["payload/lib/count.py"], modes["manifest.json"]) == (
        0o555,
        0o444,
        0o444,
    )
    assert stat.S_IMODE(store.stat().st_mode) == 0o700


def test_installing_again_changes_nothing_but_gives_missing_signatures(store, tmp_path):
    install(store, write_bundle(tmp_path))
    before = everything(store)
    _, done = install(store, write_bundle(tmp_path))
    assert (done.new, everything(store)) == (False, before)
    _, done = install(store, write_bundle(tmp_path, signers=(kit.ACME, kit.REVIEW)))
    assert not done.new
    assert len(list((tree_of(store) / "signatures").iterdir())) == 2
    install(store, write_bundle(tmp_path))
    assert len(list((tree_of(store) / "signatures").iterdir())) == 2, "and takes none away"
    assert verified(store) == kit.FILES


JUNK = [kit.signer(40 + number) for number in range(15)]


def _trust(*privates):
    """A trust store in which each of these may release."""
    return kit.store(*(kit.trust_text(each, id=f"key-{number}") for number, each in enumerate(privates)))


def test_more_signatures_of_trusted_keys_than_a_bundle_can_have_are_refused_and_not_recorded(store, tmp_path):
    """Red team, second pass, 9: the log said `bundle.installed` of an install that was refused after that."""
    trust, announced = _trust(kit.ACME, kit.REVIEW, *JUNK), []
    install(store, write_bundle(tmp_path, signers=(kit.ACME, *JUNK)), trust=trust)
    before = everything(store)
    with pytest.raises(StoreUnusable) as refused:
        install(
            store,
            write_bundle(tmp_path, signers=(kit.ACME, kit.REVIEW)),
            trust=trust,
            announce=lambda *told: announced.append(told),
        )
    assert (refused.value.id, announced, everything(store)) == ("PLG-STO-011", [], before)
    assert verified(store) == kit.FILES


@pytest.mark.parametrize("junk_first", [True, False])
@pytest.mark.parametrize("trusted", [(kit.ACME, kit.REVIEW), (kit.ACME,)], ids=["trusted", "not yet"])
def test_signatures_that_anybody_added_do_not_take_the_room_of_one_that_counts(
    junk_first, trusted, store, tmp_path
):
    """Red team, second pass, 8: fifteen signatures of throw-away keys kept a reviewer's out for good."""
    trust = _trust(*trusted)
    steps = [(kit.ACME, *JUNK), (kit.ACME, kit.REVIEW)]
    for signers in steps if junk_first else reversed(steps):
        install(store, write_bundle(tmp_path, signers=signers), trust=trust)
    there = {path.name for path in (tree_of(store) / "signatures").iterdir()}
    assert len(there) == 16
    if junk_first or kit.REVIEW in trusted:
        assert f"{keys.fingerprint(kit.REVIEW.public)}.sshsig" in there
    assert verified(store, trust=trust) == kit.FILES
    assert stat.S_IMODE((tree_of(store) / "signatures").stat().st_mode) == 0o555


def _attested(directory, *signers_of_each):
    """Write a bundle with an attestation by each of these groups of keys."""
    manifest = kit.manifest()
    contents = {}
    for number, signers in enumerate(signers_of_each):
        statement = dsse.statement(
            parse_envelope(manifest), "https://example.org/review/v1", {"number": number}
        )
        content = dsse.attest(statement, signers)
        contents[hashlib.sha256(content).hexdigest()] = content
    path = directory / "attested.plug"
    with path.open("wb") as out:
        container.write_bundle(
            out, manifest, kit.signatures(manifest, kit.ACME), contents,
            lambda entry: io.BytesIO(kit.FILES[entry.path]),
        )  # fmt: skip
    return str(path), set(contents)


def test_attestations_that_anybody_added_do_not_take_the_room_of_one_that_counts(store, tmp_path):
    """Red team, second pass, 8; also when a stranger added a name of his own to what a known key says."""
    trust = _trust(kit.ACME, kit.REVIEW)
    for crowd in (
        [[each] for each in JUNK[:9]] + [[kit.REVIEW, each] for each in JUNK[:7]],
        [[each] for each in JUNK],
    ):
        install(store, _attested(tmp_path, *crowd)[0], trust=trust)
        path, good = _attested(tmp_path, [kit.REVIEW])
        install(store, path, trust=trust)
        install(store, _attested(tmp_path, *crowd)[0], trust=trust)
        there = {item.name.partition(".")[0] for item in (tree_of(store) / "attestations").iterdir()}
        assert len(there) == 16
        assert good <= there
        assert verified(store) == kit.FILES


def test_versions_lie_side_by_side_and_the_last_one_is_current(store, tmp_path):
    for version, release in (("1.0.0", 1), ("1.1.0", 2), ("2.0.0", 3)):
        install(store, write_bundle(tmp_path, version, release))
    assert current(store) == "2.0.0"
    assert current(store, "acme/wordfreq@1.1.0") == "1.1.0"
    assert roll_back(store).version == "1.1.0"
    assert current(store) == "1.1.0"
    changed = remove(store, "1.1.0")
    assert (changed.before, changed.version) == ("1.1.0", "1.0.0")
    assert [each.version for each in changes.installed(str(store))[0].versions] == ["1.0.0", "2.0.0"]
    assert remove(store, "1.0.0", "2.0.0").version is None
    assert everything(store) == ["format", "index", "sha256", "tmp"]


def test_plugins_whose_names_look_alike_are_apart(store, tmp_path):
    for name in ("acme/a.b", "acme/a-b", "acme/a_b", "acme/ab"):
        install(store, write_bundle(tmp_path, name=name))
    assert [index.name for index in changes.installed(str(store))] == sorted(
        ["acme/a.b", "acme/a-b", "acme/a_b", "acme/ab"]
    )
    remove(store, "1.2.3", name="acme/a-b")
    assert verified(store, "acme/a.b") == kit.FILES


NOT_THERE = {
    "nothing is installed": ("acme/wordfreq", False),
    "another plugin is": ("acme/other", True),
    "another version is": ("acme/wordfreq@9.9.9", True),
}


@pytest.mark.parametrize("name", NOT_THERE)
def test_what_is_not_installed_is_exit_2_with_the_next_step(name, store, bundle):
    word, there = NOT_THERE[name]
    if there:
        install(store, bundle)
    wanted = parse_name(word)
    for attempt in (
        lambda: verified(store, word),
        lambda: remove(store, wanted.version or "1.2.3", name=wanted.name),
        *([] if wanted.version else [lambda: roll_back(store, wanted.name)]),
    ):
        with pytest.raises(NotInstalled) as refused:
            attempt()
        assert (refused.value.id, refused.value.code) == ("PLG-STO-007", 2)
        assert refused.value.hint


def test_another_bundle_of_the_same_version_is_refused_and_changes_nothing(store, tmp_path):
    install(store, write_bundle(tmp_path))
    before = everything(store)
    with pytest.raises(StoreUnusable) as refused:
        install(store, write_bundle(tmp_path, release=8))
    assert refused.value.id == "PLG-STO-009"
    assert everything(store) == before


@pytest.mark.parametrize("signers", [(), (kit.STRANGER,)], ids=["unsigned", "a stranger's"])
def test_a_bundle_that_nobody_trusted_signed_leaves_nothing_in_the_store(signers, store, tmp_path):
    with pytest.raises(TrustRefused):
        install(store, write_bundle(tmp_path, signers=signers))
    assert everything(store) == ["format", "index", "sha256", "tmp"]


def test_a_bundle_that_is_cut_short_leaves_nothing_in_the_store(store, tmp_path):
    path = write_bundle(tmp_path)
    with open(path, "r+b") as file:
        file.truncate(os.path.getsize(path) - 2048)
    with pytest.raises(BundleError):
        install(store, path)
    assert everything(store) == ["format", "index", "sha256", "tmp"]


def test_a_change_that_cannot_be_recorded_does_not_happen(store, tmp_path):
    class Unrecordable(Exception):
        pass

    def refuse(*_):
        raise Unrecordable

    install(store, write_bundle(tmp_path, "1.0.0", 1))
    install(store, write_bundle(tmp_path, "1.1.0", 2))
    before, index = everything(store), changes.installed(str(store))
    for attempt in (
        lambda: install(store, write_bundle(tmp_path, "1.2.0", 3), announce=refuse),
        lambda: changes.remove(str(store), shop.NAME, lambda _: ("1.1.0",), announce=refuse),
        lambda: changes.roll_back(str(store), shop.NAME, announce=refuse),
    ):
        with pytest.raises(Unrecordable):
            attempt()
        assert (everything(store), changes.installed(str(store))) == (before, index)


# What is wrong with a stored tree: how to bring it about, and the refusal's id.


def _edit(tree):
    path = tree / "payload" / "run"
    with writable(path):
        path.write_bytes(b"#!/bin/SH\n")


def _grow(tree):
    path = tree / "payload" / "run"
    with writable(path):
        path.write_bytes(kit.FILES["run"] + b"x")


def _remove(tree):
    with writable(tree / "payload" / "run"):
        (tree / "payload" / "run").unlink()


def _stray(tree):
    with writable(tree / "payload" / "lib" / "new.py"):
        (tree / "payload" / "lib" / "new.py").write_text("")


def _stray_directory(tree):
    with writable(tree / "payload" / "new"):
        (tree / "payload" / "new").mkdir()


def _link(tree):
    path = tree / "payload" / "run"
    with writable(path):
        path.rename(tree.parent.parent / "elsewhere")
        path.symlink_to(tree.parent.parent / "elsewhere")


def _linked_directory(tree):
    path = tree / "payload" / "lib"
    with writable(path):
        path.rename(tree.parent.parent / "elsewhere")
        path.symlink_to(tree.parent.parent / "elsewhere")


def _fifo(tree):
    path = tree / "payload" / "run"
    with writable(path):
        path.unlink()
        os.mkfifo(path)


def _mode(tree):
    (tree / "payload" / "run").chmod(0o755)


def _others_may_write(tree):
    (tree / "payload" / "lib").chmod(0o777)


def _others_may_write_all(tree):
    tree.chmod(0o777)


def _others_may_write_the_payload(tree):
    (tree / "payload").chmod(0o777)


def _others_may_write_signatures(tree):
    (tree / "signatures").chmod(0o777)


def _others_may_write_attestations(tree):
    (tree / "attestations").chmod(0o777)


def _stray_beside(tree):
    with writable(tree / "extra"):
        (tree / "extra").write_text("")


def _stray_directory_beside(tree):
    with writable(tree / "evil"):
        (tree / "evil").mkdir()


def _manifest(tree):
    path = tree / "manifest.json"
    with writable(path):
        path.write_bytes(kit.manifest(release=99))


def _manifest_link(tree):
    path = tree / "manifest.json"
    with writable(path):
        path.rename(tree.parent.parent / "elsewhere")
        path.symlink_to(tree.parent.parent / "elsewhere")


def _no_payload(tree):
    with writable(tree / "payload"):
        shutil.move(tree / "payload", tree.parent.parent / "elsewhere")


def _no_signatures(tree):
    with writable(tree / "signatures"):
        shutil.move(tree / "signatures", tree.parent.parent / "elsewhere")


def _odd_signature(tree):
    with writable(tree / "signatures" / "x"):
        (tree / "signatures" / "x").write_text("")


def _broken_signature(tree):
    path = next((tree / "signatures").iterdir())
    with writable(path):
        path.write_bytes(kit.armour(kit.ACME, kit.manifest(release=8)))


def _removed_signature(tree):
    path = next((tree / "signatures").iterdir())
    with writable(path):
        path.unlink()


def _forged_attestation(tree):
    with writable(tree / "attestations" / ("0" * 64 + ".dsse.json")):
        (tree / "attestations" / ("0" * 64 + ".dsse.json")).write_text("{}")


def _another_bundle(tree):
    other = tree.parent.parent / "elsewhere"
    tree.chmod(0o755)
    tree.rename(other)
    tree.symlink_to(other)


DAMAGE = {
    "a byte of a file": (_edit, "PLG-STO-003"),
    "a longer file": (_grow, "PLG-STO-003"),
    "a file is gone": (_remove, "PLG-STO-003"),
    "a file too many": (_stray, "PLG-STO-003"),
    "a directory too many": (_stray_directory, "PLG-STO-003"),
    "a link instead of a file": (_link, "PLG-STO-003"),
    "a link instead of a directory": (_linked_directory, "PLG-STO-003"),
    "a link instead of the tree": (_another_bundle, "PLG-STO-003"),
    "a pipe instead of a file": (_fifo, "PLG-STO-003"),
    "another mode": (_mode, "PLG-STO-003"),
    "a directory that others may write": (_others_may_write, "PLG-STO-003"),
    # Red team, second pass, 10: around the payload, others could write and leave things.
    "a tree that others may write": (_others_may_write_all, "PLG-STO-003"),
    "a payload that others may write": (_others_may_write_the_payload, "PLG-STO-003"),
    "signatures that others may write": (_others_may_write_signatures, "PLG-STO-003"),
    "attestations that others may write": (_others_may_write_attestations, "PLG-STO-003"),
    "a file beside the manifest": (_stray_beside, "PLG-STO-003"),
    "a directory beside the payload": (_stray_directory_beside, "PLG-STO-003"),
    "another manifest": (_manifest, "PLG-STO-003"),
    "a link instead of the manifest": (_manifest_link, "PLG-STO-003"),
    "no payload": (_no_payload, "PLG-STO-003"),
    "no signatures": (_no_signatures, "PLG-STO-003"),
    "something else among the signatures": (_odd_signature, "PLG-STO-003"),
    "an attestation under another hash": (_forged_attestation, "PLG-STO-003"),
    "a signature over another manifest": (_broken_signature, "PLG-SIG-005"),
    "the signature is gone": (_removed_signature, "PLG-TRU-001"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_stored_bundle_that_was_changed_is_refused_and_installing_again_repairs_it(name, store, bundle):
    damage, error_id = DAMAGE[name]
    install(store, bundle)
    damage(tree_of(store))
    with pytest.raises(SigningError) as refused:
        verified(store)
    assert (refused.value.id, refused.value.code) == (error_id, 4 if "STO" in error_id else 3)
    install(store, bundle)
    assert verified(store) == kit.FILES


def test_a_stored_bundle_is_judged_by_the_trust_store_of_today(store, bundle):
    install(store, bundle)
    with pytest.raises(TrustRefused) as refused:
        verified(store, trust=TrustStore.from_plain([]))
    assert refused.value.id == "PLG-TRU-002"
    with pytest.raises(TrustRefused) as refused:
        verified(store, trust=kit.store(kit.trust_text(valid_before="2027-01-16")), now=kit.NOW + 10 * 86400)
    assert refused.value.id == "PLG-TRU-005"


def test_an_index_that_names_another_bundle_is_refused(store, tmp_path):
    install(store, write_bundle(tmp_path, "1.0.0", 1))
    install(store, write_bundle(tmp_path, "2.0.0", 2))
    path = store / "index" / "acme+wordfreq.json"
    ids = [each.bundle_id for each in changes.installed(str(store))[0].versions]
    text = path.read_text()
    path.write_text(text.replace(ids[1], "@").replace(ids[0], ids[1]).replace("@", ids[0]))
    with pytest.raises(StoreError) as refused:
        verified(store)
    assert refused.value.id == "PLG-STO-003"


def test_a_tree_that_vanished_is_refused_and_installed_again(store, bundle):
    install(store, bundle)
    tree = tree_of(store)
    shutil.copytree(tree, tree.parent.parent / "elsewhere")
    tree.chmod(0o755)
    tree.rename(tree.parent.parent / "moved")
    with pytest.raises(StoreError) as refused:
        verified(store)
    assert refused.value.id == "PLG-STO-003"
    install(store, bundle)
    assert verified(store) == kit.FILES


# The store's own directories.


def _shared(store):
    store.chmod(0o777)


def _shared_index(store):
    (store / "index").chmod(0o775)


def _linked_store(store):
    store.rename(store.parent / "elsewhere")
    store.symlink_to(store.parent / "elsewhere")


def _linked_objects(store):
    (store / "sha256").rename(store.parent / "elsewhere")
    (store / "sha256").symlink_to(store.parent / "elsewhere")


def _file_instead(store):
    (store / "tmp").rmdir()
    (store / "tmp").write_text("")


def _newer(store):
    (store / "format").write_text("2\n")


def _no_number(store):
    (store / "format").write_text("x")


def _damaged_index(store):
    (store / "index" / "acme+wordfreq.json").write_text("{}")


STORES = {
    "others may write it": (_shared, "PLG-STO-001"),
    "others may write its index": (_shared_index, "PLG-STO-001"),
    "it is a link": (_linked_store, "PLG-STO-001"),
    "a directory of it is a link": (_linked_objects, "PLG-STO-001"),
    "a directory of it is a file": (_file_instead, "PLG-STO-001"),
    "it has no format": (_no_number, "PLG-STO-001"),
    "it is newer": (_newer, "PLG-STO-004"),
    "its index is damaged": (_damaged_index, "PLG-STO-002"),
}


@pytest.mark.parametrize("name", STORES)
def test_a_store_that_is_not_ours_alone_or_not_whole_is_refused_whatever_is_asked(name, store, bundle):
    install(store, bundle)
    damage, error_id = STORES[name]
    damage(store)
    for attempt in (
        lambda: verified(store),
        lambda: install(store, bundle),
        lambda: remove(store, "1.2.3"),
        lambda: roll_back(store),
        lambda: changes.installed(str(store)),
        lambda: collect(store),
    ):
        with pytest.raises(StoreError) as refused:
            attempt()
        assert (refused.value.id, refused.value.code) == (error_id, 4)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory to somebody else")
def test_a_store_of_another_user_is_refused(store, bundle):
    install(store, bundle)
    os.chown(store, 12345, 12345)
    with pytest.raises(StoreError) as refused:
        verified(store)
    assert refused.value.id == "PLG-STO-001"


def test_a_lock_that_is_held_for_too_long_is_said(store, bundle, monkeypatch):
    install(store, bundle)
    monkeypatch.setattr(directories, "LOCK_WAIT_S", 0.05)
    with directories.opened(str(store)) as where, where.locked():
        for attempt in (lambda: verified(store), lambda: install(store, bundle)):
            with pytest.raises(StoreUnusable) as refused:
                attempt()
            assert (refused.value.id, refused.value.code) == ("PLG-STO-006", 2)


# Collecting.


def test_leftovers_and_trees_without_index_are_collected_and_nothing_else(store, tmp_path):
    install(store, write_bundle(tmp_path, "1.0.0", 1))
    before = everything(store)
    install(store, write_bundle(tmp_path, "2.0.0", 2))
    orphan = tree_of(store, "acme/wordfreq@2.0.0").name
    (store / "index" / "acme+wordfreq.json").unlink()
    install(store, write_bundle(tmp_path, "1.0.0", 1))
    (store / "tmp" / "dead" / "payload" / "a").mkdir(parents=True)
    (store / "tmp" / "file").write_text("half an index")
    (store / "tmp" / "link").symlink_to("/etc/passwd")
    bundles, leftovers = collect(store)
    assert (bundles, leftovers) == ((f"sha256:{orphan}",), 3)
    assert everything(store) == before
    assert verified(store) == kit.FILES
    assert os.path.exists("/etc/passwd")


def test_what_somebody_reads_or_writes_is_not_collected(store, tmp_path):
    install(store, write_bundle(tmp_path, "1.0.0", 1))
    with opened_bundle(str(store), parse_name(shop.NAME)) as stored:
        remove(store, "1.0.0")
        assert os.read(os.open("run", os.O_RDONLY, dir_fd=stored.payload), 100) == kit.FILES["run"]
        assert collect(store) == ((), 0)
    assert collect(store) == ((), 1)
    assert everything(store) == ["format", "index", "sha256", "tmp"]


def test_a_collection_that_cannot_be_recorded_removes_nothing(store, bundle):
    """Red team, second pass, 13: `gc` removed first and recorded afterwards."""
    install(store, bundle)
    (store / "index" / "acme+wordfreq.json").unlink()
    before, (orphan,) = everything(store), os.listdir(store / "sha256")
    announced = []

    def refuse(bundles):
        announced.append(bundles)
        raise StoreUnusable("the log cannot be written")

    with pytest.raises(StoreUnusable):
        collect(store, refuse)
    assert (announced, everything(store)) == ([(f"sha256:{orphan}",)], before)


def test_nothing_to_collect_where_there_is_no_store(store):
    assert collect(store) == ((), 0)
    assert changes.installed(str(store)) == ()
    assert not store.exists()


# Payloads that do not fit in memory.


def test_a_payload_that_is_too_large_for_memory_is_hashed_and_stays_where_it_lies(store, bundle, monkeypatch):
    monkeypatch.setattr(payload, "PAYLOAD_IN_MEMORY_MAX", 8)
    install(store, bundle)
    evidence = verify_stored(str(store), parse_name(shop.NAME), shop.TRUST, kit.NOW)
    try:
        assert evidence.payload.bound
        assert os.path.samestat(os.fstat(evidence.payload.fd), os.stat(tree_of(store) / "payload"))
        assert evidence.payload.read("run", 4) == b"#!/b"
        assert evidence.payload.read("nothing", 4) == b""
        remove(store, "1.2.3")
        assert evidence.payload.read("run", 100) == kit.FILES["run"], "its lock keeps it there"
    finally:
        evidence.close()
    assert collect(store) == ((), 1)


def test_a_large_payload_that_was_edited_is_refused(store, bundle, monkeypatch):
    monkeypatch.setattr(payload, "PAYLOAD_IN_MEMORY_MAX", 8)
    install(store, bundle)
    _edit(tree_of(store))
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(StoreError) as refused:
        verify_stored(str(store), parse_name(shop.NAME), shop.TRUST, kit.NOW)
    assert refused.value.id == "PLG-STO-003"
    assert len(os.listdir("/proc/self/fd")) == before


def test_no_descriptor_is_left_open_whatever_happens(store, bundle):
    before = len(os.listdir("/proc/self/fd"))
    install(store, bundle)
    install(store, bundle)
    verified(store)
    _edit(tree_of(store))
    for attempt in (lambda: verified(store), lambda: verified(store, "acme/nothing")):
        with pytest.raises((StoreError, SignatureRefused)):
            attempt()
    install(store, bundle)
    remove(store, "1.2.3")
    collect(store)
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_store_that_somebody_is_just_making_is_none_yet(store, bundle):
    for name in ("index", "sha256", "tmp"):
        (store / name).mkdir(parents=True, mode=0o700)
    store.chmod(0o700)
    assert changes.installed(str(store)) == ()
    with pytest.raises(NotInstalled):
        verified(store)
    install(store, bundle)
    assert verified(store) == kit.FILES


def test_what_the_system_refuses_in_the_middle_is_exit_2(store, bundle, monkeypatch):
    """A file system that fails under the store: each call of os that it makes, once."""
    install(store, bundle)
    for name in ("listdir", "stat", "mkdir", "rename", "fsync", "unlink", "fchmod", "write", "rmdir"):
        real, failed = getattr(os, name), []

        def fail(*arguments, real=real, failed=failed, **more):
            if failed:
                return real(*arguments, **more)
            failed.append(1)
            raise OSError(5, "Input/output error")

        for act in (lambda: install(store, bundle), lambda: collect(store)):
            failed.clear()
            with monkeypatch.context() as patch:
                patch.setattr(os, name, fail)
                try:
                    act()
                except SigningError as refused:
                    assert refused.code in {2, 4}, name
        assert verified(store) == kit.FILES, name
