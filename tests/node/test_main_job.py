"""The main job on a real node, with a real Airflow of more than 300 distributions."""

from __future__ import annotations

import pytest

from tests.harness.node.airflow_dag import imported
from tests.harness.node.running_task import switch_under_a_task
from tests.harness.node.site import NodeSite


def test_from_a_commit_to_a_task_that_imports_it(site: NodeSite) -> None:
    """Inspection, build, activation and gate in real pods; then a task pod has the package."""
    site.runs.let_end()
    with site.daemon():
        version = site.reach_a_version()
        site.runs.complete(imported(version))


@pytest.mark.nightly
def test_a_task_that_runs_is_waited_for(site: NodeSite) -> None:
    """The scheduler of this image cannot adopt it, and would crash until it has ended."""
    with site.daemon():
        switch_under_a_task(site)
        assert site.restarts("scheduler") == 0
