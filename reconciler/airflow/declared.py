"""Declarations of a build: what its distributions say of themselves in their metadata.

The gate compares the providers and plugins with those that the API server reports as loaded;
`content` is for the choice of the components that are restarted.
"""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from packaging.utils import canonicalize_name

from reconciler.core.errors import Retryable
from reconciler.core.reasons import Reason
from reconciler.core.restarts import Content
from reconciler.isolation import TooExpensive, read_for
from reconciler.share.schemas import BuildDocument

PROVIDERS, PLUGINS = "apache_airflow_provider", "airflow.plugins"  # groups of entry points
SCRIPTS = ("console_scripts", "gui_scripts")  # the groups that no running process looks through
AT_START = {"sitecustomize", "usercustomize"}  # modules that Python itself imports
REQUIRED = re.compile(r"[A-Za-z0-9][\w.-]{0,199}")


@dataclass(frozen=True, slots=True)
class Declared:
    """Normalised names of distributions.

    `extending` are those with entry points of any kind but scripts, through which other packages
    may load them. `requires` maps a distribution to those that its metadata requires, `modules` to
    its outermost modules and packages. `folders` maps a folder to the distributions in it.
    """

    providers: frozenset[str] = frozenset()
    plugins: frozenset[str] = frozenset()
    extending: frozenset[str] = frozenset()
    requires: dict[str, frozenset[str]] = field(default_factory=dict)
    modules: dict[str, frozenset[str]] = field(default_factory=dict)
    folders: dict[str, frozenset[str]] = field(default_factory=dict)


class Declarations:
    """Reader of declarations; `build` returns a build's document, with paths below `root`."""

    def __init__(self, root: Path, build: Callable[[str], BuildDocument | None]) -> None:
        self._root = root
        self._build = build

    def __call__(self, build_id: str) -> Declared:
        """Return a build's declarations, if it exists. Raises Retryable("ShareUnreachable")."""
        document = self._build(build_id)
        return self._declared(document) if document is not None else Declared()

    def content(self, build_id: str) -> Content | None:
        """Return what decides who loads a build, if it exists. Raises as a call does."""
        document = self._build(build_id)
        if document is None:
            return None
        declared = self._declared(document)
        rows = document.distributions
        wheels: dict[str, str] = {canonicalize_name(row.name): row.sha256 for row in rows}
        everywhere = {name for name, modules in declared.modules.items() if modules & AT_START}
        for row in document.paths:
            if row.pth:  # its .pth files are read at the start of each process
                everywhere |= declared.folders.get(str(self._root / row.path), frozenset())
        silent = wheels.keys() - declared.requires.keys()  # without valid metadata
        return Content(
            wheels,
            declared.requires,
            declared.modules,
            declared.extending | everywhere | silent,
            document.env,
            document.own_entry or "",
        )

    def _declared(self, document: BuildDocument) -> Declared:
        folders = [str(self._root / row.path) for row in document.paths]
        try:
            return read_for(document.team, read_declared, folders)
        except TooExpensive as error:
            raise _unreadable(error.message) from error


def read_declared(folders: list[str]) -> Declared:
    """Return what distributions in these folders declare; call it in a worker process.

    Their metadata is a team's: a distribution whose metadata is invalid declares nothing.
    """
    groups: dict[str, set[str]] = {PROVIDERS: set(), PLUGINS: set()}
    extending: set[str] = set()
    requires: dict[str, frozenset[str]] = {}
    modules: dict[str, frozenset[str]] = {}
    inside: dict[str, frozenset[str]] = {}
    try:
        for folder in folders:
            names = set()
            for dist in importlib.metadata.distributions(path=[folder]):
                with suppress(ValueError, TypeError, KeyError, AttributeError):
                    name = canonicalize_name(dist.name)
                    names.add(name)
                    requires[name] = _required(dist)
                    for point in dist.entry_points:
                        if point.group in groups:
                            groups[point.group].add(name)
                        if point.group not in SCRIPTS:
                            extending.add(name)
            tops = frozenset(top.name.partition(".")[0] for top in Path(folder).iterdir())
            modules.update(dict.fromkeys(names, tops))
            inside[folder] = frozenset(names)
    except OSError as error:
        raise _unreadable(str(error.strerror)) from error
    providers, plugins = (frozenset(groups[group]) for group in (PROVIDERS, PLUGINS))
    return Declared(providers, plugins, frozenset(extending), requires, modules, inside)


def _required(dist: importlib.metadata.Distribution) -> frozenset[str]:
    """Return the names of required distributions, whatever their markers and extras."""
    matches = (REQUIRED.match(line.strip()) for line in dist.requires or ())
    return frozenset(canonicalize_name(match[0]) for match in matches if match)


def _unreadable(why: str) -> Retryable:
    return Retryable(Reason.SHARE_UNREACHABLE, f"the packages of a build cannot be read: {why}")
