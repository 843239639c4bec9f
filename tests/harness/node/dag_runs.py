"""Runs of the release's DAG `uses_acme`, whose task can be held while it runs."""

from __future__ import annotations

import itertools
import re
import sys
from pathlib import Path

from tests.harness.kube_api import wait_for
from tests.harness.node.airflow_rest import AirflowRest
from tests.harness.node.node import GIVE_UP

DAG = "uses_acme"
LOG_DELAY = 30.0  # seconds: the end of a task is known a little before its last lines are written


class DagRuns:
    """Runs of the DAG; `logs` is the folder of the logs of tasks."""

    def __init__(self, rest: AirflowRest, logs: Path) -> None:
        self._rest, self._logs = rest, logs
        self._numbers = itertools.count(1)

    def hold(self) -> None:
        """Keep tasks that start from now on until `let_end`."""
        (self._logs / "go-on").unlink(missing_ok=True)

    def let_end(self) -> None:
        """Let tasks end that run or that start from now on."""
        (self._logs / "go-on").touch()

    def start(self) -> str:
        """Start a run once Airflow knows the DAG; return the run's id."""
        run = f"run-{next(self._numbers)}"
        wait_for(lambda: self._rest.is_running(DAG), GIVE_UP, f"the DAG {DAG}")
        wait_for(lambda: self._rest.start(DAG, run), GIVE_UP, f"the start of a run of {DAG}")
        return run

    def finish(self, run: str, pattern: str) -> None:
        """Wait until a run has succeeded and its task has logged something."""

        def final_state() -> str:
            state = self._rest.state(DAG, run)
            return state if state in ("success", "failed") else ""

        state = wait_for(final_state, GIVE_UP, f"the end of {run} of {DAG}")
        assert state == "success", self.log(run)[-4000:]
        self.wait_log(run, pattern, LOG_DELAY)

    def complete(self, pattern: str) -> None:
        """Start a run, and wait until it has succeeded and its task has logged something."""
        self.finish(self.start(), pattern)

    def wait_log(self, run: str, pattern: str, seconds: float = GIVE_UP) -> None:
        """Wait until the task of a run has logged something."""

        def is_logged() -> bool:
            assert self._rest.state(DAG, run) != "failed", "the run has failed"
            return re.search(pattern, self.log(run)) is not None

        try:
            wait_for(is_logged, seconds, f"{pattern} in the log of {run}")
        except AssertionError:
            sys.stderr.write(self.log(run)[-4000:])
            raise

    def log(self, run: str) -> str:
        """Return what the task of a run has logged so far."""
        files = sorted(self._logs.glob(f"dag_id={DAG}/run_id={run}/**/*.log"))
        return "\n".join(file.read_text(errors="replace") for file in files)
