"""Airflow 3 release as the official chart renders it.

Kinds, names, labels, accounts, commands, variables and mounts are those of chart 1.22.0, which
`chart.yaml` lists; the share and the loader are set as `groundcrew airflow-values` says. Left out
is what only costs time here: log groomers, init containers that wait for the migration, and probes
that start a process of their own.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import yaml

from tests.harness.kube_api import Json
from tests.harness.node.airflow_git import FOLDER, with_git_sync
from tests.harness.node.airflow_settings import (
    CONFIG,
    HOME,
    KUBERNETES,
    accounts,
    environment,
    secrets,
)
from tests.harness.node.airflow_shapes import PROCESSOR, Component, components_of

USER = 50000
ADMIN = "admin"  # the user and its password
MIGRATION = "run-airflow-migrations"


@dataclass(frozen=True, slots=True)
class AirflowRelease:
    """One release; `share` is the share's folder on the node, at the same path in the pods.

    The namespace has the claims `groundcrew-share`, `airflow-dags` and `airflow-logs`. A release
    that is not `connected` has neither share nor loader.
    """

    namespace: str
    image: str
    database: str
    address: str  # of the service of the component with the REST API
    instance: str
    share: Path
    executor: str = KUBERNETES
    airflow: str = "3.2.2"
    broker: str = ""  # URL of Redis, for CeleryExecutor
    git: str = ""  # URL of the repository from which the processor's DAGs come; "": the claim
    name: str = "airflow"
    connected: bool = True

    def preparation(self) -> list[Json]:
        """Return accounts, configuration, and the Job that sets the database up."""
        command = (
            f"airflow db migrate && airflow users create -r Admin -u {ADMIN} -p {ADMIN} "
            "-e admin@example.com -f admin -l user"
        )
        container = self._container(Component("Job", MIGRATION), command)
        config = [m for m in container["volumeMounts"] if m["name"] != "logs"]
        pod = {
            "restartPolicy": "OnFailure",
            "serviceAccountName": f"{self.name}-migrate-database-job",
            "securityContext": {"runAsUser": USER, "fsGroup": 0},
            "containers": [
                {
                    **container,
                    "volumeMounts": config,
                    "env": [{"name": "PYTHONUNBUFFERED", "value": "1"}, *container["env"]],
                }
            ],
            "volumes": self._volumes(),
        }
        job: Json = {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {"name": f"{self.name}-{MIGRATION}", "labels": self._labels(MIGRATION)},
            "spec": {"template": {"metadata": {"labels": self._labels(MIGRATION)}, "spec": pod}},
        }
        settings = [*secrets(self.name, self.database, self.broker), self.config()]
        return [*accounts(self.name, self.namespace), *settings, job]

    def components(self) -> list[Json]:
        """Return the Service, and the components that run all the time."""
        server, *others = components_of(self.executor, self.airflow)
        probe = {
            "httpGet": {"path": server.health, "port": 8080},
            "periodSeconds": 5,
            "timeoutSeconds": 20,
            "failureThreshold": 60,
        }
        service: Json = {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": f"{self.name}-{server.name}", "labels": self._labels(server.name)},
            "spec": {
                "clusterIP": self.address,
                "selector": self._labels(server.name),
                "ports": [{"name": server.name, "port": 8080}],
            },
        }
        serving = self._controller(server, readinessProbe=probe)
        return [service, serving, *map(self._controller, others)]

    def pod_template(self) -> Json:
        """Return the template of the pods of tasks."""
        container = self._container(Component("Pod", "worker", has_dags=True), "")
        mode = {"name": "AIRFLOW__CORE__EXECUTOR", "value": KUBERNETES}
        return {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "placeholder-name", "labels": self._labels("worker")},
            "spec": {
                "restartPolicy": "Never",
                "serviceAccountName": f"{self.name}-worker",
                "securityContext": {"runAsUser": USER, "fsGroup": 0},
                "terminationGracePeriodSeconds": 600,
                "containers": [
                    {**container, "name": "base", "args": None, "env": [mode, *container["env"]]}
                ],
                "volumes": self._volumes(),
            },
        }

    def _labels(self, component: str) -> dict[str, str]:
        return {"tier": "airflow", "component": component, "release": self.name}

    def _controller(self, component: Component, **more: Json) -> Json:
        name, labels = f"{self.name}-{component.name}", self._labels(component.name)
        own = {"executor": self.executor} if component.name == "scheduler" else {}
        container = self._container(component, component.command)
        pod: Json = {
            "serviceAccountName": name,
            "securityContext": {"runAsUser": USER, "fsGroup": 0},
            "terminationGracePeriodSeconds": component.grace,
            "containers": [{**container, **more}],
            "volumes": self._volumes(),
        }
        if self.git and component is PROCESSOR:
            pod = with_git_sync(pod, self.git)
        spec: Json = {
            "replicas": 1,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": pod},
        }
        if component.kind == "StatefulSet":
            spec["serviceName"] = name
        chart = {"chart": "airflow-1.22.0", "heritage": "Helm"}
        return {
            "apiVersion": "apps/v1",
            "kind": component.kind,
            "spec": spec,
            "metadata": {"name": name, "labels": {**labels, **own, **chart}},
        }

    def _container(self, component: Component, words: str) -> Json:
        loader = {
            "name": "PYTHONPATH",
            "value": f"{self.share}/instances/{self.instance}/loader",
        }
        variables = environment(
            self.name, signs=component.signs, celery=bool(self.broker), airflow=self.airflow
        )
        return {
            "name": component.name,
            "image": self.image,
            "imagePullPolicy": "IfNotPresent",
            "args": ["bash", "-c", words],
            "env": [*variables, *([loader] if self.connected else [])],
            "securityContext": {
                "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["ALL"]},
            },
            "volumeMounts": self._mounts(component),
        }

    def _mounts(self, component: Component) -> list[Json]:
        template = {
            "name": "config",
            "mountPath": f"{HOME}/pod_templates/pod_template_file.yaml",
            "subPath": "pod_template_file.yaml",
            "readOnly": True,
        }
        dags = {"name": "dags", "mountPath": f"{HOME}/dags"}
        share = {"name": "groundcrew", "mountPath": str(self.share), "readOnly": True}
        return [
            {
                "name": "config",
                "mountPath": f"{HOME}/airflow.cfg",
                "subPath": "airflow.cfg",
                "readOnly": True,
            },
            {
                "name": "config",
                "mountPath": f"{HOME}/config/airflow_local_settings.py",
                "subPath": "airflow_local_settings.py",
                "readOnly": True,
            },
            {"name": "logs", "mountPath": f"{HOME}/logs"},
            *([template] if component.places else []),
            *([dags] if component.has_dags else []),
            *([share] if self.connected else []),
        ]

    def _volumes(self) -> list[Json]:
        claim = {"claimName": "groundcrew-share", "readOnly": True}
        share = {"name": "groundcrew", "persistentVolumeClaim": claim}
        return [
            {"name": "config", "configMap": {"name": f"{self.name}-config"}},
            {"name": "logs", "persistentVolumeClaim": {"claimName": "airflow-logs"}},
            {"name": "dags", "persistentVolumeClaim": {"claimName": "airflow-dags"}},
            *([share] if self.connected else []),
        ]

    def config(self) -> Json:
        """Return the ConfigMap with the settings and the template of the pods of tasks."""
        repository, _, tag = self.image.rpartition(":")
        config = CONFIG.format(
            address=self.address,
            namespace=self.namespace,
            repository=repository,
            tag=tag,
            executor=self.executor,
            standalone=not self.airflow.startswith("2."),
            dags=FOLDER if self.git else f"{HOME}/dags",
        )
        return {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": f"{self.name}-config"},
            "data": {
                "airflow.cfg": config,
                "airflow_local_settings.py": "",
                "pod_template_file.yaml": yaml.safe_dump(self.pod_template()),
            },
        }
