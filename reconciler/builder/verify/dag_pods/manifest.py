"""Job that parses a release's DAGs with as few rights as possible.

It runs in the release's own namespace, since only there can the DAGs be mounted, but its pod is
made from an allow-list: no service account token, no variable or secret of the release (unless the
Instance has `checks: {runAs: release}`), and only local disk is writable. Only the container that
fetches from git has the git credentials, and only the one that copies settings sees the
configuration.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reconciler.builder.executor.kubernetes.manifest import (
    CONTAINER,
    FOLDER_LABEL,
    TMP,
    confined_container,
    confined_pod,
    job_document,
)
from reconciler.builder.verify.dag_pods.source import Source
from reconciler.core.runtime import Runtime
from reconciler.settings import JobSettings

Json = dict[str, Any]

COMPONENT = "dags"
INSTANCE_LABEL = "groundcrew.io/instance"
NETWORK_LABEL = "groundcrew.io/network"  # label that network policies select: none, or git
SCRATCH, CONFIG, FETCHING = "groundcrew-scratch", "groundcrew-config", "groundcrew-git"
CONFIG_FOLDER = "/groundcrew-config"
SETTINGS = f"{TMP}/settings.json"


@dataclass(frozen=True, slots=True)
class DagOrder:
    """Purpose of one Job; `program` is on the share, `reference` is a build or "none"."""

    name: str
    namespace: str
    team: str
    key: str
    instance: str
    component: str
    release: str
    candidate: str
    reference: str
    loader: Path
    program: Path
    timeout: float
    as_release: bool = False


def dag_job(order: DagOrder, source: Source, runtime: Runtime, settings: JobSettings) -> Json:
    """Return the Job's document."""
    labels = {
        "app.kubernetes.io/managed-by": "groundcrew",
        "app.kubernetes.io/component": COMPONENT,
        "groundcrew.io/team": order.team,
        "groundcrew.io/build": order.key,
        INSTANCE_LABEL: order.instance,
        FOLDER_LABEL: order.name,
        NETWORK_LABEL: "git" if source.sync else "release" if order.as_release else "none",
    }
    deadline = int(order.timeout + settings.start_timeout + 60)
    pod = _pod(order, source, runtime, settings)
    return job_document(order.name, order.namespace, labels, deadline, settings, pod)


def _pod(order: DagOrder, source: Source, runtime: Runtime, settings: JobSettings) -> Json:
    assert runtime.image is not None, "a release runs an image"
    pod = confined_pod(runtime.image, settings)
    security = pod["securityContext"]
    group = source.pod.get("fsGroup")
    if group is not None and source.sync:  # a secret's files are readable by that group
        security |= {"fsGroup": group, "fsGroupChangePolicy": "OnRootMismatch"}
    elif group is not None:
        security["supplementalGroups"] = [group]
    pod |= {
        "affinity": _beside(order),
        "initContainers": _before(order, source, runtime, settings),
        "containers": [_main(order, source, runtime, settings)],
        "volumes": _volumes(source, settings),
    }
    kept = ("nodeSelector", "tolerations", "imagePullSecrets")
    return {**pod, **{key: source.pod[key] for key in kept if key in source.pod}}


def _main(order: DagOrder, source: Source, runtime: Runtime, settings: JobSettings) -> Json:
    """Return the container that runs the DAGs."""
    assert runtime.image is not None, "a release runs an image"
    request = {
        "candidate": order.candidate,
        "reference": order.reference,
        "folder": source.folder,
        "home": source.home,
        "airflow": runtime.airflow_version,
        "loader": str(order.loader),
        "timeout": order.timeout,
        "settings": SETTINGS,
        "as_release": order.as_release,
    }
    own = {"PYTHONDONTWRITEBYTECODE": "1", "GROUNDCREW_DAGS": json.dumps(request)}
    given = {str(one["name"]): one for one in source.environment} | {
        name: {"name": name, "value": value} for name, value in source.variables.items()
    }
    variables = given | {name: {"name": name, "value": value} for name, value in own.items()}
    container = {
        **confined_container(CONTAINER, runtime.image.reference, settings),
        "command": [runtime.python, "-I", str(order.program), "check"],
        "env": [v for name, v in variables.items() if name != "GROUNDCREW_BUILD"],
        "volumeMounts": [*source.mounts, {"name": SCRATCH, "mountPath": TMP}],
    }
    if source.environment_from:
        container["envFrom"] = list(source.environment_from)
    return container


def _before(order: DagOrder, source: Source, runtime: Runtime, settings: JobSettings) -> list[Json]:
    """Return the containers that run before it: one fetches from git, one copies settings."""
    assert runtime.image is not None, "a release runs an image"
    containers: list[Json] = []
    if source.sync is not None:
        own = {key: value for key, value in source.sync.items() if key != "user"}
        container = {
            **confined_container("git-sync", str(source.sync["image"]), settings),
            **own,
            "volumeMounts": [
                *source.sync["volumeMounts"],
                {"name": FETCHING, "mountPath": TMP},
            ],
        }
        if settings.run_as != "namespace":
            container["securityContext"] = {
                **container["securityContext"],
                "runAsUser": source.sync["user"],
            }
        containers.append(container)
    if source.config:
        share = [m for m in source.mounts if _holds(m, order.program)]
        containers.append(
            {
                **confined_container("settings", runtime.image.reference, settings),
                "command": [
                    runtime.python,
                    "-I",
                    str(order.program),
                    "settings",
                    f"{CONFIG_FOLDER}/airflow.cfg",
                    SETTINGS,
                ],
                "volumeMounts": [
                    *share,
                    {"name": SCRATCH, "mountPath": TMP},
                    {"name": CONFIG, "mountPath": CONFIG_FOLDER, "readOnly": True},
                ],
            }
        )
    return containers


def _holds(mount: Mapping[str, Any], path: Path) -> bool:
    return path.is_relative_to(str(mount["mountPath"]))


def _volumes(source: Source, settings: JobSettings) -> list[Json]:
    volumes = [*source.volumes]
    names = {volume["name"] for volume in volumes}
    volumes += [volume for volume in source.sync_volumes if volume["name"] not in names]
    volumes.append({"name": SCRATCH, "emptyDir": {"sizeLimit": settings.scratch}})
    if source.sync is not None:
        volumes.append({"name": FETCHING, "emptyDir": {"sizeLimit": settings.scratch}})
    if source.config:
        only = [{"key": "airflow.cfg", "path": "airflow.cfg"}]
        config = {"name": source.config, "items": only, "optional": True}
        volumes.append({"name": CONFIG, "configMap": config})
    return volumes


def _beside(order: DagOrder) -> Json:
    """Return a preference for the component's node: some claims are mounted on one node only."""
    labels = {"tier": "airflow", "component": order.component, "release": order.release}
    term = {"labelSelector": {"matchLabels": labels}, "topologyKey": "kubernetes.io/hostname"}
    preferred = [{"weight": 100, "podAffinityTerm": term}]
    return {"podAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": preferred}}
