"""Assembly of Definitions from a tree: relevant files, their combination, and mistakes.

A mistake in one file stops only the objects of that file. The inputs of an environment are recorded
as its needs, so that after a change only those environments are assembled again that need something
that has changed.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from typing import assert_never

from gitsource import package_names, projects
from gitsource.assembly_cache import AssemblyCache, Made, size_of
from gitsource.conflicts import UNLISTED, double, of_folder, platforms, taken
from gitsource.models import EnvironmentModel
from gitsource.objects import (
    instance_of,
    kind_of_path,
    refused,
    unexpected,
    wrong_instance,
)
from gitsource.parsers import DirectParser, Parser, Text
from gitsource.recipe import Need, NeedKind, merge
from gitsource.shared_files import SharedFiles
from gitsource.team_sizes import TeamSizes, too_large
from gitsource.tree import Entry, Tree, team_of
from gitsource.typed import ReadFile
from reconciler.core.definitions import (
    TEAM_ENVIRONMENTS,
    Commit,
    Definitions,
    Environment,
    Finding,
    Instance,
    Place,
    Wave,
    differing,
)
from reconciler.core.errors import Retryable

FILE_LIMIT = 1 << 20
PACKAGE_BYTES = 64 << 20
TEAM_FILES = TEAM_ENVIRONMENTS
FINDINGS = 20  # per environment's rollout
CONTENTS = (NeedKind.FILE, NeedKind.TREE)  # needs that are paths of what is built
INPUTS = 200  # of an environment whose commit is looked for


def assemble(
    tree: Tree, commit: Commit, *, file_limit: int = FILE_LIMIT, package_bytes: int = PACKAGE_BYTES
) -> Definitions:
    """Return everything that a tree defines."""
    return Assembly(file_limit=file_limit, package_bytes=package_bytes).update(tree, commit)


@dataclass(frozen=True, slots=True)
class Part:
    """File that defines an instance or a fragment, with git's id of its content."""

    read: ReadFile
    blob: str
    instance: Instance | None = None


class Assembly:
    """Definitions of one branch, updated from revision to revision.

    `shelf` keeps the results for each environment's file over restarts, `parser` reads the files.
    """

    def __init__(
        self,
        *,
        file_limit: int = FILE_LIMIT,
        package_bytes: int = PACKAGE_BYTES,
        shelf: AssemblyCache | None = None,
        parser: Parser | None = None,
    ) -> None:
        self._parser = parser or DirectParser()
        self._file_limit = file_limit
        self._package_bytes = package_bytes
        self._shelf = shelf
        self._parts: dict[str, Part] = {}
        self._refused: dict[str, Finding] = {}
        self._made: dict[str, Made] = {}
        self._of_team: dict[str, set[str]] = {}  # paths of environments
        self._unlisted: tuple[str, ...] = ()  # teams
        self._beyond: dict[str, Finding] = {}  # files for which the team has no room
        self._needed: dict[tuple[NeedKind, str], set[str]] = {}
        self._instances: dict[str, Instance] = {}
        self._fragments: dict[str, Part] = {}
        self._doubles: list[Finding] = []

    def update(
        self, tree: Tree, commit: Commit, changed: Iterable[str] | None = None
    ) -> Definitions:
        """Return what `tree` defines; `changed` are the paths changed since the last (None: any).

        With no changed paths, it goes on with the files that were left the last time. Must not be
        called again after it raised: create a new one.
        """
        left = self._parser.deferred()
        self._parser.begin()
        self._unlisted = tree.unlisted()
        shared = SharedFiles(tree, self._parser, self._package_bytes)
        first = changed is None
        paths = list(tree.entries()) if changed is None else list(changed)
        environments, others = set(), set()
        for path in paths:
            kind = kind_of_path(path)
            if kind == "Environment":
                environments.add(path)
            elif kind is not None:
                others.add(path)
        touched = set(_needs_of_paths(paths)) if not first else set()
        touched |= self._take_parts(shared, others)
        for need in touched:
            environments |= self._needed.get(need, set())
        if paths:
            left |= {path for path, made in self._made.items() if made.environment is None}
        environments |= left
        environments |= self._count(tree, environments)
        teams = {team_of(path) for path in environments}
        environments |= {path for path in self._beyond if team_of(path) in teams}
        known = self._shelf.load() if first and self._shelf is not None else {}
        self._take_environments(shared, sorted(environments), known)
        if self._shelf is not None:
            keep = environments | known.keys()
            fresh = [p for p in keep if self._made.get(p) is not known.get(p)]
            self._shelf.save(fresh, self._made)
        return self._definitions(commit)

    def inputs(self, changed: Iterable[str]) -> Iterator[tuple[str, list[str]]]:
        """Yield the environments that are made of something at these paths, and all such paths.

        An environment with very many inputs is left out.
        """
        fragments = {name: part.read.path for name, part in self._fragments.items()}
        paths = {*changed}
        needs = {need for need in _needs_of_paths(paths) if need[0] in CONTENTS}
        needs |= {(NeedKind.FRAGMENT, name) for name, path in fragments.items() if path in paths}
        touched = self._made.keys() & paths
        touched |= {path for need in needs for path in self._needed.get(need, ())}
        for path in sorted(touched):
            made = self._made.get(path)
            if made is None or made.environment is None or len(made.needs) > INPUTS:
                continue
            own = {name for kind, name, _ in made.needs if kind in CONTENTS}
            own |= {fragments.get(n, path) for k, n, _ in made.needs if k is NeedKind.FRAGMENT}
            yield made.environment.name, sorted({path, *own})

    @property
    def is_unfinished(self) -> bool:
        """Whether files were left for the next time."""
        return bool(self._parser.deferred())

    def _count(self, tree: Tree, paths: Iterable[str]) -> set[str]:
        """Record each team's environments; return those to review because there are too many."""
        teams = set()
        for path in paths:
            team = team_of(path)
            mine = self._of_team.setdefault(team, set())
            before = len(mine)
            (mine.add if path in tree.entries() else mine.discard)(path)
            if max(before, len(mine)) > TEAM_FILES:
                teams.add(team)
        return set().union(*(self._of_team[team] for team in teams))

    def _too_many(self) -> dict[str, Finding]:
        """Return a finding for each team that has more environments than allowed."""
        template = (
            "{} environments; a team has at most {}, and files beyond that are not read: their "
            "environments stay as they are"
        )
        return {
            team: of_folder(team, template.format(len(paths), TEAM_FILES))
            for team, paths in self._of_team.items()
            if len(paths) > TEAM_FILES
        }

    # ------------------------------------------------------------------- instances and fragments

    def _take_parts(self, shared: SharedFiles, paths: set[str]) -> set[tuple[NeedKind, str]]:
        """Read these files; return the needs that are now satisfied differently."""
        entries: dict[str, Entry] = {}
        for path in paths:
            self._parts.pop(path, None)
            entry = self._readable(shared.tree, path)
            if entry is not None:
                entries[path] = entry
        for read in self._read(shared, entries.values()):
            self._parts[read.path] = Part(read, entries[read.path].blob, instance_of(read))
        if not paths:
            return set()
        by_name: dict[str, list[Part]] = {}
        for part in self._parts.values():
            if part.read.model is not None:
                by_name.setdefault(part.read.object, []).append(part)
        self._doubles = [
            double(part.read.object, part.read.place("metadata", "name"), part.read.path, same)
            for parts in by_name.values()
            if len(parts) > 1
            for same in [sorted(p.read.path for p in parts)]
            for part in parts
        ]
        single = [parts[0] for parts in by_name.values() if len(parts) == 1]
        instances = {p.instance.name: p.instance for p in single if p.instance is not None}
        fragments = {
            p.read.model.metadata.name: p
            for p in single
            if p.read.model is not None and p.instance is None
        }
        touched = {(NeedKind.INSTANCE, name) for name in differing(self._instances, instances)}
        touched |= {(NeedKind.FRAGMENT, name) for name in differing(self._fragments, fragments)}
        self._instances, self._fragments = instances, fragments
        return touched

    def _readable(self, tree: Tree, path: str) -> Entry | None:
        """Return the entry of a readable file, or None after recording why it is not readable."""
        self._refused.pop(path, None)
        entry = tree.entries().get(path)
        if entry is None:
            return None
        wrong = refused(entry, self._file_limit)
        if wrong is not None:
            self._refused[path] = wrong
            return None
        return entry

    def _read(self, shared: SharedFiles, entries: Iterable[Entry]) -> Generator[ReadFile]:
        """Read these files."""
        unread: list[ReadFile] = []

        def texts() -> Iterator[Text]:
            for entry in entries:
                try:
                    data = shared.tree.read(entry)
                except Retryable:
                    raise  # a problem of the mirror
                except Exception as error:
                    finding = unexpected(entry.path, entry.path, error)
                    unread.append(ReadFile(entry.path, None, None, (finding,)))
                else:
                    yield Text(entry.path, kind_of_path(entry.path) or "", data)

        for read in self._parser.files(texts()):
            yield package_names.with_names(read, shared)
        yield from unread

    # ------------------------------------------------------------------------------ environments

    def _take_environments(
        self, shared: SharedFiles, paths: list[str], known: Mapping[str, Made]
    ) -> None:
        """Assemble these files' environments, or reuse results if nothing they need has changed."""
        before: dict[str, Made] = {}
        kept: dict[str, Made] = {}
        unread: dict[str, Entry] = {}
        excess = {p for mine in self._of_team.values() for p in sorted(mine)[TEAM_FILES:]}
        for path in paths:
            if (old := self._forget(path)) is not None:
                before[path] = old
            entry = self._readable(shared.tree, path)
            if entry is None or path in excess:
                continue
            saved = known.get(path)
            if saved is not None and saved.blob == entry.blob and self._holds(shared, saved.needs):
                kept[path] = saved
            elif old and old.read_findings and old.blob == entry.blob and not old.needs:
                kept[path] = old  # the same text has the same mistakes
            else:
                unread[path] = entry
        sizes = TeamSizes()
        left = (entry for path, entry in unread.items() if not sizes.is_full(team_of(path)))
        with closing(self._read(shared, left)) as results:
            texts = _ByPath(results)
            for path in self._paths_of(map(team_of, paths)):
                made = self._made.get(path) or kept.get(path)
                if made is None and path not in unread:
                    continue
                if made is None and not sizes.is_full(team_of(path)):
                    begun = time.thread_time()
                    made = self._made_of(shared, texts.take(path), unread[path], before.get(path))
                    self._parser.charge(path, time.thread_time() - begun)
                if made is not None and sizes.add(team_of(path), made.environment):
                    self._keep(made)
                else:
                    self._forget(path)
                    self._beyond[path] = too_large(path, team_of(path))

    def _paths_of(self, teams: Iterable[str]) -> list[str]:
        """Return the paths of all environments of these teams, sorted."""
        return sorted(path for team in set(teams) for path in self._of_team[team])

    def _forget(self, path: str) -> Made | None:
        self._beyond.pop(path, None)
        old = self._made.pop(path, None)
        for kind, name, _ in old.needs if old is not None else ():
            self._needed.get((kind, name), set()).discard(path)
        return old

    def _keep(self, made: Made) -> None:
        self._made[made.path] = made
        for kind, name, _ in made.needs:
            self._needed.setdefault((kind, name), set()).add(made.path)

    def _made_of(self, shared: SharedFiles, read: ReadFile, entry: Entry, old: Made | None) -> Made:
        blob = "" if read.skipped else entry.blob
        try:
            made = self._make(shared, read, blob)
        except Retryable:
            raise  # a problem of the mirror
        except Exception as error:
            finding = unexpected(entry.path, read.object, error)
            made = _unmade(replace(read, model=None, findings=(finding,)), blob)
        if old is not None and made.environment == old.environment:
            made = replace(made, environment=old.environment)
        return made

    def _holds(self, shared: SharedFiles, needs: Iterable[Need]) -> bool:
        """Return True if everything that was needed is unchanged."""
        return all(self._state(shared, kind, name) == what for kind, name, what in needs)

    def _state(self, shared: SharedFiles, kind: NeedKind, name: str) -> str:
        """Return the state of an input as a recipe records it, see `Need`."""
        tree = shared.tree
        match kind:
            case NeedKind.FILE:
                entry = tree.entries().get(name)
                return entry.blob if entry is not None and entry.mode[:3] == "100" else ""
            case NeedKind.TREE:
                return tree.tree_id(name)
            case NeedKind.PACKAGES:
                return shared.fingerprint(name)
            case NeedKind.FRAGMENT:
                return self._fragments[name].blob if name in self._fragments else ""
            case NeedKind.INSTANCE:
                return self._instances[name].team if name in self._instances else ""
            case _:
                assert_never(kind)

    def _make(self, shared: SharedFiles, read: ReadFile, blob: str) -> Made:
        if not isinstance(read.model, EnvironmentModel):
            needed = [(NeedKind.PACKAGES, folder) for folder in package_names.folders(read)]
            return _unmade(
                read, blob, tuple((*need, self._state(shared, *need)) for need in needed)
            )
        team = read.path.split("/")[1]
        fragments = {name: part.read for name, part in self._fragments.items()}
        recipe, findings, needs = merge(read, fragments, shared)
        needs = tuple(
            (kind, name, self._fragments[name].blob if kind is NeedKind.FRAGMENT else what)
            for kind, name, what in needs
            if kind is not NeedKind.FRAGMENT or name in self._fragments
        )
        seen: dict[str, None] = {}
        for w, wave in enumerate(read.model.spec.rollout):
            for i, name in enumerate(wave.instances):
                wrong = None
                if len(findings) < FINDINGS:
                    wrong = wrong_instance(name, team, seen, self._instances)
                if wrong is not None:
                    location = read.place("spec", "rollout", w, "instances", i)
                    findings.append(Finding(location, read.object, *wrong))
                seen[name] = None
        spec = read.model.spec
        environment = Environment(
            read.model.metadata.name,
            team,
            Place(read.path, 1, 1),
            recipe,
            tuple(Wave(tuple(w.instances), w.soak) for w in spec.rollout),
            spec.suspend,
        )
        environment = replace(environment, size=size_of(environment))
        return Made(
            read.path,
            blob,
            read.object,
            read.place("metadata", "name"),
            read.place("spec", "rollout"),
            (*needs, *((NeedKind.INSTANCE, name, team) for name in seen)),
            None if findings else environment,
            read.findings,
            tuple(findings),
        )

    # --------------------------------------------------------------------------------- assembly

    def _definitions(self, commit: Commit) -> Definitions:
        """Combine everything: names are unique, and an instance has at most one environment."""
        findings = [*self._refused.values(), *self._doubles, *self._too_many().values()]
        findings += self._beyond.values()
        findings += [of_folder(team, UNLISTED) for team in self._unlisted]
        for part in self._parts.values():
            findings += part.read.findings
        by_name: dict[str, list[Made]] = {}
        for made in self._made.values():
            findings += made.read_findings
            if not made.read_findings:
                by_name.setdefault(made.object, []).append(made)
        owners: dict[str, list[Made]] = {}
        environments: dict[str, Environment] = {}
        contested: dict[str, tuple[Environment, ...]] = {}
        for name, same in by_name.items():
            if len(same) > 1:
                in_order = sorted(same, key=lambda made: made.path)
                sound = tuple(m.environment for m in in_order if m.environment is not None)
                contested.update({one.name: sound for one in sound})
                paths = [made.path for made in in_order]
                findings += [double(name, m.name_place, m.path, paths) for m in same]
                continue
            made = same[0]
            findings += made.findings
            if made.environment is not None:
                environments[made.environment.name] = made.environment
                for wave in made.environment.rollout:
                    for instance in wave.instances:
                        owners.setdefault(instance, []).append(made)
        findings += taken(environments, owners)
        findings += platforms(environments, self._instances)
        return Definitions(
            commit,
            environments,
            dict(self._instances),
            tuple(sorted(findings, key=_order)),
            contested,
        )


class _ByPath:
    """Results of reading, taken by path in roughly the order in which they come."""

    def __init__(self, results: Iterator[ReadFile]) -> None:
        self._results = results
        self._waiting: dict[str, ReadFile] = {}

    def take(self, path: str) -> ReadFile:
        """Return the result for a file."""
        while path not in self._waiting:
            read = next(self._results)
            self._waiting[read.path] = read
        return self._waiting.pop(path)


def _unmade(read: ReadFile, blob: str, needs: tuple[Need, ...] = ()) -> Made:
    """Return the result for a file that is not a valid environment, with its findings."""
    location = Place(read.path)
    return Made(read.path, blob, read.object, location, location, needs, None, read.findings)


def _needs_of_paths(paths: Iterable[str]) -> Iterable[tuple[NeedKind, str]]:
    """Yield the needs that files at these paths may satisfy: as a file, and as part of folders."""
    for path in paths:
        yield (NeedKind.FILE, path)
        folder, _, name = path.rpartition("/")
        if name in projects.FILES:
            yield (NeedKind.PACKAGES, folder.rpartition("/")[0])
        while folder:
            yield (NeedKind.TREE, folder)
            folder = folder.rpartition("/")[0]


def _order(finding: Finding) -> tuple[str, int, int, str]:
    location = finding.place
    return (location.file, location.line, location.column, finding.message)
