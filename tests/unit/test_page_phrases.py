"""Sentence about an instance on its page."""

from __future__ import annotations

from metrics.gauges import standing
from reconciler.api.pages.phrases import sentence
from reconciler.core.definitions import Wave
from reconciler.core.model import Verb
from reconciler.core.statuses import status
from tests.fakes.airflow import Airflow
from tests.fakes.definitions import environment, instance
from tests.fakes.simulated_world import House

STAYS = (
    "It was rolled back by someone; it stays there until the definition changes or someone runs "
    "`groundcrew retry`."
)


def on_the_second_build() -> House:
    house = House()
    house.instances["dev"], house.airflow["dev"] = instance("dev"), Airflow()
    for recipe in ("g1", "g2"):
        define(house, recipe)
    return house


def define(house: House, recipe: str) -> None:
    house.environments["one"] = environment("one", recipe, (Wave(("dev",)),))
    house.commit()
    house.settle()


def said(house: House) -> str:
    return sentence(status(None, house.records, house.now).instances[0])


def rolled_back(house: House) -> int:
    """Return how many series report that an operator rolled the instance back."""
    metrics = standing(status(None, house.records, house.now), house.records, house.now)
    (metric,) = [m for m in metrics if m.name == "groundcrew_instance_rolled_back"]
    return len(metric.samples)


def test_a_rollback_by_hand_is_said_until_it_is_over() -> None:
    """The text names the operator and what ends it; a new definition or a retry removes it."""
    house = on_the_second_build()
    assert rolled_back(house) == 0
    house.ask(Verb.ROLLBACK, "instance/dev")
    house.settle()
    assert (said(house), rolled_back(house)) == (STAYS, 1)
    house.ask(Verb.RETRY, "instance/dev")
    house.settle()
    assert (said(house), rolled_back(house)) == ("It runs what the newest revision asks for.", 0)
    house.ask(Verb.ROLLBACK, "instance/dev")
    house.settle()
    define(house, "r3")
    assert (said(house), rolled_back(house)) == (
        "The build for the newest revision failed. Nothing was changed here.",
        0,
    )


def test_a_rollback_that_failed_is_not_the_wanted_builds_failure() -> None:
    """It runs the build that it was meant to leave, and the page says so."""
    house = on_the_second_build()
    house.complete["g1@cp311-linux-1"].clear()
    house.ask(Verb.ROLLBACK, "instance/dev")
    house.settle()
    assert said(house) == (
        "The rollback that someone asked for failed: it still runs the build that was to be "
        "replaced."
    )
