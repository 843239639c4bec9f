"""Job manifest of a build, with as few permissions as possible."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reconciler.core.runtime import Image
from reconciler.settings import JobSettings, KubernetesSettings

ARCHITECTURE = "kubernetes.io/arch"
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}  # names used by nodes
SCRATCH_REQUEST = "64Mi"  # of local disk; without it, all of the limit would be requested
NOBODYS_USER = 50000  # the official Airflow image's own, if nothing else is known
CONTAINER = "worker"
TMP = "/tmp"  # noqa: S108 - in the pod, its own
MANAGED = "app.kubernetes.io/managed-by=groundcrew"
FOLDER_LABEL = "groundcrew.io/folder"  # the Job's own folder below staging/ on the share


@dataclass(frozen=True, slots=True)
class Order:
    """Purpose of one Job; `folder` is the only part of the share that it may write to."""

    name: str
    team: str
    build: str
    image: Image
    share: Path
    folder: Path
    command: tuple[str, ...]


def user_of(image: Image, settings: JobSettings) -> int | None:
    """Return the user that a Job runs as: the pods' own, never root; None: its namespace's."""
    if settings.run_as == "namespace":
        return None
    return image.user or os.getuid() or NOBODYS_USER


def job_manifest(order: Order, settings: KubernetesSettings) -> dict[str, Any]:
    """Return the Job's document; Kubernetes never restarts a Job, because the daemon retries."""
    jobs = settings.jobs
    labels = {
        "app.kubernetes.io/managed-by": "groundcrew",
        "app.kubernetes.io/component": "build",
        "groundcrew.io/team": order.team,
        "groundcrew.io/build": order.build,
        FOLDER_LABEL: order.folder.name,
    }
    return job_document(
        order.name, jobs.namespace, labels, int(jobs.deadline), jobs, _pod(order, settings)
    )


def job_document(
    name: str,
    namespace: str,
    labels: Mapping[str, str],
    deadline: int,
    jobs: JobSettings,
    pod: Mapping[str, Any],
) -> dict[str, Any]:
    """Return the document of a Job that runs `pod` once, for at most `deadline` seconds."""
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "namespace": namespace, "labels": dict(labels)},
        "spec": {
            "backoffLimit": 0,
            "completions": 1,
            "parallelism": 1,
            "activeDeadlineSeconds": deadline,
            "ttlSecondsAfterFinished": jobs.ttl,
            "template": {"metadata": {"labels": dict(labels)}, "spec": dict(pod)},
        },
    }


def confined_pod(image: Image, jobs: JobSettings) -> dict[str, Any]:
    """Return the specification of a pod without rights; it lacks containers and volumes."""
    pod: dict[str, Any] = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": 5,
        "securityContext": {
            "runAsNonRoot": True,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
    }
    user = user_of(image, jobs)
    if user is not None:
        pod["securityContext"] |= {"runAsUser": user, "runAsGroup": image.group or 0}
    if jobs.priority_class:
        pod["priorityClassName"] = jobs.priority_class
    return pod


def confined_container(name: str, image: str, jobs: JobSettings) -> dict[str, Any]:
    """Return a container without rights and with limits; it lacks a command and mounts."""
    limits = {"cpu": jobs.cpu, "memory": jobs.memory, "ephemeral-storage": jobs.scratch}
    requests = {
        "cpu": jobs.cpu_request,
        "memory": jobs.memory_request,
        "ephemeral-storage": SCRATCH_REQUEST,
    }
    return {
        "name": name,
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "workingDir": TMP,
        "resources": {"requests": requests, "limits": limits},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
    }


def _pod(order: Order, settings: KubernetesSettings) -> dict[str, Any]:
    jobs = settings.jobs
    share, own = str(order.share), str(order.folder)
    container = {
        **confined_container(CONTAINER, order.image.reference, jobs),
        "command": list(order.command),
        "env": [{"name": "PYTHONDONTWRITEBYTECODE", "value": "1"}],
        "volumeMounts": [
            {"name": "share", "mountPath": share, "readOnly": True},
            {
                "name": "share",
                "mountPath": own,
                "subPath": order.folder.relative_to(order.share).as_posix(),
            },
            {"name": "scratch", "mountPath": TMP},
        ],
    }
    pod: dict[str, Any] = {
        **confined_pod(order.image, jobs),
        "containers": [container],
        "volumes": [
            {"name": "share", **settings.volume},
            {"name": "scratch", "emptyDir": {"sizeLimit": jobs.scratch}},
        ],
    }
    if jobs.pull_secrets:
        pod["imagePullSecrets"] = [{"name": name} for name in jobs.pull_secrets]
    pod["nodeSelector"] = {**jobs.node_selector, ARCHITECTURE: architecture()}
    if jobs.tolerations:
        pod["tolerations"] = [dict(one) for one in jobs.tolerations]
    return pod


def architecture() -> str:
    """Return the nodes' name for this machine's architecture: Jobs run the daemon's own uv."""
    return ARCHITECTURES.get(platform.machine(), platform.machine())
