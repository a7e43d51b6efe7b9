"""Signatures that were verified here before: a run that meets one again need not load `cryptography`.

What is kept is a fact of arithmetic, "this signature verifies over this manifest under the key that it
is named for", by the digest of all of its bytes and of plugsec's version. It says nothing of trust: the
store, its rules and its revocations are asked in every run. The facts are empty files in a directory
that nobody but this user can write; whoever can write there can write the trust store as well
(docs/adr/0009-a-signature-is-verified-once.md). `plugsec verify` never asks here.
"""

import os
import stat

import plugsec
from plugsec import private

FACTS_MAX = 10_000
"""More signatures than a user has bundles; beyond it all are forgotten, which costs a verification each."""


class Settled:
    """The facts in one directory. A directory that cannot be read or written knows and learns nothing."""

    __slots__ = ("_directory", "_usable")

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._usable = private.is_private_directory(directory)

    def knows(self, fact: str) -> bool:
        """Whether this fact (a digest in hex) was established before."""
        if not self._usable:
            return False
        try:
            status = os.lstat(self._path(fact))
        except OSError:
            return False
        return stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid()

    def learn(self, fact: str) -> None:
        """Keep a fact that was just established; best effort."""
        try:
            private.make_directories(self._directory)
            if not private.is_private_directory(self._directory):
                return
            names = os.listdir(self._directory)
            if len(names) >= FACTS_MAX:
                for name in names:
                    os.unlink(os.path.join(self._directory, name))
            os.close(private.create(self._path(fact)))
        except OSError:
            return

    def _path(self, fact: str) -> str:
        # A verifier that was mended must not be outlived by what the old one let through.
        return os.path.join(self._directory, f"{plugsec.__version__}-{fact}")
