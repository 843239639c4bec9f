"""Builder whose commands run in Jobs of a laboratory's cluster."""

from __future__ import annotations

import threading
from pathlib import Path

from reconciler.builder.base.images import Images
from reconciler.builder.builder import Builder
from reconciler.builder.executor.kubernetes.executor import JobExecutor, Sessions
from reconciler.builder.executor.kubernetes.gateway import Gateway
from reconciler.builder.uv import uv_path
from reconciler.cluster.clusters import Clusters
from reconciler.core.definitions import Api, Instance, KubernetesTarget, Place
from reconciler.core.runtime import Image, Runtime
from reconciler.settings import BuilderSettings, KubernetesSettings
from tests.fakes.pod_status import LabImage
from tests.harness.builder import Bench
from tests.harness.laboratory import Lab
from tests.harness.release_driver import rights

SOURCES = Path("reconciler/builder")
SLOW = "import time; print('half way there', flush=True); time.sleep(60)\n"


class JobBench(Bench):
    """Bench whose base is an image; Jobs run in their own namespace."""

    def __init__(
        self, lab: Lab, root: Path, limits: dict[str, object] | None = None, **jobs: object
    ) -> None:
        super().__init__(root)
        self.lost = ""  # a node that a test has lost
        self.lab = lab
        self.namespace = lab.namespace("builds")
        lab.claim(self.namespace, "groundcrew-share", self.share.root)
        reference = f"example.test/airflow:{self.namespace}"
        lab.kubelet.images[reference] = LabImage(root=Path(self.python).parent.parent)
        self.image = Image("lab", reference, reference, 50000, 0)
        self.user, token = rights(lab, [], self.namespace)
        self.kubernetes = KubernetesSettings.model_validate(
            {
                "kubeconfig": lab.plane.kubeconfig(root / "kubeconfig", token=token),
                "clusters": {"lab": limits or {}},
                "jobs": {"namespace": self.namespace, "index_port": 0, "cpu": "1", **jobs},
            }
        )
        self.clusters = Clusters(self.kubernetes)

    def make_builder(self, **more: object) -> Builder:
        """Return a builder for the image, with the same share."""
        indexes = {"default_index": self.public.url, "allow_hosts": [self.private.host]}
        settings = BuilderSettings.model_validate({**indexes, **more})
        tools = self.share.put_tools(
            {
                "worker.py": SOURCES / "executor" / "kubernetes" / "worker.py",
                "inventory.py": SOURCES / "base" / "inventory.py",
                "uv": Path(uv_path()),
            }
        )
        self.sessions = Sessions(self.clusters, self.kubernetes, self.share, tools, Gateway(0))
        self.sessions.start()
        self._stack.callback(self.clusters.close)
        self._stack.callback(self.sessions.close)
        cache = self.share.root / "cache"
        self.images = Images(self.sessions, cache, self.state / "logs")
        return Builder(
            settings,
            self.share,
            self._export,
            cache_dir=cache,
            secrets_dir=self.secrets,
            executor=JobExecutor(self.sessions, self.image),
        )

    def instance(self) -> Instance:
        """Return a release whose pods run the image."""
        target = KubernetesTarget(self.namespace, "airflow", "lab")
        api = Api("http://127.0.0.1:1")
        return Instance("red-dev", "red", Place("i.yaml"), api, kubernetes=target)

    def inspect(self) -> Runtime:
        """Return the runtime of the image."""
        return self.images.inspect(self.image, "red")

    def jobs(self) -> list[str]:
        """Return the names of the existing Jobs."""
        return [str(j["metadata"]["name"]) for j in self.lab.api.list("jobs", self.namespace)]


class _Build(threading.Thread):
    def __init__(self, bench: JobBench, recipe: object, job: object) -> None:
        super().__init__(daemon=True)
        self.bench, self.recipe, self.job = bench, recipe, job
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            self.bench.build(self.recipe, self.job)  # type: ignore[arg-type]
        except BaseException as error:
            self.error = error


def build_in_thread(bench: JobBench, own: object, job: object) -> _Build:
    thread = _Build(bench, bench.recipe(own), job)  # type: ignore[arg-type]
    thread.start()
    return thread


def text(path: Path) -> str:
    return path.read_text() if path.exists() else ""
