"""Instants as RFC 3339 in UTC, and as whole seconds since 1970 inside.

Local time and fractions are refused: the validity of a key must not depend on the reader's time zone
(`ssh-keygen` reads `valid-before` as local time, which is why ours are written with `Z`).
"""

import re

_FORM = r"(?a)(\d{4})-(\d\d)-(\d\d)(?:T(\d\d):(\d\d):(\d\d)Z)?"


def parse_time(text: str) -> int | None:
    """Return unix seconds of `YYYY-MM-DD` (midnight) or `YYYY-MM-DDTHH:MM:SSZ`; None if it is neither."""
    from datetime import UTC, datetime  # noqa: PLC0415 - 2 ms, and most bundles carry no time

    match = re.fullmatch(_FORM, text)
    if match is None:
        return None
    try:
        moment = datetime(*(int(part or 0) for part in match.groups()), tzinfo=UTC)  # type: ignore[arg-type,misc]
    except ValueError:
        return None
    return int(moment.timestamp())


def format_time(seconds: int) -> str:
    """Return unix seconds as `YYYY-MM-DDTHH:MM:SSZ`."""
    from datetime import UTC, datetime  # noqa: PLC0415 - as above

    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
