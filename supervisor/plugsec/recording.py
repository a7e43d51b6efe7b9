"""What a run writes into the audit log, and the receipt: one method for each kind of record."""

import hashlib
import json
import os
from collections.abc import Mapping

from plugsec.audit.log import AuditLog, Position
from plugsec.errors import Refusal
from plugsec.outcome import Usage, word
from plugsec.places import names_installed
from plugsec_policies.decision import Grant
from plugsec_signing.canonical import encode
from plugsec_signing.errors import SigningError
from plugsec_signing.typed import Any
from plugsec_signing.verify import UnsafeUnsignedBundle, VerifiedBundle

DENIALS_MAX = 100  # kinds recorded one by one; their number is recorded in full
_OUTPUTS_MAX = 100


class Recorder:
    """Writes one run's records; `known` is what the pipeline has learnt so far (members of Outcome)."""

    def __init__(self, log: AuditLog, run_id: str, known: Mapping[str, Any]) -> None:
        self._log, self._run_id, self._known = log, run_id, known
        self._policy_digest: str | None = None
        self.position: Position | None = None

    def override(self, name: str, path: str) -> None:
        """A bypass was asked for by its ugly name."""
        self._append("override.used", {"override": name, "path": _absolute(path)})

    def verified(self, bundle: VerifiedBundle | UnsafeUnsignedBundle) -> None:
        """The bundle's evidence."""
        detail = {
            "plugin": bundle.envelope.name,
            "version": bundle.envelope.version,
            "signers": [signer.key_id for signer in bundle.signers],
            "trust_digest": bundle.trust_digest,
        }
        self._log.append(
            "bundle.verified", run=self._run_id, bundle_id=bundle.bundle_id, detail=detail, durable=False
        )

    def started(self, grant: Grant, detail: Mapping[str, Any]) -> None:
        """The run's rights, durable before the plugin starts."""
        self._policy_digest = grant.policy_digest
        granted = {
            "fs.read": grant.fs_read, "fs.write": grant.fs_write, "env": grant.env, "exec": grant.exec,
            "process": grant.processes_allowed, "jit": grant.jit,
        }  # fmt: skip
        whole = {
            "plugin": grant.name,
            "version": grant.version,
            "method": self._known["method"],
            "layers": list(self._known["layers_active"]),
            "degraded": list(self._known["layers_degraded"]),
            "limits": grant.limits._asdict(),
            "grant": granted,
            **detail,
        }
        self._append("run.start", whole, decision="granted")

    def ended(self, outcome: str, extra: Mapping[str, Any]) -> dict[str, Any]:
        """What came of a run that had started; returns the record's detail, for the receipt."""
        denials = self._known.get("denials", ())
        for denial in denials[:DENIALS_MAX]:
            self._log.append("denial", run=self._run_id, detail=denial._asdict(), durable=False)
        limit = self._known.get("limit")
        if limit is not None:
            self._append("limit.hit", limit._asdict())
        detail: dict[str, Any] = {
            "outcome": outcome,
            "usage": self._known.get("usage", Usage())._asdict(),
            "limit": limit._asdict() if limit is not None else None,
            "denial_kinds": len(denials),
            "denials": sum(denial.count for denial in denials),
            "outputs": [file._asdict() for file in self._known.get("outputs", ())[:_OUTPUTS_MAX]],
            **extra,
        }
        self._append("run.end", detail, decision=outcome)
        return detail

    def refused(self, error: Refusal, path: str) -> None:
        """Something ended the run before the plugin had started."""
        event = "bundle.refused" if self._known.get("bundle_id") is None else "run.refused"
        if event == "run.refused" and error.code == 1:
            event = "policy.refused"
        detail = {
            "error": error.id,
            "message": error.message,
            "path": _absolute(path),
            "plugin": self._known.get("plugin"),
        }
        self._append(event, detail, decision="refused")

    def failed(self, error: Refusal) -> dict[str, Any]:
        """A started run that did not end well."""
        return self.ended(word(error.code), {"error": error.id, "message": error.message})

    def receipt(self, detail: Mapping[str, Any]) -> bytes:
        """The signed summary of the run that `ended` has just recorded."""
        from plugsec.audit.receipt import sign_receipt  # noqa: PLC0415 - 20 ms of cryptography

        summary = {
            "run_id": self._run_id,
            "bundle_id": self._known.get("bundle_id"),
            "plugin": self._known.get("plugin"),
            "method": self._known.get("method"),
            "policy_digest": self._policy_digest,
            "layers": {
                "active": list(self._known.get("layers_active", ())),
                "degraded": list(self._known.get("layers_degraded", ())),
            },
            **detail,
        }
        return sign_receipt(self._log, summary)

    def _append(self, event: str, detail: Mapping[str, Any], *, decision: str | None = None) -> None:
        """Append a durable record and note where it stands."""
        self.position = self._log.append(
            event,
            run=self._run_id,
            bundle_id=self._known.get("bundle_id"),
            policy_digest=self._policy_digest,
            decision=decision,
            detail=detail,
            durable=True,
        )


def _absolute(path: str) -> str:
    """As a reader of the log can find it; as it was given where the working directory is gone."""
    try:
        return path if names_installed(path) else os.path.abspath(path)
    except OSError:
        return path


def digest(value: Any) -> str:  # noqa: ANN401
    """SHA-256 (hex) over a value's canonical form, or over plain sorted JSON where it has fractions."""
    try:
        data = encode(value)
    except SigningError:
        data = json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
    return hashlib.sha256(data).hexdigest()
