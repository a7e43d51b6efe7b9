"""Which plugins a rule speaks about: `acme/wordfreq`, `acme/*`, `acme/pay-*`, `*`.

`*` stands for any run of characters within one part of the name; alone it stands for every plugin.
"""

from plugsec_policies.errors import PermissionInvalid

# Publisher and plugin of at most 64 characters each, and the slash, are 129; a glob needs no more.
GLOB_MAX = 129
_FIRST = frozenset("abcdefghijklmnopqrstuvwxyz0123456789*")
_LATER = _FIRST | frozenset("._-")


def parse_glob(text: object) -> str:
    """Return the glob if it is one. Raises PermissionInvalid."""
    if text == "*":
        return "*"
    if isinstance(text, str) and len(text) <= GLOB_MAX and "**" not in text:
        publisher, _, plugin = text.partition("/")
        if _is_part(publisher) and _is_part(plugin):
            return text
    raise PermissionInvalid(f"{text} does not name plugins", 'write "publisher/plugin", "publisher/*" or "*"')


def _is_part(text: str) -> bool:
    return text[:1] in _FIRST and _LATER.issuperset(text) if text else False


def matches(glob: str, name: str) -> bool:
    """Tell whether the glob covers the plugin `publisher/plugin`. Linear: pieces are sought from the left."""
    if glob == "*":
        return True
    parts, wanted = name.split("/"), glob.split("/")
    return len(parts) == len(wanted) and all(map(_matches_part, wanted, parts))


def _matches_part(glob: str, text: str) -> bool:
    first, *rest = glob.split("*")
    if not rest:
        return glob == text
    if not text.startswith(first):
        return False
    *middle, last = rest
    at, end = len(first), len(text) - len(last)
    if end < at or not text.endswith(last):
        return False
    for piece in middle:
        found = text.find(piece, at, end)
        if found < 0:
            return False
        at = found + len(piece)
    return True
