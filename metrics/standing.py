"""Gauges out of the records: how every object stands now."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from prometheus_client.core import Metric

from metrics.families import gauge, gauges
from reconciler.core.builds import OPEN
from reconciler.core.definitions import Finding
from reconciler.core.model import InstanceRecord, Records
from reconciler.core.phases import ActivationPhase, BuildPhase
from reconciler.core.status import EnvironmentStatus, InstanceStatus, Status

BACK = frozenset(
    {ActivationPhase.ROLLING_BACK, ActivationPhase.ROLLED_BACK, ActivationPhase.DEGRADED}
)
WAITS = ("suspended", "retry", "wave", "soak", "window", "another", "confirmation")
NAME_LIMIT = 200  # characters of a label that a file's path becomes

Problem = tuple[str, str, str, str]  # object, team, source, reason


def standing(status: Status, records: Records) -> Iterator[Metric]:
    """Every gauge that is about objects; `status` must have been read off `records`."""
    yield from _environments(status)
    yield from _instances(status)
    yield from _builds(records)
    yield gauges(
        "groundcrew_object_problem",
        "What is wrong with an object; always 1. The source says where it came up.",
        ["object", "team", "source", "reason"],
        ((problem, 1) for problem in sorted(problems(status, records))),
    )
    yield gauge(
        "groundcrew_stalled_objects",
        "Objects with a mistake that a person must mend.",
        len({f.object for f in status.findings}),
    )


def _environments(status: Status) -> Iterator[Metric]:
    yield gauges(
        "groundcrew_environment_info",
        "An environment and how it stands; always 1.",
        ["environment", "team", "sync_status", "health_status", "revision", "suspended"],
        (
            ([e.name, e.team, str(e.sync), str(e.health), e.revision, _flag(e.suspended)], 1)
            for e in status.environments
        ),
    )


def _instances(status: Status) -> Iterator[Metric]:
    yield gauges(
        "groundcrew_instance_info",
        "An instance and how it stands; always 1.",
        [
            "instance", "team", "environment", "sync_status", "health_status", "revision",
            "suspended", "build",
        ],
        (
            ([
                i.name, i.team, i.environment or "", str(i.sync), str(i.health), i.revision,
                _flag(i.suspended), i.build or "",
            ], 1)
            for i in status.instances
        ),
    )  # fmt: skip
    yield gauges(
        "groundcrew_instance_phase",
        "The phase that an instance is in; always 1.",
        ["instance", "team", "phase"],
        (([i.name, i.team, i.phase or "None"], 1) for i in status.instances),
    )
    yield gauges(
        "groundcrew_instance_waiting",
        "On what a wanted activation waits; always 1.",
        ["instance", "team", "on"],
        (([i.name, i.team, waits_on(i.wait)], 1) for i in status.instances if i.wait),
    )
    yield gauges(
        "groundcrew_instance_rolled_back",
        "An operator took the instance back from what is wanted, and it stays so; always 1.",
        ["instance", "team"],
        (([i.name, i.team], 1) for i in status.instances if i.rolled_back_by),
    )
    yield gauges(
        "groundcrew_quarantined_builds",
        "Builds that failed on the instance, or were rolled back, and are not tried again there.",
        ["instance", "team"],
        (([i.name, i.team], len(i.quarantined)) for i in status.instances),
    )


def _builds(records: Records) -> Iterator[Metric]:
    phases = Counter(build.phase for build in records.builds.values())
    yield gauge(
        "groundcrew_build_queue_depth", "Builds that wait for a place.", phases[BuildPhase.QUEUED]
    )
    yield gauges(
        "groundcrew_builds",
        "Builds that are recorded, by phase.",
        ["phase"],
        (([str(phase)], phases[phase]) for phase in BuildPhase),
    )


def waits_on(wait: str) -> str:
    """The first word of what an activation waits on, one of `WAITS`; "other" for any other."""
    word = wait.partition(" ")[0].rstrip(":")
    return word if word in WAITS else "other"


# ---------------------------------------------------------------------------------- problems


def problems(status: Status, records: Records) -> set[Problem]:
    """(object, team, source, reason) of everything that is wrong now.

    Sources: `repo`, `definition` (a mistake in a file), `build` (it failed), `build-retry` (it is
    tried again by itself), `instance`, `activation` (given up, or under way with trouble) and
    `rollback` (going back, gone back, or that failed too). Reasons are those of the code.
    """
    found: set[Problem] = {_of_finding(f) for f in status.findings}
    if status.problem is not None:
        found.add(("repo", "", "repo", status.problem.reason))
    for environment in status.environments:
        found |= _of_environment(environment, records)
    for instance in status.instances:
        found |= _of_instance(instance, records.instances[instance.name])
    return found


def _of_finding(finding: Finding) -> Problem:
    return (finding.subject[:NAME_LIMIT], finding.team, "definition", finding.reason)


def _of_environment(environment: EnvironmentStatus, records: Records) -> set[Problem]:
    name, team = f"environment/{environment.name}", environment.team
    found: set[Problem] = set()
    problem = records.environments[environment.name].problem
    if problem is not None:
        found.add((name, team, "definition", problem.reason))
    for build in environment.builds:
        if build.problem is None:
            continue
        if build.phase is BuildPhase.FAILED:
            found.add((name, team, "build", build.problem.reason))
        elif build.phase in OPEN and build.attempts:
            found.add((name, team, "build-retry", build.problem.reason))
    return found


def _of_instance(instance: InstanceStatus, record: InstanceRecord) -> set[Problem]:
    name, team = f"instance/{instance.name}", instance.team
    under_way = record.activation
    if under_way is not None:
        if under_way.problem is None:
            return set()
        source = "rollback" if under_way.phase in BACK else "activation"
        return {(name, team, source, under_way.problem.reason)}
    if record.problem is None:
        return set()
    source = "instance"
    if instance.phase == ActivationPhase.ROLLED_BACK:
        source = "rollback"
    elif record.last is not None and record.last.problem == record.problem:
        source = "activation"
    return {(name, team, source, record.problem.reason)}


def _flag(value: bool) -> str:
    return "true" if value else "false"
