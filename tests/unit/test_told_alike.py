"""One state of an object through every way to look at it: pages and messages agree with `status`.

`test_states` holds command line, API and metrics against it.
"""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import Request

from metrics.facts import Links, make_fact
from metrics.messages import message
from metrics.notices import NOTICES
from reconciler.api.auth import People, Person
from reconciler.api.pages import phrases, view_models
from reconciler.api.pages.groups import group_of, label_of
from reconciler.api.pages.render import Renderer
from reconciler.api.tokens import Role
from reconciler.api.view import Shown
from reconciler.core.errors import Retryable
from reconciler.core.events import Event
from reconciler.core.model import Verb
from reconciler.core.reasons import Reason
from reconciler.core.states import TABLE, State
from reconciler.core.status import EnvironmentStatus, InstanceStatus
from reconciler.core.statuses import status
from reconciler.settings import HttpSettings
from tests.fakes.simulated_world import House
from tests.unit.test_states import OF_INSTANCES
from tests.unit.waves import ask_for, house_of, turn

REQUEST = Request(
    {"type": "http", "method": "GET", "path": "/", "query_string": b"", "headers": []}
)
READER = Person("reader", Role.READ)
STATES_AFTER = {
    "ActivationStarted": {State.ACTIVATING},
    "ActivationActive": {
        State.ACTIVE,
        State.HELD_BACK,
        State.BUILDING,
        State.BUILD_FAILED,
        State.NO_BUILD,
    },
    "ActivationAborted": {State.RETRYING, State.WAITING, State.BUILDING, State.ACTIVE},
    "BuildFailed": {State.BUILD_FAILED},
    "RolledBack": {State.ROLLED_BACK, State.RETRYING},
    "Degraded": {State.DEGRADED},
}
"""States in which an object may be in the cycle that told of an event.

What became active may be behind a newer commit already.
"""


def nothing_to_show() -> Shown:
    """Fail as the view of the records does."""
    raise Retryable(Reason.DATABASE_UNAVAILABLE, "no database")


@pytest.fixture(scope="module")
def renderer() -> Renderer:
    return Renderer(People(HttpSettings(), Path("/nowhere"), ""), nothing_to_show)


def look(house: House) -> Shown:
    current = status(None, house.records, house.now)
    builds = {build.key: build for build in house.records.builds.values()}
    builds |= {b.build_id: b for b in house.records.builds.values() if b.build_id is not None}
    return Shown(
        1,
        house.records,
        current,
        {one.name: one for one in current.environments},
        {one.name: one for one in current.instances},
        builds,
    )


def page_of(renderer: Renderer, shown: Shown, one: InstanceStatus | EnvironmentStatus) -> str:
    around: dict[str, Any] = {"entries": [], "requests": [], "asked": None}
    if isinstance(one, InstanceStatus):
        response = renderer.page(
            REQUEST,
            READER,
            "instance.html",
            target=f"instance/{one.name}",
            one=view_models.instance(shown, one.name, 0.0),
            said=phrases.sentence(one),
            **around,
        )
    else:
        response = renderer.page(
            REQUEST,
            READER,
            "environment.html",
            target=f"environment/{one.name}",
            one=one,
            record=shown.records.environments[one.name],
            instances=shown.instances,
            builds=view_models.builds_of(shown, one.name),
            **around,
        )
    return bytes(response.body).decode()


def check_page(renderer: Renderer, shown: Shown, one: InstanceStatus | EnvironmentStatus) -> None:
    """Check that the page begins with one chip for the state, and why where something failed.

    Health, sync and phase stand beside the conditions that follow from the same state.
    """
    page = page_of(renderer, shown, one)
    head, _, rest = page.partition('<section aria-labelledby="packages">')
    head = head.partition('<section aria-labelledby="rollout">')[0]
    phase = one.phase if isinstance(one, InstanceStatus) else ""
    chip = f'<span class="chip {group_of(one.state)}">'
    label = escape(label_of(one.state, phase))
    assert f"</svg>{label}</span>" in head.partition(chip)[2], one
    assert f"Health {one.health}, sync {one.sync}" in page, one
    assert not phase or f", phase {phase}." in rest, one
    why = f"<strong>{escape(one.reason)}:</strong>"
    assert (why in head) == one.is_wrong, one
    assert not one.is_wrong or escape(one.message, quote=False).split("&")[0] in head, one


def check_message(event: Event, shown: Shown) -> None:
    """Check that a message speaks of the state that the object is in, with the same reason."""
    fact = make_fact(event, Links())
    kind, _, name = event.object.partition("/")
    one = shown.instances.get(name) if kind == "instance" else shown.environments.get(name)
    if fact is None or one is None or event.kind not in STATES_AFTER:
        return
    text = str(message(fact))
    assert one.state in STATES_AFTER[event.kind], (event, one)
    assert fact.title in text
    if fact.failed:
        assert event.reason_name in text, event
        assert TABLE[one.state].is_wrong or event.kind == "ActivationAborted", (event, one)
    if fact.failed and TABLE[one.state].is_wrong:
        assert one.reason == event.reason_name, (event, one)
        assert one.message in event.message or event.message in one.message, (event, one)
    if isinstance(one, InstanceStatus) and one.state is State.HELD_BACK:
        assert f"rolled back by {one.rolled_back_by}" in fact.title, event
        assert f"rolled back by {one.rolled_back_by}" in phrases.sentence(one)


def check(renderer: Renderer, house: House, seen: set[object], told: int) -> None:
    shown = look(house)
    for event in house.events[told:]:
        check_message(event, shown)
    objects: list[InstanceStatus | EnvironmentStatus] = [
        *shown.status.instances,
        *shown.status.environments,
    ]
    for one in objects:
        mark = (one.name, one.state, one.reason, one.message, one.health, one.sync)
        if mark not in seen:
            seen.add(mark)
            check_page(renderer, shown, one)


@pytest.mark.parametrize(
    "fault", ["", "build", "api", "restart", "image", "share", "shut", "inspect"]
)
@pytest.mark.parametrize("digest", ["g3", "l2", "l3", "r2", "v2"])
def test_pages_and_messages_agree_with_the_status_at_every_moment(
    renderer: Renderer, fault: str, digest: str
) -> None:
    """Whatever fails, with a rollback by hand, a suspension and a deletion in the end."""
    house, seen = house_of("dev"), set[object]()
    house.settle()
    ask_for(house, "g2")
    house.settle()
    ask_for(house, digest)
    if fault:
        house.faults.add(fault)
    steps: dict[int, Callable[[], object]] = {
        60: house.faults.clear,
        80: lambda: house.ask(Verb.ROLLBACK, "instance/dev"),
        110: lambda: house.ask(Verb.SUSPEND, "instance/dev"),
        115: lambda: ask_for(house, "g4"),
        125: lambda: house.ask(Verb.RESUME, "instance/dev"),
        150: lambda: ask_for(house, "r5"),
    }
    for number in range(165):
        steps.get(number, lambda: None)()
        told = len(house.events)
        turn(house, 1)
        check(renderer, house, seen, told)
        house.now += 20.0


def test_every_state_of_an_instance_has_a_sentence_of_its_own() -> None:
    """No page says that a component which loads something else was not looked at."""
    by_code = {
        State.ACTIVATING,
        State.WITHDRAWING,
        State.ROLLING_BACK,
        State.DEGRADED,
        State.HELD_BACK,
        State.WAITING,
        State.RETRYING,
    }
    assert set(phrases.RESTING) | by_code == OF_INSTANCES
    assert not set(phrases.RESTING) & by_code
    told = [text for state, text in phrases.RESTING.items() if TABLE[state].is_wrong]
    assert "It has not been checked yet." not in told


def test_every_kind_of_failure_in_a_message_is_held_against_the_status() -> None:
    """Or it is about the share, the repo or a file, which have no state in the table."""
    elsewhere = {
        "Drifted",
        "DriftStays",
        "DriftHealed",
        "BuildNotLoaded",
        "ShareMissing",
        "ShareBack",
        "ObjectStalled",
        "SourceFailed",
        "SourceRecovered",
        "PruneHeld",
    }
    assert set(NOTICES) == set(STATES_AFTER) | elsewhere
