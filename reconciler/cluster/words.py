"""Why a pod does not run, in words: pure functions of its document."""

from __future__ import annotations

from collections.abc import Iterator

from reconciler.cluster.connection import Json
from reconciler.core.model import Problem

PULLING = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull")
CONFIG = ("CreateContainerConfigError", "CreateContainerError", "RunContainerError")
STARTS = 3  # that many starts of one container are a loop


def diagnose(pod: Json) -> Problem | None:
    """What keeps a pod from running, as the node or the scheduler reports it."""
    name = pod["metadata"]["name"]
    for container in _containers(pod):
        state = container.get("state") or {}
        waiting = state.get("waiting") or {}
        reason = str(waiting.get("reason") or "")
        what = f"container {container['name']} of pod {name}"
        said = " ".join(str(waiting.get("message") or "").split())[:300]
        if reason in PULLING:
            image = container.get("image") or "its image"
            return Problem("ImagePull", f"{what} cannot pull {image} ({reason}): {said}")
        if reason in CONFIG:
            return Problem("ContainerConfig", f"{what} cannot be made ({reason}): {said}")
        if crashing(container):
            words = f"{what} crashed {container['restartCount']} times: {ending(container)}"
            return Problem("CrashLoop", words)
    status = pod.get("status") or {}
    for condition in status.get("conditions") or []:
        if condition.get("type") == "PodScheduled" and condition.get("reason") == "Unschedulable":
            said = " ".join(str(condition.get("message") or "").split())[:300]
            return Problem("Unschedulable", f"no node takes pod {name}: {said}")
    if status.get("phase") == "Failed":
        said = str(status.get("message") or status.get("reason") or "it has failed")
        return Problem("PodFailed", f"pod {name}: {said[:300]}")
    return None


def crashing(container: Json) -> bool:
    """Was a container started several times, and is it down or was down a moment ago."""
    restarts = int(container.get("restartCount") or 0)
    return restarts >= STARTS - 1 and not container.get("ready")


def ending(container: Json) -> str:
    """In words, how a container ended last."""
    state, last = container.get("state") or {}, container.get("lastState") or {}
    ended = state.get("terminated") or last.get("terminated") or {}
    reason, code = str(ended.get("reason") or ""), ended.get("exitCode")
    if reason == "OOMKilled":
        return "it used more memory than its limit (OOMKilled)"
    return f"exit code {code}" if code is not None else reason or "no reason is known"


def _containers(pod: Json) -> Iterator[Json]:
    status = pod.get("status") or {}
    yield from status.get("initContainerStatuses") or []
    yield from status.get("containerStatuses") or []
