"""Wheels of in-repo packages, built in the sandbox once per team, indexes, tree and Python."""

from __future__ import annotations

import json
import tomllib
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from installer.sources import WheelFile
from packaging.metadata import RawMetadata, parse_email
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename

from reconciler.builder.build_job import BuildJob
from reconciler.builder.keyed_lock import MAKING
from reconciler.builder.local_disk import disk_error
from reconciler.builder.resolve.in_repo_wheels import InRepoWheel, extras_of
from reconciler.builder.wheels.contents import refuse_unsafe
from reconciler.builder.wheels.download import sha256_of
from reconciler.builder.wheels.from_source import Source, WheelMaker, keep
from reconciler.core.definitions import Place, Recipe, SourcePackage
from reconciler.core.errors import GroundcrewError, Stalled
from reconciler.core.reasons import Reason
from reconciler.core.runtime import Runtime
from reconciler.isolation import TooExpensive, read_for

Export = Callable[[str, Path], None]

PYPROJECT_LIMIT = 256 << 10  # bytes
VERSION_VARIABLES = (
    "SETUPTOOLS_SCM_PRETEND_VERSION",
    "VCS_VERSIONING_PRETEND_VERSION",
    "PDM_BUILD_SCM_VERSION",
    "PBR_VERSION",
    "POETRY_DYNAMIC_VERSIONING_BYPASS",
    "UV_DYNAMIC_VERSIONING_BYPASS",
)
"""Variables by which build backends are told a version that they would take from git."""
WITHOUT_VERSION = (
    "a build sees no git history: if the package was to take its version from git, write `version` "
    "in its [project] table"
)
METADATA_LIMIT = 1 << 20  # bytes
PACKED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # these decompress no more than requested


@dataclass(frozen=True, slots=True)
class InRepo:
    """Builder of in-repo packages; `export` writes a git tree to a directory."""

    maker: WheelMaker
    export: Export
    cache: Path

    def folder(self, team: str, recipe: Recipe, package: SourcePackage, runtime: Runtime) -> Path:
        """Return the folder that caches a package's wheel: no team uses another team's build."""
        return self.maker.folder(self.cache / "inrepo", team, recipe, runtime, package.tree)

    def kept(
        self, team: str, recipe: Recipe, package: SourcePackage, runtime: Runtime
    ) -> InRepoWheel | None:
        """Return a package's wheel from the cache, or None.

        Raises Stalled: PackageBuildFailed for a wheel of another package, InvalidWheel or
        UnsafeWheel for a bad one from the package's own backend, NotAllowed for one that requires a
        URL.
        """
        folder = self.folder(team, recipe, package, runtime)
        if not folder.is_dir():
            return None
        (path,) = folder.glob("*.whl")
        try:
            name, version, _, _ = parse_wheel_filename(path.name)
            requires, extras = read_for(team, _inspect, path.absolute(), package)
        except InvalidWheelFilename as error:
            raise _invalid(package, str(error)) from error
        except Stalled as error:
            if error.place is not None:
                raise
            message = f"{package.path} builds a wheel that is refused: {error.message}"
            raise Stalled(error.reason, message, package.place) from error
        if canonicalize_name(name) != package.name:
            raise Stalled(
                Reason.PACKAGE_BUILD_FAILED,
                f"{package.path} builds {name}, but the requirement calls it {package.name}; use "
                f"the same name",
                package.place,
            )
        return InRepoWheel(
            package.name,
            str(version),
            path,
            package.path,
            package.tree,
            sha256_of(path),
            requires,
            extras,
        )

    def wheel(
        self,
        job: BuildJob,
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
                self._build(job, recipe, package, runtime, work, index, folder)
        wheel = self.kept(job.team, recipe, package, runtime)
        assert wheel is not None, "nothing removes wheels from the cache"
        return wheel

    def _build(
        self,
        job: BuildJob,
        recipe: Recipe,
        package: SourcePackage,
        runtime: Runtime,
        work: Path,
        index: str,
        folder: Path,
    ) -> None:
        job.say(f"building {package.path}")
        source = work / "source"
        self.export(package.tree, source)
        files = [p.relative_to(source).as_posix() for p in source.rglob("*") if p.is_file()]
        location = Place(f"{package.path}/pyproject.toml", 1)
        has_version = _has_version(job.team, source / "pyproject.toml")
        try:
            made = Source(source, package.path, location)
            wheel = self.maker.make(job, recipe, runtime, made, work, index)
        except Stalled as error:
            if has_version or error.reason is not Reason.PACKAGE_BUILD_FAILED:
                raise
            version = f"0.0+g{package.tree[:10]}"
            job.say(f"{package.path} may take its version from git; building it as {version}")
            self.export(package.tree, source)
            made = Source(source, package.path, location, dict.fromkeys(VERSION_VARIABLES, version))
            try:
                wheel = self.maker.make(job, recipe, runtime, made, work, index)
            except Stalled:  # it was not the version, or is one that these variables do not tell
                message = f"{error.message}\n{WITHOUT_VERSION}"
                raise Stalled(error.reason, message, error.place) from None
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
        """Return the place in the repo of a line of an installed file, by its path below lib/.

        None if the file is not from this package's sources, or they are no longer in the cache.
        """
        kept = self.folder(team, recipe, package, runtime) / "sources.json"
        sources: list[str] = json.loads(kept.read_text()) if kept.is_file() else []
        for source in sorted(sources, key=len):
            if source == file or source.endswith(f"/{file}"):
                return Place(f"{package.path}/{source}", line)
        return None


def _has_version(team: str, pyproject: Path) -> bool:
    """Return True if a package states its version; one that cannot be read states none."""
    try:
        with pyproject.open("rb") as file:
            data = file.read(PYPROJECT_LIMIT)
        return read_for(team, _states_version, data)
    except (OSError, TooExpensive):
        return False


def _states_version(data: bytes) -> bool:
    try:
        project = tomllib.loads(data.decode()).get("project")
    except (ValueError, RecursionError):  # whoever builds it complains
        return False
    return isinstance(project, dict) and isinstance(project.get("version"), str)


def _inspect(wheel: Path, package: SourcePackage) -> tuple[tuple[str, ...], frozenset[str]]:
    """Return a wheel's requirements and extras; refuse it for its contents or requirements."""
    refuse_unsafe(wheel)
    metadata = _metadata(wheel, package)
    requires = tuple(metadata.get("requires_dist", ()))
    _refuse_addresses(requires, package)
    return requires, extras_of(metadata.get("provides_extra", ()), requires)


def _refuse_addresses(requires: Iterable[str], package: SourcePackage) -> None:
    """Refuse URLs in an in-repo package's requirements: only an index or the repo is allowed."""
    for text in requires:
        try:
            parsed = Requirement(text)
        except (InvalidRequirement, RecursionError):
            continue  # uv reports what is wrong with it
        if parsed.url is not None:
            raise Stalled(
                Reason.NOT_ALLOWED,
                f"{package.path} depends on {parsed.name} by an address; write "
                f"{parsed.name}>=version in its dependencies, or add it to the repo's packages",
                package.place,
            )


def _metadata(wheel: Path, package: SourcePackage) -> RawMetadata:
    """Return the metadata of a wheel; the author of its backend controls this text, too."""
    try:
        with WheelFile.open(wheel) as source, zipfile.ZipFile(wheel) as archive:
            item = archive.getinfo(f"{source.dist_info_dir}/METADATA")
            if item.file_size > METADATA_LIMIT or item.compress_type not in PACKED:
                message = f"its METADATA has more than {METADATA_LIMIT} bytes, or is not deflated"
                raise _invalid(package, message)
            with archive.open(item) as file:
                text = file.read(METADATA_LIMIT).decode()
    except GroundcrewError:
        raise
    except OSError as error:
        raise disk_error(error) from error
    except UnicodeDecodeError as error:
        raise _invalid(package, "its METADATA is not UTF-8 text") from error
    except KeyError as error:
        raise _invalid(package, "it has no METADATA") from error
    except Exception as error:
        raise _invalid(package, str(error)) from error
    raw, _ = parse_email(text)
    return raw


def _invalid(package: SourcePackage, words: str) -> Stalled:
    """Return the error for an invalid wheel."""
    return Stalled(
        Reason.INVALID_WHEEL,
        f"{package.path} builds a wheel that is not sound: {words[:500]}; look at its build "
        f"backend",
        package.place,
    )
