"""The chart rendered by Helm's own engine: its output, refusals, and consistency."""

from __future__ import annotations

import subprocess
import sys
import threading
import tomllib
from collections import defaultdict
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import helm_python
import kubernetes_validate
import pytest
import yaml

from reconciler.settings import Settings
from scripts.manifests import CHART, example, render
from tests.deploy.rendered import (
    CUSTOM,
    NAMES,
    Json,
    merged,
    one,
    pod_of,
    release,
    text_of,
)

VERSIONS = [f"1.{minor}" for minor in range(29, 38)]
GIT: Json = {"config": {"git": {"url": "https://git.example.com/environments.git"}}}
NFS: Json = {"persistentVolume": {"nfs": {"server": "nfs.example.com", "path": "/groundcrew"}}}


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    """Return each of deploy/helm/examples."""
    return str(request.param)


# ---------------------------------------------------------------------------------------- accepted


def test_lint_finds_nothing(name: str) -> None:
    """Strictly, with each example; only the recommended icon is missing."""
    report = helm_python.lint(CHART, example(name), strict=True, namespace="groundcrew")
    assert report["errors"] == []
    assert [m["error"] for m in report["messages"]] == ["icon is recommended"]


def test_every_kubernetes_takes_every_document(name: str) -> None:
    """The strict schemas of all releases from 1.29 on; custom kinds are tested in the lab."""
    documents = [d for d in release(name) if d["kind"] not in CUSTOM]
    assert len(documents) > 3
    for version in VERSIONS:
        for document in documents:
            kubernetes_validate.validate(document, version, strict=True)


def test_the_newest_schemas_are_used() -> None:
    """No schema of kubernetes-validate is left out."""
    newest = kubernetes_validate.latest_version()
    assert VERSIONS[-1] == ".".join(newest.split(".")[:2])


def test_the_settings_are_what_the_daemon_reads(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The settings' own code reads the rendered file, which says where things are mounted."""
    documents = release(name)
    path = tmp_path / "groundcrew.toml"
    path.write_text(text_of(documents))
    monkeypatch.setenv("GROUNDCREW_CONFIG", str(path))
    settings = Settings()
    pod = pod_of(documents)
    (container,) = pod["containers"]
    mounts = {m["name"]: m["mountPath"] for m in container["volumeMounts"]}
    assert mounts["share"] == str(settings.share)
    assert mounts["state"] == str(settings.state_dir)
    secrets = [m for n, m in mounts.items() if n.startswith(("secret-", "team-"))]
    assert all(m.startswith(f"{settings.secrets_dir}/") for m in secrets)
    ports = {p["name"]: p["containerPort"] for p in container["ports"]}
    variables = {e["name"]: e.get("value", "") for e in container["env"]}
    assert str(ports["http"]) == variables["GROUNDCREW_HTTP__PORT"]
    assert ports["indexes"] == settings.kubernetes.jobs.index_port
    share = next(v for v in pod["volumes"] if v["name"] == "share")
    assert {k: v for k, v in share.items() if k != "name"} == settings.kubernetes.volume
    assert variables["GROUNDCREW_CONFIG"] == f"{mounts['config']}/groundcrew.toml"


def test_values_of_the_users_settings_arrive() -> None:
    """Whole numbers stay whole, including large ones, and lists too."""
    settings = Settings(**tomllib.loads(text_of(release("large"))))
    assert settings.git.poll_interval == 5
    assert settings.builder.memory_bytes == 8 << 30
    assert settings.kubernetes.cluster("west").parallel_builds == 6
    assert settings.kubernetes.cluster(None).parallel_builds == 8
    assert settings.kubernetes.jobs.pull_secrets == ("registry",)
    assert [route.name for route in settings.notify.routes] == ["everyone", "science"]
    assert settings.commit_status.forge == "gitlab"
    tolerations = {
        "config": {"kubernetes": {"jobs": {"tolerations": [{"tolerationSeconds": 300}]}}}
    }
    text = text_of(list(render(merged(example("small"), tolerations))))
    (toleration,) = tomllib.loads(text)["kubernetes"]["jobs"]["tolerations"]
    assert repr(toleration["tolerationSeconds"]) == "300"


def test_secrets_are_laid_out_as_the_daemon_looks_for_them() -> None:
    """`<team>/<name>`, `git`, `slack`, `hooks`, `api`, `forge`; read-only, and a kubeconfig."""
    pod = pod_of(release("large"))
    (container,) = pod["containers"]
    names = {v["name"]: v["secret"]["secretName"] for v in pod["volumes"] if "secret" in v}
    mounts = {
        m["mountPath"]: names[m["name"]]
        for m in container["volumeMounts"]
        if m["name"] in names and m["readOnly"]
    }
    below = "/etc/groundcrew/secrets"
    assert mounts == {
        f"{below}/git": "groundcrew-git",
        f"{below}/slack": "groundcrew-slack",
        f"{below}/hooks": "groundcrew-hooks",
        f"{below}/api": "groundcrew-api",
        f"{below}/analytics/analytics-airflow": "analytics-airflow",
        f"{below}/analytics/corp-pypi": "analytics-pypi",
        f"{below}/science/science-airflow": "science-airflow",
        f"{below}/science/slack": "science-slack",
        f"{below}/forge": "groundcrew-forge",
        "/etc/groundcrew/kubeconfig": "groundcrew-clusters",
    }


def test_one_daemon_is_replaced_and_several_roll() -> None:
    """SQLite's volume is for one at a time; with PostgreSQL nothing is stored in the pod."""
    small, large = release("small"), release("large")
    assert one(small, "Deployment")["spec"]["strategy"] == {"type": "Recreate"}
    state = next(v for v in pod_of(small)["volumes"] if v["name"] == "state")
    assert state["persistentVolumeClaim"] == {"claimName": "groundcrew-state"}
    assert one(small, "PersistentVolumeClaim", "groundcrew-state")["spec"]["accessModes"] == [
        "ReadWriteOnce"
    ]
    assert one(large, "Deployment")["spec"]["strategy"]["type"] == "RollingUpdate"
    state = next(v for v in pod_of(large)["volumes"] if v["name"] == "state")
    assert "emptyDir" in state
    (container,) = pod_of(large)["containers"]
    url = next(e for e in container["env"] if e["name"] == "GROUNDCREW_DATABASE")
    assert url["valueFrom"]["secretKeyRef"] == {"name": "groundcrew-database", "key": "url"}


def test_the_daemon_is_restarted_when_its_settings_change() -> None:
    """It is only restarted then: another rendering of the same values is identical."""
    values = example("small")
    slower = merged(values, {"config": {"git": {"poll_interval": 30}}})
    marks = [
        one(list(render(v)), "Deployment")["spec"]["template"]["metadata"]["annotations"]
        for v in (values, values, slower)
    ]
    assert marks[0] == marks[1] != marks[2]


# -------------------------------------------------------------------------------- the share, rights


def test_each_namespace_gets_the_share_and_airflow_cannot_write_it() -> None:
    """A claim belongs to one namespace, so each has a volume and a claim."""
    documents = release("large")
    volumes = [d for d in documents if d["kind"] == "PersistentVolume"]
    access = {}
    for volume in volumes:
        spec = volume["spec"]
        namespace = spec["claimRef"]["namespace"]
        claim = one(documents, "PersistentVolumeClaim", "groundcrew-share", namespace)["spec"]
        assert claim["volumeName"] == volume["metadata"]["name"]
        assert claim["accessModes"] == spec["accessModes"]
        assert spec["persistentVolumeReclaimPolicy"] == "Retain"
        assert spec["csi"]["volumeHandle"] == f"groundcrew-{namespace}"
        access[namespace] = (spec["accessModes"], spec.get("mountOptions", []))
    ours: tuple[list[str], list[str]] = (["ReadWriteMany"], [])
    airflows = (["ReadOnlyMany"], ["ro"])
    assert access == {
        "groundcrew": ours,
        "groundcrew-builds": ours,
        "airflow-analytics": airflows,
        "airflow-science": airflows,
    }


def test_what_airflow_and_the_records_live_on_outlives_the_release(name: str) -> None:
    """`helm uninstall` keeps every volume and claim."""
    lasting = ("PersistentVolume", "PersistentVolumeClaim")
    for document in release(name):
        if document["kind"] in lasting:
            assert document["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}


def test_roles_hold_just_the_verbs_used() -> None:
    """No wildcard, no secrets, nothing cluster-wide; each Airflow namespace the same."""
    documents = release("large")
    roles = [d for d in documents if d["kind"] == "Role"]
    assert not [d for d in documents if d["kind"].startswith("ClusterRole")]
    allowed: dict[str, set[tuple[str, str, str]]] = defaultdict(set)
    for role in roles:
        allowed[role["metadata"]["namespace"]] |= {
            (group, resource, verb)
            for rule in role["rules"]
            for group in rule["apiGroups"]
            for resource in rule["resources"]
            for verb in rule["verbs"]
        }
    assert set(allowed) == {"airflow-analytics", "airflow-science", "groundcrew-builds"}
    assert allowed["airflow-analytics"] == allowed["airflow-science"]
    every = allowed["airflow-analytics"] | allowed["groundcrew-builds"]
    assert {r for _, r, _ in every} == {
        "pods",
        "pods/log",
        "events",
        "deployments",
        "statefulsets",
        "jobs",
    }
    assert not {v for _, _, v in every} & {"*", "update", "deletecollection", "impersonate"}
    for role in roles:
        named = role["metadata"]
        binding = one(documents, "RoleBinding", named["name"], named["namespace"])
        assert binding["subjects"] == [
            {"kind": "ServiceAccount", "name": "groundcrew", "namespace": "groundcrew"}
        ]
    assert pod_of(documents)["serviceAccountName"] == "groundcrew"


# ------------------------------------------------------------------------------------------ refused

HOST = {"index_host": "groundcrew.example.com"}
REFUSED = {
    "no repo": ({"share": NFS}, "set the address of the environments repo"),
    "no share": ({**GIT}, "share: set exactly one of"),
    "two shares": ({**GIT, "share": {**NFS, "storageClass": "x"}}, "share: set exactly one of"),
    "a claim for others": (
        {**GIT, "share": {"storageClass": "shared"}, "airflowNamespaces": ["airflow"]},
        "groundcrew, groundcrew-builds, airflow need the share",
    ),
    "a volume that restricted pods may not have": (
        {**GIT, "share": {"volume": NFS["persistentVolume"]}},
        "Pod Security restricted may not name nfs",
    ),
    "an address of several daemons": (
        merged(example("large"), {"config": {"kubernetes": {"clusters": {"west": HOST}}}}),
        "clusters.west.index_host is one address, and of 2 replicas",
    ),
    "a service of several daemons": (
        merged(example("large"), {"indexService": {"enabled": True}}),
        "indexService leads to every replica",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_values_that_do_not_fit_together_are_refused_in_words(case: str) -> None:
    """The message says what to set."""
    values, message = REFUSED[case]
    with pytest.raises(helm_python.HelmError, match=message):
        list(render(values))


def test_sqlite_is_refused_for_two(chart: Path) -> None:
    """The schema refuses it, and so does a message if there is no schema."""
    values = {**GIT, "share": NFS, "replicas": 2}
    with pytest.raises(helm_python.HelmError, match="existingSecret"):
        list(render(values))
    (chart / "values.schema.json").unlink()
    with pytest.raises(helm_python.HelmError, match="SQLite is for one daemon: set database"):
        list(render(values))


MISTAKES: dict[str, Json] = {
    "poll_intervall": {"config": {"git": {"poll_intervall": 5}}},
    "share": {"config": {"share": "/mnt"}},
    "database": {"config": {"database": "sqlite:///x"}},
    "parallel": {"config": {"activation": {"parallel": 0}}},
    "log_format": {"config": {"log_format": "xml"}},
    "replica": {"replica": 2},
    "size": {"state": {"size": "much"}},
    "airflowNamespaces": {"airflowNamespaces": ["Airflow"]},
}


@pytest.mark.parametrize("key", MISTAKES)
def test_mistakes_are_found_by_the_schema(key: str) -> None:
    """Including settings, whose schema is that of the daemon's own model."""
    with pytest.raises(helm_python.HelmError, match=key):
        list(render(merged(example("small"), MISTAKES[key])))


def test_every_value_is_told_in_values_yaml() -> None:
    """All values that the schema accepts are there with their defaults, and no others."""
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    with helm_python.Chart.load(CHART) as chart:
        schema = chart.schema or {}

    def keys(node: Json, below: Json) -> Iterator[str]:
        for key, part in node.get("properties", {}).items():
            yield key
            if part.get("additionalProperties") is False:
                yield from (f"{key}.{one}" for one in keys(part, below.get(key, {})))

    told = {key for key, _ in flat(values, "", schema)}
    assert told == set(keys(schema, values)) - {"global"}


def flat(values: Json, prefix: str, schema: Json) -> Iterator[tuple[str, object]]:
    """Yield dotted keys of values, as deep as the schema names them."""
    for key, value in values.items():
        yield f"{prefix}{key}", value
        part = schema["properties"].get(key, {})
        if part.get("additionalProperties") is False:
            yield from flat(value, f"{prefix}{key}.", part)


# ---------------------------------------------------------------------------- the chart's own test


class Answers(BaseHTTPRequestHandler):
    """Daemon that is ready or not."""

    ready = True

    def do_GET(self) -> None:
        body = {"/readyz": b"ok\n", "/metrics": b"groundcrew_leader 1.0\n"}[self.path]
        self.send_response(200 if self.ready else 503)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Log nothing."""


@pytest.mark.parametrize("ready", [True, False])
def test_helm_test_asks_the_daemon(ready: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its command is run unchanged, except for the address, which is the service's."""
    with helm_python.Chart.load(CHART) as chart:
        rendered = chart.render(example("small"), name="groundcrew", namespace="groundcrew")
    pod = yaml.safe_load(rendered["groundcrew/templates/tests/daemon.yaml"])
    kubernetes_validate.validate(pod, VERSIONS[0], strict=True)
    (container,) = pod["spec"]["containers"]
    *arguments, address = container["command"]
    assert address == "http://groundcrew.groundcrew.svc:8085"
    assert arguments.pop(0) == "python3"
    monkeypatch.setattr(Answers, "ready", ready)
    server = HTTPServer(("127.0.0.1", 0), Answers)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        here = f"http://127.0.0.1:{server.server_port}"
        done = subprocess.run([sys.executable, *arguments, here], capture_output=True, timeout=60)
    finally:
        server.shutdown()
        server.server_close()
    assert (done.returncode == 0) is ready, done.stderr
