"""Declarations of a build: the distributions in it that provide providers and plugins.

The gate's callers read them from the build's packages on the share; the gate compares them with
what the API server reports as loaded.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from packaging.utils import canonicalize_name

from reconciler.core.errors import Retryable
from reconciler.core.reasons import Reason
from reconciler.isolation import TooExpensive, read_for
from reconciler.share.schemas import BuildDocument

PROVIDERS, PLUGINS = "apache_airflow_provider", "airflow.plugins"  # groups of entry points


@dataclass(frozen=True, slots=True)
class Declared:
    """Normalised names of distributions."""

    providers: frozenset[str] = frozenset()
    plugins: frozenset[str] = frozenset()


class Declarations:
    """Reader of declarations; `build` returns a build's document, with paths below `root`."""

    def __init__(self, root: Path, build: Callable[[str], BuildDocument | None]) -> None:
        self._root = root
        self._build = build

    def __call__(self, build_id: str) -> Declared:
        """Return a build's declarations, if it exists. Raises Retryable("ShareUnreachable")."""
        document = self._build(build_id)
        if document is None:
            return Declared()
        folders = [str(self._root / row.path) for row in document.paths]
        try:
            return read_for(document.team, read_declared, folders)
        except TooExpensive as error:
            raise _unreadable(error.message) from error


def read_declared(folders: list[str]) -> Declared:
    """Return what distributions in these folders declare; call it in a worker process.

    Their metadata is a team's: a distribution whose metadata is invalid declares nothing.
    """
    found: dict[str, set[str]] = {PROVIDERS: set(), PLUGINS: set()}
    try:
        for dist in importlib.metadata.distributions(path=folders):
            with suppress(ValueError, TypeError, KeyError, AttributeError):
                for point in dist.entry_points:
                    if point.group in found:
                        found[point.group].add(canonicalize_name(dist.name))
    except OSError as error:
        raise _unreadable(str(error.strerror)) from error
    return Declared(frozenset(found[PROVIDERS]), frozenset(found[PLUGINS]))


def _unreadable(why: str) -> Retryable:
    return Retryable(Reason.SHARE_UNREACHABLE, f"the packages of a build cannot be read: {why}")
