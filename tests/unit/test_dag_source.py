"""Contents of the pod that parses a release's DAGs, made from the release's pod template."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from reconciler.builder.verify.dag_pods.manifest import DagOrder, dag_job
from reconciler.builder.verify.dag_pods.source import Source, Unseen, source_of
from reconciler.core.definitions import DagOrigin
from reconciler.core.runtime import Image, Runtime
from reconciler.settings import JobSettings

Json = dict[str, Any]

SHARE = "/srv/groundcrew"
SECRETS = ("airflow-metadata", "airflow-fernet-key", "of-the-release", "airflow-dag-processor")


def chart(*volumes: Json, mounts: tuple[Json, ...] = (), **more: Any) -> Json:
    """Return the dag-processor's pod template in the shape of the official chart 1.22."""

    def secret(name: str, key: str) -> Json:
        return {"secretKeyRef": {"name": name, "key": key}}

    env = [
        {"name": "AIRFLOW_HOME", "value": "/opt/airflow"},
        {"name": "AIRFLOW__CORE__FERNET_KEY", "valueFrom": secret("airflow-fernet-key", "key")},
        {
            "name": "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN",
            "valueFrom": secret("airflow-metadata", "connection"),
        },
        {"name": "AIRFLOW_CONN_WAREHOUSE", "value": "of-the-release"},
        *more.pop("env", ()),
    ]
    main = {
        "name": "dag-processor",
        "image": "airflow:3.2.2",
        "env": env,
        "envFrom": [{"secretRef": {"name": "of-the-release"}}],
        "args": ["bash", "-c", "exec airflow dag-processor"],
        "volumeMounts": [
            {"name": "logs", "mountPath": "/opt/airflow/logs"},
            {
                "name": "config",
                "mountPath": "/opt/airflow/airflow.cfg",
                "subPath": "airflow.cfg",
                "readOnly": True,
            },
            {"name": "keys", "mountPath": "/opt/airflow/keys"},
            {"name": "token", "mountPath": "/var/run/secrets/token"},
            {"name": "groundcrew", "mountPath": SHARE, "readOnly": True},
            *mounts,
        ],
    }
    groomer = {"name": "dag-processor-log-groomer", "image": "airflow:3.2.2"}
    spec = {
        "serviceAccountName": "airflow-dag-processor",
        "securityContext": {"runAsUser": 50000, "fsGroup": 0},
        "nodeSelector": {"disk": "fast"},
        "containers": [main, groomer, *more.pop("containers", ())],
        "initContainers": list(more.pop("initContainers", ())),
        "volumes": [
            {"name": "logs", "persistentVolumeClaim": {"claimName": "airflow-logs"}},
            {"name": "config", "configMap": {"name": "airflow-config"}},
            {"name": "keys", "secret": {"secretName": "of-the-release"}},
            {"name": "token", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}},
            {"name": "groundcrew", "persistentVolumeClaim": {"claimName": "groundcrew-share"}},
            *volumes,
        ],
    }
    return {"spec": spec}


DAGS_MOUNT = {"name": "dags", "mountPath": "/opt/airflow/dags", "readOnly": False}
CLAIM = chart(
    {"name": "dags", "persistentVolumeClaim": {"claimName": "airflow-dags"}}, mounts=(DAGS_MOUNT,)
)


def sync(name: str, **more: Any) -> Json:
    """Return a git-sync container of the chart."""
    env = {
        "GITSYNC_REPO": "https://robot:hunter2@git.example.com/dags.git",
        "GITSYNC_REF": "main",
        "GITSYNC_DEPTH": "1",
        "GITSYNC_ROOT": "/git",
        "GITSYNC_LINK": "repo",
        "GITSYNC_PERIOD": "5s",
        "GITSYNC_EXECHOOK_COMMAND": "/hook",
    }
    password = {"secretKeyRef": {"name": "git-credentials", "key": "GITSYNC_PASSWORD"}}
    return {
        "name": name,
        "image": "git-sync:v4.4.2",
        "securityContext": {"runAsUser": 65533},
        "env": [
            *({"name": key, "value": value} for key, value in env.items()),
            {"name": "GITSYNC_PASSWORD", "valueFrom": password},
        ],
        "volumeMounts": [
            {"name": "dags", "mountPath": "/git"},
            {
                "name": "git-sync-ssh-key",
                "mountPath": "/etc/git-secret/ssh",
                "subPath": "key",
                "readOnly": True,
            },
        ],
        **more,
    }


SYNCED = chart(
    {"name": "dags", "emptyDir": {}},
    {"name": "git-sync-ssh-key", "secret": {"secretName": "ssh", "defaultMode": 288}},
    mounts=(DAGS_MOUNT,),
    containers=(sync("git-sync"),),
    initContainers=(sync("git-sync-init"),),
)


def read(
    template: Json, origin: DagOrigin | None = None, *, as_release: bool = False
) -> tuple[Source, Json]:
    """Return the source of a template, and the pod that is made from it."""
    source = source_of(template, "dag-processor", SHARE, origin, as_release=as_release)
    image = Image("lab", "airflow@sha256:1", "sha256:1", 50000, 0)
    runtime = Runtime("k", "/usr/python", "3.12.1", "cp312", "linux_x86_64", "3.2.2", (), (), image)
    order = DagOrder(
        "job",
        "airflow",
        "red",
        "key",
        "red-dev",
        "dag-processor",
        "airflow",
        "a" * 16,
        "none",
        Path(SHARE, "instances/red-dev/loader"),
        Path(SHARE, "tools/1/dag_parser.py"),
        60.0,
        as_release,
    )
    job = dag_job(order, source, runtime, JobSettings())
    return source, job["spec"]["template"]["spec"]


@pytest.mark.parametrize("template", [CLAIM, SYNCED, chart()], ids=["claim", "git", "image"])
def test_no_secret_of_the_release_reaches_the_pod(template: Json) -> None:
    """It gets no variable, volume, service account or token of it, wherever the DAGs are."""
    _, pod = read(template)
    text = json.dumps(pod)
    assert not [name for name in SECRETS if name in text]
    assert "airflow-logs" not in text
    assert "serviceAccount" not in text.replace("automountServiceAccountToken", "")
    assert pod["automountServiceAccountToken"] is False
    for container in (*pod["initContainers"], *pod["containers"]):
        security = container["securityContext"]
        assert security["capabilities"] == {"drop": ["ALL"]}
        assert security["readOnlyRootFilesystem"] is True
        assert security["allowPrivilegeEscalation"] is False


@pytest.mark.parametrize("template", [CLAIM, SYNCED, chart()], ids=["claim", "git", "image"])
def test_nothing_but_local_disk_is_writable(template: Json) -> None:
    """The share and the DAGs are read-only; only git-sync writes the DAGs that it fetches."""
    _, pod = read(template)
    (main,) = pod["containers"]
    writable = [m["name"] for m in main["volumeMounts"] if not m.get("readOnly")]
    assert writable == ["groundcrew-scratch"]
    assert {"name": "groundcrew", "mountPath": SHARE, "readOnly": True} in main["volumeMounts"]


def test_a_claim_is_mounted_where_the_release_has_it() -> None:
    """A container that runs no DAG reads its folder from airflow.cfg in the pod."""
    source, pod = read(CLAIM)
    (main,) = pod["containers"]
    (settings,) = pod["initContainers"]
    assert source.description == "the claim airflow-dags"
    assert {**DAGS_MOUNT, "readOnly": True} in main["volumeMounts"]
    assert [m["name"] for m in settings["volumeMounts"]] == [
        "groundcrew",
        "groundcrew-scratch",
        "groundcrew-config",
    ]
    assert "groundcrew-config" not in json.dumps(main)
    assert pod["nodeSelector"] == {"disk": "fast"}


def test_git_is_fetched_once_by_the_container_that_has_its_credentials() -> None:
    """It has no hook and no period; the container that runs the DAGs lacks the credentials."""
    source, pod = read(SYNCED)
    fetching, _ = pod["initContainers"]
    (main,) = pod["containers"]
    names = [v["name"] for v in fetching["env"]]
    assert fetching["image"] == "git-sync:v4.4.2"
    assert {"GITSYNC_ONE_TIME", "GITSYNC_REPO", "GITSYNC_REF", "GITSYNC_PASSWORD"} <= {*names}
    assert not {"GITSYNC_PERIOD", "GITSYNC_EXECHOOK_COMMAND"} & {*names}
    assert fetching["securityContext"]["runAsUser"] == 65533
    assert "git-sync-ssh-key" in json.dumps(fetching)
    assert not [word for word in ("git-sync-ssh-key", "git-credentials") if word in str(main)]
    assert source.description == "git, https://git.example.com/dags.git"
    assert pod["securityContext"]["fsGroup"] == 0


def test_only_known_variables_with_plain_values_are_taken() -> None:
    """A DAG folder in a variable is known beforehand; references to other objects are left out."""
    env = (
        {"name": "AIRFLOW__CORE__DAGS_FOLDER", "value": "/data/dags"},
        {"name": "AIRFLOW__CORE__PLUGINS_FOLDER", "value": "$(SOMEWHERE)/plugins"},
    )
    data = {"name": "data", "hostPath": {"path": "/mnt/data"}}
    source, pod = read(chart(data, mounts=({"name": "data", "mountPath": "/data"},), env=env))
    (main,) = pod["containers"]
    names = {v["name"] for v in main["env"]}
    assert source.folder == "/data/dags"
    assert names == {
        "AIRFLOW_HOME",
        "AIRFLOW__CORE__DAGS_FOLDER",
        "PYTHONDONTWRITEBYTECODE",
        "GROUNDCREW_DAGS",
    }
    assert {"name": "data", "hostPath": {"path": "/mnt/data"}} in pod["volumes"]


def test_what_the_instance_says_comes_before_what_the_template_shows() -> None:
    """It may be a claim with a folder in it, or a folder of the image."""
    origin = DagOrigin(claim="team-dags", sub_path="prod", path="/dags")
    source, pod = read(CLAIM, origin)
    (main,) = pod["containers"]
    mount = {
        "name": "groundcrew-dags",
        "mountPath": "/dags",
        "readOnly": True,
        "subPath": "prod",
    }
    assert mount in main["volumeMounts"]
    assert source.folder == "/dags"
    assert "airflow-dags" not in json.dumps(pod)
    source, pod = read(CLAIM, DagOrigin(image="/opt/dags"))
    assert (source.folder, source.description) == ("/opt/dags", "the image, /opt/dags")


def test_the_release_gives_all_it_has_where_its_instance_says_so() -> None:
    """The pod gets variables, secrets and volumes, but neither its account nor a token."""
    _, pod = read(CLAIM, as_release=True)
    (main,) = pod["containers"]
    assert "airflow-metadata" in json.dumps(main["env"])
    assert main["envFrom"]
    assert {"keys", "config"} <= {m["name"] for m in main["volumeMounts"]}
    assert "token" not in {v["name"] for v in pod["volumes"]}
    assert "serviceAccountName" not in pod
    assert [m["name"] for m in main["volumeMounts"] if not m.get("readOnly")] == [
        "groundcrew-scratch"
    ]


@pytest.mark.parametrize(
    ("template", "words"),
    [
        (chart({"name": "dags", "emptyDir": {}}, mounts=(DAGS_MOUNT,)), "spec.dags.git.container"),
        (
            chart({"name": "dags", "secret": {"secretName": "x"}}, mounts=(DAGS_MOUNT,)),
            "spec.dags of the Instance",
        ),
        (
            {"spec": {"containers": [{"name": "dag-processor"}]}},
            "does not mount the share at /srv/groundcrew",
        ),
        ({"spec": {}}, "has no container"),
    ],
)
def test_dags_that_cannot_be_mounted_are_unseen_in_words(template: Json, words: str) -> None:
    """The message says what to do."""
    with pytest.raises(Unseen) as caught:
        read(template)
    assert words in caught.value.message


def test_a_sync_container_with_hooks_is_not_run() -> None:
    """Hooks run programs and call URLs, which a verification must not do."""
    hooked = sync("git-sync", args=["--exechook-command=/hook"])
    template = chart({"name": "dags", "emptyDir": {}}, mounts=(DAGS_MOUNT,), containers=(hooked,))
    with pytest.raises(Unseen, match="hooks"):
        read(template)
