"""Status of one object, derived from the records for CLI, API, pages and metrics.

Pure; nothing here is stored, so there is no second truth. `statuses` makes that of all objects.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from reconciler.core.activations import WayBack, way_back
from reconciler.core.dag_checks import Checks
from reconciler.core.definitions import Finding
from reconciler.core.model import (
    Activation,
    BuildRecord,
    DagCheck,
    EnvironmentRecord,
    InstanceRecord,
    Problem,
    Suspension,
)
from reconciler.core.phases import ActivationPhase, Health, Sync
from reconciler.core.reasons import Reason
from reconciler.core.restarts import Earlier
from reconciler.core.situation import (
    EnvironmentSituation,
    InstanceSituation,
    StatusReason,
    environment_situation,
)
from reconciler.core.states import TABLE, Held, State
from reconciler.core.waits import Wait, WaitOn
from reconciler.core.world import RecordsView


@dataclass(frozen=True, slots=True)
class Condition:
    """Condition `Ready`, `Reconciling` or `Stalled`; `at` is when `status` last changed."""

    type: str
    status: bool
    reason: StatusReason
    message: str
    revision: str
    at: float


@dataclass(frozen=True, slots=True)
class EnvironmentStatus:
    """Status of one environment; `builds` are those of its current recipe, one per runtime.

    `reason` and `message` say why it is in its `state`.
    """

    name: str
    team: str
    file: str
    revision: str
    recipe_digest: str
    sync: Sync
    health: Health
    suspended: bool
    suspension: Suspension | None
    conditions: tuple[Condition, ...]
    builds: tuple[BuildRecord, ...]
    instances: tuple[str, ...]
    state: State
    reason: StatusReason
    message: str

    @property
    def is_wrong(self) -> bool:
        """Return True if something failed, and a person should know."""
        return TABLE[self.state].is_wrong


@dataclass(frozen=True, slots=True)
class InstanceStatus:
    """Status of one instance; `since` is when `phase` began, `wanted` the build it should have.

    `runtime` is the key of its base's runtime, if that is known. `reason` and `message` say why it
    is in its `state`. `activation` is the one in progress.
    `back` is what a rollback requested now would do; `rolled_back_by` is who requested the last
    one, while that is the reason why the instance does not have the wanted build. `dags` says which
    DAGs were parsed with the wanted build before the switch, if that is known. `earlier` holds the
    components that kept their processes, with the builds that these may run besides `build`.
    """

    name: str
    team: str
    environment: str | None
    runtime: str | None
    build: str | None
    wanted: str | None
    phase: str
    since: float
    sync: Sync
    health: Health
    suspended: bool
    suspension: Suspension | None
    wait: Wait | None
    quarantined: tuple[str, ...]
    conditions: tuple[Condition, ...]
    revision: str
    back: WayBack
    rolled_back_by: str
    state: State
    reason: StatusReason
    message: str
    activation: Activation | None
    dags: DagCheck | None = None
    earlier: Earlier = ()

    @property
    def waits_on(self) -> str:
        """The message of the wait, or ""."""
        return self.wait.message if self.wait is not None else ""

    def waits_for(self, *subjects: WaitOn) -> bool:
        """Return True if an activation waits for one of these."""
        return self.wait is not None and self.wait.on in subjects

    @property
    def is_wrong(self) -> bool:
        """Return True if something failed, and a person should know."""
        return TABLE[self.state].is_wrong

    @property
    def is_notable(self) -> bool:
        """Return True if people should be told why it is in its state."""
        held = self.activation.held if self.activation is not None else None
        hindered = held is not None and not held.reason.policy.ordinary
        return self.is_wrong or hindered or self.state is State.HELD_BACK


@dataclass(frozen=True, slots=True)
class Status:
    """Status of all objects at `revision`, the last one accepted.

    `held` says why a newer revision waits for an operator, if one does.
    """

    revision: str
    environments: tuple[EnvironmentStatus, ...]
    instances: tuple[InstanceStatus, ...]
    findings: tuple[Finding, ...]
    problem: Problem | None
    held: Problem | None = None

    @property
    def is_wrong(self) -> bool:
        """Return True if something failed at an object, and a person should know."""
        return any(e.is_wrong for e in self.environments) or any(i.is_wrong for i in self.instances)


def instance_status(
    view: RecordsView, record: InstanceRecord, situation: InstanceSituation, checks: Checks
) -> InstanceStatus:
    """Return the status of an instance in a situation."""
    environment, target, activation = situation.environment, situation.target, record.activation
    wanted = target.deployment if target else record.current
    phase, since = _phase(record, situation)
    revision = environment.commit.revision if environment else view.repo.accepted_revision
    return InstanceStatus(
        name=record.name,
        team=record.team,
        environment=environment.name if environment else None,
        runtime=record.runtime.key if record.runtime else None,
        build=record.current.build,
        wanted=wanted.build,
        phase=phase,
        since=since,
        sync=situation.sync,
        health=TABLE[situation.state].health,
        suspended=situation.facts.suspended,
        suspension=record.suspension,
        wait=record.wait,
        quarantined=tuple(q.build_id for q in record.quarantines),
        conditions=_conditions(situation, record.changes, revision),
        revision=revision,
        back=way_back(view, record),
        rolled_back_by=situation.rolled_back_by,
        state=situation.state,
        reason=situation.reason,
        message=situation.message,
        activation=activation,
        dags=checks.get((record.name, wanted.build)),
        earlier=record.earlier,
    )


def _phase(record: InstanceRecord, situation: InstanceSituation) -> tuple[str, float]:
    """Return the phase of an instance and when it began."""
    if record.activation is not None:
        return str(record.activation.phase), record.activation.phases[-1][1]
    if situation.facts.failed_back and record.last is not None:
        return str(ActivationPhase.ROLLED_BACK), record.last.phases[-1][1]
    if record.wait:
        return str(ActivationPhase.WAITING), 0.0
    if record.active_since is not None:
        return str(ActivationPhase.ACTIVE), record.active_since
    return "", 0.0


def environment_status(
    view: RecordsView, record: EnvironmentRecord, instances: Mapping[str, InstanceSituation]
) -> EnvironmentStatus:
    """Return the status of an environment, given the situations of its instances."""
    situation = environment_situation(view, record, instances)
    return EnvironmentStatus(
        name=record.name,
        team=record.team,
        file=record.definition.place.file,
        revision=record.commit.revision,
        recipe_digest=record.definition.recipe.digest,
        sync=situation.sync,
        health=situation.health,
        suspended=record.is_suspended,
        suspension=record.suspension,
        conditions=_conditions(situation, record.changes, record.commit.revision),
        builds=situation.builds,
        instances=situation.instances,
        state=situation.state,
        reason=situation.reason,
        message=situation.message,
    )


IDLE = {
    Held.READY: Reason.NOT_READY,
    Held.RECONCILING: Reason.IDLE,
    Held.STALLED: Reason.NO_PROBLEM,
}
"""Reasons of conditions that are not true; Ready gives the state's own instead."""


def _conditions(
    situation: InstanceSituation | EnvironmentSituation,
    changes: tuple[tuple[str, bool, float], ...],
    revision: str,
) -> tuple[Condition, ...]:
    """Return the three conditions of an object: at most one is true, and Ready says why not."""
    recorded = {(name, status): at for name, status, at in changes}
    newest = max((at for _, _, at in changes), default=0.0)  # until the next decision notes it
    conditions = []
    for held in IDLE:
        status = held is TABLE[situation.state].condition
        reason: StatusReason = IDLE[held]
        message = ""
        if status and held is Held.READY:
            reason = Reason.READY
        elif status or held is Held.READY:
            reason, message = situation.reason, situation.message
        at = recorded.get((str(held), status), newest)
        conditions.append(Condition(str(held), status, reason, message, revision, at))
    return tuple(conditions)
