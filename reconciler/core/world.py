"""What a decision looks at, and what comes out of it.

`World` in, `Plan` out; `Draft` is the plan while it is being written. The daemon builds a World
each cycle, records the plan's change in one transaction, and only then starts its effects.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeVar

from reconciler.core.definitions import Definitions
from reconciler.core.model import (
    BuildRecord,
    Change,
    EnvironmentRecord,
    Event,
    InstanceRecord,
    Records,
    Request,
)

REPO = ("repo", "")
"""The subject of events about the environments repo as a whole."""


@dataclass(frozen=True, slots=True)
class Policy:
    """Limits from the settings; durations in seconds."""

    prune_fraction: float = 0.5
    parallel_builds: int = 2
    parallel_activations: int = 8
    retry_first: float = 15.0
    retry_most: float = 1800.0
    keep_builds: int = 10

    def backoff(self, failures: int) -> float:
        """Wait after the n-th failure in a row (n from 1): doubled each time, bounded."""
        return float(min(self.retry_most, self.retry_first * 2 ** max(0, min(failures, 30) - 1)))


@dataclass(frozen=True, slots=True)
class WindowState:
    """Is an instance's maintenance window open, and when does that change."""

    is_open: bool
    changes_at: float


@dataclass(frozen=True, slots=True)
class World:
    """Everything one decision may look at.

    `definitions` is None when nothing was read since the start: the records say what was accepted.
    `fingerprints` are the drivers' cheap marks of each base; an absent one means unknown.
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

EffectKind = Literal["inspect", "resolve", "construct", "verify", "perform"]


@dataclass(frozen=True, slots=True)
class Effect:
    """Something that should be running now; the daemon starts it unless it already runs.

    `key` is a build's key for resolve, construct and verify, an instance's name otherwise.
    """

    kind: EffectKind
    key: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What to record, what to run, what to stop, and when to look again at the latest."""

    change: Change
    effects: tuple[Effect, ...]
    cancels: tuple[str, ...]
    wake_at: float | None


class Draft:
    """A plan being written: the records as they will be, and what changed in them."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.now = world.now
        self.policy = world.policy
        self.environments = dict(world.records.environments)
        self.instances = dict(world.records.instances)
        self.builds = dict(world.records.builds)
        self.repo = world.records.repo
        self.events: list[Event] = []
        self.effects: list[Effect] = []
        self.cancels: list[str] = []
        self.finished: list[int] = []
        self.wake_at: float | None = None
        self._owners: Mapping[str, str] | None = None

    def owners(self) -> Mapping[str, str]:
        """Instance → environment, from the rollouts."""
        if self._owners is None:
            self._owners = {
                instance: environment.name
                for environment in self.environments.values()
                for wave in environment.definition.rollout
                for instance in wave.instances
            }
        return self._owners

    def definitions_changed(self) -> None:
        """The environments are others now: look anew who owns what."""
        self._owners = None

    def wake(self, at: float) -> None:
        """Look again at `at`, or earlier."""
        if self.wake_at is None or at < self.wake_at:
            self.wake_at = at

    def event(
        self,
        kind: str,
        subject: EnvironmentRecord | InstanceRecord | BuildRecord | tuple[str, str],
        message: str,
        *,
        reason: str = "",
        revision: str = "",
        data: Mapping[str, object] | None = None,
    ) -> None:
        """Add one line of history about `subject`: a record, or (object, team)."""
        match subject:
            case EnvironmentRecord():
                name, team = f"environment/{subject.name}", subject.team
            case InstanceRecord():
                name, team = f"instance/{subject.name}", subject.team
            case BuildRecord():
                name, team = f"environment/{subject.environment}", subject.team
                data = {"build": subject.key, "build_id": subject.build_id or "", **(data or {})}
            case (name, team):
                pass
        self.events.append(
            Event(self.now, kind, name, team, reason or kind, message, revision, data or {})
        )

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


def build_key(environment: str, recipe_digest: str, runtime_key: str) -> str:
    """Key of the one build record for this environment, recipe and runtime."""
    text = "\0".join((environment, recipe_digest, runtime_key))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def environment_of(draft: Draft, instance: str) -> EnvironmentRecord | None:
    """The environment whose rollout names `instance`, if any."""
    return draft.environments.get(draft.owners().get(instance, ""))


def commit_data(environment: EnvironmentRecord | None) -> dict[str, object]:
    """Who asked, for an event's data."""
    if environment is None:
        return {}
    commit = environment.commit
    return {"author": commit.author, "subject": commit.subject, "environment": environment.name}
