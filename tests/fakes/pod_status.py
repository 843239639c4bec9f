"""Status documents that a kubelet writes for a pod: pure functions."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

Json = dict[str, Any]

PREFIX = "lab/"


@dataclass(frozen=True, slots=True)
class LabImage:
    """Substitute for a container image.

    `root`: a directory whose `bin` comes first in PATH, such as a virtual environment; None: only
    what the host has. `uid`: the image's user. `digest`: what imageID reports; by default it
    follows from the reference.
    """

    root: Path | None = None
    digest: str = ""
    uid: int = 50000

    def image_id(self, reference: str) -> str:
        """Return what the runtime reports for a container of this image."""
        repository, _, pinned = reference.partition("@")
        head, _, tail = repository.rpartition("/")
        name = tail.partition(":")[0]
        digest = pinned or self.digest or "sha256:" + hashlib.sha256(reference.encode()).hexdigest()
        return f"{head}/{name}@{digest}" if head else f"{name}@{digest}"


@dataclass(frozen=True, slots=True)
class Behaviour:
    """Behaviour of a pod, set by its template's annotations `lab/<field>` (`lab/ready-after`).

    mode: ok, notready (runs, never ready), crashloop, imagepull, configerror, failed (ends with
    `exit_code` after `ready_after` seconds), hang (no kubelet handles it), run (the command really
    runs; Jobs always do). `crashing`: an init container that crashes instead of the others.
    """

    mode: str = "ok"
    ready_after: float = 0.2
    stop_after: float = 0.1
    restarts: int = 3
    crashing: str = ""
    exit_code: int = 1
    log: str = ""
    message: str = ""

    @classmethod
    def of(cls, pod: Mapping[str, Any]) -> Behaviour:
        """Return the behaviour requested by a pod's annotations."""
        meta = pod["metadata"]
        asked = {
            key.removeprefix(PREFIX).replace("-", "_"): value
            for key, value in (meta.get("annotations") or {}).items()
            if key.startswith(PREFIX)
        }
        owners = meta.get("ownerReferences") or []
        if any(owner["kind"] == "Job" for owner in owners):
            asked.setdefault("mode", "run")
        kinds = {"ready_after": float, "stop_after": float, "restarts": int, "exit_code": int}
        return cls(**{key: kinds.get(key, str)(value) for key, value in asked.items()})


def now() -> str:
    """Return the current time as the API writes it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def running() -> Json:
    """Return the state of a container that runs since now."""
    return {"running": {"startedAt": now()}}


def waiting(reason: str, message: str = "") -> Json:
    """Return the state of a container that has not started, or not again."""
    return {"waiting": {"reason": reason, **({"message": message} if message else {})}}


def terminated(code: int, reason: str = "", message: str = "", since: str = "") -> Json:
    """Return the state of a container that has ended."""
    details: Json = {
        "exitCode": code,
        "reason": reason or ("Error" if code else "Completed"),
        "startedAt": since or now(),
        "finishedAt": now(),
    }
    return {"terminated": {**details, **({"message": message} if message else {})}}


def container(
    spec: Mapping[str, Any],
    image_id: str,
    state: Json,
    *,
    ready: bool = False,
    restarts: int = 0,
    last: Json | None = None,
) -> Json:
    """Return an item of containerStatuses."""
    started = "waiting" not in state
    status: Json = {
        "name": spec["name"],
        "image": spec["image"],
        "imageID": image_id if started else "",
        "ready": ready,
        "started": "running" in state,
        "restartCount": restarts,
        "state": state,
        "lastState": last or {},
    }
    if started or last:
        status["imageID"] = image_id
        mark = f"{spec['name']}{restarts}{image_id}".encode()
        status["containerID"] = "containerd://" + hashlib.sha256(mark).hexdigest()
    return status


class Conditions:
    """Conditions of one pod; a transition time changes only with the status."""

    def __init__(self) -> None:
        self._last: dict[str, Json] = {}

    def _one(self, kind: str, status: bool, reason: str = "") -> Json:
        before = self._last.get(kind)
        word = "True" if status else "False"
        if before is None or before["status"] != word:
            before = {"type": kind, "status": word, "lastTransitionTime": now()}
        condition = {key: before[key] for key in ("type", "status", "lastTransitionTime")}
        if reason:
            condition["reason"] = reason
        self._last[kind] = condition
        return condition

    def document(self, phase: str, *, ready: bool, initialized: bool) -> list[Json]:
        """Return all conditions of a pod in that phase."""
        over = phase in {"Succeeded", "Failed"}
        why = (
            ""
            if ready
            else {"Succeeded": "PodCompleted", "Failed": "PodFailed"}.get(
                phase, "ContainersNotReady"
            )
        )
        before = "" if initialized else "ContainersNotInitialized"
        before = "PodCompleted" if phase == "Succeeded" else before
        return [
            self._one("PodReadyToStartContainers", not over),
            self._one("Initialized", initialized, before),
            self._one("Ready", ready, why),
            self._one("ContainersReady", ready, why),
        ]


def address(uid: str) -> str:
    """Return a pod's address, at which nothing listens."""
    number = int(uid[:8], 16)
    return f"10.244.{number % 256}.{number // 256 % 254 + 1}"
