"""Input and output of a decision.

A decision turns a `World` into a `Plan`; `Draft` is the plan while it is being written. The daemon
builds a World each cycle, records the plan's change in one transaction, and only then starts its
effects.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeVar

from reconciler.core.definitions import Commit, Definitions, Environment
from reconciler.core.events import NOTHING, Authorship, Event, EventKind, Payload
from reconciler.core.model import (
    BuildRecord,
    Change,
    EnvironmentRecord,
    InstanceRecord,
    Records,
    Request,
)
from reconciler.core.reasons import Reason
from reconciler.core.waits import WindowState

REPO = ("repo", "")
"""Subject of events about the environments repo as a whole."""


SKEW = 60.0
"""Seconds by which the clocks of two replicas may differ."""

LONGEST_ASKED = 3600.0
"""Seconds of the longest wait that another server may ask for."""


@dataclass(frozen=True, slots=True)
class Policy:
    """Limits from the settings; durations in seconds.

    `parallel_builds` and `parallel_activations` are those of this machine, `builds_at` and
    `activations_at` those of clusters by site (see Instance.site), `cluster_builds` and
    `cluster_activations` those of each cluster that is not named there.
    """

    prune_fraction: float = 0.5
    parallel_builds: int = 2
    parallel_activations: int = 8
    retry_first: float = 15.0
    retry_most: float = 1800.0
    keep_builds: int = 10
    builds_at: Mapping[str, int] = field(default_factory=dict)
    activations_at: Mapping[str, int] = field(default_factory=dict)
    cluster_builds: int = 4
    cluster_activations: int = 8

    def builds_on(self, site: str) -> int:
        """Return the number of parallel builds on a site; "" is this machine."""
        unnamed = self.cluster_builds if site else self.parallel_builds
        return self.builds_at.get(site, unnamed)

    def activations_on(self, site: str) -> int:
        """Return the number of parallel activations on a site; "" is this machine."""
        unnamed = self.cluster_activations if site else self.parallel_activations
        return self.activations_at.get(site, unnamed)

    @property
    def longest_wait(self) -> float:
        """The longest wait for a retry that is ever recorded, whoever asks for it."""
        return max(self.retry_most, LONGEST_ASKED)

    def backoff(self, failures: int) -> float:
        """Return the wait after the n-th failure in a row (from 1): doubled each time, bounded."""
        return float(min(self.retry_most, self.retry_first * 2 ** max(0, min(failures, 30) - 1)))


@dataclass(frozen=True, slots=True)
class World:
    """Everything that one decision may use.

    `definitions` is None if nothing was read since the start: the records say what was accepted.
    `fingerprints` are the drivers' marks of each base; an absent one means unknown.
    `missing_builds` are Ready builds that the share no longer holds complete and verified.
    """

    now: float
    records: Records
    definitions: Definitions | None = None
    requests: tuple[Request, ...] = ()
    fingerprints: Mapping[str, str] = field(default_factory=dict)
    windows: Mapping[str, WindowState] = field(default_factory=dict)
    missing_builds: frozenset[str] = frozenset()
    policy: Policy = Policy()


T = TypeVar("T")

EffectKind = Literal["inspect", "resolve", "construct", "verify", "perform", "heal"]


@dataclass(frozen=True, slots=True)
class Effect:
    """Work that should be running now; the daemon starts it unless it already runs.

    `key` is a build's key for resolve, construct and verify, an instance's name otherwise.
    """

    kind: EffectKind
    key: str


@dataclass(frozen=True, slots=True)
class Focus:
    """Names of the objects that a decision considers; all others stay as they are.

    See `focus` for what must be in it.
    """

    environments: frozenset[str]
    instances: frozenset[str]
    builds: frozenset[str]


@dataclass(frozen=True, slots=True)
class Plan:
    """Records to write, effects to start or stop, and the latest time of the next decision."""

    change: Change
    effects: tuple[Effect, ...]
    cancels: tuple[str, ...]
    wake_at: float | None


class RecordsView:
    """Records at one moment, to be read.

    `owners` maps each instance to its environment, if the caller knows that already;
    `missing_builds` are as in a `World`.
    """

    environments: Mapping[str, EnvironmentRecord]
    instances: Mapping[str, InstanceRecord]
    builds: Mapping[str, BuildRecord]

    def __init__(
        self,
        records: Records,
        now: float,
        *,
        owners: Mapping[str, str] | None = None,
        missing_builds: frozenset[str] = frozenset(),
    ) -> None:
        self.now = now
        self.environments = records.environments
        self.instances = records.instances
        self.builds = records.builds
        self.repo = records.repo
        self.unreadable = records.unreadable
        self.missing_builds = missing_builds
        self._owners = owners

    def owners(self) -> Mapping[str, str]:
        """Return a mapping from instance to environment, from the rollouts."""
        if self._owners is None:
            self._owners = owned(self.environments.values())
        return self._owners


class Draft(RecordsView):
    """Plan in the making: the records as they will be, and what changed in them.

    With a `focus`, only its objects are considered and written.
    """

    environments: dict[str, EnvironmentRecord]
    instances: dict[str, InstanceRecord]
    builds: dict[str, BuildRecord]

    def __init__(self, world: World, focus: Focus | None = None) -> None:
        super().__init__(world.records, world.now, missing_builds=world.missing_builds)
        self.world = world
        self.focus = focus
        self._new_builds: list[str] = []
        self.policy = world.policy
        self.environments = dict(world.records.environments)
        self.instances = dict(world.records.instances)
        self.builds = dict(world.records.builds)
        self.events: list[Event] = []
        self.effects: list[Effect] = []
        self.cancels: list[str] = []
        self.finished: list[int] = []
        self.wake_at: float | None = None

    def near_environments(self) -> list[EnvironmentRecord]:
        """Return the environments to consider, in their current state."""
        if self.focus is None:
            return list(self.environments.values())
        names = sorted(self.focus.environments)
        return [self.environments[n] for n in names if n in self.environments]

    def near_instances(self) -> list[InstanceRecord]:
        """Return the instances to consider, in their current state."""
        if self.focus is None:
            return list(self.instances.values())
        names = sorted(self.focus.instances)
        return [self.instances[n] for n in names if n in self.instances]

    def near_builds(self) -> list[BuildRecord]:
        """Return the builds to consider, including those added by this plan."""
        if self.focus is None:
            return list(self.builds.values())
        keys = [*sorted(self.focus.builds), *self._new_builds]
        return [self.builds[k] for k in keys if k in self.builds]

    def add_build(self, build: BuildRecord) -> None:
        """Add a build that is not in the records yet."""
        self.builds[build.key] = build
        if self.focus is not None and build.key not in self.focus.builds:
            self._new_builds.append(build.key)

    def definitions_changed(self) -> None:
        """Compute again who owns what, because the environments have changed."""
        self._owners = None

    def waits_until(self, not_before: float, longest: float = math.inf) -> bool:
        """Return True if a recorded retry is not due yet, and make the next decision then.

        No wait is longer than `longest`, nor than `Policy.longest_wait`. A later time was recorded
        while the clock was wrong, so it is due now.
        """
        if not self.now < not_before <= self.now + min(longest, self.policy.longest_wait):
            return False
        self.wake(not_before)
        return True

    def elapsed(self, since: float) -> float:
        """Return the seconds since a recorded time.

        A time that lies ahead was recorded while the clock was wrong: it counts as long ago, so
        that nothing waits until the clock has caught up.
        """
        return self.now - since if since <= self.now + SKEW else math.inf

    def wake(self, at: float) -> None:
        """Make the next decision at `at`, or earlier."""
        if self.wake_at is None or at < self.wake_at:
            self.wake_at = at

    def event(
        self,
        kind: EventKind,
        subject: EnvironmentRecord | InstanceRecord | BuildRecord | tuple[str, str],
        message: str,
        payload: Payload = NOTHING,
        *,
        reason: Reason | None = None,
        revision: str = "",
    ) -> None:
        """Add an entry to the history of `subject`: a record, or (object, team)."""
        assert type(payload) is kind.payload, f"{kind} carries {kind.payload.__name__}"
        match subject:
            case EnvironmentRecord():
                name, team = f"environment/{subject.name}", subject.team
            case InstanceRecord():
                name, team = f"instance/{subject.name}", subject.team
            case BuildRecord():
                name, team = f"environment/{subject.environment}", subject.team
            case (name, team):
                pass
        if reason == kind.value:  # it adds nothing
            reason = None
        self.events.append(Event(self.now, kind, name, team, reason, message, revision, payload))

    def plan(self) -> Plan:
        """Close the draft: only what differs from the world's records is written."""
        old = self.world.records
        return Plan(
            change=Change(
                environments=_changed(old.environments, self.environments),
                instances=_changed(old.instances, self.instances),
                builds=_changed(old.builds, self.builds),
                drop_environments=_gone(old.environments, self.environments),
                drop_instances=_gone(old.instances, self.instances),
                drop_builds=_gone(old.builds, self.builds),
                events=tuple(self.events),
                repo=self.repo if self.repo != old.repo else None,
                finished_requests=tuple(self.finished),
            ),
            effects=tuple(self.effects),
            cancels=tuple(self.cancels),
            wake_at=self.wake_at,
        )


def _changed(old: Mapping[str, T], new: Mapping[str, T]) -> tuple[T, ...]:
    return tuple(v for k, v in new.items() if old.get(k) is not v and old.get(k) != v)


def _gone(old: Mapping[str, T], new: Mapping[str, T]) -> tuple[str, ...]:
    return tuple(k for k in old if k not in new)


def owned(records: Iterable[EnvironmentRecord]) -> dict[str, str]:
    """Return instance → environment from the accepted definitions: no two name one instance.

    If two do in records of an earlier version, the one without a problem has it.
    """
    ordered = sorted(records, key=lambda e: (e.problem is None, e.name))
    return owners_of(record.definition for record in ordered)


def owners_of(environments: Iterable[Environment]) -> dict[str, str]:
    """Return instance → environment from these rollouts; if two name one, the last has it."""
    return {
        instance: environment.name
        for environment in environments
        for wave in environment.rollout
        for instance in wave.instances
    }


def patched(
    owners: Mapping[str, str],
    old: Mapping[str, EnvironmentRecord],
    new: Mapping[str, EnvironmentRecord],
    changed: Iterable[str],
) -> Mapping[str, str]:
    """Return the owners after some environments have changed."""
    patched = dict(owners)
    for name in changed:
        if name in old:
            for wave in old[name].definition.rollout:
                for instance in wave.instances:
                    patched.pop(instance, None)
    patched.update(owners_of(new[name].definition for name in changed if name in new))
    return patched


def build_key(environment: str, recipe_digest: str, runtime_key: str) -> str:
    """Return the key of the only build record for this environment, recipe and runtime."""
    text = "\0".join((environment, recipe_digest, runtime_key))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def environment_of(view: RecordsView, instance: str) -> EnvironmentRecord | None:
    """Return the environment whose rollout names `instance`, if any."""
    return view.environments.get(view.owners().get(instance, ""))


def is_base_moved(draft: Draft, record: InstanceRecord) -> bool:
    """Return True if an instance's base is no longer the one that its runtime was read from.

    It was upgraded, or is being upgraded: then its pods run several images.
    """
    mark = draft.world.fingerprints.get(record.name)
    return bool(record.runtime and record.fingerprint and mark and mark != record.fingerprint)


def any_lost(view: RecordsView) -> bool:
    """Return True if an environment is unreadable; an instance without one may belong to it."""
    return any(name.startswith("environment/") for name in view.unreadable)


def authorship_of(
    environment: EnvironmentRecord | None, commit: Commit | None, revision: str
) -> Authorship:
    """Return the author and subject of an event's commit, and the environment's name.

    `commit` is the one of the build or activation. Without it (records of an earlier version), the
    environment's newest commit is used only if it is the one of `revision`.
    """
    if commit is None and environment is not None and environment.commit.revision == revision:
        commit = environment.commit
    name = environment.name if environment is not None else None
    if commit is None:
        return Authorship(environment=name)
    return Authorship(commit.author, commit.subject, name)
