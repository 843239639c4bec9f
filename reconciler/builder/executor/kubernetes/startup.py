"""Start of a Job's pod: finds the pod, and tells when it has had its time to start.

Used by sessions of builds and by the Jobs that parse DAGs; each decides what a late start means.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from reconciler.builder.executor.kubernetes.outcomes import hindrance
from reconciler.cluster.cluster import Cluster
from reconciler.cluster.connection import Json
from reconciler.core.errors import GroundcrewError
from reconciler.core.reasons import Reason

QUERY_INTERVAL = 3.0  # seconds between two queries about a Job that has no pod
START_PATIENCE = 10.0  # seconds in which an obstacle to a start may disappear by itself


@dataclass(slots=True)
class Startup:
    """Start of the pod of one Job; `selector` are labels of all such pods in the namespace."""

    cluster: Cluster
    namespace: str
    selector: str
    job: str
    timeout: float
    _queried: float = 0.0
    _hindered: float = 0.0
    _refusals: list[Json] = field(default_factory=list)

    def pod(self) -> Json | None:
        """Return the Job's pod as last seen."""
        for pod in self.cluster.mirror("pods", self.namespace, self.selector).items():
            labels = pod["metadata"].get("labels") or {}
            if labels.get("batch.kubernetes.io/job-name") == self.job:
                return dict(pod)
        return None

    def late(self, pod: Json | None, waited: float, check: Callable[[], None]) -> str:
        """Return why the pod has not started in its time, or "" while it may still start.

        `check` is called now and then while there is no pod: it raises if the Job is gone.
        """
        now = time.monotonic()
        if pod is None and waited > QUERY_INTERVAL and now - self._queried > QUERY_INTERVAL:
            self._queried = now
            check()
            self._refusals = self._query_refusals()
        reason, message = hindrance(pod, self._refusals)
        if not reason:
            self._hindered = 0.0
        elif not self._hindered:
            self._hindered = now
        limits = self.cluster.limits
        patience = limits.schedule_timeout if reason is Reason.UNSCHEDULABLE else START_PATIENCE
        is_late = waited > self.timeout or (self._hindered and now - self._hindered > patience)
        if not is_late:
            return ""
        message = message or ("its pod is pending" if pod is not None else "it has no pod")
        return f"Job {self.job} did not start within {waited:.0f} s: {message}"

    def _query_refusals(self) -> list[Json]:
        """Return the events of the Job that say why it gets no pod."""
        about = f"involvedObject.kind=Job,involvedObject.name={self.job},reason=FailedCreate"
        try:
            return self.cluster.list("events", self.namespace, fields=about)
        except GroundcrewError:
            return []  # the wait has its end without them
