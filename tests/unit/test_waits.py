"""Waits of activations, and the messages for them."""

from __future__ import annotations

import pytest

from reconciler.core import waits
from reconciler.core.waits import Wait, WaitOn, WindowState

WAITS = [
    waits.for_instance(),
    waits.for_environment("one"),
    waits.for_base("its pods run several images"),
    waits.for_retry(60.0, "tasks still run"),
    waits.for_wave(2, "b is not active yet"),
    waits.for_soak(1, "a", 60.0),
    waits.for_window(None),
    waits.for_window(WindowState(False, 60.0)),
    waits.for_another(8),
    waits.for_share("it is not mounted"),
    waits.for_confirmation(),
]


@pytest.mark.parametrize("wait", WAITS, ids=lambda wait: wait.message)
def test_a_message_begins_with_what_is_waited_for(wait: Wait) -> None:
    assert wait.on is not None
    assert wait.message.replace(":", " ").split()[0] == wait.on


def test_every_subject_has_a_wait() -> None:
    """Those that end at a known time say when."""
    assert {wait.on for wait in WAITS} == set(WaitOn)
    timed = {wait.on for wait in WAITS if wait.until == 60.0}
    assert timed == {WaitOn.RETRY, WaitOn.SOAK, WaitOn.WINDOW}
