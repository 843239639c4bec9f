"""Progress of a restart, as reported by pods."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from reconciler.airflow.kubernetes.driver import KubernetesDriver
from reconciler.airflow.kubernetes.release import RESTARTED_AT, seconds
from reconciler.airflow.kubernetes.rollout import moved, unsettled
from reconciler.cluster.diagnose import diagnose
from reconciler.core.reasons import Reason

STAMP = "2026-01-01T10:00:00Z"
READY = "2026-01-01T10:01:00Z"
LATER = "2026-01-01T10:15:00Z"


def pod(ready: str, since: str) -> dict[str, Any]:
    """Return a restarted pod that is ready ("True") or not, since that time."""
    conditions = [
        {"type": "Initialized", "status": "True", "lastTransitionTime": STAMP},
        {"type": "Ready", "status": ready, "lastTransitionTime": since},
        {"type": "ContainersReady", "status": ready, "lastTransitionTime": since},
    ]
    metadata = {"annotations": {RESTARTED_AT: STAMP}, "creationTimestamp": STAMP}
    return {"metadata": metadata, "status": {"conditions": conditions}}


def test_a_pod_that_was_ready_has_its_time_again_when_it_no_longer_is() -> None:
    """Others still restart: a moment in which it is not ready is not a hanging restart."""
    assert moved([pod("True", READY)], STAMP) == seconds(READY)
    assert moved([pod("False", LATER)], STAMP) == seconds(LATER)
    assert moved([pod("False", STAMP)], STAMP) == seconds(STAMP)


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ('secret "absent" not found', Reason.CONTAINER_CONFIG),
        ("failed to sync secret cache: timed out waiting for the condition", None),
    ],
)
def test_what_a_busy_kubelet_tries_again_is_no_problem(message: str, reason: Reason | None) -> None:
    """It says so with the reason of a container that cannot be made."""
    waiting = {"reason": "CreateContainerConfigError", "message": message}
    problem = diagnose(
        {
            "metadata": {"name": "scheduler-1"},
            "spec": {"containers": [{"name": "scheduler"}]},
            "status": {"containerStatuses": [{"name": "scheduler", "state": {"waiting": waiting}}]},
        }
    )
    assert (problem.reason if problem else None) == reason


@pytest.mark.parametrize(
    ("down", "reason"),
    [
        ({"git-sync"}, "SidecarCrashLoop"),
        ({"git-sync", "scheduler"}, "CrashLoop"),
        ({"git-sync-init"}, "SidecarCrashLoop"),
        ({"wait-for-airflow-migrations"}, "CrashLoop"),
        ({"log-groomer"}, "CrashLoop"),
    ],
)
def test_a_crash_of_airflows_own_image_goes_before_others(down: set[str], reason: str) -> None:
    """Only what loads the build may be its fault, whatever the order of the containers."""
    images = {
        "git-sync-init": "git-sync:4",
        "wait-for-airflow-migrations": "airflow:3",
        "git-sync": "git-sync:4",
        "log-groomer": "airflow:3",
        "scheduler": "airflow:3",
    }
    spec = [{"name": name, "image": image} for name, image in images.items()]
    status = [{"name": name, "restartCount": 4 if name in down else 0} for name in images]
    problem = diagnose(
        {
            "metadata": {"name": "s", "labels": {"component": "scheduler"}},
            "spec": {"initContainers": spec[:2], "containers": spec[2:]},
            "status": {"initContainerStatuses": status[:2], "containerStatuses": status[2:]},
        }
    )
    assert problem is not None
    assert problem.reason == reason


def test_a_rollout_that_waits_for_a_pod_of_a_dead_node_is_no_fault_of_the_build() -> None:
    """The pod is reported, not that the restart took too long."""
    begun = seconds(READY)
    left = pod("False", STAMP)
    left["metadata"] |= {"name": "airflow-worker-0", "namespace": "n", "deletionTimestamp": READY}
    left["spec"] = {"nodeName": "node-7"}
    workload = {"metadata": {"name": "airflow-worker", "namespace": "n"}, "spec": {"replicas": 1}}
    cluster = SimpleNamespace(limits=SimpleNamespace(schedule_timeout=60.0))
    problem: Any = KubernetesDriver._late(
        None,  # type: ignore[arg-type]
        SimpleNamespace(cluster=cluster, seen_since=0.0),  # type: ignore[arg-type]
        "statefulsets",
        workload,
        [left],
        SimpleNamespace(probe_timeout=300.0),  # type: ignore[arg-type]
        SimpleNamespace(restarted_at=begun, restarted_by=begun),  # type: ignore[arg-type]
        begun + 301.0,
        begun,
        begun,
    )
    assert problem.reason == Reason.POD_STUCK
    assert "node-7" in problem.message
    assert problem.reason.policy.blameless


@pytest.mark.parametrize(("waits", "reason"), [(5.0, None), (61.0, "QuotaExceeded")])
def test_a_refusal_of_an_earlier_restart_that_happens_again_has_its_time(
    waits: float, reason: str | None
) -> None:
    """One event is counted for days: only the time for which the pod is missing now matters."""
    begun = seconds(READY)
    event = {
        "firstTimestamp": STAMP,
        "lastTimestamp": READY,
        "involvedObject": {"uid": "u", "name": "airflow-worker"},
        "message": "create Pod airflow-worker-0 in StatefulSet airflow-worker failed error: "
        "exceeded quota: q",
    }
    cluster = SimpleNamespace(
        limits=SimpleNamespace(schedule_timeout=60.0), list=lambda *_, **__: [event]
    )
    workload = {
        "metadata": {"name": "airflow-worker", "namespace": "n", "uid": "u"},
        "spec": {"replicas": 1, "template": {}},
    }
    problem: Any = KubernetesDriver._late(
        None,  # type: ignore[arg-type]
        SimpleNamespace(cluster=cluster, seen_since=0.0),  # type: ignore[arg-type]
        "statefulsets",
        workload,
        [],
        SimpleNamespace(probe_timeout=300.0),  # type: ignore[arg-type]
        SimpleNamespace(restarted_at=begun, restarted_by=begun),  # type: ignore[arg-type]
        begun + waits,
        begun,
        begun,
    )
    assert (problem and problem.reason) == reason


def test_a_component_must_stay_up_before_its_instance_is_healthy() -> None:
    """The youngest container counts: each crash restarts the time."""
    starts = {"scheduler": 100.0, "triggerer": 80.0}
    assert unsettled(starts, 110.0, 0.0) == ""
    assert unsettled(starts, 110.0, 20.0) == "scheduler has been up for 10 of 20 s"
    assert unsettled(starts, 130.0, 20.0) == ""
    assert unsettled({"scheduler": 140.0}, 130.0, 20.0) == "scheduler has been up for 0 of 20 s"


def test_a_container_that_crashes_once_a_minute_is_in_a_loop_while_it_is_ready() -> None:
    """It is ready most of the time: the count of its restarts decides, not its current state."""
    problem = diagnose(
        {
            "metadata": {"name": "s", "labels": {"component": "scheduler"}},
            "spec": {"containers": [{"name": "scheduler", "image": "airflow:3"}]},
            "status": {
                "containerStatuses": [{"name": "scheduler", "restartCount": 2, "ready": True}]
            },
        }
    )
    assert problem is not None
    assert problem.reason == Reason.CRASH_LOOP
