"""A route's deliveries when a channel has a fault of its own."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import pytest

from metrics.channels import Outcome, Response
from metrics.facts import Fact
from metrics.routes import Route, Waiting
from reconciler.core.events import EventKind
from reconciler.core.model import MessageState
from reconciler.settings import NotifySettings, RouteSettings


class Faulty:
    """Channel that raises for one team's facts; `sent` has the ids of the others."""

    def __init__(self) -> None:
        self.sent: list[int] = []

    def target(self) -> str:
        return "somewhere"

    def send(self, facts: Sequence[Fact]) -> Response:
        if any(fact.team == "red" for fact in facts):
            raise KeyError("hunter2")
        self.sent += [fact.id for fact in facts]
        return Response(Outcome.TAKEN)


@pytest.mark.parametrize("above", [2, 100], ids=["as a digest", "one by one"])
def test_a_message_that_cannot_be_sent_takes_no_other_with_it(
    above: int, caplog: pytest.LogCaptureFixture
) -> None:
    """It is given up and logged without its text; all others are sent."""
    states: dict[int, MessageState] = {}

    def settle(message: int, state: MessageState, error: str = "") -> None:
        states[message] = state

    settings = RouteSettings(name="hook", kind="webhook", secret="hook")
    channel = Faulty()
    route = Route(settings, channel, NotifySettings(routes=(settings,), digest_above=above), settle)
    kind = EventKind.ACTIVATION_ACTIVE
    due = [
        Waiting(n, 0, Fact(n, 0.0, kind, "good", "active", f"environment/{n}", str(n), team))
        for n, team in enumerate(["blue", "red", "green", "blue"], start=1)
    ]
    with caplog.at_level(logging.ERROR):
        assert route.deliver(due, 0.0) == 3
    assert channel.sent == [1, 3, 4]
    assert states == {
        1: MessageState.SENT,
        2: MessageState.FAILED,
        3: MessageState.SENT,
        4: MessageState.SENT,
    }
    assert "hook: KeyError at test_routes.py:" in caplog.text
    assert "hunter2" not in caplog.text
