"""Judgement of a lease that another process holds."""

from __future__ import annotations

from reconciler.settings import LONGEST_LEASE


class ForeignLease:
    """Lease of another process, as it was seen at each attempt to take it.

    No lease is for longer than LONGEST_LEASE. One that seems to last longer was recorded before the
    database's clock was set back. A holder that is alive renews it, which changes it. If it stays
    the same for LONGEST_LEASE by our own clock, its holder has stopped acting.
    """

    def __init__(self) -> None:
        self._seen: tuple[tuple[int, float], float] | None = None  # a lease, and since when

    def is_held(self, epoch: int, expires_at: float, now: float, tick: float) -> bool:
        """Return True if it may not be taken; `tick` is from a clock that nobody sets."""
        if expires_at <= now + LONGEST_LEASE:
            self._seen = None
            return expires_at > now
        lease = (epoch, expires_at)
        if self._seen is None or self._seen[0] != lease:
            self._seen = lease, tick
        return tick - self._seen[1] < LONGEST_LEASE
