"""Objects of the environments repo, as defined by teams and the platform.

Times are seconds since the epoch (UTC) as float; durations are seconds; digests are lower-case hex
SHA-256. Nothing here performs I/O.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from fnmatch import translate
from itertools import compress, filterfalse
from operator import is_not

from reconciler.core.reasons import Reason


@dataclass(frozen=True, slots=True)
class Place:
    """Position in the environments repo; `line` and `column` count from 1, 0 means unknown."""

    file: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        return ":".join([self.file, *(str(n) for n in (self.line, self.column) if n)])


# ------------------------------------------------------------------------- requirements of a team


@dataclass(frozen=True, slots=True)
class Requirement:
    """PEP 508 requirement, or an in-repo package if `package` is set (`name @ ./path`)."""

    text: str
    place: Place
    package: str | None = None  # repo path of the in-repo package's directory


@dataclass(frozen=True, slots=True)
class SourcePackage:
    """In-repo source package; `tree` is the git tree id of its directory `path`."""

    name: str
    path: str
    tree: str
    place: Place

    def missing(self, extras: Collection[str], known: Collection[str]) -> str:
        """Return the message for extras that the package lacks; `known` are those that it has."""
        others = f"it has {', '.join(sorted(known))}" if known else "it has none"
        return (
            f"{self.name} has no extra {', '.join(sorted(extras))} ({others}); correct the name, "
            f"or add it to [project.optional-dependencies] in {self.path}/pyproject.toml"
        )


@dataclass(frozen=True, slots=True)
class Index:
    """Package index; `packages` are globs of names that come from it and from no other index."""

    name: str
    url: str
    packages: tuple[str, ...]
    credentials: str | None = None
    ca_bundle: str | None = None  # PEM text


WILD = frozenset("*?[")


class Globs:
    """Names and globs of packages, compiled once for many names."""

    def __init__(self, globs: Iterable[str]) -> None:
        normalised = {re.sub(r"[-_.]+", "-", glob).lower() for glob in globs}
        self._names = frozenset(one for one in normalised if not WILD.intersection(one))
        patterns = "|".join(map(translate, sorted(normalised - self._names)))
        self._pattern = re.compile(f"(?:{patterns})") if patterns else None

    def match(self, name: str) -> bool:
        """Return True if one of the globs matches a normalised name of a package."""
        if name in self._names:
            return True
        return self._pattern is not None and self._pattern.match(name) is not None


@dataclass(frozen=True, slots=True)
class FileItem:
    """Jar or file to install beside the packages: exactly one of `jar`, `url` is set."""

    sha256: str
    jar: str | None = None  # group:artifact:version[:classifier], from the settings' repository
    url: str | None = None
    path: str = ""  # below the build's files: `bin/duckdb`; jars default to `jars/<file name>`
    mode: int = 0o644

    @property
    def target(self) -> str:
        """The destination path, below the build's files."""
        if self.path or self.jar is None:
            return self.path
        return f"jars/{self.jar_address.rpartition('/')[2]}"

    @property
    def jar_address(self) -> str:
        """The jar's path below the root of a Maven repository."""
        assert self.jar is not None, "only jars have one"
        group, artifact, version, *classifier = self.jar.split(":")
        name = "-".join([artifact, version, *classifier])
        return f"{group.replace('.', '/')}/{artifact}/{version}/{name}.jar"


class Measure(StrEnum):
    """Unit in which the cost of a build's imports is counted; values are keys of the report."""

    FILES = "files"
    OPENS = "opens"
    BYTES = "bytes"
    SECONDS = "seconds"

    @property
    def key(self) -> str:
        """The key in a definition's checks.importBudget."""
        return "time" if self is Measure.SECONDS else self.value


@dataclass(frozen=True, slots=True)
class ImportLimit:
    """Maximum cost of a build's imports, and its position in the definition.

    It belongs to the environment that asks for a build, and is not part of the build: another
    environment may use the same build with other limits.
    """

    measure: Measure
    most: float
    place: Place


@dataclass(frozen=True, slots=True)
class Checks:
    """Checks of verification in addition to importing every module."""

    imports: tuple[str, ...] = ()
    dags: tuple[tuple[str, str], ...] = ()  # (repo path, text of the file)
    timeout: float = 300.0
    budget: tuple[ImportLimit, ...] = ()  # at most one of each measure
    exclude: tuple[str, ...] = ()  # globs of modules that are not imported


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything that determines a build; equal recipes have the same `digest` in any revision.

    The limits in `checks.budget` do not change a build and are not in the digest; neither are the
    `internal` packages, which are in the repo beside those that are asked for.
    """

    digest: str
    requirements: tuple[Requirement, ...] = ()
    constraints: tuple[tuple[str, str], ...] = ()  # (repo path, its constraints, one a line)
    packages: tuple[SourcePackage, ...] = ()
    indexes: tuple[Index, ...] = ()
    source_builds: tuple[str, ...] = ()
    files: tuple[FileItem, ...] = ()
    env: tuple[tuple[str, str], ...] = ()
    checks: Checks = Checks()
    build_constraints: tuple[str, ...] = ()  # PEP 508, for what building wheels needs
    build_env: tuple[tuple[str, str], ...] = ()  # variables of build backends
    internal: tuple[tuple[str, str], ...] = ()  # (name, repo path), not listed
    hashes: tuple[tuple[str, tuple[str, ...]], ...] = ()  # (name, SHA-256 of the files it may be)

    def allowing(self, *names: str) -> str:
        """Return the line of a definition that lets these be built from source as well."""
        return f"sourceBuilds: [{', '.join(sorted({*self.source_builds, *names}))}]"


@dataclass(frozen=True, slots=True)
class Wave:
    """Instances that activate together; the next wave starts `soak` seconds after they did."""

    instances: tuple[str, ...]
    soak: float = 0.0


TEAM_BYTES = 32 << 20
"""Limit on the size of a team's environments together, as JSON with the contents of their files."""
TEAM_ENVIRONMENTS = 2000  # of one team


@dataclass(frozen=True, slots=True)
class Environment:
    """Environment as a team defines it; `size` is that of all this as JSON, in bytes."""

    name: str
    team: str
    place: Place
    recipe: Recipe
    rollout: tuple[Wave, ...] = ()
    suspend: bool = False
    size: int = 0


class OnTimeout(StrEnum):
    """Action of a drain at its deadline."""

    ABORT = "abort"
    PROCEED = "proceed"


@dataclass(frozen=True, slots=True)
class Window:
    """Maintenance window that opens at each match of `cron` for `duration` seconds."""

    cron: str
    duration: float
    timezone: str = "UTC"


@dataclass(frozen=True, slots=True)
class Api:
    """Airflow's REST API; `credentials` names a secret of the team."""

    url: str
    credentials: str | None = None


@dataclass(frozen=True, slots=True)
class Component:
    """Commands (argv) of a local Airflow component; `status` exits with 0 while it is running."""

    name: str
    restart: tuple[str, ...]
    status: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class LocalTarget:
    """Airflow on this machine."""

    python: str
    airflow_home: str
    components: tuple[Component, ...]


@dataclass(frozen=True, slots=True)
class KubernetesTarget:
    """Airflow from the official chart."""

    namespace: str
    release: str
    context: str | None = None


@dataclass(frozen=True, slots=True)
class DagOrigin:
    """Location of the DAGs of a release whose pods do not show it.

    One of `claim` (in the release's namespace, mounted at `path`), `image` (a folder of it) and
    `container` (which fetches them from git) is set; `path` is the DAG folder.
    """

    claim: str = ""
    sub_path: str = ""
    image: str = ""
    container: str = ""
    path: str = ""


IN_CLUSTER = "in-cluster"  # the site of instances in the daemon's own cluster


@dataclass(frozen=True, slots=True)
class Instance:
    """Airflow deployment, owned by one team; exactly one of `local`, `kubernetes` is set."""

    name: str
    team: str
    place: Place
    api: Api
    local: LocalTarget | None = None
    kubernetes: KubernetesTarget | None = None
    load_into: tuple[str, ...] = (
        "scheduler",
        "dag-processor",
        "triggerer",
        "worker",
        "api-server",
        "webserver",
    )
    drain_timeout: float = 900.0
    on_timeout: OnTimeout = OnTimeout.ABORT
    probe_timeout: float = 300.0
    window: Window | None = None
    suspend: bool = False
    dags: DagOrigin | None = None
    checks_as_release: bool = False  # its DAGs are parsed with the release's own variables
    restarts_all: bool = False  # its components are listed: each is restarted at every activation

    @property
    def site(self) -> str:
        """The site of its work: a cluster's context, IN_CLUSTER, or "" for this machine."""
        if self.kubernetes is None:
            return ""
        return self.kubernetes.context or IN_CLUSTER


@dataclass(frozen=True, slots=True)
class Finding:
    """Mistake in the environments repo: that object is Stalled, all others continue."""

    place: Place
    object: str  # "Environment/analytics", "Instance/x", or the file if no name could be read
    reason: Reason
    message: str

    @property
    def subject(self) -> str:
        """The subject as named in events and metrics: "environment/analytics", or the file."""
        kind, _, name = self.object.partition("/")
        named = kind in ("Environment", "Instance", "Fragment")
        return f"{kind.lower()}/{name}" if named else self.object

    @property
    def team(self) -> str:
        """The team in whose folder the file is, or "" for the platform's."""
        parts = self.place.file.split("/")
        return parts[1] if parts[0] == "teams" and len(parts) > 2 else ""


@dataclass(frozen=True, slots=True)
class Commit:
    """Author and subject of a commit, for messages and history."""

    revision: str
    author: str = ""
    subject: str = ""
    at: float = 0.0


@dataclass(frozen=True, slots=True)
class Definitions:
    """Everything that the environments repo defines at one revision.

    A known object that has a finding now is Stalled and kept as it is, never treated as deleted:
    see `Broken`. `contested` holds environments that several files define under one name: that name
    is not in `environments`, and each of these files has a finding. `commits` holds the commit that
    touched an environment last, if there were several since the revision before; absent: `commit`.
    """

    commit: Commit
    environments: Mapping[str, Environment] = field(default_factory=dict)
    instances: Mapping[str, Instance] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()
    contested: Mapping[str, tuple[Environment, ...]] = field(default_factory=dict)
    commits: Mapping[str, Commit] = field(default_factory=dict)


def differing(old: Mapping[str, object], new: Mapping[str, object]) -> set[str]:
    """Return the keys whose values are not the identical object in both mappings."""
    if old is new:
        return set()
    changed = set(compress(new, map(is_not, map(old.get, new), new.values())))  # for ten thousand
    changed.update(filterfalse(new.__contains__, old))
    return changed


class Broken:
    """Known objects that a revision has in a broken file, even if the file was moved.

    An object is broken by a finding in the file that it is known from, or by a finding that names
    it in another file, because its file was renamed. A new file without a readable name may contain
    any object that is gone from its folder.
    """

    def __init__(self, definitions: Definitions, known: Iterable[Environment | Instance]) -> None:
        self._of_file: dict[str, Finding] = {}
        self._of_object: dict[str, Finding] = {}
        nameless: dict[str, Finding] = {}
        for finding in definitions.findings:
            file = finding.place.file
            self._of_file.setdefault(file, finding)
            if finding.object == file:
                nameless.setdefault(file, finding)
            else:
                self._of_object.setdefault(finding.object, finding)
        for one in known if nameless else ():
            nameless.pop(one.place.file, None)
        suffix = "; what is gone from this folder may be in this file, so it is not deleted"
        self._of_folder = {
            _folder(file): replace(finding, message=f"{finding.message}{suffix}")
            for file, finding in nameless.items()
        }

    def by(self, one: Environment | Instance) -> Finding | None:
        """Return the finding that keeps an undefined object from counting as deleted, or None."""
        file = one.place.file
        return (
            self._of_file.get(file)
            or self._of_object.get(f"{type(one).__name__}/{one.name}")
            or self._of_folder.get(_folder(file))
        )


def _folder(file: str) -> str:
    return file.rpartition("/")[0]
