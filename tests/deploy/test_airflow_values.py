"""Command `groundcrew airflow-values`: one-time values of a release of the official chart."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from reconciler.cli import main
from reconciler.cli.airflow_values import TWO
from reconciler.core.definitions import Api, Instance, KubernetesTarget, Place
from reconciler.core.model import Change, InstanceRecord
from reconciler.store.store import Store
from tests.fakes.fleet import RUNTIME

INSTANCE = """\
apiVersion: groundcrew/v1
kind: Instance
metadata: {name: analytics-prod}
spec:
  team: analytics
  kubernetes: {namespace: airflow-analytics, release: airflow}
  api: {url: "http://airflow-api-server:8080", credentials: analytics-airflow}
"""
VALUES: dict[str, Any] = {
    "volumes": [
        {
            "name": "groundcrew",
            "persistentVolumeClaim": {"claimName": "groundcrew-share", "readOnly": True},
        },
        {"name": "groundcrew-local", "emptyDir": {}},
    ],
    "volumeMounts": [
        {"name": "groundcrew", "mountPath": "/srv/groundcrew", "readOnly": True},
        {"name": "groundcrew-local", "mountPath": "/var/cache/groundcrew"},
    ],
    "env": [
        {"name": "PYTHONPATH", "value": "/srv/groundcrew/instances/analytics-prod/loader"},
        {"name": "GROUNDCREW_LOCAL", "value": "/var/cache/groundcrew"},
    ],
}


@pytest.fixture
def repo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a checkout of an environments repo; there are no settings."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GROUNDCREW_STATE_DIR", str(tmp_path / "state"))
    checkout = tmp_path / "repo"
    (checkout / "instances").mkdir(parents=True)
    (checkout / "instances" / "prod.yaml").write_text(INSTANCE)
    return checkout


def test_they_are_printed_for_a_checkout(repo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """YAML for `helm -f`: the whole share, read-only, and the loader of that instance."""
    assert main(["airflow-values", "analytics-prod", "--definitions", str(repo)]) == 0
    text = capsys.readouterr().out
    assert yaml.safe_load(text) == VALUES
    assert "release airflow in airflow-analytics" in text
    assert main(["airflow-values", "analytics-prod", "--definitions", str(repo), "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out) == VALUES


def test_they_follow_the_settings(
    repo: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same path and the same volume as in the daemon and in Jobs."""
    nfs = {"nfs": {"server": "nfs.example.com", "path": "/groundcrew"}}
    monkeypatch.setenv("GROUNDCREW_SHARE", "/mnt/share")
    monkeypatch.setenv("GROUNDCREW_KUBERNETES__VOLUME", json.dumps(nfs))
    assert main(["airflow-values", "instance/analytics-prod", "--definitions", str(repo)]) == 0
    values = yaml.safe_load(capsys.readouterr().out)
    assert values["volumes"][0] == {"name": "groundcrew", "nfs": {**nfs["nfs"], "readOnly": True}}
    assert values["volumeMounts"][0]["mountPath"] == "/mnt/share"
    assert values["env"][0]["value"] == "/mnt/share/instances/analytics-prod/loader"


@pytest.mark.parametrize(
    ("local", "volume", "variable"),
    [
        ("memory", {"emptyDir": {"medium": "Memory"}}, "/var/cache/groundcrew"),
        (
            "/data/g",
            {"hostPath": {"path": "/data/g", "type": "DirectoryOrCreate"}},
            "/var/cache/groundcrew:/tmp",
        ),
        ("off", None, "off"),
    ],
)
def test_pods_unpack_where_they_are_told(
    repo: Path,
    capsys: pytest.CaptureFixture[str],
    local: str,
    volume: dict[str, object] | None,
    variable: str,
) -> None:
    """They use memory, a folder of the node, or nothing: then the share is read directly."""
    command = ["airflow-values", "analytics-prod", "--definitions", str(repo), "--local", local]
    assert main(command) == 0
    values = yaml.safe_load(capsys.readouterr().out)
    assert values["env"][1] == {"name": "GROUNDCREW_LOCAL", "value": variable}
    wanted = [] if volume is None else [{"name": "groundcrew-local", **volume}]
    assert values["volumes"][1:] == wanted
    assert len(values["volumeMounts"]) == len(values["volumes"])


@pytest.mark.parametrize("local", ["", "tmp", "/data/../etc"])
def test_a_place_that_is_none_is_refused(
    repo: Path, capsys: pytest.CaptureFixture[str], local: str
) -> None:
    """The message lists valid values."""
    command = ["airflow-values", "analytics-prod", "--definitions", str(repo), "--local", local]
    assert main(command) == 2
    assert "disk, memory, off or the absolute path" in capsys.readouterr().err


def test_they_are_printed_for_what_the_daemon_knows(
    repo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a checkout, the records have the instances and whether one is an Airflow 2."""
    (tmp_path / "state").mkdir()
    store = Store(f"sqlite:///{tmp_path / 'state' / 'groundcrew.db'}")
    store.migrate()
    lease = store.acquire("test", 60.0)
    assert lease is not None
    instance = Instance(
        "analytics-prod",
        "analytics",
        Place("instances/prod.yaml"),
        Api("http://airflow:8080"),
        kubernetes=KubernetesTarget("airflow-analytics", "airflow"),
    )
    record = InstanceRecord("analytics-prod", "analytics", instance)
    store.write(lease, Change(instances=(record,)))
    assert main(["airflow-values", "analytics-prod"]) == 0
    text = capsys.readouterr().out
    assert yaml.safe_load(text) == VALUES
    assert "# Airflow 2 takes a password only with this" in text
    two = replace(RUNTIME, airflow_version="2.11.0")
    (stored,) = store.load().instances.values()
    store.write(lease, Change(instances=(replace(stored, runtime=two),)))
    store.close()
    assert main(["airflow-values", "analytics-prod"]) == 0
    text = capsys.readouterr().out
    assert yaml.safe_load(text)["env"] == [*VALUES["env"], TWO]
    assert "# Airflow 2" not in text
    assert main(["airflow-values", "analytics-prd"]) == 2
    assert "did you mean instance/analytics-prod?" in capsys.readouterr().err


def test_what_cannot_be_connected_is_told_in_words(
    repo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A local instance, a missing one, one with a mistake, and a directory that is no repo."""
    command = ["airflow-values", "analytics-prod", "--definitions"]
    local = INSTANCE.replace(
        "kubernetes: {namespace: airflow-analytics, release: airflow}",
        "local: {python: /opt/airflow/bin/python, airflowHome: /opt/airflow, components: "
        "{scheduler: {restart: [/bin/true]}}}",
    )
    path = repo / "instances" / "prod.yaml"
    path.write_text(local)
    assert main([*command, str(repo)]) == 2
    assert "PYTHONPATH=/srv/groundcrew/instances/analytics-prod/loader" in capsys.readouterr().err
    path.write_text(INSTANCE.replace("analytics-prod", "analytics-test"))
    assert main([*command, str(repo)]) == 2
    assert "did you mean instance/analytics-test?" in capsys.readouterr().err
    path.write_text(INSTANCE.replace("team:", "taem:"))
    assert main([*command, str(repo)]) == 1
    assert "instances/prod.yaml:5" in capsys.readouterr().err
    assert main([*command, str(tmp_path / "nothing")]) == 2
    assert "is not a directory" in capsys.readouterr().err
