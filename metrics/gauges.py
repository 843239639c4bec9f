"""Gauges of the current state of every object, derived from the records."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from prometheus_client.core import Metric

from metrics.families import gauge, gauges
from reconciler.core.builds import OPEN
from reconciler.core.definitions import Finding
from reconciler.core.model import Activation, InstanceRecord, Problem, Records
from reconciler.core.phases import ActivationPhase, BuildPhase, Step
from reconciler.core.reasons import Reason
from reconciler.core.states import OF_BUILDS, STRAYS
from reconciler.core.status import EnvironmentStatus, InstanceStatus, Status

BACK = frozenset(
    {ActivationPhase.ROLLING_BACK, ActivationPhase.ROLLED_BACK, ActivationPhase.DEGRADED}
)
NAME_LIMIT = 200  # characters of a label that holds a file's path
SETTLED = 60.0  # seconds in a step, after which its reason for waiting is reported

Labels = tuple[str, str, str, str]  # object, team, source, reason


def standing(status: Status, records: Records, now: float) -> Iterator[Metric]:
    """Yield every gauge about objects; `status` must have been derived from `records`."""
    yield from _environments(status)
    yield from _instances(status, records)
    yield from _builds(records)
    yield gauges(
        "groundcrew_object_problem",
        "Problems of objects; always 1. The source says where the problem was found.",
        ["object", "team", "source", "reason"],
        ((labels, 1) for labels in sorted(problems(status, records, now))),
    )
    yield gauge(
        "groundcrew_stalled_objects",
        "Objects with a problem that a person must fix.",
        len({f.object for f in status.findings}),
    )


def _environments(status: Status) -> Iterator[Metric]:
    yield gauges(
        "groundcrew_environment_info",
        "Environments and their state; always 1.",
        ["environment", "team", "sync_status", "health_status", "revision", "suspended"],
        (
            ([e.name, e.team, str(e.sync), str(e.health), e.revision, _flag(e.suspended)], 1)
            for e in status.environments
        ),
    )


def _instances(status: Status, records: Records) -> Iterator[Metric]:
    yield gauges(
        "groundcrew_instance_info",
        "Instances and their state; always 1.",
        [
            "instance",
            "team",
            "environment",
            "sync_status",
            "health_status",
            "revision",
            "suspended",
            "build",
        ],
        (
            (
                [
                    i.name,
                    i.team,
                    i.environment or "",
                    str(i.sync),
                    str(i.health),
                    i.revision,
                    _flag(i.suspended),
                    i.build or "",
                ],
                1,
            )
            for i in status.instances
        ),
    )
    yield gauges(
        "groundcrew_instance_phase",
        "Current phase of each instance; always 1.",
        ["instance", "team", "phase"],
        (([i.name, i.team, i.phase or "None"], 1) for i in status.instances),
    )
    yield gauges(
        "groundcrew_instance_waiting",
        "Reason why a pending activation waits; always 1.",
        ["instance", "team", "on"],
        (
            ([i.name, i.team, i.wait.on or "other"], 1)
            for i in status.instances
            if i.wait is not None
        ),
    )
    yield gauges(
        "groundcrew_instance_rolled_back",
        "Instances that an operator rolled back and that stay there; always 1.",
        ["instance", "team"],
        (([i.name, i.team], 1) for i in status.instances if i.rolled_back_by),
    )
    yield gauges(
        "groundcrew_instance_processes",
        "Processes of components that have proven which build they loaded; `local`: whether "
        "they read it from folders of their own machine.",
        ["instance", "team", "local"],
        (
            ([name, record.team, _flag(is_local)], count)
            for name, record in sorted(records.instances.items())
            for is_local, count in (
                (True, record.processes.local),
                (False, record.processes.count - record.processes.local),
            )
        ),
    )
    yield gauges(
        "groundcrew_quarantined_builds",
        "Builds that failed or were rolled back on the instance and are not tried there again.",
        ["instance", "team"],
        (([i.name, i.team], len(i.quarantined)) for i in status.instances),
    )


def _builds(records: Records) -> Iterator[Metric]:
    phases = Counter(build.phase for build in records.builds.values())
    yield gauge(
        "groundcrew_build_queue_depth",
        "Builds that wait for a free slot.",
        phases[BuildPhase.QUEUED],
    )
    yield gauges(
        "groundcrew_builds",
        "Recorded builds by phase.",
        ["phase"],
        (([str(phase)], phases[phase]) for phase in BuildPhase),
    )


# ---------------------------------------------------------------------------------- problems


def problems(status: Status, records: Records, now: float) -> set[Labels]:
    """Return (object, team, source, reason) of everything that is wrong now.

    Sources: `repo`, `share` (it is missing, or not as recorded), `processes` (components run
    something else than what is recorded), `definition` (a mistake in a file), `build` (it failed),
    `build-retry` (it is retried automatically), `instance`, `activation` (an attempt was given up
    and the next one is not yet past the step where it failed, or an activation in progress has a
    problem) and `rollback` (in progress, done, or failed). Reasons are those in the code.
    """
    labels: set[Labels] = {_of_finding(f) for f in status.findings}
    if records.repo.source_problem is not None:
        labels.add(("repo", "", "repo", records.repo.source_problem.reason))
    if records.repo.share_problem is not None:
        labels.add(("repo", "", "share", records.repo.share_problem.reason))
    for environment in status.environments:
        labels |= _of_environment(environment, records)
    for instance in status.instances:
        labels |= _of_instance(instance, records.instances[instance.name], now)
    return labels


def _of_finding(finding: Finding) -> Labels:
    return (finding.subject[:NAME_LIMIT], finding.team, "definition", finding.reason)


def _of_environment(environment: EnvironmentStatus, records: Records) -> set[Labels]:
    name, team = f"environment/{environment.name}", environment.team
    labels: set[Labels] = set()
    problem = records.environments[environment.name].problem
    if problem is not None:
        labels.add((name, team, "definition", problem.reason))
    for build in environment.builds:
        if build.problem is None:
            continue
        if build.phase is BuildPhase.FAILED:
            labels.add((name, team, "build", build.problem.reason))
        elif build.phase in OPEN and build.attempts:
            labels.add((name, team, "build-retry", build.problem.reason))
    return labels


def _of_instance(instance: InstanceStatus, record: InstanceRecord, now: float) -> set[Labels]:
    name, team = f"instance/{instance.name}", instance.team
    if record.activation is not None:
        open_problems = _under_way(record.activation, record.last, now)
        return {(name, team, source, problem.reason) for source, problem in open_problems}
    strays: set[Labels] = set()
    if record.drift is not None:
        strays.add((name, team, "share", Reason.DRIFTED))
    if record.processes.problem is not None:
        strays.add((name, team, "processes", record.processes.problem.reason))
    if not instance.is_wrong or instance.state in OF_BUILDS | STRAYS:
        return strays
    source = "instance"
    if instance.phase == ActivationPhase.ROLLED_BACK:
        source = "rollback"
    elif record.last is not None and record.last.problem == record.problem:
        source = "activation"
    return strays | {(name, team, source, instance.reason)}


def _under_way(
    activation: Activation, last: Activation | None, now: float
) -> Iterator[tuple[str, Problem]]:
    """Yield problems of an activation in progress, and of its last try until past the same step."""
    source, held = _source(activation), activation.held
    if activation.problem is not None:
        yield source, activation.problem
    settled = now - activation.step_since >= SETTLED
    if settled and held is not None and not held.reason.policy.ordinary:
        yield source, held
    if last is not None and last.problem is not None and last.failed_at is not None:
        order = tuple(Step).index
        if order(activation.step) <= order(last.failed_at):
            yield _source(last), last.problem


def _source(activation: Activation) -> str:
    return "rollback" if activation.phase in BACK else "activation"


def _flag(value: bool) -> str:
    return "true" if value else "false"
