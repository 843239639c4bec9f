"""Requests about an activation, and suspensions that end: `activate`, `abort`, `suspend`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from reconciler.core.definitions import Window
from reconciler.core.event_codec import data_of
from reconciler.core.events import Event, EventKind
from reconciler.core.model import Verb
from reconciler.core.phases import Health, Step
from reconciler.core.requests import refusal
from reconciler.core.states import State
from reconciler.core.statuses import status
from reconciler.core.waits import WaitOn
from reconciler.core.world import RecordsView
from tests.fakes.simulated_world import House
from tests.unit.waves import ask_for, house_of, turn

SOAK = 3600.0
FIRST, SECOND = "g1@cp311-linux-1", "g2@cp311-linux-1"


def events(house: House, *kinds: EventKind) -> list[Event]:
    return [one for one in house.events if one.kind in kinds]


def running(house: House, name: str) -> str | None:
    return house.airflow[name].running


def soaking() -> House:
    """Return two waves, of which the second waits for the first to soak."""
    house = house_of("dev", "prod", soak=SOAK)
    turn(house)
    wait = house.records.instances["prod"].wait
    assert wait is not None
    assert wait.on is WaitOn.SOAK
    return house


def why_not(house: House, verb: Verb, name: str, **options: bool) -> str:
    """Return the refusal in the history of a request, which is the one that callers see first."""
    house.take_reports()
    record = house.records.instances[name]
    house.ask(verb, f"instance/{name}", **options)
    asked = house.requests[-1].options
    said = refusal(RecordsView(house.records, house.now), verb, record, asked)
    before = len(house.events)
    house.cycle()
    told = [one for one in house.events[before:] if one.kind is EventKind.REQUEST_REFUSED]
    expected = [f"{verb} asked by someone, but {said}"] if said else []
    assert [one.message for one in told] == expected
    return said


# -------------------------------------------------------------------------------------- activate


def test_activate_does_not_wait_for_soak_and_history_says_who() -> None:
    """Only for that build: the next one soaks again."""
    house = soaking()
    assert why_not(house, Verb.ACTIVATE, "prod") == ""
    turn(house)
    assert running(house, "prod") == FIRST
    (told,) = events(house, EventKind.ACTIVATE_REQUESTED)
    assert told.message == f"by someone: {FIRST} does not wait for soak"
    assert data_of(told)["who"] == "someone"
    assert house.records.instances["prod"].hurry is None
    ask_for(house, "g2")
    turn(house)
    assert (running(house, "dev"), running(house, "prod")) == (SECOND, FIRST)


@pytest.mark.parametrize("now", [False, True])
def test_only_now_goes_ahead_outside_of_the_window(*, now: bool) -> None:
    """Without it the request is refused, and says what would help."""
    house = house_of("dev")
    window = Window("0 2 * * *", 3600.0, "UTC")
    house.instances["dev"] = replace(house.instances["dev"], window=window)
    house.commit()
    turn(house)
    wait = house.records.instances["dev"].wait
    assert wait is not None
    assert wait.on is WaitOn.WINDOW
    refused = why_not(house, Verb.ACTIVATE, "dev", now=now)
    assert bool(refused) is not now
    assert now or "--now does not wait for that" in refused
    turn(house)
    assert (running(house, "dev") == FIRST) is now


def test_a_hurry_about_another_build_is_forgotten() -> None:
    """It was about one build and is not true of the next."""
    house = soaking()
    house.ask(Verb.SUSPEND, "instance/prod")
    house.cycle()
    assert "resume it first" in why_not(house, Verb.ACTIVATE, "prod")
    house.ask(Verb.RESUME, "instance/prod")
    house.ask(Verb.ACTIVATE, "instance/prod")
    house.ask(Verb.SUSPEND, "instance/prod")
    house.cycle()
    ask_for(house, "g2")
    turn(house)
    house.ask(Verb.RESUME, "instance/prod")
    turn(house)
    assert running(house, "dev") == SECOND
    assert running(house, "prod") != SECOND
    assert house.records.instances["prod"].hurry is None


def test_activate_is_refused_in_words_where_it_makes_no_sense() -> None:
    """An instance that has everything, one under way, and one whose first wave failed."""
    house = house_of("dev", "prod")
    house.settle()
    assert why_not(house, Verb.ACTIVATE, "dev") == "it has what it should have"
    house.faults.add("restart")
    ask_for(house, "g2")
    turn(house, 6)
    assert "runs already" in why_not(house, Verb.ACTIVATE, "dev")
    turn(house, 60)
    assert "it waits on wave 1" in why_not(house, Verb.ACTIVATE, "prod")
    house.ask(Verb.ACTIVATE, "instance/gone")
    house.cycle()
    assert "no such object" in events(house, EventKind.REQUEST_REFUSED)[-1].message


# ----------------------------------------------------------------------------------------- abort


def going_to_second(is_there: Callable[[Step], bool]) -> House:
    """Return an instance on the way to its second build, at a step."""
    house = house_of("dev")
    house.settle()
    ask_for(house, "g2")
    for _ in range(400):
        house.take_reports()
        activation = house.records.instances["dev"].activation
        if activation is not None and is_there(activation.step):
            return house
        turn(house, 1)
    raise AssertionError("it never comes there")


@pytest.mark.parametrize(
    "step",
    [Step.PAUSE, Step.DRAIN, Step.SWITCH, Step.RESTART, Step.PROBE, Step.WATCH],
)
def test_an_aborted_activation_ends_on_the_build_before(step: Step) -> None:
    """At any step; the pools are restored, and the build is not tried again until a retry."""
    before = dict(house_of("dev").airflow["dev"].pools)
    house = going_to_second(lambda at: at is step)
    assert why_not(house, Verb.ABORT, "dev") == ""
    turn(house, 400)
    record = house.records.instances["dev"]
    assert record.activation is None
    assert house.airflow["dev"].pools == before
    assert (record.current.build, running(house, "dev")) == (FIRST, FIRST)
    (told,) = events(house, EventKind.ABORT_REQUESTED)
    assert told.message.startswith(f"by someone: {SECOND} is not tried again")
    (one,) = status(None, house.records, house.now).instances
    assert one.state is State.HELD_BACK
    assert one.health is Health.HEALTHY
    assert not one.is_wrong
    assert one.rolled_back_by == "someone"
    assert why_not(house, Verb.ACTIVATE, "dev") == (
        f"{SECOND} is in quarantine here; `groundcrew retry` lifts that"
    )
    house.ask(Verb.RETRY, "instance/dev")
    house.settle()
    assert running(house, "dev") == SECOND


def test_abort_is_refused_in_words_where_it_makes_no_sense() -> None:
    """Nothing runs, it goes back already, or it is a rollback."""
    house = house_of("dev")
    house.settle()
    assert why_not(house, Verb.ABORT, "dev") == "no activation runs"
    house = going_to_second(lambda at: at is Step.RELEASE)
    assert "pools are being restored" in why_not(house, Verb.ABORT, "dev")
    house = going_to_second(lambda at: at is Step.PROBE)
    assert why_not(house, Verb.ABORT, "dev") == ""
    assert why_not(house, Verb.ABORT, "dev") == "it is going back already"
    house = going_to_second(lambda at: at is Step.PROBE)
    house.settle()
    house.ask(Verb.ROLLBACK, "instance/dev")
    house.cycle()
    assert "it is a rollback" in why_not(house, Verb.ABORT, "dev")


# --------------------------------------------------------------------------------------- suspend


@pytest.mark.parametrize("target", ["instance/dev", "environment/one"])
def test_a_suspension_says_why_and_ends_by_itself(target: str) -> None:
    """History tells both; without a new request nothing else has to happen."""
    house = house_of("dev")
    house.settle()
    until = house.now + 600.0
    house.ask(Verb.SUSPEND, target, reason="database moves", until=until)
    house.cycle()
    (told,) = events(house, EventKind.SUSPENDED)
    assert told.message.startswith("by someone until 1970-01-01")
    assert told.message.endswith(": database moves")
    ask_for(house, "g2")
    turn(house)
    assert running(house, "dev") == FIRST
    wait = house.records.instances["dev"].wait
    if target == "instance/dev":  # an environment's builds are suspended too
        assert wait is not None
        assert "database moves, until 1970-01-01" in wait.message
        assert wait.until == until
    shown = status(None, house.records, house.now)
    details = [
        *(one.suspension for one in shown.instances if one.suspension),
        *(one.suspension for one in shown.environments if one.suspension),
    ]
    assert [(one.who, one.reason) for one in details] == [("someone", "database moves")]
    house.now = until + 1.0
    house.settle()
    assert running(house, "dev") == SECOND
    (over,) = events(house, EventKind.RESUMED)
    assert over.message == "the time for which someone suspended it is over"


def test_a_suspension_that_is_renewed_or_lifted_has_no_old_end() -> None:
    """The last request counts."""
    house = house_of("dev")
    house.settle()
    house.ask(Verb.SUSPEND, "instance/dev", until=house.now + 60.0)
    house.ask(Verb.SUSPEND, "instance/dev", reason="for good")
    house.cycle()
    house.now += 120.0
    turn(house)
    assert house.records.instances["dev"].suspended
    assert events(house, EventKind.RESUMED) == []
