"""The plan for one launch, in plain data; boot reads these types too, so nothing heavy is imported here."""

from plugsec_signing.typed import NamedTuple


class Bind(NamedTuple):
    """A tree or file of the host that appears in the jail at `target`, both without symbolic links.

    `exec` lets Landlock execute what is in it; `libraries` lets it be mapped executable, as shared
    objects are, and no more; `device` is one node of /dev; `mask` shows an empty directory instead.
    """

    source: str
    target: str
    write: bool = False
    exec: bool = False
    device: bool = False
    libraries: bool = False
    mask: bool = False


class LaunchPlan(NamedTuple):
    """How one plugin starts inside a jail; paths are the jail's unless said otherwise."""

    kind: str  # seccomp profile and boot's way of starting: "python" or "exec"
    binds: tuple[Bind, ...]
    links: tuple[tuple[str, str], ...]  # (path, target)
    program: tuple[str, ...]  # exec: argv with the full path first; python: the entry module
    executables: tuple[str, ...]  # single files that Landlock lets be executed
    python_path: tuple[str, ...]
    dialect: str  # "rpc" over descriptor 3, or "oneshot" over stdin and stdout
