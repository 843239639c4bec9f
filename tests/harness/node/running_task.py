"""A switch while a task runs in a pod that it restarts."""

from __future__ import annotations

from tests.harness.kube_api import wait_for
from tests.harness.node.airflow_dag import imported
from tests.harness.node.site import GIVE_UP, NodeSite


def switch_under_a_task(site: NodeSite) -> str:
    """Activate a version, start a task on it, commit the next; return that once it is active.

    Raises AssertionError unless the switch waits for the task, which ends with what it began with.
    """
    site.hold_tasks()
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
    return second
