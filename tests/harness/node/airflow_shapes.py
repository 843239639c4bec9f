"""Components of a release, by its executor and its version of Airflow."""

from __future__ import annotations

from dataclasses import dataclass, replace

from tests.harness.node.airflow_settings import CELERY, KUBERNETES, LOCAL


@dataclass(frozen=True, slots=True)
class Component:
    """Component of a release; `grace` is the time in seconds that its pods get to end.

    `signs`: it gives tasks their tokens. `places`: it starts pods of tasks. `health`: the path at
    which it says that it is ready.
    """

    kind: str
    name: str
    has_dags: bool = False
    grace: int = 30
    signs: bool = False
    places: bool = False
    health: str = ""

    @property
    def command(self) -> str:
        """The command that the shell of its container runs."""
        verb = "celery worker" if self.name == "worker" else self.name
        return f"exec airflow {verb}"


SERVER = Component("Deployment", "api-server", signs=True, health="/api/v2/monitor/health")
WEBSERVER = Component("Deployment", "webserver", health="/health")  # of Airflow 2
PROCESSOR = Component("Deployment", "dag-processor", has_dags=True, grace=60)
SCHEDULER = Component("Deployment", "scheduler", grace=10, signs=True)
TRIGGERER = Component("StatefulSet", "triggerer", has_dags=True, grace=60)
WORKER = Component("StatefulSet", "worker", has_dags=True, grace=600)
BY_EXECUTOR = {
    KUBERNETES: (replace(SCHEDULER, places=True), TRIGGERER),
    CELERY: (SCHEDULER, TRIGGERER, WORKER),
    # with the persistence of workers, which tasks in the scheduler count as, and without that of
    # the triggerer
    LOCAL: (
        replace(SCHEDULER, kind="StatefulSet", has_dags=True),
        replace(TRIGGERER, kind="Deployment"),
    ),
}


def components_of(executor: str, airflow: str) -> tuple[Component, ...]:
    """Return the components that run all the time, the one with the REST API first."""
    others = BY_EXECUTOR[executor]
    if airflow.startswith("2."):  # there, the scheduler parses DAGs
        parsing = (replace(c, has_dags=True) if c.name == "scheduler" else c for c in others)
        return (WEBSERVER, *parsing)
    return (SERVER, PROCESSOR, *others)
