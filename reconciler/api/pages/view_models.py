"""View models of the templates, derived from one snapshot of the records."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar
from urllib.parse import urlencode

from reconciler.api.contract import ObjectQuery
from reconciler.api.pages import stages
from reconciler.api.pages.comparison import Comparison, compare
from reconciler.api.pages.groups import Group, group_of
from reconciler.api.search import environments_that, instances_that
from reconciler.api.view import Shown
from reconciler.core.model import (
    Activation,
    BuildRecord,
    EnvironmentRecord,
    InstanceRecord,
    Options,
    Request,
    Verb,
)
from reconciler.core.phases import ActivationPhase, BuildPhase, Sync
from reconciler.core.requests import refusal
from reconciler.core.status import EnvironmentStatus, InstanceStatus
from reconciler.core.world import RecordsView

Compared = Literal["before", "failed", "wanted"]
Object = TypeVar("Object", InstanceStatus, EnvironmentStatus)

PAGE = 100  # rows per page of a table


@dataclass(frozen=True, slots=True)
class Filter:
    """Filter of a table: the API's, and a group of states."""

    query: ObjectQuery
    group: Group | None = None

    @property
    def given(self) -> dict[str, object]:
        """The parameters of an address that filters alike."""
        state = {"state": str(self.group)} if self.group is not None else {}
        return {**self.query.model_dump(exclude_none=True), **state}

    def keep(self, objects: Iterable[Object]) -> list[Object]:
        """Return the objects of the group, the worst first."""
        kept = [o for o in objects if self.group in (None, group_of(o.state))]
        return sorted(kept, key=lambda o: (group_of(o.state).rank, o.name))


@dataclass(frozen=True, slots=True)
class Rows:
    """One page of a table, the worst objects first; `number` counts from 1."""

    instances: tuple[InstanceStatus, ...]
    environments: tuple[EnvironmentStatus, ...]
    found: int
    number: int
    pages: int
    filter: Filter

    def link(self, number: int) -> str:
        """Return the query of another page of the same table."""
        return _query({**self.filter.given, "page": number})


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
    """Number of objects by group, the worst first, and their teams."""

    groups: tuple[tuple[Group, int], ...]
    teams: tuple[str, ...]
    whole: int


def _query(given: Mapping[str, object]) -> str:
    return urlencode({name: str(value) for name, value in given.items() if value != ""})


def fleet(shown: Shown, given: Filter, number: int) -> Rows:
    """Return a page of the matching instances."""
    matches = given.keep(instances_that(given.query, shown))
    number, pages = _fit(number, len(matches))
    cut = matches[(number - 1) * PAGE : number * PAGE]
    return Rows(tuple(cut), (), len(matches), number, pages, given)


def environments(shown: Shown, given: Filter, number: int) -> Rows:
    """Return a page of the matching environments."""
    matches = given.keep(environments_that(given.query, shown))
    number, pages = _fit(number, len(matches))
    cut = matches[(number - 1) * PAGE : number * PAGE]
    return Rows((), tuple(cut), len(matches), number, pages, given)


def coming(shown: Shown, one: InstanceStatus) -> BuildRecord | None:
    """Return the build in progress or failed that an instance should move to, if any."""
    environment = shown.environments.get(one.environment or "")
    runtime = shown.records.instances[one.name].runtime
    if environment is None or runtime is None or one.sync is Sync.SYNCED:
        return None
    builds = (b for b in environment.builds if b.runtime_key == runtime.key)
    return next((b for b in builds if b.phase is not BuildPhase.READY), None)


def _fit(number: int, found: int) -> tuple[int, int]:
    pages = max(1, -(-found // PAGE))
    return min(max(1, number), pages), pages


def tally(objects: Sequence[InstanceStatus] | Sequence[EnvironmentStatus]) -> Tally:
    """Return the counts by group, the worst first, and all teams."""
    counts = Counter(group_of(one.state) for one in objects)
    return Tally(
        tuple((group, counts[group]) for group in Group if counts[group]),
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
    stages: list[stages.Stage]
    old: str | None
    new: str | None
    comparison: Comparison
    known: bool  # True if both builds are recorded, so that their packages are known
    running: bool
    compared: Compared  # the meaning of `comparison`
    coming: BuildRecord | None
    offers: frozenset[Verb]  # requests that the daemon would carry out now


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
        stages=_stages(shown, status, record, now),
        old=old,
        new=new,
        comparison=compare(before, after),
        known=(old is None or before is not None) and (new is None or after is not None),
        running=record.activation is not None,
        compared=compared,
        coming=coming(shown, status),
        offers=_offers(shown, record, now),
    )


def _offers(shown: Shown, record: InstanceRecord, now: float) -> frozenset[Verb]:
    """Return the requests for an instance that make sense now."""
    view = RecordsView(shown.records, now)
    verbs = {Verb.ROLLBACK, Verb.ACTIVATE, Verb.ABORT, Verb.RETRY}
    verbs.add(Verb.RESUME if record.suspended else Verb.SUSPEND)
    return frozenset(v for v in verbs if not refusal(view, v, record, Options(now=True)))


def _stages(
    shown: Shown, status: InstanceStatus, record: InstanceRecord, now: float
) -> list[stages.Stage]:
    """Return the stages of what is under way on an instance, or of what ended last."""
    next_build = coming(shown, status)
    if next_build is not None and record.activation is None:
        return stages.of_instance(next_build, None, now, waits=False)
    if record.activation is None and status.wait is not None:
        return stages.of_instance(shown.builds.get(status.wanted or ""), None, now, waits=True)
    activation = record.activation or record.last
    if activation is None:
        return []
    build = shown.builds.get(activation.target.build or "")
    return stages.of_instance(build, activation, now, waits=False)


def before(shown: Shown, build: BuildRecord) -> BuildRecord | None:
    """Return the last Ready build of the same environment and runtime that is older."""
    older = (
        b
        for b in builds_of(shown, build.environment)
        if b.runtime_key == build.runtime_key
        and b.phase is BuildPhase.READY
        and (b.created_at, b.key) < (build.created_at, build.key)
    )
    return next(older, None)


def builds_of(shown: Shown, environment: str) -> list[BuildRecord]:
    """Return the recorded builds of an environment, newest first."""
    builds = [b for b in shown.records.builds.values() if b.environment == environment]
    return sorted(builds, key=lambda b: (-b.created_at, b.key))


def pending(requests: list[Request], target: str) -> list[Request]:
    """Return the requests for one object that are waiting to be carried out."""
    return [r for r in requests if r.target == target]
