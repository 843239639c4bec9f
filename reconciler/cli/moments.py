"""Times on the command line: a duration, or a date with or without a time of day."""

from __future__ import annotations

from datetime import UTC, datetime

from reconciler.cli.exit_codes import Misuse


def time_of(option: str, text: str, now: float, *, ahead: bool) -> float:
    """Return the time that an option means, in seconds since the epoch. Raises Misuse.

    A duration is counted from `now`: forwards if `ahead`, otherwise backwards.
    """
    from pydantic import TypeAdapter, ValidationError

    from gitsource.fields import Duration

    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        at = None
    if at is not None:
        return (at if at.tzinfo is not None else at.replace(tzinfo=UTC)).timestamp()
    try:
        seconds = float(TypeAdapter(Duration).validate_python(text))
    except ValidationError as error:
        raise Misuse(
            f"{option} {text} is not a time; write a duration such as 90m or 2d, or a date such as "
            f"2026-11-30 or 2026-11-30T08:00Z (UTC if it names no zone)"
        ) from error
    return now + seconds if ahead else now - seconds
