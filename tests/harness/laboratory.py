"""Test laboratory for Kubernetes: a real control plane, and nodes with simulated kubelets.

`lab.api` is the administrator. Each test uses its own namespaces, from `lab.namespace()`.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.fakes.kubelet import Kubelet
from tests.fakes.provisioner import Provisioner
from tests.harness.control_plane import ControlPlane
from tests.harness.kube_api import Api, ApiError, Json, path_of, plural_of, wait_for

NODES = ("lab-0", "lab-1", "lab-2")


@dataclass
class Administration:
    """Administrator's operations in a cluster of the tests, whatever its nodes are."""

    plane: ControlPlane
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(os.getpid() * 1000))

    @property
    def api(self) -> Api:
        """The administrator's client."""
        return self.plane.api

    def namespace(self, stem: str = "test", labels: Mapping[str, str] | None = None) -> str:
        """Create and return a namespace for pods; `labels` for PodSecurity, for example."""
        name = f"{stem}-{next(self._numbers)}"
        self.api.create(
            "namespaces", "", {"metadata": {"name": name, "labels": dict(labels or {})}}
        )
        wait_for(
            lambda: (
                self.api.get("serviceaccounts", name, "default")
                and self.api.get("configmaps", name, "kube-root-ca.crt")
            ),
            20,
            f"the service account of namespace {name}",
        )
        return name

    def drop(self, *namespaces: str) -> None:
        """Delete namespaces, without waiting for that."""
        for name in namespaces:
            self.api.delete("namespaces", "", name)

    def claim(self, namespace: str, name: str, directory: Path) -> None:
        """Create a bound persistentVolumeClaim (RWX) that is a directory of this machine."""
        volume = f"{namespace}-{name}"
        size = {"storage": "10Gi"}
        shared = {"accessModes": ["ReadWriteMany"], "storageClassName": ""}
        self.api.create(
            "persistentvolumes",
            "",
            {
                "metadata": {"name": volume},
                "spec": {
                    **shared,
                    "capacity": size,
                    "hostPath": {"path": str(directory)},
                    "persistentVolumeReclaimPolicy": "Retain",
                    "claimRef": {"namespace": namespace, "name": name},
                },
            },
        )
        self.api.create(
            "persistentvolumeclaims",
            namespace,
            {
                "metadata": {"name": name},
                "spec": {**shared, "volumeName": volume, "resources": {"requests": size}},
            },
        )

        def bound() -> bool:
            claim = self.api.get("persistentvolumeclaims", namespace, name)
            return claim is not None and claim.get("status", {}).get("phase") == "Bound"

        wait_for(bound, 20, f"claim {namespace}/{name} to be bound")

    def apply(self, documents: Iterable[Json], namespace: str = "") -> None:
        """Create or replace the objects of manifests."""
        for document in documents:
            self.api.apply(document, namespace)

    def remove(self, document: Json) -> None:
        """Delete the object of a manifest, without waiting for that."""
        meta = document["metadata"]
        self.api.delete(plural_of(document["kind"]), meta.get("namespace", ""), meta["name"])

    def account(
        self, namespace: str, name: str, rules: Mapping[str, Iterable[Json]] | None = None
    ) -> str:
        """Return a service account's token; `rules` of a Role by the namespace that it is for."""
        with contextlib.suppress(ApiError):
            self.api.create("serviceaccounts", namespace, {"metadata": {"name": name}})
        for where, granted in (rules or {}).items():
            role = f"{namespace}-{name}"
            group = "rbac.authorization.k8s.io"
            subject = {"kind": "ServiceAccount", "name": name, "namespace": namespace}
            self.api.create("roles", where, {"metadata": {"name": role}, "rules": list(granted)})
            self.api.create(
                "rolebindings",
                where,
                {
                    "metadata": {"name": role},
                    "subjects": [subject],
                    "roleRef": {"apiGroup": group, "kind": "Role", "name": role},
                },
            )
        return self.plane.token_for(namespace, name)

    def pods(self, namespace: str, labels: str = "") -> list[Json]:
        """Return the pods of a namespace."""
        return self.api.list("pods", namespace, labels)

    def log(self, namespace: str, pod: Json, query: str = "") -> str:
        """Return a container's log from the API server."""
        path = path_of("pods", namespace, pod["metadata"]["name"], "log")
        return self.api.raw("GET", path + query).decode()

    def rolled_out(self, kind: str, namespace: str, name: str, seconds: float = 30) -> Json:
        """Return the Deployment or StatefulSet once all its pods are new and ready."""

        def done() -> Json | None:
            workload = self.api.get(kind, namespace, name)
            assert workload is not None, f"{kind} {namespace}/{name} is gone"
            return workload if self._is_rolled_out(workload) else None

        return wait_for(done, seconds, f"the rollout of {kind} {namespace}/{name}")

    def _is_rolled_out(self, workload: Json) -> bool:
        """Return True if all pods are of the present template and ready."""
        status, wanted = workload.get("status", {}), workload["spec"].get("replicas", 1)
        fresh = status.get("observedGeneration", 0) >= workload["metadata"]["generation"]
        counts = [status.get(k, 0) for k in ("replicas", "updatedReplicas", "readyReplicas")]
        current = status.get("currentRevision") == status.get("updateRevision")
        return bool(fresh and current and counts == [wanted] * 3)


class Lab(Administration):
    """Cluster with simulated kubelets."""

    def __init__(self, plane: ControlPlane, kubelet: Kubelet) -> None:
        super().__init__(plane)
        self.kubelet = kubelet


@contextlib.contextmanager
def laboratory(root: Path, programs: Mapping[str, Path]) -> Iterator[Lab]:
    """Yield a laboratory below a directory; it ends with the block."""
    with ControlPlane(root / "plane", programs) as plane:
        view = plane.client("lab:kubelet")
        with (
            Provisioner(view, root / "volumes"),
            Kubelet(view, root / "pods", plane.certificate, plane.key, NODES) as kubelet,
        ):
            yield Lab(plane, kubelet)
