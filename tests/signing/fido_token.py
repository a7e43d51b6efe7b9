"""A FIDO token in software, written from PROTOCOL.u2f alone: what real tokens do, and what broken ones might.

As a module it signs for tests; as a program it is the token behind the provider library that `ssh-keygen`
and `ssh-agent` load instead of hardware (see `PROVIDER`). It shares no code with plugsec.

    python fido_token.py enroll                                  prints seed and public key, in hex
    python fido_token.py sign SEED APPLICATION FLAGS MESSAGE     prints the signature; all in hex
"""

import hashlib
import os
import subprocess
import sys

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

COUNTER = 7


def string(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data


def key_blob(seed: bytes, application: bytes = b"ssh:") -> bytes:
    public = Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()
    return string(b"sk-ssh-ed25519@openssh.com") + string(public) + string(application)


def statement(application: bytes, flags: int, counter: int, message: bytes) -> bytes:
    return (
        hashlib.sha256(application).digest()
        + bytes([flags])
        + counter.to_bytes(4, "big")
        + hashlib.sha256(message).digest()
    )


def sign(
    seed: bytes, message: bytes, *, application: bytes = b"ssh:", flags: int = 1, counter: int = COUNTER
) -> bytes:
    """The signature, the flags and the counter: 64 + 1 + 4 bytes."""
    signed = statement(application, flags, counter, message)
    signature = Ed25519PrivateKey.from_private_bytes(seed).sign(signed)
    return signature + bytes([flags]) + counter.to_bytes(4, "big")


# OpenSSH's PROTOCOL.u2f, "Middleware": the functions and records that a provider library has. This one asks
# the program above. `PYTHON`, `TOKEN` and `VERSION` are given to the compiler.
PROVIDER = r"""
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct sk_enroll_response {
    uint8_t flags;
    uint8_t *public_key; size_t public_key_len;
    uint8_t *key_handle; size_t key_handle_len;
    uint8_t *signature; size_t signature_len;
    uint8_t *attestation_cert; size_t attestation_cert_len;
    uint8_t *authdata; size_t authdata_len;
};
struct sk_sign_response {
    uint8_t flags;
    uint32_t counter;
    uint8_t *sig_r; size_t sig_r_len;
    uint8_t *sig_s; size_t sig_s_len;
};

static uint8_t *copy(const uint8_t *data, size_t length) {
    uint8_t *made = malloc(length);
    if (made) memcpy(made, data, length);
    return made;
}

static void hex(char *out, const void *data, size_t length) {
    for (size_t i = 0; i < length; i++) sprintf(out + strlen(out), "%02x", ((const uint8_t *)data)[i]);
    strcat(out, " ");
}

static int ask(const char *command, uint8_t *answer, size_t length) {
    FILE *pipe = popen(command, "r");
    size_t got = 0;
    unsigned byte;
    while (pipe && got < length && fscanf(pipe, "%2x", &byte) == 1) answer[got++] = (uint8_t)byte;
    return pipe && pclose(pipe) == 0 && got == length ? 0 : -1;
}

uint32_t sk_api_version(void) { return VERSION; }

int sk_enroll(uint32_t alg, const uint8_t *challenge, size_t challenge_len, const char *application,
              uint8_t flags, const char *pin, void **options, struct sk_enroll_response **response) {
    uint8_t made[64];
    if (ask(PYTHON " " TOKEN " enroll", made, sizeof made)) return -1;
    *response = calloc(1, sizeof **response);
    (*response)->flags = flags;
    (*response)->key_handle = copy(made, 32);
    (*response)->key_handle_len = 32;
    (*response)->public_key = copy(made + 32, 32);
    (*response)->public_key_len = 32;
    return 0;
}

int sk_sign(uint32_t alg, const uint8_t *data, size_t data_len, const char *application,
            const uint8_t *key_handle, size_t key_handle_len, uint8_t flags, const char *pin, void **options,
            struct sk_sign_response **response) {
    static char command[16384];
    uint8_t signature[69];
    if (key_handle_len != 32 || data_len > 4096) return -1;
    strcpy(command, PYTHON " " TOKEN " sign ");
    hex(command, key_handle, key_handle_len);
    hex(command, application, strlen(application));
    hex(command, &flags, 1);
    hex(command, data, data_len);
    if (ask(command, signature, sizeof signature)) return -1;
    *response = calloc(1, sizeof **response);
    (*response)->flags = signature[64];
    (*response)->counter = (uint32_t)signature[65] << 24 | signature[66] << 16 | signature[67] << 8 | signature[68];
    (*response)->sig_r = copy(signature, 64);
    (*response)->sig_r_len = 64;
    return 0;
}

int sk_load_resident_keys(const char *pin, void **options, void ***keys, size_t *count) { return -1; }
"""


def build_provider(compiler: str, directory: str) -> tuple[str, str]:
    """Build the library; return its path and, if `ssh-keygen` does not take it, what that said."""
    source, library = os.path.join(directory, "provider.c"), os.path.join(directory, "provider.so")
    with open(source, "w", encoding="utf-8") as file:
        file.write(PROVIDER)
    token = os.path.join(directory, "token.py")  # a path without blanks: it goes through a shell
    os.symlink(os.path.abspath(__file__), token)
    done = None
    for version in ("0x000a0000", "0x00090000"):  # OpenSSH 9.2 and later, 8.9 to 9.1
        subprocess.run(
            [
                compiler, "-shared", "-fPIC", "-o", library, source, f"-DVERSION={version}",
                f'-DPYTHON="{sys.executable}"', f'-DTOKEN="{token}"',
            ],
            check=True,
        )  # fmt: skip
        done = keygen(directory, library, "probe")
        if done.returncode == 0:
            return library, ""
    return library, done.stderr or "nothing"


def keygen(directory: str, provider: str, name: str, *options: str) -> "subprocess.CompletedProcess[str]":
    """Make a key in the token with `ssh-keygen`."""
    return subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519-sk", "-w", provider, "-N", "", "-C", name, *options, "-f", name],
        cwd=directory, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip


def main() -> None:
    if sys.argv[1:] == ["enroll"]:
        key = Ed25519PrivateKey.generate()
        print((key.private_bytes_raw() + key.public_key().public_bytes_raw()).hex())
        return
    seed, application, flags, message = map(bytes.fromhex, sys.argv[2:])
    print(sign(seed, message, application=application, flags=flags[0]).hex())


if __name__ == "__main__":
    main()
