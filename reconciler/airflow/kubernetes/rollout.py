"""How far the restart of one component is: pure functions of its workload and pods."""

from __future__ import annotations

from collections.abc import Sequence

from reconciler.airflow.kubernetes.release import (
    RESTARTED_AT,
    annotation,
    component_of,
    container_of,
    seconds,
)
from reconciler.cluster.connection import Json
from reconciler.cluster.words import crashing, diagnose
from reconciler.core.model import Problem


def stamped(workload: Json, stamp: str) -> bool:
    """Does the pod template bear this restart."""
    return annotation(workload["spec"].get("template") or {}, RESTARTED_AT) == stamp


def patch(stamp: str) -> Json:
    """The patch that `kubectl rollout restart` makes."""
    return {"spec": {"template": {"metadata": {"annotations": {RESTARTED_AT: stamp}}}}}


def frozen(kind: str, workload: Json) -> str:
    """In words, why a changed template would never reach the pods; "" when it would."""
    spec, name = workload["spec"], workload["metadata"]["name"]
    if (spec.get("updateStrategy") or {}).get("type") == "OnDelete":
        return f"{name} ({kind}) has the update strategy OnDelete; its values need RollingUpdate"
    if spec.get("paused"):
        return f"{kind} {name} is paused; run kubectl rollout resume"
    return ""


def complete(workload: Json, pods: Sequence[Json], stamp: str) -> bool:
    """Are all pods of this restart and ready, and none of an older one left."""
    status, wanted = workload.get("status") or {}, int(workload["spec"].get("replicas", 1))
    if not stamped(workload, stamp):
        return False
    if int(status.get("observedGeneration") or 0) < int(workload["metadata"]["generation"]):
        return False
    fresh = [pod for pod in pods if annotation(pod, RESTARTED_AT) == stamp]
    return len(fresh) == len(pods) == wanted and all(ready(pod) for pod in fresh)


def progress(workload: Json, pods: Sequence[Json], stamp: str) -> str:
    """In words, how far it is."""
    wanted = int(workload["spec"].get("replicas", 1))
    fresh = [pod for pod in pods if annotation(pod, RESTARTED_AT) == stamp]
    up = sum(ready(pod) for pod in fresh)
    old = len(pods) - len(fresh)
    left = f", {old} of the old still there" if old else ""
    return f"{component_of(workload)}: {up} of {wanted} restarted pods are ready{left}"


def failure(workload: Json) -> Problem | None:
    """What a Deployment says of a rollout that does not get on."""
    name = workload["metadata"]["name"]
    status = workload.get("status") or {}
    if int(status.get("observedGeneration") or 0) < int(workload["metadata"]["generation"]):
        return None  # its conditions are of an earlier template
    for condition in status.get("conditions") or []:
        kind, value = condition.get("type"), condition.get("status")
        said = " ".join(str(condition.get("message") or "").split())[:400]
        if kind == "ReplicaFailure" and value == "True":
            quota = "exceeded quota" in said
            return Problem("QuotaExceeded" if quota else "PodsRefused", f"{name}: {said}")
        if kind == "Progressing" and condition.get("reason") == "ProgressDeadlineExceeded":
            return Problem("ProgressDeadline", f"{name}: {said}")
    return None


def broken(pods: Sequence[Json], stamp: str) -> tuple[Json, Problem] | None:
    """The first restarted pod that will not run, and why."""
    for pod in pods:
        if annotation(pod, RESTARTED_AT) == stamp and "deletionTimestamp" not in pod["metadata"]:
            problem = diagnose(pod)
            if problem is not None:
                return pod, problem
    return None


def stuck(kind: str, pods: Sequence[Json], stamp: str) -> list[Json]:
    """Pods of an earlier restart that keep a StatefulSet from going on: it waits for them.

    A changed template alone does not heal them; they must be deleted.
    """
    if kind != "statefulsets":
        return []
    return [
        pod
        for pod in pods
        if annotation(pod, RESTARTED_AT) != stamp
        and "deletionTimestamp" not in pod["metadata"]
        and not ready(pod)
        and diagnose(pod) is not None
    ]


def ready(pod: Json) -> bool:
    """Is a pod ready, and not about to go."""
    conditions = (pod.get("status") or {}).get("conditions") or []
    up = any(c.get("type") == "Ready" and c.get("status") == "True" for c in conditions)
    return up and "deletionTimestamp" not in pod["metadata"]


def started(pods: Sequence[Json]) -> float:
    """When the youngest Airflow container of the pods started; 0.0 when none is known to run."""
    times = []
    for pod in pods:
        state = (container_of(pod) or {}).get("state") or {}
        times.append(seconds((state.get("running") or {}).get("startedAt")))
    return max(times, default=0.0)


def crashed(pod: Json) -> str:
    """The container of a pod whose last words are worth telling; "" when none crashed."""
    status = pod.get("status") or {}
    for key in ("initContainerStatuses", "containerStatuses"):
        for container in status.get(key) or []:
            if crashing(container):
                return str(container["name"])
    return ""
