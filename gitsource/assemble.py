"""From a tree to Definitions: which files count, what they say together, and what is wrong.

A mistake in one file stops only the objects of that file.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from gitsource.models import EnvironmentModel, InstanceModel, KubernetesModel, LocalModel
from gitsource.reading import ReadFile, read_file
from gitsource.recipe import Limits, merge
from gitsource.tree import Entry, Tree
from reconciler.core.definitions import (
    Api,
    Commit,
    Component,
    Definitions,
    Environment,
    Finding,
    Instance,
    KubernetesTarget,
    LocalTarget,
    OnTimeout,
    Place,
    Wave,
    Window,
)

FILE_LIMIT = 1 << 20


@dataclass(slots=True)
class Cache:
    """Parsed files by blob id, so that only what changed is parsed."""

    files: dict[tuple[str, str], ReadFile] = field(default_factory=dict)

    def trim(self, used: set[tuple[str, str]]) -> None:
        """Forget what the present revision does not use."""
        for key in self.files.keys() - used:
            del self.files[key]


def kind_of_path(path: str) -> str | None:
    """Which kind of definition belongs at `path`; None when it is no definition."""
    parts = path.split("/")
    if not path.endswith((".yaml", ".yml")):
        return None
    if len(parts) == 2 and parts[0] == "instances":
        return "Instance"
    if len(parts) == 2 and parts[0] == "shared":
        return "Fragment"
    if len(parts) == 3 and parts[0] == "teams":
        return "Environment"
    return None


def assemble(
    tree: Tree,
    commit: Commit,
    cache: Cache | None = None,
    *,
    file_limit: int = FILE_LIMIT,
    limits: Limits | None = None,
) -> Definitions:
    """Everything that a tree defines."""
    cache = cache if cache is not None else Cache()
    findings: list[Finding] = []
    reads: list[ReadFile] = []
    used: set[tuple[str, str]] = set()
    for path, entry in tree.entries().items():
        kind = kind_of_path(path)
        if kind is None:
            continue
        refused = _refused(entry, file_limit)
        if refused is not None:
            findings.append(refused)
            continue
        key = (path, entry.blob)
        used.add(key)
        if key not in cache.files or entry.blob == path:
            cache.files[key] = _read(tree, entry, kind)
        reads.append(cache.files[key])
    cache.trim(used)
    for read in reads:
        findings += read.findings
    reads, doubles = _unique(reads)
    findings += doubles
    instances = {i.name: i for r in reads if (i := _instance(r)) is not None}
    fragments = {r.model.metadata.name: r for r in reads if r.model and r.model.kind == "Fragment"}
    environments: dict[str, Environment] = {}
    for read in reads:
        if isinstance(read.model, EnvironmentModel):
            environment, wrong = _environment(tree, read, fragments, instances, limits or Limits())
            findings += wrong
            if not wrong:
                environments[environment.name] = environment
    findings += _taken(environments, {r.object: r for r in reads})
    return Definitions(commit, environments, instances, tuple(sorted(findings, key=_order)))


def _order(finding: Finding) -> tuple[str, int, int, str]:
    place = finding.place
    return (place.file, place.line, place.column, finding.message)


def _refused(entry: Entry, limit: int) -> Finding | None:
    place = Place(entry.path)
    if entry.mode == "120000":
        return Finding(place, entry.path, "SymlinkRefused", "a symlink; commit the file itself")
    if entry.mode == "160000":
        return Finding(place, entry.path, "SubmoduleRefused", "a submodule; commit its files")
    if entry.size > limit:
        words = f"{entry.size} bytes; a definition has at most {limit}"
        return Finding(place, entry.path, "TooLarge", words)
    return None


def _read(tree: Tree, entry: Entry, kind: str) -> ReadFile:
    try:
        text = tree.read(entry).decode()
    except UnicodeDecodeError:
        place = Place(entry.path)
        words = "not UTF-8 text"
        return ReadFile(entry.path, None, None, (Finding(place, entry.path, "InvalidYaml", words),))
    read = read_file(entry.path, text)
    if read.model is not None and read.model.kind != kind:
        place = read.place("kind")
        words = f"a {read.model.kind} does not belong here; this folder holds kind: {kind}"
        return ReadFile(
            entry.path, None, read.document, (Finding(place, read.object, "InvalidValue", words),)
        )
    return read


def _unique(reads: list[ReadFile]) -> tuple[list[ReadFile], list[Finding]]:
    """Names are unique in the repo; where they are not, none of the objects counts."""
    by_name: dict[str, list[ReadFile]] = {}
    for read in reads:
        if read.model is not None:
            by_name.setdefault(read.object, []).append(read)
    findings = [
        Finding(
            read.place("metadata", "name"),
            name,
            "DuplicateName",
            f"{name} is also in {', '.join(o.path for o in same if o is not read)}; rename one",
        )
        for name, same in by_name.items()
        if len(same) > 1
        for read in same
    ]
    return [same[0] for same in by_name.values() if len(same) == 1], findings


def _instance(read: ReadFile) -> Instance | None:
    model = read.model
    if not isinstance(model, InstanceModel):
        return None
    spec = model.spec
    window = spec.maintenance.window
    extra = {"load_into": tuple(spec.loadInto)} if spec.loadInto is not None else {}
    return Instance(
        name=model.metadata.name,
        team=spec.team,
        place=Place(read.path, 1, 1),
        api=Api(spec.api.url.rstrip("/"), spec.api.credentials),
        local=_local(spec.local) if spec.local else None,
        kubernetes=_cluster(spec.kubernetes) if spec.kubernetes else None,
        drain_timeout=spec.maintenance.drain.timeout,
        on_timeout=OnTimeout(spec.maintenance.drain.onTimeout),
        probe_timeout=spec.maintenance.probe.timeout,
        window=Window(window.cron, window.duration, window.timezone) if window else None,
        suspend=spec.suspend,
        **extra,
    )


def _local(local: LocalModel) -> LocalTarget:
    components = (
        Component(name, tuple(c.restart), tuple(c.status or ()))
        for name, c in local.components.items()
    )
    return LocalTarget(local.python, local.airflowHome, tuple(components))


def _cluster(cluster: KubernetesModel) -> KubernetesTarget:
    return KubernetesTarget(cluster.namespace, cluster.release, cluster.context)


def _environment(
    tree: Tree,
    read: ReadFile,
    fragments: dict[str, ReadFile],
    instances: dict[str, Instance],
    limits: Limits,
) -> tuple[Environment, list[Finding]]:
    model = read.model
    assert isinstance(model, EnvironmentModel), "the caller has looked"
    team = read.path.split("/")[1]
    recipe, findings = merge(tree, read, fragments, limits)
    seen: set[str] = set()
    for w, wave in enumerate(model.spec.rollout):
        for i, name in enumerate(wave.instances):
            place = read.place("spec", "rollout", w, "instances", i)
            wrong = _wrong_instance(name, team, seen, instances)
            if wrong is not None:
                findings.append(Finding(place, read.object, *wrong))
            seen.add(name)
    waves = tuple(Wave(tuple(w.instances), w.soak) for w in model.spec.rollout)
    environment = Environment(
        model.metadata.name, team, Place(read.path, 1, 1), recipe, waves, model.spec.suspend
    )
    return environment, findings


def _wrong_instance(
    name: str, team: str, seen: set[str], instances: dict[str, Instance]
) -> tuple[str, str] | None:
    if name in seen:
        return "InstanceTaken", f"{name} is in this rollout twice; keep one"
    if name not in instances:
        mine = sorted(n for n, i in instances.items() if i.team == team)
        return (
            "UnknownInstance",
            f"there is no instance {name} that reads well; team {team} has: "
            f"{', '.join(mine) or 'none'}",
        )
    if instances[name].team != team:
        return (
            "ForeignInstance",
            f"{name} belongs to team {instances[name].team}; name only instances of team {team}",
        )
    return None


def _taken(environments: dict[str, Environment], reads: dict[str, ReadFile]) -> list[Finding]:
    """An instance has at most one environment; where two name it, neither of them acts."""
    owners: dict[str, list[str]] = {}
    for environment in environments.values():
        for wave in environment.rollout:
            for name in wave.instances:
                owners.setdefault(name, []).append(environment.name)
    findings: list[Finding] = []
    for name, names in sorted(owners.items()):
        if len(names) < 2:
            continue
        for owner in names:
            others = ", ".join(n for n in names if n != owner)
            read = reads[f"Environment/{owner}"]
            findings.append(
                Finding(
                    read.place("spec", "rollout"),
                    read.object,
                    "InstanceTaken",
                    f"instance {name} is also asked for by {others}; one of them must let it go",
                )
            )
    for names in owners.values():
        if len(names) > 1:
            for owner in names:
                environments.pop(owner, None)
    return findings
