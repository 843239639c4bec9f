"""View models of the templates, derived from one snapshot of the records."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import urlencode

from reconciler.api.contract import ObjectQuery
from reconciler.api.documents import event_phases
from reconciler.api.pages import timeline
from reconciler.api.pages.phrases import TROUBLE
from reconciler.api.search import environments_that, instances_that
from reconciler.api.view import Shown
from reconciler.core.events import Authorship, Event, PackageChanges, part_of, seconds_of, who_of
from reconciler.core.model import (
    Activation,
    BuildRecord,
    EnvironmentRecord,
    InstanceRecord,
    Request,
)
from reconciler.core.phases import ActivationPhase, BuildPhase, Sync
from reconciler.core.status import EnvironmentStatus, InstanceStatus

Compared = Literal["before", "failed", "wanted"]

PAGE = 100  # rows per page of a table
RANK = {health: number for number, health in enumerate(TROUBLE)}


@dataclass(frozen=True, slots=True)
class Rows:
    """One page of a table, the worst objects first; `number` counts from 1."""

    instances: tuple[InstanceStatus, ...]
    environments: tuple[EnvironmentStatus, ...]
    found: int
    number: int
    pages: int
    query: ObjectQuery
    coming: Mapping[str, BuildRecord] = field(default_factory=dict)  # by instance

    def link(self, number: int) -> str:
        """Return the query of another page of the same table."""
        return _query({**self.query.model_dump(exclude_none=True), "page": number})


@dataclass(frozen=True, slots=True)
class Turned:
    """Position in a long table; `number` counts from 1."""

    number: int
    pages: int
    given: Mapping[str, object]

    def link(self, number: int) -> str:
        """Return the query of another page of the same table."""
        return _query({**self.given, "page": number})


def files(package: str | None, number: int, total: int, size: int) -> Turned:
    """Return a page of the files of a package, or of the definition's own files."""
    pages = max(1, -(-total // size))
    given = {"package": package} if package is not None else {}
    return Turned(min(number, pages + 1), pages, given)


@dataclass(frozen=True, slots=True)
class Tally:
    """Number of objects by health, and their teams."""

    health: tuple[tuple[str, int], ...]
    teams: tuple[str, ...]
    whole: int


def _query(given: dict[str, object]) -> str:
    return urlencode({name: str(value) for name, value in given.items() if value != ""})


def fleet(shown: Shown, query: ObjectQuery, number: int) -> Rows:
    """Return a page of the matching instances."""
    matches = instances_that(query, shown)
    next_of = {i.name: b for i in matches if (b := coming(shown, i)) is not None}
    matches.sort(key=lambda i: (_trouble(i, next_of.get(i.name)), i.name))
    number, pages = _fit(number, len(matches))
    cut = matches[(number - 1) * PAGE : number * PAGE]
    return Rows(tuple(cut), (), len(matches), number, pages, query, next_of)


def environments(shown: Shown, query: ObjectQuery, number: int) -> Rows:
    """Return a page of the matching environments."""
    matches = sorted(environments_that(query, shown), key=lambda e: (RANK[e.health], e.name))
    number, pages = _fit(number, len(matches))
    cut = matches[(number - 1) * PAGE : number * PAGE]
    return Rows((), tuple(cut), len(matches), number, pages, query)


def coming(shown: Shown, one: InstanceStatus) -> BuildRecord | None:
    """Return the build in progress or failed that an instance should move to, if any."""
    environment = shown.environments.get(one.environment or "")
    runtime = shown.records.instances[one.name].runtime
    if environment is None or runtime is None or one.sync is Sync.SYNCED:
        return None
    builds = (b for b in environment.builds if b.runtime_key == runtime.key)
    return next((b for b in builds if b.phase is not BuildPhase.READY), None)


def _trouble(one: InstanceStatus, next_build: BuildRecord | None) -> float:
    """Return the sort rank: a failure here comes early, whatever runs meanwhile."""
    rank = float(RANK[one.health])
    failed = next_build is not None and next_build.phase is BuildPhase.FAILED
    if failed or one.quarantined or one.phase == ActivationPhase.ROLLED_BACK:
        return min(rank, 0.5)
    return min(rank, 2.5) if one.sync is Sync.OUT_OF_SYNC else rank


def _fit(number: int, found: int) -> tuple[int, int]:
    pages = max(1, -(-found // PAGE))
    return min(max(1, number), pages), pages


def tally(objects: tuple[InstanceStatus, ...] | tuple[EnvironmentStatus, ...]) -> Tally:
    """Return the counts by health, the worst first, and all teams."""
    counts = Counter(one.health for one in objects)
    return Tally(
        tuple((str(h), counts[h]) for h in TROUBLE if counts[h]),
        tuple(sorted({one.team for one in objects})),
        len(objects),
    )


@dataclass(frozen=True, slots=True)
class InstanceShown:
    """Instance with everything that explains its state."""

    status: InstanceStatus
    record: InstanceRecord
    environment: EnvironmentRecord | None
    activation: Activation | None
    bars: list[timeline.Bar]
    old: str | None
    new: str | None
    difference: timeline.Difference
    known: bool  # True if both builds are recorded, so that the difference is known
    running: bool
    compared: Compared  # the meaning of `difference`
    coming: BuildRecord | None

    @property
    def can_roll_back(self) -> bool:
        """True if the daemon would carry out a rollback now."""
        return not self.status.back.refused


def _compared(
    status: InstanceStatus, record: InstanceRecord
) -> tuple[str | None, str | None, Compared]:
    """Return (old, new, their meaning): of the current, failed or waiting activation."""
    now, last = record.activation, record.last
    if now is not None:
        return now.origin.build, now.target.build, "before"
    if last is not None and status.phase == ActivationPhase.ROLLED_BACK:
        return last.origin.build, last.target.build, "failed"
    if status.wanted != record.current.build:
        return record.current.build, status.wanted, "wanted"
    return record.previous.build, record.current.build, "before"


def instance(shown: Shown, name: str, now: float) -> InstanceShown | None:
    """Return the data for an instance's page, or None if there is no such instance."""
    status, record = shown.instances.get(name), shown.records.instances.get(name)
    if status is None or record is None:
        return None
    activation = record.activation or record.last
    old, new, compared = _compared(status, record)
    before = shown.builds.get(old or "")
    after = shown.builds.get(new or "")
    return InstanceShown(
        status=status,
        record=record,
        environment=shown.records.environments.get(status.environment or ""),
        activation=activation,
        bars=timeline.of_activation(activation, now) if activation is not None else [],
        old=old,
        new=new,
        difference=timeline.difference(before, after),
        known=(old is None or before is not None) and (new is None or after is not None),
        running=record.activation is not None,
        compared=compared,
        coming=coming(shown, status),
    )


def builds_of(shown: Shown, environment: str) -> list[BuildRecord]:
    """Return the recorded builds of an environment, newest first."""
    builds = [b for b in shown.records.builds.values() if b.environment == environment]
    return sorted(builds, key=lambda b: (-b.created_at, b.key))


@dataclass(frozen=True, slots=True)
class EventShown:
    """Event as shown; `link` leads to its object's page, if there may be one."""

    event: Event
    link: str
    phases: tuple[tuple[str, float], ...]
    seconds: float | None
    who: str
    changes: tuple[str, ...]


def event(one: Event) -> EventShown:
    """Return the data that a table shows of an event."""
    kind, _, name = one.object.partition("/")
    seconds = seconds_of(one.payload)
    packages = part_of(one.payload, PackageChanges) or PackageChanges()
    marked = ("+", packages.added), ("-", packages.removed), ("", packages.changed)
    authorship = part_of(one.payload, Authorship) or Authorship()
    return EventShown(
        one,
        f"/{kind}s/{name}" if kind in ("environment", "instance") and name else "",
        tuple(event_phases(one).items()),
        float(seconds) if seconds is not None else None,
        who_of(one.payload) or authorship.author or "",
        tuple(f"{mark}{name}" for mark, names in marked for name in names[:20]),
    )


def pending(requests: list[Request], target: str) -> list[Request]:
    """Return the requests for one object that are waiting to be carried out."""
    return [r for r in requests if r.target == target]
