"""Simulated kubelets of a laboratory's nodes, acting through the API.

Nodes are registered and keep their leases; the real scheduler binds pods to them; each bound pod
gets a thread (podlife) that changes it as its `lab/` annotations specify (podstatus.Behaviour),
and really runs the commands of a Job's pods. A test may change while it runs:

- `images[reference] = LabImage(root=venv, digest="sha256:…")`
- `nfs["server:/path"] = directory`, `hidden.add("/directory/of/the/host")`
- `behave`: a function that may return another Behaviour for a pod at its start
- `prove`: a function that returns what the loader writes into the log of a played container
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from tests.fakes import pod_status
from tests.fakes.kubelet_api import LogServer
from tests.fakes.pod_life import Node, PodLife
from tests.fakes.pod_status import Behaviour, LabImage
from tests.harness.follow import Follower
from tests.harness.kube_api import MERGE, Api, ApiError, Json

RESOURCES = {"cpu": "64", "memory": "256Gi", "pods": "500", "ephemeral-storage": "500Gi"}
HIDDEN = ("/tmp", "/var/tmp", "/run")  # empty in an image
HEARTBEAT = 2.0  # seconds between renewals of a lease; a real kubelet: 10


class Kubelet:
    """Context manager for all nodes of a laboratory."""

    def __init__(
        self, api: Api, work: Path, certificate: Path, key: Path, nodes: tuple[str, ...]
    ) -> None:
        self.api, self.work = api, work
        self.images: dict[str, LabImage] = {}
        self.nfs: dict[str, Path] = {}
        self.hidden: set[str] = set(HIDDEN)
        self.behave: Callable[[Json], Behaviour | None] = lambda pod: None
        self.prove: Callable[[Json, Json], str] = lambda pod, container: ""
        self.nodes = {
            name: Node(name, api, work, self.images, self.nfs, self.hidden, self._proof)
            for name in nodes
        }
        self._lives: dict[str, PodLife] = {}
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._logs = LogServer(self._find_log, certificate, key)
        self._pods = Follower(api, "pods", self._see, self._vanished)
        self._leases = threading.Thread(target=self._beat, name="kubelet leases", daemon=True)

    def __enter__(self) -> Kubelet:
        self.work.mkdir(parents=True, exist_ok=True)
        self._logs.start()
        for name in self.nodes:
            self._register(name)
            self._renew(name)
        self._pods.start()
        self._leases.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._pods.stop()
        with self._lock:
            lives = list(self._lives.values())
        for life in lives:
            life.vanish()
        for life in lives:
            life.join(timeout=20)
        self._leases.join(timeout=20)
        self._logs.stop()

    # -------------------------------------------------------------------------------------- faults

    def lose(self, node: str) -> None:
        """Make a node die: its processes end, and it reports nothing.

        The controllers would find its lease too old after 50 s, within which a laboratory on a busy
        machine is late but not lost. So the controllers' report is written at once; they evict its
        pods 3 s later, which stay Terminating.
        """
        self.nodes[node].lost.set()
        for life in self._of(node):
            life.kill_containers("Error")
        unknown = {
            "type": "Ready",
            "status": "Unknown",
            "reason": "NodeStatusUnknown",
            "lastTransitionTime": pod_status.now(),
        }
        self.api.patch("nodes", "", node, {"status": {"conditions": [unknown]}}, "status")

    def remove(self, node: str) -> None:
        """Delete a node's object, so that the controllers forget its pods (within 40 s)."""
        self.nodes[node].lost.set()
        self.api.delete("nodes", "", node)

    def restore(self, node: str) -> None:
        """Bring back a lost or removed node; its pods that were to be deleted are."""
        self._register(node)
        self.nodes[node].lost.clear()
        self._renew(node)

    def evict(self, namespace: str, pod: str, reason: str = "Evicted") -> None:
        """Evict a pod as if its node were short of disk: its processes end, and it has failed."""
        self.life(namespace, pod).end(
            "Failed", reason, "The node was low on resource: ephemeral-storage."
        )

    def out_of_memory(self, namespace: str, pod: str) -> None:
        """Kill a pod's processes like the kernel's OOM killer."""
        self.life(namespace, pod).kill_containers("OOMKilled")

    def life(self, namespace: str, pod: str) -> PodLife:
        """Return the thread of a pod that is bound to a node. Raises KeyError if there is none."""
        with self._lock:
            for life in self._lives.values():
                if (life.namespace, life.pod_name) == (namespace, pod) and not life.gone.is_set():
                    return life
        raise KeyError(f"no kubelet has the pod {namespace}/{pod}")

    def processes(self, namespace: str) -> list[int]:
        """Return the process ids (on the host) of all containers that run in a namespace."""
        with self._lock:
            lives = [life for life in self._lives.values() if life.namespace == namespace]
        alive = [one.process for life in lives for one in life.ones if one.process]
        return [process.pid for process in alive if process.code() is None]

    def _of(self, node: str) -> list[PodLife]:
        with self._lock:
            return [life for life in self._lives.values() if life.node.name == node]

    # --------------------------------------------------------------------------------------- nodes

    def _register(self, name: str) -> None:
        labels = {
            "kubernetes.io/hostname": name,
            "kubernetes.io/os": "linux",
            "kubernetes.io/arch": "amd64",
        }
        body = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}}
        try:
            self.api.create("nodes", "", body)
        except ApiError as error:
            if error.status != 409:
                raise
        moment = pod_status.now()
        healthy = [
            ("Ready", True, "KubeletReady"),
            ("MemoryPressure", False, "KubeletHasMemory"),
            ("DiskPressure", False, "KubeletHasDisk"),
            ("PIDPressure", False, "KubeletHasPID"),
        ]
        status = {
            "capacity": RESOURCES,
            "allocatable": RESOURCES,
            "conditions": [
                {
                    "type": kind,
                    "status": str(is_so),
                    "reason": reason,
                    "lastHeartbeatTime": moment,
                    "lastTransitionTime": moment,
                }
                for kind, is_so, reason in healthy
            ],
            "addresses": [
                {"type": "InternalIP", "address": "127.0.0.1"},
                {"type": "Hostname", "address": name},
            ],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": self._logs.port}},
        }
        self.api.patch("nodes", "", name, {"status": status}, "status")

    def _renew(self, name: str) -> None:
        moment = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        spec = {"holderIdentity": name, "leaseDurationSeconds": 40, "renewTime": moment}
        body = {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": name},
            "spec": spec,
        }
        try:
            self.api.patch("leases", "kube-node-lease", name, {"spec": spec}, type_=MERGE)
        except ApiError as error:
            if error.status != 404:
                raise
            self.api.create("leases", "kube-node-lease", body)

    def _beat(self) -> None:
        while not self._over.wait(HEARTBEAT):
            for name, node in self.nodes.items():
                if node.lost.is_set():
                    continue
                try:
                    self._renew(name)
                    self._recover(name)
                except Exception:  # the API server is being restarted
                    continue

    def _recover(self, name: str) -> None:
        """Report a node as ready again after a silence."""
        node = self.api.get("nodes", "", name)
        conditions = node["status"].get("conditions", []) if node else []
        if any(c["type"] == "Ready" and c["status"] != "True" for c in conditions):
            self._register(name)

    # ---------------------------------------------------------------------------------------- pods

    def _see(self, pod: Json) -> None:
        meta, node = pod["metadata"], self.nodes.get(pod["spec"].get("nodeName", ""))
        if node is None:
            return
        with self._lock:
            life = self._lives.get(meta["uid"])
            if life is None:
                life = PodLife(pod, node, self.behave(pod) or Behaviour.of(pod))
                self._lives[meta["uid"]] = life
                life.start()
        if meta.get("deletionTimestamp"):
            life.delete(float(meta.get("deletionGracePeriodSeconds") or 0))

    def _vanished(self, pod: Json) -> None:
        with self._lock:
            life = self._lives.pop(pod["metadata"]["uid"], None)
        if life is not None:
            life.vanish()

    def _proof(self, pod: Json, container: Json) -> str:
        return self.prove(pod, container)

    def _find_log(
        self, namespace: str, pod: str, container: str, previous: bool
    ) -> tuple[Path, Callable[[], bool]] | None:
        try:
            return self.life(namespace, pod).log_of(container, previous)
        except KeyError:
            return None
