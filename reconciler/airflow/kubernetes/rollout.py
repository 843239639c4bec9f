"""How far the restart of one component is: pure functions of its workload and pods."""

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
from reconciler.cluster.words import containers, crashing, diagnose
from reconciler.core.model import Problem

LINGER = 60.0  # seconds that a pod may be there after the end of its grace


def stamped(workload: Json, stamp: str) -> bool:
    """Does the pod template bear this restart."""
    return annotation(workload["spec"].get("template") or {}, RESTARTED_AT) == stamp


def patch(stamp: str) -> Json:
    """The patch that `kubectl rollout restart` makes."""
    return {"spec": {"template": {"metadata": {"annotations": {RESTARTED_AT: stamp}}}}}


def frozen(kind: str, workload: Json) -> str:
    """In words, why a changed template would never reach the pods; "" when it would."""
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
    """Are all pods of this restart and ready, and none of an older one left."""
    if not stamped(workload, stamp) or not _observed(workload):
        return False
    fresh = [pod for pod in pods if annotation(pod, RESTARTED_AT) == stamp]
    return len(fresh) == len(pods) == replicas_of(workload) and all(ready(pod) for pod in fresh)


def progress(workload: Json, pods: Sequence[Json], stamp: str) -> str:
    """In words, how far it is."""
    name, wanted = workload["metadata"]["name"], replicas_of(workload)
    fresh = [pod for pod in pods if annotation(pod, RESTARTED_AT) == stamp]
    up = sum(ready(pod) for pod in fresh)
    old = len(pods) - len(fresh)
    left = f", {old} of the old still there" if old else ""
    return f"{name}: {up} of {wanted} restarted pods are ready{left}"


def moved(pods: Sequence[Json], stamp: str) -> float:
    """When the pods last got on, by the cluster's clock; 0.0 when they have not begun.

    A restarted pod was made, found a node, was initialised, or became ready or ceased to be: from
    then on it has its time again. One that is ending gets all of its grace, so this may lie ahead:
    a worker may use it to finish its tasks.
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


def longest(workload: Json, timeout: float) -> float:
    """Seconds that a rollout may take even while it gets on: each pod ends and starts in turn.

    A StatefulSet replaces its pods one after the other, whatever its podManagementPolicy, and a
    Deployment in as many turns at most.
    """
    pod = workload["spec"].get("template", {}).get("spec", {})
    grace = float(pod.get("terminationGracePeriodSeconds", 30))
    return (timeout + grace) * max(1, replicas_of(workload))


def failure(workload: Json) -> Problem | None:
    """What a Deployment says of a rollout that does not get on."""
    name = workload["metadata"]["name"]
    if not _observed(workload):
        return None  # its conditions are of an earlier template
    for condition in (workload.get("status") or {}).get("conditions") or []:
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


def stuck(kind: str, workload: Json, pods: Sequence[Json], stamp: str) -> list[Json]:
    """Pods of an earlier template that keep a StatefulSet from going on: it waits for them.

    It never replaces a pod that is not ready, be it that it crashes, that it hangs or that its
    volumes never come; a changed template alone does not heal it, it must be deleted. That is no
    more than the StatefulSet itself would do to a ready one: it is asked to end, and a worker gets
    its whole grace to finish the tasks that it may still run.
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
    """A pod that should long have ended: its node says nothing any more, so it counts for ever."""
    for pod in pods:
        metadata = pod["metadata"]
        over = now - seconds(metadata.get("deletionTimestamp"))
        if "deletionTimestamp" in metadata and over > LINGER:
            return Problem(
                "PodStuck",
                f"pod {metadata['name']} should have ended {over:.0f} s ago, but its node "
                f"{pod['spec'].get('nodeName', '')} does not say so; if that is gone, delete the "
                f"node, or the pod by force: kubectl -n {metadata['namespace']} delete pod "
                f"{metadata['name']} --force",
            )
    return None


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


def unsettled(starts: Mapping[str, float], now: float, settle: float) -> str:
    """Return which components have not been up for `settle` seconds; "" when all have.

    `starts` holds when the youngest Airflow container of each started, by the cluster's clock. One
    whose clock is ahead of ours counts as started now.
    """
    young = {name: max(0.0, now - at) for name, at in starts.items() if now - at < settle}
    return "; ".join(
        f"{name} has been up for {seconds:.0f} of {settle:.0f} s"
        for name, seconds in sorted(young.items())
    )


def crashed(pod: Json) -> str:
    """The container of a pod whose last words are worth telling; "" when none crashed."""
    return next((str(c["name"]) for c in containers(pod) if crashing(pod, c)), "")


def _observed(workload: Json) -> bool:
    """Has the workload's controller seen its present template."""
    seen = int((workload.get("status") or {}).get("observedGeneration") or 0)
    return seen >= int(workload["metadata"]["generation"])
