"""A build compared with `pip install --target` and uv, and the same build for another team.

Both sides have their downloads cached. A warm store holds the third-party wheels of an earlier
build, unpacked and compiled; the very first build has to do that work, as pip does each time.

pandas, pyarrow and boto3 come from the package index, an in-house package from the repo; the base
contains none of them.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from benchmarks.rows import Row
from reconciler.builder.build_job import BuildJob
from reconciler.builder.builder import Builder
from reconciler.builder.executor.bubblewrap import Sandbox
from reconciler.builder.uv import uv_path
from reconciler.core.definitions import (
    Api,
    Instance,
    LocalTarget,
    Place,
    Recipe,
    Requirement,
    SourcePackage,
)
from reconciler.core.runtime import Runtime
from reconciler.settings import BuilderSettings
from reconciler.share.share import Share
from tests.fakes.base import make_base, write_package
from tests.harness.builder import Bench
from tests.harness.wheels import make_wheel

WANTED = ("pandas", "pyarrow", "boto3")
TURNS = 3
HERE = Place("teams/red/one.yaml", 1)
PACKAGE = "teams/red/packages/acme"


def run() -> list[Row]:
    """Return the rows of this benchmark."""
    with tempfile.TemporaryDirectory() as directory:
        return _measure(Path(directory))


def _measure(root: Path) -> list[Row]:
    package = root / "acme"
    write_package(package, "acme", "1.0", {"acme/__init__.py": "__version__ = '1.0'\n"})
    python = make_base(root / "base")
    subprocess.run(
        [uv_path(), "pip", "install", "--quiet", "--python", python, "packaging"], check=True
    )  # every Airflow has it: the wheel tags come from it
    warm = _Yard(root / "warm", package, python)
    warm.build("red")  # fills the caches that both sides may use
    _pip(python, root / "pip-warm", package)
    _uv(python, root / "uv-warm", package)
    cold = warm.again(root / "again")
    first = _seconds(lambda: cold.build("red"))
    theirs = _seconds(lambda: _pip(python, root / "pip", package))
    plain, compiled = (
        statistics.median(
            _seconds(partial(_uv, python, root / f"uv-{number}-{turn}", package, *more))
            for turn in range(TURNS)
        )
        for number, more in enumerate(((), ("--compile-bytecode",)))
    )
    second = _seconds(lambda: cold.build("blue"))
    write_package(package, "acme", "1.1", {"acme/__init__.py": "__version__ = '1.1'\n"})
    changed = _seconds(lambda: cold.build("red", tree="2" * 40))
    again, verified = [], []
    for turn in range(TURNS):  # a new in-house version each time: no existing build is reused
        write_package(
            package, "acme", f"2.{turn}", {"acme/__init__.py": f"__version__ = '2.{turn}'\n"}
        )
        begun = time.perf_counter()
        build_id = cold.build("green", tree=f"{turn + 3}" * 40)
        again.append(time.perf_counter() - begun)
        cold.verify(build_id)
        verified.append(time.perf_counter() - begun)
    ours, proven = statistics.median(again), statistics.median(verified[1:])
    pip, uv = "pip install --target", "uv pip install --target"
    what = "pandas + pyarrow + boto3 + in-house"
    return [
        Row(
            "builds",
            f"{what}, store and caches warm",
            ours,
            "s",
            "≥ 10 times faster",
            theirs / 10,
            pip,
            theirs,
        ),
        Row(
            "builds",
            f"{what}, store and caches warm",
            ours,
            "s",
            "≤ 1.3 times uv's",
            1.3 * plain,
            uv,
            plain,
        ),
        Row(
            "builds",
            f"{what}, store and caches warm",
            ours,
            "s",
            "≤ 1.3 times uv's",
            1.3 * compiled,
            f"{uv} --compile-bytecode",
            compiled,
        ),
        Row(
            "builds",
            "the same and verified: all of it is imported",
            proven,
            "s",
            peer=f"{uv} --compile-bytecode",
            peer_value=compiled,
        ),
        Row(
            "builds",
            f"{what}, empty store",
            first,
            "s",
            "≤ 1.5 times pip's",
            1.5 * theirs,
            pip,
            theirs,
        ),
        Row(
            "builds",
            "the same environment for a second team",
            second,
            "s",
            "≤ 1 s",
            1.0,
            pip,
            theirs,
        ),
        Row("builds", "only the in-house package changed", changed, "s", "≤ 3 s", 3.0, pip, theirs),
        *_counts(root / "counts"),
    ]


def short() -> list[Row]:
    """Return the counts for small wheels: what is fetched and what is created."""
    with tempfile.TemporaryDirectory() as directory:
        return _counts(Path(directory))


def _counts(root: Path) -> list[Row]:
    """Return how many wheels each kind of build fetches and how many entries it creates."""
    with Bench(root) as bench:
        for number in range(6):
            make_wheel(bench.public.folder, f"part{number}")
        wanted = [f"part{number}" for number in range(6)]
        counts = {}
        for what, version, team, most in (
            ("first build", "1", "red", 7),
            ("a second team", "1", "blue", 0),
            ("only the in-house package changed", "2", "red", 1),
        ):
            own = bench.package("acme", {"acme/__init__.py": f"X = {version}\n"})
            recipe, job = bench.recipe(*wanted, own), bench.job(team)
            lock = bench.lock(recipe, job)
            bench.public.asked.clear()
            bench.builder.construct(job, recipe, bench.runtime, lock)
            placed = job.log.read_text().count("placed ")
            counts[f"{what}: entries made"] = placed, most
            counts[f"{what}: wheels fetched"] = len(bench.public.downloads()), min(most, 6) // 6 * 6
    return [
        Row("builds", f"seven packages, {what}", count, "", f"≤ {most}", most, count=True)
        for what, (count, most) in counts.items()
    ]


class _Yard:
    """Builder with its own share and cache."""

    def __init__(self, root: Path, package: Path, python: str) -> None:
        self._package = package
        self._python = python
        self._root = root
        self.cache = root / "cache"
        self._share = Share(root / "share")
        root.mkdir()
        self._share.prepare()
        (root / "secrets").mkdir()
        settings = BuilderSettings()
        self._builder = Builder(
            settings,
            self._share,
            self._export,
            cache_dir=self.cache,
            secrets_dir=root / "secrets",
            executor=Sandbox(settings, self.cache, [root / "secrets", self.cache]),
        )

    def again(self, root: Path) -> _Yard:
        """Return a builder with another share and a copy of this one's download cache."""
        fresh = _Yard(root, self._package, self._python)
        shutil.copytree(self.cache, fresh.cache, symlinks=True, dirs_exist_ok=True)
        return fresh

    def _export(self, tree: str, target: Path) -> None:
        del tree
        shutil.copytree(self._package, target, dirs_exist_ok=True)

    def build(self, team: str, tree: str = "1" * 40) -> str:
        """Resolve and construct a build as the daemon does; return its id."""
        runtime: Runtime = self._builder.inspect(self._python)
        recipe = Recipe(
            digest=tree[0] * 64,
            requirements=(
                *(Requirement(name, HERE) for name in WANTED),
                Requirement("acme", HERE, PACKAGE),
            ),
            packages=(SourcePackage("acme", PACKAGE, tree, HERE),),
        )
        job = BuildJob(
            key=f"{team}{tree[0]}",
            environment=team,
            team=team,
            revision="r",
            log=self._root / f"{team}.log",
            cancelled=threading.Event(),
        )
        lock = self._builder.resolve(job, replace(recipe), runtime)
        built = self._builder.construct(job, recipe, runtime, lock.text)
        self._last = job, recipe, runtime
        return built.build_id

    def verify(self, build_id: str) -> None:
        """Verify the most recent build, as the daemon does."""
        home = self._root / "airflow"
        (home / "dags").mkdir(parents=True, exist_ok=True)
        local = LocalTarget(self._python, str(home), ())
        instance = Instance("dev", "red", Place("i.yaml"), Api("http://127.0.0.1:1"), local)
        self._builder.verify(*self._last, instance, build_id)


def _pip(python: str, target: Path, package: Path) -> None:
    """Install what a user would install instead with pip, with its own warm cache."""
    subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "--python",
            python,
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "--target",
            str(target),
            *WANTED,
            str(package),
        ],
        check=True,
        env={**os.environ, "PIP_NO_INPUT": "1"},
        timeout=900,
    )


def _uv(python: str, target: Path, package: Path, *more: str) -> None:
    """Install the same with uv and its own warm cache: the fastest alternative for a user."""
    subprocess.run(
        [
            uv_path(),
            "pip",
            "install",
            "--quiet",
            "--python",
            python,
            "--target",
            str(target),
            *more,
            *WANTED,
            str(package),
        ],
        check=True,
        timeout=900,
    )


def _seconds(action: Callable[[], object]) -> float:
    begun = time.perf_counter()
    action()
    return time.perf_counter() - begun
