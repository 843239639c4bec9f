"""Airflow 3 release as the official chart renders it for the KubernetesExecutor.

Kinds, names, labels, commands and mounts are those of chart 1.22.0; the share and the loader are
set as `groundcrew airflow-values` says. Left out is what only costs time here: log groomers, init
containers that wait for the migration, and probes that start a process of their own.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import yaml

from tests.harness.kube_api import Json

USER = 50000
HOME = "/opt/airflow"
ADMIN = "admin"  # the user and its password
CONFIG = """\
[core]
auth_manager = airflow.providers.fab.auth_manager.fab_auth_manager.FabAuthManager
dags_folder = /opt/airflow/dags
execution_api_server_url = http://{address}:8080/execution/
executor = KubernetesExecutor
load_examples = False
[dag_processor]
min_file_process_interval = 20
refresh_interval = 5
[fab]
enable_proxy_fix = True
[kubernetes_executor]
delete_worker_pods = False
namespace = {namespace}
pod_template_file = /opt/airflow/pod_templates/pod_template_file.yaml
worker_container_repository = {repository}
worker_container_tag = {tag}
[workers]
execution_api_timeout = 60
[logging]
colored_console_log = False
"""


@dataclass(frozen=True, slots=True)
class AirflowRelease:
    """One release; `share` is the share's folder on the node, at the same path in the pods."""

    namespace: str
    image: str
    database: str
    address: str  # of the service airflow-api-server
    instance: str
    share: Path
    dags: Path
    logs: Path
    name: str = "airflow"

    def preparation(self) -> list[Json]:
        """Return accounts, configuration, and the Job that sets the database up."""
        command = f"airflow db migrate && airflow users create -r Admin -u {ADMIN} -p {ADMIN} " \
                "-e admin@example.com -f admin -l user"  # fmt: skip
        job: Json = {
            "apiVersion": "batch/v1", "kind": "Job",
            "metadata": {"name": f"{self.name}-run-airflow-migrations",
                         "labels": self._labels("run-airflow-migrations")},
            "spec": {"template": {"metadata": {"labels": self._labels("run-airflow-migrations")},
                                  "spec": {
                "restartPolicy": "OnFailure",
                "securityContext": {"runAsUser": USER},
                "containers": [self._container("run-airflow-migrations", command)],
                "volumes": self._volumes(),
            }}},
        }  # fmt: skip
        return [*self._accounts(), *self._settings(), job]

    def components(self) -> list[Json]:
        """Return the Service, and the components that run all the time."""
        probe = {
            "httpGet": {"path": "/api/v2/monitor/health", "port": 8080},
            "periodSeconds": 5, "timeoutSeconds": 20, "failureThreshold": 60,
        }  # fmt: skip
        server = self._controller("Deployment", "api-server", readinessProbe=probe)
        service: Json = {
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": f"{self.name}-api-server", "labels": self._labels("api-server")},
            "spec": {
                "clusterIP": self.address, "selector": self._labels("api-server"),
                "ports": [{"name": "api-server", "port": 8080}],
            },
        }  # fmt: skip
        return [
            service, server, self._controller("Deployment", "scheduler"),
            self._controller("Deployment", "dag-processor"),
            self._controller("StatefulSet", "triggerer"),
        ]  # fmt: skip

    def _labels(self, component: str) -> dict[str, str]:
        return {"tier": "airflow", "component": component, "release": self.name}

    def _controller(self, kind: str, component: str, **more: Json) -> Json:
        labels = self._labels(component)
        own = {"executor": "KubernetesExecutor"} if component == "scheduler" else {}
        pod: Json = {
            "serviceAccountName": f"{self.name}-{component}",
            "securityContext": {"runAsUser": USER, "fsGroup": 0},
            "terminationGracePeriodSeconds": 10,
            "containers": [self._container(component, f"exec airflow {component}", **more)],
            "volumes": self._volumes(),
        }
        spec: Json = {
            "replicas": 1, "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": pod},
        }  # fmt: skip
        if kind == "StatefulSet":
            spec["serviceName"] = f"{self.name}-{component}"
        return {
            "apiVersion": "apps/v1", "kind": kind, "spec": spec,
            "metadata": {"name": f"{self.name}-{component}",
                         "labels": {**labels, **own, "chart": "airflow-1.22.0",
                                    "heritage": "Helm"}},
        }  # fmt: skip

    def _container(self, name: str, words: str, **more: Json) -> Json:
        return {
            "name": name, "image": self.image, "imagePullPolicy": "IfNotPresent",
            "args": ["bash", "-c", words], "env": self._environment(),
            "securityContext": {
                "allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}
            },
            "volumeMounts": [
                {"name": "config", "mountPath": f"{HOME}/airflow.cfg", "subPath": "airflow.cfg",
                 "readOnly": True},
                {"name": "config", "readOnly": True, "subPath": "pod_template_file.yaml",
                 "mountPath": f"{HOME}/pod_templates/pod_template_file.yaml"},
                *self._mounts(),
            ],
            **more,
        }  # fmt: skip

    def _mounts(self) -> list[Json]:
        return [
            {"name": "logs", "mountPath": f"{HOME}/logs"},
            {"name": "dags", "mountPath": f"{HOME}/dags", "readOnly": True},
            {"name": "groundcrew", "mountPath": str(self.share), "readOnly": True},
        ]

    def _volumes(self) -> list[Json]:
        claim = {"claimName": "groundcrew-share", "readOnly": True}
        return [
            {"name": "config", "configMap": {"name": f"{self.name}-config"}},
            {"name": "logs", "hostPath": {"path": str(self.logs)}},
            {"name": "dags", "hostPath": {"path": str(self.dags)}},
            {"name": "groundcrew", "persistentVolumeClaim": claim},
        ]

    def _environment(self) -> list[Json]:
        def secret(name: str) -> Json:
            return {"secretKeyRef": {"name": f"{self.name}-secrets", "key": name}}

        return [
            {"name": "AIRFLOW_HOME", "value": HOME},
            {"name": "AIRFLOW__CORE__FERNET_KEY", "valueFrom": secret("fernet-key")},
            {"name": "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", "valueFrom": secret("connection")},
            {"name": "AIRFLOW__API__SECRET_KEY", "valueFrom": secret("api-secret-key")},
            {"name": "AIRFLOW__API_AUTH__JWT_SECRET", "valueFrom": secret("jwt-secret")},
            {"name": "PYTHONPATH", "value": f"{self.share}/instances/{self.instance}/loader"},
        ]

    def _settings(self) -> list[Json]:
        repository, _, tag = self.image.rpartition(":")
        config = CONFIG.format(
            address=self.address, namespace=self.namespace, repository=repository, tag=tag
        )
        template = {
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "placeholder-name", "labels": self._labels("worker")},
            "spec": {
                "restartPolicy": "Never", "serviceAccountName": f"{self.name}-worker",
                "securityContext": {"runAsUser": USER, "fsGroup": 0},
                "containers": [{**self._container("base", ""), "args": None}],
                "volumes": self._volumes(),
            },
        }  # fmt: skip
        secrets = {
            "fernet-key": "Zm9vYmFyYmF6cXV4Zm9vYmFyYmF6cXV4Zm9vYmFyYmE=",
            "connection": f"postgresql+psycopg2://{self.database}",
            "api-secret-key": "api-secret-key-of-a-test", "jwt-secret": "jwt-secret-of-a-test" * 4,
        }  # fmt: skip
        return [
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": f"{self.name}-config"},
             "data": {"airflow.cfg": config, "pod_template_file.yaml": yaml.safe_dump(template)}},
            {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": f"{self.name}-secrets"},
             "stringData": secrets},
        ]  # fmt: skip

    def _accounts(self) -> list[Json]:
        names = ("api-server", "scheduler", "dag-processor", "triggerer", "worker")
        role = f"{self.name}-pod-launcher-role"
        verbs = ["create", "list", "get", "patch", "watch", "delete"]
        rules = [
            {"apiGroups": [""], "resources": ["pods"], "verbs": verbs},
            {"apiGroups": [""], "resources": ["pods/log"], "verbs": ["get"]},
            {"apiGroups": [""], "resources": ["events"], "verbs": ["list"]},
        ]
        group = "rbac.authorization.k8s.io"
        accounts: list[Json] = [
            {"apiVersion": "v1", "kind": "ServiceAccount",
             "metadata": {"name": f"{self.name}-{name}"}} for name in names
        ]  # fmt: skip
        subjects = [
            {"kind": "ServiceAccount", "name": f"{self.name}-{name}", "namespace": self.namespace}
            for name in ("scheduler", "worker")
        ]
        return [
            *accounts,
            {"apiVersion": f"{group}/v1", "kind": "Role", "metadata": {"name": role},
             "rules": rules},
            {"apiVersion": f"{group}/v1", "kind": "RoleBinding",
             "metadata": {"name": f"{self.name}-pod-launcher-rolebinding"},
             "roleRef": {"apiGroup": group, "kind": "Role", "name": role}, "subjects": subjects},
        ]  # fmt: skip
