"""Run a stranger's plugin: signed, confined, checked on the way in and out, and recorded.

`Supervisor` is the library's entry point. It is imported on first use: the boot process and the
command line import only parts of this package and should pay for nothing else (not even `typing`).
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from plugsec.pipeline import Supervisor

__all__ = ["Supervisor", "__version__"]
__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    """Import `Supervisor` when it is first asked for (PEP 562)."""
    if name == "Supervisor":
        from plugsec.pipeline import Supervisor  # noqa: PLC0415 - lazily, see the module's docstring

        return Supervisor
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
