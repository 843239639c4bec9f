"""Log lines for the facts that the daemon records: builds, activations, and what went wrong.

`Leadership.write` calls it after each write, so that the log contains only what was recorded. Each
fact is one INFO line without control characters. Secrets are removed as they are from messages.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

from reconciler.core.events import (
    Authorship,
    BuildRef,
    DagsChecked,
    Event,
    EventKind,
    FromTo,
    Payload,
    Quarantined,
    part_of,
    seconds_of,
    who_of,
)

log = logging.getLogger(__name__)

MESSAGE_LIMIT = 500  # characters of an event's message that are logged
MINOR = frozenset({EventKind.ACTIVATION_PHASE, EventKind.BUILD_QUEUED})
"""Kinds of events that are not logged, because their outcome is."""


def log_facts(events: Iterable[Event], clean: Callable[[str], str]) -> None:
    """Log each event but the minor ones; `clean` removes secrets from a text.

    The JSON format takes the fields from the log record's `fact`.
    """
    for event in events:
        if event.kind not in MINOR:
            fact = fields(event, clean)
            log.info("%s", line(fact), extra={"fact": fact})


def fields(event: Event, clean: Callable[[str], str]) -> dict[str, object]:
    """Return what the event is about, without empty fields."""
    build = part_of(event.payload, BuildRef) or BuildRef(build=_build(event.payload))
    authorship = part_of(event.payload, Authorship) or Authorship()
    values = {
        "kind": str(event.kind),
        "object": event.object,
        "team": event.team,
        "reason": str(event.reason or ""),
        "build": build.build,
        "build_key": build.key,
        "commit": event.revision,
        "author": authorship.author,
        "who": who_of(event.payload),
        "seconds": seconds_of(event.payload),
        "message": event.message,
    }
    cleaned = {
        name: _printable(clean(value))[:MESSAGE_LIMIT] if isinstance(value, str) else value
        for name, value in values.items()
    }
    return {name: value for name, value in cleaned.items() if value not in (None, "")}


def _build(payload: Payload) -> str:
    """Return the id of the build that an event about an instance names, or ""."""
    match payload:
        case DagsChecked(build) | Quarantined(build):
            return build
    switch = part_of(payload, FromTo)
    return switch.to_build if switch is not None else ""


def line(fact: dict[str, object]) -> str:
    """Return a fact's fields as one line of text."""
    parts = [f"{fact['kind']} {fact.get('object', '')}".rstrip()]
    parts += [f"{name}={fact[name]}" for name in ("reason", "build") if name in fact]
    if "commit" in fact:
        parts.append(f"commit={str(fact['commit'])[:10]}")
    seconds = fact.get("seconds")
    if isinstance(seconds, int | float):
        parts.append(f"seconds={seconds:.1f}")
    return " ".join(parts) + (f": {fact['message']}" if "message" in fact else "")


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else " " for c in text)
