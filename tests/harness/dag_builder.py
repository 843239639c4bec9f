"""Release with DAGs on the laboratory's cluster, and a builder that parses them in its pods."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from reconciler.builder.builder import Builder
from reconciler.builder.executor.kubernetes.executor import JobExecutor
from reconciler.builder.verify.dag_pods.runner import DagPods
from reconciler.cluster.clusters import Clusters
from reconciler.core.definitions import Instance, KubernetesTarget
from reconciler.core.model import DagCheck
from reconciler.daemon.deviations import base_of
from reconciler.settings import BuilderSettings
from tests.harness.job_builder import SOURCES, JobBench
from tests.harness.kube_api import Json
from tests.harness.laboratory import Lab
from tests.harness.release_driver import rights

DAGS = "/opt/airflow/dags"
DAG = (
    "from datetime import datetime\nfrom airflow import __version__\nfrom acme_own import {name}\n"
)


class DagBench(JobBench):
    """Bench whose instance has DAGs; its pods run in another namespace than builds."""

    def __init__(self, lab: Lab, root: Path, *, granted: bool = True, **jobs: Any) -> None:
        super().__init__(lab, root, **jobs)
        self.airflow = lab.namespace("airflow")
        self.dags = root / "dags"
        self.dags.mkdir()
        lab.claim(self.airflow, "groundcrew-share", self.share.root)
        lab.claim(self.airflow, "airflow-dags", self.dags)
        self.user, token = rights(lab, [self.airflow], self.namespace, dags=granted)
        config = lab.plane.kubeconfig(root / "kubeconfig", token=token)
        self.kubernetes = self.kubernetes.model_copy(update={"kubeconfig": config})
        self.clusters = Clusters(self.kubernetes)
        self.template = self.chart_template()
        self.spec: dict[str, Any] = {}

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        self.lab.drop(self.airflow)

    def make_builder(self, **more: object) -> Builder:
        """Return a builder that parses the release's DAGs."""
        plain = super().make_builder(**more)
        self.sessions.tools = self.share.put_tools(
            {
                **{path.name: path for path in self.sessions.tools.iterdir()},
                "dag_parser.py": SOURCES / "verify" / "dag_pods" / "dag_parser.py",
            }
        )
        del plain
        indexes = {"default_index": self.public.url, "allow_hosts": [self.private.host]}
        settings = BuilderSettings.model_validate({**indexes, "verify_timeout": 60, **more})
        self.pods = DagPods(
            self.sessions, lambda _: ("dag-processor", self.template), settings.verify_timeout
        )
        return Builder(
            settings,
            self.share,
            self._export,
            cache_dir=self.share.root / "cache",
            secrets_dir=self.secrets,
            executor=JobExecutor(self.sessions, self.image),
            releases=self.pods,
        )

    def instance(self) -> Instance:
        """Return the instance of a release in its own namespace."""
        target = KubernetesTarget(self.airflow, "airflow", "lab")
        return replace(super().instance(), kubernetes=target, **self.spec)

    def chart_template(self, *volumes: Json, mounts: tuple[Json, ...] = ()) -> Json:
        """Return the dag-processor's pod template as in the official chart, with DAGs on a claim.

        Other volumes may replace the claim.
        """
        share = {"persistentVolumeClaim": {"claimName": "groundcrew-share", "readOnly": True}}
        dags = {"name": "dags", "persistentVolumeClaim": {"claimName": "airflow-dags"}}
        secret = {"secretKeyRef": {"name": "airflow-metadata", "key": "connection"}}
        main = {
            "name": "dag-processor",
            "image": self.image.reference,
            "args": ["bash", "-c", "exec airflow dag-processor"],
            "env": [
                {"name": "AIRFLOW_HOME", "value": "/opt/airflow"},
                {"name": "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", "valueFrom": secret},
                {"name": "AIRFLOW__CORE__DAGBAG_IMPORT_TIMEOUT", "value": "0.5"},
                {"name": "MY_PASSWORD", "value": "of-the-release"},
            ],
            "volumeMounts": [
                {"name": "logs", "mountPath": "/opt/airflow/logs"},
                {"name": "groundcrew", "mountPath": str(self.share.root), "readOnly": True},
                *(mounts or ({"name": "dags", "mountPath": DAGS},)),
            ],
        }
        spec = {
            "serviceAccountName": "airflow-dag-processor",
            "securityContext": {"runAsUser": 50000, "fsGroup": 0},
            "containers": [main],
            "volumes": [
                {"name": "logs", "emptyDir": {}},
                {"name": "groundcrew", **share},
                *(volumes or (dags,)),
            ],
        }
        return {"metadata": {"labels": {"tier": "airflow"}}, "spec": spec}

    def made(self, **names: str) -> str:
        """Return the id of a verified build whose package `acme_own` has these names."""
        text = "".join(f"{name} = {value!r}\n" for name, value in names.items())
        recipe = self.recipe(self.package("acme-own", {"acme_own/__init__.py": text}))
        self._recipes = {**getattr(self, "_recipes", {})}
        job = self.job()
        built = self.build(recipe, job)
        self.builder.verify(job, recipe, self.runtime, self.instance(), built.build_id)
        self.builder.leave(job)
        self._recipes[built.build_id] = recipe
        return built.build_id

    def activate(self, build_id: str) -> None:
        """Point the instance to a build, as an activation does."""
        self.share.point("red-dev", base_of(self.runtime), build_id, ["dag-processor"])

    def check(self, build_id: str) -> DagCheck:
        """Parse the release's DAGs with a build."""
        job = self.job()
        self.log = job.log
        recipe = self._recipes[build_id]
        try:
            return self.builder.check_dags(job, recipe, self.runtime, self.instance(), build_id)
        finally:
            self.builder.leave(job)

    def dag_jobs(self) -> list[str]:
        """Return the names of the Jobs in the release's namespace."""
        return [str(j["metadata"]["name"]) for j in self.lab.api.list("jobs", self.airflow)]
