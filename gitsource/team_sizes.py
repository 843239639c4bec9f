"""Limit on what is kept of a team's environments, however its files are divided."""

from __future__ import annotations

from collections import Counter

from reconciler.core.definitions import TEAM_BYTES, Environment, Finding, Place
from reconciler.core.formatting import size
from reconciler.core.reasons import Reason


class TeamSizes:
    """Sizes of the environments of some teams, added in the order of their paths.

    The first one that does not fit and all after it are not kept. So what is kept depends on the
    revision alone, not on what was read before.
    """

    def __init__(self) -> None:
        self._sizes: Counter[str] = Counter()
        self._full: set[str] = set()

    def is_full(self, team: str) -> bool:
        """Return True if an environment of the team did not fit."""
        return team in self._full

    def add(self, team: str, environment: Environment | None) -> bool:
        """Add an environment, if a file has one; return False if it does not fit."""
        self._sizes[team] += environment.size if environment is not None else 0
        if self._sizes[team] > TEAM_BYTES:
            self._full.add(team)
        return not self.is_full(team)


def too_large(path: str, team: str) -> Finding:
    """Return the finding for an environment that is not kept."""
    message = (
        f"not read: with the files before it, the environments of team {team} are larger than "
        f"{size(TEAM_BYTES)} together. A file counts for each environment that names it: make "
        f"constraints and DAG checks smaller, or remove environments"
    )
    return Finding(Place(path, 1, 1), path, Reason.TOO_LARGE, message)
