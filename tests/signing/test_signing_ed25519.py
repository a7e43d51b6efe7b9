"""The verification primitive refuses what the common library lets through.

The curve arithmetic below is this file's own (RFC 8032 §5.1.4, affine and slow), so that the table of
small-order points in the code is compared with points that were computed.
"""

import hashlib
import json
import os

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
