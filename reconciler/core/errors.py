"""Expected errors; their type says what happens next.

Adapters translate foreign exceptions into these at the edge. Any other exception that reaches the
daemon is a bug: it is logged with its traceback, retried with back-off and alerted, and the daemon
stays alive.
"""

from __future__ import annotations

import copyreg

from reconciler.core.definitions import Place
from reconciler.core.reasons import Reason


class GroundcrewError(Exception):
    """Base of all expected errors.

    `reason` is a CamelCase word that becomes a condition's reason and a metric's label, so it never
    contains text from outside; `message` says what failed and what to do. `place` points into the
    environments repo if there is such a place.
    """

    def __init__(self, reason: Reason, message: str, place: Place | None = None) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.place = place

    def __reduce__(self) -> tuple[object, ...]:
        """Let an error cross process boundaries, whatever arguments its constructor has."""
        return copyreg.__newobj__, (type(self), *self.args), self.__dict__  # type: ignore[attr-defined]

    def __str__(self) -> str:
        return f"{self.place}: {self.message}" if self.place else self.message


class Retryable(GroundcrewError):
    """Error that may resolve by itself; `after` is the wait in seconds, None the usual back-off."""

    def __init__(
        self, reason: Reason, message: str, place: Place | None = None, after: float | None = None
    ) -> None:
        super().__init__(reason, message, place)
        self.after = after


class Away(Retryable):
    """Something is unavailable that no build depends on, such as a cluster: it is waited for.

    In the middle of an activation the wait has no limit: rolling back would need it too.
    """


class Stalled(GroundcrewError):
    """Error that a person has to resolve first; another attempt would fail again."""


class Cancelled(GroundcrewError):
    """The daemon itself stopped the work; nothing is wrong."""

    def __init__(self, message: str = "cancelled") -> None:
        super().__init__(Reason.CANCELLED, message)
