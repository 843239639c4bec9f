"""Two daemons with PostgreSQL, of which one leads."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness.node.airflow_dag import imported
from tests.harness.node.airflow_image import AirflowImage
from tests.harness.node.installation import Installation
from tests.harness.node.node import Node
from tests.harness.node.site import NodeSite

pytestmark = pytest.mark.nightly


@pytest.fixture
def own_site(node: Node) -> Iterator[NodeSite]:
    """Yield a site whose records nothing else writes."""
    with (
        tempfile.TemporaryDirectory(prefix="groundcrew-site-") as folder,
        NodeSite(node, Path(folder), AirflowImage("3.2.2", "3.12"), number=2) as site,
    ):
        yield site


def test_the_other_daemon_goes_on_when_the_leaders_pod_is_killed(own_site: NodeSite) -> None:
    """Once while a Job of its build runs, and once in the activation."""
    site = own_site
    site.let_tasks_end()
    with Installation(site, replicas=2) as installation:
        site.reach_a_version()
        version = site.next_version()
        revision = site.commit(version)
        site.running_pod(site.builds)
        first = installation.kill_pod()
        site.wait_event("ActivationStarted", revision)
        second = installation.kill_pod()
        assert second != first
        site.wait_active(version)
        assert installation.pod()["metadata"]["name"] not in (first, second)
        log = site.finish_run("uses_acme", site.start_run("uses_acme"))
        assert re.search(imported(version), log), log[-4000:]
