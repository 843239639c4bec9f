"""What an activation waits on, in words.

Each text begins with its `WaitOn`, which is a label of a metric. Times are absolute: a text changes
only when what is waited on does, so a record that waits is not written anew at every look.
"""

from __future__ import annotations

from enum import StrEnum

from reconciler.core.words import moment
from reconciler.core.world import WindowState


class WaitOn(StrEnum):
    """The first word of every text here."""

    SUSPENDED = "suspended"
    BASE = "base"
    RETRY = "retry"
    WAVE = "wave"
    SOAK = "soak"
    WINDOW = "window"
    ANOTHER = "another"
    CONFIRMATION = "confirmation"


def waits_on(text: str) -> WaitOn | None:
    """What a text of this module is about; None for one that another version wrote."""
    word = text.partition(" ")[0].rstrip(":")
    return next((on for on in WaitOn if on == word), None)


def for_instance() -> str:
    """The instance is suspended."""
    return f"{WaitOn.SUSPENDED}: the instance"


def for_environment(name: str) -> str:
    """Its environment is suspended."""
    return f"{WaitOn.SUSPENDED}: environment {name}"


def for_base(why: str) -> str:
    """The base is another than the one that was inspected."""
    return f"{WaitOn.BASE}: {why or 'it has changed and is inspected first'}"


def for_retry(at: float, why: str) -> str:
    """It failed before and is tried again later."""
    return f"{WaitOn.RETRY} at {moment(at)} after: {why}"


def for_wave(wave: int, why: str) -> str:
    """An earlier wave is not where it should be."""
    return f"{WaitOn.WAVE} {wave}: {why}"


def for_soak(wave: int, instance: str, until: float) -> str:
    """`instance` of an earlier wave has not been active for long enough."""
    return f"{WaitOn.SOAK}: wave {wave} ({instance}) until {moment(until)}"


def for_window(window: WindowState | None) -> str:
    """It is shut, or not known; the daemon words the time in the window's own time zone."""
    if window is None:
        return f"{WaitOn.WINDOW}: its state is not known yet"
    return f"{WaitOn.WINDOW}: opens at {window.opens or moment(window.changes_at)}"


def for_another(running: int) -> str:
    """As many activations run as may."""
    return f"{WaitOn.ANOTHER} activation: {running} run, the limit"


def for_confirmation() -> str:
    """The newest revision lost most definitions."""
    return f"{WaitOn.CONFIRMATION} of a held revision"
