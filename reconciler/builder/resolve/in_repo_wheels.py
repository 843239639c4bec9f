"""Wheels of in-repo packages, and the refusal of extras that they lack.

uv only warns of an unknown extra, as it must for packages of an index, whose extras come and go
with versions.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from reconciler.core.definitions import Place, Recipe, SourcePackage
from reconciler.core.errors import Stalled
from reconciler.core.reasons import Reason

IN_MARKER = re.compile(r'\bextra == "([^"]*)"|"([^"]*)" == extra\b')


@dataclass(frozen=True, slots=True)
class InRepoWheel:
    """Wheel built from an in-repo package; `path` is on this machine's disk.

    `requires` are its requirements, `extras` the normalised names of its extras.
    """

    name: str
    version: str
    path: Path
    repo_path: str
    tree: str
    sha256: str
    requires: tuple[str, ...]
    extras: frozenset[str]


def extras_of(announced: Iterable[str], requirements: Iterable[str]) -> frozenset[str]:
    """Return the normalised extras of a wheel, from its `Provides-Extra` and `Requires-Dist`.

    uv also takes those that only a marker mentions.
    """
    names = list(announced)
    for parsed in _parsed(requirements):
        for pair in IN_MARKER.findall(str(parsed.marker or "")):
            names += pair
    return frozenset(canonicalize_name(name) for name in names if name)


def refuse_missing_extras(recipe: Recipe, wheels: Sequence[InRepoWheel]) -> None:
    """Raise Stalled("InvalidValue") for an extra that an in-repo package lacks."""
    by_name = {wheel.name: wheel for wheel in wheels}
    packages = {package.path: package for package in recipe.packages}
    for needer, parsed, line in _needs(recipe, packages, wheels):
        wheel = by_name.get(canonicalize_name(parsed.name))
        missing = set(map(canonicalize_name, parsed.extras)) - (wheel.extras if wheel else set())
        if wheel is not None and missing:
            message = packages[wheel.repo_path].missing(missing, wheel.extras)
            raise Stalled(Reason.INVALID_VALUE, f"{needer}{message}", line)


def _needs(
    recipe: Recipe, packages: Mapping[str, SourcePackage], wheels: Sequence[InRepoWheel]
) -> Iterator[tuple[str, Requirement, Place]]:
    """Yield who needs it, a requirement, and the line of the definition that leads to it."""
    for requirement in recipe.requirements:
        for parsed in _parsed([requirement.text]):
            yield "", parsed, requirement.place
    for wheel in wheels:
        for parsed in _parsed(wheel.requires):
            yield f"{wheel.repo_path} needs {parsed}, but ", parsed, packages[wheel.repo_path].place


def _parsed(lines: Iterable[str]) -> Iterator[Requirement]:
    for line in lines:
        try:
            yield Requirement(line)
        except (InvalidRequirement, RecursionError):
            continue  # uv reports what is wrong with it
