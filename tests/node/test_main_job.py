"""The main job on a real node, with a real Airflow of more than 300 distributions."""

from __future__ import annotations

import re

import pytest

from tests.harness.node.site import NodeSite


def _imported(version: str) -> str:
    """Return the pattern of what a task logs that has a version from a build."""
    return rf"began with {re.escape(version)} in \S+/lib/acme/__init__\.py"


def test_from_a_commit_to_a_task_that_imports_it(site: NodeSite) -> None:
    """Inspection, build, activation and gate in real pods; then a task pod has the package."""
    site.let_tasks_end()
    with site.daemon():
        version = site.reach_a_version()
        log = site.finish_run("uses_acme", site.start_run("uses_acme"))
        assert re.search(_imported(version), log), log[-4000:]


@pytest.mark.nightly
def test_a_task_that_runs_stays_on_its_build(site: NodeSite) -> None:
    """The next build is activated meanwhile; tasks that start then have that."""
    site.hold_tasks()
    with site.daemon():
        first = site.reach_a_version()
        run = site.start_run("uses_acme")
        site.wait_log("uses_acme", run, _imported(first))
        second = site.next_version()
        site.commit(second)
        site.wait_active(second)
        assert "ended with" not in site.task_log("uses_acme", run)
        site.let_tasks_end()
        assert f"ended with {first}" in site.finish_run("uses_acme", run)
        later = site.finish_run("uses_acme", site.start_run("uses_acme"))
        assert re.search(_imported(second), later), later[-4000:]
