"""Network policies of the node: its plain CNI enforces none, kube-router's firewall does."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from tests.harness.control_plane import SERVICES
from tests.harness.kube_api import wait_for
from tests.harness.node.node import NAME, Node
from tests.harness.node.programs import end

CHAINS = re.compile(r"KUBE-(ROUTER|POD-FW|NWPLCY)-")  # of kube-router, and of nothing else


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
        return CHAINS.search(_run(node, "iptables-save", "-t", "filter")) is not None

    try:
        wait_for(is_there, 120, f"the rules of kube-router; see {log}")
        yield
    finally:
        end(process)
        _remove_rules(node)


def _remove_rules(node: Node) -> None:
    """Remove what kube-router leaves when it ends: its rules, and the sets that they name."""
    rules = _run(node, "iptables-save", "-t", "filter").splitlines(keepends=True)
    others = "".join(rule for rule in rules if not CHAINS.search(rule))
    _run(node, "iptables-restore", "-T", "filter", text=others)
    _run(node, "ipset", "destroy")


def _run(node: Node, *command: str, text: str = "") -> str:
    done = subprocess.run(
        [*node.network.inside, *command],
        input=text,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout
