"""What a runtime adapter gives the supervisor: a plan for one launch.

An adapter decides nothing about permissions; it says what its kind of plugin needs in order to start
at all (the interpreter's library, the program's loader). The grant adds the rest.
"""

from plugsec_plugins.manifest import Manifest
from plugsec_plugins.runtimes.plan import LaunchPlan
from plugsec_signing.typed import Protocol


class ReadPayload(Protocol):
    """Reads the first `limit` verified bytes of a payload file, by its bundle path."""

    def __call__(self, path: str, limit: int) -> bytes: ...


class Adapter(Protocol):
    """One kind of plugin."""

    def prepare(
        self, manifest: Manifest, method: str, programs: tuple[str, ...], read_payload: ReadPayload
    ) -> LaunchPlan:
        """Plan the launch of `method`; `programs` are granted by `exec`, without symbolic links.

        Raises PluginError when the entry cannot be started.
        """
        ...


def adapter(kind: str) -> Adapter:
    """The adapter for a manifest's runtime kind; the manifest parser has refused unknown ones."""
    if kind == "python":
        from plugsec_plugins.runtimes.python import PythonAdapter  # noqa: PLC0415

        return PythonAdapter()
    from plugsec_plugins.runtimes.exec import ExecAdapter  # noqa: PLC0415

    return ExecAdapter()
