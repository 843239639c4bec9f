"""Events as the store reads them, for tests that write their data as JSON objects."""

from __future__ import annotations

from collections.abc import Mapping

from reconciler.core.event_codec import decoded, reason_of
from reconciler.core.events import Event, kind_of


def event(
    at: float,
    kind: str,
    object: str,  # noqa: A002 - the field's name in Event
    team: str,
    reason: str,
    message: str,
    revision: str = "",
    data: Mapping[str, object] | None = None,
    id: int = 0,  # noqa: A002 - as above
) -> Event:
    """Return an event as it is read from a row of the store."""
    known, stored = kind_of(kind), dict(data or {})
    payload = decoded(known, stored)
    return Event(
        at, known, object, team, reason_of(known, reason), message, revision, payload, id, stored
    )
