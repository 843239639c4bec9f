"""The shapes of the HTTP API: queries and requests that are accepted, documents that are given.

`documents` makes the documents; these models describe them for OpenAPI, and tests hold the two
together. Queries and requests are parsed by them: unknown fields are refused.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from reconciler.core.model import Verb
from reconciler.core.phases import BuildPhase, Health, Sync

HISTORY_LIMIT = 1000  # events in one answer
FILES_LIMIT = 10_000  # files in one answer
LARGEST = (1 << 62) - 1  # ids are 64-bit integers


Word = Annotated[str, Field(max_length=300, pattern=r"^[^\x00]*$")]  # no database takes NUL
Name = Annotated[str, Field(pattern="^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")]
Key = Annotated[str, Field(pattern="^[0-9a-f]{16}$")]
Moment = AwareDatetime | None


class Shape(BaseModel):
    """A part of the contract; unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


# ------------------------------------------------------------------------------------- accepted


class NoQuery(Shape):
    """No parameters."""


class ObjectQuery(Shape):
    """Which environments or instances; all that are given have to hold."""

    team: Word | None = Field(None, description="of this team")
    sync: Sync | None = None
    health: Health | None = None
    q: Word | None = Field(None, description="in the name, team, environment, build or revision")


class HistoryQuery(Shape):
    """Which events: the newest ones, newest first; with `after` those since, oldest first."""

    after: Annotated[int, Field(ge=0, le=LARGEST)] | None = Field(
        None, description="id of the last event that is known"
    )
    object: Word | None = Field(None, description="`environment/NAME` or `instance/NAME`")
    kind: Word | None = Field(None, description="such as `ActivationActive`")
    limit: int = Field(100, ge=1, le=HISTORY_LIMIT)


class LogQuery(Shape):
    """How much of a log."""

    tail: Annotated[int, Field(ge=1, le=1 << 30)] | None = Field(
        None, description="only the last so many bytes"
    )


class FilesQuery(Shape):
    """Which files of a build."""

    package: Word | None = Field(
        None, description="of this package; absent: the definition's own, such as jars"
    )
    offset: int = Field(0, ge=0, le=LARGEST, description="how many to pass over")
    limit: int = Field(1000, ge=1, le=FILES_LIMIT)


class Ask(Shape):
    """What the daemon is asked to do."""

    verb: Verb
    target: str = Field(
        max_length=300,
        pattern="^((environment|instance)/[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)?$",
        description="`environment/NAME` or `instance/NAME`; empty for `confirm-prune`",
    )


# ---------------------------------------------------------------------------------------- given


class Problem(Shape):
    """Why something failed, in words; `place` is file:line:column in the environments repo."""

    reason: str
    message: str
    place: str | None


class Condition(Shape):
    """`Ready`, `Reconciling` or `Stalled`; `at` is when it was looked at."""

    type: Literal["Ready", "Reconciling", "Stalled"]
    status: bool
    reason: str
    message: str
    revision: str
    at: Moment


class Package(Shape):
    """A package that a build installs."""

    name: str
    version: str


class Build(Shape):
    """One build of an environment for one runtime; `build` is known once it is built."""

    key: Key
    build: str | None
    runtime: str
    phase: BuildPhase
    revision: str
    created: Moment
    attempts: int
    packages: list[Package]
    problem: Problem | None


class BuildDetail(Build):
    """A build with whose it is, its phases in seconds, and where it is used."""

    environment: str
    team: str
    recipe: str
    phases: dict[str, float]
    instances: list[str]


class File(Shape):
    """A file; `bytes` is null where its package does not say."""

    path: str
    bytes: int | None


class Files(Shape):
    """Some files of a build; `total` and `bytes` are those of all, `path`s are below `where`."""

    package: str | None
    where: str
    total: int
    bytes: int
    files: list[File]


class Environment(Shape):
    """How an environment stands; `builds` are those of its present recipe, one per runtime."""

    name: str
    team: str
    file: str
    revision: str
    recipe: str
    sync: Sync
    health: Health
    suspended: bool
    instances: list[str]
    builds: list[Build]
    conditions: list[Condition]


class Instance(Shape):
    """How an instance stands; `since` is when its phase began, `wanted` what it should be on."""

    name: str
    team: str
    environment: str | None
    build: str | None
    wanted: str | None
    phase: str
    since: Moment
    sync: Sync
    health: Health
    suspended: bool
    waits_on: str
    quarantined: list[str]
    revision: str
    conditions: list[Condition]


class Finding(Shape):
    """A mistake in the environments repo; lines and columns count from 1, 0 is unknown."""

    file: str
    line: int
    column: int
    object: str
    reason: str
    message: str


class Status(Shape):
    """Everything at `revision`, the last one accepted."""

    revision: str
    problem: Problem | None
    environments: list[Environment]
    instances: list[Instance]
    findings: list[Finding]


class Event(Shape):
    """One line of history; `phases` are seconds, `seconds` is their sum."""

    id: int
    at: Moment
    kind: str
    object: str
    team: str
    reason: str
    message: str
    revision: str
    seconds: float | None
    phases: dict[str, float]
    data: dict[str, Any]


class Distribution(Shape):
    """An installed distribution of a base, as its metadata describe it."""

    name: str
    version: str
    requires: list[str]
    provides_extra: list[str]
    requires_python: str | None


class Runtime(Shape):
    """What is installed in an instance; `tags` are the wheel tags that it takes, best first."""

    key: str
    python_version: str
    python_tag: str
    platform: str
    airflow_version: str
    tags: list[str]
    base: list[Distribution]
    listing: str = ""


class Runtimes(Shape):
    """The runtimes by their keys, and the key of each instance whose runtime is known."""

    apiVersion: Literal["groundcrew/v1"]  # noqa: N815 - as it is written
    kind: Literal["Runtimes"]
    runtimes: dict[str, Runtime]
    instances: dict[str, str]


class Request(Shape):
    """An operator's request that waits to be carried out."""

    id: int
    at: Moment
    who: str
    verb: Verb
    target: str


class Error(Shape):
    """Why a request was refused."""

    reason: str
    message: str
