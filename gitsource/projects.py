"""Names of in-repo packages and what they need, as their project files state it.

Whoever builds a package reads its files in full; this is only to know, before any index is asked,
which names belong to the repo.
"""

from __future__ import annotations

import hashlib
import tomllib
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from gitsource.tree import Tree

FILES = ("pyproject.toml", "setup.py")
FILE_LIMIT = 256 << 10  # bytes of a pyproject.toml
FOLDER_LIMIT = 2000  # packages in one folder
FOLDER_BYTES = 8 << 20  # of all project files in one folder that are read

Source = tuple[str, bytes]
"""Path of a package, and its pyproject.toml (b"" without one)."""


@dataclass(frozen=True, slots=True)
class Project:
    """Package in the repo, with normalised names.

    `needs` are its static dependencies, without those of extras; `siblings` are those that uv would
    take from the package's own workspace or from a path. `states_name` is False for a name that is
    only the folder's, and `extras` is None if only a build of the package tells them.
    """

    path: str
    name: str
    needs: tuple[str, ...] = ()
    siblings: frozenset[str] = frozenset()
    states_name: bool = False
    extras: frozenset[str] | None = None


def packages_in(tree: Tree, folder: str) -> Iterator[str]:
    """Yield the paths of the packages directly in a folder."""
    paths, entries = tree.paths(), tree.entries()
    at, count = bisect_left(paths, f"{folder}/"), 0
    while at < len(paths) and paths[at].startswith(f"{folder}/") and count < FOLDER_LIMIT:
        name, slash, _ = paths[at].removeprefix(f"{folder}/").partition("/")
        path = f"{folder}/{name}"
        if slash and any(f"{path}/{file}" in entries for file in FILES):
            count += 1
            yield path
        at = bisect_left(paths, f"{path}0", at + 1)  # the character after "/"


def fingerprint(tree: Tree, folder: str) -> str:
    """Return an id that changes with the packages in a folder and their project files."""
    entries = tree.entries()
    digest = hashlib.sha256()
    for path in packages_in(tree, folder):
        project = entries.get(f"{path}/{FILES[0]}")
        digest.update(f"{path} {project.blob if project else ''}\0".encode(errors="replace"))
    return digest.hexdigest()


def sources(tree: Tree, folder: str) -> list[Source]:
    """Return the packages in a folder with their project files, as far as these are read."""
    rows, total = [], 0
    for path in packages_in(tree, folder):
        entry = tree.entries().get(f"{path}/{FILES[0]}")
        data = b""
        if entry is not None and entry.mode.startswith("100") and entry.size <= FILE_LIMIT:
            total += entry.size
            data = tree.read(entry) if total <= FOLDER_BYTES else b""
        rows.append((path, data))
    return rows


def read_projects(given: Sequence[Source]) -> list[Project]:
    """Parse project files; one that cannot be read says nothing but its folder's name."""
    return [_project(path, data) for path, data in given]


def unread(given: Sequence[Source]) -> list[Project]:
    """Return packages by the names of their folders alone."""
    return [_project(path, b"") for path, _ in given]


def _project(path: str, data: bytes) -> Project:
    folder = canonicalize_name(path.rpartition("/")[2])
    try:
        document = tomllib.loads(data.decode("utf-8-sig"))
        project, tool = _table(document, "project"), _table(document, "tool")
        poetry = _table(tool, "poetry")
        name = project.get("name") or poetry.get("name")
        needs = {*_names(project.get("dependencies")), *_names([*_table(poetry, "dependencies")])}
        local = _table(_table(tool, "uv"), "sources").items()
        siblings = {canonicalize_name(key) for key, source in local if _is_local(source)}
        extras = _extras(project, poetry) if isinstance(name, str) else None
    except (ValueError, RecursionError):  # whoever builds it complains
        return Project(path, folder)
    return Project(
        path,
        canonicalize_name(name) if isinstance(name, str) else folder,
        tuple(sorted(needs)),
        frozenset(needs & siblings),
        isinstance(name, str),
        extras,
    )


def _extras(project: Mapping[str, object], poetry: Mapping[str, object]) -> frozenset[str] | None:
    """Return the extras of a package whose file states them all, or None."""
    dynamic = project.get("dynamic", [])
    if not isinstance(dynamic, list) or "optional-dependencies" in dynamic:
        return None
    names = [*_table(project, "optional-dependencies"), *_table(poetry, "extras")]
    return frozenset(map(canonicalize_name, names))


def _table(document: Mapping[str, object], key: str) -> Mapping[str, object]:
    value = document.get(key)
    return value if isinstance(value, dict) else {}


def _names(lines: object) -> Iterator[str]:
    for line in lines if isinstance(lines, list) else ():
        try:
            yield canonicalize_name(Requirement(line).name)
        except (InvalidRequirement, TypeError):
            continue


def _is_local(source: object) -> bool:
    """Return True for a source of uv that is a folder: a workspace's member or a path."""
    rows: Iterable[object] = source if isinstance(source, list) else [source]
    return any(
        isinstance(row, dict) and (row.get("workspace") is True or "path" in row) for row in rows
    )
