"""Waits of activations: the subject of each, when it ends, and its message.

Times are absolute: a wait changes only if its cause does, so a waiting record is not written again
in every cycle.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from reconciler.core.formatting import moment


class WaitOn(StrEnum):
    """Subject of a wait, a label of a metric, and the first word of its message."""

    SUSPENDED = "suspended"
    BASE = "base"
    RETRY = "retry"
    WAVE = "wave"
    SOAK = "soak"
    WINDOW = "window"
    ANOTHER = "another"
    CONFIRMATION = "confirmation"
    SHARE = "share"


@dataclass(frozen=True, slots=True)
class Wait:
    """One wait of an activation; `until` is when it ends, if that is known.

    `on` is None in a record of an earlier version, until the next decision writes it again.
    """

    on: WaitOn | None
    message: str
    until: float | None = None


@dataclass(frozen=True, slots=True)
class WindowState:
    """Whether an instance's maintenance window is open, and when that changes.

    `opens` is the next opening by the window's own clock ("" if unknown), for people.
    """

    is_open: bool
    changes_at: float
    opens: str = ""


def for_instance(reason: str = "", until: float = 0.0) -> Wait:
    """Return the wait for a suspended instance."""
    return _suspended("the instance", reason, until)


def for_environment(name: str, reason: str = "", until: float = 0.0) -> Wait:
    """Return the wait for a suspended environment."""
    return _suspended(f"environment {name}", reason, until)


def _suspended(subject: str, reason: str, until: float) -> Wait:
    details = ", ".join(filter(None, (reason, f"until {moment(until)}" if until else "")))
    message = f"{WaitOn.SUSPENDED}: {subject}{f' ({details})' if details else ''}"
    return Wait(WaitOn.SUSPENDED, message, until or None)


def for_base(why: str) -> Wait:
    """Return the wait for a base that differs from the one that was inspected."""
    return Wait(WaitOn.BASE, f"{WaitOn.BASE}: {why or 'it has changed and is inspected first'}")


def for_retry(at: float, why: str) -> Wait:
    """Return the wait for a retry after a failure."""
    return Wait(WaitOn.RETRY, f"{WaitOn.RETRY} at {moment(at)} after: {why}", at)


def for_wave(wave: int, why: str) -> Wait:
    """Return the wait for an earlier wave that is not where it should be."""
    return Wait(WaitOn.WAVE, f"{WaitOn.WAVE} {wave}: {why}")


def for_soak(wave: int, instance: str, until: float) -> Wait:
    """Return the wait for an `instance` of an earlier wave that is not active for long enough."""
    return Wait(
        WaitOn.SOAK, f"{WaitOn.SOAK}: wave {wave} ({instance}) until {moment(until)}", until
    )


def for_window(window: WindowState | None) -> Wait:
    """Return the wait for a window that is closed or unknown, with times in its own time zone."""
    if window is None:
        return Wait(WaitOn.WINDOW, f"{WaitOn.WINDOW}: its state is not known yet")
    return Wait(
        WaitOn.WINDOW,
        f"{WaitOn.WINDOW}: opens at {window.opens or moment(window.changes_at)}",
        window.changes_at,
    )


def for_another(running: int) -> Wait:
    """Return the wait for the limit of parallel activations."""
    return Wait(WaitOn.ANOTHER, f"{WaitOn.ANOTHER} activation: {running} run, the limit")


def for_share(why: str) -> Wait:
    """Return the wait for a share that is missing."""
    return Wait(WaitOn.SHARE, f"{WaitOn.SHARE}: {why}")


def for_confirmation() -> Wait:
    """Return the wait for a newest revision that lost most definitions."""
    return Wait(WaitOn.CONFIRMATION, f"{WaitOn.CONFIRMATION} of a held revision")
