"""Capabilities and no_new_privs: nothing inside the jail can hold or regain a privilege (capabilities(7))."""

from plugsec.sandbox import linux

_CAP_NUMBER_MAX = 63  # two 32-bit words in capset(2); the kernel answers EINVAL past its last one
_EINVAL = 22
# SECBIT_NOROOT, NO_SETUID_FIXUP, NO_CAP_AMBIENT_RAISE, each with its lock, and KEEP_CAPS locked off.
_SECUREBITS = 0b11101111


def drop_bounding_set() -> None:
    """Empty the bounding set and lock the secure bits; needs CAP_SETPCAP in the namespace."""
    for capability in range(_CAP_NUMBER_MAX + 1):
        try:
            linux.prctl(linux.PR_CAPBSET_DROP, capability)
        except OSError as error:
            if error.errno != _EINVAL or _known(capability):
                raise
            break
    linux.prctl(linux.PR_SET_SECUREBITS, _SECUREBITS)


def _known(capability: int) -> bool:
    """Whether the kernel has this capability: only past its last one may a drop be refused."""
    try:
        linux.prctl(linux.PR_CAPBSET_READ, capability)
    except OSError as error:
        if error.errno == _EINVAL:
            return False
        raise
    return True


def no_new_privs() -> None:
    """Set no_new_privs, which nothing can clear, and check it."""
    linux.prctl(linux.PR_SET_NO_NEW_PRIVS, 1)
    if linux.prctl(linux.PR_GET_NO_NEW_PRIVS) != 1:
        raise OSError(1, "no_new_privs did not take", "prctl")


def drop_all() -> None:
    """Give up every capability, last of the privileged steps."""
    linux.drop_capabilities()


def refuse_exec_gain() -> bool:
    """PR_SET_MDWE (Linux 6.3): no mapping can gain PROT_EXEC. Returns whether the kernel has it."""
    try:
        linux.prctl(linux.PR_SET_MDWE, linux.PR_MDWE_REFUSE_EXEC_GAIN)
    except OSError as error:
        if error.errno == _EINVAL:
            return False
        raise
    return True
