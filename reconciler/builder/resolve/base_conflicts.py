"""Conflicts with the base of a resolution: its versions, who needs them, and what excludes them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from packaging.requirements import Requirement as Parsed
from packaging.utils import canonicalize_name

from reconciler.builder.resolve.markers import environment_of
from reconciler.builder.resolve.requested import (
    Asked,
    Pinned,
    allows,
    is_same_version,
    joined,
    listed,
    parsed_of,
)
from reconciler.builder.resolve.resolver import Resolution
from reconciler.core.definitions import Place
from reconciler.core.errors import Stalled
from reconciler.core.reasons import Reason
from reconciler.core.runtime import Runtime

NEEDERS = 3  # packages of the base that a message names as needing another one
PINNED = re.compile(r"(?<![A-Za-z0-9._-])([A-Za-z0-9][A-Za-z0-9._-]{0,200})==([^\s,;]{1,100})")


@dataclass(frozen=True, slots=True)
class Base:
    """Inventory of a runtime, asked for conflicts."""

    runtime: Runtime

    def __str__(self) -> str:
        return f"the base (Airflow {self.runtime.airflow_version})"

    @property
    def versions(self) -> Mapping[str, str]:
        """The version of each package."""
        return {dist.name: dist.version for dist in self.runtime.base}

    def applies(self, parsed: Parsed) -> bool:
        """Return True if a requirement counts on this runtime."""
        if parsed.marker is None:
            return True
        return parsed.marker.evaluate({**environment_of(self.runtime), "extra": ""})

    def excluded_by(self, asked: Sequence[Asked]) -> list[Asked]:
        """Return the requirements whose versions exclude the base's."""
        versions = self.versions
        return [
            one
            for one in asked
            if one.requirement.package is None
            and one.parsed is not None
            and not allows(one.parsed, versions.get(one.name))
        ]

    def pins_against(self, constraints: Sequence[tuple[str, str]]) -> list[Pinned]:
        """Return the constraints, given as (path, line), that exclude the base's versions."""
        versions = self.versions
        pins = []
        for path, line in constraints:
            parsed = parsed_of(line)
            if parsed is None or not self.applies(parsed):
                continue
            name = canonicalize_name(parsed.name)
            if not allows(parsed, versions.get(name)):
                pins.append(Pinned(path, line, name))
        return pins

    def changed_in(self, free: Resolution) -> list[str]:
        """Return the packages that have another version in a solution, the causes first."""
        versions = self.versions
        changed = [
            name
            for name, version in free.versions.items()
            if name in versions and version and not is_same_version(version, versions[name])
        ]
        causes = [n for n in changed if any(b not in versions for b in free.needed_by.get(n, ()))]
        return causes or changed

    def pinned_in(self, output: str) -> list[str]:
        """Return the packages that the resolver names with the base's version, most often first.

        It decides nothing: a message names them where there was no time to find out more.
        """
        versions, counts = self.versions, dict[str, int]()
        for match in PINNED.finditer(output):
            name = canonicalize_name(match[1])
            if name in versions and is_same_version(match[2].rstrip(".)"), versions[name]):
                counts[name] = counts.get(name, 0) + 1
        return sorted(counts, key=lambda name: -counts[name])

    def has(self, name: str) -> str:
        """Say which version of a package the base has, and what there needs it."""
        return f"{self} has {name} {self.versions.get(name, '')}{self._needers(name)}"

    def _needers(self, name: str) -> str:
        """Say which packages of the base need one of it, those with limits first."""
        specifiers = {
            dist.name: str(parsed.specifier)
            for dist in self.runtime.base
            for text in dist.requires
            if (parsed := parsed_of(text)) is not None
            and canonicalize_name(parsed.name) == name
            and self.applies(parsed)
        }
        rows = [
            f"{needer} needs {name}{specifier}"
            for needer, specifier in sorted(specifiers.items(), key=lambda row: not row[1])
        ]
        more = f" and {len(rows) - NEEDERS} more" if len(rows) > NEEDERS else ""
        return f" ({', '.join(rows[:NEEDERS])}{more})" if rows else ""

    def conflict(
        self, direct: Sequence[Asked], pins: Sequence[Pinned], remedy: str, place: Place | None
    ) -> Stalled:
        """List requirements and constraints that exclude the base's versions, all at once."""
        rows = [f"`{one.requirement.text}`, but {self.has(one.name)}" for one in direct]
        sentences = ["; ".join(rows)] if rows else []
        versions = self.versions
        for path in dict.fromkeys(pin.path for pin in pins):
            lines = [
                f"`{pin.line}` ({pin.name} {versions.get(pin.name, '')})"
                for pin in pins
                if pin.path == path
            ]
            sentences.append(f"the file {path} excludes versions that {self} has: {listed(lines)}")
        sentences += [remedy] if remedy else []
        where = direct[0].requirement.place if direct else place
        return Stalled(Reason.RESOLUTION_CONFLICT, joined(sentences), where)

    def needing(self, name: str, free: Resolution) -> str:
        """Say what the base has, and what needs it in another version."""
        versions = self.versions
        others = [n for n in free.needed_by.get(name, ()) if n not in versions]
        needers = listed([f"{other} {free.versions.get(other, '')}".strip() for other in others])
        return (
            f"{self.has(name)}, but {needers or 'a requirement'} needs another version, such as "
            f"{free.versions[name]}"
        )
