"""Problems that a person should look at, one row each, with the next step."""

from __future__ import annotations

from dataclasses import dataclass

from reconciler.api.pages.groups import Group, group_of, label_of
from reconciler.api.pages.phrases import since
from reconciler.api.view import Shown
from reconciler.core.definitions import Finding
from reconciler.core.phases import BuildPhase
from reconciler.core.reasons import Reason
from reconciler.core.states import OF_BUILDS, State
from reconciler.core.status import EnvironmentStatus, InstanceStatus

RETRY = "groundcrew retry"
DOCTOR = "groundcrew doctor"


@dataclass(frozen=True, slots=True)
class NextStep:
    """Next step: what to do, and a command that helps ("" if there is none)."""

    text: str
    command: str = ""


BY_ITSELF = NextStep("It is tried again by itself.")
COMMIT = NextStep("Commit a fix. To try the same build again:", RETRY)
STEPS: dict[State, NextStep] = {
    State.DEGRADED: NextStep("Look at that Airflow now; the rollback is tried again by itself."),
    State.ROLLED_BACK: COMMIT,
    State.ROLLING_BACK: NextStep("Wait until the previous build runs again."),
    State.RETRYING: BY_ITSELF,
    State.HELD_BACK: COMMIT,
    State.BUILD_FAILED: NextStep("Commit a fix. To try the same definition again:", RETRY),
    State.BUILD_RETRYING: BY_ITSELF,
    State.INVALID: NextStep("Correct the file, and commit."),
    State.NOT_READABLE: NextStep("It is tried again by itself. To see what is missing:", DOCTOR),
    State.BASE_CHANGING: BY_ITSELF,
    State.MISLOADED: NextStep(
        "It is restarted as soon as that is allowed. To see what is missing:", DOCTOR
    ),
    State.DRIFTED: NextStep("To see what is missing:", DOCTOR),
}
"""The next step in each state that needs attention."""
NOTHING = NextStep("")


@dataclass(frozen=True, slots=True)
class Attention:
    """One problem. `target` names its object for commands, `link` leads to its page.

    `location` is the file and line, `build` the key of the build that failed; "" where there is
    none. `since` is 0.0 if it is unknown. `command` is what a person may run, and `can_retry` says
    that a button does the same.
    """

    group: Group
    label: str
    target: str
    name: str
    link: str
    reason: str
    message: str
    since: float
    step: str
    command: str = ""
    location: str = ""
    build: str = ""
    can_retry: bool = False


def attention(shown: Shown) -> list[Attention]:
    """Return all problems, the worst group first, and the newest of a group first."""
    rows = _of_repo(shown)
    named = {f.object.lower() for f in shown.status.findings}
    for environment in shown.status.environments:
        told = environment.state in OF_BUILDS or environment.state is State.INVALID
        is_finding = f"environment/{environment.name}" in named
        if environment.is_wrong and told and not is_finding:
            rows.append(_of_environment(environment))
    for instance in shown.status.instances:
        if instance.is_notable and instance.state not in OF_BUILDS:
            rows.append(_of_object(f"instance/{instance.name}", instance, instance.phase))
    return sorted(rows, key=lambda row: (row.group.rank, -row.since, row.target))


def _of_repo(shown: Shown) -> list[Attention]:
    """Return the problem of the environments repo, of the share, and mistakes in definitions."""
    repo = shown.records.repo
    problems = {"the environments repo": repo.source_problem, "the share": repo.share_problem}
    rows = []
    for name, problem in problems.items():
        if problem is not None:
            is_held = problem.reason is Reason.PRUNE_HELD
            rows.append(
                Attention(
                    Group.OUT_OF_SYNC if is_held else Group.FAILED,
                    "Held" if is_held else "Failing",
                    "",
                    name,
                    "",
                    str(problem.reason),
                    problem.message,
                    0.0,
                    problem.reason.advice,
                )
            )
    return rows + [_of_finding(finding) for finding in shown.status.findings]


def _of_finding(finding: Finding) -> Attention:
    return Attention(
        Group.FAILED,
        "Mistake",
        "",
        finding.object,
        "",
        str(finding.reason),
        finding.message,
        0.0,
        STEPS[State.INVALID].text,
        location=str(finding.place),
    )


def _of_environment(one: EnvironmentStatus) -> Attention:
    failed = [b for b in one.builds if b.phase is BuildPhase.FAILED or b.problem is not None]
    key = failed[0].key if failed and one.state is not State.INVALID else ""
    problem_at = failed[0].problem.place if failed and failed[0].problem is not None else None
    location = str(problem_at) if problem_at is not None else one.file if not key else ""
    return _of_object(f"environment/{one.name}", one, build=key, location=location)


def _of_object(
    target: str,
    one: EnvironmentStatus | InstanceStatus,
    phase: str = "",
    *,
    build: str = "",
    location: str = "",
) -> Attention:
    step = STEPS.get(one.state, NOTHING)
    can_retry = step.command == RETRY
    kind, _, name = target.partition("/")
    return Attention(
        group_of(one.state),
        label_of(one.state, phase),
        target,
        name,
        f"/{kind}s/{name}",
        str(one.reason),
        one.message,
        since(one),
        step.text,
        f"{RETRY} {target}" if can_retry else step.command,
        location,
        build,
        can_retry,
    )
