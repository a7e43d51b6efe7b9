"""From a grant and a launch plan to the frozen spec that boot obeys. No system call changes anything here."""

import os
import resource
from collections.abc import Mapping

from plugsec.errors import HostUnsupported, UsageError
from plugsec.sandbox import layers, seccomp
from plugsec.sandbox.granted import granted_binds
from plugsec.sandbox.spec import INPUT_DIR, OUTPUT_DIR, OWN_PROCESSES, PLUGIN_DIR, TMP_DIR, File, SandboxSpec
from plugsec_plugins.runtimes.plan import LaunchPlan
from plugsec_policies.decision import Grant
from plugsec_policies.limits import Limits, word_of
from plugsec_signing.typed import NamedTuple

_MIB = 1024 * 1024
_STACK_BYTES = 8 * _MIB
# Address space beyond the memory limit: runtimes reserve what they never touch. Less of it where no
# cgroup counts what is shared.
_SPACE_BYTES, _SPACE_BYTES_WITHOUT_CGROUP = 4096 * _MIB, 1024 * _MIB
# Below these not even the interpreter gets through the jail's own set-up.
_FLOORS = {"memory_bytes": 16 * _MIB, "open_files": 16, "tmp_bytes": 4096}
_INPUT, _OUTPUT = "$INPUT", "$OUTPUT"
_NPROC_PER_NAMESPACE = (5, 14)  # before it RLIMIT_NPROC counted all of the user's processes


class LimitTooSmall(UsageError):
    """A limit is below what any plugin needs in order to start (exit 2)."""

    id = "PLG-LIM-110"


class Built(NamedTuple):
    """The spec, and the digest (hex) of the seccomp profiles' source."""

    spec: SandboxSpec
    seccomp_digest: str


def build(
    grant: Grant,
    plan: LaunchPlan,
    files: tuple[File, ...],
    inputs: Mapping[str, int],
    *,
    cgroup: bool,
    cache_directory: str,
    own_directories: tuple[str, ...],
    environment: Mapping[str, str] = os.environ,
) -> Built:
    """Assemble the spec; `inputs` maps names to sizes in bytes, `own_directories` are plugsec's.

    Raises HostUnsupported for a missing layer that the policy requires, PathRefused for a path that
    cannot be mapped.
    """
    _check_floors(grant.limits)
    try:
        filters, digest = _filters(grant, plan, cache_directory)
    except seccomp.LibseccompMissing as error:
        raise HostUnsupported(str(error), seccomp.LIBSECCOMP_ADVICE, id="PLG-HOST-002") from error
    except OSError as error:
        raise HostUnsupported(f"the filter of the layer seccomp cannot be had: {error}") from error
    try:
        granted = granted_binds(grant, plan, own_directories)
    except OSError as error:
        raise HostUnsupported(
            f"what the layer mount-namespace must hide below the granted paths cannot be seen: {error}"
        ) from error
    limits = grant.limits
    spec = SandboxSpec(
        kind=plan.kind,
        binds=(*granted, *plan.binds),
        links=plan.links,
        files=files,
        inputs=tuple(inputs),
        input_bytes=sum(inputs.values()),
        output=any(path.startswith(_OUTPUT) for path in grant.fs_write),
        tmp_bytes=limits.tmp_bytes,
        tmp_inodes=limits.files + 1,  # the root directory is one
        rlimits=rlimits(grant, cgroup=cgroup),
        landlock_may_miss="landlock" in tolerated(grant),
        write_exec_memory=grant.jit,
        setgroups=os.geteuid() == 0,
        seccomp=filters[0],
        seccomp_silent=filters[1],
        seccomp_init=filters[2],
        environment=_environment(grant, environment),
        program=plan.program,
        program_exec=plan.executables,
        python_path=plan.python_path,
    )
    return Built(spec, digest)


def _check_floors(limits: Limits) -> None:
    for field, least in _FLOORS.items():
        if getattr(limits, field) < least:
            raise LimitTooSmall(
                f"the limit {word_of(field)} = {getattr(limits, field)} is too small for any plugin to start",
                f"it must be at least {least}; the plugin's [limits], the policy's and --limit decide it",
            )


def tasks_allowed(grant: Grant) -> int:
    """How many tasks (processes and threads) the jail may hold: what `process` says counts too."""
    if grant.processes_allowed:
        return min(grant.limits.processes, 1 + grant.processes_allowed)
    return grant.limits.processes


def tolerated(grant: Grant) -> frozenset[str]:
    """The layers that may be missing in this run."""
    return frozenset(layers.NAMES) - grant.isolation.required


def _filters(grant: Grant, plan: LaunchPlan, cache: str) -> tuple[tuple[bytes, bytes, bytes], str]:
    machine = os.uname().machine
    process = grant.processes_allowed > 0
    names = seccomp.profile_names(
        plan.kind, write=bool(grant.fs_write), process=process, execute=bool(grant.exec), jit=grant.jit
    )
    reporting, digest = seccomp.program(names, machine, notify=True, cache_directory=cache)
    # Without a listener nobody could let an exec plugin's own start through, so that kind needs one.
    silent = b""
    if "denial-report" in tolerated(grant) and (plan.kind != "exec" or grant.exec):
        silent, _ = seccomp.program(names, machine, notify=False, cache_directory=cache)
    init_names = seccomp.profile_names("init", write=False, process=False, execute=False, jit=False)
    init, _ = seccomp.program(init_names, machine, notify=False, cache_directory=cache)
    return (reporting, silent, init), digest


def rlimits(grant: Grant, *, cgroup: bool) -> tuple[tuple[int, int, int], ...]:
    """(resource, soft, hard), never above what this process itself may use (setrlimit(2))."""
    limits = grant.limits
    cpu_s = -(-limits.cpu_ms // 1000)
    memory = limits.memory_bytes
    # A cgroup counts exactly what is used; without one the data segment is held near the limit.
    data = (memory * 2 if cgroup else memory) + limits.processes * _STACK_BYTES
    space = memory * 2 + (_SPACE_BYTES if cgroup else _SPACE_BYTES_WITHOUT_CGROUP)
    wanted = [
        (resource.RLIMIT_CORE, 0, 0),
        (resource.RLIMIT_CPU, cpu_s, cpu_s + 1),
        (resource.RLIMIT_AS, space, space),
        (resource.RLIMIT_DATA, data, data),
        (resource.RLIMIT_FSIZE, limits.file_bytes, limits.file_bytes),
        (resource.RLIMIT_NOFILE, limits.open_files, limits.open_files),
        (resource.RLIMIT_STACK, _STACK_BYTES, _STACK_BYTES),
        (resource.RLIMIT_MEMLOCK, 65536, 65536),
        (resource.RLIMIT_MSGQUEUE, 0, 0),
        (resource.RLIMIT_SIGPENDING, 1024, 1024),
    ]
    if os.geteuid() == 0 or _kernel() >= _NPROC_PER_NAMESPACE:
        # One more than allowed, so that passing the limit can be seen and not only be refused. The kernel
        # counts a fork here before it asks the cgroup: where there is one, each task may be at it at once,
        # or this limit would now and then refuse what the cgroup counts as refused.
        tasks = tasks_allowed(grant)
        count = tasks * (2 if cgroup else 1) + OWN_PROCESSES + 1
        wanted.append((resource.RLIMIT_NPROC, count, count))
    return tuple((kind, *_within(kind, soft, hard)) for kind, soft, hard in wanted)


def _within(kind: int, soft: int, hard: int) -> tuple[int, int]:
    most = resource.getrlimit(kind)[1]
    if most == resource.RLIM_INFINITY:
        return soft, hard
    return min(soft, most), min(hard, most)


def _kernel() -> tuple[int, int]:
    numbers = os.uname().release.split("-")[0].split(".")
    return int(numbers[0]), int(numbers[1])


def _environment(grant: Grant, environment: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """Nothing of the caller's but what was granted by name."""
    path = ":".join(sorted({os.path.dirname(program) for program in grant.exec})) or "/nonexistent"
    own = {
        "PATH": path, "HOME": TMP_DIR, "TMPDIR": TMP_DIR, "LANG": "C.UTF-8",
        "INPUT": INPUT_DIR, "OUTPUT": OUTPUT_DIR,
    }  # fmt: skip
    granted = {name: environment[name] for name in grant.env if name in environment}
    return tuple({**granted, **own}.items())


def readable_roots(spec: SandboxSpec) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What a plugin can read and write, as absolute paths, for explaining refusals."""
    readable = (PLUGIN_DIR, INPUT_DIR, *(bind.target for bind in spec.binds if not bind.device))
    writable = (TMP_DIR, *((OUTPUT_DIR,) if spec.output else ()))
    return readable, (*writable, *(bind.target for bind in spec.binds if bind.write))
