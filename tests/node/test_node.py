"""Checks that the node is real: containers of an image, exit codes and logs from the API server."""

from __future__ import annotations

from tests.harness.kube_api import Json, wait_for
from tests.harness.node.images import DEBIAN_IMAGE
from tests.harness.node.node import Node

SCRIPT = "id -u; cat /proc/1/comm; touch /etc/here || echo refused; exit 7"


def _ended(node: Node, space: str) -> Json | None:
    pods = node.pods(space, "job-name=work")
    phase = pods[0]["status"].get("phase") if pods else ""
    return pods[0] if phase in ("Succeeded", "Failed") else None


def test_a_jobs_command_runs_in_a_container(node: Node) -> None:
    """It runs as the image's user, alone in its namespaces, on a read-only root."""
    node.runtime.load_debian()
    space = node.namespace("work")
    container = {
        "name": "main",
        "image": DEBIAN_IMAGE,
        "command": ["sh", "-c", SCRIPT],
        "securityContext": {"runAsUser": 50000, "readOnlyRootFilesystem": True},
    }
    pod = {"restartPolicy": "Never", "containers": [container]}
    job = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "work"},
        "spec": {"backoffLimit": 0, "template": {"spec": pod}},
    }
    node.apply([job], space)
    failed_pod = wait_for(lambda: _ended(node, space), 120, "the Job's pod to end")
    assert failed_pod["status"]["phase"] == "Failed"
    state = failed_pod["status"]["containerStatuses"][0]["state"]["terminated"]
    assert (state["exitCode"], state["reason"]) == (7, "Error")
    lines = node.log(space, failed_pod).splitlines()
    assert [line for line in lines if not line.startswith("touch:")] == ["50000", "sh", "refused"]
