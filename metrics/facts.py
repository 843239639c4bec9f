"""Facts: notifications for people, made from events and worded for every channel.

A fact is complete in itself: what changed, for which team, by which commit and author, how long it
took, and what to do if it failed. Channels (Slack, webhooks) only format it. Nothing here performs
I/O.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeVar
from urllib.parse import quote

from metrics.notices import NEWS, NOTICES, TITLES_BY_TRIGGER, Severity, notice_of
from reconciler.core.addresses import shown
from reconciler.core.events import (
    ActivationActive,
    ActivationRef,
    ActivationStarted,
    Authorship,
    BuildFailed,
    BuildRef,
    Event,
    EventKind,
    FromTo,
    PackageChanges,
    Payload,
    Timing,
    UnknownKind,
    part_of,
    who_of,
)
from reconciler.core.phases import Trigger

P = TypeVar("P", bound=Payload)

MESSAGE = 3000  # characters kept of a message
LINE = 300  # characters kept of a log line
PACKAGES = 500  # entries kept of each list
NAME = 63  # characters of an object's name
UNSEEN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2066-\u2069\ufeff]")


@dataclass(frozen=True, slots=True)
class Fact:
    """Notification about one event. Texts are plain and bounded; `seconds`, `phases` are durations.

    `grown` lists the ways in which imports cost more than with the previous build. `object` is
    "environment/…", "instance/…", or the repo; `name` is its short name. `at` is in seconds since
    the epoch. `commit_url` and `url` (Groundcrew's page) are "" if unknown.
    """

    id: int  # of the event
    at: float
    kind: EventKind
    severity: str
    title: str
    object: str
    name: str
    team: str
    reason: str = ""
    message: str = ""
    place: str = ""
    advice: str = ""
    revision: str = ""
    author: str = ""
    subject: str = ""
    commit_url: str = ""
    url: str = ""
    environment: str = ""
    build: str = ""
    previous_build: str = ""
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    grown: tuple[str, ...] = ()
    seconds: float | None = None
    phases: dict[str, float] = field(default_factory=dict)
    log: tuple[str, ...] = ()
    activation: int = 0  # id of the event that started it; 0 if there is none
    trigger: Trigger | Literal[""] = ""  # of an activation
    who: str = ""  # the operator who requested it

    @property
    def words(self) -> str:
        """The title without the object's name."""
        return self.title.removeprefix(f"{self.name}: ")

    @property
    def failed(self) -> bool:
        """True if the fact reports a problem."""
        return self.severity != Severity.INFO


@dataclass(frozen=True, slots=True)
class Links:
    """Links for readers: the daemon's address, and the URL of a commit's page with {revision}."""

    public_url: str = ""
    commit_url: str = ""

    def commit(self, revision: str) -> str:
        """Return the URL of a commit's page, or "" if there is none."""
        if not self.commit_url or not re.fullmatch(r"[0-9a-f]{7,64}", revision):
            return ""
        return self.commit_url.replace("{revision}", revision)

    def page(self, event: Event) -> str:
        """Return the URL of Groundcrew's page about the event's subject, or "" if there is none."""
        if not self.public_url:
            return ""
        kind, _, name = event.object.partition("/")
        key = _failed_build(event)
        if re.fullmatch(r"[0-9a-f]{16}", key):
            path = f"builds/{key}"
        elif kind in ("instance", "environment") and 0 < len(name) <= NAME:
            path = f"{kind}s/{quote(name, safe='')}"
        else:
            path = ""
        return f"{self.public_url.rstrip('/')}/{path}"


def identity(event: Event) -> tuple[str, ...]:
    """Return a key that is equal for events that report the same thing about the same commit."""
    detail = event.message if event.kind in MESSAGE_TELLS_APART else ""
    ref = part_of(event.payload, ActivationRef)
    trigger = str((ref.trigger if ref is not None else None) or "")
    switch = part_of(event.payload, FromTo) or FromTo()
    way = (trigger, who_of(event.payload), switch.from_build, switch.to_build)
    return event.kind, event.object, event.revision, event.reason_name, *way, detail


MESSAGE_TELLS_APART = frozenset({EventKind.OBJECT_STALLED, EventKind.PRUNE_HELD})
"""Kinds of which two events about one object may report different mistakes."""


def is_news(event: Event, earlier: Iterable[Event]) -> bool:
    """Return True if the event is news; `earlier` are its object's prior events, newest first."""
    mine = identity(event)
    for other in earlier:
        if identity(other) == mine:
            return False
        if _makes_news(other):
            return True
    return True


def _makes_news(event: Event) -> bool:
    """Return True if facts that were reported before the event are news again after it."""
    if isinstance(event.kind, UnknownKind):
        return False
    notice = NOTICES.get(event.kind)
    return event.kind in NEWS or (notice is not None and not notice.recurs)


UNFINISHED = frozenset({EventKind.ACTIVATION_ABORTED, EventKind.DEGRADED, EventKind.ROLLED_BACK})
"""Ends of an activation whose events lack the planned changes; its start has them."""


def beginning_of(event: Event, earlier: Iterable[Event]) -> Event | None:
    """Return the event that started the event's activation, known by the activation's id.

    Events of an earlier version have no id: their start is the newest of the same revision.
    `earlier` as for `is_news`.
    """
    ref = part_of(event.payload, ActivationRef)
    if ref is None:
        return None
    for other in (event, *earlier):
        if isinstance(other.payload, ActivationStarted):
            if ref.id:
                if other.payload.ref.id == ref.id:
                    return other
            else:
                return other if other.revision == event.revision else None
        elif other.kind is EventKind.ACTIVATION_ACTIVE and other is not event:
            return None
    return None


def activation_of(event: Event, earlier: Iterable[Event]) -> int:
    """Return the id of the event that started the event's activation, or 0 if there is none.

    A start that was not news counts as the same start as the one that was; `earlier` as for
    `is_news`.
    """
    began = beginning_of(event, earlier)
    if began is None:
        return 0
    for other in (one for one in earlier if one.id < began.id):
        if identity(other) == identity(began):
            began = other
        elif _makes_news(other):
            break
    return began.id


def make_fact(
    event: Event,
    links: Links,
    log_of: Callable[[str], Sequence[str]] = lambda _: (),
    clean: Callable[[str], str] = lambda text: text,
    began: Event | None = None,
) -> Fact | None:
    """Return the fact for an event, or None if nobody needs to be notified.

    `log_of` returns the last lines of a build's log by its key; `clean` removes secrets from a
    text; `began` is the event that started the activation, for one that ended without success.
    """
    notice = notice_of(event.kind)
    if notice is None or isinstance(event.kind, UnknownKind) or _is_quiet(event):
        return None

    def text(value: str | None, limit: int = LINE) -> str:
        return cut(plain(clean(value or "")), limit)

    def texts(values: Sequence[str]) -> tuple[str, ...]:
        kept = tuple(text(item) for item in values[:PACKAGES])
        more = len(values) - len(kept)
        return (*kept, f"and {more} more") if more else kept

    name = text(event.object.partition("/")[2]) or "environments repo"
    who, key = text(who_of(event.payload), NAME), _failed_build(event)
    ref = part_of(event.payload, ActivationRef)
    trigger = ref.trigger if ref is not None else None
    title = TITLES_BY_TRIGGER.get((trigger, event.kind), notice.title) if trigger else notice.title
    asked = ref is None or trigger is Trigger.COMMIT  # requested by the commit that is named
    revision = event.revision if asked else ""
    build, timing = part_of(event.payload, BuildRef), part_of(event.payload, Timing) or Timing()
    switch, changes = _part(event, began, FromTo), _part(event, began, PackageChanges)
    authorship = _part(event, began, Authorship)
    return Fact(
        id=event.id,
        at=event.at,
        kind=event.kind,
        severity=str(notice.severity),
        title=f"{name}: {title.format(who=who or 'an operator')}",
        object=text(event.object),
        name=name,
        team=text(event.team),
        reason=text(event.reason_name) if notice.severity is not Severity.INFO else "",
        message=text(event.message, MESSAGE),
        place=text(event.payload.location) if isinstance(event.payload, BuildFailed) else "",
        advice=notice.advice.format(name=name, object=text(event.object)),
        revision=revision,
        author=text(authorship.author) if asked else "",
        subject=text(authorship.subject) if asked else "",
        commit_url=links.commit(revision),
        url=links.page(event),
        environment=text(authorship.environment),
        build=text((build.build if build is not None else "") or switch.to_build),
        previous_build=text(switch.from_build),
        added=texts(changes.added),
        removed=texts(changes.removed),
        changed=texts(changes.changed),
        grown=texts(changes.imports_grown),
        seconds=timing.seconds,
        phases={name: round(seconds, 3) for name, seconds in timing.phases.items()},
        log=tuple(text(line) for line in log_of(key)) if key else (),
        trigger=trigger or "",
        who=who,
    )


def _part(event: Event, began: Event | None, kind: type[P]) -> P:
    """Return a part of an event's payload; if it says nothing, that of the activation's start."""
    part = part_of(event.payload, kind) or kind()
    if part == kind() and began is not None and event.kind in UNFINISHED:
        return part_of(began.payload, kind) or part
    return part


def _failed_build(event: Event) -> str:
    """Return the key of the build that failed, or "" if the event is about something else."""
    return event.payload.ref.key if isinstance(event.payload, BuildFailed) else ""


def _is_quiet(event: Event) -> bool:
    """Return True for a no-op, or for an activation that was only replaced by a newer one."""
    match event.payload:
        case ActivationStarted(switch) | ActivationActive(switch):
            return switch.from_build == switch.to_build
    return withdraws(event)


def withdraws(event: Event) -> bool:
    """Return True if an activation was given up because its replacement follows at once."""
    is_aborted = event.kind is EventKind.ACTIVATION_ABORTED
    return is_aborted and event.reason is not None and event.reason.policy.withdraws


def plain(text: str) -> str:
    """Return `text` without control and direction characters and without credentials in URLs."""
    return shown(UNSEEN.sub("", text))


def cut(text: str, limit: int) -> str:
    """Return at most `limit` characters, with an ellipsis if the text was longer."""
    return text if len(text) <= limit else text[: limit - 1] + "…"
