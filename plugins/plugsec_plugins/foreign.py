"""Native code that will not run where its plugin is meant to, recognised by a file's first bytes."""

from plugsec_plugins import elf

HEAD_BYTES = 20  # up to and including e_machine of an ELF header (elf(5))

_OTHER_SYSTEMS = (
    (b"MZ", "Windows"),
    (b"\xcf\xfa\xed\xfe", "macOS"),
    (b"\xce\xfa\xed\xfe", "macOS"),
    (b"\xca\xfe\xba\xbe", "macOS or a JVM"),
)
_CLASS64, _LITTLE_ENDIAN = 2, 1


def foreign(head: bytes, machine: str) -> str:
    """Say what a file that begins with `head` is made for, if that is not `machine`; else nothing."""
    for magic, system in _OTHER_SYSTEMS:
        if head.startswith(magic) and b"\0" in head:  # a text may begin with two letters
            return system
    if not head.startswith(elf.MAGIC) or len(head) < HEAD_BYTES:
        return ""
    if head[4] != _CLASS64 or head[5] != _LITTLE_ENDIAN:
        return "a 32-bit or big-endian machine"
    found = elf.machine_name(int.from_bytes(head[18:20], "little"))
    return "" if found == machine else found
