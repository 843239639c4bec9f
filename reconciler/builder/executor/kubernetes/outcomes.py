"""Reasons why a Job's pod ended or does not start: pure functions of its documents.

An ending that would happen again is Stalled and names the setting; everything else is retried.
"""

from __future__ import annotations

from collections.abc import Iterable

from reconciler.builder.executor.kubernetes.manifest import CONTAINER
from reconciler.cluster.connection import Json
from reconciler.cluster.diagnose import diagnose, ending
from reconciler.core.errors import GroundcrewError, Retryable, Stalled
from reconciler.core.reasons import Reason
from reconciler.settings import JobSettings

RETRY = "then `groundcrew retry` the environment"
EARLY = 2.0  # seconds by which Kubernetes may end a Job before its deadline: it keeps whole seconds


def lost(name: str, pod: Json | None, settings: JobSettings, age: float) -> GroundcrewError:
    """Return the error for a Job's end; `pod` as last seen, `age` in seconds since the request."""
    status = (pod or {}).get("status") or {}
    containers = status.get("containerStatuses") or []
    worker: Json = next((c for c in containers if c.get("name") == CONTAINER), {})
    terminated = (worker.get("state") or {}).get("terminated") or {}
    said = " ".join(str(status.get("message") or status.get("reason") or "").split())[:300]
    if terminated.get("reason") == "OOMKilled":
        return Stalled(
            Reason.JOB_OUT_OF_MEMORY,
            f"Job {name} was ended: {ending(worker)}; raise kubernetes.jobs.memory (now "
            f"{settings.memory}) or let the build need less, {RETRY}",
        )
    if status.get("reason") == "Evicted" and _exceeds_limit(said):
        return Stalled(
            Reason.JOB_OUT_OF_DISK,
            f"Job {name} was ended: {said}; raise kubernetes.jobs.scratch (now "
            f"{settings.scratch}) or let the build need less, {RETRY}",
        )
    if age >= settings.deadline - EARLY or status.get("reason") == "DeadlineExceeded":
        return Stalled(
            Reason.JOB_DEADLINE,
            f"Job {name} was ended: it took longer than kubernetes.jobs.deadline "
            f"({settings.deadline:g} s); raise that or let the build do less, {RETRY}",
        )
    if pod is None:
        return Retryable(Reason.JOB_LOST, f"Job {name} was deleted; building in a new one")
    cause = said or (ending(worker) if terminated else "its pod has ended")
    return Retryable(Reason.JOB_LOST, f"Job {name} was lost ({cause}); building anew")


def _exceeds_limit(message: str) -> bool:
    """Return True if the kubelet says that a limit was exceeded."""
    _, verb, rest = message.lower().partition(" exceed")
    return bool(verb) and " limit" in rest


def hindrance(pod: Json | None, events: Iterable[Json]) -> tuple[Reason | None, str]:
    """Return (reason, text) of what keeps a Job from starting; (None, "") if nothing is known.

    `events` are events of the Job that say why it got no pod: a quota, a policy, a limit range.
    """
    if pod is not None:
        problem = diagnose(pod)
        return (problem.reason, problem.message) if problem is not None else (None, "")
    newest = max(events, key=lambda e: str(e.get("lastTimestamp") or ""), default=None)
    if newest is None:
        return None, ""
    said = " ".join(str(newest.get("message") or "").split())[:400]
    return Reason.FAILED_CREATE, f"Kubernetes makes no pod for it: {said}"
