"""Keys of saved locks, which decide which teams share a lock.

A lock serves every team if no input of a single team influenced it. A team's credentials decide
what an index shows; wheels built from source depend on that team's build scripts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from reconciler.builder.resolve.in_repo_wheels import InRepoWheel
from reconciler.core.definitions import Environment, Recipe


def lock_key(environment: Environment) -> str:
    """Return the key of an environment's lock: the recipe's digest, or one for its team only."""
    recipe = environment.recipe
    if not (_private(recipe) or recipe.packages):
        return recipe.digest
    return _digest(environment.team, recipe.digest)


def shared_key(recipe: Recipe, wheels: Sequence[InRepoWheel]) -> str | None:
    """Return the key of the lock for all teams with these wheels; None if it is one team's."""
    if _private(recipe) or not recipe.packages:
        return None
    return _digest(*sorted(wheel.sha256 for wheel in wheels), recipe.digest)


def _private(recipe: Recipe) -> bool:
    """Return True if resolving uses credentials or runs code of sdists."""
    return bool(recipe.source_builds) or any(index.credentials for index in recipe.indexes)


def _digest(*words: str) -> str:
    return hashlib.sha256("\0".join(words).encode()).hexdigest()
