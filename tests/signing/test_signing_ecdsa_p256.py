"""ECDSA signatures have one spelling here, though the mathematics gives each of them two."""

import json
import os
import subprocess

import cryptography_vectors
import pytest
import signing_kit as kit
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from plugsec_signing import ecdsa_p256, keys, sshsig, wire
from plugsec_signing.errors import KeyRefused, SignatureRefused, SigningError
from plugsec_signing.verify import verify_bundle

P = 0xFFFFFFFF00000001000000000000000000000000FFFFFFFFFFFFFFFFFFFFFFFF
N = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
SECRET = ec.derive_private_key(0xC0FFEE << 200 | 1, ec.SECP256R1())
POINT = SECRET.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
MESSAGE = kit.manifest()
NAMESPACE = sshsig.NAMESPACE_MANIFEST


def blob_of(point: bytes, kind: bytes = b"ecdsa-sha2-nistp256", curve: bytes = b"nistp256") -> bytes:
    return wire.string(kind) + wire.string(curve) + wire.string(point)


BLOB = blob_of(POINT)


def mpint(number: int) -> bytes:
    """RFC 4251 §5, by another way than the code's."""
    digits = f"{number:x}" if number else ""
    data = bytes.fromhex("0" * (len(digits) % 2) + digits)
    return wire.string(b"\0" + data if data and data[0] & 0x80 else data)


def pair(r: int, s: int) -> bytes:
    return mpint(r) + mpint(s)


def library_signs(message: bytes) -> tuple[int, int]:
    r, s = utils.decode_dss_signature(SECRET.sign(message, ec.ECDSA(hashes.SHA256())))
    return r, min(s, N - s)


R, S = library_signs(b"m")


def library_accepts(r: int, s: int, message: bytes) -> bool:
    try:
        SECRET.public_key().verify(utils.encode_dss_signature(r, s), message, ec.ECDSA(hashes.SHA256()))
    except Exception:
        return False
    return True


def test_a_signature_by_the_library_verifies_in_its_low_form():
    ecdsa_p256.verify_blob(BLOB, pair(R, S), b"m")


def test_the_second_spelling_that_the_library_accepts_is_refused():
    assert library_accepts(R, N - S, b"m")
    with pytest.raises(SignatureRefused, match="second spelling") as caught:
        ecdsa_p256.verify_blob(BLOB, pair(R, N - S), b"m")
    assert (caught.value.id, caught.value.code) == ("PLG-SIG-006", 3)
    assert ecdsa_p256.one_spelling(pair(R, N - S)) == pair(R, S) == ecdsa_p256.one_spelling(pair(R, S))


HALF = (N - 1) // 2


@pytest.mark.parametrize(
    ("s", "low"), [(HALF - 1, True), (HALF, True), (HALF + 1, False), (HALF + 2, False), (N - 1, False)]
)
def test_low_ends_at_half_the_order(s, low):
    with pytest.raises(SignatureRefused) as caught:
        ecdsa_p256.verify_blob(BLOB, pair(R, s), b"m")
    assert caught.value.id == ("PLG-SIG-005" if low else "PLG-SIG-006")


w = wire.string
s_bytes = mpint(S)[4:]
ODD = {
    "r is zero": pair(0, S),
    "s is zero": pair(R, 0),
    "both are zero": pair(0, 0),
    "r is n": pair(N, S),
    "s is n": pair(R, N),
    "r + n": pair(R + N, S),
    "s + n": pair(R, S + N),
    "r is huge": pair(1 << 8000, S),
    "r is negative": w(b"\xff" * 32) + mpint(S),
    "s is negative": mpint(R) + w(b"\x80"),
    "a needless zero byte in front of a small r": w(b"\0\7") + mpint(S),
    "two zero bytes in front of s": mpint(R) + w(b"\0\0" + s_bytes),
    "zero spelt as a byte": mpint(R) + w(b"\0"),
    "one number": mpint(R),
    "three numbers": pair(R, S) + mpint(1),
    "a byte after": pair(R, S) + b"\0",
    "cut": pair(R, S)[:-1],
    "nothing": b"",
    "length beyond the end": b"\xff\xff\xff\xff" + mpint(S),
    "DER": utils.encode_dss_signature(R, S),
    "r and s bare": R.to_bytes(32, "big") + S.to_bytes(32, "big"),
}


@pytest.mark.parametrize("name", ODD)
def test_numbers_in_another_form_or_range_are_refused(name):
    for attempt in (
        lambda: ecdsa_p256.verify_blob(BLOB, ODD[name], b"m"),
        lambda: ecdsa_p256.one_spelling(ODD[name]),
    ):
        with pytest.raises(SignatureRefused) as caught:
            attempt()
        assert (caught.value.id, caught.value.code) == ("PLG-SIG-006", 3)


X, Y = int.from_bytes(POINT[1:33], "big"), int.from_bytes(POINT[33:], "big")


def point(x: int, y: int) -> bytes:
    return b"\4" + x.to_bytes(32, "big") + y.to_bytes(32, "big")


POINTS = {
    "infinity": (b"\0", "PLG-KEY-001"),
    "infinity, padded": (bytes(65), "PLG-KEY-001"),
    "compressed": (bytes([2 + Y % 2]) + POINT[1:33], "PLG-KEY-001"),
    "hybrid": (bytes([6 + Y % 2]) + POINT[1:], "PLG-KEY-001"),
    "no prefix": (POINT[1:], "PLG-KEY-001"),
    "a byte more": (POINT + b"\0", "PLG-KEY-001"),
    "empty": (b"", "PLG-KEY-001"),
    "zeros": (point(0, 0), "PLG-KEY-002"),
    "off the curve": (point(X, Y ^ 1), "PLG-KEY-002"),
    "on the twist": (point(X + 1, Y), "PLG-KEY-002"),
    "x is p": (point(P, Y), "PLG-KEY-002"),
    "all ones": (b"\4" + b"\xff" * 64, "PLG-KEY-002"),
    "y is p": (point(X, P), "PLG-KEY-002"),
}


@pytest.mark.parametrize("name", POINTS)
def test_a_key_that_is_no_plain_point_of_the_curve_is_refused(name):
    data, error_id = POINTS[name]
    with pytest.raises(KeyRefused) as caught:
        keys.parse_blob(blob_of(data))
    assert (caught.value.id, caught.value.code) == (error_id, 3)


def test_a_second_encoding_of_a_point_is_refused():
    """x = 5 has a point, and x + p still fits 32 bytes: the same point, spelt otherwise."""
    b = 0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B
    square = (125 - 15 + b) % P
    y = pow(square, (P + 1) // 4, P)
    assert y * y % P == square
    assert keys.parse_blob(blob_of(point(5, y))).raw == point(5, y)
    with pytest.raises(KeyRefused) as caught:
        keys.parse_blob(blob_of(point(5 + P, y)))
    assert caught.value.id == "PLG-KEY-002"


def test_both_points_with_one_x_are_keys_of_their_own():
    assert keys.parse_blob(blob_of(point(X, P - Y))).raw != keys.parse_blob(BLOB).raw == POINT


@pytest.mark.parametrize(
    "blob",
    [
        blob_of(POINT, curve=b"nistp384"),
        blob_of(POINT, curve=b""),
        blob_of(POINT) + b"\0",
        blob_of(POINT)[:-1],
        wire.string(b"ecdsa-sha2-nistp256") + wire.string(POINT),
        wire.string(b"ecdsa-sha2-nistp256"),
    ],
)
def test_a_key_blob_of_another_form_is_refused(blob):
    with pytest.raises(KeyRefused) as caught:
        keys.parse_blob(blob)
    assert caught.value.id == "PLG-KEY-001"


def test_bare_signatures_of_both_customs_become_the_one_spelling():
    for s in (S, N - S):
        assert ecdsa_p256.from_bare(utils.encode_dss_signature(R, s)) == pair(R, S)
        assert ecdsa_p256.from_bare(R.to_bytes(32, "big") + s.to_bytes(32, "big")) == pair(R, S)


@pytest.mark.parametrize(
    "bare", [b"", b"\0" * 64, b"\xff" * 64, b"x" * 63, b"0" * 70, b"\x30\x06\x02\x01\0\x02\x01\0"]
)
def test_a_bare_signature_that_is_none_is_refused(bare):
    with pytest.raises(SignatureRefused) as caught:
        ecdsa_p256.from_bare(bare)
    assert caught.value.id == "PLG-SIG-006"


@given(
    st.binary(max_size=100) | st.tuples(st.integers(0, N + 5), st.integers(0, N + 5)).map(lambda n: pair(*n))
)
def test_any_bytes_as_signature_are_refused_within_our_tree(data):
    with pytest.raises(SignatureRefused):
        ecdsa_p256.verify_blob(BLOB, data, b"m")


@given(st.integers(1, N - 1), st.integers(1, N - 1))
def test_the_one_spelling_is_a_fixed_point_and_forgets_the_sign_of_s_alone(r, s):
    one = ecdsa_p256.one_spelling(pair(r, s))
    assert one == ecdsa_p256.one_spelling(one) == ecdsa_p256.one_spelling(pair(r, N - s))
    assert one in (pair(r, s), pair(r, N - s))


@given(st.integers(0, 255), st.binary(max_size=80))
def test_any_point_is_a_key_or_is_refused_within_our_tree(first, rest):
    with pytest.raises(KeyRefused):
        keys.parse_blob(blob_of(bytes([first]) + rest[:64].ljust(64, b"\7")))


def test_the_published_wycheproof_vectors_get_their_published_verdict():
    """Except that of two spellings the higher is refused, and accepted once it is rewritten."""
    with open(os.path.join(kit.vectors("wycheproof"), "ecdsa_secp256r1_sha256_test.json"), "rb") as file:
        published = json.load(file)
    wrong, count, high = [], 0, 0
    for group in published["testGroups"]:
        blob = blob_of(bytes.fromhex(group["publicKey"]["uncompressed"]))
        for case in group["tests"]:
            count += 1
            message = bytes.fromhex(case["msg"])
            try:
                ecdsa_p256.verify_blob(blob, ecdsa_p256.from_bare(bytes.fromhex(case["sig"])), message)
                verdict = "valid"
            except SigningError:
                verdict = "invalid"
            if verdict != case["result"]:
                wrong.append((case["tcId"], verdict))
            if verdict == "valid":
                r, s = utils.decode_dss_signature(bytes.fromhex(case["sig"]))
                if s > HALF:
                    high += 1
                    with pytest.raises(SignatureRefused, match="second spelling"):
                        ecdsa_p256.verify_blob(blob, pair(r, s), message)
    assert count == published["numberOfTests"]
    assert wrong == []
    assert high > 50


def nist_vectors(file_name: str, section: str) -> list[dict[str, str]]:
    """The cases of one section of NIST's response files, as their names and values."""
    with cryptography_vectors.open_vector_file(f"asymmetric/ECDSA/FIPS_186-3/{file_name}", "r") as file:
        text = file.read()
    cases = text.partition(f"[{section}]\n")[2].partition("\n[")[0].strip().split("\n\n")
    return [dict(line.split(" = ", 1) for line in case.splitlines()) for case in cases]


def test_the_signatures_that_nist_published_get_their_published_verdict():
    cases = nist_vectors("SigVer.rsp", "P-256,SHA-256")
    assert len(cases) == 15
    for case in cases:
        numbers = {name: int(case[name], 16) for name in ("Qx", "Qy", "R", "S")}
        try:
            one = ecdsa_p256.one_spelling(pair(numbers["R"], numbers["S"]))
            ecdsa_p256.verify_blob(
                blob_of(point(numbers["Qx"], numbers["Qy"])), one, bytes.fromhex(case["Msg"])
            )
            verdict = "P"
        except SigningError:
            verdict = "F"
        assert verdict == case["Result"][0], case


def test_the_keys_that_nist_published_get_their_published_verdict():
    cases = nist_vectors("PKV.rsp", "P-256")
    assert len(cases) == 12
    for case in cases:
        numbers = (int(case[name], 16) for name in ("Qx", "Qy"))
        data = b"\4" + b"".join(n.to_bytes(max(32, (n.bit_length() + 7) // 8), "big") for n in numbers)
        try:
            keys.parse_blob(blob_of(data))
            verdict = "P"
        except KeyRefused:
            verdict = "F"
        assert verdict == case["Result"][0], case


# Whole signatures.

PRIVATE = keys.PrivateKey(
    keys.parse_blob(BLOB), lambda data: ecdsa_p256.from_bare(SECRET.sign(data, ec.ECDSA(hashes.SHA256())))
)


def test_an_ecdsa_signature_is_packed_as_ssh_does_it_and_verifies():
    armour = sshsig.sign(PRIVATE, MESSAGE, NAMESPACE)
    signature = sshsig.parse(armour)
    assert sshsig.verify(signature, MESSAGE, NAMESPACE) == PRIVATE.public
    assert sshsig.encode(signature) == armour == sshsig.one_spelling(armour)
    with pytest.raises(SignatureRefused):
        sshsig.verify(signature, MESSAGE + b" ", NAMESPACE)


def test_the_second_spelling_of_a_whole_signature_is_refused_and_rewritten():
    low = sshsig.sign(PRIVATE, MESSAGE, NAMESPACE)
    r, s = (int.from_bytes(part, "big") for part in wire.strings(sshsig.parse(low).signature, 2))
    high = sshsig.encode(sshsig.parse(low)._replace(signature=pair(r, N - s)))
    with pytest.raises(SignatureRefused) as caught:
        sshsig.verify(sshsig.parse(high), MESSAGE, NAMESPACE)
    assert caught.value.id == "PLG-SIG-006"
    assert sshsig.one_spelling(high) == low


def test_a_bundle_with_the_second_spelling_of_a_signature_is_refused(bundle_path):
    pieces = kit.parts(signers=(kit.ACME, PRIVATE))
    evidence = verify_bundle(bundle_path(b"".join(pieces.values())), kit.store(), kit.NOW)
    name = keys.fingerprint(PRIVATE.public)
    assert evidence.untrusted == (name,)
    low = pieces[name][512 : 512 + int(pieces[name][124:135], 8)]
    r, s = (int.from_bytes(part, "big") for part in wire.strings(sshsig.parse(low).signature, 2))
    high = sshsig.encode(sshsig.parse(low)._replace(signature=pair(r, N - s)))
    pieces[name] = kit.raw_entry(f"PLUGSEC/signatures/{name}.sshsig".encode(), high)
    with pytest.raises(SignatureRefused) as caught:
        verify_bundle(bundle_path(b"".join(pieces.values())), kit.store(), kit.NOW)
    assert (caught.value.id, caught.value.code) == ("PLG-SIG-006", 3)


@given(st.integers(0, 10**6), st.integers(1, 255))
def test_no_changed_byte_of_an_ecdsa_signature_is_accepted(at, change):
    good = GOOD
    at %= len(good)
    with pytest.raises(SigningError):
        changed = good[:at] + bytes([good[at] ^ change]) + good[at + 1 :]
        sshsig.verify(sshsig.parse(changed), MESSAGE, NAMESPACE)


GOOD = sshsig.sign(PRIVATE, MESSAGE, NAMESPACE)


# Both ways with the stock program.


@pytest.fixture(params=["", "correct horse"], ids=["plain", "with a passphrase"])
def stock_pair(request, tmp_path):
    """A key made by ssh-keygen, and its passphrase."""
    path = str(tmp_path / "key")
    subprocess.run(
        [kit.stock("ssh-keygen"), "-q", "-t", "ecdsa", "-b", "256", "-N", request.param, "-f", path],
        check=True,
    )
    return path, request.param.encode()


def test_signatures_by_ssh_keygen_are_accepted_in_their_one_spelling(tmp_path):
    program = kit.stock("ssh-keygen")
    subprocess.run([program, "-q", "-t", "ecdsa", "-b", "256", "-N", "", "-f", "k"], cwd=tmp_path, check=True)
    spellings = set()
    for _ in range(40):  # each is high or low by chance
        done = subprocess.run(
            [program, "-Y", "sign", "-f", "k", "-n", NAMESPACE],
            cwd=tmp_path, input=MESSAGE, capture_output=True, check=True,
        )  # fmt: skip
        one = sshsig.one_spelling(done.stdout)
        spellings.add("low" if one == done.stdout else "high")
        key = sshsig.verify(sshsig.parse(one), MESSAGE, NAMESPACE)
        if spellings == {"low", "high"}:
            break
    assert spellings == {"low", "high"}
    assert keys.public_line(key).split()[1] in (tmp_path / "k.pub").read_text()


def test_ssh_keygen_verifies_our_ecdsa_signature(stock_pair, tmp_path):
    path, passphrase = stock_pair
    program = kit.stock("ssh-keygen")
    private = keys.load_private_key(path, lambda: passphrase)
    (tmp_path / "allowed").write_text(f"acme {keys.public_line(private.public)}\n")
    for _ in range(4):
        (tmp_path / "s").write_bytes(sshsig.sign(private, MESSAGE, NAMESPACE))
        subprocess.run(
            [program, "-Y", "verify", "-f", "allowed", "-I", "acme", "-n", NAMESPACE, "-s", "s"],
            cwd=tmp_path, input=MESSAGE, capture_output=True, check=True,
        )  # fmt: skip
        sshsig.verify(sshsig.parse((tmp_path / "s").read_bytes()), MESSAGE, NAMESPACE)


def test_pkcs8_and_other_curves(tmp_path):
    for name, curve, accepted in (
        ("a", ec.SECP256R1(), True),
        ("b", ec.SECP384R1(), False),
        ("c", ec.SECP256K1(), False),
    ):
        key = ec.generate_private_key(curve)
        path = tmp_path / name
        path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        path.chmod(0o600)
        if accepted:
            assert keys.load_private_key(str(path)).public.algorithm == "ecdsa-sha2-nistp256"
            continue
        with pytest.raises(KeyRefused) as caught:
            keys.load_private_key(str(path))
        assert caught.value.id == "PLG-KEY-003"
