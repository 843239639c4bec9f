"""Leases of other processes that seem to last longer than any lease may."""

from __future__ import annotations

from reconciler.settings import LONGEST_LEASE
from reconciler.store.foreign_lease import ForeignLease

AHEAD = 1000.0 + 7200.0  # when a lease runs out that was recorded before the clock was set back


def test_a_lease_is_held_until_it_runs_out() -> None:
    lease = ForeignLease()
    assert lease.is_held(1, 1010.0, 1000.0, 5.0)
    assert lease.is_held(1, 1000.0 + LONGEST_LEASE, 1000.0, 6.0)
    assert not lease.is_held(1, 1010.0, 1010.0, 15.0)


def test_a_lease_from_before_the_clock_was_set_back_is_taken_once_nobody_renews_it() -> None:
    lease = ForeignLease()
    assert lease.is_held(1, AHEAD, 1000.0, 5.0)
    assert lease.is_held(1, AHEAD, 1299.0, 4.0 + LONGEST_LEASE)
    assert not lease.is_held(1, AHEAD, 1300.0, 5.0 + LONGEST_LEASE)


def test_a_holder_that_renews_it_keeps_it() -> None:
    """For as long as the database's clock goes back and forth."""
    lease = ForeignLease()
    for minute in range(60):
        tick = minute * 60.0
        assert lease.is_held(1, AHEAD + minute, 1000.0 + tick, tick)
    assert lease.is_held(2, AHEAD + 59, 5000.0, 59 * 60.0 + LONGEST_LEASE), "another took it"


def test_what_was_seen_before_a_plausible_lease_is_forgotten() -> None:
    lease = ForeignLease()
    assert lease.is_held(1, AHEAD, 1000.0, 0.0)
    assert lease.is_held(1, 1020.0, 1010.0, 10.0)
    assert lease.is_held(1, AHEAD, 1000.0, LONGEST_LEASE)
