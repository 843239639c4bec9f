"""Requirements and constraints of a definition as a diagnosis sees them, and lists of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from packaging.requirements import InvalidRequirement
from packaging.requirements import Requirement as Parsed
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from reconciler.builder.resolve.uv_errors import name_of
from reconciler.core.definitions import Recipe, Requirement

NAMED = 12  # packages that a message lists


@dataclass(frozen=True, slots=True)
class Asked:
    """One requirement of the definition as the resolver gets it."""

    requirement: Requirement
    line: str
    parsed: Parsed | None  # None for one that cannot be read

    @property
    def name(self) -> str:
        """Its normalised name."""
        return canonicalize_name(name_of(self.requirement))

    @property
    def loose(self) -> str:
        """The requirement without its versions."""
        if self.parsed is None or self.requirement.package is not None:
            return self.line
        extras = f"[{','.join(sorted(self.parsed.extras))}]" if self.parsed.extras else ""
        marker = f" ; {self.parsed.marker}" if self.parsed.marker else ""
        return f"{self.parsed.name}{extras}{marker}"


@dataclass(frozen=True, slots=True)
class Pinned:
    """A line of a constraints file that excludes the base's version of a package."""

    path: str
    line: str
    name: str


def asked_of(recipe: Recipe, lines: Sequence[str]) -> tuple[Asked, ...]:
    """Return the requirements of a recipe with the lines that the resolver gets."""
    pairs = zip(recipe.requirements, lines, strict=True)
    return tuple(Asked(requirement, line, parsed_of(line)) for requirement, line in pairs)


def parsed_of(text: str) -> Parsed | None:
    """Return a requirement that can be read; None for any other text."""
    try:
        return Parsed(text)
    except (InvalidRequirement, RecursionError):
        return None


def allows(parsed: Parsed, version: str | None) -> bool:
    """Return True if a requirement takes a version; any takes one that cannot be read."""
    try:
        return version is None or parsed.specifier.contains(version, prereleases=True)
    except InvalidVersion:
        return True


def is_same_version(one: str, other: str) -> bool:
    """Return True if two versions are the same, however they are written."""
    try:
        return Version(one) == Version(other)
    except InvalidVersion:
        return one == other


def listed(rows: Sequence[str]) -> str:
    """Return rows as one text, the first of many."""
    more = f" and {len(rows) - NAMED} more" if len(rows) > NAMED else ""
    return ", ".join(rows[:NAMED]) + more


def joined(sentences: Sequence[str]) -> str:
    """Return sentences as one text."""
    return ". ".join(sentence[:1].upper() + sentence[1:] for sentence in sentences)
