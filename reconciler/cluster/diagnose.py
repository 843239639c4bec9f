"""Diagnosis of pods that do not run: pure functions of a pod's document."""

from __future__ import annotations

from reconciler.cluster.connection import Json
from reconciler.core.model import Problem
from reconciler.core.reasons import Reason

PULLING = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull")
CONFIG = ("CreateContainerConfigError", "CreateContainerError", "RunContainerError")
# Part of the message where the kubelet of a busy node has not read a Secret or ConfigMap in time;
# it tries again by itself, within seconds.
RETRIED = "timed out waiting for the condition"
STARTS = 3  # this many starts of one container count as a loop


def diagnose(pod: Json) -> Problem | None:
    """Return the problem that keeps a pod from running, as the node or scheduler reports it."""
    name = pod["metadata"]["name"]
    for container in containers(pod):
        state = container.get("state") or {}
        waiting = state.get("waiting") or {}
        reason = str(waiting.get("reason") or "")
        what = f"container {container['name']} of pod {name}"
        said = " ".join(str(waiting.get("message") or "").split())[:300]
        if reason in PULLING:
            image = container.get("image") or "its image"
            return Problem(Reason.IMAGE_PULL, f"{what} cannot pull {image} ({reason}): {said}")
        if reason in CONFIG and RETRIED not in said:
            return Problem(Reason.CONTAINER_CONFIG, f"{what} cannot be made ({reason}): {said}")
        if crashing(pod, container):
            message = f"{what} crashed {container['restartCount']} times: {ending(container)}"
            return Problem(
                Reason.SIDECAR_CRASH_LOOP if _beside(pod, container) else Reason.CRASH_LOOP, message
            )
    status = pod.get("status") or {}
    for condition in status.get("conditions") or []:
        if condition.get("type") == "PodScheduled" and condition.get("reason") == "Unschedulable":
            said = " ".join(str(condition.get("message") or "").split())[:300]
            return Problem(Reason.UNSCHEDULABLE, f"no node takes pod {name}: {said}")
    if status.get("phase") == "Failed":
        said = str(status.get("message") or status.get("reason") or "it has failed")
        return Problem(Reason.POD_FAILED, f"pod {name}: {said[:300]}")
    return None


def crashing(pod: Json, container: Json) -> bool:
    """Return True if a container of a pod was started several times and does not stay up.

    For the pod's main container the count alone decides: one that crashes once a minute is ready
    most of the time. Other containers may have been waiting for something, such as migrations, and
    are healthy once they are ready.
    """
    several = int(container.get("restartCount") or 0) >= STARTS - 1
    return several and (container["name"] == main_of(pod) or not container.get("ready"))


def ending(container: Json) -> str:
    """Return a text about how a container last ended."""
    state, last = container.get("state") or {}, container.get("lastState") or {}
    ended = state.get("terminated") or last.get("terminated") or {}
    reason, code = str(ended.get("reason") or ""), ended.get("exitCode")
    if reason == "OOMKilled":
        return "it used more memory than its limit (OOMKilled)"
    return f"exit code {code}" if code is not None else reason or "no reason is known"


def main_of(pod: Json) -> str:
    """Return the pod's main container: the one named like its component, else the first."""
    names = [container["name"] for container in pod["spec"].get("containers") or []]
    component = (pod["metadata"].get("labels") or {}).get("component")
    return str(component if component in names else next(iter(names), ""))


def containers(pod: Json) -> list[Json]:
    """Return the status of each container, those of the pod's own image first."""
    status = pod.get("status") or {}
    inits, others = status.get("initContainerStatuses"), status.get("containerStatuses")
    return sorted([*(inits or []), *(others or [])], key=lambda one: _beside(pod, one))


def _beside(pod: Json, container: Json) -> bool:
    """Return True if a container has an image other than the pod's main one, such as git-sync's."""
    spec = pod["spec"]
    known = [*(spec.get("initContainers") or []), *(spec.get("containers") or [])]
    images = {one["name"]: one.get("image") for one in known}
    own = images.get(main_of(pod))
    return bool(images.get(container["name"], own) != own)
