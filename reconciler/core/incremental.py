"""Incremental decisions: which objects to consider, given the previous decision.

A decision about an object depends on that object, its environment, the environment's instances and
builds, what was observed of them, and the time. So after a recorded decision, only three kinds of
objects can be decided differently: those with a change, those related to one of these, and those
that are not settled (a build or an activation is in progress, waits for something, or may be
retried). `Decider` considers only these; its plans equal those of `decide`, which the property
tests verify.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from reconciler.core.builds import OPEN
from reconciler.core.decide import decide
from reconciler.core.definitions import differing
from reconciler.core.model import EnvironmentRecord, InstanceRecord, Records, Suspension
from reconciler.core.world import Draft, Focus, Plan, World, owned, patched

NOTHING = Draft(World(0.0, Records())).plan().change


class Decider:
    """Repeated decisions; `done` is called once a plan is recorded."""

    def __init__(self) -> None:
        self._last: World | None = None
        self._plan: Plan | None = None
        self._offered: tuple[World, Plan] | None = None
        self._owners: Mapping[str, str] = {}

    def decide(self, world: World) -> Plan:
        """Return what to record and what to do now."""
        if self._last is not None and self._plan is not None and self._same(self._last, world):
            self._offered = (replace(self._last, windows=world.windows), self._plan)
            return self._plan
        focus = self._focus(world)
        plan = decide(world, focus)
        self._offered = (world, plan)
        return plan

    def done(self) -> None:
        """Note that the last plan is recorded, so that the next decision may build on it."""
        if self._offered is not None:
            self._last, self._plan = self._offered

    def forget(self) -> None:
        """Forget the last plan, as it may not be recorded: consider everything next time."""
        self._last = self._plan = self._offered = None

    def _same(self, last: World, world: World) -> bool:
        """Return True if none of the last decision's inputs changed."""
        assert self._plan is not None
        wake_at = self._plan.wake_at
        return (
            self._plan.change == NOTHING
            and world.records is last.records
            and world.definitions is last.definitions
            and not world.requests
            and last.now <= world.now
            and (wake_at is None or world.now < wake_at)
            and world.fingerprints == last.fingerprints
            and world.missing_builds == last.missing_builds
            and world.policy == last.policy
        )

    def _focus(self, world: World) -> Focus | None:
        """Return the objects to consider; None for everything."""
        last = self._last
        new = world.records
        if (
            last is None
            or world.requests
            or world.now < last.now
            or world.policy != last.policy
            or world.records.unreadable
            or last.records.unreadable
            or world.definitions is None
            or last.definitions is None
            or world.records.repo.held is not None
            or last.records.repo.held is not None
            or world.records.repo.share_problem != last.records.repo.share_problem
        ):
            self._owners = owned(new.environments.values())
            return None
        old = last.records
        changed = differing(old.environments, new.environments)
        before = self._owners
        if changed:
            self._owners = patched(before, old.environments, new.environments, changed)
        environments = changed | _defined_otherwise(
            last.definitions.environments, world.definitions.environments, new.environments
        )
        named = differing(old.instances, new.instances) | _defined_otherwise(
            last.definitions.instances, world.definitions.instances, new.instances
        )
        named |= {
            name
            for name in last.fingerprints.keys() | world.fingerprints.keys()
            if last.fingerprints.get(name) != world.fingerprints.get(name)
        }
        named |= {i.name for i in new.instances.values() if _unsettled(i, world, last.now)}
        environments |= {e.name for e in new.environments.values() if _ends(e.suspension)}
        environments |= {o[n] for n in named for o in (before, self._owners) if n in o}
        builds = differing(old.builds, new.builds)
        other = world.missing_builds ^ last.missing_builds
        for name in named & old.instances.keys():  # what they used may be dropped now
            record = old.instances[name]
            other |= {b for b in (record.current.build, record.previous.build) if b is not None}
        for key, build in new.builds.items():
            if build.phase in OPEN or build.build_id in other:
                builds.add(key)
        both = (old.builds, new.builds)
        environments |= {records[k].environment for k in builds for records in both if k in records}
        named |= set(_instances_of(environments, old.environments))
        named |= set(_instances_of(environments, new.environments))
        defined = world.definitions.environments
        for name in environments & defined.keys():
            named |= {i for wave in defined[name].rollout for i in wave.instances}
        builds |= {k for k, b in new.builds.items() if b.environment in environments}
        return Focus(frozenset(environments), frozenset(named), frozenset(builds))


def _defined_otherwise(
    old: Mapping[str, object], new: Mapping[str, object], recorded: Mapping[str, object]
) -> set[str]:
    """Return the names whose definitions changed, and recorded names that are not defined."""
    return differing(old, new) | (recorded.keys() - new.keys())


def _unsettled(record: InstanceRecord, world: World, last: float) -> bool:
    """Return True if the next decision about this instance may differ without any change."""
    mark = world.fingerprints.get(record.name)
    return (
        record.activation is not None
        or bool(record.wait)
        or record.removed
        or record.runtime is None
        or record.not_before > last
        or record.drift is not None
        or _ends(record.suspension)
        or (mark is not None and mark != record.fingerprint)
    )


def _ends(suspension: Suspension | None) -> bool:
    """Return True if a suspension ends by itself."""
    return suspension is not None and suspension.until > 0


def _instances_of(
    names: Iterable[str], environments: Mapping[str, EnvironmentRecord]
) -> Iterable[str]:
    for name in names:
        if name in environments:
            for wave in environments[name].definition.rollout:
                yield from wave.instances
