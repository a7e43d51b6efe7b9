"""From a bundle to an outcome, in the order that makes it safe. The library's entry point.

    1. verify    the bundle against the trust store: a `VerifiedBundle`, its payload sealed in memory
    2. decide    permissions ∩ policies ∩ host ∩ command line: a `Grant`
    3. launch    boot, already started and waiting, enters every layer with exactly that grant; meanwhile the
                 audit log is opened and takes the evidence
    4. converse  `run.start` is durable, then the call is made and watched to its end
    5. record    what came of it, durable, and the receipt

Nothing downstream accepts what upstream has not produced. Whatever goes wrong, the jail is dead, the
refusal or end is recorded, and the caller gets an `Outcome` that says why.
"""

import os
import time
from collections.abc import Mapping, Sequence

import plugsec
from plugsec import cache, places
from plugsec.decided import Decided
from plugsec.errors import (
    REFUSALS,
    Defect,
    ExchangeError,
    InputMalformed,
    Interrupted,
    Refusal,
    UsageError,
)
from plugsec.exchange import inputs as exchange_inputs
from plugsec.held import Held
from plugsec.sandbox import build, launch, layers
from plugsec.sandbox.spec import OWN_PROCESSES, File
from plugsec.settled import Settled
from plugsec.supervision.interruption import Interruption
from plugsec_plugins.manifest import Manifest, check_requires, parse_manifest
from plugsec_plugins.runtimes.interface import adapter
from plugsec_plugins.runtimes.plan import LaunchPlan
from plugsec_policies.decision import HostSupport, Narrowing, Request, decide
from plugsec_policies.limits import parse_limits
from plugsec_policies.policy import BUILTIN_PREFIX, Policy, load_policy
from plugsec_signing import memory
from plugsec_signing.trust import TrustStore, load_revocations, load_trust, parse_trust_toml
from plugsec_signing.typed import Any, NamedTuple
from plugsec_signing.verify import (
    Circumstances,
    UnsafeUnsignedBundle,
    VerifiedBundle,
    verify_bundle,
    verify_unsafe_unsigned,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from plugsec.outcome import Outcome
    from plugsec.recording import Recorder
    from plugsec.supervision.loop import Facts

DEFAULT_POLICY = "builtin:strict"
_TRUST_KIND = "trust-2"  # of cached plain forms; they have rules since the second


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
    allow_downgrade: bool = False


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
    ) -> "Outcome":
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
        self._held = Held(where, self._id, boot)
        self._known: dict[str, Any] = {}  # members of Outcome
        self._recorder: Recorder | None = None
        self._bundle: VerifiedBundle | UnsafeUnsignedBundle | None = None
        self._files: tuple[exchange_inputs.InputFile, ...] = ()
        self._started = False
        self._memory = memory.path_in(where.state)

    def outcome(self) -> "Outcome":
        """Do every step; turn whatever ends it into an outcome."""
        try:
            self._held.take()
            return self._outcome(0, result=self._steps())
        except REFUSALS as error:
            problem = self._recorded(error)
            about_input = isinstance(problem, InputMalformed | ExchangeError)
            return self._outcome(problem.code, error=problem, about_input=about_input)
        except KeyboardInterrupt:
            self._recorded(Interrupted("interrupted; the plugin is dead"))
            raise
        except Exception as error:  # ours, but the run must not vanish from the record
            self._recorded(Defect(f"a defect of plugsec: {type(error).__name__}"))
            raise
        finally:
            for file in self._files:
                os.close(file.fd)
            if self._bundle is not None:
                self._bundle.close()
            self._held.release()

    def _steps(self) -> Any:  # noqa: ANN401
        self._bundle = self._verify()  # 1
        decided = self._decide(self._bundle)  # 2
        plan, built, recorder = self._launch(decided)  # 3
        facts = self._converse(recorder, decided, plan, built)  # 4
        return self._conclude(recorder, decided, facts)  # 5

    # 1. verify -------------------------------------------------------------------------------------------

    def _verify(self) -> VerifiedBundle | UnsafeUnsignedBundle:
        call = self._call
        bundle: VerifiedBundle | UnsafeUnsignedBundle
        installed = places.names_installed(call.bundle)
        if call.unsafe_unsigned and not installed:
            bundle = verify_unsafe_unsigned(call.bundle, keep_payload=True)
        else:
            parse = cache.by_text(os.path.join(self._where.cache, "parsed"), _TRUST_KIND, parse_trust_toml)
            trust = load_trust(self._where.trust, parse=parse)
            settled = Settled(os.path.join(self._where.cache, "settled"))
            now = int(time.time())
            revocations = load_revocations(self._where.trust, trust, now, self._memory, settled)
            under = Circumstances(
                revocations, self._recall, allow_downgrade=call.allow_downgrade, settled=settled
            )
            if installed:
                bundle = self._verify_installed(trust, now, under)
            else:
                bundle = verify_bundle(call.bundle, trust, now, keep_payload=True, under=under)
        warnings = bundle.warnings
        if isinstance(bundle, UnsafeUnsignedBundle):
            warnings = ("nobody vouches for this bundle (--unsafe-unsigned); that is recorded", *warnings)
        self._known.update(bundle_id=bundle.bundle_id, plugin=bundle.envelope.name, warnings=warnings)
        return bundle

    def _recall(self, name: str) -> memory.Remembered:
        return memory.recall(self._memory, name, self._where.trust)

    def _verify_installed(self, trust: TrustStore, now: int, under: Circumstances) -> VerifiedBundle:
        """The same evidence from the store: `publisher/name[@version]`."""
        from plugsec_signing.store.names import parse_name  # noqa: PLC0415 - only for installed plugins
        from plugsec_signing.store.stored import verify_stored  # noqa: PLC0415

        if self._call.unsafe_unsigned:
            raise UsageError(
                "--unsafe-unsigned is for bundle files; what is installed was verified",
                f"plugsec run {self._call.bundle}, or ./{self._call.bundle} for a file",
            )
        store = os.path.join(self._where.data, places.STORE)
        # An older version is there because the operator installed it, or went back to it, on purpose.
        under = under._replace(allow_downgrade=True)
        return verify_stored(store, parse_name(self._call.bundle), trust, now, under)

    # 2. decide -------------------------------------------------------------------------------------------

    def _decide(self, bundle: VerifiedBundle | UnsafeUnsignedBundle) -> Decided:
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
            attestations=tuple(each.predicate_type for each in bundle.attestations if each.counted),
            revocations=_currency(bundle),
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
        self._files = exchange_inputs.open_input_files(self._call.input_files)
        return Decided(bundle, manifest, method, value, grant)

    def _policy(self, reference: str) -> Policy:
        if reference.startswith(BUILTIN_PREFIX):
            return Policy.from_plain(load_policy(reference))  # made at build time, nothing to remember
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
        return payload.read(path, limit)  # the manifest parser has checked that what it names exists

    # 3. launch -------------------------------------------------------------------------------------------

    def _launch(self, decided: Decided) -> "tuple[LaunchPlan, build.Built, Recorder]":
        held, grant, payload = self._held, decided.grant, decided.bundle.payload
        if payload is None or decided.bundle.bundle_id != grant.bundle_id:
            raise RuntimeError("a grant for another bundle")
        plan = adapter(decided.manifest.runtime.kind).prepare(
            decided.manifest, decided.method, grant.exec, self._read_payload
        )
        built = build.build(
            grant,
            plan,
            () if payload.bound else tuple(File(*entry) for entry in payload.entries),
            {file.name: file.size for file in self._files},
            cgroup=held.cgroup is not None,
            own_directories=tuple(self._where),
            cache_directory=os.path.join(self._where.cache, "seccomp"),
        )
        held.limit(
            memory_bytes=grant.limits.memory_bytes,
            processes=build.tasks_allowed(grant) + OWN_PROCESSES,
            tolerated=build.tolerated(grant),
        )
        held.begin(built.spec, payload.fd, tuple(file.fd for file in self._files))
        held.follow(meanwhile=lambda: self._prepare(decided))
        found = {
            "cgroup": held.cgroup,
            "denial-report": held.boot.entered["denial_report"],
            "landlock": held.boot.entered["landlock_abi"],
        }
        missing = {name for name, there in found.items() if not there}
        self._known["layers_degraded"] = tuple(name for name in layers.NAMES if name in missing)
        self._known["layers_active"] = tuple(name for name in layers.NAMES if name not in missing)
        return plan, built, self._recording()

    def _prepare(self, decided: Decided) -> None:
        """Do what the call will need, while boot is busy with its layers."""
        self._recording()
        if decided.bundle.verdict is not None:
            memory.remember(self._memory, decided.bundle.verdict)
        from plugsec import conclusion, conversation  # noqa: F401, PLC0415
        from plugsec.supervision import listener  # noqa: F401, PLC0415

    def _recording(self) -> "Recorder":
        """Open the log, once, and write what is known: the bypass that was asked for, the evidence."""
        if self._recorder is None:
            from plugsec.recording import Recorder  # noqa: PLC0415 - see _prepare

            self._recorder = recorder = Recorder(self._held.open_log(), self._id, self._known)
            if self._call.unsafe_unsigned:
                recorder.override("unsafe-unsigned", self._call.bundle)
            if self._bundle is not None:
                verdict = self._bundle.verdict
                if verdict is not None and verdict.downgrade and self._call.allow_downgrade:
                    recorder.override("allow-downgrade", self._call.bundle)
                recorder.verified(self._bundle)
        return self._recorder

    # 4. converse -----------------------------------------------------------------------------------------

    def _converse(
        self, recorder: "Recorder", decided: Decided, plan: LaunchPlan, built: build.Built
    ) -> "Facts":
        from plugsec import conversation  # noqa: PLC0415 - see _prepare

        if self._interruption.requested:
            raise Interrupted("interrupted before the plugin was started")
        conversation.record_start(self._held, recorder, decided, built, self._files)
        self._started = True
        return conversation.converse(self._held, decided, plan, built, self._interruption)

    # 5. record -------------------------------------------------------------------------------------------

    def _conclude(self, recorder: "Recorder", decided: Decided, facts: "Facts") -> Any:  # noqa: ANN401
        """Judge the facts, check the result, collect the files; raises what the run ended with."""
        from plugsec import conclusion  # noqa: PLC0415 - see _prepare
        from plugsec.recording import digest  # noqa: PLC0415

        self._known.update(conclusion.learnt(facts))
        result = conclusion.judge(facts, decided.grant, self._known)
        self._check(decided.manifest.methods[decided.method].output, result, "output")
        if self._interruption.requested:  # while the library was busy, which nothing interrupts
            raise Interrupted("interrupted while the result was checked")
        output_fd, wanted = self._held.boot.output, self._call.output_dir
        if output_fd >= 0 and wanted is not None:
            self._known["outputs"] = conclusion.collect_files(output_fd, wanted, decided.grant.limits)
        elif output_fd >= 0 and conclusion.files_left(output_fd):
            note = "the plugin left files in $OUTPUT that were not kept; give --output-dir DIR"
            self._known["warnings"] = (*self._known["warnings"], note)
        self._sign(recorder, recorder.ended("ok", {"output_sha256": digest(result)}))
        return result

    def _sign(self, recorder: "Recorder", detail: Mapping[str, Any]) -> None:
        if self._call.receipt:
            self._known["receipt"] = recorder.receipt(detail)

    # Endings ---------------------------------------------------------------------------------------------

    def _recorded(self, error: Refusal) -> Refusal:
        """Record a refusal or a bad end; an audit log that cannot take it is the graver problem."""
        self._held.end()  # nothing of the plugin lives on while we write
        try:
            recorder = self._recording()
            if self._started:
                self._sign(recorder, recorder.failed(error))
            else:
                recorder.refused(error, self._call.bundle)
        except REFUSALS as graver:
            return error if error.code == graver.code else graver
        return error

    def _outcome(
        self,
        code: int,
        *,
        result: Any = None,  # noqa: ANN401
        error: Refusal | None = None,
        about_input: bool = False,
    ) -> "Outcome":
        from plugsec.outcome import Outcome, Problem, word  # noqa: PLC0415 - see _prepare

        position = self._recorder.position if self._recorder is not None else None
        return Outcome(
            outcome=word(code, about_input=about_input),
            code=code,
            run_id=self._id,
            result=result,
            error=Problem(error.id, error.message, error.hint) if error else None,
            audit_seq=position.seq if position else None,
            **self._known,
        )


_SCHEMA_BYTES_MAX = 1024 * 1024


def _currency(bundle: VerifiedBundle | UnsafeUnsignedBundle) -> str:
    """How current the revocation list is by which the bundle was judged."""
    verdict = bundle.verdict
    if verdict is None or verdict.revocations is None:
        return "none"
    return "stale" if verdict.revocations_stale else "current"


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
