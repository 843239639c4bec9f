"""Maintenance windows by the wall clock of their timezone."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import cast
from zoneinfo import ZoneInfo

from reconciler.core.definitions import Window
from reconciler.core.model import InstanceRecord, Records
from reconciler.daemon.observer import Observer, Outside
from reconciler.daemon.windows import window_state
from tests.fakes.definitions import instance

NIGHT = Window("0 2 * * *", 7200.0, "Europe/Berlin")


def at(text: str, zone: str = "Europe/Berlin") -> float:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp()


def test_a_window_is_open_from_its_match_for_its_duration() -> None:
    assert window_state(NIGHT, at("2026-01-10T02:00:00")).is_open
    assert window_state(NIGHT, at("2026-01-10T03:59:59")).is_open
    assert not window_state(NIGHT, at("2026-01-10T04:00:00")).is_open
    assert not window_state(NIGHT, at("2026-01-10T01:59:59")).is_open


def test_a_window_says_when_it_changes() -> None:
    assert window_state(NIGHT, at("2026-01-10T02:30:00")).changes_at == at("2026-01-10T04:00:00")
    assert window_state(NIGHT, at("2026-01-10T12:00:00")).changes_at == at("2026-01-11T02:00:00")


def test_the_timezone_decides_and_not_the_machine() -> None:
    utc = Window("0 2 * * *", 7200.0, "UTC")
    assert window_state(utc, at("2026-07-10T04:30:00")).is_open
    assert not window_state(NIGHT, at("2026-07-10T04:30:00")).is_open


def test_a_night_without_two_oclock_still_opens_and_closes() -> None:
    """On the night of the change to summer time, 02:00 does not exist in Berlin."""
    opened = [
        window_state(NIGHT, at("2026-03-29T00:30:00") + minutes * 60).is_open
        for minutes in range(0, 240, 10)
    ]
    assert True in opened
    assert opened[-1] is False


def test_a_clock_that_is_set_back_into_a_window_finds_it_open() -> None:
    """The computed next opening does not apply to an hour that occurs again."""
    record = InstanceRecord("a", "red", replace(instance("a"), window=NIGHT))
    records = Records(instances={"a": record})
    looking = Observer(cast("Outside", None))  # windows are worked out, not looked at
    assert not looking.windows(records, at("2026-01-10T05:00:00"))["a"].is_open
    assert looking.windows(records, at("2026-01-10T03:00:00"))["a"].is_open
