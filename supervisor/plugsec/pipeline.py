"""From a bundle to an outcome, in the order that makes it safe. The library's entry point.

    1. verify    the bundle against the trust store: a `VerifiedBundle`, its payload sealed in memory
    2. decide    permissions ∩ policies ∩ host ∩ command line: a `Grant`
    3. launch    boot, already started and waiting, enters every layer with exactly that grant
    4. converse  `run.start` is durable, then the call is made and watched to its end
    5. record    what came of it, durable, and the receipt

Nothing downstream accepts what upstream has not produced. Whatever goes wrong, the jail is dead, the
refusal or end is recorded, and the caller gets an `Outcome` that says why.
"""

import hashlib
import json
import os
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import plugsec
from plugsec import cache, places
from plugsec.audit.log import AuditLog, Position
from plugsec.errors import (
    REFUSALS,
    ExchangeError,
    HostUnsupported,
    InputMalformed,
    Interrupted,
    LimitReached,
    PluginFailed,
    Refusal,
    UsageError,
)
from plugsec.exchange import inputs as exchange_inputs
from plugsec.outcome import Limit, Outcome, OutputFile, Problem, Usage, word
from plugsec.sandbox import build, cgroups, identity, launch, layers
from plugsec.sandbox.spec import OWN_PROCESSES, File
from plugsec.supervision import runs
from plugsec.supervision.interruption import Interruption
from plugsec_plugins.manifest import Manifest, check_requires, parse_manifest
from plugsec_plugins.runtimes.interface import adapter
from plugsec_plugins.runtimes.plan import LaunchPlan
from plugsec_policies.decision import Grant, HostSupport, Narrowing, Request, decide
from plugsec_policies.limits import parse_limits
from plugsec_policies.policy import Policy, load_policy
from plugsec_signing.canonical import encode
from plugsec_signing.trust import load_trust, parse_trust_toml
from plugsec_signing.verify import UnsafeUnsignedBundle, VerifiedBundle, verify_bundle, verify_unsafe_unsigned

if TYPE_CHECKING:
    from plugsec.supervision.attribution import Ended
    from plugsec.supervision.loop import Facts

DEFAULT_POLICY = "builtin:strict"
_RECORDED_DENIALS_MAX = 100  # of one run; their number is recorded in full
_OUTPUT_DEPTH_MAX = 16


class Call(NamedTuple):
    """One call, as the caller wants it. Paths are the caller's; limits are members of `Limits`."""

    bundle: str
    method: str | None = None
    input: bytes | None = None  # JSON; None: an empty object
    parameters: Mapping[str, str] = {}
    input_files: Mapping[str, str] = {}
    output_dir: str | None = None
    limits: Mapping[str, int] = {}
    allow_degraded: frozenset[str] = frozenset()
    unsafe_unsigned: bool = False
    receipt: bool = False


class Supervisor:
    """Runs plugins for one user: one home, one trust store, one audit log, one set of policies.

    `policies` are `builtin:NAME` or file paths; several mean their intersection. Reentrant and usable
    from threads, as long as each run's thread lives as long as the run does.
    """

    def __init__(
        self,
        *,
        home: str | None = None,
        trust: str | None = None,
        audit: str | None = None,
        policies: Sequence[str] = (DEFAULT_POLICY,),
    ) -> None:
        self.places = places.resolve(home, trust, audit)
        self._policies = tuple(policies) or (DEFAULT_POLICY,)

    def run(
        self, call: Call, interruption: Interruption | None = None, boot: launch.Boot | None = None
    ) -> Outcome:
        """Run one method of one bundle; raises nothing that a plugin, a bundle or a host can cause.

        `boot` is one that was spawned earlier, so that its start overlaps what the caller does before;
        the run owns it from here on.
        """
        watched = interruption or Interruption()
        try:
            return _Run(self.places, self._policies, call, watched, boot).outcome()
        finally:
            if interruption is None:
                watched.close()


class _Decided(NamedTuple):
    """What step 2 hands to step 3."""

    bundle: VerifiedBundle | UnsafeUnsignedBundle
    manifest: Manifest
    method: str
    value: Any
    files: tuple[exchange_inputs.InputFile, ...]
    grant: Grant


class _Run:
    """The state of one run: what has been learnt so far, so that every ending can tell it."""

    def __init__(
        self,
        where: places.Places,
        policies: tuple[str, ...],
        call: Call,
        interruption: Interruption,
        boot: launch.Boot | None,
    ) -> None:
        self._where, self._policies, self._call, self._interruption = where, policies, call, interruption
        self._id = os.urandom(8).hex()
        self._boot = boot
        self._cgroup: cgroups.RunCgroup | None = None
        self._cgroup_missing = ""
        self._identity: identity.Identity | None = None
        self._file: runs.RunFile | None = None
        self._log: AuditLog | None = None
        self._decided: _Decided | None = None
        self._bundle: VerifiedBundle | UnsafeUnsignedBundle | None = None
        self._started = False
        self._known: dict[str, Any] = {}  # members of Outcome
        self._position: Position | None = None

    def outcome(self) -> Outcome:
        """Do every step; turn whatever ends it into an outcome."""
        about_input = False
        try:
            places.prepare_state(self._where.state)
            self._boot = self._boot or launch.spawn()
            self._log = AuditLog.open(self._where.audit)
            self._sweep()
            self._register()
            result = self._steps()
            return self._outcome(0, result=result)
        except REFUSALS as error:
            about_input = isinstance(error, InputMalformed | ExchangeError)
            problem = self._refused(error)
            return self._outcome(problem.code, error=problem, about_input=about_input)
        finally:
            self._release()

    def _steps(self) -> Any:  # noqa: ANN401
        bundle = self._verify()  # 1
        decided = self._decide(bundle)  # 2
        self._decided = decided
        plan, built = self._launch(decided)  # 3
        facts = self._converse(decided, plan, built)  # 4
        return self._conclude(decided, facts)  # 5

    # 1. verify -------------------------------------------------------------------------------------------

    def _verify(self) -> VerifiedBundle | UnsafeUnsignedBundle:
        log, call = self._need_log(), self._call
        bundle: VerifiedBundle | UnsafeUnsignedBundle
        if call.unsafe_unsigned:
            detail = {"override": "unsafe-unsigned", "path": os.path.abspath(call.bundle)}
            log.append("override.used", run=self._id, detail=detail, durable=True)
            bundle = verify_unsafe_unsigned(call.bundle, keep_payload=True)
        else:
            parse = cache.by_text(os.path.join(self._where.cache, "parsed"), "trust", parse_trust_toml)
            trust = load_trust(self._where.trust, parse=parse)
            bundle = verify_bundle(call.bundle, trust, int(time.time()), keep_payload=True)
        self._bundle = bundle
        self._known.update(bundle_id=bundle.bundle_id, plugin=bundle.envelope.name, warnings=bundle.warnings)
        found: dict[str, Any] = {
            "plugin": bundle.envelope.name,
            "version": bundle.envelope.version,
            "signers": [signer.key_id for signer in bundle.signers],
            "trust_digest": bundle.trust_digest,
        }
        log.append("bundle.verified", run=self._id, bundle_id=bundle.bundle_id, detail=found, durable=False)
        return bundle

    # 2. decide -------------------------------------------------------------------------------------------

    def _decide(self, bundle: VerifiedBundle | UnsafeUnsignedBundle) -> _Decided:
        manifest = parse_manifest(bundle.envelope)
        check_requires(manifest, plugsec.__version__)
        method = _choose_method(manifest, self._call.method)
        self._known["method"] = method
        request = Request(
            bundle_id=bundle.bundle_id,
            name=bundle.envelope.name,
            version=bundle.envelope.version,
            signers=tuple(signer.key_id for signer in bundle.signers),
            permissions=manifest.permissions,
            limits=manifest.limits,
            runtime_kind=manifest.runtime.kind,
        )
        policies = [self._policy(reference) for reference in self._policies]
        narrowing = Narrowing(self._limits(manifest, method), self._call.allow_degraded)
        grant = decide(request, policies, HostSupport(), narrowing, int(time.time()))
        self._known["warnings"] = (*self._known["warnings"], *grant.narrowed)
        value = exchange_inputs.decode_input(self._call.input) if self._call.input is not None else None
        value = exchange_inputs.merge_parameters(value, self._call.parameters)
        value = {} if value is None else value
        self._check(manifest.methods[method].input, value, "input")
        if self._call.input_files and not any(path.startswith("$INPUT") for path in grant.fs_read):
            raise UsageError(
                f"{manifest.envelope.name} has no permission to read $INPUT, so it cannot get input files",
                'the plugin must ask: [[permission]] name = "fs.read", paths = ["$INPUT"]',
            )
        if self._call.output_dir is not None:
            from plugsec.exchange.collect import check_destination  # noqa: PLC0415 - only with results

            check_destination(self._call.output_dir)
        files = exchange_inputs.open_input_files(self._call.input_files)
        return _Decided(bundle, manifest, method, value, files, grant)

    def _policy(self, reference: str) -> Policy:
        plain = cache.policy(os.path.join(self._where.cache, "parsed"), reference, load_policy)
        return Policy.from_plain(plain)

    def _limits(self, manifest: Manifest, method: str) -> dict[str, int]:
        limits = parse_limits(self._call.limits)
        timeout = manifest.methods[method].timeout_ms
        if timeout is not None:
            limits["wall_ms"] = min(timeout, limits.get("wall_ms", timeout))
        return limits

    def _check(self, path: str | None, value: Any, what: str) -> None:  # noqa: ANN401
        if path is None:
            return
        from plugsec.exchange.schemas import check  # noqa: PLC0415 - only for methods with a schema

        check(self._read_payload(path, _SCHEMA_BYTES_MAX), value, what)

    def _read_payload(self, path: str, limit: int) -> bytes:
        payload = self._bundle.payload if self._bundle is not None else None
        if payload is None:
            raise RuntimeError("the payload was not kept")
        for entry in payload.entries:
            if entry.path == path:
                return os.pread(payload.fd, min(entry.size, limit), entry.offset)
        return b""  # the manifest parser has checked that what it names exists

    # 3. launch -------------------------------------------------------------------------------------------

    def _launch(self, decided: _Decided) -> tuple[LaunchPlan, build.Built]:
        boot, grant = self._need_boot(), decided.grant
        if decided.bundle.payload is None or decided.bundle.bundle_id != grant.bundle_id:
            raise RuntimeError("a grant for another bundle")
        plan = adapter(decided.manifest.runtime.kind).prepare(
            decided.manifest, decided.method, grant.exec, self._read_payload
        )
        built = build.build(
            grant,
            plan,
            tuple(File(*entry) for entry in decided.bundle.payload.entries),
            {file.name: file.size for file in decided.files},
            cgroup=self._cgroup is not None,
            cache_directory=os.path.join(self._where.cache, "seccomp"),
        )
        if self._cgroup is None:
            layers.require("cgroup", self._cgroup_missing, build.tolerated(grant))
        else:
            processes = build.tasks_allowed(grant) + OWN_PROCESSES
            self._cgroup.limit(memory_bytes=grant.limits.memory_bytes, processes=processes)
        try:
            self._identity = identity.choose()
            inputs = tuple(file.fd for file in decided.files)
            boot.begin(built.spec, decided.bundle.payload.fd, inputs)
            _load_supervision()  # some 10 ms that boot needs for itself
            boot.follow(self._identity)
        except identity.IdentityUnavailable as error:
            layers.require("user-namespace", str(error), ())
        except launch.EnterFailed as error:
            raise _entering_failed(error) from error
        found = {
            "cgroup": self._cgroup,
            "denial-report": boot.entered["denial_report"],
            "landlock": boot.entered["landlock_abi"],
        }
        missing = {name for name, there in found.items() if not there}
        self._known["layers_degraded"] = tuple(name for name in layers.NAMES if name in missing)
        self._known["layers_active"] = tuple(name for name in layers.NAMES if name not in missing)
        return plan, built

    # 4. converse -----------------------------------------------------------------------------------------

    def _converse(self, decided: _Decided, plan: LaunchPlan, built: build.Built) -> "Facts":
        from plugsec.sandbox.seccomp.tables import call_names  # noqa: PLC0415 - see _load_supervision
        from plugsec.supervision.dialects import Oneshot, Rpc  # noqa: PLC0415
        from plugsec.supervision.loop import Supervision, Watch  # noqa: PLC0415
        from plugsec.supervision.monitor import Monitor  # noqa: PLC0415

        log, boot, limits = self._need_log(), self._need_boot(), decided.grant.limits
        if self._interruption.requested:
            raise Interrupted("interrupted before the plugin was started")
        self._started = True
        self._note()
        self._position = log.append(
            "run.start",
            run=self._id,
            bundle_id=decided.bundle.bundle_id,
            policy_digest=decided.grant.policy_digest,
            decision="granted",
            detail=self._start_detail(decided, built),
            durable=True,
        )
        if plan.dialect == "rpc":
            readable, writable = build.readable_roots(built.spec)
            request = Rpc.request(decided.method, decided.value, limits.wall_ms, readable, writable)
        else:
            request = Oneshot.request(decided.value)
        return Supervision(
            boot,
            dialect=plan.dialect,
            request=request,
            watch=Watch(limits.wall_ms, limits.output_bytes, limits.denials),
            monitor=Monitor(
                boot.pid,
                self._cgroup,
                memory_bytes=limits.memory_bytes,
                processes=build.tasks_allowed(decided.grant),
                cpu_ms=limits.cpu_ms,
            ),
            cgroup=self._cgroup,
            call_names=call_names(os.uname().machine),
            interruption=self._interruption,
        ).run()

    def _start_detail(self, decided: _Decided, built: build.Built) -> dict[str, Any]:
        grant = decided.grant
        return {
            "plugin": grant.name,
            "version": grant.version,
            "method": decided.method,
            "signers": [signer.key_id for signer in decided.bundle.signers],
            "unsafe_unsigned": isinstance(decided.bundle, UnsafeUnsignedBundle),
            "layers": list(self._known["layers_active"]),
            "degraded": list(self._known["layers_degraded"]),
            "limits": grant.limits._asdict(),
            "grant": {
                "fs.read": grant.fs_read, "fs.write": grant.fs_write, "env": grant.env, "exec": grant.exec,
                "process": grant.processes_allowed, "jit": grant.jit,
            },
            "seccomp_digest": built.seccomp_digest,
            "input_sha256": _digest(decided.value),
            "input_files": {file.name: file.sha256 for file in decided.files},
        }  # fmt: skip

    # 5. record -------------------------------------------------------------------------------------------

    def _conclude(self, decided: _Decided, facts: "Facts") -> Any:  # noqa: ANN401
        """Judge the facts, check the result, collect the files; raises what the run ended with."""
        from plugsec.supervision import attribution  # noqa: PLC0415 - see _load_supervision

        limits = decided.grant.limits
        self._known.update(
            usage=Usage(
                facts.wall_ms, facts.cpu_ms, facts.memory_peak_bytes, facts.processes_peak, facts.output_bytes
            ),
            denials=facts.denials,
            stdout=facts.stdout,
            stderr=facts.stderr,
            notes=facts.notes,
        )
        ended = attribution.attribute(facts, memory_bytes=limits.memory_bytes, cpu_ms=limits.cpu_ms)
        match ended.outcome:
            case "interrupted":
                raise Interrupted(ended.message)
            case "limit":
                in_force = limits._replace(processes=build.tasks_allowed(decided.grant))
                value = getattr(in_force, ended.field)
                self._known["limit"] = Limit(ended.limit, value)
                raise _limit_reached(ended, value)
            case "host":
                raise PluginFailed(
                    f"the program could not be started: {ended.message}",
                    "is it built for this machine, and are its loader and libraries on this host?",
                    id="PLG-RUN-002",
                )
            case "failed":
                hint = f"its own trace:\n{ended.trace}" if ended.trace else "its log is above"
                raise PluginFailed(f"the plugin failed: {ended.message}", hint)
        self._check(decided.manifest.methods[decided.method].output, ended.result, "output")
        self._collect(decided)
        self._finish("ok", {"output_sha256": _digest(ended.result)})
        return ended.result

    def _collect(self, decided: _Decided) -> None:
        boot, limits = self._need_boot(), decided.grant.limits
        if boot.output < 0:
            return
        if self._call.output_dir is None:
            if os.listdir(boot.output):
                note = "the plugin left files in $OUTPUT that were not kept; give --output-dir DIR"
                self._known["warnings"] = (*self._known["warnings"], note)
            return
        from plugsec.exchange.collect import collect  # noqa: PLC0415 - only for runs with results

        collected = collect(
            boot.output,
            self._call.output_dir,
            max_files=limits.files,
            max_file_bytes=limits.file_bytes,
            max_total_bytes=limits.tmp_bytes,
            max_depth=_OUTPUT_DEPTH_MAX,
        )
        self._known["outputs"] = tuple(OutputFile(f.path, f.size, f.sha256) for f in collected)

    def _finish(self, outcome: str, extra: Mapping[str, Any]) -> None:
        """Record the end of a run that had started; durable before the caller hears of it."""
        log = self._need_log()
        denials = self._known.get("denials", ())
        for denial in denials[:_RECORDED_DENIALS_MAX]:
            log.append("denial", run=self._id, detail=denial._asdict(), durable=False)
        usage = self._known.get("usage", Usage())
        detail: dict[str, Any] = {
            "outcome": outcome,
            "usage": usage._asdict(),
            "denial_kinds": len(denials),
            "denials": sum(denial.count for denial in denials),
            "outputs": [file._asdict() for file in self._known.get("outputs", ())[:_RECORDED_DENIALS_MAX]],
            **extra,
        }
        self._position = log.append(
            "run.end",
            run=self._id,
            bundle_id=self._known.get("bundle_id"),
            decision=outcome,
            detail=detail,
            durable=True,
        )
        if self._call.receipt:
            self._known["receipt"] = self._receipt(detail)

    def _receipt(self, detail: Mapping[str, Any]) -> bytes:
        from plugsec.audit.receipt import sign_receipt  # noqa: PLC0415 - 20 ms of cryptography

        decided = self._decided
        summary = {
            "run_id": self._id,
            "bundle_id": self._known.get("bundle_id"),
            "plugin": self._known.get("plugin"),
            "method": self._known.get("method"),
            "policy_digest": decided.grant.policy_digest if decided else None,
            "layers": {
                "active": list(self._known.get("layers_active", ())),
                "degraded": list(self._known.get("layers_degraded", ())),
            },
            **detail,
        }
        return sign_receipt(self._need_log(), summary)

    # Endings ---------------------------------------------------------------------------------------------

    def _refused(self, error: Refusal) -> Refusal:
        """Record a refusal or a bad end; an audit log that cannot take it is the graver problem."""
        if self._log is None:
            return error
        if self._boot is not None:
            self._boot.end()
        detail: dict[str, Any] = {"error": error.id, "message": error.message}
        try:
            if self._started:
                limit = self._known.get("limit")
                if limit is not None:
                    self._log.append("limit.hit", run=self._id, detail=limit._asdict(), durable=True)
                self._finish(word(error.code), {**detail, "limit": limit._asdict() if limit else None})
            else:
                event = "bundle.refused" if self._bundle is None else "run.refused"
                if self._bundle is not None and error.code == 1:
                    event = "policy.refused"
                detail |= {"path": os.path.abspath(self._call.bundle), "plugin": self._known.get("plugin")}
                self._position = self._log.append(
                    event,
                    run=self._id,
                    bundle_id=self._known.get("bundle_id"),
                    decision="refused",
                    detail=detail,
                    durable=True,
                )
        except REFUSALS as audit_error:
            return audit_error
        return error

    def _outcome(
        self,
        code: int,
        *,
        result: Any = None,  # noqa: ANN401
        error: Refusal | None = None,
        about_input: bool = False,
    ) -> Outcome:
        return Outcome(
            outcome=word(code, about_input=about_input),
            code=code,
            run_id=self._id,
            result=result,
            error=Problem(error.id, error.message, error.hint) if error else None,
            audit_seq=self._position.seq if self._position else None,
            **self._known,
        )

    def _release(self) -> None:
        """Everything that the run held, whatever happened: processes first, then files and cgroups."""
        if self._boot is not None:
            self._boot.reap()
        if self._decided is not None:
            for file in self._decided.files:
                os.close(file.fd)
        if self._bundle is not None:
            self._bundle.close()
        if self._identity is not None and self._identity.lock_fd >= 0:
            os.close(self._identity.lock_fd)
        if self._cgroup is not None:
            self._cgroup.remove()
        if self._file is not None:
            self._file.close()
        if self._log is not None:
            self._log.close()

    # Beginnings ------------------------------------------------------------------------------------------

    def _sweep(self) -> None:
        for dead in runs.sweep(self._where.state):
            self._need_log().append(
                "run.end",
                run=dead.run_id,
                bundle_id=dead.bundle_id,
                decision="interrupted",
                detail={"outcome": "interrupted", "plugin": dead.plugin, "found_by": self._id},
                durable=True,
            )

    def _register(self) -> None:
        """Make the run known and its cgroup ready, and let boot join it while we verify."""
        try:
            self._file = runs.begin(self._where.state, self._id)
        except OSError as error:
            raise places.StateUnusable(
                f"the state directory {self._where.state} cannot be written: {error.strerror}",
                "give a writable --home DIR",
            ) from error
        try:
            self._cgroup = cgroups.create(self._id)
        except cgroups.CgroupUnavailable as error:
            self._cgroup_missing = str(error)
            return
        self._note()
        self._need_boot().join(self._cgroup.open_procs())

    def _note(self) -> None:
        if self._file is not None:
            self._file.note({
                "cgroups": list(self._cgroup.directories) if self._cgroup else [],
                "started": self._started,
                "bundle_id": self._known.get("bundle_id"),
                "plugin": self._known.get("plugin"),
            })  # fmt: skip

    def _need_log(self) -> AuditLog:
        assert self._log is not None  # noqa: S101 - set before the first step
        return self._log

    def _need_boot(self) -> launch.Boot:
        assert self._boot is not None  # noqa: S101 - set before the first step
        return self._boot


_SCHEMA_BYTES_MAX = 1024 * 1024


def _load_supervision() -> None:
    """Import what watches a run while boot is busy entering: the two together take as long as the longer."""
    from plugsec.sandbox.seccomp import tables  # noqa: F401, PLC0415
    from plugsec.supervision import attribution, dialects, listener, loop, monitor  # noqa: F401, PLC0415


def _choose_method(manifest: Manifest, wanted: str | None) -> str:
    names = sorted(manifest.methods)
    if wanted is None:
        if len(names) == 1:
            return names[0]
        raise UsageError(
            f"{manifest.envelope.name} has {len(names)} methods: {', '.join(names)}",
            "name one after the bundle",
        )
    if wanted not in manifest.methods:
        raise UsageError(
            f"{manifest.envelope.name} has no method {wanted!r}", f"its methods are: {', '.join(names)}"
        )
    return wanted


def _entering_failed(error: launch.EnterFailed) -> Refusal:
    """A layer that could not be applied is the host's refusal; never a weaker jail."""
    if error.layer in layers.NAMES:
        try:
            layers.require(error.layer, f"{error.step}: {error.detail}", ())
        except HostUnsupported as refusal:
            return refusal
    return HostUnsupported(
        f"the jail could not be entered ({error.layer}: {error.step}: {error.detail}); nothing was started",
        "see `plugsec doctor`",
    )


def _limit_reached(ended: "Ended", value: int) -> LimitReached:
    said = f" ({ended.message})" if ended.message else ""
    return LimitReached(
        f"the limit {ended.limit} ended the run: {ended.field} = {value}{said}",
        "the plugin's [limits], the policy's [limits] and --limit decide it; the smallest counts",
        id=f"PLG-LIM-{_LIMIT_NUMBERS[ended.limit]}",
    )


_LIMIT_NUMBERS = {
    "wall": "101", "cpu": "102", "memory": "103", "processes": "104", "output": "105", "files": "106",
    "denials": "107",
}  # fmt: skip


def _digest(value: Any) -> str:  # noqa: ANN401
    """SHA-256 (hex) over the value's canonical form, or over plain JSON where it has fractions."""

    try:
        data = encode(value)
    except REFUSALS:
        data = json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
    return hashlib.sha256(data).hexdigest()
