"""A switch while a task runs in a pod that it restarts."""

from __future__ import annotations

from tests.harness.kube_api import wait_for
from tests.harness.node.airflow_dag import ended, imported
from tests.harness.node.node import GIVE_UP
from tests.harness.node.site import NodeSite


def switch_under_a_task(site: NodeSite) -> str:
    """Activate a version, start a task on it, commit the next; return that once it is active.

    Raises AssertionError unless the switch waits for the task, which ends with what it began with.
    """
    site.runs.hold()
    first = site.reach_a_version()
    run = site.runs.start()
    site.runs.wait_log(run, imported(first))
    second = site.next_version()
    revision = site.commit(second)
    site.wait_event("ActivationStarted", revision)
    wait_for(lambda: "1 tasks still run" in site.waits_for(), GIVE_UP, "the drain")
    site.runs.let_end()
    site.runs.finish(run, ended(first))
    site.wait_active(second)
    return second
