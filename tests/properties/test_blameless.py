"""A good build is not blamed for others' faults: the share, credentials, an outage, a clock."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from reconciler.core.events import EventKind
from reconciler.core.model import Verb
from reconciler.core.phases import Step
from reconciler.core.reasons import Reason
from reconciler.core.steps import LOGIN_TRIES
from tests.fakes.simulated_world import LOOKS, POLICY, House
from tests.properties.test_cut_short import begin, change


def until(house: House, step: Step) -> House:
    """Continue until the activation is at a step, whose effect is in progress."""
    for _ in range(100):
        house.cycle()
        activation = house.records.instances["a"].activation
        if activation is not None and activation.step is step and house.under_way:
            return house
        for key in list(house.under_way):
            house.act(key)
        house.now += 1.0
    raise AssertionError(f"{step} is not reached")


def last(house: House, turns: int = 20, seconds: float = 61.0) -> None:
    """Continue while all faults persist."""
    for _ in range(turns):
        house.cycle()
        for key in list(house.under_way):
            house.act(key)
        house.take_reports()
        house.now += seconds


def share_away(house: House) -> None:
    until(house, Step.SWITCH).faults.add("share")
    last(house)


def build_lost(house: House) -> None:
    until(house, Step.SWITCH)
    del house.complete["g2@cp311-linux-1"]
    last(house, 3, 1.0)


def credentials_renewed_too_late(house: House) -> None:
    until(house, Step.PROBE).faults.add("credentials")
    last(house)


def killed_for_an_hour(house: House) -> None:
    until(house, Step.PROBE).faults.add("api")
    last(house, 1, 1.0)
    house.crash()
    house.now += 3600.0
    house.read = True
    last(house, 3, 1.0)


def hung_for_an_hour(house: House) -> None:
    until(house, Step.PROBE).faults.add("api")
    last(house, 1, 3600.0)
    last(house, 3, 1.0)


def clock_set(house: House) -> None:
    until(house, Step.PROBE).faults.add("api")
    for seconds in (5000.0, -9000.0, 5000.0):
        last(house, 1, seconds)
    last(house, 1)


@pytest.mark.parametrize(
    "fault",
    [
        share_away,
        build_lost,
        credentials_renewed_too_late,
        killed_for_an_hour,
        hung_for_an_hour,
        clock_set,
    ],
    ids=lambda f: f.__name__,
)
def test_a_fault_that_is_not_the_builds_leaves_no_mark(fault: Callable[[House], None]) -> None:
    """Once the fault is over the build is active, whatever was done about it meanwhile."""
    house = begin("g1")
    change(house, "g2")
    fault(house)
    house.settle()
    record = house.records.instances["a"]
    assert record.current.build == "g2@cp311-linux-1", record
    assert not [e for e in house.events if e.kind == "Quarantined"]


def test_an_airflow_that_stays_silent_is_the_builds_fault() -> None:
    """A build that was observed for the whole limit without a response is quarantined."""
    house = begin("g1")
    change(house, "g2")
    until(house, Step.PROBE).faults.add("api")
    last(house, LOOKS + 2)
    house.settle()
    record = house.records.instances["a"]
    assert record.current.build == "g1@cp311-linux-1"
    (mark,) = record.quarantines
    assert mark.reason == Reason.GATE_TIMEOUT
    assert "no answer" in mark.message


def test_what_fails_both_ways_is_tried_with_growing_pauses_and_stays_degraded() -> None:
    """An instance that works neither forward nor back is not retried rapidly, and is reported."""
    house = begin("g1")
    change(house, "g2")
    until(house, Step.RESTART).faults.add("forbidden")
    broken = []
    seconds = 1200
    for _ in range(seconds):
        last(house, 1, 1.0)
        activation = house.records.instances["a"].activation
        broken.append(activation is not None and activation.reverts > 0)  # Degraded on the pages
    events = [event.kind for event in house.events]
    assert events.count(EventKind.DEGRADED) == 1
    pauses = seconds / POLICY.retry_most + 4  # the first ones are shorter
    assert events.count(EventKind.ACTIVATION_STARTED) <= 2 + pauses
    assert all(broken[10:])
    house.settle()
    record = house.records.instances["a"]
    assert (record.current.build, record.quarantines) == ("g2@cp311-linux-1", ())


def test_a_build_that_shuts_us_out_again_and_again_is_marked() -> None:
    """The credentials are good: the build before is let in with them each time."""
    house = begin("g1")
    change(house, "g2")
    until(house, Step.PROBE).faults.add("shut")
    last(house, 100)
    record = house.records.instances["a"]
    assert (record.current.build, record.activation) == ("g1@cp311-linux-1", None)
    (mark,) = record.quarantines
    assert (mark.build_id, mark.reason) == ("g2@cp311-linux-1", Reason.AIRFLOW_DENIED)
    assert sum(event.kind == "RolledBack" for event in house.events) == LOGIN_TRIES + 1


def test_a_build_that_was_only_gone_is_taken_once_a_commit_asks_for_it() -> None:
    """An operator could not go back to it; made anew, it is as good as it was."""
    house = begin("g1")
    change(house, "g2")
    house.settle()
    house.complete["g1@cp311-linux-1"].clear()
    house.ask(Verb.ROLLBACK, "instance/a")
    house.settle()
    marks = house.records.instances["a"].quarantines
    assert {mark.reason for mark in marks} == {Reason.ROLLED_BACK_BY_OPERATOR, Reason.BUILD_MISSING}
    change(house, "g1")
    house.settle()
    assert house.records.instances["a"].current.build == "g1@cp311-linux-1"
