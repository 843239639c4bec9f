"""Cluster of one real node: the control plane, and a kubelet that runs pods in containers."""

from __future__ import annotations

import shutil
import subprocess
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

import yaml

from tests.harness.control_plane import ControlPlane
from tests.harness.kube_api import Json, path_of, wait_for
from tests.harness.laboratory import Administration
from tests.harness.node.network import HOST, NODE, PODS, Network
from tests.harness.node.programs import Programs, end
from tests.harness.node.runtime import SOCKET, Runtime, unmount_below

NAME = "node-0"
CLUSTER_DOMAIN = "cluster.local"
# The kubelet gives all pods together the weight of one process for each CPU, so that they starve on
# a machine that runs other tests too; this is the weight of twelve, in both versions of cgroups.
POD_WEIGHTS = {
    Path("/sys/fs/cgroup/cpu/kubepods/cpu.shares"): "12288",
    Path("/sys/fs/cgroup/kubepods/cpu.weight"): "1200",
}
CRASHES = 3  # more restarts are no accident
GIVE_UP = 900.0  # seconds: a node on a loaded machine takes its time


class Node(Administration):
    """Context manager; `plane` is its control plane, `api` the administrator's client."""

    def __init__(self, root: Path, programs: Programs) -> None:
        self.root = root
        self.programs = programs
        self._stack = ExitStack()
        self.network = Network()
        self.runtime = Runtime(programs, self.network)
        super().__init__(ControlPlane(root / "plane", programs.plane, HOST))

    def __enter__(self) -> Node:
        with ExitStack() as stack:
            stack.enter_context(self.network)
            stack.enter_context(self.plane)
            stack.callback(self._clean)
            stack.enter_context(self.runtime)
            self._start(
                stack,
                "kubelet",
                [
                    f"--config={self._kubelet_config()}",
                    f"--kubeconfig={self.root}/plane/lab-kubelet.kubeconfig",
                    f"--root-dir={self.root}/kubelet",
                    f"--hostname-override={NAME}",
                    f"--node-ip={NODE}",
                    f"--cert-dir={self.root}/kubelet-pki",
                ],
            )
            self._start(
                stack,
                "kube-proxy",
                [
                    f"--kubeconfig={self.root}/plane/lab-kubelet.kubeconfig",
                    "--proxy-mode=iptables",
                    f"--cluster-cidr={PODS}",
                    f"--hostname-override={NAME}",
                    "--conntrack-max-per-core=0",
                    "--bind-address=0.0.0.0",
                ],
            )
            wait_for(self._ready, 90, f"the node to be ready; see {self.root}/kubelet.log")
            for file, weight in POD_WEIGHTS.items():
                if file.exists():
                    file.write_text(weight)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def cordon(self, *, closed: bool = True) -> None:
        """Take no more pods, or take them again."""
        self.api.patch("nodes", "", NAME, {"spec": {"unschedulable": closed}})

    def evict(self, pod: Json) -> None:
        """Evict a pod, as a drain of its node does."""
        name, space = pod["metadata"]["name"], pod["metadata"]["namespace"]
        body = {
            "apiVersion": "policy/v1",
            "kind": "Eviction",
            "metadata": {"name": name, "namespace": space},
        }
        self.api.raw("POST", path_of("pods", space, name, "eviction"), body)

    def _is_rolled_out(self, workload: Json) -> bool:
        """Return True once it is, and fail at once if one of its pods crashes again and again."""
        labels = workload["spec"]["selector"]["matchLabels"]
        space = workload["metadata"]["namespace"]
        for pod in self.pods(space, ",".join(f"{k}={v}" for k, v in labels.items())):
            for container in pod["status"].get("containerStatuses", []):
                if container["restartCount"] >= CRASHES and "waiting" in container["state"]:
                    query = f"?previous=true&tailLines=60&container={container['name']}"
                    log = self.log(space, pod, query)
                    raise AssertionError(f"{pod['metadata']['name']} keeps crashing:\n{log}")
        return super()._is_rolled_out(workload)

    def _start(self, stack: ExitStack, name: str, words: list[str]) -> None:
        with (self.root / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(
                [
                    *self.network.inside,
                    "setpriv",
                    "--pdeathsig",
                    "KILL",
                    str(self.programs.folder / name),
                    *words,
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": str(self.root)},
            )
        stack.callback(end, process)

    def _clean(self) -> None:
        unmount_below(self.root / "kubelet")
        shutil.rmtree(self.root / "kubelet", ignore_errors=True)

    def _ready(self) -> bool:
        node = self.api.get("nodes", "", NAME)
        conditions = (node or {}).get("status", {}).get("conditions", [])
        return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)

    def _kubelet_config(self) -> Path:
        path = self.root / "kubelet.yaml"
        (self.root / "resolv.conf").write_text(f"nameserver {HOST}\n")
        path.write_text(
            yaml.safe_dump(
                {
                    "apiVersion": "kubelet.config.k8s.io/v1beta1",
                    "kind": "KubeletConfiguration",
                    "failCgroupV1": False,
                    "failSwapOn": False,
                    "cgroupDriver": "cgroupfs",
                    "enforceNodeAllocatable": [],
                    "address": NODE,
                    "port": 10250,
                    "healthzPort": 0,
                    "authentication": {
                        "anonymous": {"enabled": False},
                        "webhook": {"enabled": False},
                        "x509": {"clientCAFile": str(self.plane.certificate)},
                    },
                    "authorization": {"mode": "AlwaysAllow"},
                    "containerRuntimeEndpoint": f"unix://{SOCKET}",
                    "resolvConf": str(self.root / "resolv.conf"),
                    "clusterDNS": [HOST],  # which answers within `names` alone
                    "clusterDomain": CLUSTER_DOMAIN,
                    "volumePluginDir": str(self.root / "volumeplugins"),
                    "evictionHard": {"nodefs.available": "1%", "imagefs.available": "1%"},
                    "imageGCHighThresholdPercent": 100,
                    "imageGCLowThresholdPercent": 99,
                    "podLogsDir": str(self.root / "logs"),
                    "maxPods": 60,
                    "syncFrequency": "10s",
                    "nodeStatusUpdateFrequency": "4s",
                }
            )
        )
        return path
