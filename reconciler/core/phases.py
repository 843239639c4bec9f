"""Phases of builds, and phases and steps of activations.

A phase is what users see; a step is what the daemon does next. The transitions between steps are in
`machine`.
"""

from __future__ import annotations

from enum import StrEnum


class BuildPhase(StrEnum):
    """Phase of a build."""

    QUEUED = "Queued"
    RESOLVING = "Resolving"
    BUILDING = "Building"
    VERIFYING = "Verifying"
    READY = "Ready"
    FAILED = "Failed"
    CANCELLED = "Cancelled"


BUILD_NEXT: dict[BuildPhase, frozenset[BuildPhase]] = {
    BuildPhase.QUEUED: frozenset({BuildPhase.RESOLVING, BuildPhase.CANCELLED}),
    BuildPhase.RESOLVING: frozenset(
        {BuildPhase.BUILDING, BuildPhase.FAILED, BuildPhase.CANCELLED, BuildPhase.QUEUED}
    ),
    BuildPhase.BUILDING: frozenset(
        {BuildPhase.VERIFYING, BuildPhase.FAILED, BuildPhase.CANCELLED, BuildPhase.QUEUED}
    ),
    BuildPhase.VERIFYING: frozenset(
        {BuildPhase.READY, BuildPhase.FAILED, BuildPhase.CANCELLED, BuildPhase.QUEUED}
    ),
    BuildPhase.READY: frozenset({BuildPhase.QUEUED}),
    BuildPhase.FAILED: frozenset({BuildPhase.QUEUED}),
    BuildPhase.CANCELLED: frozenset({BuildPhase.QUEUED}),
}
"""Allowed transitions. Back to Queued: retry, refresh, or a build lost from the share."""


class ActivationPhase(StrEnum):
    """Phase of an activation."""

    WAITING = "Waiting"
    DRAINING = "Draining"
    SWITCHING = "Switching"
    RESTARTING = "Restarting"
    PROBING = "Probing"
    WATCHING = "Watching"
    ACTIVE = "Active"
    ROLLING_BACK = "RollingBack"
    ROLLED_BACK = "RolledBack"
    DEGRADED = "Degraded"


class Trigger(StrEnum):
    """Reason for the start of an activation."""

    COMMIT = "commit"
    OPERATOR = "operator"
    DELETION = "deletion"
    BASE = "base"  # its base was changed during another activation


class Step(StrEnum):
    """Next action of an activation; each has exactly one idempotent effect."""

    OBSERVE = "observe"  # read pools, import errors, active DAGs; nothing is changed yet
    PAUSE = "pause"  # pools to 0
    DRAIN = "drain"  # until nothing runs
    SWITCH = "switch"  # the pointer to `to_build`
    RESTART = "restart"
    PROBE = "probe"
    RELEASE = "release"  # pools as they were
    WATCH = "watch"  # tasks run on `to_build`; it must stay healthy for a while
    PAUSE_BACK = "pause-back"  # it did not: pools to 0 again
    DRAIN_BACK = "drain-back"  # until nothing runs on `to_build`
    SWITCH_SERVERS_BACK = "switch-servers-back"  # its API is silent: the pointer to `from_build`
    RESTART_SERVERS_BACK = "restart-servers-back"  # and its servers, which run no tasks, with it
    SWITCH_BACK = "switch-back"  # the pointer to `from_build`
    RESTART_BACK = "restart-back"
    PROBE_BACK = "probe-back"
    RELEASE_BACK = "release-back"
    WITHDRAW = "withdraw"  # the base was changed: the pointer to `from_build`, without a restart
    RELEASE_ABORT = "release-abort"  # drain given up or withdrawn: pools as they were
    DONE = "done"
    ROLLED_BACK = "rolled-back"
    ABORTED = "aborted"
    DEGRADED = "degraded"


class Verdict(StrEnum):
    """Outcome of an effect."""

    OK = "ok"
    NOT_YET = "not-yet"  # check again; the step's deadline limits how long
    FAILED = "failed"  # it failed for good, or its deadline passed


PHASE_OF: dict[Step, ActivationPhase] = {
    Step.OBSERVE: ActivationPhase.DRAINING,
    Step.PAUSE: ActivationPhase.DRAINING,
    Step.DRAIN: ActivationPhase.DRAINING,
    Step.SWITCH: ActivationPhase.SWITCHING,
    Step.RESTART: ActivationPhase.RESTARTING,
    Step.PROBE: ActivationPhase.PROBING,
    Step.RELEASE: ActivationPhase.PROBING,
    Step.WATCH: ActivationPhase.WATCHING,
    Step.PAUSE_BACK: ActivationPhase.ROLLING_BACK,
    Step.DRAIN_BACK: ActivationPhase.ROLLING_BACK,
    Step.SWITCH_SERVERS_BACK: ActivationPhase.ROLLING_BACK,
    Step.RESTART_SERVERS_BACK: ActivationPhase.ROLLING_BACK,
    Step.SWITCH_BACK: ActivationPhase.ROLLING_BACK,
    Step.RESTART_BACK: ActivationPhase.ROLLING_BACK,
    Step.PROBE_BACK: ActivationPhase.ROLLING_BACK,
    Step.RELEASE_BACK: ActivationPhase.ROLLING_BACK,
    Step.WITHDRAW: ActivationPhase.SWITCHING,
    Step.RELEASE_ABORT: ActivationPhase.DRAINING,
    Step.DONE: ActivationPhase.ACTIVE,
    Step.ROLLED_BACK: ActivationPhase.ROLLED_BACK,
    Step.ABORTED: ActivationPhase.WAITING,
    Step.DEGRADED: ActivationPhase.DEGRADED,
}


class Sync(StrEnum):
    """Whether an object has what the newest good revision asks for."""

    SYNCED = "Synced"
    OUT_OF_SYNC = "OutOfSync"
    UNKNOWN = "Unknown"


class Health(StrEnum):
    """Health of an object."""

    HEALTHY = "Healthy"
    PROGRESSING = "Progressing"
    DEGRADED = "Degraded"
    SUSPENDED = "Suspended"
    MISSING = "Missing"
    UNKNOWN = "Unknown"
