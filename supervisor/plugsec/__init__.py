"""Run a stranger's plugin: signed, confined, checked on the way in and out, and recorded.

`Supervisor` is the library's entry point. It is imported on first use, so that the boot process and
the command line, which import only parts of this package, pay for nothing else.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from plugsec.pipeline import Supervisor

__all__ = ["Supervisor", "__version__"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:  # noqa: ANN401 - the module protocol of PEP 562
    if name == "Supervisor":
        from plugsec.pipeline import Supervisor  # noqa: PLC0415 - lazily, see the module's docstring

        return Supervisor
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
