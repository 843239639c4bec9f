"""The main job on a real node, with a real Airflow of more than 300 distributions."""

from __future__ import annotations

import re

import pytest

from tests.harness.kube_api import wait_for
from tests.harness.node.airflow_dag import imported
from tests.harness.node.site import GIVE_UP, NodeSite


def test_from_a_commit_to_a_task_that_imports_it(site: NodeSite) -> None:
    """Inspection, build, activation and gate in real pods; then a task pod has the package."""
    site.let_tasks_end()
    with site.daemon():
        version = site.reach_a_version()
        log = site.finish_run("uses_acme", site.start_run("uses_acme"))
        assert re.search(imported(version), log), log[-4000:]


@pytest.mark.nightly
def test_a_task_that_runs_is_waited_for(site: NodeSite) -> None:
    """The scheduler of this image cannot adopt it, and would crash until it has ended."""
    site.hold_tasks()
    with site.daemon():
        first = site.reach_a_version()
        run = site.start_run("uses_acme")
        site.wait_log("uses_acme", run, imported(first))
        second = site.next_version()
        revision = site.commit(second)
        site.wait_event("ActivationStarted", revision)
        wait_for(lambda: "1 tasks still run" in site.waits_for(), GIVE_UP, "the drain")
        site.let_tasks_end()
        assert f"ended with {first}" in site.finish_run("uses_acme", run)
        site.wait_active(second)
        assert site.restarts("scheduler") == 0
