"""The chart on a real API server: every document is accepted, and its rights suffice exactly."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import helm_python
import pytest
import yaml

from reconciler.cli.airflow_values import chart_values
from reconciler.settings import Settings
from scripts.manifests import CHART, MANIFESTS, example, render
from tests.deploy.rendered import NAMES, job_of, merged, one, pod_of, release
from tests.fakes.releases import CELERY, KUBERNETES, Release
from tests.harness.kube_api import Api, ApiError, path_of, wait_for
from tests.harness.laboratory import Lab
from tests.kubernetes import customs

Json = dict[str, Any]

STRICT = "?dryRun=All&fieldValidation=Strict&fieldManager=helm&force=true"


@pytest.fixture(scope="module")
def server(lab: Lab) -> Lab:
    """Return the laboratory with the Prometheus operator's kinds."""
    customs.install(lab)
    return lab


def dry_run(lab: Lab, document: Json) -> Json:
    """Send a document as `kubectl apply --server-side --dry-run=server --validate=strict` does."""
    meta, kind = document["metadata"], document["kind"].lower()
    plural = {"y": kind[:-1] + "ies", "s": kind + "es"}.get(kind[-1], kind + "s")
    if document["apiVersion"].startswith(customs.GROUP):
        path = f"/apis/{customs.GROUP}/v1/namespaces/{meta['namespace']}/{plural}/{meta['name']}"
    else:
        path = path_of(plural, meta.get("namespace", ""), meta["name"])
    return lab.api.call("PATCH", path + STRICT, document, "application/apply-patch+yaml")


def namespaces(lab: Lab, documents: list[Json]) -> None:
    """Create the namespaces of the documents, as a dry run creates none."""
    for name in {d["metadata"].get("namespace") for d in documents} - {None}:
        lab.api.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})


@pytest.mark.parametrize("name", NAMES)
def test_the_server_takes_every_document(server: Lab, name: str) -> None:
    """A server-side dry run accepts each example's output, with unknown fields refused."""
    documents = release(name)
    namespaces(server, documents)
    for document in documents:
        answer = dry_run(server, document)
        assert answer["metadata"]["name"] == document["metadata"]["name"]


SOURCES: dict[str, Json] = {
    "nfs": {"server": "nfs.example.com", "path": "/exports/groundcrew"},
    "csi": {"driver": "nfs.csi.k8s.io", "volumeHandle": "groundcrew-NAMESPACE"},
    "hostPath": {"path": "/srv/groundcrew", "type": "Directory"},
    "cephfs": {"monitors": ["ceph.example.com:6789"]},
    "azureFile": {"secretName": "azure", "secretNamespace": "groundcrew", "shareName": "gc"},
    "iscsi": {"targetPortal": "10.0.0.1:3260", "iqn": "iqn.2001-04.com.example:gc", "lun": 0},
    "fc": {"wwids": ["3600508b400105e210000900000490000"]},
}


@pytest.mark.parametrize("kind", SOURCES)
def test_the_server_takes_every_kind_of_volume(server: Lab, kind: str) -> None:
    """Not every source has a field `readOnly`, and server-side apply refuses unknown fields."""
    values = merged(example("large"), {"share": {"persistentVolume": None}})
    values["share"]["persistentVolume"] = {kind: SOURCES[kind]}
    documents = [d for d in render(values) if d["kind"].startswith("PersistentVolume")]
    namespaces(server, documents)
    volumes = [d for d in documents if d["kind"] == "PersistentVolume"]
    assert len(volumes) == 4
    for document in documents:
        dry_run(server, document)


def test_the_server_takes_the_plain_manifests(server: Lab) -> None:
    """Monitoring is included."""
    paths = sorted(MANIFESTS.rglob("*.yaml"))
    documents = [d for p in paths for d in yaml.safe_load_all(p.read_text())]
    assert {d["kind"] for d in documents} >= {"Namespace", "Deployment", "ServiceMonitor"}
    namespaces(server, documents)
    for document in documents:
        dry_run(server, document)


def test_the_dry_run_finds_mistakes(server: Lab) -> None:
    """An unknown field is found in a kind of Kubernetes and in one of the operator's."""
    documents = release("large")
    namespaces(server, documents)
    for kind in ("Deployment", "ServiceMonitor"):
        wrong = one(documents, kind)
        wrong["spec"]["replica"] = 1
        with pytest.raises(ApiError, match="replica"):
            dry_run(server, wrong)


@pytest.mark.parametrize("name", NAMES)
def test_pods_are_allowed_where_they_run(lab: Lab, name: str) -> None:
    """A Job's pod where builds run, with its label; the daemon's pod in a restricted namespace."""
    documents = release(name)
    labels = next(
        (d["metadata"]["labels"] for d in documents if d["kind"] == "Namespace"), RESTRICTED
    )
    levels = {k: v for k, v in labels.items() if k.startswith("pod-security")}
    space = lab.namespace("builds", levels)
    priority = one(documents, "PriorityClass")
    lab.apply([priority])
    job = job_of(documents)["spec"]["template"]["spec"]
    try:
        try_pod(lab, space, job)
        with pytest.raises(ApiError, match="violates PodSecurity"):
            try_pod(lab, space, {**job, "hostNetwork": True})
    finally:  # cluster-wide: a release that creates its own could not be installed
        lab.api.delete("priorityclasses", "", priority["metadata"]["name"])
    if name != "volume":  # its NFS source is why its label says baseline
        daemon = {**pod_of(documents), "serviceAccountName": "default"}
        daemon.pop("priorityClassName", None)
        try_pod(lab, lab.namespace("daemon", RESTRICTED), daemon)


RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}


def try_pod(lab: Lab, namespace: str, spec: Json) -> None:
    """Ask for a pod in a dry run; raise ApiError if admission refuses it."""
    pod = {"metadata": {"name": "tried"}, "spec": spec}
    lab.api.call("POST", path_of("pods", namespace) + "?dryRun=All&fieldValidation=Strict", pod)


# ------------------------------------------------------------------------------------------- rights


GRANTED = {
    "airflow": {
        ("", "pods", ""): {"list", "watch", "delete"},
        ("", "pods", "log"): {"get"},
        ("", "events", ""): {"list"},
        ("apps", "deployments", ""): {"list", "watch", "patch"},
        ("apps", "statefulsets", ""): {"list", "watch", "patch"},
    },
    "dags": {("batch", "jobs", ""): {"create", "get", "list", "delete"}},
    "builds": {
        ("batch", "jobs", ""): {"create", "get", "list", "delete"},
        ("", "pods", ""): {"list", "watch"},
        ("", "pods", "log"): {"get"},
        ("", "events", ""): {"list"},
    },
}
VERBS = ("get", "list", "watch", "create", "update", "patch", "delete", "deletecollection")
OTHERS = (
    ("", "secrets", ""),
    ("", "configmaps", ""),
    ("", "pods", "exec"),
    ("", "serviceaccounts", ""),
    ("apps", "replicasets", ""),
    ("rbac.authorization.k8s.io", "roles", ""),
)


def test_the_service_account_may_do_just_that(lab: Lab) -> None:
    """The server is asked for each verb, in the two kinds of namespace and in another one."""
    home, airflow, builds, other = (lab.namespace(n) for n in ("home", "airflow", "builds", "else"))
    values = merged(
        example("small"), {"airflowNamespaces": [airflow], "builds": {"namespace": builds}}
    )
    documents = list(render(values, home))
    lab.apply(d for d in documents if d["kind"] in ("ServiceAccount", "Role", "RoleBinding"))
    account = lab.plane.client(token=lab.plane.token_for(home, "groundcrew"))
    for namespace, granted in (
        (airflow, GRANTED["airflow"] | GRANTED["dags"]),
        (builds, GRANTED["builds"]),
        (home, {}),
        (other, {}),
        ("", {}),
    ):
        for resource in {*OTHERS, *GRANTED["airflow"], *GRANTED["builds"]}:
            allowed = {v for v in VERBS if may(account, namespace, v, *resource)}
            assert allowed == granted.get(resource, set()), (namespace, resource)


def may(api: Api, namespace: str, verb: str, group: str, resource: str, sub: str) -> bool:
    """Return True if the server permits the action for this user."""
    attributes = {
        "namespace": namespace,
        "verb": verb,
        "group": group,
        "resource": resource,
        "subresource": sub,
    }
    body = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": attributes},
    }
    answer = api.call("POST", path_of("selfsubjectaccessreviews"), body)
    return bool(answer["status"]["allowed"])


# ---------------------------------------------------------------------------- install and uninstall


@pytest.fixture
def airflow(lab: Lab) -> Iterator[str]:
    """Yield a namespace for a release of Airflow."""
    name = lab.namespace("airflow")
    yield name
    lab.drop(name)


@pytest.mark.parametrize("executor", [KUBERNETES, CELERY])
def test_a_release_runs_with_the_printed_values(lab: Lab, airflow: str, executor: str) -> None:
    """In the shape of the official chart: all components run, and pods of tasks would."""
    values = chart_values(Settings(), "analytics-prod")
    airflow_release = Release(
        executor=executor,
        volumes=tuple(values["volumes"]),
        mounts=tuple(values["volumeMounts"]),
        env=tuple(values["env"]),
    )
    documents = list(render(merged(example("small"), {"airflowNamespaces": [airflow]})))
    claim = one(documents, "PersistentVolumeClaim", "groundcrew-share", airflow)
    volume = one(documents, "PersistentVolume", claim["spec"]["volumeName"])
    lab.apply([volume, claim])
    lab.apply(airflow_release.manifests(airflow))
    for component, kind in airflow_release.components.items():
        lab.rolled_out(f"{kind.lower()}s", airflow, f"{airflow_release.name}-{component}")
    task = airflow_release.task_pod(airflow, "task", {})
    try_pod(lab, airflow, task["spec"])
    mounts = {m["name"]: m for m in task["spec"]["containers"][0]["volumeMounts"]}
    assert mounts["groundcrew"]["readOnly"]
    assert "readOnly" not in mounts["groundcrew-local"]


def test_install_upgrade_go_back_and_uninstall(lab: Lab, airflow: str, tmp_path: Path) -> None:
    """With real Helm, volumes of Airflow stay bound, and its pods are never touched.

    If it is installed again with the same name, the release adopts what was kept.
    """
    space, builds = lab.namespace("groundcrew"), f"{airflow}-builds"
    values = merged(
        example("small"), {"airflowNamespaces": [airflow], "builds": {"namespace": builds}}
    )
    running = Release(
        volumes=(
            {"name": "groundcrew", "persistentVolumeClaim": {"claimName": "groundcrew-share"}},
        )
    )
    config = lab.plane.kubeconfig(tmp_path / "kubeconfig")
    with helm_python.Config(kubeconfig_path=config, namespace=space) as helm:
        installed = helm.install(CHART, "groundcrew", values, namespace=space)
        assert installed["status"] == "deployed"
        lab.rolled_out("deployments", space, "groundcrew")
        bound(lab, space, builds, airflow)
        lab.apply(running.manifests(airflow))
        lab.rolled_out("deployments", airflow, "airflow-scheduler")
        before = uids(lab, airflow)

        more = merged(values, {"config": {"git": {"poll_interval": 5}}, "podLabels": {"x": "y"}})
        helm.upgrade(CHART, "groundcrew", more, namespace=space)
        deployment = lab.rolled_out("deployments", space, "groundcrew")
        assert deployment["spec"]["template"]["metadata"]["labels"]["x"] == "y"
        helm.rollback("groundcrew", version=1)
        deployment = lab.rolled_out("deployments", space, "groundcrew")
        assert "x" not in deployment["spec"]["template"]["metadata"]["labels"]

        helm.uninstall("groundcrew")
        wait_for(lambda: not lab.pods(space) or None, 30, "the daemon's pod to go")
        assert lab.api.get("roles", airflow, "groundcrew-airflow") is None
        bound(lab, space, builds, airflow)
        assert lab.api.get("persistentvolumeclaims", space, "groundcrew-state") is not None
        assert uids(lab, airflow) == before

        helm.install(CHART, "groundcrew", values, namespace=space)
        lab.rolled_out("deployments", space, "groundcrew")
        bound(lab, space, builds, airflow)
        assert uids(lab, airflow) == before
        helm.uninstall("groundcrew")


def bound(lab: Lab, *spaces: str) -> None:
    """Assert that the share's claim is bound in each namespace."""

    def all_are() -> bool:
        claims = [lab.api.get("persistentvolumeclaims", s, "groundcrew-share") for s in spaces]
        return all(c and c.get("status", {}).get("phase") == "Bound" for c in claims)

    wait_for(all_are, 30, f"the share to be bound in {', '.join(spaces)}")


def uids(lab: Lab, namespace: str) -> set[str]:
    """Return the uids of the pods in a namespace."""
    return {pod["metadata"]["uid"] for pod in lab.pods(namespace)}
