"""Upgrade of a release's image to another Airflow and another Python.

The last module: the database stays upgraded.
"""

from __future__ import annotations

import pytest

from tests.harness.kube_api import wait_for
from tests.harness.node.airflow_dag import ended, imported
from tests.harness.node.airflow_image import AirflowImage
from tests.harness.node.node import GIVE_UP
from tests.harness.node.site import NodeSite

pytestmark = pytest.mark.nightly


def test_an_image_with_another_airflow_and_another_python(site: NodeSite) -> None:
    """The environment is built for it and active on it, without a commit."""
    site.runs.let_end()
    with site.daemon():
        before = site.reach_a_version()
        site.upgrade(AirflowImage("3.3.2", "3.13"))

        def is_moved() -> bool:
            record = site.record()
            key = record.runtime.key if record is not None and record.runtime is not None else ""
            return "cp313" in key and record is not None and record.current.runtime == key

        wait_for(is_moved, GIVE_UP, "a build for the new runtime to be active")
        site.wait_active(before)
        site.runs.complete(imported(before))


def test_a_task_that_runs_stays_on_its_build(site: NodeSite) -> None:
    """The next build is activated meanwhile; tasks that start then have that."""
    site.runs.hold()
    with site.daemon():
        first = site.reach_a_version()
        run = site.runs.start()
        site.runs.wait_log(run, imported(first))
        second = site.next_version()
        site.commit(second)
        site.wait_active(second)
        assert "ended with" not in site.runs.log(run)
        site.runs.let_end()
        site.runs.finish(run, ended(first))
        site.runs.complete(imported(second))
