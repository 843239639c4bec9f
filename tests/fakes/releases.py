"""Releases of Airflow as the official Helm chart renders them, seen from outside.

Names, kinds, labels, containers, security contexts and update strategies are the chart's (1.16 to
1.18: `useStandardNaming` off; sets of workers as newer ones create them); probes, secrets and
configuration are left out. Every pod template may be given annotations that tell the laboratory's
kubelet how its pods behave.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Json = dict[str, Any]

KUBERNETES, CELERY, LOCAL = "KubernetesExecutor", "CeleryExecutor", "LocalExecutor"
GRACE = {"scheduler": 10, "triggerer": 60, "dag-processor": 60, "worker": 600}  # chart's defaults
SERVING = {"webserver", "api-server"}


@dataclass(frozen=True, slots=True)
class Release:
    """Helm release.

    `persistence`: workers and the triggerer keep their logs on volumes, which makes them
    StatefulSets (the chart's default), as well as the scheduler with LocalExecutor. `groomers`:
    whether containers that remove old logs exist. `git_sync`: DAGs come from git, by containers of
    another image. `grace`: termination grace period in seconds, for all. `volumes` and `mounts` are
    those of the chart, which reach every Airflow container. `sets`: names of `workers.celery.sets`,
    whose workloads are in addition to that of the default workers and have the same component.
    `annotations`: by component.
    """

    name: str = "airflow"
    version: str = "3.1.0"
    executor: str = KUBERNETES
    image: str = ""
    uid: int = 50000
    persistence: bool = True
    groomers: bool = True
    statsd: bool = True
    git_sync: bool = False
    grace: int | None = None
    sets: tuple[str, ...] = ()
    replicas: Mapping[str, int] = field(default_factory=dict)
    volumes: tuple[Json, ...] = ()
    mounts: tuple[Json, ...] = ()
    env: tuple[Json, ...] = ()
    annotations: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    @property
    def reference(self) -> str:
        """The image of all its Airflow containers."""
        return self.image or f"apache/airflow:{self.version}"

    @property
    def components(self) -> dict[str, str]:
        """The kind of workload by component, without statsd and redis."""
        local = self.executor == LOCAL
        lasting = "StatefulSet" if self.persistence else "Deployment"
        kinds = {"scheduler": lasting if local else "Deployment", "triggerer": lasting}
        if self.version.startswith("2."):
            kinds["webserver"] = "Deployment"
        else:
            kinds |= {"api-server": "Deployment", "dag-processor": "Deployment"}
        if self.executor == CELERY:
            kinds["worker"] = lasting
        return kinds

    @property
    def workloads(self) -> list[tuple[str, str]]:
        """The (kind, name) of the workloads of Airflow's components."""
        workloads = [(kind, f"{self.name}-{name}") for name, kind in self.components.items()]
        return workloads + [
            (self.components["worker"], f"{self.name}-worker-{s}") for s in self.sets
        ]

    def manifests(self, namespace: str) -> list[Json]:
        """Return everything in the release that runs, with its service accounts."""
        workloads = [self._workload(kind, name) for name, kind in self.components.items()]
        workloads += [self._workload(self.components["worker"], "worker", s) for s in self.sets]
        if self.statsd:
            workloads.append(self._plain("Deployment", "statsd", "prom/statsd-exporter:v0.28"))
        if self.executor == CELERY:
            workloads.append(self._plain("StatefulSet", "redis", "redis:7.2-bookworm"))
        accounts = [
            {
                "apiVersion": "v1",
                "kind": "ServiceAccount",
                "metadata": {"name": one["spec"]["template"]["spec"]["serviceAccountName"]},
            }
            for one in workloads
        ]
        if self.executor == KUBERNETES:
            name = {"name": f"{self.name}-worker"}
            accounts.append({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": name})
        for one in (*accounts, *workloads):
            one["metadata"]["namespace"] = namespace
        return [*accounts, *workloads]

    def task_pod(self, namespace: str, name: str, annotations: Mapping[str, str]) -> Json:
        """Return a pod in which KubernetesExecutor runs one task."""
        labels = {
            "tier": "airflow",
            "component": "worker",
            "release": self.name,
            "kubernetes_executor": "True",
            "airflow-worker": "7",
            "airflow_version": self.version,
            "dag_id": "example",
            "task_id": "one",
            "try_number": "1",
        }
        spec = self._pod_spec(
            "worker", self._airflow_container("base", ["airflow", "tasks", "run"])
        )
        return {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": name,
                "namespace": namespace,
                "labels": labels,
                "annotations": dict(annotations),
            },
            "spec": {**spec, "restartPolicy": "Never"},
        }

    # --------------------------------------------------------------------------------------- pieces

    def _labels(self, component: str) -> dict[str, str]:
        return {"tier": "airflow", "component": component, "release": self.name}

    def _workload(self, kind: str, component: str, worker_set: str = "") -> Json:
        """Return one of Airflow's own components, or one set of its workers."""
        verb = {"worker": "celery worker"}.get(component, component)
        containers = [self._airflow_container(component, ["bash", "-c", f"exec airflow {verb}"])]
        if component not in SERVING and self.groomers:
            containers.append(
                self._airflow_container(f"{component}-log-groomer", ["bash", "/clean-logs"])
            )
        wait = self._airflow_container(
            "wait-for-airflow-migrations", ["airflow", "db", "check-migrations"]
        )
        spec = self._pod_spec(component, *containers)
        spec["initContainers"] = [wait]
        if self.git_sync and component not in SERVING:
            sync = {"image": "registry.k8s.io/git-sync/git-sync:v4.3.0"}
            spec["initContainers"].append({"name": "git-sync-init", **sync})
            spec["containers"].append({"name": "git-sync", **sync})
        workload = self._shell(kind, component, spec, worker_set)
        if component == "scheduler":
            workload["metadata"]["labels"]["executor"] = self.executor
        if component in SERVING:
            workload["spec"]["strategy"] = {
                "type": "RollingUpdate",
                "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0},
            }
        if kind == "StatefulSet":
            spec["volumes"] = [v for v in spec["volumes"] if v["name"] != "logs"]
            workload["spec"]["volumeClaimTemplates"] = [
                {
                    "metadata": {"name": "logs"},
                    "spec": {
                        "accessModes": ["ReadWriteOnce"],
                        "resources": {"requests": {"storage": "100Gi"}},
                    },
                }
            ]
        return workload

    def _plain(self, kind: str, component: str, image: str) -> Json:
        """Return a part of the release that is not Airflow."""
        container = {"name": component, "image": image, "imagePullPolicy": "IfNotPresent"}
        return self._shell(
            kind,
            component,
            {
                "serviceAccountName": f"{self.name}-{component}",
                "containers": [container],
            },
        )

    def _shell(self, kind: str, component: str, pod: Json, worker_set: str = "") -> Json:
        labels = self._labels(component) | ({"worker-set": worker_set} if worker_set else {})
        annotations = {"checksum/airflow-config": "0" * 64, **self.annotations.get(component, {})}
        own = {"serviceName": f"{self.name}-{component}"} if kind == "StatefulSet" else {}
        part = f"{component}-{worker_set}" if worker_set else component
        return {
            "apiVersion": "apps/v1",
            "kind": kind,
            "metadata": {
                "name": f"{self.name}-{part}",
                "labels": {**labels, "chart": "airflow-1.18.0", "heritage": "Helm"},
            },
            "spec": {
                **own,
                "replicas": self.replicas.get(part, 1),
                "selector": {"matchLabels": labels},
                "template": {
                    "metadata": {"labels": labels, "annotations": annotations},
                    "spec": pod,
                },
            },
        }

    def _airflow_container(self, name: str, arguments: list[str]) -> Json:
        return {
            "name": name,
            "image": self.reference,
            "imagePullPolicy": "IfNotPresent",
            "args": arguments,
            "env": list(self.env),
            "securityContext": {
                "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["ALL"]},
            },
            "volumeMounts": [{"name": "logs", "mountPath": "/opt/airflow/logs"}, *self.mounts],
        }

    def _pod_spec(self, component: str, *containers: Json) -> Json:
        return {
            "restartPolicy": "Always",
            "serviceAccountName": f"{self.name}-{component}",
            "securityContext": {"runAsUser": self.uid, "fsGroup": 0},
            "terminationGracePeriodSeconds": self.grace or GRACE.get(component, 30),
            "containers": list(containers),
            "volumes": [{"name": "logs", "emptyDir": {}}, *self.volumes],
        }
