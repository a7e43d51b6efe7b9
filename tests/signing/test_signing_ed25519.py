"""The verification primitive refuses what the common library lets through.

The curve arithmetic below is this file's own (RFC 8032 §5.1.4, affine and slow), so that the table of
small-order points in the code is compared with points that were computed.
"""

import hashlib
import json
import os

import cryptography_vectors
import pytest
import signing_kit as kit
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from plugsec_signing import ed25519
from plugsec_signing.errors import KeyRefused, SignatureRefused, SigningError

P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, -1, P) % P
ROOT = pow(2, (P - 1) // 4, P)


def add(one, two):
    (x1, y1), (x2, y2) = one, two
    t = D * x1 * x2 * y1 * y2
    return (x1 * y2 + x2 * y1) * pow(1 + t, -1, P) % P, (y1 * y2 + x1 * x2) * pow(1 - t, -1, P) % P


def times(scalar, point):
    result = (0, 1)
    for bit in bin(scalar)[2:]:
        result = add(result, result)
        if bit == "1":
            result = add(result, point)
    return result


def point_of(y, sign):
    square = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    x = pow(square, (P + 3) // 8, P)
    x = x if x * x % P == square else x * ROOT % P
    if x * x % P != square:
        return None
    return (P - x if x % 2 != sign and x else x), y


def encoded(y, sign=0):
    return (y | sign << 255).to_bytes(32, "little")


def of(point):
    return encoded(point[1], point[0] % 2)


BASE = point_of(4 * pow(5, -1, P) % P, 0)


def small_order_points():
    """All eight, as multiples of a point of order 8 found by clearing the large factor."""
    y = 2
    while True:
        point = point_of(y, 0)
        if point is not None:
            candidate = times(L, point)
            if times(4, candidate) != (0, 1):
                return [times(n, candidate) for n in range(8)]
        y += 1


SMALL = small_order_points()

# RFC 8032 §7.1: public key, message, signature.
RFC_8032 = {
    "TEST 1": (
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46b"
        "d25bf5f0595bbe24655141438e7a100b",
    ),
    "TEST 2": (
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c"
        "387b2eaeb4302aeeb00d291612bb0c00",
    ),
    "TEST 3": (
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc659"
        "4a7c15e9716ed28dc027beceea1ec40a",
    ),
    "TEST SHA(abc)": (
        "ec172b93ad5e563bf4932c70e1245034c35467ef2efd4d64ebf819683467e2bf",
        hashlib.sha512(b"abc").hexdigest(),
        "dc2a4459e7369633a52b1bf277839a00201009a3efbf3ecb69bea2186c26b58909351fc9ac90b3ecfdfbc7c66431e030"
        "3dca179c138ac17ad9bef1177331a704",
    ),
}


def challenge(r, key, message):
    return int.from_bytes(hashlib.sha512(r + key + message).digest(), "little") % L


def library_accepts(key, signature, message):
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


def test_there_are_eight_small_order_points_and_all_are_refused_as_keys():
    assert len(set(SMALL)) == 8
    for point in SMALL:
        for sign in (0, 1):
            with pytest.raises(KeyRefused) as caught:
                ed25519.check_key(encoded(point[1], sign))
            assert (caught.value.id, caught.value.code) == ("PLG-KEY-002", 3)


@pytest.mark.parametrize("y", [P, P + 1, P + 18, 2**255 - 1])
@pytest.mark.parametrize("sign", [0, 1])
def test_a_key_in_a_second_encoding_is_refused(y, sign):
    with pytest.raises(KeyRefused, match="canonical"):
        ed25519.check_key(encoded(y, sign))


def test_the_forgery_that_the_library_accepts_for_every_message_is_refused():
    identity = of((0, 1))
    forged = identity + bytes(32)
    for message in (b"", b"anything", b"anything else"):
        assert library_accepts(identity, forged, message)
        with pytest.raises(KeyRefused):
            ed25519.verify(identity, forged, message)


def test_forgeries_under_every_small_order_key_are_refused():
    """Without any secret: R = S·B, and messages are tried until the challenge kills the key's term."""
    for point in SMALL:
        key = of(point)
        s = 12345
        r = of(times(s, BASE))
        message = next(m for m in map(str.encode, map(str, range(999))) if challenge(r, key, m) % 8 == 0)
        assert library_accepts(key, r + s.to_bytes(32, "little"), message)
        with pytest.raises(KeyRefused):
            ed25519.verify(key, r + s.to_bytes(32, "little"), message)


SECRET = 0x1234567890ABCDEF << 100
KEY = of(times(SECRET, BASE))


def signed_with(r_point, r_scalar, message):
    """A signature by an odd signer who chooses R."""
    r = of(r_point)
    return r + ((r_scalar + challenge(r, KEY, message) * SECRET) % L).to_bytes(32, "little")


def test_an_honest_signature_with_a_chosen_r_verifies():
    ed25519.verify(KEY, signed_with(times(7, BASE), 7, b"m"), b"m")


def test_a_signature_whose_r_is_of_small_order_is_refused():
    signature = signed_with((0, 1), 0, b"m")
    assert library_accepts(KEY, signature, b"m")
    with pytest.raises(SignatureRefused, match="small order") as caught:
        ed25519.verify(KEY, signature, b"m")
    assert caught.value.id == "PLG-SIG-006"


def test_a_signature_whose_r_is_not_canonical_is_refused():
    r = encoded(P + 1)
    signature = r + (challenge(r, KEY, b"m") * SECRET % L).to_bytes(32, "little")
    with pytest.raises(SignatureRefused, match="canonical"):
        ed25519.verify(KEY, signature, b"m")


@pytest.mark.parametrize("multiple", range(1, 16))
def test_a_signature_with_s_plus_a_multiple_of_l_is_refused(multiple):
    signature = kit.ACME.sign(b"m")
    larger = int.from_bytes(signature[32:], "little") + multiple * L
    if larger >= 2**256:
        pytest.skip("does not fit 32 bytes")
    with pytest.raises(SignatureRefused, match="second spelling") as caught:
        ed25519.verify(kit.ACME.public.raw, signature[:32] + larger.to_bytes(32, "little"), b"m")
    assert caught.value.id == "PLG-SIG-006"


@pytest.mark.parametrize("length", [0, 1, 31, 33, 64])
def test_a_key_of_another_length_is_refused(length):
    with pytest.raises(KeyRefused) as caught:
        ed25519.check_key(b"\x05" * length)
    assert caught.value.id == "PLG-KEY-001"


def test_the_published_wycheproof_vectors_get_their_published_verdict():
    with open(os.path.join(kit.vectors("wycheproof"), "ed25519_test.json"), "rb") as file:
        published = json.load(file)
    wrong, count = [], 0
    for group in published["testGroups"]:
        key = bytes.fromhex(group["publicKey"]["pk"])
        for case in group["tests"]:
            count += 1
            try:
                ed25519.verify(key, bytes.fromhex(case["sig"]), bytes.fromhex(case["msg"]))
                verdict = "valid"
            except SigningError:
                verdict = "invalid"
            if verdict != case["result"]:
                wrong.append((case["tcId"], verdict))
    assert count == published["numberOfTests"]
    assert wrong == []


def test_the_vectors_of_rfc_8032_and_their_authors_verify_and_nothing_near_them_does():
    """1,024 keys and messages of 0 to 1,023 bytes; RFC 8032 §7.1 took its tests 1, 2, 3 and 1024 from them."""
    with cryptography_vectors.open_vector_file("asymmetric/Ed25519/sign.input", "r") as file:
        lines = [line.rstrip("\n").split(":") for line in file]
    assert len(lines) == 1024
    for secret_and_key, key_hex, message_hex, signature_and_message, _ in lines:
        key, message = bytes.fromhex(key_hex), bytes.fromhex(message_hex)
        signature = bytes.fromhex(signature_and_message)[:64]
        assert bytes.fromhex(secret_and_key)[32:] == key
        ed25519.verify(key, signature, message)
        with pytest.raises(SignatureRefused):
            ed25519.verify(key, signature, message + b"\0")
        with pytest.raises(SignatureRefused):
            ed25519.verify(key, signature[:63] + bytes([signature[63] ^ 1]), message)


@pytest.mark.parametrize("name", RFC_8032)
def test_the_vectors_printed_in_rfc_8032_verify(name):
    key, message, signature = map(bytes.fromhex, RFC_8032[name])
    ed25519.verify(key, signature, message)
