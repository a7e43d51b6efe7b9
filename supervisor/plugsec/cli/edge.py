"""Where commands other than `run` touch the world: lines for people, small files, one audit record."""

import sys
from typing import TYPE_CHECKING, Any

from plugsec.cli.common import Places
from plugsec.errors import UsageError

if TYPE_CHECKING:
    from plugsec_signing.trust import TrustStore
    from plugsec_signing.verify import Circumstances


def show(line: str) -> None:
    """Write one line of a result for people; whatever came from a bundle is escaped on the way."""
    from plugsec.exchange.display import escape  # noqa: PLC0415

    sys.stdout.write(escape(line) + "\n")


def read_small(path: str, most: int) -> bytes:
    """Read a small file that the command line names; raises UsageError (exit 2)."""
    try:
        with open(path, "rb") as file:
            data = file.read(most + 1)
    except (OSError, ValueError) as err:
        raise UsageError(f"{path!r} cannot be read: {err}") from err
    if len(data) > most:
        raise UsageError(f"{path!r} is larger than {most} bytes")
    return data


def circumstances(
    where: Places, store: "TrustStore", now: int, *, allow_downgrade: bool = False
) -> "Circumstances":
    """Under what a command judges a bundle, besides the trust store: revocations, and the memory."""
    from plugsec_signing import memory  # noqa: PLC0415
    from plugsec_signing.trust import load_revocations  # noqa: PLC0415
    from plugsec_signing.verify import Circumstances  # noqa: PLC0415

    path = memory.path_in(where.state)
    return Circumstances(
        revocations=load_revocations(where.trust, store, now, path),
        recall=lambda name: memory.recall(path, name, where.trust),
        allow_downgrade=allow_downgrade,
    )


def record(
    where: Places, event: str, decision: str, detail: dict[str, Any], *, bundle_id: str | None = None
) -> int:
    """Append a durable audit record and return its sequence number; raises AuditError (exit 9)."""
    from plugsec.audit.log import AuditLog  # noqa: PLC0415
    from plugsec.places import prepare_state  # noqa: PLC0415

    prepare_state(where.state)
    with AuditLog.open(where.audit) as log:
        return log.append(event, bundle_id=bundle_id, decision=decision, detail=detail, durable=True).seq
