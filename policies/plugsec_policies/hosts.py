"""`host:port` as the `net` permission writes it: names, `*.name`, addresses, and the word `any`.

`*.acme.com` is one or more labels before `acme.com`, never `acme.com` itself. An IPv4 address inside IPv6
(`::ffff:10.0.0.1`) is that IPv4 address, and spellings such as `0x7f.1` that a resolver might read as an
address are not names (WHATWG URL, section 3.5).
"""

import re

from plugsec_policies.errors import PermissionInvalid

ANY = "any"
# Port number that stands for `*`; port 0 cannot be connected to.
ANY_PORT = 0
# RFC 1035 section 2.3.4.
NAME_MAX = 253
_LABEL = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
_NAME = re.compile(rf"({_LABEL}\.)*{_LABEL}", re.ASCII)
_OCTET = r"(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_IPV4 = re.compile(rf"{_OCTET}(\.{_OCTET}){{3}}", re.ASCII)
# A last label that a resolver may take for a number makes the whole name an address in disguise.
_NUMERIC_LABEL = re.compile(r"[0-9]+|0x[0-9a-f]*", re.ASCII)
_PORT = re.compile(r"[1-9][0-9]{0,4}|\*", re.ASCII)
_HINT = 'write for instance "api.acme.com:443", "*.acme.com:443", "10.1.2.3:5432" or "[2001:db8::1]:443"'


def parse_host_port(text: object) -> tuple[str, int]:
    """Return host in canonical form and port (0 for `*`). Raises PermissionInvalid."""
    if not isinstance(text, str) or len(text) > NAME_MAX + 8:
        raise PermissionInvalid("a network address is not a text of at most 261 characters", _HINT)
    host, colon, port = text.rpartition(":")
    if not colon or not _PORT.fullmatch(port):
        raise PermissionInvalid(f"{text} has no port", _HINT)
    number = ANY_PORT if port == "*" else int(port)
    if number > 65535:
        raise PermissionInvalid(f"{text} has a port above 65535", _HINT)
    return _parse_host(host, text), number


def _parse_host(host: str, text: str) -> str:
    if host.startswith("["):
        return _parse_ipv6(host, text)
    host = host.lower()
    if host == "*":
        raise PermissionInvalid(
            f"{text} means every host", 'if that is what you want, spell it out: "any:443"'
        )
    if host == ANY or _IPV4.fullmatch(host):
        return host
    name = host[2:] if host.startswith("*.") else host
    if len(name) > NAME_MAX or not _NAME.fullmatch(name) or _NUMERIC_LABEL.fullmatch(name.rpartition(".")[2]):
        raise PermissionInvalid(f"{text} does not name a host", _HINT)
    return host


def _parse_ipv6(host: str, text: str) -> str:
    import ipaddress  # noqa: PLC0415  (only policies that spell out IPv6 pay for it)

    try:
        address = ipaddress.IPv6Address(host[1:-1] if host.endswith("]") else "")
    except ValueError as err:
        raise PermissionInvalid(f"{text} does not name an IPv6 address", _HINT) from err
    if address.scope_id:
        raise PermissionInvalid(f"{text} has a scope, which means another thing on every host", _HINT)
    mapped = address.ipv4_mapped
    return str(mapped) if mapped else f"[{address.compressed}]"


def covers_host(upper: str, lower: str) -> bool:
    """Tell whether every host that `lower` stands for is one that `upper` stands for."""
    if upper in (ANY, lower):
        return True
    return upper.startswith("*.") and lower.endswith(upper[1:])


def format_host_port(host: str, port: int) -> str:
    """Write a host and port as `parse_host_port` reads them."""
    return f"{host}:{'*' if port == ANY_PORT else port}"
