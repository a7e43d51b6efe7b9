"""The `python` kind: the boot interpreter itself imports the plugin, so nothing is ever executed.

The jail gets the standard library of exactly this interpreter. The bundle's root and its `site/`
(vendored wheels) come first on the path, as a script's own directory does.
"""

import os
import sys

from plugsec_plugins.manifest import Manifest
from plugsec_plugins.runtimes import system
from plugsec_plugins.runtimes.interface import ReadPayload
from plugsec_plugins.runtimes.plan import Bind, LaunchPlan

_SHARED_PREFIXES = ("/usr", "/usr/local")


class PythonAdapter:
    """Plans the launch of a Python plugin in the boot interpreter."""

    def prepare(
        self,
        manifest: Manifest,
        method: str,  # noqa: ARG002 - the interface: the method travels in the call
        programs: tuple[str, ...],  # noqa: ARG002 - the interface: nothing is executed in this kind
        read_payload: ReadPayload,  # noqa: ARG002 - the interface: boot unpacks all of it
    ) -> LaunchPlan:
        """Plan the launch; the manifest's parser has seen that the entry module is there."""
        module = manifest.runtime.entry
        standard = standard_library()
        libraries, links = system.library_binds()
        trees = (*libraries, *(Bind(path, path, libraries=True) for path in standard))
        return LaunchPlan(
            kind="python",
            binds=(*_outermost(trees), *system.device_binds()),
            links=links,
            program=(module,),
            executables=(),
            python_path=("/plugin", "/plugin/site", *standard_path()),
            dialect="rpc",
        )


def standard_path() -> tuple[str, ...]:
    """This interpreter's own path entries for the standard library, without symbolic links."""
    library = os.path.dirname(os.path.realpath(os.__file__))
    return (library, os.path.join(library, "lib-dynload"))


def standard_library() -> tuple[str, ...]:
    """The trees that hold the standard library and what its extension modules are linked with."""
    library = standard_path()[0]
    prefix = os.path.realpath(sys.base_prefix)
    if prefix in _SHARED_PREFIXES:
        return (library,)
    return (os.path.join(prefix, "lib"),)  # a self-contained installation keeps its libraries there


def _outermost(binds: tuple[Bind, ...]) -> tuple[Bind, ...]:
    """Without those that another one already contains."""
    targets = {bind.target for bind in binds}
    return tuple(bind for bind in binds if not any(bind.target.startswith(other + "/") for other in targets))
