"""Third-party sdists that a definition allows by name, fetched by hash and built once."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename

from reconciler.builder.build_job import BuildJob
from reconciler.builder.index.filenames import refuse_file_name
from reconciler.builder.index.proxy import Indexes
from reconciler.builder.keyed_lock import MAKING
from reconciler.builder.resolve.choice import Wheel
from reconciler.builder.resolve.pylock import LockedPackage
from reconciler.builder.resolve.uv_errors import place_of
from reconciler.builder.wheels.download import fetch
from reconciler.builder.wheels.from_source import Source, WheelMaker, keep
from reconciler.core.definitions import Place, Recipe
from reconciler.core.errors import Stalled
from reconciler.core.reasons import Reason
from reconciler.core.runtime import Runtime


@dataclass(frozen=True, slots=True)
class Sdists:
    """Builder of wheels from sdists, once per team, indexes, sdist and Python."""

    maker: WheelMaker
    cache: Path

    def wheel(
        self,
        job: BuildJob,
        recipe: Recipe,
        runtime: Runtime,
        package: LockedPackage,
        indexes: Indexes,
        work: Path,
        index: str,
    ) -> Path:
        """Return the wheel of a locked package for which the index has no suitable one.

        Raises Stalled (SourceBuildRefused, HashMismatch, PackageBuildFailed) or Retryable.
        """
        name, version = package.key, package.version
        location = place_of(name, recipe)
        sdist = package.sdist
        if sdist is None or name not in recipe.source_builds:
            raise refusal(package, runtime, recipe)
        refuse_file_name(sdist.filename)
        wanted = Wheel(name, version, sdist.filename, sdist.hashes.sha256, sdist.url)
        folder = self.maker.folder(self.cache / "sdists", job.team, recipe, runtime, wanted.sha256)
        with MAKING.of(str(folder), job.check):
            if not folder.is_dir():
                self._build(job, recipe, runtime, wanted, indexes, work, index, location, folder)
        (path,) = folder.glob("*.whl")
        return path

    def _build(
        self,
        job: BuildJob,
        recipe: Recipe,
        runtime: Runtime,
        wanted: Wheel,
        indexes: Indexes,
        work: Path,
        index: str,
        place: Place | None,
        folder: Path,
    ) -> None:
        upstream = indexes.of(wanted.name)
        fetched = fetch(job, wanted, upstream, self.cache, self.maker.settings.file_bytes)
        job.say(f"building {wanted.filename}")
        copy = work / wanted.filename
        shutil.copyfile(fetched, copy)
        source = Source(copy, wanted.filename, place)
        made = self.maker.make(job, recipe, runtime, source, work, index)
        try:
            name, version, _, _ = parse_wheel_filename(made.name)
        except InvalidWheelFilename as error:
            message = f"{wanted.filename} builds a wheel with a wrong name: {str(error)[:300]}"
            raise Stalled(Reason.PACKAGE_BUILD_FAILED, message, place) from error
        if (canonicalize_name(name), str(version)) != (wanted.name, wanted.version):
            raise Stalled(
                Reason.PACKAGE_BUILD_FAILED,
                f"{wanted.filename} builds {made.name}, which is not {wanted.name} "
                f"{wanted.version}",
                place,
            )
        keep(made, folder)


def refusal(package: LockedPackage, runtime: Runtime, recipe: Recipe) -> Stalled:
    """Return the error that says why a package is not built."""
    name = package.key
    alternative = f"or write `{recipe.allowing(name)}` in `spec` to have it built from its sdist"
    if package.sdist is None:
        alternative = "it has no sdist either"
    return Stalled(
        Reason.SOURCE_BUILD_REFUSED,
        f"{name} {package.version} has no wheel for {runtime.python_tag} on {runtime.platform}; "
        f"choose a version that has one, {alternative}",
        place_of(name, recipe),
    )
