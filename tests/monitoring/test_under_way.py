"""Problems of an activation in progress, which are reported if they last, and until they end."""

from __future__ import annotations

from dataclasses import replace

import pytest

from metrics.gauges import problems
from reconciler.core.definitions import Wave
from reconciler.core.model import Problem
from reconciler.core.reasons import Reason
from reconciler.core.statuses import status
from tests.fakes.definitions import environment, instance
from tests.fakes.simulated_world import House


@pytest.fixture
def house() -> House:
    """Return a house whose instance a of team red is active with environment one."""
    house = House()
    house.join(instance("a"))
    begin(house, "g1")
    house.settle()
    return house


def told(house: House) -> set[tuple[str, str]]:
    """Return source and reason of all problems, by the house's clock."""
    reported = problems(status(None, house.records, house.now), house.records, house.now)
    return {(source, reason) for _, _, source, reason in reported}


def go_on(house: House, seconds: float) -> None:
    """Let time pass, with a cycle and its effects every two seconds."""
    end = house.now + seconds
    while house.now < end:
        house.cycle()
        for key in list(house.under_way):
            house.act(key)
        house.now += 2.0


def begin(house: House, digest: str) -> None:
    """Commit another recipe, without any further step."""
    house.environments["one"] = environment("one", digest, (Wave(("a",)),))
    house.commit()


def phase_of(house: House) -> str | None:
    activation = house.records.instances["a"].activation
    return str(activation.phase) if activation else None


def test_what_holds_an_activation_up_is_told_after_a_minute(house: House) -> None:
    """A share does not answer at the switch; an obstacle that ends within a minute is not shown."""
    begin(house, "g2")
    house.faults.add("share")
    go_on(house, 40)
    assert (phase_of(house), told(house)) == ("Switching", set())
    go_on(house, 60)
    assert told(house) == {("activation", "ShareUnreachable")}
    house.settle()
    assert told(house) == set()


def test_what_holds_a_way_back_up_is_told_as_such(house: House) -> None:
    """It appears beside the reason of the way back."""
    begin(house, "l2")
    while phase_of(house) != "Probing":
        go_on(house, 2)
    house.faults.add("share")
    go_on(house, 90)
    assert phase_of(house) == "RollingBack"
    assert told(house) == {("rollback", "ComponentDown"), ("rollback", "ShareUnreachable")}


def test_an_ordinary_wait_is_nothing_wrong(house: House) -> None:
    """It may take as long as tasks need to end, within the limit."""
    begin(house, "g2")
    while phase_of(house) is None:
        go_on(house, 2)
    record = house.records.instances["a"]
    assert record.activation is not None
    for reason, wrong in ((Reason.DRAINING, False), (Reason.CLUSTER_DENIED, True)):
        held = replace(record.activation, held=Problem(reason, "…"), step_since=0.0)
        house.records = replace(house.records, instances={"a": replace(record, activation=held)})
        assert bool(told(house)) == wrong


def test_what_ended_a_try_is_told_until_the_next_is_past_it(house: House) -> None:
    """Airflow refuses credentials: shown at each attempt and in between, until it accepts them."""
    begin(house, "g2")
    house.faults.add("credentials")
    go_on(house, 90)
    phases, before = set(), house.now
    while house.now < before + 1500:
        go_on(house, 2)
        phases.add(phase_of(house))
        assert told(house) == {("activation", "AirflowDenied")}
    assert phases == {"Draining", None}
    house.airflow["a"].tasks.append("g1@cp311-linux-1")
    house.faults.clear()
    go_on(house, 80)
    assert (phase_of(house), told(house)) == ("Draining", {("activation", "DrainTimeout")})
    house.settle()
    assert told(house) == set()
