"""Status of all objects, computed again only for what has changed in the records.

The status of an instance depends on its record, its environment, that one's builds, and the checks
of its DAGs; the status of an environment depends on its record, its builds and its instances.
`Statuses` keeps both by name. What it returns equals what `status` computes from the start, which
the property tests verify.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from itertools import filterfalse
from typing import TypeVar

from reconciler.core.accept import acceptable
from reconciler.core.dag_checks import checks_of
from reconciler.core.definitions import Definitions, Finding, differing
from reconciler.core.model import BuildRecord, EnvironmentRecord, Records
from reconciler.core.situation import InstanceSituation, instance_situation
from reconciler.core.status import (
    EnvironmentStatus,
    InstanceStatus,
    Status,
    environment_status,
    instance_status,
)
from reconciler.core.world import RecordsView, owned, patched

S = TypeVar("S")


def status(definitions: Definitions | None, records: Records, now: float) -> Status:
    """Return the status of all objects; `definitions` is used only for newer findings."""
    newer = acceptable(definitions, records).findings if definitions is not None else None
    return Statuses().of(records, now, newer)


class Statuses:
    """Status of the records that were passed last; for one thread at a time."""

    def __init__(self) -> None:
        self._records = Records()
        self._owners: Mapping[str, str] = {}
        self._checked: defaultdict[str, set[str]] = defaultdict(set)  # instance → keys of builds
        self._situations: dict[str, InstanceSituation] = {}
        self._instances: dict[str, InstanceStatus] = {}
        self._environments: dict[str, EnvironmentStatus] = {}

    def of(
        self, records: Records, now: float, findings: tuple[Finding, ...] | None = None
    ) -> Status:
        """Return the status of these records, with these findings instead of the recorded ones."""
        if records is not self._records:
            self._take(records, now)
        repo = records.repo
        return Status(
            revision=repo.accepted_revision,
            environments=tuple(self._environments.values()),
            instances=tuple(self._instances.values()),
            findings=repo.findings if findings is None else findings,
            problem=repo.share_problem or repo.source_problem,
            held=repo.held,
        )

    def _take(self, records: Records, now: float) -> None:
        """Compute what differs from the last records."""
        old = self._records
        environments = differing(old.environments, records.environments)
        instances = differing(old.instances, records.instances)
        builds = differing(old.builds, records.builds)
        both = (self._owners, self._new_owners(records, environments))
        self._owners = both[1]
        instances |= self._checks_changed(old.builds, records.builds, builds)
        environments |= {
            some[key].environment
            for key in builds
            for some in (old.builds, records.builds)
            if key in some
        }
        environments |= {owners[name] for name in instances for owners in both if name in owners}
        for some in (old.environments, records.environments):
            instances |= _named(some, environments)
        if old.unreadable != records.unreadable:
            instances |= records.instances.keys()
        elif old.repo.accepted_revision != records.repo.accepted_revision:
            instances.update(filterfalse(self._owners.__contains__, records.instances))
        self._compute(RecordsView(records, now, owners=self._owners), instances, environments)
        self._records = records

    def _new_owners(self, records: Records, changed: set[str]) -> Mapping[str, str]:
        old, new = self._records.environments, records.environments
        if not old:
            return owned(new.values())
        return patched(self._owners, old, new, changed) if changed else self._owners

    def _checks_changed(
        self,
        old: Mapping[str, BuildRecord],
        new: Mapping[str, BuildRecord],
        changed: Iterable[str],
    ) -> set[str]:
        """Note which builds have checks of an instance's DAGs; return instances with others."""
        instances = set()
        for key in changed:
            for check in old[key].dags if key in old else ():
                self._checked[check.instance].discard(key)
                instances.add(check.instance)
            for check in new[key].dags if key in new else ():
                self._checked[check.instance].add(key)
                instances.add(check.instance)
        return instances

    def _compute(self, view: RecordsView, instances: set[str], environments: set[str]) -> None:
        own: dict[str, InstanceStatus] = {}
        for name in instances:
            self._situations.pop(name, None)
            record = view.instances.get(name)
            if record is not None:
                checks = checks_of(view.builds[key] for key in self._checked[name])
                situation = self._situations[name] = instance_situation(view, record)
                own[name] = instance_status(view, record, situation, checks)
        self._instances = _updated(self._instances, own, instances)
        self._environments = _updated(
            self._environments,
            {
                name: environment_status(view, view.environments[name], self._situations)
                for name in environments
                if name in view.environments
            },
            environments,
        )


def _updated(known: dict[str, S], new: Mapping[str, S], changed: set[str]) -> dict[str, S]:
    """Return the statuses by name, with those of `changed` as in `new`.

    Names are sorted only if some come or go.
    """
    gone = {name for name in changed if name in known and name not in new}
    if not gone and new.keys() <= known.keys():
        known.update(new)
        return known
    both = {**known, **new}
    return {name: both[name] for name in sorted(both) if name not in gone}


def _named(environments: Mapping[str, EnvironmentRecord], names: Iterable[str]) -> set[str]:
    """Return the instances in the rollouts of some environments."""
    return {
        instance
        for name in names
        if name in environments
        for wave in environments[name].definition.rollout
        for instance in wave.instances
    }
