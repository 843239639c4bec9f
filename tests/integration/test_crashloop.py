"""A component that its supervisor starts again and again, with real processes."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from reconciler.airflow.crashloop import STARTS, Starts
from reconciler.core.definitions import Api, Component, Instance, LocalTarget, Place
from reconciler.core.model import Activation, Deployment
from reconciler.core.phases import Step, Trigger

SLEEP = "print(flush=True); import time; time.sleep(30)"


@pytest.fixture
def instance() -> Instance:
    parts = (Component("scheduler", ("true",)), Component("triggerer", ("true",)))
    target = LocalTarget("/python", "/airflow", parts)
    return Instance("crash-looping", "red", Place("x.yaml"), Api("http://127.0.0.1:1"), target)


@pytest.fixture
def activation() -> Activation:
    names = ("scheduler", "triggerer")
    return Activation(
        "id",
        Deployment(load_into=names),
        Deployment("b" * 16, load_into=names),
        Trigger.COMMIT,
        "r1",
        Step.PROBE,
        1.0,
        1.0,
        restarted_at=time.time(),
    )


def start(instance: Instance, share: Path, name: str = "scheduler") -> subprocess.Popen[bytes]:
    """Return a process of a component with the loader on `share`, with the command line of one."""
    loader = share / "instances" / instance.name / "loader"
    loader.mkdir(parents=True, exist_ok=True)
    process = subprocess.Popen(
        [sys.executable, "-Sc", SLEEP, "airflow", name],
        env={**os.environ, "PYTHONPATH": str(loader)},
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    process.stdout.readline()
    return process


def end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.communicate(timeout=10)


def start_and_stop(starts: Starts, instance: Instance, activation: Activation, share: Path) -> str:
    """Start and end the scheduler once more; return the message while it runs."""
    process = start(instance, share)
    try:
        return starts.look(instance, activation)
    finally:
        end(process)


def test_the_third_start_is_a_loop(
    instance: Instance, activation: Activation, tmp_path: Path
) -> None:
    """Two starts are allowed; the third is reported with the component's name."""
    starts = Starts(tmp_path)
    said = [start_and_stop(starts, instance, activation, tmp_path) for _ in range(STARTS)]
    assert said[:-1] == [""] * (STARTS - 1)
    assert said[-1] == "scheduler was started 3 times since its restart and does not stay up"


def test_another_restart_counts_anew(
    instance: Instance, activation: Activation, tmp_path: Path
) -> None:
    """Starts before a later restart, on the way back, do not count."""
    starts = Starts(tmp_path)
    for _ in range(STARTS):
        start_and_stop(starts, instance, activation, tmp_path)
    later = replace(activation, restarted_at=time.time() + 60)
    assert starts.look(instance, later) == ""


def test_an_instance_of_the_same_name_on_another_share_does_not_count(
    instance: Instance, activation: Activation, tmp_path: Path
) -> None:
    """Its components may be started any number of times on this machine."""
    starts = Starts(tmp_path / "ours")
    (tmp_path / "ours" / "instances" / instance.name / "loader").mkdir(parents=True)
    process = start(instance, tmp_path / "ours")
    try:
        said = [
            start_and_stop(starts, instance, activation, tmp_path / "theirs")
            for _ in range(STARTS + 1)
        ]
        assert said == [""] * len(said)
        (own,) = starts.living(instance).values()
        assert own - psutil.Process(process.pid).create_time() < 1.1
    finally:
        end(process)


def test_what_repeated_restarts_left_behind_is_no_loop(
    instance: Instance, activation: Activation, tmp_path: Path
) -> None:
    """A daemon killed during a restart repeats it; the earlier processes end one by one."""
    starts = Starts(tmp_path)
    living = [start(instance, tmp_path) for _ in range(STARTS + 1)]
    try:
        while len(living) > 1:
            assert starts.look(instance, activation) == ""
            end(living.pop(0))
        assert starts.look(instance, activation) == ""
    finally:
        for process in living:
            end(process)


def test_processes_that_come_one_by_one_are_no_loop(
    instance: Instance, activation: Activation, tmp_path: Path
) -> None:
    """Several workers of one component start slowly: none of them has ended."""
    starts, living = Starts(tmp_path), []
    try:
        for _ in range(STARTS + 1):
            living.append(start(instance, tmp_path))
            assert starts.look(instance, activation) == ""
    finally:
        for process in living:
            end(process)


def test_a_clock_that_is_set_starts_nothing(
    instance: Instance, activation: Activation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All start times move with it, but the process is the same."""
    starts, process = Starts(tmp_path), start(instance, tmp_path)
    booted = psutil.boot_time()
    try:
        for seconds in range(STARTS + 1):
            monkeypatch.setattr(psutil._pslinux, "boot_time", lambda at=booted + seconds: at)
            assert starts.look(instance, activation) == ""
    finally:
        end(process)
