"""The project's own image as the daemon, installed from the chart under Pod Security."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from reconciler.builder.executor.kubernetes.manifest import CONTAINER
from reconciler.builder.verify.dag_pods.runner import PODS
from tests.harness.kube_api import wait_for
from tests.harness.node.airflow_dag import imported
from tests.harness.node.airflow_release import USER
from tests.harness.node.installation import Installation
from tests.harness.node.node import GIVE_UP
from tests.harness.node.site import NodeSite

pytestmark = pytest.mark.nightly


@pytest.fixture(scope="module")
def installed(site: NodeSite) -> Iterator[Installation]:
    site.runs.let_end()
    with Installation(site) as installation:
        yield installation


def test_the_chart_does_the_main_job(installed: Installation, site: NodeSite) -> None:
    """From a commit to a task that imports it, without root and with the chart's rights."""
    version = site.reach_a_version()
    assert "the claim airflow-dags" in site.wait_event("DagsParsed").message
    site.runs.complete(imported(version))


def test_pods_may_do_what_is_documented_and_no_more(
    installed: Installation, site: NodeSite
) -> None:
    """User, capabilities, mounts and token, read from the processes."""
    share = str(site.share)
    daemon = installed.confinement(installed.pod(), "daemon")
    assert (daemon.user, daemon.group, daemon.capabilities) == (USER, 0, 0)
    assert daemon.no_new_privileges
    assert daemon.has_seccomp
    assert daemon.has_token
    assert {share, "/var/lib/groundcrew", "/tmp"} <= daemon.writable
    assert "/" in daemon.read_only

    site.commit(site.next_version())
    job = installed.confinement(site.running_pod(site.builds), CONTAINER)
    assert (job.user, job.group, job.capabilities) == (USER, 0, 0)
    assert job.no_new_privileges
    assert job.has_seccomp
    assert not job.has_token
    assert "/" in job.read_only
    inside = {point for point in job.writable if point.startswith(share)}
    assert share not in inside
    assert inside, job

    parser = installed.confinement(site.running_pod(site.airflow, PODS), CONTAINER)
    assert (parser.user, parser.group, parser.capabilities) == (USER, 0, 0)
    assert parser.no_new_privileges
    assert parser.has_seccomp
    assert not parser.has_token
    assert {"/", share, "/opt/airflow/dags"} <= parser.read_only


@pytest.mark.parametrize("way", ["process", "pod"])
def test_a_daemon_that_is_killed_goes_on(installed: Installation, site: NodeSite, way: str) -> None:
    """Once while a Job of its build runs, and once in the activation."""
    kill = installed.kill_process if way == "process" else installed.kill_pod
    version = site.next_version()
    revision = site.commit(version)
    site.running_pod(site.builds)
    kill()
    site.wait_event("ActivationStarted", revision)
    kill()
    site.wait_active(version)


def test_airflow_stays_healthy_without_groundcrew(installed: Installation, site: NodeSite) -> None:
    """The last here: what is active is loaded after the uninstallation too."""
    version = site.reach_a_version()
    installed.uninstall()

    def names() -> set[str]:
        return {p["metadata"]["name"] for p in site.node.pods(site.airflow, "component=scheduler")}

    before = names()
    for name in before:
        site.node.api.delete("pods", site.airflow, name)
    wait_for(lambda: names() and not names() & before, GIVE_UP, "another scheduler")
    site.node.rolled_out("deployments", site.airflow, "airflow-scheduler", GIVE_UP)
    site.runs.complete(imported(version))
