"""A build beside `pip install --target`, and the same build for another team.

Both sides have their downloads cached. A warm store holds the third-party wheels of an earlier
build, unpacked and compiled; the first build of all has to do that, as pip does each time.

pandas, pyarrow and boto3 come from the package index, an in-house package from the repo; the base
has nothing of them.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from benchmarks.rows import Row
from reconciler.builder.build import Builder
from reconciler.builder.job import Job
from reconciler.builder.locking import uv_path
from reconciler.core.definitions import Place, Recipe, Requirement, SourcePackage
from reconciler.core.model import Runtime
from reconciler.settings import BuilderSettings
from reconciler.share.share import Share
from tests.fakes.base import make_base, write_package

WANTED = ("pandas", "pyarrow", "boto3")
HERE = Place("teams/red/one.yaml", 1)
PACKAGE = "teams/red/packages/acme"


def run() -> list[Row]:
    """The rows of this benchmark."""
    with tempfile.TemporaryDirectory() as directory:
        return _measure(Path(directory))


def _measure(root: Path) -> list[Row]:
    package = root / "acme"
    write_package(package, "acme", "1.0", {"acme/__init__.py": "__version__ = '1.0'\n"})
    python = make_base(root / "base")
    subprocess.run(
        [uv_path(), "pip", "install", "--quiet", "--python", python, "packaging"], check=True
    )  # every Airflow has it: the wheel tags come from there
    warm = _Yard(root / "warm", package, python)
    warm.build("red")  # fills the caches that both sides may use
    _pip(python, root / "pip-warm", package)
    cold = warm.again(root / "again")
    first = _seconds(lambda: cold.build("red"))
    theirs = _seconds(lambda: _pip(python, root / "pip", package))
    second = _seconds(lambda: cold.build("blue"))
    write_package(package, "acme", "1.1", {"acme/__init__.py": "__version__ = '1.1'\n"})
    changed = _seconds(lambda: cold.build("red", tree="2" * 40))
    ours = _seconds(lambda: cold.build("green", tree="3" * 40))
    pip = "pip install --target"
    what = "pandas + pyarrow + boto3 + in-house"
    return [
        Row("builds", f"{what}, store and caches warm", ours, "s", "≥ 10 times faster",
            theirs / ours >= 10, pip, theirs),
        Row("builds", f"{what}, empty store", first, "s", "at most 1.5 times pip's",
            first <= 1.5 * theirs, pip, theirs),
        Row("builds", "the same environment for a second team", second, "s", "≤ 1 s", second <= 1,
            pip, theirs),
        Row("builds", "only the in-house package changed", changed, "s", "≤ 3 s", changed <= 3,
            pip, theirs),
    ]  # fmt: skip


class _Yard:
    """A builder with a share and a cache of its own."""

    def __init__(self, root: Path, package: Path, python: str) -> None:
        self._package = package
        self._python = python
        self._root = root
        self.cache = root / "cache"
        self._share = Share(root / "share")
        root.mkdir()
        self._share.prepare()
        (root / "secrets").mkdir()
        self._builder = Builder(
            BuilderSettings(), self._share, self._export,
            cache_dir=self.cache, secrets_dir=root / "secrets",
        )  # fmt: skip

    def again(self, root: Path) -> _Yard:
        """Another share with this one's download cache."""
        fresh = _Yard(root, self._package, self._python)
        shutil.copytree(self.cache, fresh.cache, symlinks=True, dirs_exist_ok=True)
        return fresh

    def _export(self, tree: str, target: Path) -> None:
        del tree
        shutil.copytree(self._package, target, dirs_exist_ok=True)

    def build(self, team: str, tree: str = "1" * 40) -> None:
        """Resolve and construct, as the daemon does for one build."""
        runtime: Runtime = self._builder.inspect(self._python)
        recipe = Recipe(
            digest=tree[0] * 64,
            requirements=(
                *(Requirement(name, HERE) for name in WANTED),
                Requirement("acme", HERE, PACKAGE),
            ),
            packages=(SourcePackage("acme", PACKAGE, tree, HERE),),
        )
        job = Job(
            key=f"{team}{tree[0]}", environment=team, team=team, revision="r",
            log=self._root / f"{team}.log", cancelled=threading.Event(),
        )  # fmt: skip
        lock = self._builder.resolve(job, replace(recipe), runtime)
        self._builder.construct(job, recipe, runtime, lock.text)


def _pip(python: str, target: Path, package: Path) -> None:
    """What a user would do instead, with pip's own warm cache."""
    subprocess.run(
        [
            sys.executable, "-m", "pip", "--python", python, "install", "--quiet",
            "--disable-pip-version-check", "--target", str(target), *WANTED, str(package),
        ],
        check=True,
        env={**os.environ, "PIP_NO_INPUT": "1"},
        timeout=900,
    )  # fmt: skip


def _seconds(action: Callable[[], None]) -> float:
    begun = time.perf_counter()
    action()
    return time.perf_counter() - begun
