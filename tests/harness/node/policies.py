"""Network policies of the node: its plain CNI enforces none, kube-router's firewall does."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from tests.harness.control_plane import SERVICES
from tests.harness.kube_api import wait_for
from tests.harness.node.node import NAME, Node
from tests.harness.node.programs import end


@contextmanager
def enforced(node: Node) -> Iterator[None]:
    """Enforce the network policies of the cluster."""
    program = node.programs.folder / "kube-router"
    assert program.is_file(), "the tests of nights need kube-router: make node ALL=1"
    log = node.root / "kube-router.log"
    command = [
        *node.network.inside,
        str(program),
        "--run-firewall=true",
        "--run-router=false",
        "--run-service-proxy=false",
        "--run-loadbalancer=false",
        "--enable-cni=false",
        f"--service-cluster-ip-range={SERVICES}",
        f"--kubeconfig={node.root}/plane/lab-kubelet.kubeconfig",
        f"--hostname-override={NAME}",
        "--iptables-sync-period=5s",
        "--health-port=0",
    ]
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)

    def is_there() -> bool:
        assert process.poll() is None, log.read_text()[-3000:]
        rules = [*node.network.inside, "iptables", "-S"]
        listed = subprocess.run(rules, capture_output=True, text=True, timeout=20, check=False)
        return "KUBE-POD-FW" in listed.stdout or "KUBE-ROUTER-FORWARD" in listed.stdout

    try:
        wait_for(is_there, 120, f"the rules of kube-router; see {log}")
        yield
    finally:
        end(process)
        cleanup = [*node.network.inside, str(program), "--cleanup-config"]
        subprocess.run(cleanup, capture_output=True, timeout=120, check=False)
