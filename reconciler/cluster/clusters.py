"""All clusters by kubeconfig context; each is connected to on first use."""

from __future__ import annotations

import threading
from collections.abc import Callable

from reconciler.cluster.cluster import Cluster
from reconciler.cluster.connection import Connection
from reconciler.settings import KubernetesSettings


class Clusters:
    """Clusters that share settings; `check` raises if this daemon may not change anything."""

    def __init__(
        self, settings: KubernetesSettings, check: Callable[[], None] = lambda: None
    ) -> None:
        self._settings = settings
        self._check = check
        self._known: dict[str | None, Cluster] = {}
        self._lock = threading.Lock()

    def of(self, context: str | None) -> Cluster:
        """Return the cluster of a context; None is the daemon's own cluster. Never waits."""
        with self._lock:
            cluster = self._known.get(context)
            if cluster is None:
                limits = self._settings.cluster(context)
                connection = Connection(context, self._settings.kubeconfig, limits.request_timeout)
                cluster = self._known[context] = Cluster(connection, limits, self._check)
            return cluster

    def close(self) -> None:
        """Close all mirrors and connections."""
        with self._lock:
            known, self._known = list(self._known.values()), {}
        for cluster in known:
            cluster.close()
