"""Texts about what an activation waits for.

Each text begins with its `WaitOn`, which is a label of a metric. Times are absolute: a text changes
only if its cause does, so a waiting record is not written again in every cycle.
"""

from __future__ import annotations

from enum import StrEnum

from reconciler.core.formatting import moment
from reconciler.core.world import WindowState


class WaitOn(StrEnum):
    """First word of every text here."""

    SUSPENDED = "suspended"
    BASE = "base"
    RETRY = "retry"
    WAVE = "wave"
    SOAK = "soak"
    WINDOW = "window"
    ANOTHER = "another"
    CONFIRMATION = "confirmation"
    SHARE = "share"


def waits_on(text: str) -> WaitOn | None:
    """Return the subject of a text of this module, or None if another version wrote it."""
    word = text.partition(" ")[0].rstrip(":")
    return next((on for on in WaitOn if on == word), None)


def for_instance() -> str:
    """Return the text for a suspended instance."""
    return f"{WaitOn.SUSPENDED}: the instance"


def for_environment(name: str) -> str:
    """Return the text for a suspended environment."""
    return f"{WaitOn.SUSPENDED}: environment {name}"


def for_base(why: str) -> str:
    """Return the text for a base that differs from the one that was inspected."""
    return f"{WaitOn.BASE}: {why or 'it has changed and is inspected first'}"


def for_retry(at: float, why: str) -> str:
    """Return the text for a retry after a failure."""
    return f"{WaitOn.RETRY} at {moment(at)} after: {why}"


def for_wave(wave: int, why: str) -> str:
    """Return the text for an earlier wave that is not where it should be."""
    return f"{WaitOn.WAVE} {wave}: {why}"


def for_soak(wave: int, instance: str, until: float) -> str:
    """Return the text for an `instance` of an earlier wave that is not active for long enough."""
    return f"{WaitOn.SOAK}: wave {wave} ({instance}) until {moment(until)}"


def for_window(window: WindowState | None) -> str:
    """Return the text for a window that is closed or unknown, with times in its own time zone."""
    if window is None:
        return f"{WaitOn.WINDOW}: its state is not known yet"
    return f"{WaitOn.WINDOW}: opens at {window.opens or moment(window.changes_at)}"


def for_another(running: int) -> str:
    """Return the text for the limit of parallel activations."""
    return f"{WaitOn.ANOTHER} activation: {running} run, the limit"


def for_share(why: str) -> str:
    """Return the wait for a share that is missing."""
    return f"{WaitOn.SHARE}: {why}"


def for_confirmation() -> str:
    """Return the text for a newest revision that lost most definitions."""
    return f"{WaitOn.CONFIRMATION} of a held revision"
