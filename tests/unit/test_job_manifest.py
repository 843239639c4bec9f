"""The Job of a build has as few permissions as possible."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest

from reconciler.builder.executor.kubernetes.manifest import Order, job_manifest
from reconciler.core.runtime import Image
from reconciler.settings import KubernetesSettings

SHARE = Path("/srv/groundcrew")
ORDER = Order(
    "groundcrew-0123456789abcdef-a1b2c3",
    "red",
    "0123456789abcdef",
    Image("east", "example.test/airflow@sha256:" + "0" * 64, "id", 50000, 0),
    SHARE,
    SHARE / "staging" / "one",
    ("python3", "/srv/groundcrew/tools/x/worker.py"),
)


def manifest(**settings: object) -> dict[str, Any]:
    return job_manifest(ORDER, KubernetesSettings.model_validate(settings))


def pod_of(document: dict[str, Any]) -> dict[str, Any]:
    pod: dict[str, Any] = document["spec"]["template"]["spec"]
    return pod


@pytest.mark.parametrize("version", ["1.29", "1.37"])
def test_kubernetes_takes_it(version: str) -> None:
    """The strict schema of the oldest and the newest supported release accepts it."""
    full = manifest(
        jobs={
            "pull_secrets": ["pull"],
            "node_selector": {"disk": "fast"},
            "tolerations": [{"key": "builds", "operator": "Exists"}],
        }
    )
    kubernetes_validate.validate(full, version, strict=True)


def test_it_has_no_rights() -> None:
    """No token, no root, no privileges, a read-only root file system, the default seccomp."""
    pod = pod_of(manifest())
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] == 50000
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    (container,) = pod["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def test_a_namespace_may_say_who_it_runs_as() -> None:
    """OpenShift does that and refuses users of another namespace's range; it is never root."""
    context = pod_of(manifest(jobs={"run_as": "namespace"}))["securityContext"]
    assert context == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}


def test_it_writes_to_its_own_folder_only() -> None:
    """The share is read-only except for one subPath; no secret and no host path is mounted."""
    pod = pod_of(manifest())
    mounts = {m["mountPath"]: m for m in pod["containers"][0]["volumeMounts"]}
    assert mounts.keys() == {"/srv/groundcrew", "/srv/groundcrew/staging/one", "/tmp"}
    assert mounts["/srv/groundcrew"]["readOnly"] is True
    assert mounts["/srv/groundcrew/staging/one"]["subPath"] == "staging/one"
    kinds = {key for volume in pod["volumes"] for key in volume if key != "name"}
    assert kinds == {"persistentVolumeClaim", "emptyDir"}


def test_kubernetes_ends_it_and_forgets_it_and_never_retries() -> None:
    """Deadline, time to live and no retries: the daemon decides what is repeated."""
    spec = manifest(jobs={"deadline": 120, "ttl": 60})["spec"]
    assert spec["activeDeadlineSeconds"] == 120
    assert spec["ttlSecondsAfterFinished"] == 60
    assert spec["backoffLimit"] == 0


def test_it_runs_where_the_daemons_uv_runs() -> None:
    """Nodes of another architecture are excluded, whatever the other constraints are."""
    for jobs in ({}, {"node_selector": {"disk": "fast"}}):
        pod = pod_of(manifest(jobs=jobs))
        arch = {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()]
        assert pod["nodeSelector"] == {"kubernetes.io/arch": arch, **jobs.get("node_selector", {})}


def test_it_asks_for_little_local_disk() -> None:
    """The limit of local disk is not a request: nodes need not have all of it free."""
    (container,) = pod_of(manifest())["containers"]
    assert container["resources"]["limits"]["ephemeral-storage"] == "8Gi"
    assert container["resources"]["requests"]["ephemeral-storage"] == "64Mi"


def test_it_asks_for_little_and_yields_to_airflow() -> None:
    """Its requests fit on a small, full node, and its priority is below that of Airflow's pods."""
    pod = pod_of(manifest(jobs={"priority_class": "groundcrew-builds"}))
    requests = pod["containers"][0]["resources"]["requests"]
    assert requests["cpu"] == "1m"
    assert requests["memory"] == "512Mi"
    assert pod["priorityClassName"] == "groundcrew-builds"
    assert "priorityClassName" not in pod_of(manifest())
