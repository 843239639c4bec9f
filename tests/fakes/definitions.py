"""Definitions of environments and instances, with defaults for everything a test leaves out."""

from __future__ import annotations

from dataclasses import replace

from reconciler.core.definitions import (
    Api,
    Checks,
    Environment,
    ImportLimit,
    Instance,
    LocalTarget,
    Measure,
    Place,
    Recipe,
    Wave,
)


def recipe(digest: str) -> Recipe:
    """Return a recipe of which only the digest matters."""
    return Recipe(digest)


def environment(name: str, digest: str, waves: tuple[Wave, ...], team: str = "red") -> Environment:
    """Return an environment in its own file."""
    return Environment(name, team, Place(f"teams/{team}/{name}.yaml", 1), recipe(digest), waves)


def limited(definition: Environment, files: int, line: int = 9) -> Environment:
    """Return the same environment with a limit of files; 0: without one."""
    location = Place(definition.place.file, line)
    limits = (ImportLimit(Measure.FILES, float(files), location),) if files else ()
    return replace(definition, recipe=replace(definition.recipe, checks=Checks(budget=limits)))


def instance(name: str, team: str = "red", *, suspend: bool = False) -> Instance:
    """Return a local instance in its own file."""
    return Instance(
        name,
        team,
        Place(f"instances/{name}.yaml", 1),
        Api("http://127.0.0.1:1"),
        LocalTarget("/python", "/airflow", ()),
        suspend=suspend,
    )
