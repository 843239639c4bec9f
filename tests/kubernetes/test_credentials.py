"""The daemon's own credentials: from a kubeconfig, or from its pod; both are replaced in time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from kubernetes.config import incluster_config

from reconciler.cluster.cluster import Cluster
from reconciler.cluster.clusters import Clusters
from reconciler.core.errors import Away
from reconciler.core.reasons import Reason
from reconciler.settings import KubernetesSettings
from tests.harness.kube_api import ApiError, wait_for
from tests.harness.laboratory import Lab

RULES = [{"apiGroups": [""], "resources": ["pods"], "verbs": ["list", "watch"]}]


def revoked(lab: Lab, space: str, token: str) -> str:
    """Return a new token of the account, once the server refuses the previous one."""
    lab.api.delete("serviceaccounts", space, "daemon")

    def refused() -> bool:
        try:
            lab.plane.client(token=token).list("pods", space)
        except ApiError as error:
            return error.status == 401
        return False

    wait_for(refused, 40, "the old token to be refused")
    lab.api.create("serviceaccounts", space, {"metadata": {"name": "daemon"}})
    return lab.plane.token_for(space, "daemon")


def works_after(
    lab: Lab, space: str, token: str, cluster: Cluster, put: Callable[[str], object]
) -> None:
    """Check that requests and watches continue with the new token in the file, after a refusal."""
    mirror = cluster.mirror("pods", space)
    mirror.synced(20)
    assert cluster.list("pods", space) == []
    fresh = revoked(lab, space, token)
    with pytest.raises(Away) as caught:
        cluster.list("pods", space)
    assert caught.value.reason == Reason.CLUSTER_DENIED
    put(fresh)
    assert cluster.list("pods", space) == []
    lab.plane.restart_apiserver()  # ends the watch, which was opened with the old token
    pod = {"metadata": {"name": "one"}, "spec": {"containers": [{"name": "a", "image": "a"}]}}
    lab.api.create("pods", space, pod)
    wait_for(lambda: [p["metadata"]["name"] for p in mirror.items()] == ["one"], 40, "the pod")


def test_a_kubeconfig_is_read_again_when_its_token_is_refused(lab: Lab, tmp_path: Path) -> None:
    """A token that the server no longer accepts is replaced by the current one in the file."""
    space = lab.namespace("credentials")
    token = lab.account(space, "daemon", {space: RULES})
    path = tmp_path / "kubeconfig"
    lab.plane.kubeconfig(path, token=token)
    clusters = Clusters(KubernetesSettings.model_validate({"kubeconfig": path}))
    try:
        works_after(
            lab,
            space,
            token,
            clusters.of("lab"),
            lambda fresh: lab.plane.kubeconfig(path, token=fresh),
        )
    finally:
        clusters.close()


def test_a_daemon_in_a_pod_uses_the_pods_account(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Address, certificate and token are those of a pod; a replaced token is read again."""
    space = lab.namespace("credentials")
    token = lab.account(space, "daemon", {space: RULES})
    token_file = tmp_path / "token"
    token_file.write_text(token)
    monkeypatch.setattr(incluster_config, "SERVICE_TOKEN_FILENAME", str(token_file))
    monkeypatch.setattr(incluster_config, "SERVICE_CERT_FILENAME", str(lab.plane.certificate))
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(lab.plane.port))
    clusters = Clusters(KubernetesSettings())
    try:
        works_after(lab, space, token, clusters.of(None), token_file.write_text)
    finally:
        clusters.close()
    user = f"system:serviceaccount:{space}:daemon"
    assert {e["objectRef"]["resource"] for e in lab.plane.audit(user)} == {"pods"}
