"""Durations, sizes and times have the same format on the command line, pages and in Slack."""

from __future__ import annotations

import pytest

from reconciler.core.formatting import age, iso, moment, size, span


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0, "0s"),
        (0.24, "0.2s"),
        (7, "7s"),
        (59.9, "59s"),
        (250, "4m 10s"),
        (7500, "2h 05m"),
        (273_600, "3d 4h"),
        (-5, "0s"),
    ],
)
def test_durations_in_two_units(seconds: float, said: str) -> None:
    """The two largest units, and tenths below ten seconds."""
    assert span(seconds) == said


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.00 KiB"),
        (10_230, "9.99 KiB"),
        (10_240, "10.0 KiB"),
        (40_000_000, "38.1 MiB"),
        (312 << 20, "312 MiB"),
        ((1 << 20) - 1, "1.00 MiB"),
        (5000 << 40, "5000 TiB"),
    ],
)
def test_sizes(number: int, said: str) -> None:
    """Three digits, or four if the unit has no larger one."""
    assert size(number) == said


def test_times() -> None:
    """They are in UTC, and whole seconds from now; a future time counts as now."""
    assert moment(1_795_631_600.567) == "2026-11-25 18:33:20 UTC"
    assert iso(1_795_631_600.567) == "2026-11-25T18:33:20.567Z"
    assert (age(100, 105.7), age(100, 90)) == ("5s", "0s")
