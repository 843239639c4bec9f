"""Building wheels from source in the workshop, because build scripts are not trusted."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from reconciler.builder.job import Job
from reconciler.builder.wheels import disk_full, ran_out_of_disk
from reconciler.builder.workshop import Workshop
from reconciler.core.definitions import Place, Recipe
from reconciler.core.errors import Stalled
from reconciler.core.runtime import Runtime
from reconciler.settings import BuilderSettings

TAIL = 12  # lines of a failed build that its message shows


@dataclass(frozen=True, slots=True)
class WheelMaker:
    """Builder of wheels in a workshop."""

    workshop: Workshop
    settings: BuilderSettings

    def folder(self, cache: Path, team: str, recipe: Recipe, runtime: Runtime, source: str) -> Path:
        """Return the folder for a source's wheel, shared by recipes with team and indexes."""
        asked = [asdict(index) for index in recipe.indexes]
        words = json.dumps([self.settings.default_index, asked, recipe.source_builds, source])
        name = hashlib.sha256(words.encode()).hexdigest()[:24]
        return cache / team / f"{name}-{runtime.python_tag}-{runtime.platform}"

    def make(
        self,
        job: Job,
        runtime: Runtime,
        source: Path,
        work: Path,
        index: str,
        what: str,
        place: Place | None,
    ) -> Path:
        """Build and return the wheel of a source directory or sdist, which is moved.

        Its build requirements come from `index`. Raises Stalled("PackageBuildFailed") with the
        build's last lines, or Retryable("DiskFull").
        """
        own = Path(tempfile.mkdtemp(prefix="make-", dir=work))
        source = source.rename(own / source.name)
        out = own / "out"
        cache = self.workshop.cache_of(job.team)
        command = [
            self.workshop.uv(), "build", "--wheel", "--out-dir", str(out),
            "--python", runtime.python,
            "--cache-dir", str(cache), "--no-config", "--color", "never", "--no-progress",
            "--no-create-gitignore", "--default-index", index, str(source),
        ]  # fmt: skip
        ended = self.workshop.run(
            job,
            command,
            work=own,
            timeout=self.settings.build_timeout,
            writable=[cache],
            index=work,
            results=[out],
        )
        if ran_out_of_disk(ended):
            raise disk_full()
        wheels = [] if out.is_symlink() else [*out.glob("*.whl")]
        wheels = [p for p in wheels if p.is_file() and not p.is_symlink()]
        if ended.code != 0 or len(wheels) != 1:
            tail = "\n".join(ended.output.strip().splitlines()[-TAIL:])
            seconds = f"it took longer than {self.settings.build_timeout:g} s"
            raise Stalled(
                "PackageBuildFailed",
                f"{what} does not build a wheel: {seconds if ended.timed_out else tail}",
                place,
            )
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
