"""Progress of one component's restart: pure functions of its workload and pods."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from reconciler.airflow.kubernetes.release import (
    RESTARTED_AT,
    annotation,
    container_of,
    replicas_of,
    seconds,
)
from reconciler.cluster.connection import Json
from reconciler.cluster.diagnose import containers, crashing, diagnose
from reconciler.core.model import Problem
from reconciler.core.reasons import Reason

LINGER = 60.0  # seconds that a pod may remain after the end of its grace period


def stamped(workload: Json, stamp: str) -> bool:
    """Return True if the pod template has the annotation of this restart."""
    return annotation(workload["spec"].get("template") or {}, RESTARTED_AT) == stamp


def patch(stamp: str) -> Json:
    """Return the patch that `kubectl rollout restart` makes."""
    return {"spec": {"template": {"metadata": {"annotations": {RESTARTED_AT: stamp}}}}}


def frozen(kind: str, workload: Json) -> str:
    """Return a text about why a changed template would never reach the pods, or ""."""
    spec, name = workload["spec"], workload["metadata"]["name"]
    strategy = spec.get("updateStrategy") or {}
    if strategy.get("type") == "OnDelete":
        return f"{name} ({kind}) has the update strategy OnDelete; its values need RollingUpdate"
    partition = (strategy.get("rollingUpdate") or {}).get("partition")
    if partition:
        return (
            f"{name} ({kind}) has the partition {partition}, so that pods below that number "
            f"never change; set updateStrategy.rollingUpdate.partition to 0"
        )
    if spec.get("paused"):
        return f"{kind} {name} is paused; run kubectl rollout resume"
    return ""


def complete(workload: Json, pods: Sequence[Json], stamp: str) -> bool:
    """Return True if all pods are of this restart and ready, and no older one is left."""
    if not stamped(workload, stamp) or not _observed(workload):
        return False
    fresh = [pod for pod in pods if annotation(pod, RESTARTED_AT) == stamp]
    return len(fresh) == len(pods) == replicas_of(workload) and all(ready(pod) for pod in fresh)


def progress(workload: Json, pods: Sequence[Json], stamp: str) -> str:
    """Return a text about the progress."""
    name, wanted = workload["metadata"]["name"], replicas_of(workload)
    fresh = [pod for pod in pods if annotation(pod, RESTARTED_AT) == stamp]
    up = sum(ready(pod) for pod in fresh)
    old = len(pods) - len(fresh)
    left = f", {old} of the old still there" if old else ""
    return f"{name}: {up} of {wanted} restarted pods are ready{left}"


def moved(pods: Sequence[Json], stamp: str) -> float:
    """Return when the pods last made progress, by the cluster's clock; 0.0 if they have not begun.

    Progress means that a restarted pod was created, was scheduled, was initialised, or became ready
    or unready, or was asked to end; its time limit then starts again. The time of the cluster's
    clock is only a mark here, which changes with each progress.
    """
    times = [0.0]
    for pod in pods:
        metadata = pod["metadata"]
        if "deletionTimestamp" in metadata:  # when asked to end, plus its grace
            times.append(seconds(metadata["deletionTimestamp"]))
        elif annotation(pod, RESTARTED_AT) == stamp:
            times.append(seconds(metadata.get("creationTimestamp")))
            conditions = (pod.get("status") or {}).get("conditions") or []
            reached = [c for c in conditions if c.get("status") == "True" or c["type"] == "Ready"]
            times += [seconds(c.get("lastTransitionTime")) for c in reached]
    return max(times)


def grace(pods: Sequence[Json]) -> float:
    """Return the seconds that terminating pods have: a worker may use them to finish its tasks."""
    ending = [p["metadata"] for p in pods if "deletionTimestamp" in p["metadata"]]
    return max((float(one.get("deletionGracePeriodSeconds") or 0) for one in ending), default=0.0)


def longest(workload: Json, timeout: float) -> float:
    """Return the seconds that a rollout may take even with progress: pods are replaced in turn.

    A StatefulSet replaces its pods one after the other, whatever its podManagementPolicy, and a
    Deployment in at most as many turns.
    """
    pod = workload["spec"].get("template", {}).get("spec", {})
    grace = float(pod.get("terminationGracePeriodSeconds", 30))
    return (timeout + grace) * max(1, replicas_of(workload))


def failure(workload: Json) -> Problem | None:
    """Return the problem that a Deployment reports about a rollout without progress."""
    name = workload["metadata"]["name"]
    if not _observed(workload):
        return None  # its conditions are of an earlier template
    for condition in (workload.get("status") or {}).get("conditions") or []:
        kind, value = condition.get("type"), condition.get("status")
        said = " ".join(str(condition.get("message") or "").split())[:400]
        if kind == "ReplicaFailure" and value == "True":
            quota = "exceeded quota" in said
            return Problem(
                Reason.QUOTA_EXCEEDED if quota else Reason.PODS_REFUSED, f"{name}: {said}"
            )
        if kind == "Progressing" and condition.get("reason") == "ProgressDeadlineExceeded":
            return Problem(Reason.PROGRESS_DEADLINE, f"{name}: {said}")
    return None


def broken(pods: Sequence[Json], stamp: str) -> tuple[Json, Problem] | None:
    """Return the first restarted pod that will not run, and the reason."""
    for pod in pods:
        if annotation(pod, RESTARTED_AT) == stamp and "deletionTimestamp" not in pod["metadata"]:
            problem = diagnose(pod)
            if problem is not None:
                return pod, problem
    return None


def stuck(kind: str, workload: Json, pods: Sequence[Json], stamp: str) -> list[Json]:
    """Return the pods of an earlier template that block a StatefulSet, which waits for them.

    It never replaces a pod that is not ready, because it crashes, hangs or lacks its volumes; a
    changed template alone does not help, the pod must be deleted. That is no more than the
    StatefulSet itself would do to a ready pod: it is asked to terminate, and a worker gets its
    whole grace period to finish the tasks that it may still run.
    """
    if kind != "statefulsets" or not stamped(workload, stamp) or not _observed(workload):
        return []
    return [
        pod
        for pod in pods
        if annotation(pod, RESTARTED_AT) != stamp
        and "deletionTimestamp" not in pod["metadata"]
        and not ready(pod)
    ]


def lingering(pods: Sequence[Json], now: float) -> Problem | None:
    """Return the problem of a pod that should have ended long ago: its node no longer reports."""
    for pod in pods:
        metadata = pod["metadata"]
        over = now - seconds(metadata.get("deletionTimestamp"))
        if "deletionTimestamp" in metadata and over > LINGER:
            return Problem(
                Reason.POD_STUCK,
                f"pod {metadata['name']} should have ended {over:.0f} s ago, but its node "
                f"{pod['spec'].get('nodeName', '')} does not say so; if that is gone, delete the "
                f"node, or the pod by force: kubectl -n {metadata['namespace']} delete pod "
                f"{metadata['name']} --force",
            )
    return None


def ready(pod: Json) -> bool:
    """Return True if a pod is ready and not terminating."""
    conditions = (pod.get("status") or {}).get("conditions") or []
    up = any(c.get("type") == "Ready" and c.get("status") == "True" for c in conditions)
    return up and "deletionTimestamp" not in pod["metadata"]


def started(pods: Sequence[Json]) -> float:
    """Return when the youngest Airflow container of the pods started; 0.0 if none runs."""
    times = []
    for pod in pods:
        state = (container_of(pod) or {}).get("state") or {}
        times.append(seconds((state.get("running") or {}).get("startedAt")))
    return max(times, default=0.0)


def unsettled(starts: Mapping[str, float], now: float, settle: float) -> str:
    """Return which components have not been up for `settle` seconds; "" when all have.

    `starts` holds since when the youngest Airflow container of each has been up.
    """
    young = {name: max(0.0, now - at) for name, at in starts.items() if now - at < settle}
    return "; ".join(
        f"{name} has been up for {seconds:.0f} of {settle:.0f} s"
        for name, seconds in sorted(young.items())
    )


def crashed(pod: Json) -> str:
    """Return the crashed container of a pod whose last output should be reported, or ""."""
    return next((str(c["name"]) for c in containers(pod) if crashing(pod, c)), "")


def _observed(workload: Json) -> bool:
    """Return True if the workload's controller has seen its current template."""
    seen = int((workload.get("status") or {}).get("observedGeneration") or 0)
    return seen >= int(workload["metadata"]["generation"])
