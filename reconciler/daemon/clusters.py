"""Builders, drivers and Jobs for instances on Kubernetes, created when first needed.

This module is imported only then: without such instances, the daemon does not load the Kubernetes
client.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection
from dataclasses import replace
from importlib import resources
from pathlib import Path

from reconciler.airflow.declared import Declared
from reconciler.airflow.driver import Driver
from reconciler.airflow.kubernetes.driver import KubernetesDriver
from reconciler.airflow.kubernetes.release import Release
from reconciler.builder.base.images import Images
from reconciler.builder.builder import Builder
from reconciler.builder.executor.kubernetes.executor import JobExecutor, Sessions
from reconciler.builder.executor.kubernetes.gateway import Gateway
from reconciler.builder.uv import uv_path
from reconciler.builder.verify.dag_pods.runner import DagPods, sweep
from reconciler.builder.wheels.in_repo import Export
from reconciler.cluster.clusters import Clusters
from reconciler.cluster.connection import Json
from reconciler.core.definitions import Instance, KubernetesTarget
from reconciler.core.errors import GroundcrewError
from reconciler.core.runtime import Image, Runtime
from reconciler.settings import Settings
from reconciler.share.share import Share

log = logging.getLogger(__name__)


class ClusterWiring:
    """Drivers, builders and inspections of all clusters.

    `check` raises if this daemon may not act; `wake` wakes the loop.
    """

    def __init__(
        self,
        settings: Settings,
        share: Share,
        export: Export,
        *,
        reserved: Callable[[str], Collection[str]],
        declared: Callable[[str], Declared],
        check: Callable[[], None],
        wake: Callable[[], None],
    ) -> None:
        self._settings = settings
        self._share = share
        self._export = export
        self._reserved = reserved
        self._lock = threading.Lock()
        self._sessions: Sessions | None = None
        self._images: Images | None = None
        self.clusters = Clusters(settings.kubernetes, check)
        self.driver: Driver = KubernetesDriver(
            self.clusters,
            settings.secrets_dir,
            declared,
            check=check,
            wake=wake,
            settle=settings.activation.settle,
            watch=settings.activation.watch,
            loader_since=share.loader_since,
        )

    @property
    def _cache(self) -> Path:
        """The cache on the share, so that Jobs read cached files at the same path."""
        return self._settings.share / "cache"

    def sessions(self) -> Sessions:
        """Return the Jobs; the first call puts the worker program and uv on the share."""
        with self._lock:
            if self._sessions is None:
                builder = resources.files("reconciler.builder")
                with (
                    resources.as_file(builder / "executor" / "kubernetes" / "worker.py") as worker,
                    resources.as_file(builder / "base" / "inventory.py") as inspect,
                    resources.as_file(builder / "verify" / "dag_pods" / "dag_parser.py") as dags,
                ):
                    tools = self._share.put_tools(
                        {
                            "worker.py": worker,
                            "inventory.py": inspect,
                            "dag_parser.py": dags,
                            "uv": Path(uv_path()),
                        }
                    )
                kubernetes = self._settings.kubernetes
                self._sessions = Sessions(
                    self.clusters,
                    kubernetes,
                    self._share,
                    tools,
                    Gateway(kubernetes.jobs.index_port),
                )
                self._sessions.start()
                self._images = Images(
                    self._sessions, self._cache, self._settings.state_dir / "logs"
                )
            return self._sessions

    def builder(self, image: Image) -> Builder:
        """Return a builder whose commands run in Jobs of an image."""
        settings, sessions = self._settings, self.sessions()
        return Builder(
            settings.builder,
            self._share,
            self._export,
            cache_dir=self._cache,
            secrets_dir=settings.secrets_dir,
            executor=JobExecutor(sessions, image),
            reserved=self._reserved,
            releases=DagPods(
                sessions,
                self._parser_of,
                settings.builder.verify_timeout,
                enabled=settings.kubernetes.verify_dags,
            ),
        )

    def _parser_of(self, instance: Instance) -> tuple[str, Json]:
        """Return the component of a release that parses its DAGs, and its pod template."""
        assert instance.kubernetes is not None, "a release is on Kubernetes"
        return Release(self.clusters.of(instance.kubernetes.context), instance).parser()

    def inspect(self, image: Image, team: str) -> Runtime:
        """Return the runtime of an image: what is installed in it."""
        self.sessions()
        assert self._images is not None, "they come with the Jobs"
        return replace(self._images.inspect(image, team), image=image)

    def sweep(self, targets: Collection[KubernetesTarget]) -> None:
        """End an earlier leader's Jobs and remove their folders, even if a cluster is away."""
        if self._settings.kubernetes.verify_dags:
            sweep(self.sessions(), {(t.context, t.namespace) for t in targets}, log.warning)
        for context in {target.context for target in targets}:
            try:
                self.sessions().sweep(context)
            except GroundcrewError as error:
                log.warning("Jobs of an earlier daemon: %s", error)
        self.sessions().tidy()

    def close(self) -> None:
        """End the Jobs and close the connections."""
        with self._lock:
            sessions, self._sessions = self._sessions, None
        if sessions is not None:
            sessions.close()
        self.clusters.close()
