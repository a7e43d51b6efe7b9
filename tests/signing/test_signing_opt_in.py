"""The trust entry decides the algorithm: Ed25519 without a word, the others only where it says so."""

import fido_token
import pytest
import signing_kit as kit
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from plugsec_signing import ecdsa_p256, keys, wire
from plugsec_signing.errors import TrustRefused, TrustStoreError
from plugsec_signing.trust import TrustStore, parse_trust_toml
from plugsec_signing.verify import verify_bundle

SEED = bytes([3]) * 32
SECRET = ec.derive_private_key(1, ec.SECP256R1())
FIDO = keys.PrivateKey(keys.parse_blob(fido_token.key_blob(SEED)), lambda data: fido_token.sign(SEED, data))
ECDSA = keys.PrivateKey(
    keys.parse_blob(
        wire.string(b"ecdsa-sha2-nistp256") + wire.string(b"nistp256") + wire.string(kit.P256_POINT)
    ),
    lambda data: ecdsa_p256.from_bare(SECRET.sign(data, ec.ECDSA(hashes.SHA256()))),
)
SIGNERS = {"ssh-ed25519": kit.ACME, "sk-ssh-ed25519@openssh.com": FIDO, "ecdsa-sha2-nistp256": ECDSA}
WORDS = [
    None,
    *SIGNERS,
    "",
    "ssh-rsa",
    "SK-SSH-ED25519@OPENSSH.COM",
    "sk-ssh-ed25519",
    "*",
    1,
    ["ssh-ed25519"],
]


@pytest.mark.parametrize("said", WORDS, ids=repr)
@pytest.mark.parametrize("algorithm", SIGNERS)
def test_an_entry_accepts_the_algorithm_that_it_names_and_no_other(algorithm, said, bundle_path):
    text = kit.trust_text(SIGNERS[algorithm], algorithm=said)
    accepted = said == algorithm or (said is None and algorithm == "ssh-ed25519")
    if not accepted:
        with pytest.raises(TrustStoreError) as caught:
            kit.store(text)
        assert caught.value.code == 4
        assert algorithm in caught.value.message + caught.value.hint
        return
    path = bundle_path(kit.pack(signers=(SIGNERS[algorithm],)))
    evidence = verify_bundle(path, kit.store(text), kit.NOW)
    assert [signer.fingerprint for signer in evidence.signers] == [
        keys.fingerprint(SIGNERS[algorithm].public)
    ]


@pytest.mark.parametrize("algorithm", SIGNERS)
@pytest.mark.parametrize("other", SIGNERS)
def test_a_plain_form_that_says_another_algorithm_is_no_authority(algorithm, other):
    plain = parse_trust_toml(kit.trust_text(SIGNERS[algorithm], algorithm=algorithm))
    plain["key"][0]["algorithm"] = other
    if other == algorithm:
        TrustStore.from_plain([plain])
        return
    with pytest.raises(TrustStoreError):
        TrustStore.from_plain([plain])


@pytest.mark.parametrize("algorithm", SIGNERS)
def test_a_store_that_trusts_one_algorithm_s_key_does_not_count_another_s(algorithm, bundle_path):
    others = [signer for name, signer in SIGNERS.items() if name != algorithm]
    path = bundle_path(kit.pack(signers=others))
    with pytest.raises(TrustRefused) as caught:
        verify_bundle(path, kit.store(kit.trust_text(SIGNERS[algorithm], algorithm=algorithm)), kit.NOW)
    assert caught.value.id == "PLG-TRU-002"


def test_a_token_and_a_plain_key_of_the_same_bytes_are_two_keys_to_the_store(bundle_path):
    plain = kit.signer(3)
    assert plain.public.raw == FIDO.public.raw
    path = bundle_path(kit.pack(signers=(plain,)))
    with pytest.raises(TrustRefused):
        verify_bundle(path, kit.store(kit.trust_text(FIDO, algorithm="sk-ssh-ed25519@openssh.com")), kit.NOW)
