"""The page on Kubernetes, followed on the node: every command, in the page's order.

Not literal is what this node cannot have: an NFS server (the page's own way for one node, a
hostPath, is taken, in a folder of the test), a default storage class (the page's own volume for
the records), a proxy, a registry (its image is on the node), and the official chart of Airflow,
whose shape a stand-in has. Of the ways to uninstall, the one that stays on the present build is
taken. The plain manifests are applied as they are; with their NFS volume nothing of them starts.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

import pytest
import yaml

from tests.docs.blocks import ROOT, blocks
from tests.harness.kube_api import Json, wait_for
from tests.harness.node.airflow_dag import imported
from tests.harness.node.node import GIVE_UP, Node
from tests.harness.node.reader import AIRFLOW, INSTANCE, SHARE, Reader
from tests.kubernetes import customs

pytestmark = pytest.mark.nightly

PAGE = ROOT / "docs" / "kubernetes.md"
PASSWORD = "password-of-a-reader"
USER = "airflow users create --role Op --username groundcrew"
HEAD = f"metadata: {{name: {INSTANCE}}}\nspec:\n"
LOADER = SHARE / "instances" / INSTANCE / "loader" / "sitecustomize.py"


def test_the_page_is_followed(node: Node) -> None:
    """A commit is imported by a task in the end; then everything is removed, without harm."""
    with (
        tempfile.TemporaryDirectory(prefix="groundcrew-reader-") as folder,
        Reader(node, Path(folder)) as reader,
    ):
        _follow(reader)


def _follow(reader: Reader) -> None:
    shell = iter([block.text for block in blocks(PAGE) if block.language == "sh"])

    def follow() -> str:
        return reader.run(next(shell))

    _prepare(reader)
    follow()  # namespace and secrets
    _prepare_cluster(reader)
    assert "Phase:          Succeeded" in follow()  # install, test, status

    follow()  # connect the release
    reader.airflow_rolled_out()
    reader.environments.commit("1.0")
    wait_for(lambda: _is_active(reader), GIVE_UP, f"{INSTANCE} to be active")
    assert follow().strip() == str(LOADER)
    reader.runs.let_end()
    reader.runs.complete(imported("1.0"))

    follow()  # a secret for PostgreSQL
    before = reader.airflow_pods()
    follow()  # upgrade and go back
    assert reader.airflow_pods() == before

    _disconnect(reader)
    follow()  # what is left
    assert (reader.share / "instances" / INSTANCE).is_dir()
    reader.airflow_rolled_out()
    assert reader.rest.is_running("uses_acme")

    customs.install(reader.node)
    shutil.copytree(ROOT / "deploy" / "manifests", reader.here / "manifests")
    follow()  # without Helm
    reader.run("kubectl delete --wait=false -f manifests/monitoring/ -f manifests/")
    assert next(shell, None) is None


def _documents(start: str) -> Json:
    """Return the document of the page's block that begins with some text."""
    (block,) = (b for b in blocks(PAGE) if b.language == "yaml" and b.text.startswith(start))
    document: Json = yaml.safe_load(block.text)
    return document


def _prepare(reader: Reader) -> None:
    """Write the page's files; see above what is not as it says."""
    (reader.here / "airflow-password.txt").write_text(PASSWORD)
    values = _documents("# groundcrew.yaml")
    share = _documents("share:\n  persistentVolume:\n    hostPath:")
    share["share"]["persistentVolume"]["hostPath"]["path"] = str(reader.share)
    own = _documents("extraVolumes:")
    trusted = [v for v in own["extraEnv"] if v["name"] == "SSL_CERT_FILE"]
    reader.write("groundcrew.yaml", {**values, **share, **own, "extraEnv": trusted})
    records = _documents("apiVersion: v1\nkind: PersistentVolume")
    records["spec"]["hostPath"]["path"] = str(reader.records)
    reader.write("records.yaml", records)
    instance = _documents(f"apiVersion: groundcrew/v1\nkind: Instance\n{HEAD}  team:")
    reader.environments.create(instance["spec"])
    reader.environments.commit_all("an instance")


def _prepare_cluster(reader: Reader) -> None:
    """Make what the page tells in sentences."""
    assert f"`{USER}`" in PAGE.read_text()
    reader.run(
        f"kubectl -n {AIRFLOW} exec deploy/airflow-scheduler -- {USER} --password {PASSWORD} "
        "--firstname Ground --lastname Crew --email groundcrew@example.com\n"
        f"kubectl -n groundcrew create configmap corp-ca --from-file=ca.crt={reader.authority}\n"
        "kubectl apply -f records.yaml"
    )


def _is_active(reader: Reader) -> bool:
    printed = reader.run(
        "kubectl -n groundcrew exec deploy/groundcrew -- groundcrew status -o json"
    )
    (instance,) = json.loads(printed)["instances"]
    return bool(instance["build"]) and instance["sync"] == "Synced"


def _disconnect(reader: Reader) -> None:
    """Take the three entries out of the release, and uninstall."""
    reader.run(
        f"helm upgrade airflow apache-airflow/airflow -n {AIRFLOW} --version 1.22.0 --reset-values"
    )
    reader.airflow_rolled_out()
    reader.run("helm uninstall groundcrew -n groundcrew --wait")
