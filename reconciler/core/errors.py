"""The errors that know what happens next.

Adapters translate foreign exceptions into these at the edge; whatever else reaches the daemon is
a bug: it is logged with its traceback, backed off and alerted, and the daemon stays alive.
"""

from __future__ import annotations

import copyreg

from reconciler.core.definitions import Place


class GroundcrewError(Exception):
    """Base of all expected errors.

    `reason` is a CamelCase word that becomes a condition's reason and a metric's label, so it is
    never text that somebody wrote; `message` says what failed and what to do, in words.
    `place` points into the environments repo where there is such a place.
    """

    def __init__(self, reason: str, message: str, place: Place | None = None) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.place = place

    def __reduce__(self) -> tuple[object, ...]:
        """Let an error cross from one process to another, whatever its constructor takes."""
        return copyreg.__newobj__, (type(self), *self.args), self.__dict__  # type: ignore[attr-defined]

    def __str__(self) -> str:
        return f"{self.place}: {self.message}" if self.place else self.message


class Retryable(GroundcrewError):
    """It may work by itself later; `after` is the wait in seconds, None for the usual back-off."""

    def __init__(
        self, reason: str, message: str, place: Place | None = None, after: float | None = None
    ) -> None:
        super().__init__(reason, message, place)
        self.after = after


class Away(Retryable):
    """Something is away that no build has a part in, a cluster for instance: it is waited for.

    In the middle of an activation that is for as long as it takes: going back would need it too.
    """


class Stalled(GroundcrewError):
    """A person has to change something first; trying again as it is would fail again."""


class Cancelled(GroundcrewError):
    """We stopped it ourselves; nothing is wrong."""

    def __init__(self, message: str = "cancelled") -> None:
        super().__init__("Cancelled", message)
