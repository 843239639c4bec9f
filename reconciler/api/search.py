"""Search by a query, shared by the pages, the API and the command line."""

from __future__ import annotations

from collections.abc import Iterable

from reconciler.api.contract import BuildsQuery, HistoryQuery, ObjectQuery
from reconciler.api.view import Shown
from reconciler.core.events import Event
from reconciler.core.model import BuildRecord, InstanceRecord, Records
from reconciler.core.status import EnvironmentStatus, InstanceStatus
from reconciler.store.store import Store


def instances_that(query: ObjectQuery, shown: Shown) -> list[InstanceStatus]:
    """Return the instances that match `query`, by name."""
    return [
        one
        for one in shown.status.instances
        if _fits(query, one)
        and _has(query, (one.name, one.team, one.environment, one.build, one.wanted, one.revision))
    ]


def environments_that(query: ObjectQuery, shown: Shown) -> list[EnvironmentStatus]:
    """Return the environments that match `query`, by name."""
    return [
        one
        for one in shown.status.environments
        if _fits(query, one)
        and _has(
            query,
            (one.name, one.team, one.revision, *one.instances, *(b.build_id for b in one.builds)),
        )
    ]


def builds_that(query: BuildsQuery, records: Records) -> list[BuildRecord]:
    """Return the builds that match `query`."""
    return [
        build
        for build in records.builds.values()
        if query.environment in (None, build.environment)
        and query.runtime in (None, build.runtime_key)
    ]


def events_that(query: HistoryQuery, store: Store) -> list[Event]:
    """Return the matching events: with `after` those since, oldest first, else the newest first.

    Raises Retryable("DatabaseUnavailable").
    """
    return store.events(
        after_id=query.after or 0,
        before_id=query.before,
        object=query.object,
        kinds=query.kinds,
        limit=query.limit,
        newest_first=query.after is None,
    )


def _fits(query: ObjectQuery, one: InstanceStatus | EnvironmentStatus) -> bool:
    return (
        query.team in (None, one.team)
        and query.sync in (None, one.sync)
        and query.health in (None, one.health)
    )


def _has(query: ObjectQuery, texts: Iterable[str | None]) -> bool:
    """Return True if every word of the search is in one of `texts`."""
    terms = (query.q or "").lower().split()
    return not terms or all(any(w in t for t in texts if t) for w in terms)


def users(build: BuildRecord, shown: Shown) -> list[InstanceRecord]:
    """Return the instances on which a build is current, by name."""
    instances = shown.records.instances.values()
    return sorted(
        (i for i in instances if build.build_id is not None and i.current.build == build.build_id),
        key=lambda i: i.name,
    )
