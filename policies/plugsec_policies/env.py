"""Which environment variables can be granted by name, and which never.

A variable that makes a loader, an interpreter or a library run or load something is code, not data; a
variable that the jail itself sets is not the host's to give.
"""

from plugsec_policies.errors import NeverGrantable, PermissionInvalid

NAME_MAX = 128

# Families, by how the name begins. ld.so(8) "secure-execution mode"; python(1); bash(1) exported functions.
_NEVER_PREFIXES = (
    "LD_",
    "DYLD_",
    "PYTHON",
    "GLIBC_",
    "MALLOC_",
    "GCONV_",
    "BASH_FUNC_",
    "LUA_",
    "PERL5",
    "NODE_",
    "RUBY",
    "OPENSSL_",
    "PLUGSEC_",
)
_NEVER_NAMES = frozenset(
    {
        # shells: code or word splitting before the first line of the script
        "BASH_ENV",
        "BASHOPTS",
        "CDPATH",
        "ENV",
        "FPATH",
        "IFS",
        "PROMPT_COMMAND",
        "PS4",
        "SHELLOPTS",
        "ZDOTDIR",
        # glibc: files it opens by these names (glibc manual; ld.so(8) drops most of them for setuid programs)
        "GETCONF_DIR",
        "HOSTALIASES",
        "LOCALDOMAIN",
        "LOCPATH",
        "NIS_PATH",
        "NLSPATH",
        "RESOLV_HOST_CONF",
        "RES_OPTIONS",
        "TZDIR",
        # other runtimes' start-up options
        "CLASSPATH",
        "DOTNET_STARTUP_HOOKS",
        "GEM_HOME",
        "GEM_PATH",
        "JAVA_TOOL_OPTIONS",
        "JDK_JAVA_OPTIONS",
        "PERLLIB",
        "PHPRC",
        "PHP_INI_SCAN_DIR",
        "_JAVA_OPTIONS",
        # set by the jail
        "HOME",
        "OLDPWD",
        "PATH",
        "PWD",
        "SHELL",
        "TEMP",
        "TMP",
        "TMPDIR",
    }
)


def parse_env_name(text: object, *, deny: bool = False) -> str:
    """Return the name if it may be granted. Raises PermissionInvalid or NeverGrantable.

    The comparison ignores case: some of the variables are honoured in either.
    """
    if not isinstance(text, str) or len(text) > NAME_MAX or not (text.isascii() and text.isidentifier()):
        raise PermissionInvalid(
            f"{text} is not the name of an environment variable",
            'write names only, for instance env = ["LANG", "TZ"]',
        )
    upper = text.upper()
    if not deny and (upper in _NEVER_NAMES or upper.startswith(_NEVER_PREFIXES)):
        raise NeverGrantable(
            f"the environment variable {text} can never be granted: it steers a loader, an interpreter or us",
            "remove it; pass what the plugin needs in its input",
        )
    return text
