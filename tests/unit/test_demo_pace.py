"""Time limits of the demo: sufficient on an idle machine, and longer while it is busy."""

from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from reconciler.core.events import EventKind
from reconciler.core.model import Change
from reconciler.demo.observer import DemoFailed, Watch
from reconciler.demo.pace import LONGEST, QUIET_START, Limit, Pace
from reconciler.store.store import Store
from tests.fakes.events import event as stored_event


def seconds_waited(pace: Pace, limit: float) -> float:
    """Return the seconds until a wait of `limit` is over; the clock advances by one per check."""
    ticks: Iterator[int] = count()
    wait = Limit(pace, limit, clock=lambda: float(next(ticks)))
    for waited in range(1, 100_000):
        if wait.over():
            return waited
    raise AssertionError("it never ended")


def test_a_quiet_machine_waits_as_long_as_was_said() -> None:
    assert seconds_waited(Pace(load=lambda: 0.1), 240) == 240


def test_a_machine_with_five_processes_per_core_waits_five_times_as_long() -> None:
    assert seconds_waited(Pace(load=lambda: 5.0), 240) == pytest.approx(1200, abs=2)


def test_the_load_is_looked_at_while_waiting() -> None:
    loads = iter([1.0] * 100 + [10.0] * 100_000)
    waited = seconds_waited(Pace(load=lambda: next(loads)), 240)
    assert waited == pytest.approx(100 + 1400, abs=2)


def test_a_slow_start_of_airflow_counts_where_the_load_shows_nothing() -> None:
    pace = Pace(load=lambda: 0.0)
    pace.measure(3 * QUIET_START)
    assert seconds_waited(pace, 100) == pytest.approx(300, abs=1)


def test_no_wait_is_without_end() -> None:
    assert Pace(load=lambda: 1e9).factor() == LONGEST


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Return an empty store."""
    made = Store(f"sqlite:///{tmp_path / 'groundcrew.db'}")
    made.migrate()
    return made


def test_a_wait_ends_at_once_when_the_opposite_has_happened(store: Store) -> None:
    lease = store.acquire("test", 60)
    assert lease is not None
    event = stored_event(
        0.0, "BuildFailed", "environment/a", "a", "ImportFailed", "acme.x: no", revision="r1"
    )
    store.write(lease, Change(events=(event,)))
    watch = Watch(store, lambda _: None, Pace(load=lambda: 1.0))
    with pytest.raises(DemoFailed, match=r"BuildFailed instead of ActivationActive: acme\.x: no"):
        watch.event(EventKind.ACTIVATION_ACTIVE, "r1")
