"""Files that must not be published: recognised by name, and private keys by what is in them.

A bundle is signed and passed around; what has once been in it cannot be called back. So a suspicion is
enough to refuse, and the author says `exclude` (or, for a key that really is a sample, renames or alters it).
"""

import re

_NAMES = re.compile(
    r"\.env(\..*)?|\.?_?netrc|\.pypirc|\.npmrc|\.pgpass|\.htpasswd|\.git-credentials|\.dockercfg"
    r"|id_(rsa|dsa|ecdsa|ecdsa_sk|ed25519|ed25519_sk)"
    r"|.*\.(p12|pfx|jks|keystore|kdbx|ppk)",
    re.ASCII | re.IGNORECASE,
)
# Published on purpose, to show what the real file would hold.
_SAMPLES = re.compile(r"\.env\.(example|sample|template|dist)", re.IGNORECASE)

# RFC 7468 armour followed by a line of its content, so that code which only mentions the marker passes.
_PRIVATE_KEY = re.compile(
    rb"-----BEGIN (?:[A-Z0-9]{1,20} ){0,3}PRIVATE KEY(?: BLOCK)?-----\r?\n\r?\n?[A-Za-z0-9+/=:,. -]{16}"
    rb"|PuTTY-User-Key-File-[0-9]: "
)
# The longest text that the pattern can match, so that a key across two chunks is still found.
OVERLAP = 128


def suspicious_name(name: str) -> bool:
    """Tell whether a file of this name usually holds a secret."""
    return bool(_NAMES.fullmatch(name)) and not _SAMPLES.fullmatch(name)


def holds_private_key(data: bytes) -> bool:
    """Tell whether a private key begins in these bytes."""
    return bool(_PRIVATE_KEY.search(data))
