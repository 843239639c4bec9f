"""Maintenance windows: whether one is open, and when that changes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from reconciler.core.definitions import Window
from reconciler.core.waits import WindowState

NEVER = timedelta(days=366)


def window_state(window: Window, now: float) -> WindowState:
    """Return the state of `window` at `now`; its definition was validated when it was read.

    Around a change of clocks, a window opens by the wall clock of its timezone and stays open for
    `duration` seconds of real time.
    """
    local = datetime.fromtimestamp(now, ZoneInfo(window.timezone))
    opened = _match(window.cron, local + timedelta(seconds=1), reverse=True)
    if opened is not None and now < opened + window.duration:
        return WindowState(True, opened + window.duration)
    opens = _match(window.cron, local, reverse=False)
    if opens is None:
        return WindowState(False, now + NEVER.total_seconds(), "no time: its cron never matches")
    clock = datetime.fromtimestamp(opens, local.tzinfo).strftime("%Y-%m-%d %H:%M")
    return WindowState(False, opens, f"{clock} {window.timezone}")


def _match(cron: str, start: datetime, *, reverse: bool) -> float | None:
    try:
        occurrence = next(CronSim(cron, start, reverse=reverse))
    except (CronSimError, StopIteration):
        return None
    return occurrence.astimezone(UTC).timestamp()
