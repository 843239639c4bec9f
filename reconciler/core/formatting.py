"""Formatting of durations, sizes and times for people."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


def span(seconds: float) -> str:
    """Return a duration in its two largest units: 3d 4h, 2h 05m, 4m 10s, 12s, 7.2s."""
    if seconds < 10:
        return f"{max(0.0, seconds):.1f}".removesuffix(".0") + "s"
    whole = int(seconds)
    days, hours, minutes = whole // 86400, whole // 3600 % 24, whole // 60 % 60
    if days:
        return f"{days}d {hours}h"
    if hours:
        return f"{hours}h {minutes:02d}m"
    return f"{minutes}m {whole % 60:02d}s" if minutes else f"{whole}s"


def age(at: float, now: float) -> str:
    """Return the time since `at`, in whole seconds."""
    return span(max(0, int(now - at)))


def size(number: float) -> str:
    """Return a number of bytes in three or four digits: 312 B, 4.10 KiB, 40.5 MiB."""
    scaled, power = float(number), 0
    while scaled >= 1023.5 and power < len(UNITS) - 1:
        scaled, power = scaled / 1024, power + 1
    digits = 0 if not power or scaled >= 99.95 else 1 if scaled >= 9.995 else 2
    return f"{scaled:.{digits}f} {UNITS[power]}"


def names(every: Sequence[str], most: int = 5, count: int | None = None) -> str:
    """Return names separated by commas: the first ones, and the number of the others.

    `count` is the number of all names, if `every` has only the first ones of them.
    """
    more = (len(every) if count is None else count) - most
    return ", ".join(every[:most]) + (f" and {more} more" if more > 0 else "")


def moment(at: float) -> str:
    """Return a time in seconds since the epoch as text, to the second."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def iso(at: float) -> str:
    """Return a time in seconds since the epoch as ISO 8601 with milliseconds."""
    text = datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")
