"""Local driver with an instance, whose Airflow is a fake and whose commands are real."""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from reconciler.airflow.local import LocalDriver
from reconciler.core.definitions import Api, Component, Instance, LocalTarget, Place
from reconciler.core.model import Activation, Deployment, Problem, StepResult
from reconciler.core.phases import Step, Trigger, Verdict
from reconciler.settings import LocalSettings
from tests.fakes.airflow_rest import PASSWORD, USER, FakeAirflow

COMPONENTS = ("scheduler", "dag-processor", "triggerer", "api-server")
OK, NOT_YET, FAILED = StepResult(Verdict.OK), Verdict.NOT_YET, Verdict.FAILED


class Rig:
    """Driver with an instance and an activation, carried out step by step."""

    def __init__(self, airflow: FakeAirflow, root: Path) -> None:
        self.airflow = airflow
        self.secret = root / "secrets" / "red" / "airflow"
        self.secret.mkdir(parents=True)
        (self.secret / "username").write_text(USER)
        (self.secret / "password").write_text(PASSWORD)
        settings = LocalSettings(allow=(sys.executable,))
        self.driver = LocalDriver(settings, root / "secrets", notes=root / "restarts")
        self.now = time.time()
        parts = tuple(Component(c, airflow.restart_command(c)) for c in COMPONENTS)
        self.instance = Instance(
            "red-dev",
            "red",
            Place("x.yaml"),
            Api(airflow.url, "airflow"),
            LocalTarget(sys.executable, str(root), parts),
            drain_timeout=60,
            probe_timeout=60,
        )
        self.activation = Activation(
            "id",
            Deployment("a" * 16, load_into=COMPONENTS),
            Deployment("b" * 16, load_into=COMPONENTS),
            Trigger.COMMIT,
            "r1",
            Step.OBSERVE,
            self.now,
            self.now,
            restarted_at=self.now,
        )

    def do(self, step: Step, after: float = 0.0) -> StepResult:
        """Carry out a step that began `after` seconds ago."""
        begun = self.now - after
        activation = replace(self.activation, step=step, step_since=begun)
        result = self.driver.perform(step, self.instance, activation, self.now)
        if step is Step.OBSERVE and result.verdict is Verdict.OK:
            assert result.pools is not None
            assert result.baseline is not None
            assert result.expected_dags is not None
            self.activation = replace(
                self.activation,
                pools=result.pools,
                baseline=result.baseline,
                expected_dags=result.expected_dags,
            )
        return result

    def restart(self) -> None:
        """Restart everything that works."""
        self.activation = replace(self.activation, restarted_at=time.time())
        assert self.do(Step.RESTART) == OK

    def component(self, name: str, **changes: Any) -> None:
        """Change how a component is restarted, or how its status is checked."""
        assert self.instance.local is not None
        parts = [
            replace(c, **changes) if c.name == name else c for c in self.instance.local.components
        ]
        self.instance = replace(
            self.instance, local=replace(self.instance.local, components=tuple(parts))
        )


def python(text: str) -> tuple[str, ...]:
    return (sys.executable, "-ISc", text)


def problem(result: StepResult) -> Problem:
    assert result.problem is not None, result
    return result.problem
