"""Effects of the daemon's plans, and the reports of their outcome.

Every function here runs in a worker thread, may be killed at any instruction, and may be run again:
it is idempotent. None raises: every outcome becomes a report, a function that applies the outcome
to a draft of the records.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from reconciler.airflow.driver import Driver
from reconciler.builder.build_job import BuildJob
from reconciler.builder.builder import Builder
from reconciler.core.budget import demanded, measured
from reconciler.core.builds import BuildOutcome, record_build
from reconciler.core.decide import record_inspection
from reconciler.core.definitions import Definitions, Environment, Instance
from reconciler.core.drift import record_healing
from reconciler.core.errors import Away, Cancelled, GroundcrewError, Retryable, Stalled
from reconciler.core.machine import RESTARTS, UNTOUCHED
from reconciler.core.model import (
    Activation,
    BuildRecord,
    DriftKind,
    InstanceRecord,
    Problem,
    StepResult,
)
from reconciler.core.patience import Patience
from reconciler.core.phases import Step, Verdict
from reconciler.core.reasons import Reason
from reconciler.core.restarts import Content, Switch
from reconciler.core.runtime import Base, Image, Runtime
from reconciler.core.steps import record_step
from reconciler.core.world import Draft, EffectKind
from reconciler.daemon.adoption import Adoption
from reconciler.daemon.deviations import base_of
from reconciler.daemon.lock_keys import shared_key
from reconciler.failpoints import failpoint
from reconciler.share.share import Share

log = logging.getLogger(__name__)

SWITCHES = frozenset({Step.SWITCH, Step.SWITCH_BACK, Step.SWITCH_SERVERS_BACK, Step.WITHDRAW})
AT_ONCE = 0.01  # seconds until a step continues after a part of it was recorded
STEP_LIMIT = 600.0  # seconds of retryable errors after which a step has failed


def nothing(draft: Draft) -> None:
    """Record nothing."""
    del draft


@dataclass(frozen=True, slots=True)
class Polled:
    """Result of a poll: new definitions, or None if nothing has changed or the poll failed."""

    definitions: Definitions | None


@dataclass(frozen=True, slots=True)
class Report:
    """Result of an effect: `apply` puts it into the records, `locks` are saved with them.

    The rest is for the loop itself: `polled` if the environments repo was polled, and
    `collect_again` if a collection of garbage was cut short.
    """

    apply: Callable[[Draft], None] = nothing
    locks: Mapping[tuple[str, str], str] = field(default_factory=dict)
    polled: Polled | None = None
    collect_again: bool = False


class Locks(Protocol):
    """Source of saved locks."""

    def lock(self, recipe_digest: str, runtime_key: str) -> str | None:
        """Return the saved lock for this recipe and runtime, or None."""


def problem_of(error: BaseException) -> Problem:
    """Return the problem for an error; an unexpected error is reported as a bug."""
    if isinstance(error, GroundcrewError):
        return Problem(error.reason, error.message, error.place)
    return Problem(Reason.INTERNAL_ERROR, f"a bug in Groundcrew: {type(error).__name__}: {error}")


# --------------------------------------------------------------------------------------- builds


@dataclass(frozen=True, slots=True)
class BuildTask:
    """Everything that one phase of one build needs."""

    build: BuildRecord
    environment: Environment
    instance: Instance
    runtime: Runtime
    lock_key: str
    log: Path
    users: tuple[Instance, ...] = ()  # all instances that the build is for


class BuildEffects:
    """Resolving, constructing and verifying, by the builder."""

    def __init__(
        self,
        builders: Callable[[Image | None], Builder],
        locks: Locks,
        adoption: Adoption,
        check_quota: Callable[[str], None] = lambda _team: None,
        keep_log: Callable[[str, Path], None] = lambda _key, _log: None,
    ) -> None:
        self._keep_log = keep_log
        self._check_quota = check_quota
        self._builders = builders
        self._locks = locks
        self._adoption = adoption

    def run(self, kind: EffectKind, task: BuildTask, cancelled: threading.Event) -> Report:
        """Carry out one phase of a build."""
        job = BuildJob(
            key=task.build.key,
            environment=task.build.environment,
            team=task.build.team,
            revision=task.build.revision,
            log=task.log,
            cancelled=cancelled,
        )
        locks: dict[tuple[str, str], str] = {}
        try:
            if kind == "construct":
                self._check_quota(task.build.team)
            builder = self._builders(task.runtime.image)
            try:
                outcome = self._phase(kind, task, job, builder, locks)
            except GroundcrewError:
                builder.leave(job)
                raise
            if kind == "verify":
                builder.leave(job)
        except Cancelled:
            outcome = BuildOutcome(kind, cancelled=True)
        except Stalled as error:
            outcome = BuildOutcome(kind, problem=problem_of(error))
        except Retryable as error:
            outcome = BuildOutcome(kind, problem=problem_of(error), retry_after=error.after or 0.0)
        except Exception as error:
            log.exception("build %s, %s", task.build.key, kind)
            outcome = BuildOutcome(kind, problem=problem_of(error), retry_after=0.0)
        if outcome.problem is not None:
            self._keep(task)
        outcome = replace(outcome, limits=demanded(task.environment.recipe.checks.budget))
        failpoint(f"daemon.{kind}.done")
        return Report(lambda draft: record_build(draft, task.build.key, outcome), locks)

    def _keep(self, task: BuildTask) -> None:
        """Put the log of a failed try where every replica finds it; if that fails, just log it."""
        try:
            self._keep_log(task.build.key, task.log)
        except (GroundcrewError, OSError) as error:
            log.warning("the log of build %s stays on this machine: %s", task.build.key, error)

    def _phase(
        self,
        kind: EffectKind,
        task: BuildTask,
        job: BuildJob,
        builder: Builder,
        locks: dict[tuple[str, str], str],
    ) -> BuildOutcome:
        recipe, runtime = task.environment.recipe, task.runtime
        kept = self._locks.lock(task.lock_key, runtime.key)
        match kind:
            case "resolve":
                if kept is not None and not task.build.refresh:
                    return BuildOutcome(kind)
                adopted = self._adoption.lock(recipe.digest, runtime.key, task.build.team)
                if adopted is not None and not task.build.refresh:
                    locks[task.lock_key, runtime.key] = adopted
                    return BuildOutcome(kind)
                return self._resolve(task, job, builder, locks)
            case "construct":
                if kept is None:
                    raise Retryable(
                        Reason.LOCK_LOST, "the lock is not in the records; resolving anew"
                    )
                built = builder.construct(job, recipe, runtime, kept)
                return BuildOutcome(kind, build_id=built.build_id, packages=built.packages)
            case "verify":
                assert task.build.build_id is not None, "a build is verified after it was built"
                build_id = task.build.build_id
                report = builder.verify(job, recipe, runtime, task.instance, build_id).report
                dags = tuple(
                    builder.check_dags(job, recipe, runtime, instance, build_id)
                    for instance in task.users
                )
                return BuildOutcome(kind, cost=measured(report), dags=dags)
            case _:
                raise AssertionError(f"{kind} is no build effect")

    def _resolve(
        self, task: BuildTask, job: BuildJob, builder: Builder, locks: dict[tuple[str, str], str]
    ) -> BuildOutcome:
        """Return a new lock, or the recorded one of exactly the same wheels."""
        recipe, runtime = task.environment.recipe, task.runtime
        wheels = builder.sources(job, recipe, runtime) if recipe.packages else ()
        shared = shared_key(recipe, wheels)
        alike = self._locks.lock(shared, runtime.key) if shared is not None else None
        if alike is not None and not task.build.refresh:
            locks[task.lock_key, runtime.key] = alike
            return BuildOutcome("resolve")
        lock = builder.resolve(job, recipe, runtime)
        for key in (task.lock_key, shared):
            if key is not None:
                locks[key, runtime.key] = lock.text
        return BuildOutcome("resolve", packages=lock.packages)


# ------------------------------------------------------------------------------------ instances


class InstanceEffects:
    """Inspections and the steps of activations."""

    def __init__(
        self,
        share: Share,
        inspect: Callable[[Base, str], Runtime],
        driver: Callable[[Instance], Driver],
        tick: Callable[[], float] = time.monotonic,
        content: Callable[[str], Content | None] = lambda _build: None,
    ) -> None:
        self._tick = tick
        self._share = share
        self._inspect = inspect
        self._driver = driver
        self._content = content
        self._patience = Patience()

    def inspect(
        self, record: InstanceRecord, seen: Callable[[str, str], None] = lambda _name, _mark: None
    ) -> Report:
        """Inspect the base's installed packages and the build that the pointer names.

        `seen` is called with the instance's name and its base's fingerprint.
        """
        name, mark = record.name, ""
        try:
            driver = self._driver(record.definition)
            mark = driver.fingerprint(record.definition)
            if not mark:  # nothing was inspected yet: `base` waits until it is
                driver.base(record.definition)
                mark = driver.fingerprint(record.definition)
            driver.permit(record.definition)
            self._share.require()  # what an empty mount point says is not what the pointer says
            runtime = self._inspect(driver.base(record.definition), record.team)
            pointer = self._share.pointer(name)
            pointed = pointer.loaded(base_of(runtime)) if pointer is not None else None
        except GroundcrewError as error:
            problem = problem_of(error)
            return Report(lambda draft: record_inspection(draft, name, mark, None, problem))
        except Exception as error:
            log.exception("inspection of %s", name)
            problem = problem_of(error)
            return Report(lambda draft: record_inspection(draft, name, mark, None, problem))
        seen(name, mark)
        return Report(lambda draft: record_inspection(draft, name, mark, runtime, None, pointed))

    def perform(self, record: InstanceRecord, now: float) -> Report:
        """Carry out the current step of the instance's activation."""
        activation = record.activation
        assert activation is not None, "a step belongs to an activation"
        activation = self._patience.look(record.name, activation, now, self._tick())
        step = activation.step
        failpoint(f"daemon.{step}.before")
        try:
            result = self._act(record, activation, now)
        except Retryable as error:
            late = now - activation.step_since > STEP_LIMIT and not (
                isinstance(error, Away) and step not in UNTOUCHED
            )
            verdict = Verdict.FAILED if late else Verdict.NOT_YET
            result = StepResult(verdict, problem_of(error), after=error.after or 5.0)
        except GroundcrewError as error:
            result = StepResult(Verdict.FAILED, problem_of(error))
        except Exception as error:
            log.exception("%s, step %s", record.name, step)
            result = StepResult(Verdict.FAILED, problem_of(error))
        self._patience.looked(record.name, self._tick())
        failpoint(f"daemon.{step}.after")
        return Report(lambda draft: record_step(draft, record.name, step, result))

    def _act(self, record: InstanceRecord, activation: Activation, now: float) -> StepResult:
        """Carry out a step; before a restart, let it be recorded what Airflow reports."""
        if activation.step in SWITCHES:
            return self._switch(record, activation)
        driver = self._driver(record.definition)
        if activation.step in RESTARTS and not activation.is_reported:
            reports = driver.reports(record.definition, activation, now)
            return StepResult(Verdict.NOT_YET, after=AT_ONCE, reports=reports)
        return driver.perform(activation.step, record.definition, activation, now)

    def _switch(self, record: InstanceRecord, activation: Activation) -> StepResult:
        """Point the instance at the step's build, if that is complete and verified."""
        assert record.runtime is not None, "an activation starts once the runtime is known"
        runtime = record.runtime
        forward = activation.step is Step.SWITCH
        wanted = activation.target.build if forward else activation.origin.build
        load_into = activation.target.load_into if forward else activation.origin.load_into
        inherits = record.inherits and (not forward or wanted == record.current.build)
        made_for = record.current.runtime if inherits else runtime.key
        name = record.name
        base = base_of(runtime)
        if self._share.points(name, base, wanted, load_into, inherits=inherits):
            return self._switched(name, activation)
        with self._share.making():  # so that nothing is collected between check and pointer write
            if wanted is not None and not self._share.verified(wanted, made_for or base.key):
                raise Stalled(
                    Reason.BUILD_MISSING,
                    f"build {wanted} is not complete and verified on the share; it is built anew",
                )
            self._share.install_loader(name)
            self._share.point(name, base, wanted, load_into, inherits=inherits)
        return self._switched(name, activation)

    def heal(self, record: InstanceRecord) -> Report:
        """Write the pointer and the loader again as they are recorded."""
        name = record.name
        try:
            done = self._write_again(record)
        except GroundcrewError as error:
            problem = problem_of(error)
            return Report(lambda draft: record_healing(draft, name, "", problem))
        except Exception as error:
            log.exception("healing %s", name)
            problem = problem_of(error)
            return Report(lambda draft: record_healing(draft, name, "", problem))
        failpoint("daemon.heal.done")
        return Report(lambda draft: record_healing(draft, name, done, None))

    def _write_again(self, record: InstanceRecord) -> str:
        """Write what has drifted; return what was done, in words."""
        runtime, drift = record.runtime, record.drift
        assert runtime is not None, "what drifts is known"
        assert drift is not None, "what drifts is known"
        base = base_of(runtime)
        build, made_for = record.current.build, record.current.runtime
        load_into = record.current.load_into or record.definition.load_into
        done = []
        with self._share.making():  # nothing is collected between the look and the pointer
            if DriftKind.LOADER in drift.kinds:
                self._share.install_loader(record.name)
                done.append("the loader was put back")
            if DriftKind.POINTER in drift.kinds:
                if build is not None and not self._share.verified(build, made_for or base.key):
                    raise Retryable(
                        Reason.BUILD_MISSING,
                        f"the pointer cannot be put right: build {build} is not complete and "
                        f"verified on the share",
                    )
                failpoint("daemon.heal.before-pointer")
                inherits = record.inherits
                self._share.point(record.name, base, build, load_into, inherits=inherits)
                if inherits and made_for is not None:
                    owner = replace(base, key=made_for, listing="")
                    self._share.point(record.name, owner, build, load_into)
                done.append(f"the pointer names {build or 'the bare base'} again")
        return "; ".join(done)

    def _switched(self, name: str, activation: Activation) -> StepResult:
        """Return what the pointer left out, and on the way forward the contents of the builds.

        Both are read from the share, so that a kill loses nothing.
        """
        pointer = self._share.pointer(name)
        dropped = pointer.dropped if pointer is not None else ()
        contents = self._contents(activation) if activation.step is Step.SWITCH else None
        return StepResult(Verdict.OK, dropped=dropped, contents=contents)

    def _contents(self, activation: Activation) -> Switch | None:
        """Return the contents of both builds; None if one is the bare base, or is not there."""
        origin, target = activation.origin.build, activation.target.build
        if activation.layout is None or origin is None or target is None:
            return None
        before, after = self._content(origin), self._content(target)
        return Switch(before, after) if before is not None and after is not None else None
