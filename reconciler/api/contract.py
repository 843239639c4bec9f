"""Models of the HTTP API: queries and requests that it accepts, documents that it returns.

`documents` creates the documents; these models describe them for OpenAPI, and tests keep the two
consistent. Queries and requests are parsed by the models: unknown fields are rejected.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, PlainSerializer

from reconciler.core.model import Options, Verb
from reconciler.core.phases import BuildPhase, Health, Sync
from reconciler.core.states import State
from reconciler.core.waits import WaitOn

HISTORY_LIMIT = 1000  # events in one response
FILES_LIMIT = 10_000  # files in one response
LARGEST = (1 << 62) - 1  # ids are 64-bit integers


Word = Annotated[str, Field(max_length=300, pattern=r"^[^\x00]*$")]  # databases do not accept NUL
Name = Annotated[str, Field(pattern="^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")]
Key = Annotated[str, Field(pattern="^[0-9a-f]{16}$")]


def _iso(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


Time = Annotated[
    AwareDatetime,
    PlainSerializer(
        _iso, return_type=Annotated[str, Field(json_schema_extra={"format": "date-time"})]
    ),
]
Moment = Time | None


class Shape(BaseModel):
    """Part of the contract; unknown fields are rejected."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)


# ------------------------------------------------------------------------------------- requests


class NoQuery(Shape):
    """No parameters."""


class StatusQuery(Shape):
    """Demand on the age of the status."""

    fresh: bool = Field(
        False, description="as it is when the request arrives; otherwise a few seconds old at most"
    )


class ObjectQuery(Shape):
    """Filter of environments or instances; all given conditions have to hold."""

    team: Word | None = Field(None, description="of this team")
    sync: Sync | None = None
    health: Health | None = None
    q: Word | None = Field(None, description="in the name, team, environment, build or revision")


class HistoryQuery(Shape):
    """Filter of events: the newest first, or with `after` the following ones, oldest first."""

    after: Annotated[int, Field(ge=0, le=LARGEST)] | None = Field(
        None, description="id of the last event that is known"
    )
    object: Word | None = Field(None, description="`environment/NAME` or `instance/NAME`")
    before: Annotated[int, Field(ge=1, le=LARGEST)] | None = Field(
        None, description="id of the event before which the newest are returned"
    )
    kind: Word | None = Field(
        None, description="such as `ActivationActive`; several are separated by commas"
    )
    limit: int = Field(100, ge=1, le=HISTORY_LIMIT)

    @property
    def kinds(self) -> list[str]:
        """The kinds of events; empty for all."""
        return self.kind.split(",") if self.kind else []


class LogQuery(Shape):
    """Part of a log to return."""

    tail: Annotated[int, Field(ge=1, le=1 << 30)] | None = Field(
        None, description="only the last so many bytes"
    )
    offset: Annotated[int, Field(ge=0, le=LARGEST)] | None = Field(
        None, description="only what follows this byte; from the begin if the log is shorter"
    )


class BuildsQuery(Shape):
    """Filter of builds; all given conditions have to hold."""

    environment: Word | None = None
    runtime: Word | None = Field(None, description="key of the runtime")


class FilesQuery(Shape):
    """Selection of a build's files."""

    package: Word | None = Field(
        None, description="of this package; absent: the definition's own, such as jars"
    )
    offset: int = Field(0, ge=0, le=LARGEST, description="how many to pass over")
    limit: int = Field(1000, ge=1, le=FILES_LIMIT)


class Ask(Shape):
    """Request to the daemon."""

    verb: Verb
    target: str = Field(
        max_length=300,
        pattern="^((environment|instance)/[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)?$",
        description="`environment/NAME` or `instance/NAME`; empty for `confirm-prune`",
    )
    reason: Word = Field("", description="of `suspend`: why, for the history")
    until: Moment = Field(None, description="of `suspend`: when it ends by itself")
    now: bool = Field(
        False, description="of `activate`: whether it does not wait for the window either"
    )

    @property
    def options(self) -> Options:
        """The details as the records have them."""
        until = self.until.timestamp() if self.until is not None else 0.0
        return Options(reason=self.reason, until=until, now=self.now)


# ------------------------------------------------------------------------------------ responses


class Problem(Shape):
    """Reason for a failure; `place` is file:line:column in the environments repo."""

    reason: str
    message: str
    place: str | None


class Condition(Shape):
    """Condition `Ready`, `Reconciling` or `Stalled`; `at` is when `status` last changed."""

    type: Literal["Ready", "Reconciling", "Stalled"]
    status: bool
    reason: str
    message: str
    revision: str
    at: Moment


class Package(Shape):
    """Package that a build installs."""

    name: str
    version: str


class Build(Shape):
    """Build of an environment for one runtime; `build` is known once it is built."""

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
    """Build with its owner, phase durations in seconds, and instances."""

    environment: str
    team: str
    recipe: str
    phases: dict[str, float]
    instances: list[str]


class File(Shape):
    """File; `bytes` is null if its package does not declare the size."""

    path: str
    bytes: int | None


class Files(Shape):
    """Files of a build; `total` and `bytes` are of all files, `path`s are below `where`."""

    package: str | None
    where: str
    total: int
    bytes: int
    files: list[File]


class Suspension(Shape):
    """Details of a suspension by an operator; `until` is when it ends by itself."""

    who: str
    reason: str
    until: Moment


class Environment(Shape):
    """Status of an environment; `builds` are those of its current recipe, one per runtime.

    `wrong`: something failed at it, and a person should know.
    """

    name: str
    team: str
    file: str
    revision: str
    recipe: str
    sync: Sync
    health: Health
    state: State
    reason: str
    message: str
    wrong: bool
    suspended: bool
    suspension: Suspension | None
    instances: list[str]
    builds: list[Build]
    conditions: list[Condition]


class UnjudgedDag(Shape):
    """A DAG file of which nothing is known, and why."""

    file: str
    why: str


class Dags(Shape):
    """DAG files that were parsed with the wanted build before the switch.

    `seen` counts them, and `names` are the first; `failing` fail without that build too. `unseen`
    says why DAGs were not seen; empty where all were.
    """

    source: str
    seen: int
    names: list[str]
    failing: list[str]
    unjudged: list[UnjudgedDag]
    unseen: str


class WayBack(Shape):
    """The build that a rollback requested now returns to, or why it would be refused."""

    build: str | None
    refused: str


class Instance(Shape):
    """Status of an instance; `since` is when its phase began, `wanted` the build it should have.

    `runtime` is the key of its base's runtime. `wrong`: something failed at it, and a person should
    know; `notable`: people should be told why it is in its state. `activating` is true while an
    activation runs; `pools` are the slots of its pools before that, which set them to 0.
    `earlier_builds` are by component that kept its processes: they may run one of these instead of
    `build`, as nothing that the component loads differs.
    `waits_for` is the subject of `waits_on`. `dags` is null while the wanted build has not been
    verified for this instance.
    """

    name: str
    team: str
    environment: str | None
    runtime: str | None
    build: str | None
    wanted: str | None
    activating: bool
    pools: dict[str, int]
    earlier_builds: dict[str, list[str]] = Field(default_factory=dict)
    phase: str
    since: Moment
    sync: Sync
    health: Health
    state: State
    reason: str
    message: str
    wrong: bool
    notable: bool
    suspended: bool
    suspension: Suspension | None
    waits_for: WaitOn | None
    waits_on: str
    rollback: WayBack
    quarantined: list[str]
    revision: str
    conditions: list[Condition]
    dags: Dags | None = None


class Finding(Shape):
    """Mistake in the environments repo; lines and columns count from 1, 0 means unknown."""

    file: str
    line: int
    column: int
    object: str
    reason: str
    message: str


class Status(Shape):
    """Status of all objects at `revision`, the last one accepted.

    `held` says why a newer revision waits for `confirm-prune`; null if none does.
    """

    revision: str
    problem: Problem | None
    held: str | None
    environments: list[Environment]
    instances: list[Instance]
    findings: list[Finding]


class Event(Shape):
    """Entry of the history; `phases` are seconds, `seconds` is their sum."""

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
    """Installed distribution of a base, as described by its metadata."""

    name: str
    version: str
    requires: list[str]
    provides_extra: list[str]
    requires_python: str | None


class Runtime(Shape):
    """Contents of an instance's base; `tags` are the wheel tags that it accepts, best first."""

    key: str
    python_version: str
    python_tag: str
    platform: str
    airflow_version: str
    tags: list[str]
    base: list[Distribution]
    listing: str = ""


class Runtimes(Shape):
    """Runtimes by their keys, and the key of each instance whose runtime is known."""

    apiVersion: Literal["groundcrew/v1"]  # noqa: N815 - as it is written
    kind: Literal["Runtimes"]
    runtimes: dict[str, Runtime]
    instances: dict[str, str]


class Request(Shape):
    """Operator's request that is waiting to be carried out."""

    id: int
    at: Moment
    who: str
    verb: Verb
    target: str
    reason: str = ""
    until: Moment = None
    now: bool = False


class Sender(Shape):
    """Sender of the request, as the token or the proxy names them; `name` is "" if anonymous."""

    name: str
    role: Literal["read", "operate"]


class System(Shape):
    """The server: its `version`, the replica that leads, and the id of the newest event.

    `unconfined` says why builds for local instances are not confined; "" where they are.
    """

    version: str
    leader: str | None
    event: int
    unconfined: str
    you: Sender


class Error(Shape):
    """Reason for refusing a request."""

    reason: str
    message: str
