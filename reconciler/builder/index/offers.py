"""Files that an index has for one name, and why none of them serves."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.tags import Tag
from packaging.utils import (
    InvalidSdistFilename,
    InvalidWheelFilename,
    parse_sdist_filename,
    parse_wheel_filename,
)
from packaging.version import InvalidVersion, Version

from reconciler.builder.index.simple_api import Page, files_of
from reconciler.core.definitions import Recipe
from reconciler.core.reasons import Reason
from reconciler.core.runtime import Runtime


@dataclass(frozen=True, slots=True)
class OfferedFile:
    """A file of an index's page; `tags` are None for an sdist."""

    version: Version
    tags: frozenset[str] | None
    pythons: str


@dataclass(frozen=True, slots=True)
class Problem:
    """Reason and message of an offer of which nothing serves."""

    reason: Reason
    message: str


@dataclass(frozen=True, slots=True)
class Offer:
    """Files of one name on its index."""

    name: str
    index: str
    files: tuple[OfferedFile, ...]

    def problem(self, wanted: SpecifierSet, runtime: Runtime, recipe: Recipe) -> Problem | None:
        """Return why no file serves; None if one does. The recipe may allow sdists."""
        fitting = [f for f in self.files if wanted.contains(f.version, prereleases=True)]
        if not fitting:
            return self._of_versions()
        taken = [f for f in fitting if _takes(f.pythons, runtime.python_version)]
        serving = self._serving(runtime)
        if not taken:
            file = max(fitting, key=lambda f: f.version)
            other = f"; choose {max(f.version for f in serving)}" if serving else ""
            return Problem(
                Reason.RESOLUTION_CONFLICT,
                f"{self.name} {file.version} needs Python {file.pythons}, the base has "
                f"{runtime.python_version}{other}",
            )
        has_sdist = any(f.tags is None for f in taken)
        if self._serving(runtime, taken) or (has_sdist and self.name in recipe.source_builds):
            return None
        newest = max(f.version for f in taken)
        allowed = f"write `{recipe.allowing(self.name)}` in `spec` to have it built from its sdist"
        remedies = [f"choose {max(f.version for f in serving)}"] if serving else []
        remedies += [allowed] if has_sdist else []
        return Problem(
            Reason.SOURCE_BUILD_REFUSED,
            f"{self.name} {newest} has no wheel for {runtime.python_tag} on {runtime.platform}"
            f"{'' if has_sdist else ', and no sdist either'}; "
            f"{', or '.join(remedies) or 'ask for another package'}",
        )

    def _of_versions(self) -> Problem:
        """Say which versions there are."""
        versions = sorted({f.version for f in self.files})
        if not versions:
            return Problem(Reason.NOT_FOUND, f"index {self.index} has no file of {self.name}")
        stable = [version for version in versions if not version.is_prerelease] or versions
        return Problem(
            Reason.NOT_FOUND,
            f"index {self.index} has no such version of {self.name}; its versions go from "
            f"{stable[0]} to {stable[-1]}",
        )

    def _serving(
        self, runtime: Runtime, files: Sequence[OfferedFile] | None = None
    ) -> list[OfferedFile]:
        """Return the wheels that a runtime takes."""
        tags = frozenset(runtime.tags)
        return [
            f
            for f in (self.files if files is None else files)
            if f.tags is not None
            and not f.tags.isdisjoint(tags)
            and _takes(f.pythons, runtime.python_version)
        ]


def read_offer(page: Page, name: str, index: str) -> Offer:
    """Read an index's page as an offer; raises Malformed."""
    rows = files_of(page.kind, page.body, page.base, page.charset)
    files = [file for row in rows if not row.get("yanked") for file in _file(row)]
    return Offer(name, index, tuple(files))


def _file(row: dict[str, object]) -> Iterator[OfferedFile]:
    filename, pythons = str(row["filename"]), str(row.get("requires-python") or "")
    try:
        if filename.endswith(".whl"):
            _, version, _, tags = parse_wheel_filename(filename)
            yield OfferedFile(version, _texts(tags), pythons)
        else:
            _, version = parse_sdist_filename(filename)
            yield OfferedFile(version, None, pythons)
    except (InvalidWheelFilename, InvalidSdistFilename, InvalidVersion):
        return


def _texts(tags: frozenset[Tag]) -> frozenset[str]:
    return frozenset(map(str, tags))


def _takes(pythons: str, version: str) -> bool:
    """Return True if a file is for this Python; any is where that cannot be read."""
    try:
        return SpecifierSet(pythons).contains(version, prereleases=True)
    except (InvalidSpecifier, InvalidVersion):
        return True
