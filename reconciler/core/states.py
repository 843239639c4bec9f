"""The state of an instance or environment, and what follows from it, in one table.

`instance_state` and `environment_state` are the only places that decide in which state an object
is. `TABLE` says for each state how healthy the object is and which of its three conditions holds.
`status` puts names and messages to that; command line, pages, API and metrics read `status`.

At most one condition of an object is true:

- `Ready`: it has what the newest good revision asks for, and is healthy;
- `Reconciling`: it has not, and Groundcrew is working on that or tries again by itself;
- `Stalled`: it has not, and nothing happens until a person changes something.

None of them is true where a person decided that: it is suspended, or was rolled back by hand.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from reconciler.core.phases import Health, Sync


class State(StrEnum):
    """The state of an object; the values are reasons of conditions where nothing is wrong."""

    NOT_INSPECTED = "NotInspected"
    NOT_READABLE = "NotReadable"  # its base could not be inspected yet; tried again
    BASE_CHANGING = "BaseChanging"  # its base is another than it was, and cannot be inspected
    ACTIVATING = "Activating"
    WITHDRAWING = "Withdrawing"  # an activation is given up before anything was restarted
    ROLLING_BACK = "RollingBack"
    DEGRADED = "Degraded"  # going back failed as well; tried again
    SUSPENDED = "Suspended"
    SUSPENDED_BEHIND = "SuspendedBehind"  # suspended, and not on what is wanted
    ACTIVE = "Active"
    ROLLED_BACK = "RolledBack"  # it failed here, and is not tried again
    RETRYING = "Retrying"  # it failed through no fault of its own
    HELD_BACK = "RolledBackByOperator"
    WAITING = "Waiting"
    BUILDING = "Building"
    BUILD_RETRYING = "BuildRetrying"
    BUILD_FAILED = "BuildFailed"
    NO_BUILD = "NoBuild"
    HEALING = "Healing"  # the share is not as recorded, and is written again
    MISLOADED = "Misloaded"  # a component has loaded something else; it is restarted
    DRIFTED = "Drifted"  # that, or the share, cannot be put right by itself
    INVALID = "Invalid"  # a mistake in an environment's file, or its removal is held
    NO_INSTANCE = "NoInstance"


class Held(StrEnum):
    """The condition that is true in a state."""

    READY = "Ready"
    RECONCILING = "Reconciling"
    STALLED = "Stalled"
    NONE = ""


@dataclass(frozen=True, slots=True)
class Row:
    """Consequences of a state; `is_wrong`: something failed, and a person should know."""

    health: Health
    condition: Held
    is_wrong: bool = False


TABLE: dict[State, Row] = {
    State.NOT_INSPECTED: Row(Health.UNKNOWN, Held.RECONCILING),
    State.NOT_READABLE: Row(Health.MISSING, Held.RECONCILING, is_wrong=True),
    State.BASE_CHANGING: Row(Health.PROGRESSING, Held.RECONCILING, is_wrong=True),
    State.ACTIVATING: Row(Health.PROGRESSING, Held.RECONCILING),
    State.WITHDRAWING: Row(Health.PROGRESSING, Held.RECONCILING),
    State.ROLLING_BACK: Row(Health.PROGRESSING, Held.RECONCILING, is_wrong=True),
    State.DEGRADED: Row(Health.DEGRADED, Held.RECONCILING, is_wrong=True),
    State.SUSPENDED: Row(Health.SUSPENDED, Held.READY),
    State.SUSPENDED_BEHIND: Row(Health.SUSPENDED, Held.NONE),
    State.ACTIVE: Row(Health.HEALTHY, Held.READY),
    State.ROLLED_BACK: Row(Health.HEALTHY, Held.STALLED, is_wrong=True),
    State.RETRYING: Row(Health.HEALTHY, Held.RECONCILING, is_wrong=True),
    State.HELD_BACK: Row(Health.HEALTHY, Held.NONE),
    State.WAITING: Row(Health.HEALTHY, Held.RECONCILING),
    State.BUILDING: Row(Health.HEALTHY, Held.RECONCILING),
    State.BUILD_RETRYING: Row(Health.HEALTHY, Held.RECONCILING, is_wrong=True),
    State.BUILD_FAILED: Row(Health.HEALTHY, Held.STALLED, is_wrong=True),
    State.NO_BUILD: Row(Health.HEALTHY, Held.RECONCILING),
    State.HEALING: Row(Health.PROGRESSING, Held.RECONCILING),
    State.MISLOADED: Row(Health.MISSING, Held.RECONCILING, is_wrong=True),
    State.DRIFTED: Row(Health.MISSING, Held.STALLED, is_wrong=True),
    State.INVALID: Row(Health.HEALTHY, Held.STALLED, is_wrong=True),
    State.NO_INSTANCE: Row(Health.MISSING, Held.NONE),
}


# ------------------------------------------------------------------------------------- instances


class Inspection(StrEnum):
    """Knowledge of an instance's base."""

    PENDING = "pending"
    FAILED = "failed"
    OUTDATED = "outdated"  # it was inspected before, and failed since it has changed
    DONE = "done"


class Course(StrEnum):
    """The direction of an activation that runs."""

    NONE = "none"
    FORWARD = "forward"
    GIVEN_UP = "given-up"
    BACK = "back"
    DEGRADED = "degraded"


class Next(StrEnum):
    """Progress of the build that the newest good revision asks for."""

    NONE = "none"
    OPEN = "open"
    RETRIED = "retried"
    FAILED = "failed"
    READY = "ready"


class Rollback(StrEnum):
    """An operator's rollback that explains where an instance is."""

    NONE = "none"
    ASKED = "asked"  # it is still on the build that it is to leave
    DONE = "done"


class Stray(StrEnum):
    """Difference of the share or of running components from what is recorded."""

    NONE = "none"
    HEALING = "healing"
    MISLOADED = "misloaded"
    DRIFTED = "drifted"


@dataclass(frozen=True, slots=True)
class InstanceFacts:
    """Facts on which the state of an instance depends.

    `at_target`: it has what it should have now. `failed_back`: its last activation went back, and
    what that was for is still wanted. `waits`: an activation is wanted and may not start yet;
    `failed`: something failed that is tried again then.
    """

    inspection: Inspection = Inspection.DONE
    course: Course = Course.NONE
    suspended: bool = False
    at_target: bool = True
    failed_back: bool = False
    rollback: Rollback = Rollback.NONE
    waits: bool = False
    failed: bool = False
    next: Next = Next.READY
    stray: Stray = Stray.NONE


COURSES = {
    Course.FORWARD: State.ACTIVATING,
    Course.GIVEN_UP: State.WITHDRAWING,
    Course.BACK: State.ROLLING_BACK,
    Course.DEGRADED: State.DEGRADED,
}
NEXTS = {
    Next.NONE: State.NO_BUILD,
    Next.OPEN: State.BUILDING,
    Next.RETRIED: State.BUILD_RETRYING,
    Next.FAILED: State.BUILD_FAILED,
    Next.READY: State.NO_BUILD,
}


STRAY_STATES = {
    Stray.HEALING: State.HEALING,
    Stray.MISLOADED: State.MISLOADED,
    Stray.DRIFTED: State.DRIFTED,
}
STRAYS = frozenset(STRAY_STATES.values())


def instance_state(facts: InstanceFacts) -> State:
    """Return the state of an instance: the first of these that applies."""
    if facts.course is not Course.NONE:
        return COURSES[facts.course]
    if facts.inspection is Inspection.PENDING:
        return State.SUSPENDED_BEHIND if facts.suspended else State.NOT_INSPECTED
    if facts.suspended:
        is_there = facts.at_target and facts.inspection is Inspection.DONE
        return State.SUSPENDED if is_there else State.SUSPENDED_BEHIND
    if facts.inspection is Inspection.FAILED:
        return State.NOT_READABLE
    if facts.inspection is Inspection.OUTDATED:
        return State.BASE_CHANGING
    return _settled_state(facts)


def _settled_state(facts: InstanceFacts) -> State:
    """Return the state of an instance whose base is known, and that no activation changes."""
    if facts.stray is Stray.DRIFTED and facts.waits:  # what it waits for may put that right
        return State.MISLOADED
    if facts.stray is not Stray.NONE:
        return STRAY_STATES[facts.stray]
    if facts.at_target:
        return State.ACTIVE
    if facts.waits:
        return State.RETRYING if facts.failed else State.WAITING
    if facts.failed_back:
        return State.ROLLED_BACK
    if facts.rollback is Rollback.DONE:
        return State.HELD_BACK
    return NEXTS[facts.next]


def instance_sync(facts: InstanceFacts) -> Sync:
    """Return whether an instance has what it should have."""
    if facts.inspection is not Inspection.DONE:
        return Sync.UNKNOWN
    synced = facts.at_target and facts.course is Course.NONE
    return Sync.SYNCED if synced else Sync.OUT_OF_SYNC


# ---------------------------------------------------------------------------------- environments


@dataclass(frozen=True, slots=True)
class EnvironmentFacts:
    """Facts on which the state of an environment depends; `builds` and `instances` are its own."""

    invalid: bool
    suspended: bool
    builds: Sequence[Next]
    instances: Sequence[tuple[State, Sync]]


OF_BUILDS = frozenset({State.BUILDING, State.BUILD_RETRYING, State.BUILD_FAILED})
"""States about a build, which an environment and its instances share."""

URGENCY = (
    State.DEGRADED,
    State.DRIFTED,
    State.MISLOADED,
    State.ROLLED_BACK,
    State.ROLLING_BACK,
    State.RETRYING,
    State.NOT_READABLE,
    State.BASE_CHANGING,
    State.ACTIVATING,
    State.WITHDRAWING,
    State.WAITING,
    State.BUILD_FAILED,
    State.BUILD_RETRYING,
    State.HEALING,
    State.BUILDING,
    State.NO_BUILD,
    State.NOT_INSPECTED,
    State.HELD_BACK,
    State.SUSPENDED_BEHIND,
    State.SUSPENDED,
    State.ACTIVE,
)
"""States of instances, the one first that says most about their environment."""

HEALTHS = (
    Health.DEGRADED,
    Health.MISSING,
    Health.PROGRESSING,
    Health.UNKNOWN,
    Health.SUSPENDED,
    Health.HEALTHY,
)
"""The worst first."""


def environment_state(facts: EnvironmentFacts) -> State:
    """Return the state of an environment: its own mistakes first, then its most urgent instance."""
    states = {state for state, _ in facts.instances}
    if State.DEGRADED in states:
        return State.DEGRADED
    if facts.invalid:
        return State.INVALID
    if Next.FAILED in facts.builds:
        return State.BUILD_FAILED
    if facts.suspended:
        synced = environment_sync(facts) is Sync.SYNCED
        return State.SUSPENDED if synced else State.SUSPENDED_BEHIND
    if Next.RETRIED in facts.builds:
        return State.BUILD_RETRYING
    urgent = next((state for state in URGENCY if state in states), State.NO_INSTANCE)
    if Next.OPEN in facts.builds and not TABLE[urgent].is_wrong:
        return State.BUILDING
    return urgent


def environment_sync(facts: EnvironmentFacts) -> Sync:
    """Return whether all instances of an environment have what its newest good revision asks."""
    if facts.instances and all(sync is Sync.SYNCED for _, sync in facts.instances):
        return Sync.SYNCED
    return Sync.OUT_OF_SYNC if facts.builds else Sync.UNKNOWN


def environment_health(facts: EnvironmentFacts) -> Health:
    """Return the health of an environment: that of what runs.

    A build that failed has touched nothing live, and a rollback by hand has failed at nothing.
    """
    if not facts.instances:
        return Health.MISSING
    healths = {TABLE[state].health for state, _ in facts.instances}
    if Health.DEGRADED in healths:
        return Health.DEGRADED
    if facts.suspended:
        return Health.SUSPENDED
    moving = {State.WAITING, State.RETRYING} & {state for state, _ in facts.instances}
    if moving or {Next.OPEN, Next.RETRIED} & {*facts.builds}:
        healths.add(Health.PROGRESSING)
    return next(health for health in HEALTHS if health in healths)
