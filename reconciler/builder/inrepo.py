"""Wheels from in-repo packages: made in the sandbox, once per team, indexes, tree and Python."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from installer.sources import WheelFile
from packaging.metadata import parse_email
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name, parse_wheel_filename

from reconciler.builder.job import Job
from reconciler.builder.locking import InRepoWheel
from reconciler.builder.making import WheelMaker, keep
from reconciler.builder.turns import MAKING
from reconciler.core.definitions import Place, Recipe, SourcePackage
from reconciler.core.errors import Stalled
from reconciler.core.model import Runtime

Export = Callable[[str, Path], None]


@dataclass(frozen=True, slots=True)
class InRepo:
    """Builds in-repo packages; `export` writes a git tree to a directory."""

    maker: WheelMaker
    export: Export
    cache: Path

    def folder(self, team: str, recipe: Recipe, package: SourcePackage, runtime: Runtime) -> Path:
        """Where a package's wheel is kept: no team takes what another team's build has made."""
        return self.maker.folder(self.cache / "inrepo", team, recipe, runtime, package.tree)

    def kept(
        self, team: str, recipe: Recipe, package: SourcePackage, runtime: Runtime
    ) -> InRepoWheel | None:
        """A package's wheel from the cache. Raises Stalled("PackageBuildFailed") for another's."""
        folder = self.folder(team, recipe, package, runtime)
        if not folder.is_dir():
            return None
        (path,) = folder.glob("*.whl")
        name, version, _, _ = parse_wheel_filename(path.name)
        if canonicalize_name(name) != package.name:
            raise Stalled(
                "PackageBuildFailed",
                f"{package.path} builds {name}, but the requirement calls it {package.name}; use "
                f"the same name",
                package.place,
            )
        _refuse_addresses(path, package)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        return InRepoWheel(package.name, str(version), path, package.path, package.tree, digest)

    def wheel(
        self,
        job: Job,
        recipe: Recipe,
        package: SourcePackage,
        runtime: Runtime,
        work: Path,
        index: str,
    ) -> InRepoWheel:
        """Build one package, or take it from the cache.

        Raises Stalled("PackageBuildFailed") with the package's place and the build's last lines.
        """
        folder = self.folder(job.team, recipe, package, runtime)
        with MAKING.of(str(folder), job.check):
            if not folder.is_dir():
                self._build(job, package, runtime, work, index, folder)
        found = self.kept(job.team, recipe, package, runtime)
        assert found is not None, "nothing removes wheels from the cache"
        return found

    def _build(
        self,
        job: Job,
        package: SourcePackage,
        runtime: Runtime,
        work: Path,
        index: str,
        folder: Path,
    ) -> None:
        job.say(f"building {package.path}")
        source = work / "source"
        self.export(package.tree, source)
        files = [p.relative_to(source).as_posix() for p in source.rglob("*.py")]
        place = Place(f"{package.path}/pyproject.toml", 1)
        wheel = self.maker.make(job, runtime, source, work, index, package.path, place)
        keep(wheel, folder, {"sources.json": json.dumps(files)})

    def repo_place(
        self,
        team: str,
        recipe: Recipe,
        package: SourcePackage,
        runtime: Runtime,
        file: str,
        line: int,
    ) -> Place | None:
        """The place in the repo of a line of an installed file, told by its path below lib/.

        None when the file is not of this package's sources, or they are no longer in the cache.
        """
        kept = self.folder(team, recipe, package, runtime) / "sources.json"
        sources: list[str] = json.loads(kept.read_text()) if kept.is_file() else []
        for source in sorted(sources, key=len):
            if source == file or source.endswith(f"/{file}"):
                return Place(f"{package.path}/{source}", line)
        return None


def _refuse_addresses(wheel: Path, package: SourcePackage) -> None:
    """What an in-repo package needs comes from an index or the repo, as with any requirement."""
    with WheelFile.open(wheel) as source:
        raw, _ = parse_email(source.read_dist_info("METADATA"))
    for text in raw.get("requires_dist", ()):
        try:
            parsed = Requirement(text)
        except InvalidRequirement:
            continue  # uv says what is wrong with it
        if parsed.url is not None:
            raise Stalled(
                "NotAllowed",
                f"{package.path} depends on {parsed.name} by an address; write "
                f"{parsed.name}>=version in its dependencies, or add it to the repo's packages",
                package.place,
            )
