"""The nouns of the environments repo: what teams and the platform ask for.

Times are seconds since the epoch (UTC) as float; durations are seconds; digests are lower-case hex
SHA-256. Nothing here does I/O.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum


@dataclass(frozen=True, slots=True)
class Place:
    """A position in the environments repo; `line` and `column` count from 1, 0 means unknown."""

    file: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        return ":".join([self.file, *(str(n) for n in (self.line, self.column) if n)])


# --------------------------------------------------------------------------- what a team asks for


@dataclass(frozen=True, slots=True)
class Requirement:
    """One PEP 508 requirement, or an in-repo package when `package` is set (`name @ ./path`)."""

    text: str
    place: Place
    package: str | None = None  # repo path of the in-repo package's directory


@dataclass(frozen=True, slots=True)
class SourcePackage:
    """An in-repo source package: `tree` is the git tree id of its directory `path`."""

    name: str
    path: str
    tree: str
    place: Place


@dataclass(frozen=True, slots=True)
class Index:
    """A package index. `packages` are the name globs that come from it and from no other."""

    name: str
    url: str
    packages: tuple[str, ...]
    credentials: str | None = None
    ca_bundle: str | None = None  # PEM text


@dataclass(frozen=True, slots=True)
class FileItem:
    """A jar or a file to place beside the packages: exactly one of `jar`, `url` is set."""

    sha256: str
    jar: str | None = None  # group:artifact:version, from the Maven repository of the settings
    url: str | None = None
    path: str = ""  # below the build's files: `bin/duckdb`; jars default to `jars/<file name>`
    mode: int = 0o644

    @property
    def target(self) -> str:
        """Where it goes, below the build's files."""
        if self.path or self.jar is None:
            return self.path
        _, artifact, version = self.jar.split(":")
        return f"jars/{artifact}-{version}.jar"


class Measure(StrEnum):
    """In what the cost of a build's imports is counted; the values are the report's keys."""

    FILES = "files"
    OPENS = "opens"
    BYTES = "bytes"
    SECONDS = "seconds"

    @property
    def key(self) -> str:
        """Its key in a definition's checks.importBudget."""
        return "time" if self is Measure.SECONDS else self.value


@dataclass(frozen=True, slots=True)
class ImportLimit:
    """The most that the imports of a build may cost, and where the definition says so.

    It is about the environment that asks for a build and not part of the build: another environment
    may use the same one under other limits.
    """

    measure: Measure
    most: float
    place: Place


@dataclass(frozen=True, slots=True)
class Checks:
    """What verification proves beside the import of every module."""

    imports: tuple[str, ...] = ()
    dags: tuple[tuple[str, str], ...] = ()  # (repo path, text of the file)
    timeout: float = 300.0
    budget: tuple[ImportLimit, ...] = ()  # at most one of each measure
    exclude: tuple[str, ...] = ()  # globs of modules that are not looked at


@dataclass(frozen=True, slots=True)
class Recipe:
    """All that shapes a build; equal recipes give the same `digest`, whatever the revision.

    The limits in `checks.budget` shape nothing and are not in the digest.
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


@dataclass(frozen=True, slots=True)
class Wave:
    """Instances that activate together; the next wave starts `soak` seconds after they did."""

    instances: tuple[str, ...]
    soak: float = 0.0


@dataclass(frozen=True, slots=True)
class Environment:
    """What a team asks for."""

    name: str
    team: str
    place: Place
    recipe: Recipe
    rollout: tuple[Wave, ...] = ()
    suspend: bool = False


class OnTimeout(StrEnum):
    """What a drain does at its deadline."""

    ABORT = "abort"
    PROCEED = "proceed"


@dataclass(frozen=True, slots=True)
class Window:
    """Opens at each `cron` match in `timezone`, and stays open `duration` seconds."""

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
    """How one local Airflow component is restarted (argv); `status` exits 0 while it is up."""

    name: str
    restart: tuple[str, ...]
    status: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class LocalTarget:
    """An Airflow on this machine."""

    python: str
    airflow_home: str
    components: tuple[Component, ...]


@dataclass(frozen=True, slots=True)
class KubernetesTarget:
    """An Airflow from the official chart."""

    namespace: str
    release: str
    context: str | None = None


IN_CLUSTER = "in-cluster"  # the site of instances in the daemon's own cluster


@dataclass(frozen=True, slots=True)
class Instance:
    """One Airflow deployment, owned by one team; exactly one of `local`, `kubernetes` is set."""

    name: str
    team: str
    place: Place
    api: Api
    local: LocalTarget | None = None
    kubernetes: KubernetesTarget | None = None
    load_into: tuple[str, ...] = (
        "scheduler", "dag-processor", "triggerer", "worker", "api-server", "webserver",
    )  # fmt: skip
    drain_timeout: float = 900.0
    on_timeout: OnTimeout = OnTimeout.ABORT
    probe_timeout: float = 300.0
    window: Window | None = None
    suspend: bool = False

    @property
    def site(self) -> str:
        """Where its work is done: a cluster's context, IN_CLUSTER, or "" for this machine."""
        if self.kubernetes is None:
            return ""
        return self.kubernetes.context or IN_CLUSTER


@dataclass(frozen=True, slots=True)
class Finding:
    """A mistake in the environments repo: that object is Stalled, every other goes on."""

    place: Place
    object: str  # "Environment/analytics", "Instance/x", or the file when no name could be read
    reason: str
    message: str

    @property
    def subject(self) -> str:
        """What it is about, as events and metrics name it: "environment/analytics", or the file."""
        kind, _, name = self.object.partition("/")
        named = kind in ("Environment", "Instance", "Fragment")
        return f"{kind.lower()}/{name}" if named else self.object

    @property
    def team(self) -> str:
        """The team in whose folder it is; "" for one of the platform's."""
        parts = self.place.file.split("/")
        return parts[1] if parts[0] == "teams" and len(parts) > 2 else ""


@dataclass(frozen=True, slots=True)
class Commit:
    """Who asked: for messages and history."""

    revision: str
    author: str = ""
    subject: str = ""
    at: float = 0.0


@dataclass(frozen=True, slots=True)
class Definitions:
    """All that the environments repo asks for at one revision.

    An object that is known and has a finding now is Stalled and kept as it is, never treated as
    deleted: see `Broken`. `contested` holds what several files define under one name: that name is
    not in `environments`, and each of these files has a finding.
    """

    commit: Commit
    environments: Mapping[str, Environment] = field(default_factory=dict)
    instances: Mapping[str, Instance] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()
    contested: Mapping[str, tuple[Environment, ...]] = field(default_factory=dict)


def differing(old: Mapping[str, object], new: Mapping[str, object]) -> set[str]:
    """Keys of what is not the very same object in both."""
    if old is new:
        return set()
    found = {key for key, value in new.items() if old.get(key) is not value}
    return found | (old.keys() - new.keys())


class Broken:
    """Which of the `known` objects a revision has in a broken file, wherever that lies by now.

    An object is broken by a finding in the file that it is known from, or by one that names it in
    another: its file was renamed. A new file of which no name can be read may hold whatever is gone
    from its folder.
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
        words = "; what is gone from this folder may be in this file, so it is not deleted"
        self._of_folder = {
            _folder(file): replace(finding, message=f"{finding.message}{words}")
            for file, finding in nameless.items()
        }

    def by(self, one: Environment | Instance) -> Finding | None:
        """The finding for which an object that is not defined is not deleted either."""
        file = one.place.file
        return (
            self._of_file.get(file)
            or self._of_object.get(f"{type(one).__name__}/{one.name}")
            or self._of_folder.get(_folder(file))
        )


def _folder(file: str) -> str:
    return file.rpartition("/")[0]
