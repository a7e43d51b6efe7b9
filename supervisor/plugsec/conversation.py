"""Step 4 of a run: its start is durable, then the call is made and watched to its end.

This module and `conclusion` are imported while boot is busy with its layers (`pipeline._Run._prepare`).
"""

import os
from collections.abc import Sequence

from plugsec.decided import Decided
from plugsec.exchange.inputs import InputFile
from plugsec.held import Held
from plugsec.recording import Recorder, digest
from plugsec.sandbox import build
from plugsec.sandbox.seccomp.tables import call_names
from plugsec.supervision.dialects import Oneshot, Rpc
from plugsec.supervision.interruption import Interruption
from plugsec.supervision.loop import Facts, Supervision, Watch
from plugsec.supervision.monitor import Monitor
from plugsec_plugins.runtimes.plan import LaunchPlan
from plugsec_signing.verify import UnsafeUnsignedBundle


def record_start(
    held: Held, recorder: Recorder, decided: Decided, built: build.Built, files: Sequence[InputFile]
) -> None:
    """Note and record, durably, that the plugin is about to start. Raises AuditError, StateUnusable."""
    held.note(started=True, bundle_id=decided.bundle.bundle_id, plugin=decided.grant.name)
    recorder.started(
        decided.grant,
        {
            "signers": [signer.key_id for signer in decided.bundle.signers],
            "unsafe_unsigned": isinstance(decided.bundle, UnsafeUnsignedBundle),
            "seccomp_digest": built.seccomp_digest,
            "input_sha256": digest(decided.value),
            "input_files": {file.name: file.sha256 for file in files},
        },
    )


def converse(
    held: Held, decided: Decided, plan: LaunchPlan, built: build.Built, interruption: Interruption
) -> Facts:
    """Make the call and watch it to its end; nothing that the plugin does raises."""
    limits = decided.grant.limits
    if plan.dialect == "rpc":
        readable, writable = build.readable_roots(built.spec)
        request = Rpc.request(decided.method, decided.value, limits.wall_ms, readable, writable)
    else:
        request = Oneshot.request(decided.value)
    return Supervision(
        held.boot,
        dialect=plan.dialect,
        request=request,
        watch=Watch(limits.wall_ms, limits.output_bytes, limits.denials),
        monitor=Monitor(
            held.boot.pid,
            held.cgroup,
            memory_bytes=limits.memory_bytes,
            processes=build.tasks_allowed(decided.grant),
            cpu_ms=limits.cpu_ms,
        ),
        call_names=call_names(os.uname().machine),
        interruption=interruption,
    ).run()
