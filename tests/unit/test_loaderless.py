"""Pod templates that cannot bring the loader onto PYTHONPATH."""

from __future__ import annotations

from typing import Any

import pytest

from reconciler.airflow.kubernetes.loader import loaderless

LOADER = "/srv/groundcrew/instances/red-dev/loader"


def workload(*containers: dict[str, Any]) -> dict[str, Any]:
    labels = {"labels": {"component": "scheduler"}}
    return {"spec": {"template": {"metadata": labels, "spec": {"containers": list(containers)}}}}


def path(value: str) -> dict[str, Any]:
    return {"name": "PYTHONPATH", "value": value}


@pytest.mark.parametrize(
    ("container", "lacks"),
    [
        ({}, True),
        ({"env": [{"name": "AIRFLOW_HOME", "value": LOADER}]}, True),
        ({"env": [path("/opt/plugins")]}, True),
        ({"env": [path("/srv/groundcrew/instances/red-dev/loader-old")]}, True),
        ({"env": [path("/srv/groundcrew/instances/red-dev-2/loader")]}, True),
        ({"env": [path("/mnt/other/instances/red-dev/loader")]}, True),
        ({"env": [path(LOADER), path("/opt/plugins")]}, True),
        ({"env": [path("/opt/plugins")], "envFrom": [{"configMapRef": {"name": "x"}}]}, True),
        ({"env": [path(LOADER)]}, False),
        ({"env": [path(f"/opt/plugins:{LOADER}/")]}, False),
        ({"env": [path("$(SHARE)/loader")]}, False),
        ({"env": [{"name": "PYTHONPATH", "valueFrom": {"secretKeyRef": {}}}]}, False),
        ({"envFrom": [{"configMapRef": {"name": "x"}}]}, False),
        ({"args": ["bash", "-c", f"PYTHONPATH={LOADER} exec airflow scheduler"]}, False),
    ],
)
def test_only_a_template_that_cannot_bring_it_lacks_the_loader(
    container: dict[str, Any], *, lacks: bool
) -> None:
    """The last entry counts, and an entry counts before `envFrom`."""
    template = workload({"name": "scheduler", **container})
    assert loaderless(template, "red-dev", "/srv/groundcrew") is lacks


def test_the_container_of_the_component_counts() -> None:
    """A container beside it may have the loader without Airflow having it."""
    beside = {"name": "sidecar", "env": [path(LOADER)]}
    assert loaderless(workload(beside, {"name": "scheduler"}), "red-dev", "/srv/groundcrew")
