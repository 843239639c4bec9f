"""Files of one revision that several environments name: each is read and judged once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from gitsource import projects
from gitsource.constraints import Constraint
from gitsource.objects import virtual_environment_in, wrong_content, wrong_entry
from gitsource.parsers import Parser
from gitsource.projects import Project
from gitsource.requirements_files import Line
from gitsource.tree import Entry, Tree, below
from reconciler.core.reasons import Reason
from reconciler.isolation import TooExpensive

PACKAGE_FILES = 20_000  # files of one in-repo package

T = TypeVar("T")
Mistake = tuple[Reason, str]


@dataclass(slots=True)
class SharedFiles:
    """Named files, project files and packages of one revision, by path; lives as long as a read."""

    tree: Tree
    parser: Parser
    package_bytes: int = 64 << 20
    _constraints: dict[str, list[Constraint] | TooExpensive] = field(default_factory=dict)
    _requirements: dict[str, list[Line] | TooExpensive] = field(default_factory=dict)
    _projects: dict[str, list[Project]] = field(default_factory=dict)
    _fingerprints: dict[str, str] = field(default_factory=dict)
    _packages: dict[str, Mistake | None] = field(default_factory=dict)
    _entries: dict[str, Mistake | None] = field(default_factory=dict)

    def constraints(self, path: str, text: str) -> list[Constraint]:
        """Return the lines of a constraints file. Raises TooExpensive, each time it is named."""
        return _once(self._constraints, self.parser.constraints, path, text)

    def requirements(self, path: str, text: str) -> list[Line]:
        """Return the lines of a requirements file. Raises TooExpensive, each time it is named."""
        return _once(self._requirements, self.parser.requirements, path, text)

    def projects(self, folder: str) -> list[Project]:
        """Return the packages directly in a folder, as their project files state them."""
        if folder not in self._projects:
            given = projects.sources(self.tree, folder)
            self._projects[folder] = self.parser.projects(folder, given)
        return self._projects[folder]

    def fingerprint(self, folder: str) -> str:
        """Return an id that changes with the packages in a folder and their project files."""
        if folder not in self._fingerprints:
            self._fingerprints[folder] = projects.fingerprint(self.tree, folder)
        return self._fingerprints[folder]

    def mistake_of(self, entry: Entry) -> Mistake | None:
        """Return why an entry is not the file that it stands for, or None."""
        if entry.path not in self._entries:
            wrong = wrong_entry(entry) or wrong_content(self.tree, entry)
            said = (wrong[0], f"{entry.path} is {wrong[1]}") if wrong is not None else None
            self._entries[entry.path] = said
        return self._entries[entry.path]

    def mistake_in(self, path: str) -> Mistake | None:
        """Return why the folder at `path` cannot be built as a package, or None."""
        if path not in self._packages:
            self._packages[path] = self._mistake_in(path)
        return self._packages[path]

    def _mistake_in(self, path: str) -> Mistake | None:
        entries = self.tree.entries()
        if not any(f"{path}/{file}" in entries for file in projects.FILES):
            return Reason.MISSING_FILE, f"{path} has no pyproject.toml; check the path"
        files = below(self.tree, path)
        venv = virtual_environment_in({file.path for file in files})
        if venv is not None:
            message = (
                f"{venv} is a virtual environment; list it in .gitignore, and do not commit it"
            )
            return Reason.NOT_ALLOWED, message
        if len(files) > PACKAGE_FILES:
            message = f"{path} has {len(files)} files; a package may have {PACKAGE_FILES}"
            return Reason.TOO_LARGE, message
        if sum(file.size for file in files) > self.package_bytes:
            most = f"{self.package_bytes >> 20} MiB"
            return Reason.TOO_LARGE, f"{path} is larger than {most}; store data somewhere else"
        return next(filter(None, map(self.mistake_of, files)), None)


def _once(
    kept: dict[str, list[T] | TooExpensive],
    parse: Callable[[str, str], list[T]],
    path: str,
    text: str,
) -> list[T]:
    """Return the lines of a file, which is parsed once. Raises TooExpensive, each time."""
    if path not in kept:
        try:
            kept[path] = parse(path, text)
        except TooExpensive as error:
            kept[path] = error
    lines = kept[path]
    if isinstance(lines, TooExpensive):
        raise lines
    return lines
