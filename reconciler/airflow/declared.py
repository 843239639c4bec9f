"""Declarations of a build: the distributions in it that provide providers and plugins.

The gate's callers read them from the build's packages on the share; the gate compares them with
what the API server reports as loaded.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from packaging.utils import canonicalize_name

from reconciler.core.errors import Retryable

PROVIDERS, PLUGINS = "apache_airflow_provider", "airflow.plugins"  # groups of entry points


@dataclass(frozen=True, slots=True)
class Declared:
    """Normalised names of distributions."""

    providers: frozenset[str] = frozenset()
    plugins: frozenset[str] = frozenset()


class Declarations:
    """Reader of declarations; `build` returns a build's document, with paths below `root`."""

    def __init__(self, root: Path, build: Callable[[str], Mapping[str, object] | None]) -> None:
        self._root = root
        self._build = build

    def __call__(self, build_id: str) -> Declared:
        """Return a build's declarations, if it exists. Raises Retryable("ShareUnreachable")."""
        paths = (self._build(build_id) or {}).get("paths")
        folders = [
            str(self._root / str(entry["path"]))
            for entry in (paths if isinstance(paths, list) else [])
            if isinstance(entry, dict) and "path" in entry
        ]
        found: dict[str, set[str]] = {PROVIDERS: set(), PLUGINS: set()}
        try:
            for dist in importlib.metadata.distributions(path=folders):
                for point in dist.entry_points:
                    if point.group in found:
                        found[point.group].add(canonicalize_name(dist.name))
        except OSError as error:
            words = f"reading the packages of build {build_id}: {error.strerror}"
            raise Retryable("ShareUnreachable", words) from error
        return Declared(frozenset(found[PROVIDERS]), frozenset(found[PLUGINS]))
