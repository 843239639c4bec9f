"""Adoption of existing builds on the share when the database is empty, instead of rebuilding."""

from __future__ import annotations

from reconciler.core.errors import GroundcrewError
from reconciler.share.share import Share

Key = tuple[str, str, str]
"""(recipe digest, runtime key, team)"""


class Adoption:
    """Locks of builds on the share, for records that do not know them.

    Empty until `look` is called, which reads every build.json once.
    """

    def __init__(self, share: Share) -> None:
        self._share = share
        self._builds: dict[Key, str] = {}

    def look(self) -> int:
        """Find the complete and verified builds on the share; return how many there are."""
        for build_id in self._share.complete_builds():
            try:
                document = self._share.build(build_id)
                if document is not None and self._share.verified(build_id, document.runtime):
                    key = document.recipe, document.runtime, document.team
                    self._builds[key] = build_id
            except GroundcrewError:
                continue  # unreadable builds are not adopted, but built again
        return len(self._builds)

    def lock(self, recipe_digest: str, runtime_key: str, team: str) -> str | None:
        """Return the lock of an adoptable build that `team` made from this recipe and runtime."""
        build_id = self._builds.get((recipe_digest, runtime_key, team))
        return self._share.lock_text(build_id) if build_id is not None else None
