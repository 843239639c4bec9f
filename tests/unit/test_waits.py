"""Texts for what an activation waits for, and the labels that they begin with."""

from __future__ import annotations

import pytest

from reconciler.core import waits
from reconciler.core.waits import WaitOn, waits_on
from reconciler.core.world import WindowState

TEXTS = {
    waits.for_instance(): WaitOn.SUSPENDED,
    waits.for_environment("one"): WaitOn.SUSPENDED,
    waits.for_base("its pods run several images"): WaitOn.BASE,
    waits.for_retry(60.0, "tasks still run"): WaitOn.RETRY,
    waits.for_wave(2, "b is not active yet"): WaitOn.WAVE,
    waits.for_soak(1, "a", 60.0): WaitOn.SOAK,
    waits.for_window(None): WaitOn.WINDOW,
    waits.for_window(WindowState(False, 60.0)): WaitOn.WINDOW,
    waits.for_another(8): WaitOn.ANOTHER,
    waits.for_share("it is not mounted"): WaitOn.SHARE,
    waits.for_confirmation(): WaitOn.CONFIRMATION,
}


@pytest.mark.parametrize(("text", "on"), TEXTS.items())
def test_a_text_begins_with_what_it_is_about(text: str, on: WaitOn) -> None:
    assert waits_on(text) is on


def test_every_label_has_a_text() -> None:
    """An unknown beginning has no label."""
    assert set(TEXTS.values()) == set(WaitOn)
    assert waits_on("words of another version") is None
