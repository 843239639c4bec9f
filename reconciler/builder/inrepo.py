"""Wheels from in-repo packages: built in the sandbox, once per git tree and Python."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from packaging.utils import canonicalize_name, parse_wheel_filename

from reconciler.builder.job import Job
from reconciler.builder.locking import InRepoWheel, uv_path
from reconciler.builder.sandbox import Sandbox
from reconciler.core.errors import Stalled
from reconciler.core.model import Place, Runtime, SourcePackage
from reconciler.settings import BuilderSettings

Export = Callable[[str, Path], None]


@dataclass(frozen=True, slots=True)
class InRepo:
    """Builds in-repo packages; `export` writes a git tree to a directory."""

    sandbox: Sandbox
    settings: BuilderSettings
    export: Export
    cache: Path

    def folder(self, package: SourcePackage, runtime: Runtime) -> Path:
        """Where a package's wheel is kept."""
        return self.cache / "inrepo" / f"{package.tree}-{runtime.python_tag}"

    def wheel(
        self, job: Job, package: SourcePackage, runtime: Runtime, work: Path, index: str
    ) -> InRepoWheel:
        """Build one package, or take it from the cache.

        Raises Stalled("PackageBuildFailed") with the package's place and the build's last lines.
        """
        folder = self.folder(package, runtime)
        if not folder.is_dir():
            self._build(job, package, runtime, work, index)
        (path,) = folder.glob("*.whl")
        name, version, _, _ = parse_wheel_filename(path.name)
        if canonicalize_name(name) != package.name:
            raise Stalled(
                "PackageBuildFailed",
                f"{package.path} builds {name}, but the requirement calls it {package.name}; use "
                f"the same name",
                package.place,
            )
        return InRepoWheel(package.name, str(version), path, package.path, package.tree)

    def _build(
        self, job: Job, package: SourcePackage, runtime: Runtime, work: Path, index: str
    ) -> None:
        job.say(f"building {package.path}")
        source, out = work / "source", work / "out"
        shutil.rmtree(source, ignore_errors=True)
        shutil.rmtree(out, ignore_errors=True)
        self.export(package.tree, source)
        files = [p.relative_to(source).as_posix() for p in source.rglob("*.py")]
        cache = self.cache / "uv-teams" / job.team  # what a build script may write to is its team's
        cache.mkdir(parents=True, exist_ok=True)
        command = [
            uv_path(), "build", "--wheel", "--out-dir", str(out), "--python", runtime.python,
            "--cache-dir", str(cache), "--no-config", "--color", "never", "--no-progress",
            "--no-create-gitignore", str(source),
        ]  # fmt: skip
        if index:
            command += ["--default-index", index]
        ended = self.sandbox.run(
            job,
            command,
            work=work,
            timeout=self.settings.build_timeout,
            writable=[cache],
            network=True,
        )
        wheels = list(out.glob("*.whl")) if out.is_dir() else []
        if ended.code != 0 or len(wheels) != 1:
            tail = "\n".join(ended.output.strip().splitlines()[-12:])
            why = "it took too long" if ended.timed_out else tail
            place = Place(f"{package.path}/pyproject.toml", 1)
            raise Stalled(
                "PackageBuildFailed", f"{package.path} does not build a wheel: {why}", place
            )
        self._keep(package, runtime, wheels[0], files)

    def _keep(
        self, package: SourcePackage, runtime: Runtime, wheel: Path, files: list[str]
    ) -> None:
        folder = self.folder(package, runtime)
        folder.parent.mkdir(parents=True, exist_ok=True)
        temp = folder.with_name(f".tmp-{os.urandom(6).hex()}")
        temp.mkdir()
        shutil.copyfile(wheel, temp / wheel.name)
        (temp / "sources.json").write_text(json.dumps(files))
        try:
            temp.rename(folder)
        except OSError:
            shutil.rmtree(temp)  # another build was faster

    def repo_place(self, package: SourcePackage, runtime: Runtime, file: str, line: int) -> Place:
        """The place in the repo of a line of an installed file, told by its path below lib/."""
        sources: list[str] = json.loads(
            (self.folder(package, runtime) / "sources.json").read_text()
        )
        for source in sorted(sources, key=len):
            if source == file or source.endswith(f"/{file}"):
                return Place(f"{package.path}/{source}", line)
        return Place(package.path)
