"""The history as the pages show it: one entry for each activation, build or other event.

The events of one activation, or of one build, are steps of one entry, so that a table of history
has a row for what happened and not for every phase of it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby

from reconciler.api.documents import event_phases
from reconciler.api.pages.groups import Group
from reconciler.core.events import (
    Authorship,
    BuildRef,
    Event,
    EventKind,
    PackageChanges,
    part_of,
    seconds_of,
    who_of,
)

SHOWN_CHANGES = 8  # packages named in one row
BEGIN = frozenset({EventKind.ACTIVATION_STARTED})
DURING = frozenset({EventKind.ACTIVATION_PHASE, EventKind.DEGRADED, EventKind.QUARANTINED})
END = frozenset({EventKind.ACTIVATION_ACTIVE, EventKind.ACTIVATION_ABORTED, EventKind.ROLLED_BACK})
GROUPS: dict[str, Group] = {
    EventKind.BUILD_READY: Group.HEALTHY,
    EventKind.ACTIVATION_ACTIVE: Group.HEALTHY,
    EventKind.SOURCE_RECOVERED: Group.HEALTHY,
    EventKind.OBJECT_RECOVERED: Group.HEALTHY,
    EventKind.SHARE_BACK: Group.HEALTHY,
    EventKind.DRIFT_HEALED: Group.HEALTHY,
    EventKind.BUILD_LOADED: Group.HEALTHY,
    EventKind.BUILD_RETRY: Group.OUT_OF_SYNC,
    EventKind.ACTIVATION_ABORTED: Group.OUT_OF_SYNC,
    EventKind.PRUNE_HELD: Group.OUT_OF_SYNC,
    EventKind.DAGS_NOT_SEEN: Group.OUT_OF_SYNC,
    EventKind.ROLLBACK_REFUSED: Group.OUT_OF_SYNC,
    EventKind.REQUEST_REFUSED: Group.OUT_OF_SYNC,
    EventKind.BUILD_FAILED: Group.FAILED,
    EventKind.ROLLED_BACK: Group.FAILED,
    EventKind.QUARANTINED: Group.FAILED,
    EventKind.DEGRADED: Group.FAILED,
    EventKind.OBJECT_STALLED: Group.FAILED,
    EventKind.SOURCE_FAILED: Group.FAILED,
    EventKind.SHARE_MISSING: Group.FAILED,
    EventKind.DRIFTED: Group.FAILED,
    EventKind.DRIFT_STAYS: Group.FAILED,
    EventKind.BUILD_NOT_LOADED: Group.FAILED,
    EventKind.GARBAGE_FAILED: Group.FAILED,
    EventKind.BUILD_QUEUED: Group.PROGRESSING,
    EventKind.ACTIVATION_STARTED: Group.PROGRESSING,
    EventKind.ACTIVATION_PHASE: Group.PROGRESSING,
}
"""The groups of kinds that say how something went; others have none."""


@dataclass(frozen=True, slots=True)
class Told:
    """Event as shown; `link` leads to its object's page, `build` to its build, if there is one.

    `changes` names some of the packages that it changed, `more` is the number of the others.
    """

    event: Event
    title: str
    group: str
    link: str
    build: str
    phases: tuple[tuple[str, float], ...]
    seconds: float | None
    who: str
    subject: str
    changes: tuple[str, ...]
    more: int


@dataclass(frozen=True, slots=True)
class Entry:
    """Row of the history: the event that says how it went, and all its events, oldest first."""

    head: Told
    steps: tuple[Told, ...]


@dataclass(frozen=True, slots=True)
class Day:
    """Entries of one day in UTC, newest first."""

    name: str
    entries: tuple[Entry, ...]


def told(event: Event) -> Told:
    """Return an event as the pages show it."""
    kind, _, name = event.object.partition("/")
    packages = part_of(event.payload, PackageChanges) or PackageChanges()
    marked = ("+", packages.added), ("-", packages.removed), ("", packages.changed)
    changes = tuple(f"{mark}{name}" for mark, names in marked for name in names)
    authorship = part_of(event.payload, Authorship) or Authorship()
    ref = part_of(event.payload, BuildRef)
    return Told(
        event=event,
        title=_title(str(event.kind)),
        group=str(GROUPS.get(event.kind, "")),
        link=f"/{kind}s/{name}" if kind in ("environment", "instance") and name else "",
        build=ref.key if ref is not None else "",
        phases=tuple(event_phases(event).items()),
        seconds=seconds_of(event.payload),
        who=who_of(event.payload) or authorship.author or "",
        subject=authorship.subject or "",
        changes=changes[:SHOWN_CHANGES],
        more=max(0, len(changes) - SHOWN_CHANGES),
    )


def _title(kind: str) -> str:
    """Return a kind of event as words: "Activation active" of "ActivationActive"."""
    return re.sub("(?<=[a-z])(?=[A-Z])", " ", kind[:100]).capitalize()


def entries(events: Sequence[Event]) -> list[Entry]:
    """Return the entries of these events, given and returned newest first."""
    collected: list[list[Event]] = []
    latest: dict[str, list[Event]] = {}  # the last entry of each build and of each activation
    for event in reversed(events):
        subject = _subject(event)
        steps = latest.get(subject)
        if not subject or steps is None or _begins(event, steps):
            steps = []
            collected.append(steps)
            if subject:
                latest[subject] = steps
        steps.append(event)
    rows = [Entry(told(_head(steps)), tuple(told(e) for e in steps)) for steps in collected]
    return sorted(rows, key=lambda e: (e.steps[-1].event.at, e.steps[-1].event.id), reverse=True)


def _subject(event: Event) -> str:
    """Return what an event is a step of: a build or an instance's activation; "" for neither."""
    ref = part_of(event.payload, BuildRef)
    if ref is not None and ref.key:
        return f"build {ref.key}"
    return event.object if event.kind in BEGIN | DURING | END else ""


def _begins(event: Event, steps: Sequence[Event]) -> bool:
    """Return True if an event is not one more step of the entry with `steps`."""
    if event.kind in BEGIN or event.kind is EventKind.BUILD_QUEUED:
        return True
    has_ended = any(step.kind in END for step in steps)
    return has_ended and event.kind is not EventKind.QUARANTINED


def _head(steps: Sequence[Event]) -> Event:
    """Return the event that says most about how an entry went: its end, if it has ended."""
    return next((e for e in reversed(steps) if e.kind in END), steps[-1])


def days(rows: Sequence[Entry]) -> list[Day]:
    """Return entries by day, newest first."""

    def day(entry: Entry) -> str:
        return datetime.fromtimestamp(entry.steps[-1].event.at, UTC).strftime("%A, %d %B %Y")

    return [Day(name, tuple(group)) for name, group in groupby(rows, day)]
