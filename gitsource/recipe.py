"""Merging of an environment and its fragments into a recipe, with the contents of their files."""

from __future__ import annotations

import hashlib
import json
import posixpath
from dataclasses import dataclass, field, fields, replace
from enum import StrEnum
from itertools import pairwise
from urllib.parse import urlsplit

from packaging.requirements import Requirement as Parsed
from packaging.utils import canonicalize_name
from pydantic import TypeAdapter

from gitsource.encodings import NotUtf8, decode_text
from gitsource.models import (
    EnvironmentModel,
    FileModel,
    FragmentModel,
    FragmentSpec,
    ImportBudgetModel,
    IndexModel,
)
from gitsource.projects import Project
from gitsource.requirement_lines import in_repo, name_of
from gitsource.requirements_files import FILES, LINES, Line, LineKind, is_requirements_file
from gitsource.shared_files import SharedFiles
from gitsource.siblings import Siblings
from gitsource.tree import Entry, count_below
from gitsource.typed import ReadFile
from reconciler.core.definitions import (
    Checks,
    FileItem,
    Finding,
    Globs,
    ImportLimit,
    Index,
    Measure,
    Place,
    Recipe,
    Requirement,
    SourcePackage,
)
from reconciler.core.errors import Stalled
from reconciler.core.formatting import names
from reconciler.core.reasons import Reason
from reconciler.isolation import TooExpensive


class NeedKind(StrEnum):
    """Kind of an input of a recipe."""

    FILE = "file"
    TREE = "tree"
    PACKAGES = "packages"
    FRAGMENT = "fragment"
    INSTANCE = "instance"


Need = tuple[NeedKind, str, str]
"""Input of a recipe: its kind, its path or name, and its state when it was used.

The state is a file's blob, a tree's id, the fingerprint of a folder's packages, a fragment's blob,
or an instance's team; it is "" if the input did not exist.
"""

RECIPE = TypeAdapter(Recipe)
ENV_LIMIT = 64 << 10  # bytes of all names and values; Linux allows 128 KiB for a single one
FINDINGS = 20  # per environment
ARCHIVES = (
    ".tar",
    ".tgz",
    ".tbz2",
    ".txz",
    ".tar.gz",
    ".tar.bz2",
    ".tar.xz",
    ".tar.zst",
    ".zip",
    ".7z",
    ".deb",
    ".rpm",
    ".xz",
    ".bz2",
    ".zst",
)
"""Suffixes of archives; a file that only .gz compresses is decompressed."""
PACKAGES_FILES = 50_000  # files of all in-repo packages of one environment
GLOBS = 1000  # names of packages in all indexes of one environment
REQUIREMENT = tuple(field.name for field in fields(Requirement) if field.name != "place")
"""Fields of a requirement that determine a build: all of them are texts."""
TEXT_LIMIT = 1 << 20  # bytes of a constraints file, a certificate or a DAG
TEXTS_LIMIT = 2 << 20  # bytes of all of them in one environment, counted whenever they are named


@dataclass(slots=True)
class Merge:
    """Environment being merged; `findings` are its mistakes."""

    read: ReadFile
    shared: SharedFiles
    findings: list[Finding] = field(default_factory=list)
    requirements: list[Requirement] = field(default_factory=list)
    packages: dict[str, SourcePackage] = field(default_factory=dict)
    constraints: dict[str, str] = field(default_factory=dict)
    indexes: dict[str, Index] = field(default_factory=dict)
    source_builds: list[str] = field(default_factory=list)
    files: dict[FileItem, Place] = field(default_factory=dict)
    env: dict[str, str] = field(default_factory=dict)
    imports: list[str] = field(default_factory=list)
    exclude: list[str] = field(default_factory=list)
    build_constraints: list[str] = field(default_factory=list)
    build_env: dict[str, str] = field(default_factory=dict)
    dags: dict[str, str] = field(default_factory=dict)
    budget: dict[Measure, ImportLimit] = field(default_factory=dict)
    internal: dict[str, str] = field(default_factory=dict)
    needs: dict[tuple[NeedKind, str], str] = field(default_factory=dict)
    requirements_files: dict[str, Place] = field(default_factory=dict)
    """Where each requirements file is named: an item of `requirements`."""
    hashes: dict[str, set[str]] = field(default_factory=dict)
    text_bytes: int = 0
    package_files: int = 0

    def wrong(self, place: Place, reason: Reason, message: str) -> None:
        """Record a mistake of this environment, at a place in its own file; the first ones only.

        If another file is to blame, the message says so: a finding marks its file as broken, and
        the objects of a broken file stay as they were accepted.
        """
        if place.file in self.requirements_files:
            place, message = self.requirements_files[place.file], f"{place}: {message}"
        if place.file != self.read.path:
            place, message = self.read.place("spec", "extends"), f"{place}: {message}"
        if len(self.findings) < FINDINGS:
            self.findings.append(Finding(place, self.read.object, reason, message))

    def take(self, part: ReadFile, spec: FragmentSpec) -> None:
        """Add the contents of one definition; later ones override env, limits and equal indexes."""
        folder = posixpath.dirname(part.path)
        for i, text in enumerate(spec.requirements):
            location = part.place("spec", "requirements", i)
            if is_requirements_file(text):
                self._requirements_file(text, folder, location)
            else:
                self._requirement(text, folder, location)
        for i, name in enumerate(spec.constraints):
            lines = self._constraints(folder, name, part.place("spec", "constraints", i))
            self.constraints[posixpath.join(folder, name)] = "\n".join(lines)
        for i, index in enumerate(spec.indexes):
            self._index(index, folder, part, i)
        self.source_builds += [canonicalize_name(n) for n in spec.sourceBuilds]
        for i, text in enumerate(spec.build.constraints):
            self._build_constraint(text, folder, part.place("spec", "build", "constraints", i))
        self.build_env.update(spec.build.env)
        for i, item in enumerate(spec.files):
            self._file(item, part.place("spec", "files", i))
        self.env.update(spec.env)
        self.imports += spec.checks.imports
        self.exclude += spec.checks.exclude
        for i, name in enumerate(spec.checks.dags):
            content = self._text(folder, name, part.place("spec", "checks", "dags", i))
            self.dags[posixpath.join(folder, name)] = content
        self.budget.update(_budget(part, spec.checks.importBudget))

    def _requirement(self, text: str, folder: str, place: Place, top: str = "") -> None:
        """Add a requirement; `top` is the folder of the definition if it is not `folder`."""
        own = in_repo(text)
        if own is None:
            self.requirements.append(Requirement(text, place))
            return
        path = own.path
        full = posixpath.normpath(posixpath.join(folder, path))
        top = top or folder
        if not full.startswith((f"{top}/", "shared/")):
            self.wrong(
                place,
                Reason.NOT_ALLOWED,
                f"{path} is outside {top}/ and shared/; move the package there",
            )
            return
        tree = self.shared.tree
        self.needs[NeedKind.TREE, full] = tree.tree_id(full)
        if full not in self.packages and not self._check_package(full, place):
            return
        self.packages[full] = SourcePackage(
            canonicalize_name(own.name), full, tree.tree_id(full), place
        )
        self.requirements.append(Requirement(own.text, place, package=full))

    def _requirements_file(self, name: str, folder: str, place: Place) -> None:
        """Add what a requirements file and those that it includes ask for, each file once."""
        top, waiting = folder, [(posixpath.normpath(posixpath.join(folder, name)), place)]
        while waiting:
            path, named_at = waiting.pop()
            if path in self.requirements_files or not self._is_own(path, top, named_at):
                continue
            if len(self.requirements_files) == FILES:
                most = f"an environment may have {FILES} requirements files; join some of them"
                self.wrong(named_at, Reason.TOO_LARGE, most)
                return
            text = self._text("", path, named_at)
            self.requirements_files[path] = place
            try:
                lines = self.shared.requirements(path, text)
            except TooExpensive as error:
                self.wrong(place, error.reason, error.message)
                continue
            included = [self._requirements_line(line, path, top) for line in lines]
            waiting += [file for file in included[::-1] if file is not None]

    def _requirements_line(self, line: Line, path: str, top: str) -> tuple[str, Place] | None:
        """Add what a line asks for; return the file that it includes, and where, if any."""
        folder, place = posixpath.dirname(path), Place(path, line.number, 1)
        full = posixpath.normpath(posixpath.join(folder, line.text))
        match line.kind:
            case LineKind.MISTAKE:
                self.wrong(place, Reason.NOT_ALLOWED, line.text)
            case LineKind.FILE:
                return full, place
            case LineKind.CONSTRAINTS if self._is_own(full, top, place):
                self.constraints[full] = "\n".join(self._constraints("", full, place))
            case LineKind.REQUIREMENT if len(self.requirements) < LINES:
                self._requirement(line.text, folder, place, top)
                if line.hashes:
                    self.hashes.setdefault(name_of(line.text), set()).update(line.hashes)
            case LineKind.REQUIREMENT:
                most = f"an environment may have {LINES} requirements; make it smaller"
                self.wrong(place, Reason.TOO_LARGE, most)
            case LineKind.CONSTRAINTS:
                pass  # refused above
        return None

    def _is_own(self, path: str, top: str, place: Place) -> bool:
        """Return True if a file is below the definition's folder or shared/, else tell so."""
        if path.startswith((f"{top}/", "shared/")):
            return True
        message = f"{path} is outside {top}/ and shared/; move the file there"
        self.wrong(place, Reason.NOT_ALLOWED, message)
        return False

    def _check_package(self, path: str, place: Place) -> bool:
        self.package_files += count_below(self.shared.tree, path)
        if self.package_files > PACKAGES_FILES:
            message = f"the packages of one environment may have {PACKAGES_FILES} files together"
            self.wrong(place, Reason.TOO_LARGE, f"{path}: {message}")
            return False
        mistake = self.shared.mistake_in(path)
        if mistake is not None:
            self.wrong(place, *mistake)
        return mistake is None

    def _is_refused(self, entry: Entry, place: Place) -> bool:
        """Return True and add a finding if an entry is not the file that it stands for."""
        mistake = self.shared.mistake_of(entry)
        if mistake is not None:
            self.wrong(place, *mistake)
        return mistake is not None

    def _text(self, folder: str, name: str, place: Place) -> str:
        """Return the text of a team's file, or "" with a finding if it cannot be read."""
        path = posixpath.normpath(posixpath.join(folder, name))
        entry = self.shared.tree.entries().get(path)
        self.needs[NeedKind.FILE, path] = entry.blob if entry is not None else ""
        if entry is None:
            self.wrong(place, Reason.MISSING_FILE, f"{path} is not in the repo; check the path")
        elif self._is_refused(entry, place):
            pass
        elif entry.size > TEXT_LIMIT:
            self.wrong(place, Reason.TOO_LARGE, f"{path} is larger than {TEXT_LIMIT >> 20} MiB")
        elif (total := self.text_bytes + entry.size) > TEXTS_LIMIT:
            message = f"the files of one environment may have {TEXTS_LIMIT >> 20} MiB together"
            self.wrong(place, Reason.TOO_LARGE, f"{path}: {message}")
        else:
            self.text_bytes = total
            try:
                return decode_text(self.shared.tree.read(entry))
            except NotUtf8 as error:
                self.wrong(place, Reason.WRONG_TYPE, f"{path}:{error.line} is {error.message}")
            except Stalled as error:
                self.wrong(place, error.reason, error.message)
        return ""

    def check_env(self) -> None:
        """Limit the size of the environment variables: beyond it, no program could be started."""
        for key, variables in ((("env",), self.env), (("build", "env"), self.build_env)):
            size = sum(len(f"{name}={value}\0".encode()) for name, value in variables.items())
            if size > ENV_LIMIT:
                message = f"env has {size} bytes (limit {ENV_LIMIT}); move long values into a file"
                self.wrong(self.read.place("spec", *key), Reason.TOO_LARGE, message)

    def _build_constraint(self, text: str, folder: str, place: Place) -> None:
        """Add a constraint, or those of a file, for what builds need."""
        if any(sign in text for sign in "<>=~!@; "):
            self.build_constraints.append(str(Parsed(text)))
        else:
            self.build_constraints += self._constraints(folder, text, place)

    def _constraints(self, folder: str, name: str, place: Place) -> list[str]:
        """Return a file's constraints as parsed: its text itself is not used."""
        path, lines = posixpath.join(folder, name), []
        try:
            constraints = self.shared.constraints(path, self._text(folder, name, place))
        except TooExpensive as error:
            self.wrong(place, error.reason, error.message)
            return []
        for number, constraint, message in constraints:
            if not message:
                lines.append(constraint)
            else:
                self.wrong(place, Reason.NOT_ALLOWED, f"{path}:{number}: {message}")
        return lines

    def _index(self, index: IndexModel, folder: str, part: ReadFile, number: int) -> None:
        bundle = None
        if index.caBundle is not None:
            location = part.place("spec", "indexes", number, "caBundle")
            bundle = self._text(folder, index.caBundle, location)
        self.indexes[index.name] = Index(
            index.name, index.url, tuple(index.packages), index.credentials, bundle
        )

    def _file(self, item: FileModel, place: Place) -> None:
        """Add a file; an archive in the place of a program is refused."""
        file = FileItem(item.sha256, item.jar, item.url, item.path or "", int(item.mode, 8))
        name = posixpath.basename(urlsplit(item.url or "").path).lower()
        kept = file.target.lower().endswith((*ARCHIVES, ".jar", ".pyz", ".whl"))
        if file.target.startswith("bin/") and name.endswith(ARCHIVES) and not kept:
            self.wrong(
                place,
                Reason.NOT_A_PROGRAM,
                f"{name} is an archive, which cannot be started as {file.target}; give the "
                f"address of the program itself, or commit the unpacked program to an in-repo "
                f"package. To keep the archive as it is, choose a path outside bin/",
            )
        self.files.setdefault(file, place)

    def check_siblings(self, folder: str) -> None:
        """Refuse wrong names, and what only an index could serve although the repo has it."""
        projects: dict[str, Project] = {}
        beside = [posixpath.dirname(path) for path in self.packages]
        for parent in dict.fromkeys([*beside, f"{folder}/packages", "shared/packages"]):
            self.needs[NeedKind.PACKAGES, parent] = self.shared.fingerprint(parent)
            for project in self.shared.projects(parent):
                projects[project.path] = project
        globs = [glob for index in self.indexes.values() for glob in index.packages]
        if len(globs) > GLOBS:
            message = f"the indexes of one environment may name {GLOBS} packages and globs together"
            self.wrong(self.read.place("spec", "indexes"), Reason.TOO_LARGE, message)
            return
        siblings = Siblings(projects, self.packages, Globs(globs), folder)
        for location, message in siblings.mistakes(self.requirements):
            self.wrong(location, Reason.NOT_LISTED, message)
        for location, message in siblings.misnamed(self.requirements):
            self.wrong(location, Reason.INVALID_VALUE, message)
        self.internal = siblings.internal

    def check_files(self) -> None:
        """Refuse a file at the path of another, or below one."""
        ordered = sorted(self.files, key=lambda item: f"{item.target}/")
        for one, other in pairwise(ordered):
            if f"{other.target}/".startswith(f"{one.target}/"):
                message = f"{other.target} conflicts with {one.target}; choose another path"
                self.wrong(self.files[other], Reason.INVALID_VALUE, message)

    def recipe(self, timeout: float) -> Recipe:
        """Return the recipe, with the digest of everything that determines the build."""
        recipe = Recipe(
            digest="",
            requirements=tuple(self.requirements),
            constraints=tuple(sorted(self.constraints.items())),
            packages=tuple(self.packages[p] for p in sorted(self.packages)),
            indexes=tuple(self.indexes.values()),
            source_builds=tuple(sorted(set(self.source_builds))),
            files=tuple(self.files),
            env=tuple(sorted(self.env.items())),
            checks=Checks(
                tuple(dict.fromkeys(self.imports)),
                tuple(sorted(self.dags.items())),
                timeout,
                tuple(self.budget[m] for m in Measure if m in self.budget),
                tuple(sorted(set(self.exclude))),
            ),
            build_constraints=tuple(dict.fromkeys(self.build_constraints)),
            build_env=tuple(sorted(self.build_env.items())),
            internal=tuple(sorted(self.internal.items())),
            hashes=tuple(sorted((name, tuple(sorted(h))) for name, h in self.hashes.items())),
        )
        return Recipe(
            **{
                name: getattr(recipe, name)
                for name in recipe.__dataclass_fields__
                if name != "digest"
            },
            digest=recipe_digest(recipe),
        )


def recipe_digest(recipe: Recipe) -> str:
    """Return the SHA-256 of what determines the build, without places, which do not matter."""
    # Many times as fast as dataclasses.asdict; and there may be many requirements.
    document = RECIPE.dump_python(replace(recipe, requirements=()))
    del document["digest"], document["checks"]["budget"], document["internal"]
    if not document["checks"]["exclude"]:  # so that a default changes nothing
        del document["checks"]["exclude"]
    for key in ("build_constraints", "build_env", "hashes"):
        if not document[key]:
            del document[key]
    for package in document["packages"]:
        del package["place"]
    rows = ({name: getattr(r, name) for name in REQUIREMENT} for r in recipe.requirements)
    document["requirements"] = sorted(rows, key=lambda row: str(row["text"]))
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


def _budget(part: ReadFile, budget: ImportBudgetModel) -> dict[Measure, ImportLimit]:
    """Return the limits that one definition sets."""
    limits = {}
    for measure in Measure:
        most = getattr(budget, measure.key)
        if most is not None:
            location = part.place("spec", "checks", "importBudget", measure.key)
            limits[measure] = ImportLimit(measure, float(most), location)
    return limits


def merge(
    read: ReadFile, fragments: dict[str, ReadFile], shared: SharedFiles
) -> tuple[Recipe, list[Finding], tuple[Need, ...]]:
    """Return an environment's recipe, findings and needs; with findings it must not be used."""
    model = read.model
    assert isinstance(model, EnvironmentModel), "only environments are merged"
    merging = Merge(read, shared)
    for i, name in enumerate(model.spec.extends):
        place = read.place("spec", "extends", i)
        fragment = fragments.get(name)
        if (NeedKind.FRAGMENT, name) in merging.needs:
            merging.wrong(place, Reason.INVALID_VALUE, f"{name} is in extends twice; keep one")
            continue
        merging.needs[NeedKind.FRAGMENT, name] = ""
        if fragment is None or not isinstance(fragment.model, FragmentModel):
            merging.wrong(
                place,
                Reason.UNKNOWN_FRAGMENT,
                f"there is no shared/{name}.yaml that can be read; known: "
                f"{names(sorted(fragments), 20) or 'none'}",
            )
        else:
            merging.take(fragment, fragment.model.spec)
    merging.take(read, model.spec)
    merging.check_siblings(posixpath.dirname(read.path))
    merging.check_files()
    merging.check_env()
    needs = tuple((kind, name, what) for (kind, name), what in merging.needs.items())
    return merging.recipe(model.spec.checks.timeout), merging.findings, needs
