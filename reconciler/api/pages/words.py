"""Texts of the pages for times, durations and states."""

from __future__ import annotations

from datetime import UTC, datetime

from reconciler.core.model import BuildRecord
from reconciler.core.phases import BuildPhase, Health, Sync
from reconciler.core.status import InstanceStatus
from reconciler.core.words import age

TROUBLE = (
    Health.DEGRADED, Health.MISSING, Health.PROGRESSING, Health.UNKNOWN, Health.SUSPENDED,
    Health.HEALTHY,
)  # fmt: skip
"""States, the worst first."""

GOOD, BAD, BUSY, CALM = "good", "bad", "busy", "calm"
TONES = {
    "Healthy": GOOD, "Synced": GOOD, "Active": GOOD, "Ready": GOOD,
    "Degraded": BAD, "Failed": BAD, "RolledBack": BAD, "Missing": BAD, "RollingBack": BAD,
    "Progressing": BUSY, "OutOfSync": BUSY, "Draining": BUSY, "Switching": BUSY,
    "Restarting": BUSY, "Probing": BUSY, "Watching": BUSY, "Queued": BUSY, "Resolving": BUSY,
    "Building": BUSY, "Verifying": BUSY, "Waiting": BUSY,
}  # fmt: skip
EVENTS = (
    "SourceChanged", "SourceFailed", "SourceRecovered", "PruneHeld", "PruneConfirmed",
    "ObjectStalled", "ObjectRecovered", "InstanceAdded", "InstanceRemoved", "EnvironmentAccepted",
    "EnvironmentDeleted", "RuntimeChanged", "BuildQueued", "BuildReady", "BuildFailed",
    "BuildRetry", "BuildCancelled", "ActivationStarted", "ActivationPhase", "ActivationActive",
    "ActivationAborted", "RolledBack", "Quarantined", "Degraded", "Suspended", "Resumed",
    "RetryRequested", "RefreshRequested", "RollbackRequested", "RollbackRefused", "RequestRefused",
    "DagsParsed", "DagsNotSeen", "GarbageCollected", "GarbageFailed",
)  # fmt: skip
"""Kinds of events, for the filter."""
SIGNS = {GOOD: "✓", BAD: "✕", BUSY: "◐", CALM: "–"}


def tone(word: str) -> str:
    """Return the colour of a state: good, bad, busy or calm."""
    return TONES.get(word, CALM)


def sign(word: str) -> str:
    """Return the sign before a state, so that it is not shown by colour alone."""
    return SIGNS[tone(word)]


def ago(at: float, now: float) -> str:
    """Return how long ago `at` was."""
    return "just now" if now - at < 1 else f"{age(at, now)} ago"


def machine(at: float) -> str:
    """Return a time for a `datetime` attribute."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


PHASES = {
    "Degraded": "Going back failed as well: it needs a person now.",
    "RolledBack": "The wanted build failed here, and it went back to the build before.",
    "RollingBack": "The new build failed, and it is going back to the build before.",
    "Draining": "A new build is on its way: running tasks are left to end first.",
    "Switching": "A new build is being activated.",
    "Restarting": "A new build is being activated: its components are restarted.",
    "Probing": "A new build is being activated: it has to prove that it is healthy.",
    "Watching": "A new build is live, tasks included; it goes back if it does not stay healthy.",
}


def sentence(one: InstanceStatus, coming: BuildRecord | None = None) -> str:
    """Return an instance's state as a sentence; `coming` is its next build, if not ready."""
    said = _taken_back(one) or PHASES.get(one.phase) or _resting(one, coming)
    return f"{said} It is suspended: nothing new is started." if one.suspended else said


def _taken_back(one: InstanceStatus) -> str:
    """Return the state of an operator's rollback, or "" if it does not explain the state."""
    who, leaves = one.rolled_back_by, one.build in one.quarantined
    if not who or one.phase not in ("Active", "Waiting", "RolledBack"):
        return ""
    if leaves and one.waits_on:
        return f"It is to be rolled back for {who}, which waits on: {one.waits_on}."
    if leaves:
        return f"The rollback that {who} asked for failed: it runs the build that it was to leave."
    return (
        f"It was rolled back by {who}; it stays so until the definition changes or someone says "
        "retry."
    )


def _resting(one: InstanceStatus, coming: BuildRecord | None) -> str:
    if one.waits_on:
        return f"A new build is ready and waits on: {one.waits_on}."
    if one.health in (Health.UNKNOWN, Health.MISSING):
        stalled = any(c.type == "Stalled" and c.status for c in one.conditions)
        return "It cannot be looked at." if stalled else "It has not been looked at yet."
    if one.environment is None:
        return "No environment names it: it runs the bare base."
    if one.sync is not Sync.SYNCED:
        if coming is None:
            return "It runs the build before; the wanted one is not ready."
        if coming.phase is BuildPhase.FAILED:
            return "The build for the newest revision failed. Nothing was changed here."
        return "The build for the newest revision is being made. Nothing has changed here yet."
    return "It runs what the newest revision asks for."
