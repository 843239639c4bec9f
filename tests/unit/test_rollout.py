"""How far a restart is, by what pods say of themselves."""

from __future__ import annotations

from typing import Any

from reconciler.airflow.kubernetes.release import RESTARTED_AT, seconds
from reconciler.airflow.kubernetes.rollout import moved

STAMP = "2026-01-01T10:00:00Z"
READY = "2026-01-01T10:01:00Z"
LATER = "2026-01-01T10:15:00Z"


def pod(ready: str, since: str) -> dict[str, Any]:
    """A restarted pod that is ready ("True") or not, since then."""
    conditions = [
        {"type": "Initialized", "status": "True", "lastTransitionTime": STAMP},
        {"type": "Ready", "status": ready, "lastTransitionTime": since},
        {"type": "ContainersReady", "status": ready, "lastTransitionTime": since},
    ]
    metadata = {"annotations": {RESTARTED_AT: STAMP}, "creationTimestamp": STAMP}
    return {"metadata": metadata, "status": {"conditions": conditions}}


def test_a_pod_that_was_ready_has_its_time_again_when_it_no_longer_is() -> None:
    """Others still restart: a moment in which it is not ready is no restart that hangs."""
    assert moved([pod("True", READY)], STAMP) == seconds(READY)
    assert moved([pod("False", LATER)], STAMP) == seconds(LATER)
    assert moved([pod("False", STAMP)], STAMP) == seconds(STAMP)
