"""Complete builder: a fake base, a share, a public and a private index, and a team's recipe."""

from __future__ import annotations

import atexit
import functools
import hashlib
import json
import os
import shutil
import tempfile
import threading
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Self

from reconciler.builder.build_job import BuildJob
from reconciler.builder.builder import Builder, Built
from reconciler.builder.executor.bubblewrap import Sandbox
from reconciler.core.definitions import (
    Api,
    Index,
    Instance,
    LocalTarget,
    Place,
    Recipe,
    Requirement,
    SourcePackage,
)
from reconciler.core.runtime import Runtime
from reconciler.settings import BuilderSettings
from reconciler.share import marker
from reconciler.share.share import Share
from tests.fakes.base import make_base, write_package
from tests.harness.wheels import IndexServer

USER, PASSWORD = "reader", "S3cret-of-the-private-index"
FILE = "teams/red/one.yaml"


@functools.cache
def _base(others: tuple[tuple[str, str], ...]) -> str:
    """Return a base that nothing writes to, created once."""
    folder = Path(tempfile.mkdtemp(prefix="groundcrew-base-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return make_base(folder / "base", dict(others))


class Bench:
    """Everything below `root`; `public` and `private` are folders of wheels that are served."""

    def __init__(self, root: Path, base: dict[str, str] | None = None, **settings: object) -> None:
        self.root = root
        self.state = root / "state"
        self.secrets = root / "secrets"
        self.share = Share(root / "share")
        self.public = IndexServer(root / "public")
        self.private = IndexServer(root / "private", (USER, PASSWORD))
        self._settings = settings
        self._stack = ExitStack()
        self._trees: dict[str, Path] = {}
        self._jobs = 0
        self.python = _base(tuple(sorted((base or {}).items())))
        secret = self.secrets / "red" / "corp"
        secret.mkdir(parents=True)
        (secret / "username").write_text(USER)
        (secret / "password").write_text(PASSWORD)
        self.state.mkdir(parents=True, exist_ok=True)
        self.share.root.mkdir()
        self.share.prepare()

    def __enter__(self) -> Self:
        self._stack.enter_context(self.public)
        self._stack.enter_context(self.private)
        try:
            self.builder = self.make_builder()
            self.runtime: Runtime = self.inspect()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def inspect(self) -> Runtime:
        """Return the runtime of the base."""
        return self.builder.inspect(self.python)

    def make_builder(self, **more: object) -> Builder:
        """Return another builder with the same state and share, as after a restart."""
        settings = BuilderSettings.model_validate(
            {
                "sandbox": "require",
                "default_index": self.public.url,
                "allow_hosts": [self.private.host],
                **self._settings,
                **more,
            }
        )
        return Builder(
            settings,
            self.share,
            self._export,
            cache_dir=self.state / "cache",
            secrets_dir=self.secrets,
            executor=Sandbox(settings, self.state / "cache", [self.secrets, self.state]),
        )

    # -------------------------------------------------------------------------------------- inputs

    def _export(self, tree: str, directory: Path) -> None:
        shutil.copytree(self._trees[tree], directory)

    def package(
        self, dist: str, modules: dict[str, str], requires: tuple[str, ...] = (), preamble: str = ""
    ) -> SourcePackage:
        """Return an in-repo package as from a commit; `preamble` runs first in its backend."""
        described = json.dumps([dist, modules, requires, preamble])
        tree = hashlib.sha1(described.encode()).hexdigest()
        folder = self.root / "trees" / tree
        write_package(folder, dist, "1.0", modules, requires)
        backend = folder / "backend.py"
        backend.write_text(preamble + backend.read_text())
        self._trees[tree] = folder
        return SourcePackage(dist, f"teams/red/packages/{dist}", tree, Place(FILE, 30))

    def corp(self, *globs: str) -> Index:
        """Return the private index, for names that match the globs."""
        return Index("corp", self.private.url, globs or ("acme-*",), "corp")

    def recipe(self, *wanted: str | SourcePackage, **more: object) -> Recipe:
        """Return a recipe whose requirements are at lines 7, 8, … of its file."""
        requirements = tuple(
            Requirement(text, Place(FILE, number))
            if isinstance(text, str)
            else Requirement(f"{text.name} @ ./{text.path}", Place(FILE, number), text.path)
            for number, text in enumerate(wanted, 7)
        )
        packages = tuple(w for w in wanted if isinstance(w, SourcePackage))
        recipe = Recipe("", requirements, packages=packages, **more)  # type: ignore[arg-type]
        return replace(recipe, digest=hashlib.sha256(repr(recipe).encode()).hexdigest())

    def instance(self) -> Instance:
        """Return an instance that runs the base."""
        home = self.root / "airflow"
        (home / "dags").mkdir(parents=True, exist_ok=True)
        local = LocalTarget(self.python, str(home), ())
        return Instance("red-dev", "red", Place("i.yaml"), Api("http://127.0.0.1:1"), local)

    def job(self, team: str = "red") -> BuildJob:
        """Return a job with its own log."""
        self._jobs += 1
        log = self.state / "logs" / f"{self._jobs}.log"
        return BuildJob(f"job{self._jobs}", "one", team, "0" * 40, log, threading.Event())

    # ------------------------------------------------------------------------------------- actions

    def lock(self, recipe: Recipe, job: BuildJob | None = None) -> str:
        """Resolve; return the lock's text."""
        return self.builder.resolve(job or self.job(), recipe, self.runtime).text

    def names(self, recipe: Recipe) -> tuple[tuple[str, str], ...]:
        """Resolve; return what the lock installs."""
        return self.builder.resolve(self.job(), recipe, self.runtime).packages

    def build(self, recipe: Recipe, job: BuildJob | None = None) -> Built:
        """Resolve and construct."""
        job = job or self.job()
        return self.builder.construct(job, recipe, self.runtime, self.lock(recipe, job))

    # ------------------------------------------------------------------------------------- results

    def paths(self, built: Built) -> dict[str, str]:
        """Return the text of every Python file that a build puts on sys.path, by import path."""
        self.share.spread_build(built.build_id, lambda: None)  # as verification does
        document = self.share.build(built.build_id)
        assert document is not None, "a build is complete"
        texts: dict[str, str] = {}
        for row in document.paths:
            lib = self.share.root / row.path
            texts |= {f.relative_to(lib).as_posix(): f.read_text() for f in lib.rglob("*.py")}
        return texts

    def on_share(self) -> list[str]:
        """Return every file on the share except its marker and those of the layout."""
        paths = [p.relative_to(self.share.root).as_posix() for p in files(self.share.root)]
        return [p for p in paths if not p.startswith(".") and p != marker.FILE]


def files(folder: Path) -> list[Path]:
    """Return every file below a folder."""
    return [Path(here) / name for here, _, names in os.walk(folder) for name in names]


def holding(text: str, *folders: Path) -> list[Path]:
    """Return the files below the folders that contain a text, plain or in base64's alphabet."""
    return [p for folder in folders for p in files(folder) if text.encode() in p.read_bytes()]
