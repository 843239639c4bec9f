"""Instances that are redefined to be another Airflow during an activation."""

from __future__ import annotations

from dataclasses import replace

import pytest

from reconciler.core.definitions import Api, Wave
from reconciler.core.model import InstanceRecord
from reconciler.core.phases import Step
from tests.fakes.airflow import POOLS
from tests.fakes.definitions import environment, instance
from tests.fakes.simulated_world import House

OTHER = Api("http://other:8080")


def of(house: House) -> InstanceRecord:
    return house.records.instances["dev"]


def under_way(step: Step) -> House:
    """Return an instance on `g1` whose activation of `g2` is at a step."""
    house = House()
    house.join(instance("dev"))
    house.environments["one"] = environment("one", "g1", (Wave(("dev",)),))
    house.commit()
    house.settle()
    house.environments["one"] = environment("one", "g2", (Wave(("dev",)),))
    house.commit()
    for _ in range(60):
        house.cycle()
        activation = of(house).activation
        if activation is not None and activation.step is step:
            return house
        for key in list(house.under_way):
            house.act(key)
        house.now += 1.0
    raise AssertionError(f"never at {step}")


def aim(house: House) -> None:
    house.instances["dev"] = replace(house.instances["dev"], api=OTHER, probe_timeout=77.0)
    house.commit()
    house.under_way.clear()


def to_its_end(house: House) -> InstanceRecord:
    """Return the last record before the activation ended; it never changed its target."""
    house.cycle()
    last = of(house)
    while of(house).activation is not None:
        last = of(house)
        assert last.definition.api != OTHER
        for key in list(house.under_way):
            house.act(key)
        house.take_reports()
        house.now += 1.0
        if of(house).activation is not None:
            house.cycle()
    assert house.airflow["dev"].pools == POOLS
    house.cycle()
    assert of(house).definition == house.instances["dev"]
    return last


@pytest.mark.parametrize("step", [Step.OBSERVE, Step.PAUSE, Step.DRAIN])
def test_what_was_not_switched_is_given_up_on_the_airflow_where_it_began(step: Step) -> None:
    """Its pools are restored before anything is done on the other Airflow."""
    house = under_way(step)
    aim(house)
    last = to_its_end(house)
    assert last.activation is not None
    assert last.activation.step is Step.RELEASE_ABORT
    assert house.airflow["dev"].running == "g1@cp311-linux-1"


@pytest.mark.parametrize("step", [Step.SWITCH, Step.RESTART, Step.PROBE, Step.RELEASE])
def test_what_was_switched_is_ended_on_the_airflow_where_it_began(step: Step) -> None:
    """The rest of a new definition applies at once, the other Airflow afterwards."""
    house = under_way(step)
    aim(house)
    house.cycle()
    assert of(house).definition.probe_timeout == 77.0
    to_its_end(house)
    assert house.airflow["dev"].running == "g2@cp311-linux-1"


def test_an_airflow_that_is_gone_holds_nothing_up() -> None:
    """If pools cannot be restored, the other Airflow is used: that may be the repair."""
    house = under_way(Step.RELEASE)
    house.faults.add("api")
    for key in list(house.under_way):
        house.act(key)
    house.cycle()
    aim(house)
    house.cycle()
    assert of(house).definition.api == OTHER
    assert of(house).activation is not None
