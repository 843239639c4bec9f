"""Checks that the laboratory behaves like a real cluster."""

from __future__ import annotations

import time
from typing import Any

import pytest

from tests.fakes.pod_status import LabImage
from tests.fakes.releases import CELERY, KUBERNETES, LOCAL, Release
from tests.harness.kube_api import ApiError, wait_for
from tests.harness.laboratory import Lab

Json = dict[str, Any]
RESTART = "kubectl.kubernetes.io/restartedAt"


def workload(kind: str, replicas: int = 1, **annotations: str) -> Json:
    """Return a workload `web` whose pods behave as the annotations say."""
    lab_annotations = {f"lab/{key.replace('_', '-')}": value for key, value in annotations.items()}
    return {
        "apiVersion": "apps/v1",
        "kind": kind,
        "metadata": {"name": "web"},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": "web"}},
            **({"serviceName": "web"} if kind == "StatefulSet" else {}),
            "template": {
                "metadata": {"labels": {"app": "web"}, "annotations": lab_annotations},
                "spec": {
                    "terminationGracePeriodSeconds": 1,
                    "containers": [{"name": "main", "image": "example/web:1"}],
                },
            },
        },
    }


def restart(lab: Lab, kind: str, space: str, **annotations: str) -> None:
    """Do the same as `kubectl rollout restart`, with other annotations if any are given."""
    meta = {
        "annotations": {
            RESTART: str(time.time_ns()),
            **{f"lab/{key.replace('_', '-')}": value for key, value in annotations.items()},
        }
    }
    lab.api.patch(kind, space, "web", {"spec": {"template": {"metadata": meta}}})


# -------------------------------------------------------------------------------------- controllers


@pytest.mark.parametrize("kind", ["Deployment", "StatefulSet"])
def test_a_restart_replaces_every_pod(lab: Lab, space: str, kind: str) -> None:
    """The real controllers, the real scheduler and the simulated kubelet do it."""
    plural = kind.lower() + "s"
    lab.apply([workload(kind, replicas=2)], space)
    lab.rolled_out(plural, space, "web")
    before = {pod["metadata"]["uid"] for pod in lab.pods(space)}
    restart(lab, plural, space)
    lab.rolled_out(plural, space, "web")
    after = {
        p["metadata"]["uid"] for p in lab.pods(space) if "deletionTimestamp" not in p["metadata"]
    }
    assert len(after) == 2
    assert not before & after


def test_a_crash_looping_pod_of_a_statefulset_outlives_the_way_back(lab: Lab, space: str) -> None:
    """The reverted template only reaches it once somebody deletes it."""
    lab.apply([workload("StatefulSet")], space)
    lab.rolled_out("statefulsets", space, "web")
    restart(lab, "statefulsets", space, mode="crashloop", log="Traceback: no such table\n")

    def crashed() -> Json | None:
        pod = lab.api.get("pods", space, "web-0")
        status = pod["status"].get("containerStatuses", []) if pod else []
        reasons = [one["state"].get("waiting", {}).get("reason") for one in status]
        return pod if reasons == ["CrashLoopBackOff"] else None

    pod = wait_for(crashed, 20, "CrashLoopBackOff")
    assert "no such table" in lab.log(space, pod, "?previous=true&tailLines=1")
    status = pod["status"]["containerStatuses"][0]
    assert status["restartCount"] == 3
    assert status["lastState"]["terminated"]["exitCode"] == 1
    restart(lab, "statefulsets", space, mode="ok")
    time.sleep(2)  # the controller has had time to replace it, but does not
    still = crashed()
    assert still is not None
    assert still["metadata"]["uid"] == pod["metadata"]["uid"]
    lab.api.delete("pods", space, "web-0")
    lab.rolled_out("statefulsets", space, "web")


def test_a_pod_that_fits_no_node_is_said_to_be_unschedulable(lab: Lab, space: str) -> None:
    """The real scheduler says so, in the condition PodScheduled."""
    deployment = workload("Deployment")
    deployment["spec"]["template"]["spec"]["nodeSelector"] = {"disk": "none"}
    lab.apply([deployment], space)

    def told() -> Json | None:
        conditions = [c for p in lab.pods(space) for c in p["status"].get("conditions", [])]
        return next((c for c in conditions if c.get("reason") == "Unschedulable"), None)

    assert "node" in wait_for(told, 20, "Unschedulable")["message"]


def test_images_have_the_digest_that_the_table_says(lab: Lab, space: str) -> None:
    """The imageID also has the repository, as with containerd."""
    lab.kubelet.images["example/web:1"] = LabImage(digest="sha256:" + "a" * 64)
    lab.apply([workload("Deployment")], space)
    lab.rolled_out("deployments", space, "web")
    status = lab.pods(space)[0]["status"]["containerStatuses"][0]
    assert status["imageID"] == "example/web@sha256:" + "a" * 64


@pytest.mark.parametrize("mode", ["imagepull", "notready", "configerror"])
def test_a_rollout_that_cannot_end_does_not(lab: Lab, space: str, mode: str) -> None:
    """The pods of the other template stay and serve."""
    lab.apply([workload("Deployment")], space)
    lab.rolled_out("deployments", space, "web")
    restart(lab, "deployments", space, mode=mode)
    wait_for(lambda: len(lab.pods(space)) == 2 or None, 20, "a second pod")
    with pytest.raises(AssertionError, match="not within"):
        lab.rolled_out("deployments", space, "web", seconds=1.5)
    deployment = lab.api.get("deployments", space, "web")
    assert deployment is not None
    assert deployment["status"]["availableReplicas"] == 1


def test_a_lost_nodes_pods_are_evicted_and_run_elsewhere(lab: Lab, space: str) -> None:
    """The controllers evict its pods, which stay until it is back."""
    lab.apply([workload("Deployment")], space)
    lab.rolled_out("deployments", space, "web")
    first = lab.pods(space)[0]
    node = first["spec"]["nodeName"]
    lab.kubelet.lose(node)
    try:

        def elsewhere() -> bool | None:
            nodes = {p["spec"].get("nodeName") for p in lab.pods(space) if ready(p)}
            return bool(nodes - {node}) or None

        wait_for(elsewhere, 40, "a pod on another node")
        old = lab.api.get("pods", space, first["metadata"]["name"])
        assert old is not None
        assert "deletionTimestamp" in old["metadata"]
    finally:
        lab.kubelet.restore(node)
    wait_for(lambda: len(lab.pods(space)) == 1 or None, 20, "the first pod to go")


def ready(pod: Json) -> bool:
    """Return True if the pod is Ready."""
    conditions = pod["status"].get("conditions", [])
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


# ------------------------------------------------------------------------------ users and server


def test_a_token_may_do_what_its_role_says_and_the_audit_log_tells_what_it_did(
    lab: Lab, space: str
) -> None:
    """RBAC denies the rest with 403; verbs are recorded by user and namespace."""
    rule = {"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]}
    api = lab.plane.client(token=lab.account(space, "reader", {space: [rule]}))
    assert api.list("pods", space) == []
    for act in (
        lambda: api.delete("pods", space, "x"),
        lambda: api.list("pods", "default"),
        lambda: api.list("secrets", space),
    ):
        with pytest.raises(ApiError) as refused:
            act()
        assert refused.value.status == 403
    events = lab.plane.audit(user=f"system:serviceaccount:{space}:reader")
    told = [(e["verb"], e["objectRef"]["resource"], e["responseStatus"]["code"]) for e in events]
    assert told == [
        ("list", "pods", 200),
        ("delete", "pods", 403),
        ("list", "pods", 403),
        ("list", "secrets", 403),
    ]


def test_nobody_is_nobody(lab: Lab, space: str) -> None:
    """A wrong token is refused with 401."""
    with pytest.raises(ApiError) as refused:
        lab.plane.client(token="no such token").list("pods", space)
    assert refused.value.status == 401


def test_pod_security_and_quota_are_admitted_for_real(lab: Lab) -> None:
    """A restricted namespace refuses an unsuitable pod; a quota refuses one too many."""
    label = {"pod-security.kubernetes.io/enforce": "restricted"}
    restricted, counted = lab.namespace("restricted", label), lab.namespace("counted")
    pod = {"metadata": {"name": "x"}, "spec": {"containers": [{"name": "x", "image": "x"}]}}
    quota = {"metadata": {"name": "none"}, "spec": {"hard": {"pods": "0"}}}
    lab.api.create("resourcequotas", counted, quota)
    wait_for(lambda: quota_counts(lab, counted), 20, "the quota to count")
    for space, message in ((restricted, "PodSecurity"), (counted, "exceeded quota")):
        with pytest.raises(ApiError, match=message) as refused:
            lab.api.create("pods", space, pod)
        assert refused.value.status == 403
    lab.drop(restricted, counted)


def quota_counts(lab: Lab, space: str) -> bool | None:
    """Return True if the controller has processed the quota, otherwise None."""
    quota = lab.api.get("resourcequotas", space, "none")
    return "hard" in (quota or {}).get("status", {}) or None


def test_the_api_server_restarts_with_all_that_it_had(lab: Lab, space: str) -> None:
    """Kubelets, controllers and scheduler continue."""
    lab.apply([workload("Deployment")], space)
    lab.rolled_out("deployments", space, "web")
    lab.plane.restart_apiserver()
    restart(lab, "deployments", space)
    lab.rolled_out("deployments", space, "web", seconds=60)


# ----------------------------------------------------------------------------------------- releases


@pytest.mark.parametrize(
    ("release", "stateful"),
    [
        (Release(version="2.11.0", executor=CELERY), {"triggerer", "worker", "redis"}),
        (Release(version="3.1.0", persistence=False), set()),
        (Release(version="2.10.5", executor=LOCAL), {"scheduler", "triggerer"}),
    ],
    ids=["2.11-celery", "3.1-kubernetes", "2.10-local"],
)
def test_a_release_shaped_as_the_charts_comes_up(
    lab: Lab, space: str, release: Release, stateful: set[str]
) -> None:
    """Every workload of it becomes ready under the real API server's validation and defaults."""
    lab.apply(release.manifests(space))
    for kind, expected in (("statefulsets", stateful), ("deployments", None)):
        workloads = lab.api.list(kind, space, f"tier=airflow,release={release.name}")
        components = {one["metadata"]["labels"]["component"] for one in workloads}
        assert expected is None or components == expected
        for one in workloads:
            lab.rolled_out(kind, space, one["metadata"]["name"])
    if release.executor != KUBERNETES:
        return
    task = release.task_pod(space, "example-one-abc", {"lab/mode": "ok"})
    lab.api.create("pods", space, task)
    wait_for(
        lambda: [p for p in lab.pods(space, "kubernetes_executor=True") if ready(p)],
        20,
        "the task's pod to run",
    )
