"""The closed set of events that a log can hold; docs/formats/audit.md explains each.

An event that is not listed is a mistake of the caller, found by the first test that reaches it. Readers
do not refuse unknown events: a log may have been continued by a newer plugsec.
"""

DURABLE = frozenset(
    {
        "bundle.refused",
        "bundle.installed",
        "bundle.removed",
        "bundle.reverted",
        "policy.refused",
        "run.refused",
        "connection.refused",
        "run.start",
        "run.end",
        "override.used",
        "trust.changed",
        "revocation.changed",
        "policy.changed",
        "limit.hit",
        "log.created",
        "log.rotated",
        "log.recovered",
        "log.full",
        "key.rotated",
    }
)
"""On the disk before the caller proceeds, whatever the caller asked for: decisions, the bounds of a run,
changes of what is trusted, and the log's own history."""

PROMPT = frozenset(
    {
        "bundle.verified",
        "store.collected",
        "policy.decided",
        "denial",
        "connection.opened",
        "host.call",
        "waiver.used",
        "config.changed",
    }
)
"""Written (visible to every process) at once; on the disk with the next durable record or checkpoint."""

EVENTS = DURABLE | PROMPT

STARTS = frozenset({"run.start"})
"""Events that begin something new: refused as soon as the disk's last space is needed for endings."""
