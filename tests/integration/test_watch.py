"""The watch after an activation, with the local driver and a fake Airflow."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from reconciler.airflow.local import DOWN_LOOKS, LocalDriver
from reconciler.core.definitions import Api, OnTimeout
from reconciler.core.errors import Retryable
from reconciler.core.phases import Step, Verdict
from reconciler.core.reasons import Reason
from reconciler.settings import LocalSettings
from tests.fakes.airflow_rest import FakeAirflow
from tests.harness.local_driver import FAILED, NOT_YET, OK, Rig, problem, python

WATCH = 30.0


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    """Return an instance that was restarted and is healthy."""
    with FakeAirflow("3") as airflow:
        rig = Rig(airflow, tmp_path)
        rig.driver = LocalDriver(
            LocalSettings(allow=(sys.executable,)), tmp_path / "secrets", watch=WATCH
        )
        rig.do(Step.OBSERVE)
        rig.restart()
        yield rig


def test_a_healthy_instance_is_active_after_the_time_of_the_watch(rig: Rig) -> None:
    """Until then the message says for how long it has been healthy."""
    result = rig.do(Step.WATCH, after=WATCH - 5)
    assert result.verdict is NOT_YET
    assert problem(result).reason == Reason.WATCHING
    assert problem(result).message == "healthy for 25 of 30 s"
    assert rig.do(Step.WATCH, after=WATCH) == OK


def test_a_component_that_goes_down_ends_the_watch(rig: Rig) -> None:
    """It ends at once, as in probing, without the rest of the time."""
    rig.component("scheduler", status=python("raise SystemExit('killed by signal 9')"))
    results = [rig.do(Step.WATCH, after=WATCH / 2) for _ in range(DOWN_LOOKS)]
    assert results[-1].verdict is FAILED
    assert "killed by signal 9" in problem(results[-1]).message


def test_an_airflow_that_stays_away_has_the_limit_of_a_probe(rig: Rig) -> None:
    """The limit counts from the end of the watch."""
    rig.instance = replace(rig.instance, api=Api("http://127.0.0.1:1", "airflow"))
    assert rig.do(Step.WATCH, after=WATCH + 59).verdict is NOT_YET
    assert rig.do(Step.WATCH, after=WATCH + 61).verdict is FAILED


def test_without_a_time_nothing_is_looked_at(rig: Rig, tmp_path: Path) -> None:
    """`activation.watch: 0` disables it."""
    rig.driver = LocalDriver(LocalSettings(allow=(sys.executable,)), tmp_path / "secrets")
    rig.component("scheduler", status=python("raise SystemExit(1)"))
    assert rig.do(Step.WATCH, after=10) == OK


@pytest.mark.parametrize("step", [Step.PAUSE_BACK, Step.DRAIN_BACK])
def test_going_back_does_not_wait_for_an_airflow_that_is_silent(rig: Rig, step: Step) -> None:
    """The build may be the cause; its servers go back first."""
    rig.instance = replace(rig.instance, api=Api("http://127.0.0.1:1", "airflow"))
    with pytest.raises(Retryable):
        rig.do(step, after=59)
    assert rig.do(step, after=61).verdict is FAILED


def test_only_servers_are_restarted_while_tasks_may_run(rig: Rig, tmp_path: Path) -> None:
    """The scheduler of a LocalExecutor would take its tasks down with it."""
    for name in ("scheduler", "dag-processor", "triggerer"):
        rig.component(name, restart=python("raise SystemExit(1)"))
    rig.component("api-server", restart=python(f"open({str(tmp_path / 'restarted')!r}, 'w')"))
    assert rig.do(Step.RESTART_SERVERS_BACK) == OK
    assert (tmp_path / "restarted").exists()


def test_tasks_of_a_failed_build_are_waited_for(rig: Rig) -> None:
    """The wait has no limit, and a message, unless the instance's setting is `proceed`."""
    rig.airflow.state.busy = 2
    late = rig.do(Step.DRAIN_BACK, after=61)
    assert late.verdict is NOT_YET
    assert problem(late).reason == Reason.DRAIN_TIMEOUT
    assert "2 tasks still run after 60 s" in problem(late).message
    rig.instance = replace(rig.instance, on_timeout=OnTimeout.PROCEED)
    assert rig.do(Step.DRAIN_BACK, after=61).verdict is Verdict.OK
