"""Data model of the daemon: records as stored, outcomes as reported.

All higher layers use these types and those of `definitions`. Times are seconds since the epoch
(UTC) as float; durations are seconds. Nothing here performs I/O.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from reconciler.core.definitions import Commit, Environment, Finding, Instance, Measure, Place
from reconciler.core.events import Event
from reconciler.core.phases import PHASE_OF, ActivationPhase, BuildPhase, Step, Trigger, Verdict
from reconciler.core.reasons import Reason
from reconciler.core.restarts import Earlier, Layout, Switch
from reconciler.core.runtime import Runtime
from reconciler.core.waits import Wait


@dataclass(frozen=True, slots=True)
class Problem:
    """Reason for a failure."""

    reason: Reason
    message: str
    place: Place | None = None


@dataclass(frozen=True, slots=True)
class ImportCost:
    """Cost of importing everything that a build installs; None if not measured.

    `files` and `bytes` count the build's own files, `opens` also those of Python and the base.
    """

    files: int | None = None
    opens: int | None = None
    bytes: int | None = None
    seconds: float | None = None

    def of(self, measure: Measure) -> float | None:
        """Return the cost in one measure."""
        cost: float | None = getattr(self, measure.value)
        return cost


@dataclass(frozen=True, slots=True)
class Measured:
    """Cost of the build that a record had made when it was last Ready, and when that was."""

    build_id: str
    cost: ImportCost
    at: float


@dataclass(frozen=True, slots=True)
class DagCheck:
    """DAG files of an instance that were parsed with a build before anything live was touched.

    `source` says in words where they came from, `seen` counts them, and `mark` changes with their
    contents ("" where that is not known). `failing` are those that do not parse with the build
    that the instance runs either, `unjudged` (file, why) those that cannot be judged there.
    `unseen` says why DAGs were not seen, with what to do about it. Names are the first of each
    kind.
    """

    instance: str
    source: str = ""
    seen: int = 0
    names: tuple[str, ...] = ()
    failing: tuple[str, ...] = ()
    unjudged: tuple[tuple[str, str], ...] = ()
    unseen: str = ""
    mark: str = ""


@dataclass(frozen=True, slots=True)
class BuildRecord:
    """Build of (environment, recipe digest, runtime). `key` is 16 digits of their digest.

    `build_id` is known from the end of Building on. `phases` holds (phase, started at), oldest
    first, for durations. `attempts` counts failures that a retry may resolve, `not_before` is when
    the next attempt may start. `limits` are the definition's limits by which its verification was
    judged: (measure, maximum). `dags` says for each instance which DAGs were parsed with it.
    """

    key: str
    environment: str
    team: str
    recipe_digest: str
    runtime_key: str
    revision: str
    phase: BuildPhase
    created_at: float
    phases: tuple[tuple[str, float], ...] = ()
    build_id: str | None = None
    attempts: int = 0
    not_before: float = 0.0
    problem: Problem | None = None
    packages: tuple[tuple[str, str], ...] = ()  # (name, version) that the build installs
    refresh: bool = False  # resolve again instead of using the saved lock
    measured: Measured | None = None
    limits: tuple[tuple[str, float], ...] = ()
    dags: tuple[DagCheck, ...] = ()
    commit: Commit | None = None  # the requesting commit; None in records of an earlier version
    version: int = 0  # row version for compare-and-swap; 0: not stored yet


@dataclass(frozen=True, slots=True)
class Deployment:
    """Build on an instance (None: the bare base), with what is known of it.

    `recipe` is the digest of the recipe that it was built from, `runtime` the key of the runtime
    that it is for; both are None if they are unknown, and for the bare base. `load_into` are the
    components that load it, empty if they are unknown.
    """

    build: str | None = None
    recipe: str | None = None
    runtime: str | None = None
    load_into: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.build is None and (self.recipe, self.runtime) != (None, None):
            raise ValueError("the bare base has neither a recipe nor a runtime")

    def __str__(self) -> str:
        return self.build or "the bare base"


BARE = Deployment()
"""The bare base: an instance has it until a first build is active."""


@dataclass(frozen=True, slots=True)
class Reports:
    """Reports of Airflow right before a restart, which later ones are compared with.

    `restart` is the activation's `restarted_at`, `at` when they were read. `clock` is how far the
    daemon's clock was ahead then of one that nobody sets. `heartbeats` are by section of the health
    page, `parsed` by DAG and `broken` by file, each with the time that Airflow gives. `is_complete`
    is False if Airflow could not be asked.
    """

    restart: float
    at: float
    clock: float
    heartbeats: tuple[tuple[str, float], ...] = ()
    parsed: tuple[tuple[str, float], ...] = ()
    broken: tuple[tuple[str, float], ...] = ()
    is_complete: bool = True


@dataclass(frozen=True, slots=True)
class Activation:
    """Move of an instance from the deployment `origin` to the deployment `target`, or back.

    `broken_load_into` are the components that may still run the build that a degraded activation
    left behind. `pools` and `baseline` are recorded before the first change to the instance.
    `baseline` lists the files with an import error; `expected_dags` are the active DAGs that must
    be parsed again. `restarted_at` and `reports` are recorded before a restart begins. `failures`
    counts consecutive failures of the current step's effect that a retry may resolve, `reverts` how
    often rolling back failed. `held` is what the current step waits for, `failed_at` the step that
    ended it or turned it back. `who` is the operator who requested it ("" if a commit did).
    `layout` is recorded with the pools; `kept` are the components that keep their processes, chosen
    by it once the pointer has moved.
    """

    id: str
    origin: Deployment
    target: Deployment
    trigger: Trigger
    revision: str
    step: Step
    started_at: float
    step_since: float
    phases: tuple[tuple[str, float], ...] = ()
    pools: tuple[tuple[str, int], ...] = ()
    baseline: tuple[str, ...] = ()
    expected_dags: tuple[str, ...] = ()
    restarted_at: float = 0.0
    reports: Reports | None = None
    failures: int = 0
    reverts: int = 0
    not_before: float = 0.0
    problem: Problem | None = None
    held: Problem | None = None
    failed_at: Step | None = None
    who: str = ""
    broken_load_into: tuple[str, ...] = ()
    commit: Commit | None = None  # the commit that its build was made for
    layout: Layout | None = None
    kept: tuple[str, ...] = ()

    @property
    def phase(self) -> ActivationPhase:
        """The phase that its step belongs to."""
        return PHASE_OF[self.step]

    @property
    def is_same_build(self) -> bool:
        """True if components are only restarted, on the build that the instance has."""
        return self.origin.build == self.target.build

    @property
    def components(self) -> frozenset[str]:
        """The components that are restarted: those that load either build, or a broken one.

        Without those that keep their processes, since they load nothing that differs.
        """
        loading = (*self.target.load_into, *self.origin.load_into)
        return frozenset((*loading, *self.broken_load_into)) - {*self.kept}

    @property
    def is_reported(self) -> bool:
        """True if what Airflow reported before this restart is recorded."""
        return self.reports is not None and self.reports.restart == self.restarted_at

    @property
    def restarted_by(self) -> float:
        """Time by which the restart had begun, also if the clock was set back since then."""
        return min(self.restarted_at, self.step_since)


@dataclass(frozen=True, slots=True)
class Quarantine:
    """Build that failed on this instance; lifted by another recipe digest or a retry.

    `who` is the operator who rolled the instance back from it ("" if it failed by itself).
    """

    build_id: str
    recipe_digest: str
    reason: Reason
    message: str
    since: float
    who: str = ""


class DriftKind(StrEnum):
    """Part of an instance on the share that is not as it is recorded."""

    POINTER = "pointer"
    LOADER = "loader"
    BUILD = "build"  # the active one is not complete on the share


@dataclass(frozen=True, slots=True)
class Drift:
    """A difference between the share and the records, until it is put right.

    `failures` counts attempts to do so that failed, `not_before` is when the next one is due.
    """

    kinds: tuple[DriftKind, ...]
    message: str
    since: float
    failures: int = 0
    not_before: float = 0.0


@dataclass(frozen=True, slots=True)
class Processes:
    """Summary of what the running components of an instance have loaded, by their proofs.

    `count` processes have left a proof, `local` of these read the build from local folders; `why`
    is what the loader of another one said. `problem` is why one of them does not run what is
    recorded.
    """

    count: int = 0
    local: int = 0
    why: str = ""
    problem: Problem | None = None

    @property
    def remote(self) -> str:
        """In words, how many processes read their build from the share, and why; "" for none."""
        if self.local == self.count:
            return ""
        why = f": {self.why}" if self.why else ""
        return f"{self.count - self.local} of {self.count} processes read it from the share{why}"


@dataclass(frozen=True, slots=True)
class Suspension:
    """Details of a suspension by an operator; `until` is when it ends by itself (0.0: never)."""

    who: str
    reason: str = ""
    until: float = 0.0


@dataclass(frozen=True, slots=True)
class Hurry:
    """Build that an operator wants on an instance without the soak of the waves before it.

    `any_time`: nor is the maintenance window waited for.
    """

    build_id: str
    any_time: bool
    who: str


@dataclass(frozen=True, slots=True)
class InstanceRecord:
    """State of one instance, and its activation in progress.

    `definition` is the last accepted one, so that a broken or deleted file cannot strand an
    activation; a change to another Airflow is accepted when the activation has ended. `current` is
    the last deployment that passed the gate (see also `inherits`); `may_load_another`: components
    may have loaded something else, as an activation was withdrawn. `previous` was active before
    it, on the same base; the bare base if there is none, as a rollback never returns to that.
    `aborts` counts consecutive drains that were given up. `removed`: its file is gone; it is
    dropped once its activation has ended. `retired` holds (build id, when it stopped being
    current), for garbage collection; builds that ran before `since`, when this record began, are
    unknown (0.0: there were none). `wait` is what an activation waits for (None: it does not
    wait), `hurry` what an operator said that it need not wait for. `changes` holds (condition, its
    status, since when). `earlier` holds the components that kept their processes, with the builds
    that these may run besides the current one.
    """

    name: str
    team: str
    definition: Instance
    runtime: Runtime | None = None
    fingerprint: str = ""  # the driver's fingerprint of the base, to know when to inspect again
    failed_mark: str | None = None  # the fingerprint when an inspection failed; None: none failed
    current: Deployment = BARE
    may_load_another: bool = False
    previous: Deployment = BARE
    active_since: float | None = None
    activation: Activation | None = None
    last: Activation | None = None  # the last one that ended
    quarantines: tuple[Quarantine, ...] = ()
    retired: tuple[tuple[str, float], ...] = ()
    since: float = 0.0
    suspended: bool = False  # by an operator, in addition to the definition's own suspend
    suspension: Suspension | None = None  # None as well in records of an earlier version
    hurry: Hurry | None = None
    removed: bool = False
    aborts: int = 0
    not_before: float = 0.0  # after an aborted drain or a failed inspection
    wait: Wait | None = None
    problem: Problem | None = None
    changes: tuple[tuple[str, bool, float], ...] = ()
    drift: Drift | None = None
    processes: Processes = Processes()
    earlier: Earlier = ()
    version: int = 0

    @property
    def is_suspended(self) -> bool:
        """True if an operator or the definition suspends it, whatever its environment's state."""
        return self.suspended or self.definition.suspend

    @property
    def inherits(self) -> bool:
        """True if `current` is a build for another base of the same Airflow.

        The pointer has no build for this base yet: the loader keeps using what it finds.
        """
        runtime = self.runtime.key if self.runtime is not None else None
        return self.current.build is not None and self.current.runtime != runtime


@dataclass(frozen=True, slots=True)
class EnvironmentRecord:
    """Last accepted state of one environment; `commit` is the one that last changed it.

    `changes` holds (condition, its status, since when).
    """

    name: str
    team: str
    definition: Environment
    commit: Commit
    seen_at: float = 0.0
    suspended: bool = False
    suspension: Suspension | None = None
    problem: Problem | None = None
    changes: tuple[tuple[str, bool, float], ...] = ()
    version: int = 0

    @property
    def is_suspended(self) -> bool:
        """True if an operator or the definition suspends it."""
        return self.suspended or self.definition.suspend


@dataclass(frozen=True, slots=True)
class RepoState:
    """Recorded state of the environments repo as a whole, and of the share.

    `accepted_revision` is the last revision whose definitions were acted on; `prune_confirmed` is
    the revision for which an operator confirmed the loss of most definitions. `findings` are those
    of the newest revision read. `removals` holds (team, when an instance of it was last removed),
    for garbage collection. `share_problem` says why the share cannot be used (None: it can).
    """

    accepted_revision: str = ""
    prune_confirmed: str = ""
    source_problem: Problem | None = None
    findings: tuple[Finding, ...] = ()
    removals: tuple[tuple[str, float], ...] = ()
    share_problem: Problem | None = None

    @property
    def held(self) -> Problem | None:
        """The reason why a revision is held, or None."""
        problem = self.source_problem
        return problem if problem is not None and problem.reason is Reason.PRUNE_HELD else None


@dataclass(frozen=True, slots=True)
class Records:
    """Everything that is recorded, read once per cycle.

    `unreadable` names recorded objects that cannot be read ("environment/x", "instance/x",
    "build/<key>"): their state is unknown, so they are left as they are.
    """

    environments: Mapping[str, EnvironmentRecord] = field(default_factory=dict)
    instances: Mapping[str, InstanceRecord] = field(default_factory=dict)
    builds: Mapping[str, BuildRecord] = field(default_factory=dict)
    repo: RepoState = RepoState()
    unreadable: frozenset[str] = frozenset()


class Verb(StrEnum):
    """Operation that an operator can request."""

    SUSPEND = "suspend"
    RESUME = "resume"
    RETRY = "retry"
    ROLLBACK = "rollback"
    REFRESH = "refresh"
    ACTIVATE = "activate"
    ABORT = "abort"
    CONFIRM_PRUNE = "confirm-prune"


class MessageState(StrEnum):
    """State of a message to people or to the forge, in the outbox."""

    PENDING = "pending"
    SENT = "sent"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Options:
    """Details of a request: of `suspend` a reason and its end, of `activate` whether `now`."""

    reason: str = ""
    until: float = 0.0
    now: bool = False


@dataclass(frozen=True, slots=True)
class Request:
    """Operator's request, queued in the store until the leader has carried it out."""

    id: int
    at: float
    who: str
    verb: Verb
    target: str  # "environment/analytics", "instance/analytics-prod", or "" for the repo
    options: Options = Options()


@dataclass(frozen=True, slots=True)
class StepResult:
    """Result of an activation step's effect. `after` is the seconds until the next check.

    OBSERVE also reports `pools`, `baseline`, `expected_dags` and `layout` (see Activation). A
    switch reports in `dropped` builds of earlier bases that the pointer no longer names, and the
    contents of both builds. `reports` are recorded before a restart.
    """

    verdict: Verdict
    problem: Problem | None = None
    after: float | None = None
    pools: tuple[tuple[str, int], ...] | None = None
    baseline: tuple[str, ...] | None = None
    expected_dags: tuple[str, ...] | None = None
    layout: Layout | None = None
    dropped: tuple[str, ...] = ()
    contents: Switch | None = None
    reports: Reports | None = None


@dataclass(frozen=True, slots=True)
class Change:
    """Changes of one decision, written in one transaction: all of them or none.

    A record with `version` 0 is inserted; any other replaces the row of exactly that version.
    `repo` replaces that state (None: unchanged); `meta` sets named texts of other packages; `locks`
    maps (recipe digest, runtime key) to a lock's text.
    """

    environments: tuple[EnvironmentRecord, ...] = ()
    instances: tuple[InstanceRecord, ...] = ()
    builds: tuple[BuildRecord, ...] = ()
    drop_environments: tuple[str, ...] = ()
    drop_instances: tuple[str, ...] = ()
    drop_builds: tuple[str, ...] = ()
    events: tuple[Event, ...] = ()
    meta: Mapping[str, str] = field(default_factory=dict)
    repo: RepoState | None = None
    locks: Mapping[tuple[str, str], str] = field(default_factory=dict)
    finished_requests: tuple[int, ...] = ()
