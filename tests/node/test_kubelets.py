"""The simulated kubelet of the other Kubernetes tests reports what a real one does."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from tests.harness.control_plane import assets
from tests.harness.kube_api import Json, wait_for
from tests.harness.laboratory import Administration, Lab, laboratory
from tests.harness.node.images import DEBIAN_IMAGE
from tests.harness.node.node import Node

LONG = 120.0
MESSY = "echo one; echo two >&2; touch /etc/no || echo refused; id -u; exec sh -c 'exit 7'"


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    programs = assets()
    assert programs is not None, "`make node` makes a control plane"
    with laboratory(tmp_path_factory.mktemp("lab"), programs) as lab:
        yield lab


def _job(script: str, mode: str = "run", deadline: int = 300, **pod: Any) -> Json:
    """Return a Job; `mode` tells the simulated kubelet what cannot happen there by itself."""
    container = {
        "name": "main",
        "image": DEBIAN_IMAGE,
        "command": ["sh", "-c", script],
        "securityContext": {"runAsUser": 50000, "readOnlyRootFilesystem": True},
        **pod.pop("container", {}),
    }
    metadata = {"annotations": {"lab/mode": mode}}
    spec = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": 1,
        "containers": [container],
        "automountServiceAccountToken": False,
        **pod,
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "work"},
        "spec": {
            "backoffLimit": 0,
            "activeDeadlineSeconds": deadline,
            "template": {"metadata": metadata, "spec": spec},
        },
    }


def _first(script: str) -> Json:
    return {
        "name": "first",
        "image": DEBIAN_IMAGE,
        "command": ["sh", "-c", script],
        "securityContext": {"runAsUser": 50000},
    }


UNSET = {"name": "A", "valueFrom": {"secretKeyRef": {"name": "absent", "key": "a"}}}
JOBS = {
    "good": _job("echo one; echo two >&2"),
    "bad": _job(MESSY),
    "after-init": _job(
        "cat /tmp/said",
        volumes=[{"name": "tmp", "emptyDir": {}}],
        container={"volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}]},
        initContainers=[
            {
                **_first("echo hello > /tmp/said"),
                "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
            }
        ],
    ),
    "bad-init": _job("echo never", initContainers=[_first("exit 5")]),
    "deadline": _job("sleep 600", deadline=3),
    "no-image": _job("true", "imagepull", container={"image": "example.test/absent:1"}),
    "no-secret": _job("true", "configerror", container={"env": [UNSET]}),
}
STUCK = {"no-image": ("ErrImagePull", "ImagePullBackOff"), "no-secret": ("",)}


def _observed(cluster: Administration, space: str, name: str) -> Json | None:
    """Return what is left of a Job's pod and of the Job once nothing changes any more."""
    job = cluster.api.get("jobs", space, "work") or {}
    conditions = [(c["type"], c.get("reason")) for c in job.get("status", {}).get("conditions", [])]
    pods = cluster.pods(space, "job-name=work")
    status = pods[0]["status"] if pods else {}
    if name in STUCK:
        reasons = [_reason(s) for s in status.get("containerStatuses", [])]
        if not any(reasons) or reasons == ["ContainerCreating"]:
            return None
        reasons = ["not pulled" if r in STUCK[name] else r for r in reasons]
        return {"phase": status["phase"], "waits": reasons}
    if not any(kind in ("Complete", "Failed") for kind, _ in conditions):
        return None
    ended = {"conditions": [c for c in conditions if c[0] in ("Complete", "Failed")]}
    if name == "deadline":  # its pod is deleted
        return ended
    log = "" if name == "bad-init" else cluster.log(space, pods[0])
    # A container runtime copies stdout and stderr by two threads: their lines have no common order.
    lines = sorted(line for line in log.splitlines() if not line.startswith("touch:"))
    states = [
        _ended(s)
        for key in ("initContainerStatuses", "containerStatuses")
        for s in status.get(key, [])
    ]
    ready = {c["type"]: (c["status"], c.get("reason")) for c in status["conditions"]}
    kept = {key: ready[key] for key in ("Initialized", "Ready", "ContainersReady")}
    return {**ended, "phase": status["phase"], "states": states, "log": lines, "ready": kept}


def _reason(status: Json) -> str:
    return str(status["state"].get("waiting", {}).get("reason", ""))


def _ended(status: Json) -> tuple[str, int | None, str]:
    state = status["state"].get("terminated", {})
    return status["name"], state.get("exitCode"), state.get("reason") or _reason(status)


@pytest.mark.parametrize("name", JOBS)
def test_a_job_ends_alike(lab: Lab, node: Node, name: str) -> None:
    """The same document gives the same statuses, exit codes, conditions and log on both."""
    node.runtime.load_debian()
    results: list[Json] = []
    clusters: tuple[Administration, ...] = (node, lab)
    for cluster in clusters:
        space = cluster.namespace("alike")
        cluster.apply([JOBS[name]], space)
        look = partial(_observed, cluster, space, name)
        results.append(wait_for(look, LONG, f"the end of the Job {name}"))
        cluster.drop(space)
    assert results[0] == results[1]
