"""Packages of both sides of a change, resolved now by the builder's own resolver.

Nothing is installed and nothing published. In-repo packages are built, because their metadata is
needed; that runs their build backends, in the sandbox if there is one.
"""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from gitsource.tree import Checkout
from reconciler.builder.build_job import BuildJob
from reconciler.builder.builder import Builder
from reconciler.builder.executor.bubblewrap import Sandbox
from reconciler.builder.uv import uv_path
from reconciler.cli.preview.comparison import Action, InstanceChange
from reconciler.cli.preview.revisions import Side
from reconciler.cli.preview.runtimes import Runtimes
from reconciler.core.definitions import Environment, Recipe
from reconciler.core.errors import Retryable, Stalled
from reconciler.core.model import Problem
from reconciler.core.packages import Packages, difference
from reconciler.core.runtime import Runtime
from reconciler.core.world import owners_of
from reconciler.settings import Settings
from reconciler.share.share import Share

RESOLVED = (Action.BUILD, Action.FIRST, Action.BARE)


@dataclass(frozen=True, slots=True)
class Resolved:
    """Packages of one side, or the problem, or why they are unknown."""

    packages: Packages | None = None
    problem: Problem | None = None
    unknown: str = ""


NOTHING = Resolved({})


class Resolver:
    """Resolver that resolves each (recipe, runtime) once; used by several threads."""

    def __init__(self, settings: Settings, sides: tuple[Side, Side], scratch: Path) -> None:
        trees: dict[str, tuple[Checkout, str]] = {}
        for side in sides:
            trees |= side.packages()
        self._scratch = scratch
        self._builder = checkout_builder(settings, trees, Share(scratch / "share"))
        self._known: dict[tuple[str, str, str], Resolved] = {}
        self._lock = threading.Lock()

    def resolve(self, environment: Environment, runtime: Runtime) -> Resolved:
        """Return the packages of an environment on a runtime."""
        key = (environment.team, environment.recipe.digest, runtime.key)
        with self._lock:
            resolved = self._known.get(key)
        if resolved is None:
            resolved = self._resolve(environment.team, environment.recipe, runtime)
            with self._lock:
                self._known[key] = resolved
        return resolved

    def _resolve(self, team: str, recipe: Recipe, runtime: Runtime) -> Resolved:
        python = interpreter(runtime.python_version)
        if python is None:
            short = ".".join(runtime.python_version.split(".")[:2])
            return Resolved(
                unknown=f"there is no Python {short} here; install one, such as with "
                f"`uv python install {short}`"
            )
        key = f"plan-{recipe.digest[:8]}-{threading.get_ident()}"
        job = BuildJob(key, "", team, "", self._scratch / f"{key}.log", threading.Event())
        try:
            lock = self._builder.resolve(job, recipe, replace(runtime, python=python))
        except Stalled as error:
            return Resolved(problem=Problem(error.reason, error.message, error.place))
        except Retryable as error:
            return Resolved(unknown=f"{error.message} [{error.reason}]")
        return Resolved(dict(lock.packages))


def with_packages(
    changes: tuple[InstanceChange, ...],
    sides: tuple[Side, Side],
    runtimes: Runtimes,
    resolver: Resolver,
    tell: Callable[..., None] = lambda *_, **__: None,
) -> tuple[InstanceChange, ...]:
    """Return the changes with their packages, resolved in parallel; `tell` is called for each."""

    def one(change: InstanceChange) -> InstanceChange:
        updated = resolved(change)
        tell(done=1, words=f"worked out {change.instance}")
        return updated

    def resolved(change: InstanceChange) -> InstanceChange:
        if change.action not in RESOLVED:
            return change
        runtime = runtimes.of(change.instance)
        if runtime is None:
            return replace(
                change,
                unknown="what is installed in its base is not known; give the daemon's "
                "address with --runtimes, or what `groundcrew runtimes` prints where it runs",
            )
        return _one(replace(change, runtime=runtime.key), sides, runtime, resolver)

    with ThreadPoolExecutor(max(2, os.cpu_count() or 1)) as pool:
        return tuple(pool.map(one, changes))


def _one(
    change: InstanceChange, sides: tuple[Side, Side], runtime: Runtime, resolver: Resolver
) -> InstanceChange:
    before, after = (owner(side, change.instance) for side in sides)
    change = replace(change, in_base=in_base(after, runtime))
    new = resolver.resolve(after, runtime) if after else NOTHING
    if new.packages is None:
        return replace(change, problem=new.problem, unknown=new.unknown)
    old = resolver.resolve(before, runtime) if before else NOTHING
    if old.packages is None:
        why = old.problem.message if old.problem else old.unknown
        return replace(
            change,
            packages=difference({}, new.packages),
            unknown=f"what it has now cannot be resolved any more, all is shown as added: {why}",
        )
    return replace(change, packages=difference(old.packages, new.packages))


def in_base(environment: Environment | None, runtime: Runtime) -> dict[str, str]:
    """Return the versions of the packages that are required and that the base has."""
    requirements = environment.recipe.requirements if environment is not None else ()
    versions = {canonicalize_name(one.name): one.version for one in runtime.base}
    names = sorted({canonicalize_name(Requirement(one.text).name) for one in requirements})
    return {name: versions[name] for name in names if name in versions}


def owner(side: Side, instance: str) -> Environment | None:
    """Return the environment whose rollout names the instance, or None."""
    environments = side.definitions.environments
    return environments.get(owners_of(environments.values()).get(instance, ""))


@cache
def interpreter(version: str) -> str | None:
    """Return a local Python with the same major and minor version, or None."""
    short = ".".join(version.split(".")[:2])
    try:
        done = subprocess.run(
            [uv_path(), "python", "find", "--no-python-downloads", "--no-project", short],
            capture_output=True,
            timeout=60,
            check=False,
            cwd="/",
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.decode().strip() or None if done.returncode == 0 else None


def checkout_builder(
    settings: Settings, trees: Mapping[str, tuple[Checkout, str]], share: Share
) -> Builder:
    """Return a builder whose in-repo packages come from checkouts, by their trees."""

    def export(tree: str, dest: Path) -> None:
        files, path = trees[tree]
        files.copy(path, dest)

    cached = cache_of(settings)
    return Builder(
        settings.builder,
        share,
        export,
        cache_dir=cached,
        secrets_dir=settings.secrets_dir,
        executor=Sandbox(settings.builder, cached, settings.hidden),
    )


def cache_of(settings: Settings) -> Path:
    """Return the cache directory that is set, or the user's."""
    return settings.builder.cache_dir or cache_home()


def cache_home() -> Path:
    """Return the user's cache directory, which a CI may keep from run to run."""
    home = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(home) / "groundcrew"


def private_names(side: Side) -> Mapping[str, frozenset[str]]:
    """Return by environment: globs of names from its own indexes, and its in-repo packages."""
    return {
        name: frozenset(
            {glob for index in e.recipe.indexes for glob in index.packages}
            | {p.name for p in e.recipe.packages}
        )
        for name, e in side.definitions.environments.items()
    }
