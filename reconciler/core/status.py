"""Status of all objects, derived from the records for CLI, API, pages and metrics.

Pure; nothing here is stored, so there is no second truth.
"""

from __future__ import annotations

from dataclasses import dataclass

from reconciler.core.accept import acceptable
from reconciler.core.activations import WayBack, at_target, suspended_by, target_of, way_back
from reconciler.core.builds import OPEN, ready_build
from reconciler.core.dagchecks import Checks, checks_of
from reconciler.core.definitions import Definitions, Finding
from reconciler.core.model import (
    ROLLED_BACK,
    BuildRecord,
    DagCheck,
    EnvironmentRecord,
    InstanceRecord,
    Problem,
    Records,
)
from reconciler.core.phases import ActivationPhase, BuildPhase, Health, Step, Sync
from reconciler.core.world import Draft, World, build_key, environment_of


@dataclass(frozen=True, slots=True)
class Condition:
    """Condition `Ready`, `Reconciling` or `Stalled`; `at` is when it was computed."""

    type: str
    status: bool
    reason: str
    message: str
    revision: str
    at: float


@dataclass(frozen=True, slots=True)
class EnvironmentStatus:
    """Status of one environment; `builds` are those of its current recipe, one per runtime."""

    name: str
    team: str
    file: str
    revision: str
    recipe_digest: str
    sync: Sync
    health: Health
    suspended: bool
    conditions: tuple[Condition, ...]
    builds: tuple[BuildRecord, ...]
    instances: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class InstanceStatus:
    """Status of one instance; `since` is when `phase` began, `wanted` the build it should have.

    `back` is what a rollback requested now would do; `rolled_back_by` is who requested the last
    one, while that is the reason why the instance does not have the wanted build. `dags` says which
    DAGs were parsed with the wanted build before the switch, if that is known.
    """

    name: str
    team: str
    environment: str | None
    build: str | None
    wanted: str | None
    phase: str
    since: float
    sync: Sync
    health: Health
    suspended: bool
    waits_on: str
    quarantined: tuple[str, ...]
    conditions: tuple[Condition, ...]
    revision: str
    back: WayBack
    rolled_back_by: str
    dags: DagCheck | None = None


@dataclass(frozen=True, slots=True)
class Status:
    """Status of all objects at `revision`, the last one accepted."""

    revision: str
    environments: tuple[EnvironmentStatus, ...]
    instances: tuple[InstanceStatus, ...]
    findings: tuple[Finding, ...]
    problem: Problem | None


def status(definitions: Definitions | None, records: Records, now: float) -> Status:
    """Return the status; `definitions` is used only for newer findings."""
    draft = Draft(World(now, records))
    checks = checks_of(records.builds.values())
    instances = {i.name: _instance(draft, i, checks) for i in records.instances.values()}
    return Status(
        revision=records.accepted_revision,
        environments=tuple(
            _environment(draft, e, instances)
            for e in sorted(records.environments.values(), key=lambda e: e.name)
        ),
        instances=tuple(instances[name] for name in sorted(instances)),
        findings=acceptable(definitions, records).findings if definitions else records.findings,
        problem=records.source_problem,
    )


def _instance(draft: Draft, record: InstanceRecord, checks: Checks) -> InstanceStatus:
    environment = environment_of(draft, record.name)
    target = target_of(draft, record)
    activation = record.activation
    suspended = bool(suspended_by(draft, record))
    synced = target is not None and at_target(record, target)
    if record.runtime is None and record.current is None:
        sync = Sync.UNKNOWN
    else:
        sync = Sync.SYNCED if synced and activation is None else Sync.OUT_OF_SYNC
    phase, since = _phase(record, synced)
    revision = environment.commit.revision if environment else draft.world.records.accepted_revision
    return InstanceStatus(
        name=record.name,
        team=record.team,
        environment=environment.name if environment else None,
        build=record.current,
        wanted=target.build if target else record.current,
        phase=phase,
        since=since,
        sync=sync,
        health=_instance_health(record, suspended),
        suspended=suspended,
        waits_on=record.wait,
        quarantined=tuple(q.build_id for q in record.quarantines),
        conditions=_conditions(
            ready=record.active_since is not None and phase != ActivationPhase.DEGRADED,
            reconciling=activation is not None or bool(record.wait),
            problem=record.problem,
            message=_waits_for(record),
            revision=revision,
            now=draft.now,
        ),
        revision=revision,
        back=way_back(draft, record),
        rolled_back_by=_rolled_back_by(draft, record),
        dags=checks.get((record.name, target.build if target else record.current)),
    )


def _waits_for(record: InstanceRecord) -> str:
    if record.activation is None:
        return record.wait
    return record.activation.held.message if record.activation.held else ""


def _rolled_back_by(draft: Draft, record: InstanceRecord) -> str:
    """Return who rolled the instance back from its current build or the wanted one, or ""."""
    wanted = ready_build(draft, record)
    left = {record.current, wanted.build_id if wanted else None}
    marks = [q for q in record.quarantines if q.reason == ROLLED_BACK and q.build_id in left]
    return (marks[-1].who or "an operator") if marks else ""


def _phase(record: InstanceRecord, synced: bool) -> tuple[str, float]:
    if record.activation is not None:
        return str(record.activation.phase), record.activation.phases[-1][1]
    if record.last is not None and record.last.step is Step.ROLLED_BACK and not synced:
        return str(ActivationPhase.ROLLED_BACK), record.last.phases[-1][1]
    if record.wait:
        return str(ActivationPhase.WAITING), 0.0
    if record.active_since is not None:
        return str(ActivationPhase.ACTIVE), record.active_since
    return "", 0.0


def _instance_health(record: InstanceRecord, suspended: bool) -> Health:
    if record.activation is not None:
        return Health.DEGRADED if record.activation.reverts else Health.PROGRESSING
    if suspended:
        return Health.SUSPENDED
    if record.runtime is None:
        return Health.UNKNOWN if record.problem is None else Health.MISSING
    return Health.HEALTHY


def _environment(
    draft: Draft, record: EnvironmentRecord, instances: dict[str, InstanceStatus]
) -> EnvironmentStatus:
    names = tuple(i for wave in record.definition.rollout for i in wave.instances)
    digest = record.definition.recipe.digest
    runtimes = {
        i.runtime.key
        for n in names
        if (i := draft.instances.get(n)) is not None and i.runtime is not None
    }
    builds = tuple(
        draft.builds[key]
        for runtime in sorted(runtimes)
        if (key := build_key(record.name, digest, runtime)) in draft.builds
    )
    mine = [instances[n] for n in names if n in instances]
    failed = next((b for b in builds if b.phase is BuildPhase.FAILED), None)
    problem = record.problem or (failed.problem if failed else None)
    building = any(b.phase in OPEN for b in builds)
    retried = next((b for b in builds if b.phase in OPEN and b.attempts and b.problem), None)
    synced = bool(mine) and all(i.sync is Sync.SYNCED for i in mine)
    return EnvironmentStatus(
        name=record.name,
        team=record.team,
        file=record.definition.place.file,
        revision=record.commit.revision,
        recipe_digest=digest,
        sync=Sync.SYNCED if synced else Sync.OUT_OF_SYNC if builds else Sync.UNKNOWN,
        health=_environment_health(mine, problem, record.is_suspended, building),
        suspended=record.is_suspended,
        conditions=_conditions(
            ready=synced,
            reconciling=building or any(i.health is Health.PROGRESSING for i in mine),
            problem=problem,
            message=_retried(retried) if retried is not None and not synced else "",
            revision=record.commit.revision,
            now=draft.now,
        ),
        builds=builds,
        instances=names,
    )


def _retried(build: BuildRecord) -> str:
    """Return a text about why a build is repeated."""
    problem, times = build.problem, "once" if build.attempts == 1 else f"{build.attempts} times"
    assert problem is not None, "a failed try has a problem"
    where = f"{problem.place}: " if problem.place else ""
    return f"build {build.key} failed {times} and is tried again: {where}{problem.message}"


def _environment_health(
    mine: list[InstanceStatus], problem: Problem | None, suspended: bool, building: bool
) -> Health:
    if problem is not None or any(i.health is Health.DEGRADED or i.quarantined for i in mine):
        return Health.DEGRADED
    if suspended:
        return Health.SUSPENDED
    if building or any(i.health is Health.PROGRESSING or i.waits_on for i in mine):
        return Health.PROGRESSING
    if not mine:
        return Health.MISSING
    found = {i.health for i in mine}
    if found <= {Health.HEALTHY, Health.SUSPENDED}:
        return Health.SUSPENDED if Health.SUSPENDED in found else Health.HEALTHY
    return Health.UNKNOWN


def _conditions(
    *,
    ready: bool,
    reconciling: bool,
    problem: Problem | None,
    message: str,
    revision: str,
    now: float,
) -> tuple[Condition, ...]:
    where = f"{problem.place}: " if problem and problem.place else ""
    words = f"{where}{problem.message}" if problem else message
    return (
        Condition(
            "Ready", ready, "Ready" if ready else "NotReady", message if ready else words,
            revision, now,
        ),
        Condition(
            "Reconciling", reconciling, "Progressing" if reconciling else "Idle", message,
            revision, now,
        ),
        Condition(
            "Stalled", problem is not None, problem.reason if problem else "NoProblem",
            words if problem else "", revision, now,
        ),
    )  # fmt: skip
