"""Workloads and pods of a release, found by the official chart's labels.

It reads mirrors, so it never waits, except for the one list that garbage collection needs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from datetime import datetime

from reconciler.airflow.configured import layout_of
from reconciler.cluster.cluster import Cluster
from reconciler.cluster.connection import Json
from reconciler.cluster.diagnose import main_of
from reconciler.cluster.mirror import Mirror
from reconciler.core.definitions import Instance
from reconciler.core.errors import Away
from reconciler.core.reasons import Reason
from reconciler.core.restarts import Layout
from reconciler.core.runtime import Image

TIER = "tier=airflow"
TASKS = "kubernetes_executor=True"  # on every pod that the executor creates, whatever its template
COMPONENTS = ("scheduler", "dag-processor", "triggerer", "worker", "webserver", "api-server")
FOREIGN = ("pgbouncer", "redis", "statsd")  # of the chart, in images without Airflow
PARSERS = ("dag-processor", "scheduler")  # the first that a release has parses its DAGs
KINDS = ("deployments", "statefulsets")
KUBERNETES_EXECUTOR = "KubernetesExecutor"
EXECUTORS_APART = {KUBERNETES_EXECUTOR, "CeleryExecutor", "CeleryKubernetesExecutor"}
"""Executors with which the scheduler's pod runs no tasks."""
RESTARTED_AT = "kubectl.kubernetes.io/restartedAt"
ENDED = ("Succeeded", "Failed")


class Release:
    """Release of one instance in its cluster."""

    def __init__(self, cluster: Cluster, instance: Instance) -> None:
        assert instance.kubernetes is not None, "a release is on Kubernetes"
        self.cluster = cluster
        self.namespace = instance.kubernetes.namespace
        self.name = instance.kubernetes.release
        self._instance = instance

    @property
    def pods_mirror(self) -> Mirror:
        """The pods of all releases in the namespace."""
        return self.cluster.mirror("pods", self.namespace, TIER)

    def workloads_mirror(self, kind: str) -> Mirror:
        """Return the Deployments or StatefulSets of all releases in the namespace."""
        return self.cluster.mirror(kind, self.namespace, TIER)

    def synced(self) -> None:
        """Wait until the mirrors are complete. Raises the cluster's error.

        While one of the release's objects cannot be read, nothing is decided about the release.
        """
        timeout = self.cluster.limits.request_timeout
        mirrors = [self.pods_mirror, *(self.workloads_mirror(kind) for kind in KINDS)]
        for mirror in mirrors:
            mirror.synced(timeout)
            error = mirror.unreadable(self.name)
            if error is not None:
                raise self.cluster.unexpected(error)

    @property
    def seen_since(self) -> float:
        """The time since which every change was seen: before, cluster or daemon were away."""
        mirrors = [self.pods_mirror, *(self.workloads_mirror(kind) for kind in KINDS)]
        return max(mirror.since for mirror in mirrors)

    def workloads(self) -> list[tuple[str, Json]]:
        """Return (kind, object) of every Airflow component. Raises Away("ReleaseMissing")."""
        workloads = [
            (kind, item)
            for kind in KINDS
            for item in self.workloads_mirror(kind).items()
            if self._mine(item) and component_of(item) in COMPONENTS
        ]
        if not workloads:
            raise Away(
                Reason.RELEASE_MISSING,
                f"instance {self._instance.name}: no Airflow with the labels {TIER},"
                f"release={self.name} in namespace {self.namespace} of cluster "
                f"{self.cluster.context}",
                self._instance.place,
            )
        return workloads

    def parser(self) -> tuple[str, Json]:
        """Return the component that parses DAGs, and its pod template; raises Away.

        The cluster is asked: mirrors leave out variables and volumes.
        """
        labels = f"{TIER},release={self.name}"
        templates = {
            component_of(item): item["spec"]["template"]
            for kind in KINDS
            for item in self.cluster.list(kind, self.namespace, labels)
        }
        for component in PARSERS:
            if component in templates:
                return component, templates[component]
        raise Away(
            Reason.RELEASE_MISSING,
            f"instance {self._instance.name}: release {self.name} in {self.namespace} has neither "
            f"a dag-processor nor a scheduler",
            self._instance.place,
        )

    def components(self) -> frozenset[str]:
        """Return the components that the release has, without those scaled to zero."""
        return frozenset(component_of(item) for _, item in self.workloads() if replicas_of(item))

    def tasks_apart(self) -> bool:
        """Return True if all tasks run in separate pods, which a restart does not touch."""
        return self._executors() == {KUBERNETES_EXECUTOR}

    def _executors(self) -> set[str]:
        return {
            str(labels_of(item).get("executor", ""))
            for _, item in self.workloads()
            if component_of(item) == "scheduler"
        }

    def layout(self) -> Layout:
        """Return the components, and what the pods' variables say of Airflow's configuration."""
        executors = self._executors()
        pods = self.cluster.list("pods", self.namespace, f"{TIER},release={self.name}")
        settings = [
            str(variable.get("value") or "")
            for pod in pods
            for container in pod["spec"].get("containers") or []
            for variable in container.get("env") or []
            if str(variable.get("name")).startswith("AIRFLOW__")
        ]
        runs_tasks = not executors or not executors <= EXECUTORS_APART
        return layout_of(self.components(), settings, runs_tasks=runs_tasks)

    def pods(self) -> list[Json]:
        """Return the pods of Airflow's components, without ended ones.

        Pods without a controller are those of tasks, which may have all labels of their template.
        """
        return [
            pod
            for pod in self.pods_mirror.items()
            if self._mine(pod)
            and component_of(pod) in COMPONENTS
            and controller_of(pod)
            and (pod["status"].get("phase") not in ENDED)
        ]

    def pods_of(self, kind: str, workload: Json) -> list[Json]:
        """Return one workload's pods, without ended ones; labels may match several workloads."""
        return [pod for pod in self.pods() if _owns(kind, workload, pod)]

    def oldest(self, now: float) -> float | None:
        """Return when the oldest pod of the release, including tasks, was created, or None.

        Pods without Airflow load no build, and no rollout replaces them: they do not count. Asks
        the cluster for pods of tasks whose template lacks the chart's labels: those without a
        `release` may belong to any in the namespace. Raises the cluster's error.
        """
        mirror = self.pods_mirror
        if not mirror.fresh:
            return None
        others = self.cluster.list("pods", self.namespace, f"{TASKS},tier!=airflow")
        mine = [
            pod
            for pod in (*mirror.items(), *others)
            if (self._mine(pod) and component_of(pod) not in FOREIGN)
            or (_of_task(pod) and "release" not in labels_of(pod))
        ]
        alive = [pod for pod in mine if pod["status"].get("phase") not in ENDED]
        return min((seconds(p["metadata"].get("creationTimestamp")) for p in alive), default=now)

    def images(self) -> set[Image]:
        """Return the images that the pods which load builds run now."""
        context = self._instance.kubernetes.context if self._instance.kubernetes else None
        images = (_image(pod, context) for pod in self._loading())
        return {image for image in images if image is not None}

    def outgoing(self) -> tuple[str, ...]:
        """Return the image names of components whose pods have several: a rollout is in progress.

        A pod that has not started yet counts too: it is the first sign of an upgrade.
        """
        names: dict[str, set[str]] = {}
        for pod in self._loading():
            for container in pod["spec"].get("containers") or []:
                if container["name"] == main_of(pod):
                    names.setdefault(component_of(pod), set()).add(str(container.get("image")))
        return tuple(sorted({n for several in names.values() if len(several) > 1 for n in several}))

    def _loading(self) -> list[Json]:
        """Return the pods that load builds, without those that are terminating."""
        return [
            pod
            for pod in self.pods()
            if "deletionTimestamp" not in pod["metadata"]
            and component_of(pod) in self._instance.load_into
        ]

    def mark(self) -> str:
        """Return a fingerprint that changes with the images, including mixtures of several.

        "" while no pod reports its image.
        """
        images = self.images() if self.pods_mirror.fresh else set()
        if not images:
            return ""
        parts = (*sorted({image.id for image in images}), *self.outgoing())
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]

    def _mine(self, found: Json) -> bool:
        return bool(labels_of(found).get("release") == self.name)


def labels_of(found: Json) -> Json:
    """Return an object's labels."""
    return found["metadata"].get("labels") or {}


def component_of(found: Json) -> str:
    """Return the chart's name of a component."""
    return str(labels_of(found).get("component", ""))


def replicas_of(workload: Json) -> int:
    """Return how many pods a workload should have."""
    return int(workload["spec"].get("replicas", 1))


def controller_of(pod: Json) -> Json:
    """Return the reference to a pod's controller; empty for a bare pod."""
    owners: Iterable[Json] = pod["metadata"].get("ownerReferences") or []
    return next((owner for owner in owners if owner.get("controller")), {})


def annotation(found: Json, key: str) -> str:
    """Return one annotation of an object or of a pod template, or ""."""
    return str((found.get("metadata", {}).get("annotations") or {}).get(key, ""))


def mark_of(pod: Json | None) -> tuple[str, ...]:
    """Return the parts of a pod's document that the fingerprint of its release depends on."""
    if pod is None:
        return ()
    gone = "deletionTimestamp" in pod["metadata"]
    return (component_of(pod), str(gone), *sorted(_ids(pod)))


def seconds(value: object) -> float:
    """Return a Kubernetes time as seconds since the epoch, or 0.0 for none."""
    if not isinstance(value, str) or not value:
        return 0.0
    return datetime.fromisoformat(value).timestamp()


def container_of(pod: Json) -> Json | None:
    """Return the status of the container that runs Airflow."""
    statuses: Iterable[Json] = pod["status"].get("containerStatuses") or []
    wanted = main_of(pod)
    return next((c for c in statuses if c["name"] == wanted), None)


def _owns(kind: str, workload: Json, pod: Json) -> bool:
    """Return True if a workload owns a pod; a Deployment does so through its ReplicaSets."""
    owner, meta = controller_of(pod), workload["metadata"]
    if kind == "statefulsets":
        return bool(owner.get("uid") == meta["uid"])
    name = f"{meta['name']}-{labels_of(pod).get('pod-template-hash')}"
    return bool(owner.get("kind") == "ReplicaSet" and owner.get("name") == name)


def _of_task(pod: Json) -> bool:
    key, _, value = TASKS.partition("=")
    return bool(labels_of(pod).get(key) == value)


def _ids(pod: Json) -> list[str]:
    return [str(c.get("imageID", "")) for c in pod["status"].get("containerStatuses") or []]


def _image(pod: Json, context: str | None) -> Image | None:
    status = container_of(pod)
    if status is None or not status.get("imageID"):
        return None
    spec = next(c for c in pod["spec"]["containers"] if c["name"] == status["name"])
    own, pods = spec.get("securityContext") or {}, pod["spec"].get("securityContext") or {}
    mark = str(status["imageID"]).partition("://")[2] or str(status["imageID"])
    return Image(
        context=context,
        reference=mark if "@sha256:" in mark else str(spec["image"]),
        id=mark.rpartition("@")[2],  # nodes may name one image by different registries
        user=own.get("runAsUser", pods.get("runAsUser")),
        group=own.get("runAsGroup", pods.get("runAsGroup")),
    )
