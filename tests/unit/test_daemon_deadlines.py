"""A step of an activation is overdue once this process has observed it for the whole limit."""

from __future__ import annotations

from dataclasses import replace
from typing import NoReturn

from reconciler.core.errors import Retryable
from reconciler.core.model import Activation, Deployment, InstanceRecord, Records, Reports
from reconciler.core.phases import Step, Trigger
from reconciler.core.reasons import Reason
from reconciler.core.world import Draft, World
from reconciler.daemon.effects import STEP_LIMIT, InstanceEffects
from tests.fakes.definitions import instance

BEGUN = 1000.0


class Silent:
    """Driver whose Airflow does not respond; records the start of the step at each check.

    Each check takes `takes` seconds of the clock that is read by `tick`.
    """

    def __init__(self, takes: float) -> None:
        self.since: list[float] = []
        self.now = 0.0
        self._takes = takes

    def tick(self) -> float:
        return self.now

    def perform(
        self, step: Step, _instance: object, activation: Activation, now: float
    ) -> NoReturn:
        self.since.append(now - activation.step_since)
        self.now += self._takes
        raise Retryable(Reason.AIRFLOW_UNREACHABLE, f"no answer at {step}")


def steps_after(looks: list[float], takes: float = 0.0) -> tuple[list[Step], list[float]]:
    """Return the steps of a restarting activation after checks at these times, and the delays."""
    activation = Activation(
        "id",
        Deployment("a"),
        Deployment("b"),
        Trigger.COMMIT,
        "r1",
        Step.RESTART,
        BEGUN,
        BEGUN,
        phases=(("Restarting", BEGUN),),
        reports=Reports(0.0, BEGUN, 0.0),
    )
    record = InstanceRecord("x", "red", instance("x"), activation=activation)
    driver = Silent(takes)
    effects = InstanceEffects(None, lambda *_: None, lambda _: driver, driver.tick)  # type: ignore[arg-type,return-value]
    steps = []
    for now in looks:
        driver.now = now
        draft = Draft(World(now, replace(Records(), instances={"x": record})))
        effects.perform(record, now).apply(draft)
        after = draft.instances["x"].activation
        assert after is not None
        steps.append(after.step)
    return steps, driver.since


def test_the_first_look_of_a_process_is_never_late() -> None:
    """It does not matter how long ago the step began: nothing has observed it since."""
    assert steps_after([BEGUN + 1e6, BEGUN + 1e6 + 5]) == ([Step.RESTART] * 2, [0.0, 5.0])


def test_looking_for_the_whole_limit_is_late() -> None:
    """The limit applies to a process that checks repeatedly."""
    looks = [BEGUN + 5.0 * n for n in range(int(STEP_LIMIT / 5) + 2)]
    steps, since = steps_after(looks)
    assert steps == [Step.RESTART] * (len(looks) - 1) + [Step.SWITCH_BACK]
    assert since[-1] == STEP_LIMIT + 5


def test_a_gap_of_any_length_counts_ten_seconds_at_most() -> None:
    """Nothing was observed while the daemon was stopped or starved; that does not count."""
    looks = [BEGUN, BEGUN + 1e6, BEGUN + 2e6, BEGUN + 3e6]
    assert steps_after(looks) == ([Step.RESTART] * 4, [0.0, 10.0, 20.0, 30.0])


def test_a_look_that_takes_long_counts_up_to_a_minute() -> None:
    """An Airflow that hangs is given up no later because each check takes long."""
    looks = [BEGUN, BEGUN + 31, BEGUN + 62]
    assert steps_after(looks, takes=30.0)[1] == [0.0, 31.0, 62.0]
    assert steps_after([BEGUN, BEGUN + 1e6], takes=1e6 - 1)[1] == [0.0, 61.0]
