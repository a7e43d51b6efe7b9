"""System-call numbers by architecture, from data files of our own: an old libseccomp lacks new names."""

import os

_HERE = os.path.dirname(os.path.abspath(__file__))
PROFILES = os.path.join(_HERE, "profiles")
ARCHITECTURES = ("x86_64", "aarch64")


def read_table(architecture: str) -> dict[str, int]:
    """Names to numbers for one of ARCHITECTURES."""
    table = {}
    with open(os.path.join(PROFILES, f"{architecture}.calls"), encoding="utf-8") as file:
        for line in file:
            if not line.startswith("#"):
                number, name = line.split()
                table[name] = int(number)
    return table


def call_names(architecture: str) -> dict[int, str]:
    """Numbers to names, for reports."""
    return {number: name for name, number in read_table(architecture).items()}
