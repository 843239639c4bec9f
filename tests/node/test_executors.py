"""Releases with other executors: their tasks run in pods that a switch restarts."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness.node.airflow_dag import imported
from tests.harness.node.airflow_image import AirflowImage
from tests.harness.node.airflow_settings import CELERY, LOCAL
from tests.harness.node.node import Node
from tests.harness.node.running_task import switch_under_a_task
from tests.harness.node.site import NodeSite

pytestmark = pytest.mark.nightly


@pytest.fixture(params=[(LOCAL, "3.2.2"), (CELERY, "2.11.2")], ids=["local-3", "celery-2.11"])
def other_site(node: Node, request: pytest.FixtureRequest) -> Iterator[NodeSite]:
    """Yield a release; that of LocalExecutor has its triggerer as a Deployment."""
    executor, airflow = request.param
    with (
        tempfile.TemporaryDirectory(prefix="groundcrew-site-") as folder,
        NodeSite(node, Path(folder), AirflowImage(airflow, "3.12"), executor, 1) as site,
    ):
        yield site


def test_a_switch_waits_for_tasks_in_pods_that_it_restarts(other_site: NodeSite) -> None:
    """Tasks that start afterwards have the next build."""
    site = other_site
    with site.daemon():
        second = switch_under_a_task(site)
        site.runs.complete(imported(second))
