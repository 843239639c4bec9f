"""Building wheels from source in the executor, because build scripts are not trusted."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from reconciler.builder.build_job import BuildJob
from reconciler.builder.build_output import causes
from reconciler.builder.executor.protocol import Executor
from reconciler.builder.local_disk import disk_full, ran_out_of_disk
from reconciler.core.definitions import Place, Recipe
from reconciler.core.errors import Stalled
from reconciler.core.reasons import Reason
from reconciler.core.runtime import Runtime
from reconciler.settings import BuilderSettings


@dataclass(frozen=True, slots=True)
class Source:
    """A source directory or sdist, with its name for people and its place in the repo.

    `variables` are defaults for its backend; those of the definition go first.
    """

    path: Path
    name: str
    place: Place | None
    variables: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class WheelMaker:
    """Builder of wheels in a executor."""

    executor: Executor
    settings: BuilderSettings

    def folder(self, cache: Path, team: str, recipe: Recipe, runtime: Runtime, source: str) -> Path:
        """Return the folder for a source's wheel, for all of a team that asks for the same."""
        asked = [asdict(index) for index in recipe.indexes]
        shaping: list[object] = [self.settings.default_index, asked, recipe.source_builds, source]
        if recipe.build_constraints or recipe.build_env:
            shaping += [recipe.build_constraints, recipe.build_env]
        name = hashlib.sha256(json.dumps(shaping).encode()).hexdigest()[:24]
        return cache / team / f"{name}-{runtime.python_tag}-{runtime.platform}"

    def make(
        self,
        job: BuildJob,
        recipe: Recipe,
        runtime: Runtime,
        source: Source,
        work: Path,
        index: str,
    ) -> Path:
        """Build and return the wheel of a source, which is moved.

        Its build requirements come from `index`. Raises Stalled("PackageBuildFailed") with the
        build's last lines, or Retryable("DiskFull").
        """
        own = Path(tempfile.mkdtemp(prefix="make-", dir=work))
        path = source.path.rename(own / source.path.name)
        out, constraints = own / "out", own / "build-constraints.txt"
        constraints.write_text("".join(f"{line}\n" for line in recipe.build_constraints))
        cache = self.executor.cache_of(job.team)
        command = [
            self.executor.uv(),
            "build",
            "--wheel",
            "--out-dir",
            str(out),
            "--python",
            runtime.python,
            "--cache-dir",
            str(cache),
            "--no-config",
            "--color",
            "never",
            "--no-progress",
            "--no-create-gitignore",
            "--default-index",
            index,
            *(["--build-constraints", str(constraints)] if recipe.build_constraints else []),
            str(path),
        ]
        ended = self.executor.run(
            job,
            command,
            work=own,
            timeout=self.settings.build_timeout,
            writable=[cache],
            environment={**source.variables, **dict(recipe.build_env)},
            index=work,
            results=[out],
        )
        if ran_out_of_disk(ended):
            raise disk_full()
        wheels = [] if out.is_symlink() else [*out.glob("*.whl")]
        wheels = [p for p in wheels if p.is_file() and not p.is_symlink()]
        if ended.timed_out:
            message = f"it took longer than {self.settings.build_timeout:g} s"
            raise Stalled(
                Reason.PACKAGE_BUILD_FAILED,
                f"{source.name} does not build a wheel: {message}",
                source.place,
            )
        if ended.was_killed:
            message = f"{source.name} does not build a wheel: its build {ended.manner}"
            raise Stalled(Reason.PACKAGE_BUILD_FAILED, message, source.place)
        if ended.code != 0 or len(wheels) != 1:
            message = f"{source.name} does not build a wheel: {causes(ended.output)}"
            raise Stalled(Reason.PACKAGE_BUILD_FAILED, message, source.place)
        return wheels[0]


def keep(wheel: Path, folder: Path, more: dict[str, str] | None = None) -> None:
    """Keep a wheel and further files in a separate folder, which appears complete or not at all."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    temp = folder.with_name(f".tmp-{os.urandom(6).hex()}")
    temp.mkdir()
    try:
        shutil.copyfile(wheel, temp / wheel.name)
        for name, text in (more or {}).items():
            (temp / name).write_text(text)
        temp.rename(folder)
    except OSError:
        shutil.rmtree(temp, ignore_errors=True)
        if not folder.is_dir():  # otherwise another build was faster
            raise
