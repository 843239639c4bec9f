"""Decisions about builds: which are wanted, which start, and the outcome of each phase.

There is one build record per (environment, recipe digest, runtime). `decide` calls the decisions;
the daemon calls the outcome functions when an effect has ended.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from reconciler.core import budget
from reconciler.core.dag_checks import tell_dags
from reconciler.core.events import Authorship, BuildFailed, BuildReady, BuildRef, EventKind, Timing
from reconciler.core.model import (
    BuildRecord,
    DagCheck,
    EnvironmentRecord,
    ImportCost,
    InstanceRecord,
    Measured,
    Problem,
)
from reconciler.core.phases import BUILD_NEXT, BuildPhase
from reconciler.core.reasons import Reason
from reconciler.core.world import (
    Draft,
    Effect,
    EffectKind,
    RecordsView,
    authorship_of,
    build_key,
    environment_of,
    is_base_moved,
)

RUNNING = frozenset({BuildPhase.RESOLVING, BuildPhase.BUILDING, BuildPhase.VERIFYING})
OPEN = RUNNING | {BuildPhase.QUEUED}
EFFECT: dict[BuildPhase, EffectKind] = {
    BuildPhase.RESOLVING: "resolve",
    BuildPhase.BUILDING: "construct",
    BuildPhase.VERIFYING: "verify",
}


def enter(build: BuildRecord, phase: BuildPhase, now: float) -> BuildRecord:
    """Move a build to `phase`; the only place where a build's phase changes."""
    assert phase in BUILD_NEXT[build.phase], f"{build.phase} → {phase} is no move"
    return replace(build, phase=phase, phases=(*build.phases, (str(phase), now)))


def requeue(build: BuildRecord, now: float, *, refresh: bool = False) -> BuildRecord:
    """Start a build over, and reset its attempts."""
    if build.phase is BuildPhase.QUEUED:
        return replace(build, attempts=0, not_before=0.0, refresh=build.refresh or refresh)
    queued = enter(build, BuildPhase.QUEUED, now)
    return replace(
        queued,
        attempts=0,
        not_before=0.0,
        problem=None,
        refresh=refresh,
        created_at=now,
        phases=((str(BuildPhase.QUEUED), now),),
    )


def wanted_builds(draft: Draft) -> dict[str, tuple[EnvironmentRecord, InstanceRecord]]:
    """Return the keys of the builds that are wanted, each with an instance that needs it."""
    wanted: dict[str, tuple[EnvironmentRecord, InstanceRecord]] = {}
    for environment in draft.near_environments():
        if environment.is_suspended:
            continue
        for wave in environment.definition.rollout:
            for name in wave.instances:
                instance = draft.instances.get(name)
                if instance is None or instance.runtime is None:
                    continue
                key = build_key(
                    environment.name, environment.definition.recipe.digest, instance.runtime.key
                )
                wanted.setdefault(key, (environment, instance))
    return wanted


def decide_builds(draft: Draft, *, start: bool) -> None:
    """Cancel superseded builds, queue wanted ones, and start as many as the limits allow.

    Without a share nothing starts, and no build counts as lost.
    """
    for build in draft.near_builds():
        why = _superseded(draft, build)
        if build.phase in OPEN and why:
            draft.builds[build.key] = enter(build, BuildPhase.CANCELLED, draft.now)
            draft.cancels.append(build.key)
            draft.event(EventKind.BUILD_CANCELLED, build, why, _ref(build))
    wanted = wanted_builds(draft)
    for key, (environment, instance) in wanted.items():
        _ensure(draft, key, environment, instance)
    has_share = draft.repo.share_problem is None
    if start and has_share:
        _start(draft)
    for build in draft.near_builds():
        if build.phase in RUNNING and has_share:
            draft.effects.append(Effect(EFFECT[build.phase], build.key))
    _forget(draft, wanted)


def _superseded(draft: Draft, build: BuildRecord) -> str:
    """Return the reason why a build is of no use as it is, or ""."""
    environment = draft.environments.get(build.environment)
    if environment is None or environment.definition.recipe.digest != build.recipe_digest:
        return "a newer revision took its place"
    if environment.team != build.team:
        return f"the environment is team {environment.team}'s now"
    if maker(build, environment, draft.instances) is None:
        return "no instance has its runtime any more"
    return ""


def _ensure(
    draft: Draft, key: str, environment: EnvironmentRecord, instance: InstanceRecord
) -> None:
    build = draft.builds.get(key)
    assert instance.runtime is not None
    if build is None:
        build = BuildRecord(
            key=key,
            environment=environment.name,
            team=environment.team,
            recipe_digest=environment.definition.recipe.digest,
            runtime_key=instance.runtime.key,
            revision=environment.commit.revision,
            commit=environment.commit,
            phase=BuildPhase.QUEUED,
            created_at=draft.now,
            phases=((str(BuildPhase.QUEUED), draft.now),),
        )
        message = f"for {instance.runtime.key}"
        draft.event(EventKind.BUILD_QUEUED, build, message, _ref(build), revision=build.revision)
        draft.add_build(build)
    elif (
        build.phase is BuildPhase.CANCELLED
        or build.team != environment.team  # what another team's secrets fetched is not this team's
        or _is_lost(draft, build)
    ):
        draft.builds[key] = replace(
            requeue(build, draft.now),
            team=environment.team,
            revision=environment.commit.revision,
            commit=environment.commit,
        )
    elif build.phase is BuildPhase.READY and _has_unchecked_user(draft, build, environment):
        draft.builds[key] = requeue(build, draft.now)
    elif build.limits != budget.demanded(environment.definition.recipe.checks.budget):
        draft.builds[key] = _under_other_limits(build, environment, draft.now)


def _has_unchecked_user(draft: Draft, build: BuildRecord, environment: EnvironmentRecord) -> bool:
    """Return True if an instance joined the rollout after the build was verified.

    The build is verified again, so that the instance's DAGs are parsed before it gets the build.
    Builds of an earlier version were checked for no instance and stay as they are.
    """
    checked = {check.instance for check in build.dags}
    return bool(checked) and any(
        user.name not in checked for user in users(build, environment, draft.instances)
    )


def _is_lost(draft: Draft, build: BuildRecord) -> bool:
    """Return True if a finished build is not on the share any more, though the share is there."""
    if build.phase is not BuildPhase.READY or draft.repo.share_problem is not None:
        return False
    return build.build_id in draft.world.missing_builds


def _under_other_limits(
    build: BuildRecord, environment: EnvironmentRecord, now: float
) -> BuildRecord:
    """Return a build with its verification reviewed if the definition's limits have changed.

    A build that is within the new limits stays as it is. Any other is verified again if the result
    may change: nothing is rebuilt, and the recorded measurements usually suffice.
    """
    limits, measured = environment.definition.recipe.checks.budget, build.measured
    refused = build.phase is BuildPhase.FAILED and (
        build.problem is not None and build.problem.reason is Reason.IMPORT_BUDGET_EXCEEDED
    )
    if build.phase is BuildPhase.READY and (
        measured is not None
        and measured.build_id == build.build_id
        and budget.fits(limits, measured.cost)
    ):
        return replace(build, limits=budget.demanded(limits))
    if build.phase is BuildPhase.READY or refused:
        commit = environment.commit
        return replace(requeue(build, now), revision=commit.revision, commit=commit)
    return build


def maker(
    build: BuildRecord, environment: EnvironmentRecord, instances: Mapping[str, InstanceRecord]
) -> InstanceRecord | None:
    """Return the instance that a build is made for: after each failure the next of its runtime."""
    fit = users(build, environment, instances)
    return fit[build.attempts % len(fit)] if fit else None


def users(
    build: BuildRecord, environment: EnvironmentRecord, instances: Mapping[str, InstanceRecord]
) -> list[InstanceRecord]:
    """Return the instances that a build is for: those of the rollout that have its runtime."""
    names = [n for wave in environment.definition.rollout for n in wave.instances]
    records = [instances[n] for n in names if n in instances]
    return [r for r in records if r.runtime is not None and r.runtime.key == build.runtime_key]


def _site(draft: Draft, build: BuildRecord) -> str:
    environment = draft.environments.get(build.environment)
    instance = maker(build, environment, draft.instances) if environment is not None else None
    return instance.definition.site if instance is not None else ""


def _is_base_known(draft: Draft, build: BuildRecord) -> bool:
    """Return True if an instance is known to still have the runtime that the build is for.

    While an upgrade is in progress, a build for the outgoing base would be of no use.
    """
    environment = draft.environments.get(build.environment)
    if environment is None:
        return False
    settled = {
        name: record
        for wave in environment.definition.rollout
        for name in wave.instances
        if (record := draft.instances.get(name)) is not None and not is_base_moved(draft, record)
    }
    return maker(build, environment, settled) is not None


def _start(draft: Draft) -> None:
    """Fill free slots: first the team with the fewest running builds, then the oldest build."""
    near = [b for b in draft.near_builds() if b.phase in OPEN]
    sites = {b.key: _site(draft, b) for b in near}
    running = [b for b in near if b.phase in RUNNING]
    teams = Counter(b.team for b in running)
    places = Counter(sites[b.key] for b in running)
    queued = [b for b in near if b.phase is BuildPhase.QUEUED]
    policy = draft.policy
    ready = sorted(
        (b for b in queued if not draft.waits_until(b.not_before)),
        key=lambda b: (b.created_at, b.key),
    )
    ready = _firsts(draft, [b for b in ready if _is_base_known(draft, b)], running)
    waiting: dict[tuple[str, str], deque[BuildRecord]] = {}
    for build in ready:
        waiting.setdefault((sites[build.key], build.team), deque()).append(build)
    while waiting:
        site, team = min(
            waiting, key=lambda w: (teams[w[1]], waiting[w][0].created_at, waiting[w][0].key)
        )
        if places[site] >= policy.builds_on(site):
            waiting = {w: line for w, line in waiting.items() if w[0] != site}
            continue
        build = waiting[site, team].popleft()
        if not waiting[site, team]:
            del waiting[site, team]
        teams[team] += 1
        places[site] += 1
        draft.builds[build.key] = enter(build, BuildPhase.RESOLVING, draft.now)


def _firsts(
    draft: Draft, ready: list[BuildRecord], running: Iterable[BuildRecord]
) -> list[BuildRecord]:
    """Return queued builds that may start: of several with the same recipe and runtime, one.

    The others then find everything built, and use no slots meanwhile.
    """
    seen = {_same(b) for b in running}
    others = set()
    for build in ready:
        if _same(build) in seen:
            others.add(build.key)
        seen.add(_same(build))
    if not others:
        return ready
    made = {_same(b) for b in draft.builds.values() if b.phase is BuildPhase.READY}
    return [b for b in ready if b.key not in others or _same(b) in made]


def _same(build: BuildRecord) -> tuple[str, str]:
    return build.recipe_digest, build.runtime_key


def _forget(draft: Draft, wanted: Iterable[str]) -> None:
    """Drop finished builds that nothing refers to, beyond the newest of each environment."""
    if draft.world.records.unreadable:
        return  # unreadable records may refer to them
    keep = set(wanted)
    used = {b for i in draft.instances.values() for b in (i.current.build, i.previous.build) if b}
    seen: Counter[str] = Counter()
    for build in sorted(draft.near_builds(), key=lambda b: (-b.created_at, b.key)):
        if build.phase in OPEN or build.key in keep or build.build_id in used:
            continue
        seen[build.environment] += 1
        if build.environment not in draft.environments or (
            seen[build.environment] > draft.policy.keep_builds
        ):
            del draft.builds[build.key]


# ------------------------------------------------------------------------------------- outcomes


@dataclass(frozen=True, slots=True)
class BuildOutcome:
    """Result of a build effect: success with its findings, or a problem.

    `retry_after` is None for a problem that a person must correct, else the minimum wait in seconds
    (0: the usual back-off). `cancelled`: the daemon stopped it. For a verification, `cost` is the
    cost of the imports, `limits` are those that it was judged by, and `dags` says which DAGs were
    parsed.
    """

    kind: EffectKind
    problem: Problem | None = None
    retry_after: float | None = None
    cancelled: bool = False
    build_id: str | None = None
    packages: tuple[tuple[str, str], ...] | None = None
    cost: ImportCost | None = None
    limits: tuple[tuple[str, float], ...] = ()
    dags: tuple[DagCheck, ...] = ()


def record_build(draft: Draft, key: str, outcome: BuildOutcome) -> None:
    """Apply a finished build effect to the records."""
    build = draft.builds.get(key)
    if build is None or build.phase not in RUNNING or EFFECT[build.phase] != outcome.kind:
        return  # cancelled, forgotten or restarted meanwhile
    if outcome.kind == "verify":
        build = replace(build, limits=outcome.limits)
    if outcome.cancelled:
        draft.builds[key] = _queue_again(build, draft.now)
    elif outcome.problem is not None:
        draft.builds[key] = _failed(draft, build, outcome, outcome.problem)
    else:
        draft.builds[key] = _went_well(draft, build, outcome)


def _queue_again(build: BuildRecord, now: float) -> BuildRecord:
    queued = enter(build, BuildPhase.QUEUED, now)
    return replace(queued, phases=queued.phases[-40:])


def _failed(
    draft: Draft, build: BuildRecord, outcome: BuildOutcome, problem: Problem
) -> BuildRecord:
    build = replace(build, attempts=build.attempts + 1, problem=problem)
    if outcome.retry_after is not None:
        wait = max(outcome.retry_after, draft.policy.backoff(build.attempts))
        wait = min(wait, draft.policy.longest_wait)
        draft.event(
            EventKind.BUILD_RETRY, build, problem.message, _ref(build), reason=problem.reason
        )
        return replace(_queue_again(build, draft.now), not_before=draft.now + wait)
    failed = enter(build, BuildPhase.FAILED, draft.now)
    draft.event(
        EventKind.BUILD_FAILED,
        failed,
        problem.message,
        BuildFailed(
            _ref(failed),
            str(problem.place) if problem.place else "",
            str(build.phase),
            _timing(failed),
            _authorship(draft, build),
        ),
        reason=problem.reason,
        revision=build.revision,
    )
    return failed


def _went_well(draft: Draft, build: BuildRecord, outcome: BuildOutcome) -> BuildRecord:
    if outcome.build_id is not None:
        build = replace(build, build_id=outcome.build_id)
    if outcome.packages is not None:
        build = replace(build, packages=outcome.packages)
    following = {
        BuildPhase.RESOLVING: BuildPhase.BUILDING,
        BuildPhase.BUILDING: BuildPhase.VERIFYING,
        BuildPhase.VERIFYING: BuildPhase.READY,
    }[build.phase]
    build = enter(build, following, draft.now)
    if following is not BuildPhase.READY:
        return build
    assert build.build_id is not None, "a build is Ready only with its id"
    cost = outcome.cost or ImportCost()
    earlier = budget.build_before(draft.builds.values(), build)
    grown = budget.growth(earlier.cost, cost) if earlier is not None else ()
    draft.event(
        EventKind.BUILD_READY,
        build,
        "; ".join([f"{len(build.packages)} packages to install", *budget.words(grown)]),
        BuildReady(
            _ref(build),
            build.packages,
            budget.import_figures(cost, earlier, grown),
            _timing(build),
            _authorship(draft, build),
        ),
        reason=Reason.IMPORT_REGRESSION if grown else None,
        revision=build.revision,
    )
    for check in outcome.dags:
        tell_dags(draft, build, check)
    measured = Measured(build.build_id, cost, draft.now) if outcome.cost else build.measured
    return replace(
        build, problem=None, attempts=0, refresh=False, measured=measured, dags=outcome.dags
    )


def _ref(build: BuildRecord) -> BuildRef:
    return BuildRef(build.key, build.build_id or "")


def _authorship(draft: Draft, build: BuildRecord) -> Authorship:
    return authorship_of(draft.environments.get(build.environment), build.commit, build.revision)


def _timing(build: BuildRecord) -> Timing:
    """Return the seconds since queued, and those of each phase (repeated phases add up)."""
    phases: dict[str, float] = {}
    for (name, begun), (_, ended) in zip(build.phases, build.phases[1:], strict=False):
        phases[name] = phases.get(name, 0.0) + max(0.0, ended - begun)
    last = build.phases[-1][1] if build.phases else build.created_at
    return Timing(max(0.0, last - build.created_at), phases)


def ready_build(view: RecordsView, instance: InstanceRecord) -> BuildRecord | None:
    """Return the Ready build that the accepted definitions want on `instance`, or None."""
    environment = environment_of(view, instance.name)
    if environment is None or instance.runtime is None:
        return None
    digest = environment.definition.recipe.digest
    build = view.builds.get(build_key(environment.name, digest, instance.runtime.key))
    if build is None or build.phase is not BuildPhase.READY:
        return None
    return None if build.build_id in view.missing_builds else build
