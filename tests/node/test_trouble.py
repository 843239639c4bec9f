"""Faults on a real node: of builds, live instances, the daemon, Jobs and the share."""

from __future__ import annotations

import time

import pytest

from reconciler.core.event_codec import data_of
from reconciler.core.phases import ActivationPhase
from reconciler.core.reasons import Reason
from tests.harness.kube_api import wait_for
from tests.harness.node.airflow_dag import imported
from tests.harness.node.node import GIVE_UP
from tests.harness.node.site import TEAM, NodeSite

pytestmark = pytest.mark.nightly

# DAG files import `acme`; the processor's own pod alone cannot, so no verification sees it.
FAILS_LIVE = """\
import os
if os.environ.get("HOSTNAME", "").startswith("airflow-dag-processor"):
    raise RuntimeError("not in this pod")
"""
# Only while it is verified; the pages are written, or they would not be taken.
NEEDS_A_GIGABYTE = """\
import sys
if "imports" in sys.argv:
    pages = bytearray(b"x") * (1 << 30)
"""
# The processor dies once the test says so.
CRASHES_LATER = """\
import os
if os.environ.get("HOSTNAME", "").startswith("airflow-dag-processor"):
    if os.path.exists("/opt/airflow/logs/crash"):
        os.kill(1, 9)
        os.kill(os.getppid(), 9)
"""


def test_a_package_that_does_not_import_is_refused(site: NodeSite) -> None:
    """Nothing live is touched, and the message has the error."""
    with site.daemon():
        before = site.reach_a_version()
        revision = site.commit(site.next_version(), "raise ImportError('no such thing')\n")
        failed = site.wait_event("BuildFailed", revision)
        assert "no such thing" in failed.message
        assert site.version() == before


def test_an_operators_rollback(site: NodeSite) -> None:
    """Tasks have the build before again."""
    with site.daemon():
        before = site.reach_a_version()
        after = site.next_version()
        site.commit(after)
        site.wait_active(after)
        site.groundcrew("rollback", "red-dev")
        site.wait_active(before)
        site.runs.let_end()
        site.runs.complete(imported(before))


def test_a_failure_of_live_dags_is_rolled_back(site: NodeSite) -> None:
    """The processor cannot import a DAG any more: the build before comes back."""
    with site.daemon():
        before = site.reach_a_version()
        revision = site.commit(site.next_version(), FAILS_LIVE)
        back = site.wait_event("RolledBack", revision)
        assert back.reason == Reason.NEW_IMPORT_ERRORS, back
        assert "not in this pod" in back.message
        assert site.version() == before


def test_a_crash_once_the_gate_is_passed_is_rolled_back(site: NodeSite) -> None:
    """The watch sees it."""
    crash = site.logs / "crash"
    with site.daemon():
        before = site.reach_a_version()
    site.watch = GIVE_UP
    try:
        with site.daemon():
            revision = site.commit(site.next_version(), CRASHES_LATER)
            wait_for(lambda: site.phase() == ActivationPhase.WATCHING, GIVE_UP, "the watch")
            crash.touch()
            back = site.wait_event("RolledBack", revision)
            assert back.reason == Reason.CRASH_LOOP, back
            assert "Watching" in str(data_of(back)["phases"])
            assert site.version() == before
    finally:
        crash.unlink(missing_ok=True)
        site.watch = 10.0


def test_a_daemon_that_is_killed_goes_on(site: NodeSite) -> None:
    """Once while a Job of its build runs, and once in the activation."""
    with site.daemon() as process:
        site.reach_a_version()
        version = site.next_version()
        revision = site.commit(version)
        site.running_pod(site.builds)
        process.kill()
    with site.daemon() as process:
        site.wait_event("ActivationStarted", revision)
        process.kill()
    with site.daemon():
        site.wait_active(version)


@pytest.mark.parametrize("way", ["deleted", "evicted"])
def test_a_build_survives_the_loss_of_its_pod(site: NodeSite, way: str) -> None:
    """It is tried again by itself."""
    with site.daemon():
        site.reach_a_version()
        version = site.next_version()
        site.commit(version)
        pod = site.running_pod(site.builds)
        if way == "deleted":
            site.node.api.delete("pods", site.builds, pod["metadata"]["name"])
        else:
            site.node.evict(pod)
        site.wait_active(version)


def test_a_build_survives_a_drained_node(site: NodeSite) -> None:
    """The Airflow has to go as well; both come back with the node."""
    with site.daemon():
        site.reach_a_version()
        version = site.next_version()
        site.commit(version)
        site.running_pod(site.builds)
        begun = time.time()
        site.node.cordon()
        try:
            for space in (site.builds, site.airflow):
                for pod in site.node.pods(space):
                    if pod["status"].get("phase") == "Running":
                        site.node.evict(pod)
            lost = site.wait_event("BuildRetry", since=begun)
            assert lost.reason == Reason.JOB_LOST, lost
        finally:
            site.node.cordon(closed=False)
        site.wait_active(version)


def test_a_build_that_needs_more_memory_than_its_job_has_says_so(site: NodeSite) -> None:
    """And succeeds once it has enough."""
    with site.daemon():
        site.reach_a_version()
    version = site.next_version()
    with site.daemon(memory="600Mi"):
        failed = site.wait_event("BuildFailed", site.commit(version, NEEDS_A_GIGABYTE))
        assert "memory" in failed.message
    with site.daemon():
        site.groundcrew("retry", f"environment/{TEAM}")
        site.wait_active(version)


def test_a_share_that_goes_and_comes_back(site: NodeSite) -> None:
    """A commit of that time is activated afterwards."""
    with site.daemon() as process:
        site.reach_a_version()
        site.wait_leading(process)
        away = site.share.with_name("share-away")
        site.share.rename(away)
        try:
            version = site.next_version()
            revision = site.commit(version)
            site.wait_event("EnvironmentAccepted", revision)
        finally:
            away.rename(site.share)
        site.wait_active(version)
