"""Packages of the repo: those that an environment needs but does not list, and wrong names.

An index would be asked for what is not listed, and anybody could own such a name on a public one.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from packaging.requirements import Requirement as Parsed
from packaging.utils import canonicalize_name

from gitsource.projects import Project
from gitsource.requirement_lines import name_of
from reconciler.core.definitions import Globs, Place, Requirement, SourcePackage


@dataclass(frozen=True)
class Siblings:
    """Packages that an environment lists, and those beside them.

    `projects` are all of them by path, `globs` the names that its indexes are described for, and
    `folder` is that of its file.
    """

    projects: Mapping[str, Project]
    listed: Mapping[str, SourcePackage]  # by path
    globs: Globs
    folder: str

    @cached_property
    def internal(self) -> dict[str, str]:
        """Names that are not listed and that no described index has, with their paths."""
        return {
            one.name: one.path
            for one in self.projects.values()
            if one.path not in self.listed
            and one.name not in self._names
            and not self.globs.match(one.name)
        }

    @cached_property
    def _names(self) -> frozenset[str]:
        return frozenset(package.name for package in self.listed.values())

    def mistakes(self, requirements: Iterable[Requirement]) -> Iterator[tuple[Place, str]]:
        """Yield each place where such a package is needed, and what to write there."""
        for requirement in requirements if self.internal else ():
            name = name_of(requirement.text)
            if requirement.package is None and name in self.internal:
                yield requirement.place, self._advice(name)
        told: set[str] = set()
        for package in self.listed.values():
            for needer, name in self._missing(package.path):
                if name not in told:
                    told.add(name)
                    yield package.place, f"{needer} needs {name}; {self._advice(name)}"

    def misnamed(self, requirements: Iterable[Requirement]) -> Iterator[tuple[Place, str]]:
        """Yield each requirement that states another name or extra than the package's file."""
        for requirement in requirements:
            project = self.projects.get(requirement.package or "")
            if project is None or not project.states_name:
                continue
            parsed = Parsed(requirement.text)
            name, extras = parsed.name, set(map(canonicalize_name, parsed.extras))
            if canonicalize_name(name) != project.name:
                text = project.name + (f"[{','.join(sorted(extras))}]" if extras else "")
                yield (
                    requirement.place,
                    f"the package at {project.path} is called {project.name} in its "
                    f"pyproject.toml, not {name}; write `{text} @ {self._way(project.path)}`",
                )
            elif project.extras is not None and not project.extras.issuperset(extras):
                package = self.listed[project.path]
                yield requirement.place, package.missing(extras - project.extras, project.extras)

    def _missing(self, path: str) -> Iterator[tuple[str, str]]:
        """Yield each name that a package needs and does not get, after the path that states it."""
        waiting, seen = [path], {path}
        while waiting:
            project = self.projects.get(needer := waiting.pop())
            for name in project.needs if project is not None else ():
                if name in self.internal:
                    yield needer, name
                    if self.internal[name] not in seen:
                        seen.add(self.internal[name])
                        waiting.append(self.internal[name])
                elif project is not None and name in project.siblings and self._is_lost(name):
                    yield needer, name

    def _is_lost(self, name: str) -> bool:
        return name not in self._names and not self.globs.match(name)

    def _advice(self, name: str) -> str:
        path = self.internal.get(name)
        if path is None:  # the package's own workspace has it, but not this repo
            return f"commit {name} to this repo, and add it to the requirements"
        return (
            f"{name} is in this repo, and no index is asked for it: add "
            f"`{name} @ {self._way(path)}` to the requirements, or describe the index that has it "
            f"in `indexes`"
        )

    def _way(self, path: str) -> str:
        """Return the path of a package as a requirement of this folder states it."""
        way = posixpath.relpath(path, self.folder)
        return way if way.startswith(".") else f"./{way}"
