"""The node's Airflow release is shaped as the official chart renders it.

`chart.yaml` beside the release lists what matters of the chart's own output. Where a rendered chart
is at hand, the list is compared with it: set GROUNDCREW_RENDERED_CHART to the file that
`helm template airflow apache-airflow/airflow --version 1.22.0` wrote, with KubernetesExecutor,
DAGs and logs on claims, and Airflow 3.2.2.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.fakes.releases import Release
from tests.harness import node
from tests.harness.kube_api import Json
from tests.harness.node.airflow_release import MIGRATION, AirflowRelease

CHART = Path(node.__file__).parent / "chart.yaml"
RENDERED = os.environ.get("GROUNDCREW_RENDERED_CHART", "")
OURS = ("groundcrew", "PYTHONPATH")  # added to what the chart renders


def facts(documents: Iterable[Json]) -> dict[str, Any]:
    """Return what matters of each workload, by its name."""
    return {
        document["metadata"]["name"]: _workload(document)
        for document in documents
        if document["kind"] in ("Deployment", "StatefulSet", "Job")
    }


def _workload(document: Json) -> dict[str, Any]:
    spec, labels = document["spec"], document["metadata"]["labels"]
    template = spec["template"]
    return {
        "kind": document["kind"],
        "executor": labels.get("executor"),
        "selector": spec.get("selector", {}).get("matchLabels"),
        **_pod(template),
    }


def _pod(template: Json) -> dict[str, Any]:
    spec = template["spec"]
    container = spec["containers"][0]
    mounts = (m for m in container["volumeMounts"] if m["name"] not in OURS)
    return {
        "labels": template["metadata"]["labels"],
        "account": spec["serviceAccountName"],
        "grace": spec.get("terminationGracePeriodSeconds", 30),
        "security": [spec["securityContext"], container["securityContext"]],
        "container": container["name"],
        "arguments": container.get("args"),
        "variables": sorted(v["name"] for v in container["env"] if v["name"] not in OURS),
        "mounts": sorted(f"{m['name']} {m['mountPath']}" for m in mounts),
    }


def all_facts(documents: Iterable[Json], template: Json) -> dict[str, Any]:
    """Return the facts of workloads and of the template of pods of tasks."""
    return {**facts(documents), "pod template": _pod(template)}


def _recorded() -> dict[str, Any]:
    recorded: dict[str, Any] = yaml.safe_load(CHART.read_text())
    return recorded


@pytest.fixture
def release() -> AirflowRelease:
    return AirflowRelease("airflow", "image:1", "db", "10.0.0.1", "red-dev", Path("/srv/share"))


def test_the_release_is_what_the_chart_renders(release: AirflowRelease) -> None:
    """Only the command of the migration differs: it makes the user too."""
    rendered = all_facts([*release.preparation(), *release.components()], release.pod_template())
    job = f"airflow-{MIGRATION}"
    recorded = _recorded()
    assert rendered[job].pop("arguments")[2].startswith("airflow db migrate")
    assert recorded[job].pop("arguments")[2].endswith("airflow db migrate")
    assert rendered == recorded


def test_the_stand_in_of_other_tests_has_the_charts_labels_and_commands() -> None:
    """Older charts differ in volumes and variables, which the stand-in leaves out."""
    same = ("executor", "selector", "labels", "account", "grace", "container", "arguments")
    recorded = _recorded()
    stand_in = Release(version="3.2.2", persistence=False, statsd=False).manifests("airflow")
    for name, rendered in facts(stand_in).items():
        assert {k: rendered[k] for k in same} == {k: recorded[name][k] for k in same}, name


if RENDERED:

    def test_the_recorded_list_is_that_of_a_rendered_chart() -> None:
        """The list itself is compared with Helm's output, where that is at hand."""
        text = Path(RENDERED).read_text()
        documents = [d for d in yaml.safe_load_all(text[text.index("\n---") :]) if d]
        (config,) = (d for d in documents if d["kind"] == "ConfigMap")
        template = yaml.safe_load(config["data"]["pod_template_file.yaml"])
        kept = (d for d in documents if d["metadata"]["name"] != "airflow-create-user")
        assert all_facts(kept, template) == _recorded()
