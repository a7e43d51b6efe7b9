"""The guest SDK: what a Python plugin imports. Standard library only; it runs inside the jail.

from plugsec_plugins.guest import Context, plugin

@plugin.method
def count(text: str, *, ctx: Context) -> dict[str, int]: ...
"""

from plugsec_plugins.guest.sdk import Context, plugin

__all__ = ["Context", "plugin"]
