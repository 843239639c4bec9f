"""The main job on a real node, with a real Airflow of more than 300 distributions."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness.node.airflow_image import AirflowImage
from tests.harness.node.node import Node
from tests.harness.node.site import NodeSite

DAG = """\
from airflow.sdk import dag, task


@dag(schedule=None, is_paused_upon_creation=False)
def uses_acme():
    @task
    def show():
        import acme

        print("acme is", acme.__version__, "in", acme.__file__)

    show()


uses_acme()
"""


@pytest.fixture(scope="module")
def site(node: Node) -> Iterator[NodeSite]:
    """Yield an Airflow 3 release whose pods run the image of 300 distributions."""
    image = AirflowImage("3.2.2", "3.12")
    with (
        tempfile.TemporaryDirectory(prefix="groundcrew-site-") as folder,
        NodeSite(node, Path(folder), image) as site,
    ):
        yield site


def test_a_commit_is_built_activated_and_imported_by_a_task_pod(site: NodeSite) -> None:
    """Inspection, build, activation and gate in real pods; then a task pod has the package."""
    (site.dags / "uses_acme.py").write_text(DAG)
    with site.daemon():
        site.commit("1.0")
        site.wait_active("1.0")
        state, log = site.run_dag("uses_acme")
        assert state == "success", log
        assert re.search(r"acme is 1\.0 in \S+/lib/acme/__init__\.py", log), log[-4000:]
