"""A second reader of bundles, written from docs/formats/bundle.md alone.

It shares no code with plugsec and no approach either: it holds the whole file in memory and slices. The
signature's mathematics is left to whoever has `ssh-keygen`; everything else on the page is checked.
Any refusal is an `AssertionError`, an index error or a decoding error: all mean "refused" here.
"""

import base64
import hashlib
import json
import re

COMPONENT = re.compile(r"[!#-)+,\-0-9;=@A-Z\[\]^_`a-z{}~ .]+")
HEX = re.compile(r"[0-9a-f]{64}")


def read(data: bytes) -> tuple[dict, dict[str, bytes], dict[str, bytes]]:
    """Return (manifest, signatures by H, payload by path); section numbers are those of the page."""
    manifest_bytes, at = entry(data, 0, "PLUGSEC/manifest.json", 8_388_608)  # §1 reading 1
    manifest = json.loads(manifest_bytes)
    check_manifest(manifest, manifest_bytes)  # 2
    signatures, at = kind(data, at, "PLUGSEC/signatures/", ".sshsig", 16_384)  # 3
    attestations, at = kind(data, at, "PLUGSEC/attestations/", ".dsse.json", 262_144)
    for name, armour in signatures.items():
        check_signature(name, armour, b"plugsec-manifest@v1")  # §4
    for name, envelope in attestations.items():
        assert hashlib.sha256(envelope).hexdigest() == name
        check_attestation(envelope, hashlib.sha256(manifest_bytes).hexdigest())  # §5
    payload = {}
    for file in manifest["files"]:  # 4
        assert data[at : at + 512] == header(file["path"], file["size"], file["mode"])
        payload[file["path"]], at = content(data, at, file["size"])
        assert hashlib.sha256(payload[file["path"]]).hexdigest() == file["sha256"]
    assert data[at:] == bytes(1024)  # 5
    return manifest, signatures, payload


def header(path: str, size: int, mode: int) -> bytes:
    prefix, name = "", path
    if len(path) > 100:
        at = next(i for i, char in enumerate(path) if char == "/" and len(path) - i - 1 <= 100)
        prefix, name = path[:at], path[at + 1 :]
        assert len(prefix) <= 155
    before = f"{mode:07o}\0{0:07o}\0{0:07o}\0{size:011o}\0{0:011o}\0".encode()
    after = b"0" + bytes(100) + b"ustar\x0000" + bytes(64) + b"0000000\x000000000\0"
    fixed = name.encode().ljust(100, b"\0") + before
    rest = after + prefix.encode().ljust(155, b"\0") + bytes(12)
    total = sum(fixed) + sum(rest) + 8 * 0x20
    return fixed + f"{total:06o}\0 ".encode() + rest


def content(data: bytes, at: int, size: int) -> tuple[bytes, int]:
    start, end = at + 512, at + 512 + size
    padded = end + -size % 512
    assert padded <= len(data)
    assert data[end:padded] == bytes(padded - end)
    return data[start:end], padded


def entry(data: bytes, at: int, path: str, most: int) -> tuple[bytes, int]:
    block = data[at : at + 512]
    assert re.fullmatch(rb"[0-7]{11}\0", block[124:136])
    size = int(block[124:135], 8)
    assert size <= most
    assert block == header(path, size, 0o644)
    return content(data, at, size)


def kind(data: bytes, at: int, prefix: str, suffix: str, most: int) -> tuple[dict[str, bytes], int]:
    found = {}
    form = re.compile(re.escape(prefix.encode()) + rb"([0-9a-f]{64})" + re.escape(suffix.encode()))
    while match := form.fullmatch(data[at : at + 100].split(b"\0")[0]):
        name = match[1].decode()
        assert not found or name > max(found)
        found[name], at = entry(data, at, prefix + name + suffix, most)
    assert len(found) <= 16
    return found, at


def check_manifest(manifest: dict, text: bytes) -> None:
    # Enough of RFC 8785 for keys within the basic plane, which is all that this reader accepts.
    canonical = json.dumps(manifest, ensure_ascii=False, separators=(",", ":"), sort_keys=True)
    assert canonical.encode() == text
    assert manifest["schema"] == "plugsec.manifest/1"
    part = r"[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?"
    assert re.fullmatch(f"{part}/{part}", manifest["name"])
    assert not manifest["name"].endswith((".plug", ".plug.zst"))
    assert not manifest["version"].endswith((".plug", ".plug.zst"))
    assert isinstance(manifest["release"], int) and manifest["release"] >= 0
    paths = [file["path"] for file in manifest["files"]]
    lower = {path.lower() for path in paths}
    assert 1 <= len(paths) <= 100_000 and paths == sorted(paths) and len(lower) == len(paths)
    for file in manifest["files"]:
        assert set(file) == {"path", "size", "mode", "sha256"} and file["mode"] in (420, 493)
        assert HEX.fullmatch(file["sha256"]) and file["size"] >= 0
        check_path(file["path"], lower)
    assert sum(file["size"] for file in manifest["files"]) <= 4_294_967_296


def check_path(path: str, lower: set[str]) -> None:
    components = path.split("/")
    assert len(path) <= 240 and len(components) <= 32 and components[0].lower() != "plugsec"
    for component in components:
        assert COMPONENT.fullmatch(component) and component.strip(" .") == component
    for depth in range(1, len(components)):
        assert "/".join(components[:depth]).lower() not in lower


def check_signature(name: str, armour: bytes, purpose: bytes) -> None:
    lines = armour.split(b"\n")
    assert lines[0] == b"-----BEGIN SSH SIGNATURE-----" and lines[-2:] == [
        b"-----END SSH SIGNATURE-----",
        b"",
    ]
    body = b"".join(lines[1:-2])
    assert lines[1:-2] == [body[i : i + 70] for i in range(0, len(body), 70)]
    blob = base64.b64decode(body, validate=True)
    assert base64.b64encode(blob) == body
    assert blob[:10] == b"SSHSIG\0\0\0\1"
    fields, at = [], 10
    while at < len(blob):
        length = int.from_bytes(blob[at : at + 4], "big")
        fields.append(blob[at + 4 : at + 4 + length])
        at += 4 + length
    assert at == len(blob)
    key, namespace, reserved, hash_name, inner = fields
    assert (namespace, reserved, hash_name) == (purpose, b"", b"sha512")
    assert hashlib.sha256(key).hexdigest() == name
    check_algorithm(key, inner)


def check_algorithm(key: bytes, inner: bytes) -> None:
    name, key = cut(key)
    assert cut(inner)[0] == name
    signature, rest = cut(cut(inner)[1])
    if name == b"ssh-ed25519":
        assert key[:4] == b"\0\0\0\x20" and len(key) == 36
        assert len(signature) == 64 and not rest
    elif name == b"sk-ssh-ed25519@openssh.com":
        assert key[:4] == b"\0\0\0\x20"
        application, nothing = cut(key[36:])
        assert re.fullmatch(rb"ssh:[ -~]{0,251}", application) and not nothing
        assert len(signature) == 64 and len(rest) == 5 and rest[0] & 1
    else:
        assert name == b"ecdsa-sha2-nistp256"
        curve, key = cut(key)
        assert curve == b"nistp256" and key[:5] == b"\0\0\0\x41\x04" and len(key) == 69
        r, second = cut(signature)
        s, nothing = cut(second)
        assert not nothing and not rest
        order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
        for number in (r, s):
            value = int.from_bytes(number, "big", signed=True)
            assert 0 < value < order and len(number) == value.bit_length() // 8 + 1
        assert int.from_bytes(s, "big") <= (order - 1) // 2


def cut(data: bytes) -> tuple[bytes, bytes]:
    end = 4 + int.from_bytes(data[:4], "big")
    assert len(data) >= end >= 4
    return data[4:end], data[end:]


def check_attestation(text: bytes, digits: str) -> None:
    envelope = json.loads(text)
    assert json.dumps(envelope, separators=(",", ":"), sort_keys=True).encode() == text
    assert set(envelope) == {"payload", "payloadType", "signatures"}
    assert envelope["payloadType"] == "application/vnd.in-toto+json"
    names = [each["keyid"] for each in envelope["signatures"]]
    assert 1 <= len(names) <= 16 and names == sorted(set(names))
    for each in envelope["signatures"]:
        assert set(each) == {"keyid", "sig"}
        check_signature(each["keyid"], unbase64(each["sig"]), b"plugsec-attestation@v1")
    statement = json.loads(unbase64(envelope["payload"]), object_pairs_hook=without_doubles)
    assert {"_type", "subject", "predicateType"} <= set(statement)
    assert set(statement) <= {"_type", "subject", "predicateType", "predicate"}
    assert statement["_type"] == "https://in-toto.io/Statement/v1"
    (subject,) = statement["subject"]
    assert set(subject) <= {"name", "digest"} and subject["digest"] == {"sha256": digits}
    kind = statement["predicateType"]
    assert re.fullmatch(r"[a-z][a-z0-9+.-]*:[!-~]+", kind) and len(kind) <= 256
    assert isinstance(statement.get("predicate", {}), dict)


def unbase64(text: str) -> bytes:
    data = base64.b64decode(text, validate=True)
    assert base64.b64encode(data).decode() == text
    return data


def without_doubles(pairs: list[tuple]) -> dict:
    assert len({key for key, _ in pairs}) == len(pairs)
    return dict(pairs)
