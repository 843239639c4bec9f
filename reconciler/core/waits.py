"""What an activation waits on, in words.

The first word is one of the metric's labels. Times are absolute: a text changes only when what is
waited on does, so a record that waits is not written anew at every look.
"""

from __future__ import annotations

from datetime import UTC, datetime

from reconciler.core.world import WindowState


def moment(at: float) -> str:
    """A time in seconds since the epoch, to the second."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def for_window(window: WindowState) -> str:
    """It is shut; the daemon words the time in the window's own time zone."""
    return f"window: opens at {window.opens or moment(window.changes_at)}"


def for_soak(wave: int, instance: str, until: float) -> str:
    """`instance` of an earlier wave has not been active for long enough."""
    return f"soak: wave {wave} ({instance}) until {moment(until)}"


def for_retry(at: float, why: str) -> str:
    """It failed before and is tried again later."""
    return f"retry at {moment(at)} after: {why}"
