"""Search for objects by a query, shared by the pages and the API."""

from __future__ import annotations

from collections.abc import Iterable

from reconciler.api.contract import ObjectQuery
from reconciler.api.view import Shown
from reconciler.core.model import BuildRecord, InstanceRecord
from reconciler.core.status import EnvironmentStatus, InstanceStatus


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
