"""What of a release is there: its workloads and pods by the official chart's labels.

Reads mirrors, so it never waits, but for the one list that garbage collection asks for.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from datetime import datetime

from reconciler.cluster.cluster import Cluster
from reconciler.cluster.connection import Json
from reconciler.cluster.mirror import Mirror
from reconciler.cluster.words import main_of
from reconciler.core.definitions import Instance
from reconciler.core.errors import Away
from reconciler.core.runtime import Image

TIER = "tier=airflow"
TASKS = "kubernetes_executor=True"  # on every pod that the executor makes, whatever its template
COMPONENTS = ("scheduler", "dag-processor", "triggerer", "worker", "webserver", "api-server")
FOREIGN = ("pgbouncer", "redis", "statsd")  # of the chart, in images without Airflow
KINDS = ("deployments", "statefulsets")
KUBERNETES_EXECUTOR = "KubernetesExecutor"
RESTARTED_AT = "kubectl.kubernetes.io/restartedAt"
ENDED = ("Succeeded", "Failed")


class Release:
    """One instance's release in its cluster."""

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
        """The Deployments or StatefulSets of all releases in the namespace."""
        return self.cluster.mirror(kind, self.namespace, TIER)

    def synced(self) -> None:
        """Wait until the mirrors stand; raises what the cluster says."""
        timeout = self.cluster.limits.request_timeout
        mirrors = [self.pods_mirror, *(self.workloads_mirror(kind) for kind in KINDS)]
        for mirror in mirrors:
            mirror.synced(timeout)

    @property
    def seen_since(self) -> float:
        """From when on every change was seen: before, the cluster or the daemon was away."""
        mirrors = [self.pods_mirror, *(self.workloads_mirror(kind) for kind in KINDS)]
        return max(mirror.since for mirror in mirrors)

    def workloads(self) -> list[tuple[str, Json]]:
        """(kind, object) of every Airflow component; raises Away("ReleaseMissing")."""
        found = [
            (kind, item)
            for kind in KINDS
            for item in self.workloads_mirror(kind).items()
            if self._mine(item) and component_of(item) in COMPONENTS
        ]
        if not found:
            raise Away(
                "ReleaseMissing",
                f"instance {self._instance.name}: no Airflow with the labels {TIER},"
                f"release={self.name} in namespace {self.namespace} of cluster "
                f"{self.cluster.context}",
                self._instance.place,
            )
        return found

    def components(self) -> frozenset[str]:
        """The components that the release has, without those that are scaled to nothing."""
        return frozenset(component_of(item) for _, item in self.workloads() if replicas_of(item))

    def tasks_apart(self) -> bool:
        """Do all tasks run in pods of their own, which a restart does not touch."""
        executors = {
            str(labels_of(item).get("executor", ""))
            for _, item in self.workloads()
            if component_of(item) == "scheduler"
        }
        return executors == {KUBERNETES_EXECUTOR}

    def pods(self) -> list[Json]:
        """The pods of Airflow's components, without ended ones.

        Bare pods are those of tasks, which may bear all labels of the template they came from.
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
        """The pods of one workload, without ended ones: several may share a component's labels."""
        return [pod for pod in self.pods() if _owns(kind, workload, pod)]

    def oldest(self, now: float) -> float | None:
        """When the oldest pod of the release, tasks included, was made; None if not known.

        Those without Airflow load no build, and no rollout makes them younger: they do not count.
        Asks the cluster for pods of tasks whose template lacks the chart's labels: those without a
        `release` may be of any in the namespace. Raises what the cluster says.
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
        """The images that the pods which load builds run now; empty while there are none."""
        context = self._instance.kubernetes.context if self._instance.kubernetes else None
        images = (_image(pod, context) for pod in self._loading())
        return {image for image in images if image is not None}

    def outgoing(self) -> tuple[str, ...]:
        """Return the image names of components whose pods have several: a rollout is under way.

        A pod that has not started yet counts too: it is the first sign of an upgrade.
        """
        names: dict[str, set[str]] = {}
        for pod in self._loading():
            for container in pod["spec"].get("containers") or []:
                if container["name"] == main_of(pod):
                    names.setdefault(component_of(pod), set()).add(str(container.get("image")))
        return tuple(sorted({n for several in names.values() if len(several) > 1 for n in several}))

    def _loading(self) -> list[Json]:
        """The pods that load builds, without those that are ending."""
        return [
            pod
            for pod in self.pods()
            if "deletionTimestamp" not in pod["metadata"]
            and component_of(pod) in self._instance.load_into
        ]

    def mark(self) -> str:
        """Return a mark that changes with the images, mixtures of several included.

        "" while no pod tells its image.
        """
        images = self.images() if self.pods_mirror.fresh else set()
        if not images:
            return ""
        parts = (*sorted({image.id for image in images}), *self.outgoing())
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]

    def _mine(self, found: Json) -> bool:
        return bool(labels_of(found).get("release") == self.name)


def labels_of(found: Json) -> Json:
    """An object's labels."""
    return found["metadata"].get("labels") or {}


def component_of(found: Json) -> str:
    """The chart's name of a component."""
    return str(labels_of(found).get("component", ""))


def replicas_of(workload: Json) -> int:
    """How many pods a workload shall have."""
    return int(workload["spec"].get("replicas", 1))


def controller_of(pod: Json) -> Json:
    """The reference to what made a pod and replaces it; empty for a bare pod."""
    owners: Iterable[Json] = pod["metadata"].get("ownerReferences") or []
    return next((owner for owner in owners if owner.get("controller")), {})


def annotation(found: Json, key: str) -> str:
    """One annotation of an object, or of a pod template; "" without."""
    return str((found.get("metadata", {}).get("annotations") or {}).get(key, ""))


def mark_of(pod: Json | None) -> tuple[str, ...]:
    """What of a pod's document the mark of its release depends on."""
    if pod is None:
        return ()
    gone = "deletionTimestamp" in pod["metadata"]
    return (component_of(pod), str(gone), *sorted(_ids(pod)))


def seconds(value: object) -> float:
    """Seconds since the epoch of a Kubernetes time; 0.0 for none."""
    if not isinstance(value, str) or not value:
        return 0.0
    return datetime.fromisoformat(value).timestamp()


def container_of(pod: Json) -> Json | None:
    """The status of the container that runs Airflow."""
    found: Iterable[Json] = pod["status"].get("containerStatuses") or []
    wanted = main_of(pod)
    return next((c for c in found if c["name"] == wanted), None)


def _owns(kind: str, workload: Json, pod: Json) -> bool:
    """Is a pod a workload's own: a Deployment's pods are its ReplicaSets', which it names."""
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
