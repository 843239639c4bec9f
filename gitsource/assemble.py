"""Assembly of Definitions from a tree: relevant files, their combination, and mistakes.

A mistake in one file stops only the objects of that file. The inputs of an environment are recorded
as its needs, so that after a change only those environments are assembled again that need something
that has changed.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import assert_never

from gitsource import package_names, projects
from gitsource.assembly_cache import AssemblyCache, Made
from gitsource.models import EnvironmentModel
from gitsource.objects import (
    instance_of,
    kind_of_path,
    refused,
    unexpected,
    wrong_instance,
)
from gitsource.parsers import DirectParser, Parser, Text, team_of
from gitsource.recipe import Limits, Need, NeedKind, merge
from gitsource.tree import Entry, Tree
from gitsource.typed import ReadFile
from reconciler.core.definitions import (
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
from reconciler.core.reasons import Reason

FILE_LIMIT = 1 << 20
TEAM_FILES = 2000  # environments per team
FINDINGS = 20  # per environment's rollout


def assemble(
    tree: Tree, commit: Commit, *, file_limit: int = FILE_LIMIT, limits: Limits | None = None
) -> Definitions:
    """Return everything that a tree defines."""
    return Assembly(file_limit=file_limit, limits=limits).update(tree, commit)


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
        limits: Limits | None = None,
        shelf: AssemblyCache | None = None,
        parser: Parser | None = None,
    ) -> None:
        self._parser = parser or DirectParser()
        self._file_limit = file_limit
        self._limits = limits or Limits()
        self._shelf = shelf
        self._parts: dict[str, Part] = {}
        self._refused: dict[str, Finding] = {}
        self._made: dict[str, Made] = {}
        self._of_team: dict[str, set[str]] = {}  # paths of environments
        self._needed: dict[tuple[NeedKind, str], set[str]] = {}
        self._instances: dict[str, Instance] = {}
        self._fragments: dict[str, Part] = {}
        self._doubles: list[Finding] = []

    def update(
        self, tree: Tree, commit: Commit, changed: Iterable[str] | None = None
    ) -> Definitions:
        """Return what `tree` defines; `changed` are the paths changed since the last (None: any).

        Must not be called again after it raised: create a new one.
        """
        self._parser.begin()
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
        touched |= self._take_parts(tree, others)
        for need in touched:
            environments |= self._needed.get(need, set())
        environments |= {path for path, made in self._made.items() if made.environment is None}
        environments |= self._count(tree, environments)
        known = self._shelf.load() if first and self._shelf is not None else {}
        self._take_environments(tree, sorted(environments), known)
        if self._shelf is not None:
            keep = environments | known.keys()
            fresh = [p for p in keep if self._made.get(p) is not known.get(p)]
            self._shelf.save(fresh, self._made)
        return self._definitions(commit)

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
            team: Finding(
                Place(f"teams/{team}/"),
                f"teams/{team}/",
                Reason.TOO_LARGE,
                template.format(len(paths), TEAM_FILES),
            )
            for team, paths in self._of_team.items()
            if len(paths) > TEAM_FILES
        }

    # ------------------------------------------------------------------- instances and fragments

    def _take_parts(self, tree: Tree, paths: set[str]) -> set[tuple[NeedKind, str]]:
        """Read these files; return the needs that are now satisfied differently."""
        entries: dict[str, Entry] = {}
        for path in paths:
            self._parts.pop(path, None)
            entry = self._readable(tree, path)
            if entry is not None:
                entries[path] = entry
        for read in self._read(tree, entries.values()):
            self._parts[read.path] = Part(read, entries[read.path].blob, instance_of(read))
        if not paths:
            return set()
        by_name: dict[str, list[Part]] = {}
        for part in self._parts.values():
            if part.read.model is not None:
                by_name.setdefault(part.read.object, []).append(part)
        self._doubles = [
            _double(part.read.object, part.read.place("metadata", "name"), part.read.path, same)
            for same in ([(p.read.path, p) for p in parts] for parts in by_name.values())
            if len(same) > 1
            for _, part in same
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

    def _read(self, tree: Tree, entries: Iterable[Entry]) -> Iterator[ReadFile]:
        """Read these files."""
        unread: list[ReadFile] = []

        def texts() -> Iterator[Text]:
            for entry in entries:
                try:
                    data = tree.read(entry)
                except Retryable:
                    raise  # a problem of the mirror
                except Exception as error:
                    finding = unexpected(entry.path, entry.path, error)
                    unread.append(ReadFile(entry.path, None, None, (finding,)))
                else:
                    yield Text(entry.path, kind_of_path(entry.path) or "", data)

        for read in self._parser.files(texts()):
            yield package_names.with_names(read, tree, self._parser)
        yield from unread

    # ------------------------------------------------------------------------------ environments

    def _take_environments(self, tree: Tree, paths: list[str], known: Mapping[str, Made]) -> None:
        """Assemble these files' environments, or reuse results if nothing they need has changed."""
        before: dict[str, Made] = {}
        unread: dict[str, Entry] = {}
        excess = {p for mine in self._of_team.values() for p in sorted(mine)[TEAM_FILES:]}
        for path in paths:
            if (old := self._forget(path)) is not None:
                before[path] = old
            entry = self._readable(tree, path)
            if entry is None or path in excess:
                continue
            kept = known.get(path)
            if kept is not None and kept.blob == entry.blob and self._holds(tree, kept.needs):
                self._keep(kept)
            elif old and old.read_findings and old.blob == entry.blob and not old.needs:
                self._keep(old)  # the same text has the same mistakes
            else:
                unread[path] = entry
        for read in self._read(tree, unread.values()):
            begun = time.thread_time()
            self._keep(self._made_of(tree, read, unread[read.path], before.get(read.path)))
            self._parser.charge(read.path, time.thread_time() - begun)

    def _forget(self, path: str) -> Made | None:
        old = self._made.pop(path, None)
        for kind, name, _ in old.needs if old is not None else ():
            self._needed.get((kind, name), set()).discard(path)
        return old

    def _keep(self, made: Made) -> None:
        self._made[made.path] = made
        for kind, name, _ in made.needs:
            self._needed.setdefault((kind, name), set()).add(made.path)

    def _made_of(self, tree: Tree, read: ReadFile, entry: Entry, old: Made | None) -> Made:
        blob = "" if read.skipped else entry.blob
        try:
            made = self._make(tree, read, blob)
        except Retryable:
            raise  # a problem of the mirror
        except Exception as error:
            finding = unexpected(entry.path, read.object, error)
            made = _unmade(replace(read, model=None, findings=(finding,)), blob)
        if old is not None and made.environment == old.environment:
            made = replace(made, environment=old.environment)
        return made

    def _holds(self, tree: Tree, needs: Iterable[Need]) -> bool:
        """Return True if everything that was needed is unchanged."""
        return all(self._state(tree, kind, name) == what for kind, name, what in needs)

    def _state(self, tree: Tree, kind: NeedKind, name: str) -> str:
        """Return the state of an input as a recipe records it, see `Need`."""
        match kind:
            case NeedKind.FILE:
                entry = tree.entries().get(name)
                return entry.blob if entry is not None and entry.mode[:3] == "100" else ""
            case NeedKind.TREE:
                return tree.tree_id(name)
            case NeedKind.PACKAGES:
                return projects.fingerprint(tree, name)
            case NeedKind.FRAGMENT:
                return self._fragments[name].blob if name in self._fragments else ""
            case NeedKind.INSTANCE:
                return self._instances[name].team if name in self._instances else ""
            case _:
                assert_never(kind)

    def _make(self, tree: Tree, read: ReadFile, blob: str) -> Made:
        if not isinstance(read.model, EnvironmentModel):
            needed = [(NeedKind.PACKAGES, folder) for folder in package_names.folders(read)]
            return _unmade(read, blob, tuple((*need, self._state(tree, *need)) for need in needed))
        team = read.path.split("/")[1]
        fragments = {name: part.read for name, part in self._fragments.items()}
        recipe, findings, needs = merge(tree, read, fragments, self._limits, self._parser)
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
                paths = [(m.path, m) for m in same]
                findings += [_double(name, m.name_place, m.path, paths) for m in same]
                continue
            made = same[0]
            findings += made.findings
            if made.environment is not None:
                environments[made.environment.name] = made.environment
                for wave in made.environment.rollout:
                    for instance in wave.instances:
                        owners.setdefault(instance, []).append(made)
        findings += _taken(environments, owners)
        findings += _platforms(environments, self._instances)
        return Definitions(
            commit,
            environments,
            dict(self._instances),
            tuple(sorted(findings, key=_order)),
            contested,
        )


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


def _double(name: str, place: Place, path: str, same: Iterable[tuple[str, object]]) -> Finding:
    """Return the finding for a name that is not unique; none of the objects with it counts."""
    others = ", ".join(sorted(other for other, _ in same if other != path))
    return Finding(place, name, Reason.DUPLICATE_NAME, f"{name} is also in {others}; rename one")


def _taken(environments: dict[str, Environment], owners: Mapping[str, list[Made]]) -> list[Finding]:
    """Return findings for instances that two environments name; neither of these acts."""
    findings: list[Finding] = []
    shared = {
        name: sorted(mades, key=lambda m: m.path)
        for name, mades in owners.items()
        if len(mades) > 1
    }
    for name, mades in sorted(shared.items()):
        for made in mades:
            others = ", ".join(m.object.partition("/")[2] for m in mades if m is not made)
            findings.append(
                Finding(
                    made.rollout_place,
                    made.object,
                    Reason.INSTANCE_TAKEN,
                    f"instance {name} is also requested by {others}; remove it from all but one",
                )
            )
    for mades in shared.values():
        for made in mades:
            environments.pop(made.object.partition("/")[2], None)
    return findings


def _platforms(
    environments: dict[str, Environment], instances: Mapping[str, Instance]
) -> list[Finding]:
    """Return findings for indexes that use an Airflow API's secret, which is the platform's."""
    used = {
        (instance.team, instance.api.credentials): name
        for name, instance in sorted(instances.items(), reverse=True)
    }
    findings = [
        Finding(
            environment.place,
            f"Environment/{environment.name}",
            Reason.CREDENTIALS_TAKEN,
            f"the secret {index.credentials} of index {index.name} is that of instance "
            f"{used[environment.team, index.credentials]}'s Airflow API and is sent to nobody "
            f"else; give the index a secret of its own",
        )
        for environment in environments.values()
        for index in environment.recipe.indexes
        if index.credentials and (environment.team, index.credentials) in used
    ]
    for finding in findings:
        environments.pop(finding.object.partition("/")[2], None)
    return findings
