"""A component that its supervisor starts again and again, on real processes."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from reconciler.airflow.crashloop import STARTS, Starts
from reconciler.core.definitions import Api, Component, Instance, LocalTarget, Place
from reconciler.core.model import Activation, Trigger
from reconciler.core.phases import ActivationPhase, Step

SLEEP = "import time; time.sleep(30)"


@pytest.fixture
def instance() -> Instance:
    parts = (Component("scheduler", ("true",)), Component("triggerer", ("true",)))
    target = LocalTarget("/python", "/airflow", parts)
    return Instance("crash-looping", "red", Place("x.yaml"), Api("http://127.0.0.1:1"), target)


@pytest.fixture
def activation() -> Activation:
    names = ("scheduler", "triggerer")
    return Activation(
        "id", None, "b" * 16, Trigger.COMMIT, "r1", names, names, Step.PROBE,
        ActivationPhase.PROBING, 1.0, 1.0, restarted_at=time.time(),
    )  # fmt: skip


def start_and_stop(starts: Starts, instance: Instance, activation: Activation, tmp: Path) -> str:
    """One more short life of the scheduler; what is said while it lives."""
    loader = tmp / "instances" / instance.name / "loader"
    process = subprocess.Popen(
        [sys.executable, "-c", SLEEP, "airflow", "scheduler"],
        env={**os.environ, "PYTHONPATH": str(loader)},
    )
    try:
        time.sleep(0.3)
        return starts.look(instance, activation)
    finally:
        process.kill()
        process.wait(timeout=10)


def test_the_third_start_is_a_loop(
    instance: Instance, activation: Activation, tmp_path: Path
) -> None:
    """Two starts may happen; the third is told in words, naming the component."""
    starts = Starts()
    said = [start_and_stop(starts, instance, activation, tmp_path) for _ in range(STARTS)]
    assert said[:-1] == [""] * (STARTS - 1)
    assert said[-1] == "scheduler was started 3 times since its restart and does not stay up"


def test_another_restart_counts_anew(
    instance: Instance, activation: Activation, tmp_path: Path
) -> None:
    """What was seen before a later restart, on the way back, is not held against it."""
    starts = Starts()
    for _ in range(STARTS):
        start_and_stop(starts, instance, activation, tmp_path)
    later = replace(activation, restarted_at=time.time() + 60)
    assert starts.look(instance, later) == ""
