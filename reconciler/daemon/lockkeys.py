"""Under which digest a lock is kept, and so whom it serves.

A lock serves every team when nothing of a team had a part in it. A team's credentials decide what
an index shows; wheels made from source are what that team's build scripts made of them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from reconciler.builder.locking import InRepoWheel
from reconciler.core.definitions import Environment, Recipe


def lock_key(environment: Environment) -> str:
    """Where an environment's lock is: the recipe's own digest, or one that is its team's alone."""
    recipe = environment.recipe
    if not (_private(recipe) or recipe.packages):
        return recipe.digest
    return _digest(environment.team, recipe.digest)


def shared_key(recipe: Recipe, wheels: Sequence[InRepoWheel]) -> str | None:
    """Where a lock is for every team that has these very wheels; None for a lock of one team."""
    if _private(recipe) or not recipe.packages:
        return None
    return _digest(*sorted(wheel.sha256 for wheel in wheels), recipe.digest)


def _private(recipe: Recipe) -> bool:
    """Does resolving ask with credentials, or run code of sdists."""
    return bool(recipe.source_builds) or any(index.credentials for index in recipe.indexes)


def _digest(*words: str) -> str:
    return hashlib.sha256("\0".join(words).encode()).hexdigest()
